/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_map_tlb.c - the reader contract on one node: what devices write is posted to the readers that looked,
 * in order, to those that are away when they come back, and an overflow becomes DSM_ALL.
 */
#include "base/clock.h"
#include "dsm/dsm.h"

#include <criterion/criterion.h>

struct seen {
	unsigned drops, all;
	gfn_t last;
};

static void drop(void *arg, gfn_t gfn, enum dsm_right right)
{
	struct seen *s = arg;

	cr_assert_eq(right, DSM_NONE);
	s->drops++;
	s->all += gfn == DSM_ALL;
	s->last = gfn;
}

static struct dsm *open_one(void)
{
	static const struct dsm_range range = { 0, 256, 0 };
	struct dsm_config cfg = {
		.nodes = 1, .ranges = &range, .ranges_count = 1, .mapping = DSM_MAP_TLB
	};
	struct dsm *d;

	cr_assert_eq(dsm_open(&cfg, &d), 0);
	return d;
}

static void write_page(struct dsm *d, gfn_t gfn)
{
	uint8_t b = 1;

	cr_assert_eq(dsm_copy_out(d, gfn << PAGE_SHIFT, &b, 1, UINT64_MAX), 0);
}

Test(map_tlb, active_reader_is_kicked_and_told_once)
{
	struct dsm *d = open_one();
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct seen s = { 0 };

	cr_assert_eq(dsm_reader_open(d, &kick, &r), 0);
	dsm_reader_enter(r, drop, &s);
	cr_assert_eq(s.drops, 0);
	write_page(d, 5);
	cr_assert_eq(kick, 0, "a reader that never looked at the page is left alone");
	dsm_reader_right(r, 5);
	write_page(d, 5);
	cr_assert_eq(kick, 1);
	dsm_reader_poll(r, drop, &s);
	cr_assert_eq(s.drops, 1);
	cr_assert_eq(s.last, 5);
	dsm_reader_poll(r, drop, &s);
	cr_assert_eq(s.drops, 1);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	dsm_stop(d);
	dsm_close(d);
}

Test(map_tlb, away_reader_is_told_when_it_enters_and_not_kicked)
{
	struct dsm *d = open_one();
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct seen s = { 0 };

	cr_assert_eq(dsm_reader_open(d, &kick, &r), 0);
	dsm_reader_enter(r, drop, &s);
	dsm_reader_right(r, 6);
	dsm_reader_right(r, 7);
	dsm_reader_leave(r);
	write_page(d, 6);
	write_page(d, 7);
	cr_assert_eq(kick, 0);
	dsm_reader_enter(r, drop, &s);
	cr_assert_eq(s.drops, 2);
	cr_assert_eq(s.last, 7);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	dsm_stop(d);
	dsm_close(d);
}

Test(map_tlb, overflow_becomes_one_drop_all)
{
	struct dsm *d = open_one();
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct seen s = { 0 };

	cr_assert_eq(dsm_reader_open(d, &kick, &r), 0);
	dsm_reader_enter(r, drop, &s);
	for (gfn_t g = 0; g < 200; g++)
		dsm_reader_right(r, g);
	dsm_reader_leave(r);
	for (gfn_t g = 0; g < 200; g++)
		write_page(d, g);
	dsm_reader_enter(r, drop, &s);
	cr_assert_eq(s.drops, 1);
	cr_assert_eq(s.all, 1);
	write_page(d, 9);
	dsm_reader_poll(r, drop, &s);
	cr_assert_eq(s.last, 9);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	dsm_stop(d);
	dsm_close(d);
}
