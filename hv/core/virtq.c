/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtq.c - split virtqueue, device side; see virtq.h.
 *
 * The guest may change any byte at any time: each is copied once, and only the copy is looked at.
 */
#include "hv/core/virtq.h"

#include "base/bytes.h"

#include <stdatomic.h>

/* 2.7.5, 2.7.6, 2.7.8 */
#define DESC_LEN 16u
#define DESC_F_NEXT 1u
#define DESC_F_WRITE 2u
#define AVAIL_FLAGS 0u
#define AVAIL_IDX 2u
#define AVAIL_RING 4u
#define AVAIL_F_NO_INTERRUPT 1u
#define USED_IDX 2u
#define USED_RING 4u
#define USED_LEN 8u

static enum hv_virtq_pop broken(struct hv_virtq *q)
{
	q->broken = true;
	return HV_VIRTQ_BROKEN;
}

static bool read_u16(const struct hv_guest_mem *mem, gpa_t at, uint16_t *out)
{
	uint8_t b[2];

	if (!mem->read(mem->arg, at, b, sizeof(b)))
		return false;
	*out = get_le16(b);
	return true;
}

/* Follows the chain from `head`.  A loop is longer than the queue, and so is found. */
static bool walk(const struct hv_virtq *q, const struct hv_guest_mem *mem, uint16_t head,
		 struct hv_virtq_chain *c)
{
	uint32_t total = 0;
	uint16_t k = head, flags;

	c->head = head;
	c->readable = c->writable = 0;
	c->read_bytes = c->write_bytes = 0;
	for (unsigned n = 0;; n++) {
		struct hv_virtq_seg *s = &c->segs[n];
		uint8_t d[DESC_LEN];

		if (n == HV_VIRTQ_SEGS_MAX || n == q->size || k >= q->size)
			return false;
		if (!mem->read(mem->arg, q->desc + (gpa_t)k * DESC_LEN, d, DESC_LEN))
			return false;
		*s = (struct hv_virtq_seg){ get_le64(d), get_le32(d + 8) };
		flags = get_le16(d + 12);
		if (!s->len || s->len > HV_VIRTQ_CHAIN_BYTES - total || s->gpa + s->len < s->gpa)
			return false;
		if (flags & ~(DESC_F_NEXT | DESC_F_WRITE))
			return false; /* indirect was not offered */
		total += s->len;
		if (flags & DESC_F_WRITE) {
			c->writable++;
			c->write_bytes += s->len;
		} else if (c->writable) {
			return false; /* 2.7.4.2: readable ones come first */
		} else {
			c->readable++;
			c->read_bytes += s->len;
		}
		if (!(flags & DESC_F_NEXT))
			return true;
		k = get_le16(d + 14);
	}
}

enum hv_virtq_pop hv_virtq_pop(struct hv_virtq *q, const struct hv_guest_mem *mem,
			       struct hv_virtq_chain *out)
{
	uint16_t idx, head;

	if (q->broken)
		return HV_VIRTQ_BROKEN;
	if (!q->ready)
		return HV_VIRTQ_EMPTY;
	if (!read_u16(mem, q->avail + AVAIL_IDX, &idx))
		return broken(q);
	if (idx == q->next_avail)
		return HV_VIRTQ_EMPTY;
	if ((uint16_t)(idx - q->next_avail) > q->size)
		return broken(q);
	/* Orders the read of avail.idx before those of the ring entry and the descriptors. */
	atomic_thread_fence(memory_order_acquire);
	if (!read_u16(mem, q->avail + AVAIL_RING + 2u * (q->next_avail & (q->size - 1u)), &head))
		return broken(q);
	if (!walk(q, mem, head, out))
		return broken(q);
	q->next_avail++;
	return HV_VIRTQ_CHAIN;
}

bool hv_virtq_push(struct hv_virtq *q, const struct hv_guest_mem *mem, uint16_t head,
		   uint32_t written)
{
	uint8_t e[USED_LEN], idx[2];

	if (q->broken || !q->ready)
		return !q->broken; /* reset while the back end was busy: nobody waits for it */
	put_le32(e, head);
	put_le32(e + 4, written);
	if (!mem->write(mem->arg,
			q->used + USED_RING + (gpa_t)USED_LEN * (q->next_used & (q->size - 1u)), e,
			sizeof(e)))
		return broken(q) != HV_VIRTQ_BROKEN;
	q->next_used++;
	put_le16(idx, q->next_used);
	/* Orders the stores of buffers and used entry before that of used.idx. */
	atomic_thread_fence(memory_order_release);
	if (!mem->write(mem->arg, q->used + USED_IDX, idx, sizeof(idx)))
		return broken(q) != HV_VIRTQ_BROKEN;
	return true;
}

bool hv_virtq_wants_irq(struct hv_virtq *q, const struct hv_guest_mem *mem)
{
	uint16_t flags;

	if (q->broken || !q->ready)
		return false;
	/* Orders the store of used.idx before the load of avail.flags; the driver does the mirror
	 * image. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!read_u16(mem, q->avail + AVAIL_FLAGS, &flags)) {
		q->broken = true;
		return false;
	}
	return !(flags & AVAIL_F_NO_INTERRUPT);
}

struct span {
	const struct hv_virtq_seg *segs;
	unsigned count;
};

/* Next piece of the span at byte *off, at most len bytes: its address, and its length (0: at the
 * end). */
static size_t piece(const struct span *s, size_t off, size_t len, gpa_t *gpa)
{
	for (unsigned k = 0; k < s->count; k++) {
		const struct hv_virtq_seg *g = &s->segs[k];

		if (off < g->len) {
			*gpa = g->gpa + off;
			return len < g->len - off ? len : g->len - off;
		}
		off -= g->len;
	}
	return 0;
}

size_t hv_virtq_chain_read(const struct hv_virtq_chain *c, const struct hv_guest_mem *mem,
			   size_t off, void *dst, size_t len, bool *bad)
{
	struct span s = { c->segs, c->readable };
	size_t done = 0, n;
	gpa_t gpa;

	*bad = false;
	while (done < len && (n = piece(&s, off + done, len - done, &gpa)) > 0) {
		if (!mem->read(mem->arg, gpa, (uint8_t *)dst + done, n)) {
			*bad = true;
			break;
		}
		done += n;
	}
	return done;
}

size_t hv_virtq_chain_write(const struct hv_virtq_chain *c, const struct hv_guest_mem *mem,
			    size_t off, const void *src, size_t len, bool *bad)
{
	struct span s = { c->segs + c->readable, c->writable };
	size_t done = 0, n;
	gpa_t gpa;

	*bad = false;
	while (done < len && (n = piece(&s, off + done, len - done, &gpa)) > 0) {
		if (!mem->write(mem->arg, gpa, (const uint8_t *)src + done, n)) {
			*bad = true;
			break;
		}
		done += n;
	}
	return done;
}
