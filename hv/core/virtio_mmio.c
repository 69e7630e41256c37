/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_mmio.c - virtio-mmio registers; see virtio_mmio.h.  Pure.
 *
 * Spec: VIRTIO 1.2, 4.2.2; offsets of table 4.1.
 */
#include "hv/core/virtio_mmio.h"

#include "base/assert.h"
#include "base/bytes.h"

#define MAGIC 0x74726976u
#define VERSION 2u
#define VENDOR 0x6d756e75u /* "unum" */

#define ISR_USED 1u
#define ISR_CONFIG 2u

enum {
	R_MAGIC = 0x000,
	R_VERSION = 0x004,
	R_DEVICE = 0x008,
	R_VENDOR = 0x00c,
	R_OFFERED = 0x010,
	R_OFFERED_SEL = 0x014,
	R_ACCEPTED = 0x020,
	R_ACCEPTED_SEL = 0x024,
	R_QUEUE_SEL = 0x030,
	R_QUEUE_MAX = 0x034,
	R_QUEUE_NUM = 0x038,
	R_QUEUE_READY = 0x044,
	R_NOTIFY = 0x050,
	R_ISR = 0x060,
	R_ACK = 0x064,
	R_STATUS = 0x070,
	R_DESC = 0x080,
	R_DESC_HIGH = 0x084,
	R_AVAIL = 0x090,
	R_AVAIL_HIGH = 0x094,
	R_USED = 0x0a0,
	R_USED_HIGH = 0x0a4,
	R_GENERATION = 0x0fc,
	R_CONFIG = 0x100,
};

void hv_virtio_mmio_init(struct hv_virtio_mmio *v, const struct hv_virtio_type *type,
			 uint64_t more_features)
{
	ASSERT(type->queues_count <= HV_VIRTIO_QUEUES && type->config_len <= HV_VIRTIO_CONFIG);
	ASSERT(type->queue_max && type->queue_max <= HV_VIRTQ_SIZE_MAX);
	*v = (struct hv_virtio_mmio){
		.device_id = type->device_id,
		.offered = type->features | more_features | HV_VIRTIO_F_VERSION_1,
		.queues_count = type->queues_count,
		.queue_max = type->queue_max,
		.config_len = type->config_len,
	};
}

/* 2.4: everything but what the device is. */
static void reset(struct hv_virtio_mmio *v)
{
	v->accepted = 0;
	v->offered_sel = v->accepted_sel = v->queue_sel = 0;
	v->status = v->isr = 0;
	memset(v->queue, 0, sizeof(v->queue));
}

static const struct hv_virtq *selected(const struct hv_virtio_mmio *v)
{
	return v->queue_sel < v->queues_count ? &v->queue[v->queue_sel] : NULL;
}

static uint64_t config_read(const struct hv_virtio_mmio *v, uint32_t at, unsigned size)
{
	uint64_t out = 0;

	if (at < v->config_len && size <= v->config_len - at)
		memcpy(&out, v->config + at, size);
	return out;
}

uint64_t hv_virtio_mmio_read(const struct hv_virtio_mmio *v, uint32_t offset, unsigned size)
{
	if (offset >= R_CONFIG)
		return config_read(v, offset - R_CONFIG, size);
	if (size != 4)
		return 0; /* 4.2.2.2: control registers are 32 bits wide */
	switch (offset) {
	case R_MAGIC:
		return MAGIC;
	case R_VERSION:
		return VERSION;
	case R_DEVICE:
		return v->device_id;
	case R_VENDOR:
		return VENDOR;
	case R_OFFERED:
		return v->offered_sel < 2 ? (uint32_t)(v->offered >> (32 * v->offered_sel)) : 0;
	case R_QUEUE_MAX:
		return selected(v) ? v->queue_max : 0;
	case R_QUEUE_READY:
		return selected(v) && selected(v)->ready;
	case R_ISR:
		return v->isr;
	case R_STATUS:
		return v->status;
	case R_GENERATION:
		return v->config_generation;
	default:
		return 0;
	}
}

static void accept_features(struct hv_virtio_mmio *v, uint32_t bits)
{
	unsigned shift = 32 * v->accepted_sel;

	if (v->accepted_sel > 1 || (v->status & HV_VIRTIO_FEATURES_OK))
		return;
	v->accepted = (v->accepted & ~(0xffffffffull << shift)) | (uint64_t)bits << shift;
}

static void status_write(struct hv_virtio_mmio *v, uint32_t s, struct hv_virtio_effects *fx)
{
	uint32_t set = s & ~v->status;

	if (!s) {
		reset(v);
		fx->reset = true;
		return;
	}
	/* 3.1.1: refused when the driver took what was not offered, or is a legacy driver. */
	if ((set & HV_VIRTIO_FEATURES_OK) &&
	    ((v->accepted & ~v->offered) || !(v->accepted & HV_VIRTIO_F_VERSION_1)))
		s &= ~(uint32_t)HV_VIRTIO_FEATURES_OK;
	if (!(s & HV_VIRTIO_FEATURES_OK))
		s &= ~(uint32_t)HV_VIRTIO_DRIVER_OK;
	fx->started = (s & HV_VIRTIO_DRIVER_OK) && !(v->status & HV_VIRTIO_DRIVER_OK);
	v->status =
		(s & 0xff & ~(uint32_t)HV_VIRTIO_NEEDS_RESET) | (v->status & HV_VIRTIO_NEEDS_RESET);
}

static void set_half(gpa_t *a, bool high, uint32_t value)
{
	*a = high ? (*a & 0xffffffffull) | (uint64_t)value << 32 : (*a & ~0xffffffffull) | value;
}

/* 4.2.3.2; 2.7: alignments 16, 2 and 4. */
static void queue_ready(struct hv_virtq *q, uint32_t value)
{
	if (!(value & 1)) {
		*q = (struct hv_virtq){ 0 };
		return;
	}
	if (q->ready)
		return;
	if (!q->size || (q->desc & 15) || (q->avail & 1) || (q->used & 3))
		q->broken = true;
	q->ready = true;
	q->next_avail = q->next_used = 0;
}

static void queue_write(struct hv_virtio_mmio *v, uint32_t offset, uint32_t value)
{
	struct hv_virtq *q = v->queue_sel < v->queues_count ? &v->queue[v->queue_sel] : NULL;

	if (!q)
		return;
	if (offset == R_QUEUE_READY) {
		queue_ready(q, value);
		return;
	}
	if (q->ready)
		return; /* 4.2.2.2: not while it is in use */
	switch (offset) {
	case R_QUEUE_NUM:
		if (value && value <= v->queue_max && !(value & (value - 1)))
			q->size = (uint16_t)value;
		else
			q->size = 0;
		break;
	case R_DESC:
	case R_DESC_HIGH:
		set_half(&q->desc, offset & 4, value);
		break;
	case R_AVAIL:
	case R_AVAIL_HIGH:
		set_half(&q->avail, offset & 4, value);
		break;
	default:
		set_half(&q->used, offset & 4, value);
		break;
	}
}

void hv_virtio_mmio_write(struct hv_virtio_mmio *v, uint32_t offset, unsigned size, uint64_t value,
			  struct hv_virtio_effects *fx)
{
	uint32_t w = (uint32_t)value;

	*fx = (struct hv_virtio_effects){ .notify = HV_VIRTIO_NO_QUEUE };
	if (size != 4 || offset >= R_CONFIG)
		return; /* no configuration field of ours can be written by a driver */
	switch (offset) {
	case R_OFFERED_SEL:
		v->offered_sel = w;
		break;
	case R_ACCEPTED:
		accept_features(v, w);
		break;
	case R_ACCEPTED_SEL:
		v->accepted_sel = w;
		break;
	case R_QUEUE_SEL:
		v->queue_sel = w;
		break;
	case R_NOTIFY:
		if (w < v->queues_count && hv_virtio_mmio_running(v))
			fx->notify = w;
		break;
	case R_ACK:
		v->isr &= ~w;
		break;
	case R_STATUS:
		status_write(v, w, fx);
		break;
	case R_QUEUE_NUM:
	case R_QUEUE_READY:
	case R_DESC:
	case R_DESC_HIGH:
	case R_AVAIL:
	case R_AVAIL_HIGH:
	case R_USED:
	case R_USED_HIGH:
		queue_write(v, offset, w);
		break;
	default:
		break;
	}
}

bool hv_virtio_mmio_running(const struct hv_virtio_mmio *v)
{
	return (v->status & HV_VIRTIO_DRIVER_OK) &&
	       !(v->status & (HV_VIRTIO_NEEDS_RESET | HV_VIRTIO_FAILED));
}

void hv_virtio_mmio_interrupt(struct hv_virtio_mmio *v)
{
	v->isr |= ISR_USED;
}

bool hv_virtio_mmio_break(struct hv_virtio_mmio *v)
{
	bool first = !(v->status & HV_VIRTIO_NEEDS_RESET);

	v->status |= HV_VIRTIO_NEEDS_RESET;
	if (first && (v->status & HV_VIRTIO_DRIVER_OK)) { /* 2.1.2 */
		v->isr |= ISR_CONFIG;
		return true;
	}
	return false;
}
