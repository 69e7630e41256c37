/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_blk.h - block device: from a descriptor chain to an operation for the back end,
 * and back.
 *
 * What      hv_virtio_blk_parse reads the request header and checks it; the back end moves the
 *           bytes between the chain's segments and the disk; hv_virtio_blk_finish writes the status
 *           byte and gives the chain back.
 * Threads   As struct hv_virtq.
 * Spec      VIRTIO 1.2, 5.2.
 */
#ifndef HV_CORE_VIRTIO_BLK_H
#define HV_CORE_VIRTIO_BLK_H

#include "hv/core/virtio_mmio.h"

#define HV_BLK_SECTOR 512u
#define HV_BLK_ID_LEN 20
#define HV_BLK_F_SEG_MAX (1ull << 2)
#define HV_BLK_F_RO (1ull << 5)
#define HV_BLK_F_FLUSH (1ull << 9)

enum hv_blk_kind {
	HV_BLK_READ, /* disk at `offset`, `len` bytes, into the chain's writable part from byte 0 */
	HV_BLK_WRITE,  /* chain's readable part from byte `data_off` to the disk */
	HV_BLK_FLUSH,  /* what was written before must be on stable storage */
	HV_BLK_GET_ID, /* HV_BLK_ID_LEN bytes, NUL-padded, into the writable part from byte 0 */
	HV_BLK_DONE,   /* nothing to do: finish with `status` */
};

enum hv_blk_status { HV_BLK_OK = 0, HV_BLK_IOERR = 1, HV_BLK_UNSUPP = 2 };

struct hv_blk_op {
	enum hv_blk_kind kind;
	enum hv_blk_status status; /* HV_BLK_DONE: as refused */
	uint64_t offset;           /* bytes on the disk */
	uint32_t len;              /* bytes */
	uint32_t data_off;         /* HV_BLK_WRITE: where data begins in the readable part */
};

extern const struct hv_virtio_type hv_virtio_blk_type;

/* Configuration for a disk of `bytes` (whole sectors are used). */
void hv_virtio_blk_init(struct hv_virtio_mmio *v, uint64_t bytes, bool read_only);
/* False: the chain cannot be answered at all (no status byte, memory fails): break the device. */
bool hv_virtio_blk_parse(const struct hv_virtio_mmio *v, const struct hv_virtq_chain *c,
			 const struct hv_guest_mem *mem, struct hv_blk_op *op);
/* Status byte and used entry.  False: break the device. */
bool hv_virtio_blk_finish(struct hv_virtio_mmio *v, const struct hv_virtq_chain *c,
			  const struct hv_guest_mem *mem, const struct hv_blk_op *op,
			  enum hv_blk_status status);

#endif
