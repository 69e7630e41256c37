/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_console.h - console with one port: queue 0 towards the guest, queue 1 from it.
 *
 * Threads   As struct hv_virtq.
 * Spec      VIRTIO 1.2, 5.3.
 */
#ifndef HV_CORE_VIRTIO_CONSOLE_H
#define HV_CORE_VIRTIO_CONSOLE_H

#include "hv/core/virtio_mmio.h"

enum { HV_CONSOLE_RX, HV_CONSOLE_TX };

struct hv_virtio_console {
	struct hv_virtio_mmio mmio;
	/* chain of the TX queue that did not fit into the caller's buffer as a whole */
	struct hv_virtq_chain tx;
	size_t tx_off;
	bool tx_busy;
};

struct hv_console_result {
	size_t bytes;
	bool irq;    /* pulse the GSI */
	bool broken; /* the device was broken (irq set too the first time) */
};

extern const struct hv_virtio_type hv_virtio_console_type;

void hv_virtio_console_init(struct hv_virtio_console *c, uint16_t cols, uint16_t rows);
/* On effect `reset`. */
void hv_virtio_console_reset(struct hv_virtio_console *c);
/* Output of the guest, up to `cap` bytes; less than cap means that there is no more now. */
struct hv_console_result hv_virtio_console_output(struct hv_virtio_console *c,
						  const struct hv_guest_mem *mem, uint8_t *buf,
						  size_t cap);
/* Input for the guest; bytes < len when the driver has no more room: try again after the next RX
 * notify. */
struct hv_console_result hv_virtio_console_input(struct hv_virtio_console *c,
						 const struct hv_guest_mem *mem, const uint8_t *buf,
						 size_t len);

#endif
