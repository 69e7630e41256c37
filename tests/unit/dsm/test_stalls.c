/* SPDX-License-Identifier: Apache-2.0 */
/* test_stalls.c - a thread's waits are counted by the node whose answer ended them, and only those of that thread. */
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <string.h>

#define SOON (clock_now_ns() + 5 * NS_PER_S)

/* Frames 0 .. 63 homed on node 0, 64 .. 127 on node 1, 128 .. 191 on node 2. */
static void open_three(struct node n[3])
{
	static const struct dsm_range ranges[] = { { 0, 64, 0 }, { 64, 64, 1 }, { 128, 64, 2 } };

	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = 3, .backend = "tcp", .ranges = ranges,
							 .ranges_count = 3, .mapping = DSM_MAP_TLB }),
		     0);
}

Test(stalls, by_the_node_that_answered)
{
	static struct dsm_stalls s;
	struct node n[3];
	uint64_t before;

	open_three(n);
	/* Written at node 2, homed on node 1: the page comes from node 2. */
	cr_assert_eq(dsm_acquire(n[2].d, 70, DSM_WRITE, SOON), 0);
	dsm_stalls_bind(n[0].d, &s);
	cr_assert_eq(dsm_acquire(n[0].d, 70, DSM_READ, SOON), 0);
	cr_expect_eq(s.by[2].waits, 1);
	cr_expect_eq(s.by[2].reads, 1);
	cr_expect_gt(s.by[2].ns, 0);
	cr_expect_eq(s.by[1].waits, 0);
	/* A fresh page of node 1. */
	cr_assert_eq(dsm_acquire(n[0].d, 71, DSM_WRITE, SOON), 0);
	cr_expect_eq(s.by[1].waits, 1);
	cr_expect_eq(s.by[1].reads, 0);
	cr_expect_eq(s.by[1].bounced, 0);
	/* Taken away, and wanted again. */
	cr_assert_eq(dsm_acquire(n[2].d, 71, DSM_WRITE, SOON), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 71, DSM_WRITE, SOON), 0);
	cr_expect_eq(s.by[2].waits, 2);
	cr_expect_eq(s.by[2].bounced, 1);
	/* Own pages and what is here already: nobody else is waited for. */
	cr_assert_eq(dsm_acquire(n[0].d, 3, DSM_WRITE, SOON), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 71, DSM_WRITE, SOON), 0);
	cr_expect_eq(s.by[1].waits + s.by[2].waits, 3);
	dsm_stalls_unbind(n[0].d, &s);
	before = s.by[1].waits;
	cr_assert_eq(dsm_acquire(n[0].d, 72, DSM_WRITE, SOON), 0);
	cr_expect_eq(s.by[1].waits, before);
	nodes_close(n, 3);
}
