/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_place.c - the policy against small worlds: what vCPUs touch and share is given, where they run follows.
 *
 * What      A world turns (who is where) into waits: a vCPU that works for a millisecond touches so many pages that only
 *           one node has, and so many that another vCPU writes; each costs a page's price unless both are on one node.
 */
#include "vcpu-migrate/place.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PERIOD 10000u /* us */
#define N_MAX 4u
#define V_MAX 12u

static const struct place_costs costs = { .move_us = 300, .page_us = 60, .lost_pages = 40 };
#define PRICE (300u + 60u * 40u + 1u)

struct world {
	unsigned nodes, vcpus;
	struct place_node node[N_MAX];
	struct place_vcpu vcpu[V_MAX];
	struct place_stall stall[V_MAX * N_MAX];
	struct nodeset allowed[V_MAX];
	bool ruled;
	uint32_t touches[V_MAX][N_MAX]; /* pages per ms of work that are on that node */
	uint32_t shares[V_MAX][V_MAX];	/* pages per ms of work that the other one takes away */
	uint32_t busy[V_MAX];		/* per mille of the time that it has work */
	uint64_t now;
	unsigned moves, delay; /* steps that a move takes */
	unsigned left[V_MAX];
	node_id to[V_MAX];
	struct place *place;
	struct place_output out;
};

static struct world *world(unsigned nodes, unsigned vcpus, unsigned room)
{
	struct world *w = calloc(1, sizeof(*w));

	w->nodes = nodes;
	w->vcpus = vcpus;
	for (unsigned n = 0; n < nodes; n++)
		w->node[n] = (struct place_node){ .room = (uint16_t)room,
						    .most = (uint16_t)room,
						    .cpus = (uint16_t)room,
						    .host = (uint16_t)n };
	for (unsigned v = 0; v < vcpus; v++) {
		w->vcpu[v].at = (node_id)(v * nodes / vcpus);
		w->busy[v] = 1000;
	}
	w->now = 1000000;
	return w;
}

static void start(struct world *w)
{
	struct place_config cfg = { .nodes = w->nodes,
				    .vcpus = w->vcpus,
				    .period_us = PERIOD,
				    .allowed = w->ruled ? w->allowed : NULL,
				    .costs = costs };

	w->place = place_init(&cfg, calloc(1, place_bytes(w->nodes, w->vcpus)));
}

static void end(struct world *w)
{
	free(w->place);
	free(w);
}

/* Waits of v in one period, where everybody is now. */
static uint32_t waits(struct world *w, unsigned v)
{
	struct place_stall *s = &w->stall[v * w->nodes];
	uint64_t pages[N_MAX] = { 0 }, bounced[N_MAX] = { 0 }, all = 0, us, total = 0;

	memset(s, 0, w->nodes * sizeof(*s));
	for (unsigned n = 0; n < w->nodes; n++)
		if (n != w->vcpu[v].at)
			pages[n] += w->touches[v][n];
	for (unsigned u = 0; u < w->vcpus; u++)
		if (w->vcpu[u].at != w->vcpu[v].at) {
			pages[w->vcpu[u].at] += w->shares[v][u];
			bounced[w->vcpu[u].at] += w->shares[v][u];
		}
	for (unsigned n = 0; n < w->nodes; n++)
		all += pages[n] * costs.page_us;
	us = (uint64_t)PERIOD * w->busy[v] / 1000 * all / (1000 + all);
	for (unsigned n = 0; n < w->nodes && all; n++) {
		s[n].us = (uint32_t)(us * pages[n] * costs.page_us / all);
		s[n].waits = s[n].us / costs.page_us;
		s[n].bounced = pages[n] ? (uint32_t)(s[n].waits * bounced[n] / pages[n]) : 0;
		total += s[n].us;
	}
	w->vcpu[v].busy_us = PERIOD * w->busy[v] / 1000;
	return (uint32_t)total;
}

/* All together per period. */
static uint32_t lost(struct world *w)
{
	uint32_t sum = 0;

	for (unsigned v = 0; v < w->vcpus; v++)
		sum += waits(w, v);
	return sum;
}

static unsigned count_at(const struct world *w, unsigned n)
{
	unsigned c = 0;

	for (unsigned v = 0; v < w->vcpus; v++)
		c += w->vcpu[v].at == n;
	return c;
}

static void step(struct world *w)
{
	struct place_input in = { .now_us = w->now, .node = w->node, .vcpu = w->vcpu, .stall = w->stall };

	lost(w);
	place_step(w->place, &in, &w->out);
	w->now += PERIOD;
	for (unsigned v = 0; v < w->vcpus; v++)
		if (w->left[v] && !--w->left[v]) {
			w->vcpu[v].at = w->to[v];
			w->vcpu[v].moving = false;
		}
	for (unsigned i = 0; i < w->out.moves; i++) {
		const struct place_verdict *r = &w->out.list[i];

		cr_assert(place_moves(r->why));
		cr_assert(r->from == w->vcpu[r->vcpu].at && r->to != r->from && r->to < w->nodes);
		cr_assert_not(w->vcpu[r->vcpu].moving);
		cr_assert_not(w->node[r->to].closed);
		w->moves++;
		w->to[r->vcpu] = r->to;
		w->left[r->vcpu] = w->delay;
		w->vcpu[r->vcpu].moving = w->delay > 0;
		if (!w->delay)
			w->vcpu[r->vcpu].at = r->to;
	}
	for (unsigned n = 0; n < w->nodes; n++)
		cr_assert_leq(count_at(w, n), w->node[n].most, "node %u has more than its room", n);
}

static void run(struct world *w, unsigned steps)
{
	while (steps--)
		step(w);
}

static void shared(struct world *w, unsigned u, unsigned v, uint32_t pages)
{
	w->shares[u][v] = w->shares[v][u] = pages;
}

/* --- the four cases of the benchmark ----------------------------------------------------------------------------- */

Test(place, scan)
{
	struct world *w = world(2, 2, 2);

	w->touches[0][1] = 500;
	start(w);
	run(w, 3);
	cr_assert_eq(w->moves, 0, "a burst is not worth a move");
	run(w, 1);
	cr_assert_eq(w->moves, 1, "but each of its periods is");
	cr_assert_eq(w->out.list[0].why, PLACE_SCAN);
	cr_assert_eq(w->vcpu[0].at, 1);
	run(w, 1000);
	cr_assert_eq(w->moves, 1);
	cr_assert_eq(lost(w), 0);
	end(w);
}

Test(place, pingpong_comes_together)
{
	for (unsigned delay = 0; delay < 6; delay++) {
		struct world *w = world(2, 2, 2);

		w->delay = delay;
		shared(w, 0, 1, 300);
		start(w);
		run(w, 1000);
		cr_assert_eq(w->moves, 1, "one goes to the other: %u moves, delay %u", w->moves, delay);
		cr_assert_eq(w->vcpu[0].at, w->vcpu[1].at);
		end(w);
	}
}

Test(place, phase)
{
	struct world *w = world(2, 2, 2);

	w->touches[0][1] = 500;
	start(w);
	for (unsigned phase = 1; phase <= 20; phase++) {
		run(w, 100);
		cr_assert_eq(w->vcpu[0].at, phase & 1, "follows its pages in phase %u", phase);
		w->touches[0][phase & 1] = 0;
		w->touches[0][!(phase & 1)] = 500;
	}
	cr_assert_eq(w->moves, 20);
	end(w);
}

Test(place, local_is_left_alone)
{
	struct world *w = world(2, 4, 4);

	/* What a kernel on several nodes does all the time, 1 % of its time. */
	for (unsigned v = 0; v < 4; v++)
		w->busy[v] = 150 + 10 * v;
	shared(w, 0, 2, 2);
	start(w);
	run(w, 3000);
	cr_assert_eq(w->moves, 0);
	end(w);
}

/* The host runs something else for a while: few waits, and each for long. */
Test(place, long_waits_are_no_reason)
{
	struct world *w = world(2, 2, 2);
	struct place_input in = { .node = w->node, .vcpu = w->vcpu, .stall = w->stall };

	start(w);
	for (unsigned i = 0; i < 1000; i++) {
		in.now_us = w->now += PERIOD;
		lost(w);
		w->stall[1] = (struct place_stall){ .waits = 1, .us = 9000 };
		if (i % 20)
			w->stall[1] = (struct place_stall){ 0 };
		place_step(w->place, &in, &w->out);
		cr_assert_eq(w->out.moves, 0);
	}
	end(w);
}

/* --- limits ------------------------------------------------------------------------------------------------------ */

Test(place, room)
{
	struct world *w = world(2, 8, 5);

	for (unsigned v = 0; v < 8; v++)
		w->touches[v][1] = 400;
	start(w);
	run(w, 500);
	cr_assert_eq(count_at(w, 1), 5, "as many as it takes");
	cr_assert_eq(w->moves, 1);
	cr_assert_eq(w->out.list[0].why, PLACE_FULL);
	end(w);
}

/* Halted vCPUs take no room. */
Test(place, halted_ones_take_no_room)
{
	for (unsigned busy = 0; busy <= 1000; busy += 500) {
		struct world *w = world(2, 4, 2);

		w->node[0].most = w->node[1].most = 4;
		w->touches[0][1] = 400;
		w->busy[2] = w->busy[3] = busy;
		start(w);
		run(w, 500);
		cr_assert_eq(w->moves, busy < 1000, "%u moves with vCPUs that are busy %u", w->moves, busy);
		end(w);
	}
}

Test(place, pinned)
{
	struct world *w = world(2, 2, 2);

	shared(w, 0, 1, 300);
	start(w);
	place_rules_set(w->place, true, NULL);
	run(w, 100);
	cr_assert_eq(w->moves, 0);
	place_rules_set(w->place, false, NULL);
	run(w, 100);
	cr_assert_eq(w->moves, 1);
	end(w);
}

Test(place, rules)
{
	struct world *w = world(3, 6, 6);

	w->ruled = true;
	for (unsigned v = 0; v < 6; v++) {
		nodeset_add(&w->allowed[v], v < 3 ? 0 : 1);
		nodeset_add(&w->allowed[v], v < 3 ? 0 : 2);
		w->touches[v][v < 3 ? 2 : 0] = 500;
	}
	start(w);
	run(w, 300);
	for (unsigned v = 0; v < 6; v++)
		cr_assert(nodeset_has(&w->allowed[v], w->vcpu[v].at), "vCPU %u is where it may be", v);
	end(w);
}

Test(place, leaving_node_is_emptied)
{
	struct world *w = world(3, 9, 6);

	w->touches[0][2] = 10;
	w->touches[1][1] = 10;
	start(w);
	run(w, 1);
	w->node[0].closed = true;
	run(w, 5);
	cr_assert_eq(count_at(w, 0), 0);
	cr_assert_eq(w->moves, 3, "%u moves", w->moves);
	w->node[0].closed = false;
	run(w, 500);
	cr_assert_eq(w->moves, 3, "%u and nobody goes back for nothing", w->moves);
	end(w);
}

Test(place, leaving_without_room_is_no_move)
{
	struct world *w = world(2, 4, 2);

	start(w);
	w->node[0].closed = true;
	run(w, 20);
	cr_assert_eq(w->moves, 0);
	end(w);
}

Test(place, load)
{
	struct world *w = world(2, 4, 4);

	w->node[0].load = 4000; /* somebody else's work */
	w->node[1].load = 250;
	start(w);
	run(w, 3000);
	cr_assert_geq(w->moves, 1);
	cr_assert_leq(w->moves, 2);
	cr_assert_eq(count_at(w, 0), 4 - 2 - w->moves);
	end(w);
	/* The same on one host: nothing to gain. */
	w = world(2, 4, 4);
	w->node[0].load = 4000;
	w->node[1].load = 250;
	w->node[1].host = w->node[0].host;
	start(w);
	run(w, 3000);
	cr_assert_eq(w->moves, 0);
	end(w);
}

Test(place, not_to_where_cpus_are_short)
{
	struct world *w = world(2, 2, 2);

	w->touches[0][1] = 2; /* 11 % */
	w->busy[1] = 0;
	w->node[1].load = 3000;
	start(w);
	run(w, 1000);
	cr_assert_eq(w->moves, 0);
	cr_assert_eq(w->out.list[0].why, PLACE_BUSY);
	w->node[1].load = 0;
	run(w, 1000);
	cr_assert_eq(w->moves, 1);
	end(w);
}

/* --- it comes to rest ---------------------------------------------------------------------------------------------- */

Test(place, between_two_places_it_tries_once)
{
	struct world *w = world(2, 2, 2);

	w->touches[0][0] = w->touches[0][1] = 100;
	start(w);
	run(w, 3000);
	cr_assert_leq(w->moves, 1, "%u moves", w->moves);
	end(w);
}

Test(place, inputs_that_do_not_follow_the_moves)
{
	/* Whatever it does, the counters say the same: it is always the other node. */
	struct world *w = world(2, 1, 1);
	unsigned early;

	w->touches[0][0] = w->touches[0][1] = 1000;
	start(w);
	run(w, 1000);
	early = w->moves;
	run(w, 20000);
	cr_assert_eq(w->moves, early);
	end(w);
}

/* A vCPU that is always told to wait for a node where it is not gives up. */
Test(place, refused)
{
	struct world *w = world(2, 2, 2);
	struct place_input in = { .node = w->node, .vcpu = w->vcpu, .stall = w->stall };
	unsigned orders = 0, early = 0;

	w->touches[0][1] = 500;
	start(w);
	for (unsigned i = 0; i < 20000; i++) {
		in.now_us = w->now += PERIOD;
		lost(w);
		place_step(w->place, &in, &w->out);
		orders += w->out.moves;
		early = i == 3000 ? orders : early;
	}
	cr_assert_geq(orders, 2, "it asks again");
	cr_assert_leq(orders, 10, "%u orders", orders);
	cr_assert_eq(orders, early, "but not for ever");
	end(w);
}

/* Any constant world: moves end, no room is overrun (step), and all together wait no longer than at the start. */
Test(place, worlds_come_to_rest)
{
	struct rng r = { 7 };
	uint64_t before = 0, after = 0;

	for (unsigned i = 0; i < 300; i++) {
		unsigned nodes = 2 + (unsigned)rng_below(&r, N_MAX - 1), vcpus = 2 + (unsigned)rng_below(&r, V_MAX - 1);
		struct world *w = world(nodes, vcpus, (vcpus + nodes - 1) / nodes + (unsigned)rng_below(&r, 3));
		unsigned early;

		for (unsigned v = 0; v < vcpus; v++) {
			w->busy[v] = 100 + (unsigned)rng_below(&r, 901);
			for (unsigned n = 0; n < nodes; n++)
				if (!rng_below(&r, 3))
					w->touches[v][n] = (uint32_t)rng_below(&r, 60);
			for (unsigned u = 0; u < v; u++)
				if (!rng_below(&r, 3))
					shared(w, u, v, (uint32_t)rng_below(&r, 60));
		}
		w->delay = (unsigned)rng_below(&r, 4);
		before += lost(w);
		start(w);
		run(w, 4000);
		early = w->moves;
		after += lost(w);
		run(w, 4000);
		cr_assert_eq(w->moves, early, "world %u: %u vCPUs on %u nodes still move, %u then %u", i, vcpus, nodes,
			     early, w->moves);
		cr_assert_leq(early, 8 * vcpus, "world %u: %u moves of %u vCPUs", i, early, vcpus);
		end(w);
	}
	cr_assert_lt(after, before * 9 / 10, "all worlds together wait %lu, at the start %lu", after, before);
}

/* Same inputs, same moves; and costs matter. */
Test(place, deterministic)
{
	struct world *a = world(3, 9, 6), *b = world(3, 9, 6);
	struct rng r = { 3 };

	for (unsigned v = 0; v < 9; v++)
		for (unsigned n = 0; n < 3; n++)
			a->touches[v][n] = b->touches[v][n] = (uint32_t)rng_below(&r, 100);
	start(a);
	start(b);
	for (unsigned i = 0; i < 500; i++) {
		step(a);
		step(b);
		cr_assert_eq(memcmp(&a->out, &b->out, sizeof(a->out)), 0);
	}
	cr_assert_gt(a->moves, 0);
	end(a);
	end(b);
}

Test(place, dear_moves_are_rare)
{
	struct world *w = world(2, 2, 2);

	w->touches[0][1] = 500;
	start(w);
	place_costs_set(w->place, 1000000, 60);
	run(w, 20);
	cr_assert_eq(w->moves, 0);
	cr_assert_eq(w->out.list[0].why, PLACE_FETCH);
	run(w, 2000);
	cr_assert_eq(w->moves, 1);
	end(w);
}
