/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_proto.c - the protocol by example: message charts, holds, limits, refusals.
 *
 * What happens is logged as text and compared with the charts of docs/protocol.md.  What every interleaving
 * does is the business of tests/check.
 */
#include "base/rng.h"
#include "tests/unit/dsm/proto_cluster.h"

/* --- charts ------------------------------------------------------------------------------------------- */

Test(proto, a_node_alone_needs_one_step_and_no_message)
{
	struct cluster *c = cluster_open(1, NULL);

	ask(c, 0, 0, PROTO_READ, 0);
	EXPECT(c, "0 MAP r\n");
	ask(c, 0, 0, PROTO_WRITE, 0);
	EXPECT(c, "0 MAP w\n");
	ask(c, 0, 1, PROTO_WRITE, 0);
	EXPECT(c, "0 MAP w\n");
	ask(c, 0, 1, PROTO_READ, 0);
	EXPECT(c, "");
	cr_assert_eq(c->sent, 0);
	cluster_close(c);
}

Test(proto, never_written_pages_travel_without_bytes)
{
	struct cluster *c = cluster_open(3, NULL);

	ask(c, 1, 0, PROTO_READ, 0);
	EXPECT(c, "1>0 REQ_READ\n0>1 GRANT r zero 0\n1 ZERO\n1 MAP r\n");
	ask(c, 0, 0, PROTO_READ, 0);
	EXPECT(c, "0 MAP r\n");
	/* The home's copy and node 1's go; still no bytes. */
	ask(c, 2, 0, PROTO_WRITE, 0);
	EXPECT(c, "2>0 REQ_WRITE\n0>1 INV\n0 UNMAP -\n0>2 GRANT w zero 1\n"
		  "1 UNMAP -\n1>2 ACK\n1 DROP\n2 ZERO\n2 MAP w\n2>0 DONE\n");
	/* From now on there are bytes. */
	ask(c, 1, 0, PROTO_READ, 0);
	EXPECT(c, "1>0 REQ_READ\n0>2 FWD_READ\n2 UNMAP r\n2>1 GRANT r page 0\n1 FILL\n1 MAP r\n1>0 DONE\n");
	cluster_close(c);
}

Test(proto, write_comes_from_the_owner_in_three_hops)
{
	struct cluster *c = cluster_open(3, NULL);

	ask(c, 1, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	ask(c, 2, 0, PROTO_WRITE, 0);
	EXPECT(c, "2>0 REQ_WRITE\n0>1 FWD_WRITE\n1 UNMAP -\n1>2 GRANT w page 0\n1 DROP\n"
		  "2 FILL\n2 MAP w\n2>0 DONE\n");
	cluster_close(c);
}

Test(proto, upgrade_moves_no_bytes)
{
	struct cluster *c = cluster_open(3, NULL);

	ask(c, 1, 0, PROTO_WRITE, 0);
	ask(c, 2, 0, PROTO_READ, 0);
	c->log[0] = 0;
	ask(c, 2, 0, PROTO_WRITE, 0);
	EXPECT(c, "2>0 REQ_WRITE\n0>1 INV\n0>2 GRANT w keep 1\n1 UNMAP -\n1>2 ACK\n1 DROP\n"
		  "2 MAP w\n2>0 DONE\n");
	cluster_close(c);
}

Test(proto, a_read_does_not_move_ownership)
{
	struct cluster *c = cluster_open(4, NULL);

	ask(c, 1, 0, PROTO_WRITE, 0);
	for (unsigned n = 2; n < 4; n++)
		ask(c, n, 0, PROTO_READ, 0);
	cr_assert_eq(proto_owner(&c->node[0], 0), 1);
	/* The owner writes on: the readers go, it needs no bytes. */
	c->log[0] = 0;
	ask(c, 1, 0, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n0>2 INV\n0>3 INV\n0>1 GRANT w keep 2\n2 UNMAP -\n2>1 ACK\n2 DROP\n"
		  "3 UNMAP -\n3>1 ACK\n3 DROP\n1 MAP w\n1>0 DONE\n");
	cluster_close(c);
}

Test(proto, eviction_brings_the_page_home)
{
	struct cluster *c = cluster_open(2, NULL);

	evict(c, 1, 0);
	EXPECT(c, "");
	ask(c, 1, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	evict(c, 1, 0);
	EXPECT(c, "1>0 EVICT\n0>1 RECALL\n1 UNMAP -\n1>0 RETURN\n1 DROP\n0 FILL\n");
	ask(c, 1, 0, PROTO_READ, 0);
	EXPECT(c, "1>0 REQ_READ\n0>1 GRANT r page 0\n1 FILL\n1 MAP r\n");
	/* A clean copy goes in silence; the invalidation that comes later is answered all the same. */
	evict(c, 1, 0);
	EXPECT(c, "1 UNMAP -\n1 DROP\n");
	ask(c, 0, 0, PROTO_WRITE, 0);
	EXPECT(c, "0>1 INV\n1>0 ACK\n1 DROP\n0 MAP w\n");
	/* Home pages stay. */
	evict(c, 0, 0);
	EXPECT(c, "");
	cluster_close(c);
}

/* --- migratory pages ---------------------------------------------------------------------------------- */

static void migratory_config(struct proto_config *cfg)
{
	cfg->mig_evidence = 2;
	cfg->mig_probe = 3;
}

/* Messages that a read and then a write of node n take. */
static unsigned visit(struct cluster *c, unsigned n)
{
	unsigned sent = c->sent;

	ask(c, n, 0, PROTO_READ, 0);
	if (c->node[n].page[0].right == PROTO_READ)
		ask(c, n, 0, PROTO_WRITE, 0);
	cr_assert_eq(c->node[n].page[0].right, PROTO_WRITE);
	return c->sent - sent;
}

Test(proto, migratory_pages_are_granted_for_writing_on_the_read)
{
	struct cluster *c = cluster_open(4, migratory_config);
	static const unsigned expect[] = { 9, 9, 4, 4, 4, 9, 4, 4, 4, 9 };

	ask(c, 1, 0, PROTO_WRITE, 0);
	/* Two visits with an upgrade, three without, then one that looks whether it still is so. */
	for (unsigned i = 0; i < ARRAY_LEN(expect); i++)
		cr_assert_eq(visit(c, i % 2 ? 2 : 3), expect[i], "visit %u", i);
	cluster_close(c);
}

Test(proto, pages_read_by_many_are_not_migratory)
{
	struct cluster *c = cluster_open(4, migratory_config);

	ask(c, 1, 0, PROTO_WRITE, 0);
	for (unsigned i = 0; i < 4; i++)
		visit(c, i % 2 ? 2 : 3);
	/* The probe is served for reading; a second reader beside it ends it. */
	for (unsigned i = 0; i < 4 && c->node[0].home[0].mig; i++) {
		ask(c, 1, 0, PROTO_READ, 0);
		ask(c, 2, 0, PROTO_READ, 0);
		ask(c, 3, 0, PROTO_READ, 0);
	}
	cr_assert_eq(c->node[0].home[0].mig, 0);
	for (unsigned n = 1; n < 4; n++)
		ask(c, n, 0, PROTO_READ, 0);
	for (unsigned n = 1; n < 4; n++)
		cr_assert_eq(c->node[n].page[0].right, PROTO_READ);
	cluster_close(c);
}

/* --- holds -------------------------------------------------------------------------------------------- */

static void hold_config(struct proto_config *cfg)
{
	cfg->hold_ns = 50 * US;
	cfg->hold_max_ns = 5000 * US;
}

Test(proto, a_granted_page_is_held_for_a_bounded_time)
{
	struct cluster *c = cluster_open(2, hold_config);
	uint64_t first_ns;

	c->now_ns = 123456789;
	ask(c, 0, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	ask(c, 1, 0, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n0 TIMER\n");
	cr_assert_geq(c->timer_ns, c->now_ns + 50 * US);
	cr_assert_leq(c->timer_ns, c->now_ns + 60 * US);
	/* The holder goes on using it, even when it asks again with retries: no longer hold than was set. */
	ask(c, 0, 0, PROTO_WRITE, 9);
	EXPECT(c, "");
	/* An early timer is set again, a late one ends the hold, a stray one does nothing. */
	c->now_ns += 10 * US;
	first_ns = c->timer_ns;
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_TIMER, .page = 0 });
	EXPECT(c, "0 TIMER\n");
	cr_assert_leq(c->timer_ns, first_ns + 5 * US);
	c->now_ns = c->timer_ns;
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_TIMER, .page = 0 });
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_TIMER, .page = 0 });
	deliver_all(c);
	EXPECT(c, "0 UNMAP -\n0>1 GRANT w page 0\n1 FILL\n1 MAP w\n");
	cluster_close(c);
}

/* Longest hold over many grants with the same retry count. */
static uint64_t hold_longest(uint8_t retry, uint64_t *sum)
{
	struct cluster *c = cluster_open(2, hold_config);
	uint64_t longest = 0;

	*sum = 0;
	for (unsigned i = 0; i < 400; i++) {
		uint64_t held;

		c->now_ns += 7777777;
		ask(c, 0, 0, PROTO_WRITE, retry);
		ask(c, 1, 0, PROTO_WRITE, 0);
		held = c->timer_ns - c->now_ns;
		longest = held > longest ? held : longest;
		*sum += held;
		c->now_ns = c->timer_ns;
		step(c, 0, (struct proto_event){ .kind = PROTO_EV_TIMER, .page = 0 });
		deliver_all(c);
		cr_assert_eq(c->node[1].page[0].right, PROTO_WRITE);
		c->now_ns += 100000 * US;
	}
	cluster_close(c);
	return longest;
}

Test(proto, retries_hold_longer_now_and_then_but_never_beyond_the_limit)
{
	uint64_t sum0, sum5, sum200;
	uint64_t h0 = hold_longest(0, &sum0), h5 = hold_longest(5, &sum5), h200 = hold_longest(200, &sum200);

	cr_assert_leq(h0, 60 * US);
	cr_assert_gt(h5, 5 * h0);
	cr_assert_gt(h200, h5);
	cr_assert_leq(h200, 5010 * US, "%llu", (unsigned long long)h200);
	/* Most are short. */
	cr_assert_lt(sum200 / 400, 10 * sum0 / 400);
}

Test(proto, an_old_hold_is_over)
{
	struct cluster *c = cluster_open(2, hold_config);

	ask(c, 0, 0, PROTO_WRITE, 3);
	c->log[0] = 0;
	c->now_ns += 3000000 * US;
	ask(c, 1, 0, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n0 UNMAP -\n0>1 GRANT w page 0\n1 FILL\n1 MAP w\n");
	cluster_close(c);
}

static void hold_until(struct cluster *c, unsigned n, uint64_t until_ns)
{
	step(c, n, (struct proto_event){ .kind = PROTO_EV_HOLD, .page = 0, .until_ns = until_ns });
}

Test(proto, a_pinned_page_stays_until_it_is_let_go)
{
	struct cluster *c = cluster_open(2, hold_config);

	c->now_ns = 123456789;
	ask(c, 0, 0, PROTO_WRITE, 0);
	hold_until(c, 0, PROTO_HOLD_PINNED);
	c->now_ns += 6000000 * US; /* longer than any stamp lasts */
	c->log[0] = 0;
	ask(c, 1, 0, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n");
	/* Neither a timer nor the holder's own accesses change that. */
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_TIMER, .page = 0 });
	ask(c, 0, 0, PROTO_WRITE, 3);
	EXPECT(c, "");
	/* An end in the future is a timer, one that has passed lets go. */
	hold_until(c, 0, c->now_ns + 100 * US);
	EXPECT(c, "0 TIMER\n");
	cr_assert_leq(c->timer_ns, c->now_ns + 104 * US);
	hold_until(c, 0, c->now_ns);
	deliver_all(c);
	EXPECT(c, "0 UNMAP -\n0>1 GRANT w page 0\n1 FILL\n1 MAP w\n");
	cluster_close(c);
}

Test(proto, only_what_is_held_can_be_pinned)
{
	struct cluster *c = cluster_open(2, hold_config);

	hold_until(c, 1, PROTO_HOLD_PINNED);
	ask(c, 1, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	c->now_ns += 60 * US;
	ask(c, 0, 0, PROTO_WRITE, 0);
	EXPECT(c, "0>1 FWD_WRITE\n1 UNMAP -\n1>0 GRANT w page 0\n1 DROP\n0 FILL\n0 MAP w\n");
	/* A hold with an end is never longer than the longest. */
	hold_until(c, 0, c->now_ns + 1000000 * US);
	c->log[0] = 0;
	ask(c, 1, 0, PROTO_WRITE, 0);
	cr_assert_leq(c->timer_ns, c->now_ns + 5010 * US);
	cluster_close(c);
}

Test(proto, a_pinned_reader_upgrades_after_the_writer_before_it_only_when_let_go)
{
	struct cluster *c = cluster_open(3, hold_config);

	ask(c, 0, 0, PROTO_WRITE, 0);
	c->now_ns += 60 * US;
	ask(c, 1, 0, PROTO_READ, 0);
	hold_until(c, 1, PROTO_HOLD_PINNED);
	ask(c, 2, 0, PROTO_WRITE, 0);
	ask(c, 1, 0, PROTO_WRITE, 0);
	cr_assert_eq(c->node[1].page[0].right, PROTO_READ);
	cr_assert_eq(c->node[2].page[0].right, PROTO_NONE);
	hold_until(c, 1, c->now_ns);
	deliver_all(c);
	cr_assert_eq(c->node[2].page[0].right, PROTO_WRITE);
	cluster_close(c);
}

/* --- local wishes ------------------------------------------------------------------------------------- */

Test(proto, a_stronger_wish_follows_the_one_in_flight)
{
	struct cluster *c = cluster_open(2, NULL);
	struct proto_event read = { .kind = PROTO_EV_REQUEST, .page = 0, .right = PROTO_READ };
	struct proto_event write = { .kind = PROTO_EV_REQUEST, .page = 0, .right = PROTO_WRITE };

	ask(c, 0, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	step(c, 1, read);
	step(c, 1, write);
	step(c, 1, read);
	step(c, 1, write);
	EXPECT(c, "1>0 REQ_READ\n");
	deliver_all(c);
	EXPECT(c, "0 UNMAP r\n0>1 GRANT r page 0\n1 FILL\n1 MAP r\n1>0 REQ_WRITE\n0>1 GRANT w keep 1\n"
		  "0 UNMAP -\n0>1 ACK\n1 MAP w\n1>0 DONE\n");
	cluster_close(c);
}

static void one_request(struct proto_config *cfg)
{
	cfg->requests = 1;
}

Test(proto, busy_and_room)
{
	struct cluster *c = cluster_open(2, one_request);
	struct proto_event ev = { .kind = PROTO_EV_REQUEST, .page = 0, .right = PROTO_WRITE };

	step(c, 1, ev);
	ev.page = 2;
	step(c, 1, ev);
	EXPECT(c, "1>0 REQ_WRITE\n1 BUSY\n");
	deliver_all(c);
	EXPECT(c, "0>1 GRANT w zero 0\n1 ZERO\n1 MAP w\n1 ROOM\n");
	ask(c, 1, 2, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n0>1 GRANT w zero 0\n1 ZERO\n1 MAP w\n");
	cluster_close(c);
}

/* --- limits ------------------------------------------------------------------------------------------- */

Test(proto, a_crowd_of_readers_then_a_writer)
{
	struct cluster *c = cluster_open(NODES_MAX, NULL);
	struct proto_event ev = { .kind = PROTO_EV_REQUEST, .page = 0, .right = PROTO_READ };

	/* All wait behind node 1's eviction, so that one step serves them. */
	ask(c, 1, 0, PROTO_WRITE, 0);
	c->no_unmap = true;
	step(c, 1, (struct proto_event){ .kind = PROTO_EV_EVICT, .page = 0 });
	for (unsigned n = 2; n < NODES_MAX; n++)
		step(c, n, ev);
	deliver_all(c);
	ev.right = PROTO_WRITE;
	step(c, 0, ev);
	deliver_all(c);
	step(c, 1, (struct proto_event){ .kind = PROTO_EV_UNMAPPED, .page = 0 });
	c->no_unmap = false;
	deliver_all(c);
	for (unsigned n = 1; n < NODES_MAX; n++)
		cr_assert_eq(c->node[n].page[0].right, PROTO_NONE);
	cr_assert_eq(c->node[0].page[0].right, PROTO_WRITE);
	/* 126 grants and 126 invalidations came from one step; the bound holds with room for the rest. */
	cr_assert_geq(c->effects_max, 2 * 126);
	cr_assert_leq(c->effects_max, PROTO_EFFECTS_MAX);
	cluster_close(c);
}

Test(proto, configuration_limits)
{
	static struct dir d;
	static const struct dir_range r[] = { { 0, 1000, 0 }, { 1000, 1000, 1 } };
	struct proto_config ok = { .self = 1, .nodes = 2, .dir = &d }, bad;

	cr_assert(dir_init(&d, 2, r, 2));
	proto_config_default(&ok);
	cr_assert_gt(proto_bytes(&ok), 2000 * sizeof(struct proto_page));
	/* 23 bytes a page at rest, and one of the shell's; the pools are apart from that. */
	cr_assert_leq(proto_bytes(&ok), 2000 * 3 + 1000 * 20 + 64 +
		      (2 * ok.requests + 1) * (sizeof(struct proto_flight) + sizeof(struct proto_wait)));
#define REFUSED(change) \
	do { \
		bad = ok; \
		bad.change; \
		cr_assert_eq(proto_bytes(&bad), 0); \
	} while (0)
	REFUSED(self = 2);
	REFUSED(nodes = 3);
	REFUSED(dir = NULL);
	REFUSED(requests = 0);
	REFUSED(requests = PROTO_REQUESTS_MAX + 1);
	REFUSED(hold_ns = ok.hold_max_ns + 1);
	REFUSED(hold_max_ns = PROTO_HOLD_LIMIT_NS + 1);
	REFUSED(mig_probe = PROTO_MIG_MAX);
}

/* --- peers that break the rules ----------------------------------------------------------------------- */

Test(proto, messages_that_make_no_sense_are_refused_and_change_nothing)
{
	struct cluster *c = cluster_open(3, NULL);
	static const struct {
		node_id from;
		struct proto_msg m;
	} bad[] = {
		{ 1, { .kind = PROTO_REQ_READ, .page = 1 } }, /* not homed here */
		{ 1, { .kind = PROTO_REQ_READ, .page = PAGES } },
		{ 0, { .kind = PROTO_REQ_READ, .page = 0 } }, /* ourselves */
		{ 3, { .kind = PROTO_REQ_READ, .page = 0 } }, /* no such node */
		{ 1, { .kind = 0, .page = 0 } },
		{ 1, { .kind = PROTO_KINDS, .page = 0 } },
		{ 1, { .kind = PROTO_FWD_READ, .node = 2, .page = 0 } }, /* only the home says so */
		{ 1, { .kind = PROTO_FWD_WRITE, .node = 2, .page = 1 } }, /* not the owner */
		{ 1, { .kind = PROTO_RECALL, .page = 1 } },
		{ 2, { .kind = PROTO_INV, .node = 2, .page = 1 } }, /* not the home */
		{ 1, { .kind = PROTO_INV, .node = 0, .page = 1 } }, /* for ourselves */
		{ 1, { .kind = PROTO_INV, .node = 9, .page = 1 } },
		{ 1, { .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_PAGE, .page = 1 } },
		{ 1, { .kind = PROTO_ACK, .page = 1 } },
		{ 1, { .kind = PROTO_DONE, .page = 0 } },
		{ 1, { .kind = PROTO_RETURN, .bytes = PROTO_BYTES_PAGE, .page = 0 } },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		step(c, 0, (struct proto_event){ .kind = PROTO_EV_MESSAGE, .from = bad[i].from,
						 .msg = bad[i].m });
		cr_assert_str_eq(c->log, "0 REFUSED\n", "case %zu: %s", i, c->log);
		c->log[0] = 0;
	}
	cr_assert_eq(c->node[0].refused, ARRAY_LEN(bad));
	ask(c, 1, 0, PROTO_WRITE, 0);
	EXPECT(c, "1>0 REQ_WRITE\n0>1 GRANT w zero 0\n1 ZERO\n1 MAP w\n");
	/* The same request twice, and more than a peer may have in flight. */
	c->no_unmap = true;
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_REQUEST, .page = 0, .right = PROTO_READ });
	for (unsigned i = 0; i < 2; i++)
		step(c, 0, (struct proto_event){ .kind = PROTO_EV_MESSAGE, .from = 2,
						 .msg = { .kind = PROTO_REQ_READ, .page = 0 } });
	EXPECT(c, "0>1 FWD_READ\n0 REFUSED\n");
	cluster_close(c);
}

/* Grants that do not fit what was asked. */
Test(proto, wrong_grants_are_refused)
{
	struct cluster *c = cluster_open(3, NULL);
	static const struct {
		node_id from;
		struct proto_msg m;
	} bad[] = {
		{ 1, { .kind = PROTO_GRANT, .right = PROTO_READ, .bytes = PROTO_BYTES_PAGE } }, /* too weak */
		{ 1, { .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_KEEP } }, /* of what? */
		{ 2, { .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_ZERO } }, /* not home */
		{ 1, { .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_PAGE, .acks = 3 } },
		{ 1, { .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_NONE } },
		{ 1, { .kind = PROTO_GRANT, .right = 3, .bytes = PROTO_BYTES_PAGE } },
	};

	step(c, 0, (struct proto_event){ .kind = PROTO_EV_REQUEST, .page = 1, .right = PROTO_WRITE });
	c->log[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct proto_msg m = bad[i].m;

		m.page = 1;
		step(c, 0, (struct proto_event){ .kind = PROTO_EV_MESSAGE, .from = bad[i].from, .msg = m });
		cr_assert_str_eq(c->log, "0 REFUSED\n", "case %zu: %s", i, c->log);
		c->log[0] = 0;
	}
	deliver_all(c);
	EXPECT(c, "1>0 GRANT w zero 0\n0 ZERO\n0 MAP w\n");
	cluster_close(c);
}

Test(proto, a_lost_peer_is_neither_heard_nor_spoken_to)
{
	struct cluster *c = cluster_open(3, NULL);

	ask(c, 1, 0, PROTO_WRITE, 0);
	c->log[0] = 0;
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_PEER_LOST, .from = 1 });
	ask(c, 2, 0, PROTO_READ, 0);
	EXPECT(c, "2>0 REQ_READ\n");
	step(c, 0, (struct proto_event){ .kind = PROTO_EV_MESSAGE, .from = 1,
					 .msg = { .kind = PROTO_REQ_READ, .page = 3 } });
	EXPECT(c, "0 REFUSED\n");
	cluster_close(c);
}

/* A node among liars: it may end up wrong about the world, but it stays on its feet, within its bounds. */
Test(proto, any_sequence_of_messages_is_survived)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct cluster *c = cluster_open(4, seed % 3 ? one_request : hold_config);
		struct proto_effects *fx = malloc(sizeof(*fx));
		struct rng r = { seed };
		bool unmapping[PAGES] = { false };

		for (unsigned i = 0; i < 20000; i++) {
			struct proto_event ev = {
				.kind = PROTO_EV_MESSAGE, .page = (uint32_t)rng_below(&r, PAGES),
				.right = (uint8_t)(1 + rng_below(&r, 2)), .from = (node_id)rng_below(&r, 5),
				.now_ns = i * 20 * US,
				.msg = { .kind = (uint8_t)rng_below(&r, PROTO_KINDS + 1),
					 .right = (uint8_t)rng_below(&r, 4), .bytes = (uint8_t)rng_below(&r, 5),
					 .node = (node_id)rng_below(&r, 5), .acks = (uint8_t)rng_below(&r, 4),
					 .copy = (uint8_t)rng_below(&r, 2), .page = (uint32_t)rng_below(&r, PAGES + 1) },
			};

			switch (rng_below(&r, 7)) {
			case 4:
				ev.kind = PROTO_EV_HOLD;
				ev.until_ns = rng_below(&r, 2) ? PROTO_HOLD_PINNED : ev.now_ns + 100 * US;
				break;
			case 0: ev.kind = PROTO_EV_REQUEST; break;
			case 1: ev.kind = PROTO_EV_TIMER; break;
			case 2: ev.kind = PROTO_EV_EVICT; break;
			case 3:
				if (unmapping[ev.page]) {
					ev.kind = PROTO_EV_UNMAPPED;
					unmapping[ev.page] = false;
				}
				break;
			}
			proto_step(&c->node[0], &ev, fx);
			for (unsigned k = 0; k < fx->count; k++) {
				if (fx->fx[k].kind != PROTO_FX_UNMAP)
					continue;
				cr_assert_not(unmapping[fx->fx[k].page]);
				unmapping[fx->fx[k].page] = true;
			}
		}
		free(fx);
		cluster_close(c);
	}
}

/* --- what a thread that collects takes next ---------------------------------------------------------------- */

Test(collect, ascending_once_each_and_the_strongest_right)
{
	struct collect c = { 0 };

	collect_add(&c, 7, PROTO_READ);
	collect_add(&c, 3, PROTO_WRITE);
	collect_add(&c, 7, PROTO_WRITE);
	collect_add(&c, 5, PROTO_READ);
	cr_assert(c.count == 3 && c.page[0] == 3 && c.page[1] == 5 && c.page[2] == 7);
	cr_assert_eq(c.right[2], PROTO_WRITE);
	cr_assert_not(collect_granted(&c, 5, PROTO_WRITE), "not its turn");
	cr_assert(collect_granted(&c, 3, PROTO_WRITE) && collect_granted(&c, 5, PROTO_WRITE));
	cr_assert_not(collect_granted(&c, 7, PROTO_READ), "too weak");
	cr_assert(collect_pins(&c, 3) && collect_pins(&c, 5) && !collect_pins(&c, 7));
	cr_assert(collect_granted(&c, 7, PROTO_WRITE) && collect_next(&c) == c.count);
	for (uint32_t page = 0; page < 2 * COLLECT_MAX; page++) {
		if (page == 0)
			c = (struct collect){ 0 };
		collect_add(&c, page, PROTO_READ);
	}
	cr_assert_eq(c.count, COLLECT_MAX);
}
