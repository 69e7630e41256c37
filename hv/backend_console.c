/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_console.c - the terminal behind the virtio console.
 *
 * What      Output goes to the console ring as long as there is room; what does not fit stays in the guest's queue until
 *           the ring has been flushed.
 * Threads   The io thread, under the device's lock.
 */
#include "hv/core/virtio_console.h"
#include "hv/slice_priv.h"

#include <stdlib.h>

#define COLS 80
#define ROWS 25

static int console_open(struct hv_virtio_dev *d, const struct cc_device *spec)
{
	struct hv_virtio_console *c = calloc(1, sizeof(*c));

	(void)spec;
	if (!c)
		return -ENOMEM;
	hv_virtio_console_init(c, COLS, ROWS);
	d->state = c;
	d->mmio = &c->mmio;
	return 0;
}

static void console_close(struct hv_virtio_dev *d)
{
	free(d->state);
}

static void console_reset(struct hv_virtio_dev *d)
{
	hv_virtio_console_reset(d->state);
}

static bool console_output(struct hv_virtio_dev *d)
{
	struct hv_slice *s = d->dev.slice;
	bool irq = false;

	for (;;) {
		uint8_t buf[4096];
		size_t room = hv_console_room(s);
		size_t cap = room < sizeof(buf) ? room : sizeof(buf);
		struct hv_console_result r;

		if (!cap) {
			hv_virtio_work(d); /* once more after the flush */
			break;
		}
		r = hv_virtio_console_output(d->state, &d->mem, buf, cap);
		if (r.bytes)
			atomic_store(&s->console.serial_spoke, false);
		hv_console_put(s, buf, r.bytes);
		irq |= r.irq;
		if (r.bytes < cap)
			break;
	}
	return irq;
}

static bool console_input(struct hv_virtio_dev *d)
{
	struct hv_slice *s = d->dev.slice;
	bool irq = false;

	for (;;) {
		uint8_t buf[4096];
		size_t len = hv_console_peek(s, buf, sizeof(buf));
		struct hv_console_result r;

		if (!len)
			break;
		r = hv_virtio_console_input(d->state, &d->mem, buf, len);
		hv_console_taken(s, r.bytes);
		irq |= r.irq;
		if (r.bytes < len)
			break;
	}
	return irq;
}

static void console_serve(struct hv_virtio_dev *d)
{
	bool irq = console_output(d);

	if (hv_virtio_mmio_running(d->mmio) && !atomic_load(&d->dev.slice->console.serial_spoke))
		irq |= console_input(d);
	if (irq)
		hv_irq_pulse(d->dev.slice, d->gsi);
}

const struct hv_backend_ops hv_backend_console = {
	.name = "console",
	.open = console_open,
	.close = console_close,
	.serve = console_serve,
	.reset = console_reset,
};
