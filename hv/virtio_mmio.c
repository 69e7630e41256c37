/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_mmio.c - one virtio device on the bus: register accesses to the core's register machine, work to its back end.
 *
 * What      A register write only sets state and wakes the io thread; back ends run there.  A notification does not
 *           even take the lock, so that it never waits for a back end that is at work.
 * Threads   Bus calls; serve: the io thread, under dev.lock.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

#define REG_QUEUE_NOTIFY 0x50u         /* VIRTIO 1.2, table 4.1 */
#define MEM_TIMEOUT_NS (60 * NS_PER_S) /* a frozen peer is declared lost long before */

static struct hv_virtio_dev *of(struct hv_device *d)
{
	return container_of(d, struct hv_virtio_dev, dev);
}

static bool mem_read(void *arg, gpa_t src, void *dst, size_t len)
{
	struct hv_slice *s = arg;

	return !dsm_copy_in(s->dsm, dst, src, len, clock_now_ns() + MEM_TIMEOUT_NS);
}

static bool mem_write(void *arg, gpa_t dst, const void *src, size_t len)
{
	struct hv_slice *s = arg;

	return !dsm_copy_out(s->dsm, dst, src, len, clock_now_ns() + MEM_TIMEOUT_NS);
}

void hv_virtio_work(struct hv_virtio_dev *d)
{
	atomic_store(&d->work, true);
	hv_io_wake(d->dev.slice);
}

static uint64_t mmio_read(struct hv_device *dev, uint64_t addr, unsigned size)
{
	struct hv_virtio_dev *d = of(dev);

	return hv_virtio_mmio_read(d->mmio, (uint32_t)(addr - d->base), size);
}

static void mmio_write(struct hv_device *dev, uint64_t addr, unsigned size, uint64_t value)
{
	struct hv_virtio_dev *d = of(dev);
	struct hv_virtio_effects fx;

	hv_virtio_mmio_write(d->mmio, (uint32_t)(addr - d->base), size, value, &fx);
	if (fx.reset && d->backend->reset)
		d->backend->reset(d);
	if (fx.irq)
		hv_irq_pulse(dev->slice, d->gsi);
	if (fx.started || fx.notify != HV_VIRTIO_NO_QUEUE)
		hv_virtio_work(d);
}

static bool mmio_write_fast(struct hv_device *dev, uint64_t addr, unsigned size, uint64_t value)
{
	struct hv_virtio_dev *d = of(dev);

	(void)value; /* serve looks at all queues */
	if (addr - d->base != REG_QUEUE_NOTIFY || size != 4)
		return false;
	hv_virtio_work(d);
	return true;
}

static const struct hv_device_ops virtio_ops = {
	.name = "virtio",
	.read = mmio_read,
	.write = mmio_write,
	.write_fast = mmio_write_fast,
};

void hv_virtio_serve(struct hv_virtio_dev *d)
{
	if (!atomic_load(&d->work) || !atomic_exchange(&d->work, false))
		return;
	pthread_mutex_lock(&d->dev.lock);
	if (hv_virtio_mmio_running(d->mmio))
		d->backend->serve(d);
	pthread_mutex_unlock(&d->dev.lock);
}

bool hv_virtio_console_up(struct hv_slice *s)
{
	for (unsigned i = 0; i < s->virtio_slots; i++) {
		struct hv_virtio_dev *d = s->virtio[i];
		bool up;

		if (!d || d->backend != &hv_backend_console)
			continue;
		pthread_mutex_lock(&d->dev.lock);
		up = hv_virtio_mmio_running(d->mmio);
		pthread_mutex_unlock(&d->dev.lock);
		if (up)
			return true;
	}
	return false;
}

static const struct hv_backend_ops *const backends[CC_DEV_KINDS] = {
	[CC_DEV_CONSOLE] = &hv_backend_console,
	[CC_DEV_BLK] = &hv_backend_blk,
	[CC_DEV_RNG] = &hv_backend_rng,
};

int hv_virtio_open(struct hv_slice *s, const struct cc_device *spec, unsigned slot,
		   struct hv_virtio_dev **out)
{
	struct hv_virtio_dev *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->backend = backends[spec->kind];
	d->base = HV_VIRTIO_BASE + (uint64_t)slot * HV_VIRTIO_STRIDE;
	d->gsi = HV_VIRTIO_GSI_BASE + slot;
	d->mem = (struct hv_guest_mem){ mem_read, mem_write, s };
	hv_device_init(&d->dev, s, &virtio_ops);
	err = d->backend ? d->backend->open(d, spec) : -ENOTSUP;
	if (err) {
		free(d);
		return err;
	}
	*out = d;
	return 0;
}

void hv_virtio_close(struct hv_virtio_dev *d)
{
	d->backend->close(d);
	pthread_mutex_destroy(&d->dev.lock);
	free(d);
}
