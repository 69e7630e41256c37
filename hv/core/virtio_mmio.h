/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_mmio.h - the register machine of one virtio-mmio device.
 *
 * What      Discovery, features, status, queue set-up, notifications, interrupt status,
 *           configuration bytes.  The device behind it gets effects; it reports through
 *           hv_virtio_mmio_interrupt.
 * Threads   One at a time per struct; the caller guards it.
 * Limits    HV_VIRTIO_QUEUES queues, HV_VIRTIO_CONFIG bytes of configuration (read-only to the
 *           driver); VERSION_1 only.
 * Spec      VIRTIO 1.2, 4.2.2 (registers), 2.1 (status), 3.1 (initialization).
 */
#ifndef HV_CORE_VIRTIO_MMIO_H
#define HV_CORE_VIRTIO_MMIO_H

#include "hv/core/virtq.h"

#define HV_VIRTIO_QUEUES 3
#define HV_VIRTIO_CONFIG 64
#define HV_VIRTIO_F_VERSION_1 (1ull << 32)
#define HV_VIRTIO_NO_QUEUE (~0u)

enum hv_virtio_id {
	HV_VIRTIO_NET = 1,
	HV_VIRTIO_BLK = 2,
	HV_VIRTIO_CONSOLE = 3,
	HV_VIRTIO_RNG = 4
};

enum {
	HV_VIRTIO_ACKNOWLEDGE = 1,
	HV_VIRTIO_DRIVER = 2,
	HV_VIRTIO_DRIVER_OK = 4,
	HV_VIRTIO_FEATURES_OK = 8,
	HV_VIRTIO_NEEDS_RESET = 64,
	HV_VIRTIO_FAILED = 128,
};

struct hv_virtio_mmio {
	uint32_t device_id; /* enum hv_virtio_id */
	uint64_t offered, accepted;
	uint32_t offered_sel, accepted_sel;
	uint32_t queue_sel, queues_count, queue_max; /* queue_max: entries, power of two */
	uint32_t status, isr, config_generation, config_len;
	struct hv_virtq queue[HV_VIRTIO_QUEUES];
	uint8_t config[HV_VIRTIO_CONFIG];
};

struct hv_virtio_effects {
	uint32_t notify; /* queue that has work, or HV_VIRTIO_NO_QUEUE */
	bool irq;        /* pulse the device's GSI */
	bool started;    /* DRIVER_OK just set */
	bool reset;      /* forget everything in flight; queues are already clear */
};

/* What a device type is: a const table entry per type (hv_virtio_blk_type, ...). */
struct hv_virtio_type {
	uint32_t device_id;
	uint32_t queues_count, queue_max, config_len;
	uint64_t features; /* without VERSION_1, which is always offered */
};

void hv_virtio_mmio_init(struct hv_virtio_mmio *v, const struct hv_virtio_type *type,
			 uint64_t more_features);
/* offset within the slot.  Effects are overwritten. */
uint64_t hv_virtio_mmio_read(const struct hv_virtio_mmio *v, uint32_t offset, unsigned size);
void hv_virtio_mmio_write(struct hv_virtio_mmio *v, uint32_t offset, unsigned size, uint64_t value,
			  struct hv_virtio_effects *fx);
/* Device may take and give buffers. */
bool hv_virtio_mmio_running(const struct hv_virtio_mmio *v);
/* Used buffers were added and the driver wants to know: sets the interrupt status; the caller
 * pulses the GSI. */
void hv_virtio_mmio_interrupt(struct hv_virtio_mmio *v);
/* A queue is broken: NEEDS_RESET, configuration interrupt; true when the GSI is to be pulsed (first
 * time only). */
bool hv_virtio_mmio_break(struct hv_virtio_mmio *v);

#endif
