/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_dir.c - page numbers and homes.
 */
#include "dsm/core/dir.h"

#include <criterion/criterion.h>

/* 3 GiB below the hole on node 0, 1 GiB above it split between nodes 1 and 0; given out of order. */
static const struct dir_range ranges[] = {
	{ .first = 0x140000, .count = 0x10000, .node = 0 },
	{ .first = 0, .count = 0xc0000, .node = 0 },
	{ .first = 0x100000, .count = 0x40000, .node = 1 },
	{ .first = 0xd0000, .count = 0, .node = 1 },
};

Test(dir, numbers_pages_without_holes)
{
	static struct dir d;

	cr_assert(dir_init(&d, 2, ranges, 4));
	cr_assert_eq(d.pages, 0xc0000u + 0x40000u + 0x10000u);
	cr_assert_eq(d.homed[0], 0xd0000u);
	cr_assert_eq(d.homed[1], 0x40000u);
	cr_assert_eq(dir_page(&d, 0), 0u);
	cr_assert_eq(dir_page(&d, 0xbffff), 0xbffffu);
	cr_assert_eq(dir_page(&d, 0xc0000), DIR_PAGE_NONE);
	cr_assert_eq(dir_page(&d, 0xfffff), DIR_PAGE_NONE);
	cr_assert_eq(dir_page(&d, 0x100000), 0xc0000u);
	cr_assert_eq(dir_page(&d, 0x14ffff), d.pages - 1);
	cr_assert_eq(dir_page(&d, 0x150000), DIR_PAGE_NONE);
	cr_assert_eq(dir_page(&d, ~0ull), DIR_PAGE_NONE);
}

Test(dir, frame_and_page_are_inverse_and_homes_dense)
{
	static struct dir d;
	uint32_t next[2] = { 0, 0 };

	cr_assert(dir_init(&d, 2, ranges, 4));
	for (uint32_t p = 0; p < d.pages; p++) {
		uint32_t index;
		node_id n = dir_home(&d, p, &index);

		cr_assert_eq(dir_page(&d, dir_gfn(&d, p)), p);
		cr_assert_lt(n, 2);
		cr_assert_eq(index, next[n]++);
	}
	cr_assert_eq(next[0], d.homed[0]);
	cr_assert_eq(next[1], d.homed[1]);
}

Test(dir, refuses_what_is_no_memory)
{
	static struct dir d;
	static const struct dir_range overlap[] = { { 0, 10, 0 }, { 9, 2, 1 } };
	static const struct dir_range stranger[] = { { 0, 10, 2 } };
	static const struct dir_range empty[] = { { 7, 0, 0 } };
	static const struct dir_range wraps[] = { { ~0ull - 3, 8, 0 } };
	static const struct dir_range huge[] = { { 0, 0xf0000000ull, 0 }, { 1ull << 40, 0xf0000000ull, 1 } };
	static const struct dir_range touching[] = { { 0, 10, 0 }, { 10, 2, 1 } };

	cr_assert_not(dir_init(&d, 2, overlap, 2));
	cr_assert_not(dir_init(&d, 2, stranger, 1));
	cr_assert_not(dir_init(&d, 2, empty, 1));
	cr_assert_not(dir_init(&d, 2, wraps, 1));
	cr_assert_not(dir_init(&d, 2, huge, 2));
	cr_assert_not(dir_init(&d, 2, touching, DIR_RANGES_MAX + 1));
	cr_assert_not(dir_init(&d, NODES_MAX + 1, touching, 2));
	cr_assert_not(dir_init(&d, 0, touching, 2));
	cr_assert(dir_init(&d, 2, touching, 2));
}
