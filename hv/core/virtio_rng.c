/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_rng.c - entropy; see virtio_rng.h.  Pure: the random bytes are the caller's.
 *
 * Spec: VIRTIO 1.2, 5.4.6.
 */
#include "hv/core/virtio_rng.h"

const struct hv_virtio_type hv_virtio_rng_type = {
	.device_id = HV_VIRTIO_RNG,
	.queues_count = 1,
	.queue_max = 16,
};

void hv_virtio_rng_init(struct hv_virtio_mmio *v)
{
	hv_virtio_mmio_init(v, &hv_virtio_rng_type, 0);
}

static struct hv_rng_result broke(struct hv_virtio_mmio *v)
{
	return (struct hv_rng_result){ .irq = hv_virtio_mmio_break(v), .broken = true };
}

struct hv_rng_result hv_virtio_rng_serve(struct hv_virtio_mmio *v, const struct hv_guest_mem *mem,
					 const uint8_t random[static HV_RNG_BURST])
{
	struct hv_virtq *q = &v->queue[0];
	struct hv_virtq_chain c;
	struct hv_rng_result r = { 0 };
	size_t n;
	bool bad;

	if (!hv_virtio_mmio_running(v))
		return r;
	switch (hv_virtq_pop(q, mem, &c)) {
	case HV_VIRTQ_EMPTY:
		return r;
	case HV_VIRTQ_BROKEN:
		return broke(v);
	case HV_VIRTQ_CHAIN:
		break;
	}
	n = hv_virtq_chain_write(&c, mem, 0, random, HV_RNG_BURST, &bad);
	if (bad || !n || !hv_virtq_push(q, mem, c.head, (uint32_t)n))
		return broke(v);
	r.served = true;
	r.irq = hv_virtq_wants_irq(q, mem);
	if (q->broken)
		return broke(v);
	if (r.irq)
		hv_virtio_mmio_interrupt(v);
	return r;
}
