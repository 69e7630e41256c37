/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mmio register machine, and the block, console and entropy devices driven as a driver does.
 * */
#include <criterion/criterion.h>
#include <string.h>

#include "base/bytes.h"
#include "hv/core/virtio_blk.h"
#include "hv/core/virtio_console.h"
#include "hv/core/virtio_rng.h"

#define RAM 0x40000u
#define RING(q) \
	(0x1000u + 0x4000u * (q)) /* descriptors; avail and used follow at fixed distances */
#define AVAIL_OFF 0x1000u
#define USED_OFF 0x2000u
#define SIZE 8u
#define NEXT 1
#define WRITE 2

static uint8_t ram[RAM];
static struct hv_virtio_effects fx;

static bool ram_read(void *arg, gpa_t src, void *dst, size_t len)
{
	(void)arg;
	if (src > RAM || len > RAM - src)
		return false;
	memcpy(dst, ram + src, len);
	return true;
}

static bool ram_write(void *arg, gpa_t dst, const void *src, size_t len)
{
	(void)arg;
	if (dst > RAM || len > RAM - dst)
		return false;
	memcpy(ram + dst, src, len);
	return true;
}

static const struct hv_guest_mem mem = { ram_read, ram_write, NULL };

static void wr(struct hv_virtio_mmio *v, uint32_t off, uint32_t value)
{
	hv_virtio_mmio_write(v, off, 4, value, &fx);
}

static uint32_t rd(struct hv_virtio_mmio *v, uint32_t off)
{
	return (uint32_t)hv_virtio_mmio_read(v, off, 4);
}

static uint64_t offered(struct hv_virtio_mmio *v)
{
	uint64_t f;

	wr(v, 0x14, 1);
	f = (uint64_t)rd(v, 0x10) << 32;
	wr(v, 0x14, 0);
	return f | rd(v, 0x10);
}

static void accept(struct hv_virtio_mmio *v, uint64_t f)
{
	wr(v, 0x24, 0);
	wr(v, 0x20, (uint32_t)f);
	wr(v, 0x24, 1);
	wr(v, 0x20, (uint32_t)(f >> 32));
}

static void set_queue(struct hv_virtio_mmio *v, unsigned n)
{
	wr(v, 0x30, n);
	cr_assert_geq(rd(v, 0x34), SIZE);
	wr(v, 0x38, SIZE);
	wr(v, 0x80, RING(n));
	wr(v, 0x84, 0);
	wr(v, 0x90, RING(n) + AVAIL_OFF);
	wr(v, 0x94, 0);
	wr(v, 0xa0, RING(n) + USED_OFF);
	wr(v, 0xa4, 0);
	wr(v, 0x44, 1);
	cr_assert_eq(rd(v, 0x44), 1);
}

/* What a driver does from reset to DRIVER_OK (VIRTIO 1.2, 3.1.1). */
static void bring_up(struct hv_virtio_mmio *v, unsigned queues)
{
	memset(ram, 0, sizeof(ram));
	wr(v, 0x70, 0);
	cr_assert(fx.reset);
	wr(v, 0x70, 1);
	wr(v, 0x70, 3);
	accept(v, offered(v));
	wr(v, 0x70, 0xb);
	cr_assert_eq(rd(v, 0x70), 0xb, "FEATURES_OK is kept");
	for (unsigned k = 0; k < queues; k++)
		set_queue(v, k);
	wr(v, 0x70, 0xf);
	cr_assert(fx.started);
	cr_assert(hv_virtio_mmio_running(v));
}

static void desc(unsigned ring, unsigned k, uint64_t gpa, uint32_t len, uint16_t flags,
		 uint16_t next)
{
	uint8_t *d = ram + RING(ring) + 16 * k;

	put_le64(d, gpa);
	put_le32(d + 8, len);
	put_le16(d + 12, flags);
	put_le16(d + 14, next);
}

static void offer(unsigned ring, uint16_t head)
{
	uint8_t *a = ram + RING(ring) + AVAIL_OFF;
	uint16_t idx = get_le16(a + 2);

	put_le16(a + 4 + 2 * (idx % SIZE), head);
	put_le16(a + 2, (uint16_t)(idx + 1));
}

static unsigned used_count(unsigned ring)
{
	return get_le16(ram + RING(ring) + USED_OFF + 2);
}

static uint32_t used_len(unsigned ring, unsigned k)
{
	return get_le32(ram + RING(ring) + USED_OFF + 4 + 8 * (k % SIZE) + 4);
}

/* --- registers --- */

Test(virtio, identity_and_bring_up)
{
	struct hv_virtio_mmio v;

	hv_virtio_blk_init(&v, 10 * 512 + 100, false);
	cr_assert_eq(rd(&v, 0), 0x74726976);
	cr_assert_eq(rd(&v, 4), 2);
	cr_assert_eq(rd(&v, 8), HV_VIRTIO_BLK);
	cr_assert_eq(offered(&v), HV_VIRTIO_F_VERSION_1 | HV_BLK_F_SEG_MAX | HV_BLK_F_FLUSH);
	cr_assert_eq(hv_virtio_mmio_read(&v, 0x100, 8), 10, "capacity in whole sectors");
	cr_assert_eq(hv_virtio_mmio_read(&v, 0x100 + 22, 4), 0, "beyond the configuration");
	cr_assert_eq(hv_virtio_mmio_read(&v, 0, 1), 0, "registers are 32 bits wide");
	bring_up(&v, 1);
	wr(&v, 0x50, 0);
	cr_assert_eq(fx.notify, 0);
	wr(&v, 0x50, 1);
	cr_assert_eq(fx.notify, HV_VIRTIO_NO_QUEUE);
	hv_virtio_mmio_write(&v, 0x100, 4, 0xffffffff, &fx);
	cr_assert_eq(hv_virtio_mmio_read(&v, 0x100, 8), 10,
		     "capacity is not the driver's to change");
}

Test(virtio, features_are_negotiated)
{
	struct hv_virtio_mmio v;

	hv_virtio_rng_init(&v);
	wr(&v, 0x70, 3);
	wr(&v, 0x70, 0xb);
	cr_assert_eq(rd(&v, 0x70), 3, "without VERSION_1 refused");
	accept(&v, HV_VIRTIO_F_VERSION_1 | 1);
	wr(&v, 0x70, 0xb);
	cr_assert_eq(rd(&v, 0x70), 3, "what was not offered is refused");
	wr(&v, 0x70, 0xf);
	cr_assert_eq(rd(&v, 0x70), 3, "no DRIVER_OK without FEATURES_OK");
	cr_assert_not(fx.started);
	accept(&v, HV_VIRTIO_F_VERSION_1);
	wr(&v, 0x70, 0xb);
	cr_assert_eq(rd(&v, 0x70), 0xb);
	accept(&v, 0);
	cr_assert_eq(v.accepted, HV_VIRTIO_F_VERSION_1, "fixed once FEATURES_OK is set");
}

Test(virtio, queue_setup_is_checked)
{
	struct hv_virtio_mmio v;
	struct hv_virtq_chain c;

	hv_virtio_rng_init(&v);
	bring_up(&v, 1);
	wr(&v, 0x80, 0x7777);
	cr_assert_eq(v.queue[0].desc, RING(0), "not while in use");
	wr(&v, 0x30, 5);
	cr_assert_eq(rd(&v, 0x34), 0, "no such queue");
	wr(&v, 0x44, 1);
	cr_assert_eq(rd(&v, 0x44), 0);
	wr(&v, 0x30, 0);
	wr(&v, 0x44, 0);
	cr_assert_eq(rd(&v, 0x44), 0);
	wr(&v, 0x38, 3); /* not a power of two */
	wr(&v, 0x44, 1);
	cr_assert_eq(hv_virtq_pop(&v.queue[0], &mem, &c), HV_VIRTQ_BROKEN);
	wr(&v, 0x44, 0);
	wr(&v, 0x38, 8);
	wr(&v, 0x80, 0x1008);
	wr(&v, 0x44, 1);
	cr_assert_eq(hv_virtq_pop(&v.queue[0], &mem, &c), HV_VIRTQ_BROKEN, "misaligned");
}

Test(virtio, interrupt_status_and_needs_reset)
{
	struct hv_virtio_mmio v;

	hv_virtio_rng_init(&v);
	cr_assert_not(hv_virtio_mmio_break(&v), "nobody to tell before DRIVER_OK");
	bring_up(&v, 1);
	hv_virtio_mmio_interrupt(&v);
	cr_assert_eq(rd(&v, 0x60), 1);
	wr(&v, 0x64, 1);
	cr_assert_eq(rd(&v, 0x60), 0);
	cr_assert(hv_virtio_mmio_break(&v));
	cr_assert_not(hv_virtio_mmio_break(&v), "told once");
	cr_assert_eq(rd(&v, 0x60), 2);
	cr_assert_eq(rd(&v, 0x70), 0x4f);
	wr(&v, 0x70, 0xf);
	cr_assert_eq(rd(&v, 0x70), 0x4f, "only a reset clears it");
	cr_assert_not(hv_virtio_mmio_running(&v));
	wr(&v, 0x50, 0);
	cr_assert_eq(fx.notify, HV_VIRTIO_NO_QUEUE);
	bring_up(&v, 1);
}

/* --- block --- */

static struct hv_virtio_mmio blk;
static struct hv_virtq_chain chain;

/* Header at 0x20000, data at 0x21000, status at 0x30000. */
static enum hv_virtq_pop request(uint32_t type, uint64_t sector, uint32_t data_len,
				 uint16_t data_flags)
{
	put_le32(ram + 0x20000, type);
	put_le64(ram + 0x20008, sector);
	ram[0x30000] = 0xee;
	desc(0, 0, 0x20000, 16, NEXT, data_len ? 1 : 2);
	desc(0, 1, 0x21000, data_len, (uint16_t)(data_flags | NEXT), 2);
	desc(0, 2, 0x30000, 1, WRITE, 0);
	offer(0, 0);
	return hv_virtq_pop(&blk.queue[0], &mem, &chain);
}

static struct hv_blk_op parsed(uint32_t type, uint64_t sector, uint32_t data_len,
			       uint16_t data_flags)
{
	struct hv_blk_op op;

	cr_assert_eq(request(type, sector, data_len, data_flags), HV_VIRTQ_CHAIN);
	cr_assert(hv_virtio_blk_parse(&blk, &chain, &mem, &op));
	return op;
}

static void blk_start(void)
{
	hv_virtio_blk_init(&blk, 100 * 512, false);
	bring_up(&blk, 1);
}

Test(virtio_blk, requests, .init = blk_start)
{
	struct hv_blk_op op = parsed(0, 7, 1024, WRITE);

	cr_assert_eq(op.kind, HV_BLK_READ);
	cr_assert_eq(op.offset, 7 * 512);
	cr_assert_eq(op.len, 1024);
	cr_assert(hv_virtio_blk_finish(&blk, &chain, &mem, &op, HV_BLK_OK));
	cr_assert_eq(ram[0x30000], 0);
	cr_assert_eq(used_count(0), 1);
	cr_assert_eq(used_len(0, 0), 1025);
	op = parsed(1, 98, 1024, 0);
	cr_assert_eq(op.kind, HV_BLK_WRITE);
	cr_assert_eq(op.data_off, 16);
	cr_assert(hv_virtio_blk_finish(&blk, &chain, &mem, &op, HV_BLK_IOERR));
	cr_assert_eq(ram[0x30000], 1);
	cr_assert_eq(used_len(0, 1), 1);
	cr_assert_eq(parsed(4, 0, 0, 0).kind, HV_BLK_FLUSH);
	cr_assert_eq(parsed(8, 0, 20, WRITE).kind, HV_BLK_GET_ID);
}

Test(virtio_blk, refusals, .init = blk_start)
{
	cr_assert_eq(parsed(0, 99, 1024, WRITE).status, HV_BLK_IOERR, "beyond the end");
	cr_assert_eq(parsed(0, ~0ull, 512, WRITE).status, HV_BLK_IOERR, "sector overflows");
	cr_assert_eq(parsed(0, 0, 511, WRITE).status, HV_BLK_IOERR, "part of a sector");
	cr_assert_eq(parsed(8, 0, 19, WRITE).status, HV_BLK_IOERR, "id does not fit");
	cr_assert_eq(parsed(77, 0, 512, WRITE).status, HV_BLK_UNSUPP);
	cr_assert_eq(parsed(77, 0, 512, WRITE).kind, HV_BLK_DONE);
	cr_assert_eq(parsed(0, 99, 512, WRITE).kind, HV_BLK_READ, "the last sector is fine");
	hv_virtio_blk_init(&blk, 100 * 512, true);
	bring_up(&blk, 1);
	cr_assert_eq(parsed(1, 0, 512, 0).status, HV_BLK_IOERR, "read-only");
}

Test(virtio_blk, chains_that_cannot_be_answered, .init = blk_start)
{
	struct hv_blk_op op;

	desc(0, 0, 0x20000, 16, 0, 0);
	offer(0, 0);
	cr_assert_eq(hv_virtq_pop(&blk.queue[0], &mem, &chain), HV_VIRTQ_CHAIN);
	cr_assert_not(hv_virtio_blk_parse(&blk, &chain, &mem, &op), "no status byte");
	desc(0, 1, 0x20000, 15, NEXT, 2);
	desc(0, 2, 0x30000, 1, WRITE, 0);
	offer(0, 1);
	cr_assert_eq(hv_virtq_pop(&blk.queue[0], &mem, &chain), HV_VIRTQ_CHAIN);
	cr_assert_not(hv_virtio_blk_parse(&blk, &chain, &mem, &op), "short header");
}

/* --- console --- */

static struct hv_virtio_console con;

static void con_start(void)
{
	hv_virtio_console_init(&con, 80, 25);
	bring_up(&con.mmio, 2);
}

Test(virtio_console, output_in_pieces, .init = con_start)
{
	struct hv_console_result r;
	uint8_t buf[8];

	cr_assert_eq(hv_virtio_mmio_read(&con.mmio, 0x100, 2), 80);
	cr_assert_eq(hv_virtio_mmio_read(&con.mmio, 0x102, 2), 25);
	memcpy(ram + 0x20000, "hello, world", 12);
	desc(1, 0, 0x20000, 5, NEXT, 1);
	desc(1, 1, 0x20005, 7, 0, 0);
	desc(1, 2, 0x20000, 3, 0, 0);
	offer(1, 0);
	offer(1, 2);
	r = hv_virtio_console_output(&con, &mem, buf, sizeof(buf));
	cr_assert_eq(r.bytes, 8);
	cr_assert_eq(memcmp(buf, "hello, w", 8), 0);
	cr_assert_not(r.irq, "the chain is not done");
	cr_assert_eq(used_count(1), 0);
	r = hv_virtio_console_output(&con, &mem, buf, sizeof(buf));
	cr_assert_eq(r.bytes, 7);
	cr_assert_eq(memcmp(buf, "orldhel", 7), 0);
	cr_assert(r.irq);
	cr_assert_eq(used_count(1), 2);
	r = hv_virtio_console_output(&con, &mem, buf, sizeof(buf));
	cr_assert_eq(r.bytes, 0);
	cr_assert_not(r.irq);
}

Test(virtio_console, input_waits_for_room, .init = con_start)
{
	struct hv_console_result r;

	desc(0, 0, 0x20000, 4, WRITE, 0);
	offer(0, 0);
	r = hv_virtio_console_input(&con, &mem, (const uint8_t *)"abcdef", 6);
	cr_assert_eq(r.bytes, 4);
	cr_assert(r.irq);
	cr_assert_eq(used_len(0, 0), 4);
	cr_assert_eq(memcmp(ram + 0x20000, "abcd", 4), 0);
	r = hv_virtio_console_input(&con, &mem, (const uint8_t *)"ef", 2);
	cr_assert_eq(r.bytes, 0);
	desc(0, 1, 0x20100, 4, WRITE, 0);
	offer(0, 1);
	r = hv_virtio_console_input(&con, &mem, (const uint8_t *)"ef", 2);
	cr_assert_eq(r.bytes, 2);
	cr_assert_eq(used_len(0, 1), 2);
}

Test(virtio_console, wrong_direction_breaks, .init = con_start)
{
	struct hv_console_result r;
	uint8_t buf[8];

	desc(1, 0, 0x20000, 5, WRITE, 0);
	offer(1, 0);
	r = hv_virtio_console_output(&con, &mem, buf, sizeof(buf));
	cr_assert(r.broken);
	cr_assert(r.irq);
	cr_assert_not(hv_virtio_mmio_running(&con.mmio));
	bring_up(&con.mmio, 2);
	hv_virtio_console_reset(&con);
	desc(0, 0, 0x20000, 5, 0, 0);
	offer(0, 0);
	cr_assert(hv_virtio_console_input(&con, &mem, buf, 1).broken);
}

/* --- entropy --- */

Test(virtio_rng, fills_buffers)
{
	struct hv_virtio_mmio v;
	struct hv_rng_result r;
	uint8_t random[HV_RNG_BURST];

	hv_virtio_rng_init(&v);
	bring_up(&v, 1);
	memset(random, 0x5c, sizeof(random));
	cr_assert_not(hv_virtio_rng_serve(&v, &mem, random).served);
	desc(0, 0, 0x20000, 64, WRITE, 0);
	desc(0, 1, 0x21000, 1000, WRITE, 0);
	offer(0, 0);
	offer(0, 1);
	r = hv_virtio_rng_serve(&v, &mem, random);
	cr_assert(r.served && r.irq);
	cr_assert_eq(used_len(0, 0), 64);
	cr_assert_eq(ram[0x20000 + 63], 0x5c);
	cr_assert_eq(ram[0x20000 + 64], 0);
	r = hv_virtio_rng_serve(&v, &mem, random);
	cr_assert_eq(used_len(0, 1), HV_RNG_BURST);
	cr_assert_not(hv_virtio_rng_serve(&v, &mem, random).served);
	desc(0, 2, 0x20000, 64, 0, 0);
	offer(0, 2);
	cr_assert(hv_virtio_rng_serve(&v, &mem, random).broken, "nothing to write into");
}
