/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_virtio.c - hv/core/virtio_*: a driver that writes any register and puts anything into its rings.
 *
 * Input     u8 device (disk, console, rng), u8 number of steps, steps of 8 bytes (register access, or: the device
 *           takes its chains), then guest memory, which begins at address 0.
 * Limits    Memory does not change while the device works: the queue copies each word once by construction.
 */
#include "hv/core/virtio_blk.h"
#include "hv/core/virtio_console.h"
#include "hv/core/virtio_rng.h"
#include "tests/fuzz/fuzz.h"

#define MEM 0x6000u
#define DISK (64u * HV_BLK_SECTOR)
#define CHAINS_MAX 64u

struct world {
	struct hv_virtio_console con; /* its mmio is the device, whichever it is */
	struct hv_guest_mem mem;
	uint8_t ram[MEM];
	uint8_t buf[4096];
};

static bool ram_has(gpa_t at, size_t len)
{
	return at <= MEM && len <= MEM - at;
}

static bool ram_read(void *arg, gpa_t src, void *dst, size_t len)
{
	struct world *w = arg;

	if (!ram_has(src, len))
		return false;
	memcpy(dst, w->ram + src, len);
	return true;
}

static bool ram_write(void *arg, gpa_t dst, const void *src, size_t len)
{
	struct world *w = arg;

	if (!ram_has(dst, len))
		return false;
	memcpy(w->ram + dst, src, len);
	return true;
}

static void chain_check(const struct hv_virtq_chain *c, uint16_t size)
{
	uint64_t sum = 0;

	ASSERT(c->head < size && c->readable + c->writable >= 1);
	ASSERT(c->readable + c->writable <= HV_VIRTQ_SEGS_MAX);
	for (unsigned i = 0; i < (unsigned)c->readable + c->writable; i++) {
		ASSERT(c->segs[i].len > 0 && c->segs[i].gpa + c->segs[i].len >= c->segs[i].gpa);
		sum += c->segs[i].len;
	}
	ASSERT(sum == (uint64_t)c->read_bytes + c->write_bytes && sum <= HV_VIRTQ_CHAIN_BYTES);
}

static void blk_serve(struct world *w)
{
	struct hv_virtio_mmio *v = &w->con.mmio;

	for (unsigned n = 0; n < CHAINS_MAX; n++) {
		struct hv_virtq_chain c;
		struct hv_blk_op op;
		size_t len;
		bool bad;

		if (hv_virtq_pop(&v->queue[0], &w->mem, &c) != HV_VIRTQ_CHAIN)
			break;
		chain_check(&c, v->queue[0].size);
		if (!hv_virtio_blk_parse(v, &c, &w->mem, &op))
			break;
		len = op.len < sizeof(w->buf) ? op.len : sizeof(w->buf);
		switch (op.kind) {
		case HV_BLK_READ:
			ASSERT(op.offset <= DISK && op.len <= DISK - op.offset && op.len <= c.write_bytes);
			hv_virtq_chain_write(&c, &w->mem, 0, w->buf, len, &bad);
			break;
		case HV_BLK_WRITE:
			ASSERT(op.offset <= DISK && op.len <= DISK - op.offset);
			ASSERT(op.data_off <= c.read_bytes && op.len <= c.read_bytes - op.data_off);
			hv_virtq_chain_read(&c, &w->mem, op.data_off, w->buf, len, &bad);
			break;
		case HV_BLK_GET_ID:
			hv_virtq_chain_write(&c, &w->mem, 0, w->buf, HV_BLK_ID_LEN, &bad);
			break;
		default:
			break;
		}
		if (!hv_virtio_blk_finish(v, &c, &w->mem, &op, op.kind == HV_BLK_DONE ? op.status : HV_BLK_OK))
			break;
		hv_virtq_wants_irq(&v->queue[0], &w->mem);
	}
}

static void console_serve(struct world *w, uint8_t amount)
{
	struct hv_console_result r;

	r = hv_virtio_console_output(&w->con, &w->mem, w->buf, 1u + amount);
	ASSERT(r.bytes <= 1u + amount);
	r = hv_virtio_console_input(&w->con, &w->mem, w->buf, amount);
	ASSERT(r.bytes <= amount);
}

static void device_init(struct world *w, uint8_t device)
{
	if (device % 3 == 0)
		hv_virtio_blk_init(&w->con.mmio, DISK, device & 0x80);
	else if (device % 3 == 1)
		hv_virtio_console_init(&w->con, 80, 25);
	else
		hv_virtio_rng_init(&w->con.mmio);
}

static void device_serve(struct world *w, uint8_t device, uint8_t amount)
{
	if (!hv_virtio_mmio_running(&w->con.mmio))
		return;
	if (device % 3 == 0)
		blk_serve(w);
	else if (device % 3 == 1)
		console_serve(w, amount);
	else
		for (unsigned n = 0; n < CHAINS_MAX; n++)
			if (!hv_virtio_rng_serve(&w->con.mmio, &w->mem, w->buf).served)
				break;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct world w;
	struct reader r = fuzz_reader(data, len), steps;
	uint8_t device = reader_u8(&r), count = reader_u8(&r);
	size_t left;

	if (r.bad || (size_t)(r.end - r.p) < 8u * count)
		return 0;
	w = (struct world){ .mem = { ram_read, ram_write, &w } };
	steps = fuzz_reader(r.p, 8u * count);
	r.p += 8u * count;
	left = (size_t)(r.end - r.p);
	memcpy(w.ram, r.p, left < MEM ? left : MEM);
	device_init(&w, device);
	while (count--) {
		uint8_t kind = reader_u8(&steps), size = (uint8_t)(1u << (reader_u8(&steps) & 3));
		uint16_t offset = reader_u16(&steps);
		uint32_t value = reader_u32(&steps);
		struct hv_virtio_effects fx;

		if (kind == 0) {
			hv_virtio_mmio_write(&w.con.mmio, offset & 0xfff, size, value, &fx);
			if (fx.notify != HV_VIRTIO_NO_QUEUE)
				ASSERT(fx.notify < w.con.mmio.queues_count);
			if (fx.reset && device % 3 == 1)
				hv_virtio_console_reset(&w.con);
		} else if (kind == 1) {
			hv_virtio_mmio_read(&w.con.mmio, offset & 0xfff, size);
		} else {
			device_serve(&w, device, (uint8_t)value);
		}
	}
	return 0;
}
