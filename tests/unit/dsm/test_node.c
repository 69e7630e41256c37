/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/dsm/test_node.c - a one-node dsm: ranges, rights, copies, the end of the VM. */
#include "base/clock.h"
#include "dsm/dsm.h"

#include <criterion/criterion.h>
#include <string.h>

/* 16 pages at 0, a hole, 16 pages at frame 0x100. */
static const struct dsm_range ranges[] = { { 0, 16, 0 }, { 0x100, 16, 0 } };

static struct dsm *open_one(enum dsm_mapping mapping)
{
	struct dsm_config cfg = {
		.nodes = 1, .ranges = ranges, .ranges_count = 2, .mapping = mapping
	};
	struct dsm *d;

	cr_assert_eq(dsm_open(&cfg, &d), 0);
	return d;
}

static void close_one(struct dsm *d)
{
	dsm_stop(d);
	dsm_close(d);
}

Test(node, ram_is_what_the_ranges_say)
{
	struct dsm *d = open_one(DSM_MAP_TLB);

	cr_assert(dsm_is_ram(d, 0));
	cr_assert(dsm_is_ram(d, 15));
	cr_assert_not(dsm_is_ram(d, 16));
	cr_assert_not(dsm_is_ram(d, 0xff));
	cr_assert(dsm_is_ram(d, 0x10f));
	cr_assert_not(dsm_is_ram(d, 0x110));
	cr_assert_not(dsm_is_ram(d, ~(gfn_t)0));
	close_one(d);
}

Test(node, bad_configurations_are_refused)
{
	static const struct dsm_range overlap[] = { { 0, 16, 0 }, { 8, 16, 0 } };
	struct dsm_config cfg = { .nodes = 1, .ranges = overlap, .ranges_count = 2 };
	struct dsm *d;

	cr_assert_eq(dsm_open(&cfg, &d), -EINVAL);
	cfg = (struct dsm_config){ .nodes = 1, .self = 1, .ranges = ranges, .ranges_count = 2 };
	cr_assert_eq(dsm_open(&cfg, &d), -EINVAL);
	cfg = (struct dsm_config){ .nodes = 2, .ranges = ranges, .ranges_count = 2 };
	cr_assert_eq(dsm_open(&cfg, &d), -EINVAL); /* no fabric */
	cfg = (struct dsm_config){ .nodes = 1, .ranges = ranges, .ranges_count = 0 };
	cr_assert_eq(dsm_open(&cfg, &d), -EINVAL);
}

Test(node, acquire_resolves_locally)
{
	struct dsm *d = open_one(DSM_MAP_TLB);
	struct dsm_stats st;

	cr_assert_eq(dsm_right(d, 3), DSM_NONE);
	cr_assert_eq(dsm_acquire(d, 3, DSM_READ, UINT64_MAX), 0);
	cr_assert_geq(dsm_right(d, 3), DSM_READ);
	cr_assert_eq(dsm_acquire(d, 0x10f, DSM_WRITE, UINT64_MAX), 0);
	cr_assert_eq(dsm_right(d, 0x10f), DSM_WRITE);
	cr_assert_eq(dsm_acquire(d, 0x20, DSM_READ, UINT64_MAX), -EFAULT);
	dsm_alias(d)[3 * PAGE_SIZE] = 7;
	dsm_stats(d, &st);
	cr_assert_eq(st.faults_local, 2);
	cr_assert_eq(st.faults_read + st.faults_write + st.faults_upgrade, 0);
	close_one(d);
}

Test(node, copies_cross_pages_and_respect_holes)
{
	struct dsm *d = open_one(DSM_MAP_TLB);
	uint8_t out[3 * PAGE_SIZE], in[3 * PAGE_SIZE];

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + 1);
	cr_assert_eq(dsm_copy_out(d, 0x100 * PAGE_SIZE + 100, out, sizeof(out), UINT64_MAX), 0);
	cr_assert_eq(dsm_copy_in(d, in, 0x100 * PAGE_SIZE + 100, sizeof(in), UINT64_MAX), 0);
	cr_assert_eq(memcmp(in, out, sizeof(in)), 0);
	cr_assert_eq(dsm_copy_out(d, 15 * PAGE_SIZE + 1, out, PAGE_SIZE, UINT64_MAX), -EFAULT);
	cr_assert_eq(dsm_alias(d)[15 * PAGE_SIZE + 1], 0, "nothing of a refused copy arrives");
	cr_assert_eq(dsm_copy_in(d, in, ~(gpa_t)0 - 10, 100, UINT64_MAX), -EFAULT);
	cr_assert_eq(dsm_copy_in(d, in, 0, 0, UINT64_MAX), 0);
	close_one(d);
}

/* One node's view needs no fault: every right is there, and nobody takes it. */
Test(node, a_view_of_one_node_is_plain)
{
	struct dsm *d = open_one(DSM_MAP_UFFD);
	struct dsm_stats st;
	uint8_t b;

	cr_assert_eq(dsm_right(d, 0x10f), DSM_WRITE);
	cr_assert_eq(dsm_right(d, 0x20), DSM_NONE, "not RAM");
	dsm_view(d)[0x10f * PAGE_SIZE] = 5;
	cr_assert_eq(dsm_copy_in(d, &b, 0x10f * PAGE_SIZE, 1, UINT64_MAX), 0);
	cr_assert_eq(b, 5);
	cr_assert_eq(dsm_view_fault(d, dsm_view(d), true, UINT64_MAX), -EFAULT, "no fault of the memory's making");
	dsm_stats(d, &st);
	cr_assert_eq(st.faults_local, 0);
	close_one(d);
}

Test(node, after_stop_everything_ends)
{
	struct dsm *d = open_one(DSM_MAP_TLB);
	uint8_t b = 0;

	dsm_stop(d);
	cr_assert_eq(dsm_acquire(d, 0, DSM_READ, UINT64_MAX), -EPIPE);
	cr_assert_eq(dsm_copy_out(d, 0, &b, 1, UINT64_MAX), -EPIPE);
	dsm_close(d);
}
