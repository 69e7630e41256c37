/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/dsm/test_checksum.c - pages travel with a checksum, and a damaged one is noticed before it is used. */
#include "base/bytes.h"
#include "dsm/core/wire.h"
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <zlib.h>

static const struct dsm_range ranges[] = { { 0, 8, 0 }, { 8, 8, 1 } };

static void open_two(struct node n[2], bool second)
{
	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = 2, .backend = "shm", .ranges = ranges,
							 .ranges_count = 2, .mapping = DSM_MAP_TLB, .checksums = true,
							 .mute = second ? 0 : 2 }),
		     0);
}

Test(checksum, pages_that_are_whole_come_through, .timeout = 30)
{
	static uint8_t in[PAGE_SIZE], out[PAGE_SIZE];
	struct node n[2];

	open_two(n, true);
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		in[i] = (uint8_t)(i * 7);
	for (unsigned round = 0; round < 50; round++) {
		unsigned k = round % 2;

		in[0] = (uint8_t)round;
		cr_assert_eq(dsm_copy_out(n[k].d, 3 << PAGE_SHIFT, in, PAGE_SIZE, clock_now_ns() + 5 * NS_PER_S), 0);
		cr_assert_eq(dsm_copy_in(n[1 - k].d, out, 3 << PAGE_SHIFT, PAGE_SIZE, clock_now_ns() + 5 * NS_PER_S), 0);
		cr_assert(!memcmp(in, out, PAGE_SIZE));
	}
	cr_assert_eq(n[0].damaged + n[1].damaged, 0u);
	nodes_close(n, 2);
}

/* A page from node 1, with the sum of other bytes when `damage` says which. */
static void send_page(struct node *from, int damage)
{
	static uint8_t page[PAGE_SIZE];
	uint8_t body[WIRE_MSG_BYTES + 4];
	struct proto_msg m = { .kind = PROTO_RETURN, .bytes = PROTO_BYTES_PAGE, .page = 5 };
	struct ic_msg msg = { .port = IC_PORT_DSM, .body_len = sizeof(body), .data_len = PAGE_SIZE, .body = body,
			      .data = page };
	uint32_t sum;

	wire_encode(&m, body);
	sum = (uint32_t)crc32(crc32(0, page, PAGE_SIZE), body, WIRE_MSG_BYTES);
	put_le32(body + WIRE_MSG_BYTES, sum);
	page[17] ^= damage == 1;
	body[WIRE_MSG_BYTES] ^= damage == 2;
	cr_assert_eq(ic_send(from->f, 0, &msg), 0);
	page[17] = 0;
}

Test(checksum, a_damaged_page_is_told_and_not_used, .timeout = 30)
{
	for (int damage = 0; damage <= 2; damage++) {
		struct node n[2];
		struct dsm_stats st = { 0 };

		open_two(n, false);
		send_page(&n[1], damage);
		/* A whole one nobody asked for is refused; a damaged one does not come that far. */
		for (uint64_t until = clock_now_ns() + 5 * NS_PER_S;
		     !n[0].damaged && !st.refused && clock_now_ns() < until; usleep(100))
			dsm_stats(n[0].d, &st);
		cr_assert_eq(n[0].damaged, damage ? 1u : 0u);
		cr_assert_eq(st.refused, damage ? 0u : 1u);
		cr_assert(!damage || n[0].where == 5);
		nodes_close(n, 2);
	}
}
