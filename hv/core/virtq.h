/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtq.h - the device's side of a split virtqueue.
 *
 * What      Takes descriptor chains from guest memory and gives them back.  Every guest word is
 *           copied once and then checked; a queue that breaks the rules becomes `broken` and stays
 *           so until the device is reset.
 * Threads   One at a time per queue; the caller guards it.  The guest's vCPUs run meanwhile.
 * I/O       None; guest memory is reached through struct hv_guest_mem, which may block (remote
 *           pages).
 * Limits    HV_VIRTQ_SIZE_MAX entries, HV_VIRTQ_SEGS_MAX segments in a chain, HV_VIRTQ_CHAIN_BYTES
 *           in total. No indirect descriptors, no event index (not offered).
 * Spec      VIRTIO 1.2, 2.7.
 */
#ifndef HV_CORE_VIRTQ_H
#define HV_CORE_VIRTQ_H

#include "base/types.h"

/* How a device reaches guest RAM.  False: not RAM, or the VM is ending.  len may cross pages. */
struct hv_guest_mem {
	bool (*read)(void *arg, gpa_t src, void *dst, size_t len);
	bool (*write)(void *arg, gpa_t dst, const void *src, size_t len);
	void *arg;
};

#define HV_VIRTQ_SIZE_MAX 256
#define HV_VIRTQ_SEGS_MAX 130
#define HV_VIRTQ_CHAIN_BYTES (64u << 20)

struct hv_virtq {
	gpa_t desc, avail, used;
	uint16_t size;                  /* power of two */
	uint16_t next_avail, next_used; /* free-running */
	bool ready, broken;
};

struct hv_virtq_seg {
	gpa_t gpa;
	uint32_t len; /* not 0 */
};

/* segs[0 .. readable) are for the device to read, segs[readable .. readable + writable) to write.
 * */
struct hv_virtq_chain {
	uint16_t head;
	uint16_t readable, writable;
	uint32_t read_bytes, write_bytes; /* sums */
	struct hv_virtq_seg segs[HV_VIRTQ_SEGS_MAX];
};

enum hv_virtq_pop { HV_VIRTQ_EMPTY, HV_VIRTQ_CHAIN, HV_VIRTQ_BROKEN };

/* Takes the next chain.  Not ready is EMPTY. */
enum hv_virtq_pop hv_virtq_pop(struct hv_virtq *q, const struct hv_guest_mem *mem,
			       struct hv_virtq_chain *out);
/* Gives chain `head` back, `written` bytes stored into it.  False: broken. */
bool hv_virtq_push(struct hv_virtq *q, const struct hv_guest_mem *mem, uint16_t head,
		   uint32_t written);
/* After pushes: does the driver want an interrupt (2.7.7)? */
bool hv_virtq_wants_irq(struct hv_virtq *q, const struct hv_guest_mem *mem);

/* Copies from the readable part at byte `off`, up to `len`; bytes copied, stopping where memory
 * fails (*bad). */
size_t hv_virtq_chain_read(const struct hv_virtq_chain *c, const struct hv_guest_mem *mem,
			   size_t off, void *dst, size_t len, bool *bad);
/* The same into the writable part. */
size_t hv_virtq_chain_write(const struct hv_virtq_chain *c, const struct hv_guest_mem *mem,
			    size_t off, const void *src, size_t len, bool *bad);

#endif
