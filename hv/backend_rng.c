/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_rng.c - random bytes of the host for the virtio entropy device.
 *
 * Threads   The io thread, under the device's lock.
 * I/O       getrandom.
 */
#include "hv/core/virtio_rng.h"
#include "hv/slice_priv.h"

#include <stdlib.h>
#include <sys/random.h>

static int rng_open(struct hv_virtio_dev *d, const struct cc_device *spec)
{
	(void)spec;
	d->state = d->mmio = calloc(1, sizeof(*d->mmio));
	if (!d->mmio)
		return -ENOMEM;
	hv_virtio_rng_init(d->mmio);
	return 0;
}

static void rng_close(struct hv_virtio_dev *d)
{
	free(d->state);
}

static void rng_serve(struct hv_virtio_dev *d)
{
	struct hv_rng_result r;
	bool irq = false;

	do {
		uint8_t random[HV_RNG_BURST];

		if (getrandom(random, sizeof(random), 0) != sizeof(random))
			return;
		r = hv_virtio_rng_serve(d->mmio, &d->mem, random);
		irq |= r.irq;
	} while (r.served && !r.broken);
	if (irq)
		hv_irq_pulse(d->dev.slice, d->gsi);
}

const struct hv_backend_ops hv_backend_rng = {
	.name = "rng",
	.open = rng_open,
	.close = rng_close,
	.serve = rng_serve,
};
