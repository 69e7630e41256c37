/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_rehome.c - homes change: who gets what, bytes, the order of the steps, entries that cannot be.
 * Whole switches under load: tests/sim.
 */
#include "base/rng.h"
#include "dsm/core/proto.h"
#include "dsm/core/rehome.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

/* Node 1 has two ranges, 10 and 30 pages. */
static const struct dir_range ranges[] = {
	{ .first = 0, .count = 20, .node = 0 },
	{ .first = 20, .count = 10, .node = 1 },
	{ .first = 40, .count = 30, .node = 1 },
	{ .first = 70, .count = 20, .node = 2 },
};

static struct dir table(void)
{
	static struct dir d;

	cr_assert(dir_init(&d, 3, ranges, ARRAY_LEN(ranges)));
	return d;
}

static struct nodeset set_of(unsigned bits)
{
	return (struct nodeset){ { bits, 0 } };
}

static bool same_homes(const struct dir *a, const struct dir *b)
{
	uint32_t i, k;

	for (uint32_t p = 0; p < a->pages; p++)
		if (dir_home(a, p, &i) != dir_home(b, p, &k) || dir_gfn(a, p) != dir_gfn(b, p))
			return false;
	return a->pages == b->pages;
}

Test(rehome, whoever_has_most_room_gets_a_range_and_it_is_cut_where_none_has_enough)
{
	struct dir now = table(), next;
	struct nodeset takers = set_of(5);
	uint64_t room[NODES_MAX] = { 25, 0, 15 };
	uint32_t index;

	cr_assert_eq(rehome_plan_drain(&now, 1, &takers, room, &next), 0);
	cr_assert_eq(next.homed[1], 0);
	cr_assert_eq(next.homed[0], 20 + 25);
	cr_assert_eq(next.homed[2], 20 + 15);
	cr_assert_eq(next.pages, now.pages);
	cr_assert_eq(dir_home(&next, dir_page(&next, 20), &index), 0); /* 10 of 25; then 15 and 15 are left */
	for (uint32_t p = 0; p < now.pages; p++)
		cr_assert_eq(dir_gfn(&next, p), dir_gfn(&now, p));
}

Test(rehome, too_little_room_is_refused)
{
	struct dir now = table(), next;
	struct nodeset takers = set_of(5);
	uint64_t room[NODES_MAX] = { 25, 1000, 14 };

	cr_assert_eq(rehome_plan_drain(&now, 1, &takers, room, &next), -ENOSPC);
}

Test(rehome, who_comes_back_is_home_to_what_it_was)
{
	struct dir first = table(), without, again;
	struct nodeset takers = set_of(5);
	uint64_t room[NODES_MAX] = { 35, 0, 15 };

	cr_assert_eq(rehome_plan_drain(&first, 1, &takers, room, &without), 0);
	cr_assert_not(same_homes(&first, &without));
	cr_assert_eq(rehome_plan_join(&without, &first, 1, &again), 0);
	cr_assert(same_homes(&first, &again));
}

Test(rehome, a_map_survives_the_wire_and_garbage_does_not)
{
	struct dir now = table(), next, back;
	struct nodeset takers = set_of(5);
	uint64_t room[NODES_MAX] = { 25, 0, 15 };
	uint8_t b[PAGE_SIZE];
	struct rng rng = { 3 };

	cr_assert_eq(rehome_plan_drain(&now, 1, &takers, room, &next), 0);
	cr_assert(rehome_map_encode(&next, b));
	cr_assert(rehome_map_decode(b, &now, &back));
	cr_assert(same_homes(&next, &back));
	for (unsigned i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, i % 2 ? 64 : PAGE_SIZE);
		uint8_t was = b[at];

		b[at] ^= (uint8_t)(1 + rng_below(&rng, 255));
		if (rehome_map_decode(b, &now, &back))
			cr_assert_eq(back.pages, now.pages);
		b[at] = was;
	}
	b[PAGE_SIZE - 1] = 1;
	cr_assert_not(rehome_map_decode(b, &now, &back));
	memset(b, 0xff, sizeof(b));
	cr_assert_not(rehome_map_decode(b, &now, &back));
}

static const struct rehome_msg samples[] = {
	{ .kind = REHOME_ASK },
	{ .kind = REHOME_ROOM, .number = 1ull << 40 },
	{ .kind = REHOME_LEAVE },
	{ .kind = REHOME_LEFT, .number = 7 },
	{ .kind = REHOME_STAY },
	{ .kind = REHOME_PLAN, .number = 2, .node = NODE_NONE, .set = { { 7, 1ull << 63 } } },
	{ .kind = REHOME_MARK, .number = 2, .phase = 3 },
	{ .kind = REHOME_MARK, .number = 2, .phase = 4, .set = { { 10, 4 } } },
	{ .kind = REHOME_ENTRY, .number = 9, .node = 127, .written = 1, .bytes = 1, .mig = 31, .set = { { 1, 2 } } },
	{ .kind = REHOME_ENTRY, .number = 9, .mig = 1 },
};

static size_t data_of(const struct rehome_msg *m)
{
	return m->bytes || m->kind == REHOME_PLAN ? PAGE_SIZE : 0;
}

Test(rehome, messages_survive_the_wire)
{
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		uint8_t b[REHOME_MSG_BYTES + 1] = { 0 };
		struct rehome_msg m = { 0 };
		size_t data = data_of(&samples[i]);

		rehome_encode(&samples[i], b);
		cr_assert(rehome_decode(b, REHOME_MSG_BYTES, data, &m), "sample %zu", i);
		cr_assert(m.kind == samples[i].kind && m.number == samples[i].number && m.phase == samples[i].phase &&
			  m.bytes == samples[i].bytes && m.written == samples[i].written && m.mig == samples[i].mig &&
			  m.node == samples[i].node && !memcmp(&m.set, &samples[i].set, sizeof(m.set)), "sample %zu", i);
		cr_assert_not(rehome_decode(b, REHOME_MSG_BYTES + 1, data, &m));
		cr_assert_not(rehome_decode(b, REHOME_MSG_BYTES, PAGE_SIZE - data, &m));
		b[0]++;
		cr_assert_not(rehome_decode(b, REHOME_MSG_BYTES, data, &m));
	}
}

/* What decodes is what encoding would have made. */
Test(rehome, random_bytes_are_refused_or_canonical)
{
	struct rng rng = { 5 };
	unsigned good = 0;

	for (unsigned i = 0; i < 200000; i++) {
		uint8_t b[REHOME_MSG_BYTES], again[REHOME_MSG_BYTES];
		struct rehome_msg m;

		rehome_encode(&samples[i % ARRAY_LEN(samples)], b);
		b[rng_below(&rng, REHOME_MSG_BYTES)] = (uint8_t)rng_below(&rng, 256);
		b[rng_below(&rng, 8)] ^= (uint8_t)(rng_below(&rng, 4) == 0);
		if (!rehome_decode(b, sizeof(b), rng_below(&rng, 2) ? PAGE_SIZE : 0, &m))
			continue;
		good++;
		rehome_encode(&m, again);
		cr_assert_eq(memcmp(b, again, sizeof(b)), 0);
	}
	cr_assert_gt(good, 1000);
}

Test(rehome, steps_come_in_order_or_not_at_all)
{
	struct nodeset part = set_of(7), others = set_of(6);
	struct rehome r;

	rehome_init(&r, 2, 3);
	cr_assert_not(rehome_begin(&r, 1, &others, 1), "node 0 takes part");
	cr_assert_not(rehome_begin(&r, 1, &part, 0), "node 0 stays");
	cr_assert_not(rehome_begin(&r, 0, &part, 1), "an old version");
	cr_assert(rehome_mark(&r, 1, 1, 1), "somebody had the plan sooner");
	cr_assert_not(rehome_mark(&r, 1, 1, 1), "twice");
	cr_assert_not(rehome_mark(&r, 0, 1, 2), "one is missing");
	cr_assert(rehome_begin(&r, 1, &part, 1));
	cr_assert_not(rehome_begin(&r, 2, &part, 1), "one at a time");
	cr_assert_eq(rehome_next(&r, false), REHOME_WAIT);
	cr_assert_not(rehome_entry_due(&r, 1), "it has not heard that this one is quiet");
	cr_assert_eq(rehome_next(&r, true), REHOME_SAY);
	cr_assert_eq(rehome_next(&r, true), REHOME_WAIT, "node 0 is not quiet");
	cr_assert(rehome_entry_due(&r, 1));
	cr_assert(rehome_mark(&r, 0, 1, 1));
	cr_assert_eq(rehome_next(&r, true), REHOME_MOVE);
	cr_assert_eq(rehome_next(&r, false), REHOME_WAIT);
	cr_assert_eq(rehome_next(&r, true), REHOME_SAY);
	cr_assert(rehome_mark(&r, 1, 1, 2));
	cr_assert_not(rehome_entry_due(&r, 1), "it said those were all");
	cr_assert_eq(rehome_next(&r, true), REHOME_WAIT);
	cr_assert(rehome_mark(&r, 0, 1, 2));
	cr_assert_eq(rehome_next(&r, true), REHOME_SWITCH);
	cr_assert_eq(rehome_next(&r, true), REHOME_SAY);
	cr_assert_eq(r.reached[2], 3);
	cr_assert(rehome_mark(&r, 0, 1, 3));
	cr_assert_eq(rehome_next(&r, true), REHOME_WAIT);
	cr_assert(rehome_mark(&r, 1, 1, 3));
	cr_assert_eq(rehome_next(&r, true), REHOME_THAW);
	cr_assert(nodeset_has(&r.gone, 1) && !nodeset_has(&r.gone, 0) && !nodeset_has(&r.gone, 2));
	cr_assert_not(rehome_begin(&r, 1, &part, 1), "again");
	cr_assert_not(rehome_mark(&r, 1, 1, 4), "that is for node 0");
}

Test(rehome, entries_that_cannot_be_are_rejected)
{
	struct dir now = table(), next;
	struct nodeset takers = set_of(4);
	uint64_t room[NODES_MAX] = { 0, 0, 40 };
	struct proto_config cfg = { .self = 2, .nodes = 3, .dir = &now };
	struct proto_homes homes;
	struct proto p;
	void *mem, *homes_mem;
	const uint32_t page = 25; /* of node 1 now */
	struct proto_entry good = { .owner = 2, .written = true, .bytes = true }, e = good;

	proto_config_default(&cfg);
	mem = calloc(1, proto_bytes(&cfg));
	proto_init(&p, &cfg, mem);
	cr_assert_eq(rehome_plan_drain(&now, 1, &takers, room, &next), 0);
	homes_mem = calloc(1, proto_homes_bytes(&next, 2));
	proto_homes_init(&homes, &next, 2, homes_mem);
	cr_assert(proto_entry_put(&p, &homes, page, &good));
	cr_assert_not(proto_entry_put(&p, &homes, 0, &good), "homed elsewhere");
	e.owner = 3;
	cr_assert_not(proto_entry_put(&p, &homes, page, &e), "no such node");
	e = good;
	e.bytes = false;
	cr_assert_not(proto_entry_put(&p, &homes, page, &e), "nobody has the newest bytes");
	e = good;
	e.owner = 0;
	cr_assert_not(proto_entry_put(&p, &homes, page, &e), "bytes of a page that another owns");
	e = good;
	e.copyset = set_of(4);
	cr_assert_not(proto_entry_put(&p, &homes, page, &e), "I4: the owner in its own copyset");
	e.copyset = set_of(8);
	cr_assert_not(proto_entry_put(&p, &homes, page, &e), "a copy at no node");
	e = good;
	e.mig = PROTO_MIG_MAX;
	cr_assert_not(proto_entry_put(&p, &homes, page, &e));
	free(mem);
	free(homes_mem);
}
