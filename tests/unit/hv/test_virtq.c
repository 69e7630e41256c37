/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueue: the ordinary cases, and every way in which a hostile ring may lie. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hv/core/virtq.h"

#define RAM 0x10000u
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define SIZE 8u
#define NEXT 1
#define WRITE 2

static uint8_t ram[RAM];
static struct hv_virtq q;
static struct hv_virtq_chain c;
static unsigned reads;

static bool ram_read(void *arg, gpa_t src, void *dst, size_t len)
{
	(void)arg;
	reads++;
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

static void start(void)
{
	memset(ram, 0, sizeof(ram));
	q = (struct hv_virtq){
		.desc = DESC, .avail = AVAIL, .used = USED, .size = SIZE, .ready = true
	};
	reads = 0;
}

static void desc(unsigned k, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *d = ram + DESC + 16 * k;

	put_le64(d, gpa);
	put_le32(d + 8, len);
	put_le16(d + 12, flags);
	put_le16(d + 14, next);
}

static void offer(uint16_t head)
{
	uint16_t idx = get_le16(ram + AVAIL + 2);

	put_le16(ram + AVAIL + 4 + 2 * (idx % SIZE), head);
	put_le16(ram + AVAIL + 2, (uint16_t)(idx + 1));
}

Test(virtq, chain_of_both_kinds, .init = start)
{
	char buf[64];
	bool bad;

	desc(0, 0x8000, 10, NEXT, 3);
	desc(3, 0x9000, 6, NEXT, 5);
	desc(5, 0xa000, 100, NEXT | WRITE, 6);
	desc(6, 0xb000, 1, WRITE, 0);
	memcpy(ram + 0x8000, "0123456789", 10);
	memcpy(ram + 0x9000, "abcdef", 6);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_EMPTY);
	offer(0);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_CHAIN);
	cr_assert_eq(c.head, 0);
	cr_assert_eq(c.readable, 2);
	cr_assert_eq(c.writable, 2);
	cr_assert_eq(c.read_bytes, 16);
	cr_assert_eq(c.write_bytes, 101);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &(struct hv_virtq_chain){ 0 }), HV_VIRTQ_EMPTY);
	memset(buf, 0, sizeof(buf));
	cr_assert_eq(hv_virtq_chain_read(&c, &mem, 8, buf, sizeof(buf), &bad), 8);
	cr_assert_not(bad);
	cr_assert_str_eq(buf, "89abcdef");
	cr_assert_eq(hv_virtq_chain_read(&c, &mem, 16, buf, 1, &bad), 0, "at the end");
	cr_assert_eq(hv_virtq_chain_write(&c, &mem, 99, "XYZ", 3, &bad), 2);
	cr_assert_eq(ram[0xa000 + 99], 'X');
	cr_assert_eq(ram[0xb000], 'Y');
	cr_assert(hv_virtq_push(&q, &mem, c.head, 101));
	cr_assert_eq(get_le16(ram + USED + 2), 1);
	cr_assert_eq(get_le32(ram + USED + 4), 0);
	cr_assert_eq(get_le32(ram + USED + 8), 101);
	cr_assert(hv_virtq_wants_irq(&q, &mem));
	put_le16(ram + AVAIL, 1);
	cr_assert_not(hv_virtq_wants_irq(&q, &mem));
}

Test(virtq, indices_wrap, .init = start)
{
	for (unsigned n = 0; n < 70000; n++) {
		uint16_t head = (uint16_t)(n % SIZE);

		desc(head, 0x8000 + head, 1 + head, WRITE, 0);
		offer(head);
		cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_CHAIN, "round %u", n);
		cr_assert_eq(c.head, head);
		cr_assert(hv_virtq_push(&q, &mem, head, n));
		cr_assert_eq(get_le16(ram + USED + 2), (uint16_t)(n + 1));
		cr_assert_eq(get_le32(ram + USED + 4 + 8 * (n % SIZE) + 4), n);
	}
}

/* Each must break the queue after bounded work, and it must stay broken. */
static void breaks(const char *what)
{
	reads = 0;
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_BROKEN, "%s", what);
	cr_assert(q.broken);
	cr_assert_leq(reads, 2 + SIZE, "%s: %u reads", what, reads);
	desc(0, 0x8000, 1, 0, 0);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_BROKEN, "%s: forgiven", what);
	cr_assert_not(hv_virtq_push(&q, &mem, 0, 0));
	cr_assert_not(hv_virtq_wants_irq(&q, &mem));
	start();
}

Test(virtq, hostile_rings, .init = start)
{
	desc(0, 0x8000, 1, NEXT, 0);
	offer(0);
	breaks("a chain that is its own next");
	for (unsigned k = 0; k < SIZE; k++)
		desc(k, 0x8000, 1, NEXT, (uint16_t)((k + 1) % SIZE));
	offer(0);
	breaks("a loop over all descriptors");
	desc(SIZE, 0x8000, 1, 0, 0); /* what lies behind the table looks like a descriptor */
	offer(SIZE);
	breaks("head beyond the table");
	desc(0, 0x8000, 1, NEXT, SIZE);
	desc(SIZE, 0x8000, 1, 0, 0);
	offer(0);
	breaks("next beyond the table");
	desc(0, 0x8000, 0, 0, 0);
	offer(0);
	breaks("empty segment");
	desc(0, 0x8000, 4, 4, 0);
	offer(0);
	breaks("indirect, not offered");
	desc(0, 0x8000, 4, WRITE | NEXT, 1);
	desc(1, 0x8000, 4, 0, 0);
	offer(0);
	breaks("readable behind writable");
	desc(0, ~0ull - 1, 4, 0, 0);
	offer(0);
	breaks("address wraps");
	desc(0, 0x8000, HV_VIRTQ_CHAIN_BYTES, NEXT, 1);
	desc(1, 0x8000, 1, 0, 0);
	offer(0);
	breaks("more bytes than a chain may have");
	desc(0, 0x8000, 0xffffffff, NEXT, 1);
	desc(1, 0x8000, 0xffffffff, 0, 0);
	offer(0);
	breaks("sum of lengths overflows");
	desc(0, 0x8000, 1, 0, 0);
	put_le16(ram + AVAIL + 2, SIZE + 1);
	breaks("avail.idx runs ahead");
	q.desc = RAM;
	offer(0);
	breaks("descriptors outside RAM");
	q.avail = RAM - 2;
	breaks("avail ring outside RAM");
}

Test(virtq, data_outside_ram_is_told, .init = start)
{
	uint8_t buf[8];
	bool bad;

	desc(0, RAM - 4, 8, 0, 0);
	offer(0);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_CHAIN);
	hv_virtq_chain_read(&c, &mem, 0, buf, sizeof(buf), &bad);
	cr_assert(bad);
	q.used = RAM - 4;
	cr_assert_not(hv_virtq_push(&q, &mem, 0, 0));
	cr_assert(q.broken);
}

Test(virtq, not_ready_is_quiet, .init = start)
{
	q.ready = false;
	offer(0);
	cr_assert_eq(hv_virtq_pop(&q, &mem, &c), HV_VIRTQ_EMPTY);
	cr_assert(hv_virtq_push(&q, &mem, 0, 0), "a late completion after a reset is dropped");
	cr_assert_eq(get_le16(ram + USED + 2), 0);
	cr_assert_not(hv_virtq_wants_irq(&q, &mem));
	cr_assert_eq(reads, 0);
}

/* Random rings: whatever they say, the walk ends and every segment handed out obeys the limits. */
Test(virtq, random_rings, .init = start)
{
	unsigned chains = 0, broken = 0;

	srandom(1);
	for (unsigned n = 0; n < 20000; n++) {
		uint32_t total = 0;

		start();
		for (unsigned k = 0; k < SIZE; k++)
			desc(k, (uint64_t)random() % (RAM + 4), (uint32_t)random() % 3000,
			     (uint16_t)(random() % 4), (uint16_t)(random() % (SIZE + 1)));
		offer((uint16_t)(random() % SIZE));
		if (hv_virtq_pop(&q, &mem, &c) == HV_VIRTQ_BROKEN) {
			broken++;
			continue;
		}
		chains++;
		cr_assert_leq(c.readable + c.writable, SIZE);
		for (unsigned k = 0; k < c.readable + c.writable; k++)
			total += c.segs[k].len;
		cr_assert_eq(total, c.read_bytes + c.write_bytes);
	}
	cr_assert_gt(chains, 1000);
	cr_assert_gt(broken, 1000);
}
