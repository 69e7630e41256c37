/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_blk.c - a raw file, or a block device, behind a virtio disk.
 *
 * What      Requests are served one after the other, in order, through a bounce buffer; guest memory is reached page by page.
 * Threads   The io thread, under the device's lock.
 * I/O       pread, pwrite, fdatasync on the file.
 * Limits    Whole sectors of the file; its size is taken when it is opened.
 */
#include "hv/core/virtio_blk.h"
#include "hv/slice_priv.h"

#include "base/log.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOUNCE 65536u

struct blk {
	struct hv_virtio_mmio mmio;
	int fd;
	uint64_t bytes;
	bool read_only;
	char id[HV_BLK_ID_LEN];
	struct hv_virtq_chain chain;
	uint8_t bounce[BOUNCE];
};

static int file_size(int fd, uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, bytes) ? -errno : 0;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

static int blk_open(struct hv_virtio_dev *d, const struct cc_device *spec)
{
	struct blk *b = calloc(1, sizeof(*b));
	const char *name = strrchr(spec->path, '/');
	int err;

	if (!b)
		return -ENOMEM;
	b->read_only = spec->readonly;
	b->fd = open(spec->path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	err = b->fd < 0 ? -errno : file_size(b->fd, &b->bytes);
	if (err) {
		log_error("blk: %s: %s", spec->path, strerror(-err));
		if (b->fd >= 0)
			close(b->fd);
		free(b);
		return err;
	}
	name = name ? name + 1 : spec->path;
	memcpy(b->id, name, strnlen(name, sizeof(b->id)));
	hv_virtio_blk_init(&b->mmio, b->bytes, b->read_only);
	d->state = b;
	d->mmio = &b->mmio;
	return 0;
}

static void blk_close(struct hv_virtio_dev *d)
{
	struct blk *b = d->state;

	close(b->fd);
	free(b);
}

/* All of it, or false. */
static bool file_io(int fd, bool write, uint8_t *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = write ? pwrite(fd, buf, len, (off_t)offset)
				  : pread(fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		buf += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return true;
}

static enum hv_blk_status move(struct hv_virtio_dev *d, const struct hv_blk_op *op)
{
	struct blk *b = d->state;
	bool write = op->kind == HV_BLK_WRITE;

	if (op->offset > b->bytes || op->len > b->bytes - op->offset || (write && b->read_only))
		return HV_BLK_IOERR;
	for (uint32_t done = 0; done < op->len;) {
		size_t n = op->len - done < BOUNCE ? op->len - done : BOUNCE;
		bool bad = false;

		if (write && hv_virtq_chain_read(&b->chain, &d->mem, op->data_off + done, b->bounce,
						 n, &bad) != n)
			return HV_BLK_IOERR;
		if (bad || !file_io(b->fd, write, b->bounce, n, op->offset + done))
			return HV_BLK_IOERR;
		if (!write &&
		    hv_virtq_chain_write(&b->chain, &d->mem, done, b->bounce, n, &bad) != n)
			return HV_BLK_IOERR;
		done += (uint32_t)n;
	}
	return HV_BLK_OK;
}

static enum hv_blk_status perform(struct hv_virtio_dev *d, const struct hv_blk_op *op)
{
	struct blk *b = d->state;
	bool bad = false;

	switch (op->kind) {
	case HV_BLK_READ:
	case HV_BLK_WRITE:
		return move(d, op);
	case HV_BLK_FLUSH:
		return fdatasync(b->fd) ? HV_BLK_IOERR : HV_BLK_OK;
	case HV_BLK_GET_ID:
		hv_virtq_chain_write(&b->chain, &d->mem, 0, b->id, sizeof(b->id), &bad);
		return bad ? HV_BLK_IOERR : HV_BLK_OK;
	case HV_BLK_DONE:
		return op->status;
	}
	return HV_BLK_UNSUPP;
}

static void blk_serve(struct hv_virtio_dev *d)
{
	struct blk *b = d->state;
	struct hv_virtq *q = &b->mmio.queue[0];
	bool served = false, irq = false;
	enum hv_virtq_pop got;

	while ((got = hv_virtq_pop(q, &d->mem, &b->chain)) == HV_VIRTQ_CHAIN) {
		struct hv_blk_op op;

		if (!hv_virtio_blk_parse(&b->mmio, &b->chain, &d->mem, &op) ||
		    !hv_virtio_blk_finish(&b->mmio, &b->chain, &d->mem, &op, perform(d, &op))) {
			got = HV_VIRTQ_BROKEN;
			break;
		}
		served = true;
	}
	if (got == HV_VIRTQ_BROKEN) {
		irq = hv_virtio_mmio_break(&b->mmio);
	} else if (served && hv_virtq_wants_irq(q, &d->mem)) {
		hv_virtio_mmio_interrupt(&b->mmio);
		irq = true;
	}
	if (irq)
		hv_irq_pulse(d->dev.slice, d->gsi);
}

const struct hv_backend_ops hv_backend_blk = {
	.name = "blk",
	.open = blk_open,
	.close = blk_close,
	.serve = blk_serve,
};
