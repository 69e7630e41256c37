/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_rng.h - entropy device: one queue of writable buffers.
 *
 * Threads   As struct hv_virtq.
 * Spec      VIRTIO 1.2, 5.4.
 */
#ifndef HV_CORE_VIRTIO_RNG_H
#define HV_CORE_VIRTIO_RNG_H

#include "hv/core/virtio_mmio.h"

#define HV_RNG_BURST 256 /* bytes given per buffer at most */

struct hv_rng_result {
	bool served; /* one buffer was filled: call again with fresh bytes */
	bool irq;    /* pulse the GSI */
	bool broken;
};

extern const struct hv_virtio_type hv_virtio_rng_type;

void hv_virtio_rng_init(struct hv_virtio_mmio *v);
/* Fills the next buffer with (a part of) `random`. */
struct hv_rng_result hv_virtio_rng_serve(struct hv_virtio_mmio *v, const struct hv_guest_mem *mem,
					 const uint8_t random[static HV_RNG_BURST]);

#endif
