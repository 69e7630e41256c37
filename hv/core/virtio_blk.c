/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_blk.c - block requests; see virtio_blk.h.  Pure.
 *
 * Spec: VIRTIO 1.2, 5.2.4 (configuration), 5.2.6 (requests).
 */
#include "hv/core/virtio_blk.h"

#include "base/bytes.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8 };

#define HEADER_LEN 16u
#define CONFIG_CAPACITY 0
#define CONFIG_SEG_MAX 12
#define CONFIG_LEN 24 /* capacity .. blk_size */

/* A chain is header, data, status. */
#define SEG_MAX (HV_VIRTQ_SEGS_MAX - 2)

const struct hv_virtio_type hv_virtio_blk_type = {
	.device_id = HV_VIRTIO_BLK,
	.queues_count = 1,
	.queue_max = 256,
	.config_len = CONFIG_LEN,
	.features = HV_BLK_F_SEG_MAX | HV_BLK_F_FLUSH,
};

void hv_virtio_blk_init(struct hv_virtio_mmio *v, uint64_t bytes, bool read_only)
{
	hv_virtio_mmio_init(v, &hv_virtio_blk_type, read_only ? HV_BLK_F_RO : 0);
	put_le64(v->config + CONFIG_CAPACITY, bytes / HV_BLK_SECTOR);
	put_le32(v->config + CONFIG_SEG_MAX, SEG_MAX);
}

static void refuse(struct hv_blk_op *op, enum hv_blk_status status)
{
	*op = (struct hv_blk_op){ .kind = HV_BLK_DONE, .status = status };
}

static void parse_io(const struct hv_virtio_mmio *v, const struct hv_virtq_chain *c, bool write,
		     uint64_t sector, struct hv_blk_op *op)
{
	uint64_t capacity = get_le64(v->config + CONFIG_CAPACITY);
	uint32_t len = write ? c->read_bytes - HEADER_LEN : c->write_bytes - 1;

	if (len % HV_BLK_SECTOR || sector > capacity || len / HV_BLK_SECTOR > capacity - sector ||
	    (write && (v->offered & HV_BLK_F_RO))) {
		refuse(op, HV_BLK_IOERR);
		return;
	}
	*op = (struct hv_blk_op){
		.kind = write ? HV_BLK_WRITE : HV_BLK_READ,
		.offset = sector * HV_BLK_SECTOR,
		.len = len,
		.data_off = write ? HEADER_LEN : 0,
	};
}

bool hv_virtio_blk_parse(const struct hv_virtio_mmio *v, const struct hv_virtq_chain *c,
			 const struct hv_guest_mem *mem, struct hv_blk_op *op)
{
	uint8_t h[HEADER_LEN];
	bool bad;

	if (!c->write_bytes || c->read_bytes < HEADER_LEN)
		return false; /* no room for the status byte, or no whole header */
	if (hv_virtq_chain_read(c, mem, 0, h, sizeof(h), &bad) != sizeof(h))
		return false;
	switch (get_le32(h)) {
	case T_IN:
	case T_OUT:
		parse_io(v, c, get_le32(h) == T_OUT, get_le64(h + 8), op);
		break;
	case T_FLUSH:
		*op = (struct hv_blk_op){ .kind = HV_BLK_FLUSH };
		break;
	case T_GET_ID:
		if (c->write_bytes - 1 < HV_BLK_ID_LEN)
			refuse(op, HV_BLK_IOERR);
		else
			*op = (struct hv_blk_op){ .kind = HV_BLK_GET_ID, .len = HV_BLK_ID_LEN };
		break;
	default:
		refuse(op, HV_BLK_UNSUPP);
		break;
	}
	return true;
}

bool hv_virtio_blk_finish(struct hv_virtio_mmio *v, const struct hv_virtq_chain *c,
			  const struct hv_guest_mem *mem, const struct hv_blk_op *op,
			  enum hv_blk_status status)
{
	uint8_t byte = (uint8_t)status;
	bool to_guest =
		     (op->kind == HV_BLK_READ || op->kind == HV_BLK_GET_ID) && status == HV_BLK_OK,
	     bad;

	/* The status is the last writable byte (5.2.6). */
	if (hv_virtq_chain_write(c, mem, c->write_bytes - 1, &byte, 1, &bad) != 1)
		return false;
	return hv_virtq_push(&v->queue[0], mem, c->head, 1 + (to_guest ? op->len : 0));
}
