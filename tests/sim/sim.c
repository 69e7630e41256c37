/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim.c - losses and the run; see sim.h.
 *
 * Owns struct sim; one thread; prints the trace.
 */
#include "tests/sim/sim_int.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/* --- losses ------------------------------------------------------------------------------------------- */

/* `node` learns that `from` is gone; nothing of it is heard after this. */
static void peer_lost(struct sim *s, unsigned node, node_id from)
{
	struct link *link = link_at(s, from, node);
	struct proto_event ev = { .kind = PROTO_EV_PEER_LOST, .from = from };

	if (link->lost)
		return;
	TRACE(s, "n%u loses n%u\n", node, from);
	link->lost = true;
	s->res->links_lost++;
	sim_step(s, node, &ev, NULL, NULL);
}

static void peer_lost_later(struct sim *s, unsigned node, node_id from)
{
	sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + sim_draw_ns(s, 2 * NS_PER_MS), .kind = AT_LOST,
					   .node = (node_id)node, .from = from });
}

static void node_crash(struct sim *s, unsigned node)
{
	TRACE(s, "n%u crashes\n", node);
	s->dead[node] = true;
	s->res->crashes++;
	for (unsigned t = 0; t < s->cfg.threads; t++)
		s->running -= s->thread[node * s->cfg.threads + t].state != ENDED;
	for (unsigned n = 0; n < s->cfg.nodes; n++)
		if (n != node && !s->dead[n])
			peer_lost_later(s, n, (node_id)node);
}

/* What came is the next message of its link, or the link is over.  One of the two has a kind then. */
static bool message_take(struct sim *s, const struct occasion *o, struct proto_msg *msg, struct rehome_msg *re)
{
	const uint8_t *body = o->frame + IC_FRAME_HEADER;
	struct link *link = link_at(s, o->from, o->node);
	struct ic_frame fr;

	if (link->lost)
		return false;
	if (ic_frame_decode(o->frame, sizeof(o->frame), 1, 1, link->rx_seq, &fr) != IC_FRAME_OK) {
		peer_lost(s, o->node, o->from);
		peer_lost_later(s, o->from, o->node);
		return false;
	}
	link->rx_seq++;
	/* Whether a page travels with it is what byte 3 says; the simulated data has no length. */
	if (body[0] == REHOME_WIRE ?
		    !rehome_decode(body, fr.body_len, body[3] || body[1] == REHOME_PLAN ? PAGE_SIZE : 0, re) :
		    !wire_decode(body, fr.body_len, body[3] == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, msg)) {
		broken(s, "a message does not survive the wire");
		return false;
	}
	return true;
}

/* --- the run ------------------------------------------------------------------------------------------ */

static void occasion_happen(struct sim *s, const struct occasion *o)
{
	struct proto_event ev = { .page = o->page, .from = o->from };
	struct rehome_msg re = { 0 };
	struct cell *c;

	switch (o->kind) {
	case AT_DELIVER:
		ev.kind = PROTO_EV_MESSAGE;
		if (!message_take(s, o, &ev.msg, &re))
			return;
		if (re.kind) {
			sim_rehome_message(s, o, &re);
			return;
		}
		TRACE(s, "n%u <- n%u %s p%u right %u acks %u\n", o->node, o->from,
		      proto_kind_name(ev.msg.kind), ev.msg.page, ev.msg.right, ev.msg.acks);
		break;
	case AT_UNMAPPED:
		ev.kind = PROTO_EV_UNMAPPED;
		c = cell_at(s, o->node, o->page);
		sim_map_set(s, o->node, o->page, c->target);
		c->unmapping = false;
		break;
	case AT_TIMER:
		ev.kind = PROTO_EV_TIMER;
		break;
	case AT_THREAD:
		sim_thread_run(s, o->node, o->thread);
		return;
	case AT_CRASH:
		node_crash(s, o->node);
		return;
	case AT_LOST:
		peer_lost(s, o->node, o->from);
		return;
	case AT_DRAIN:
		sim_drain_look(s);
		return;
	case AT_LOOK:
		sim_rehome_watch(s, o->node);
		return;
	}
	sim_step(s, o->node, &ev, o, NULL);
}

/* Everybody has finished and every link is empty: nothing may be left over, the directory must be exact. */
static void check_rest(struct sim *s)
{
	for (unsigned n = 0; n < s->cfg.nodes; n++) {
		const struct proto *p = &s->node[n];

		if (s->dead[n])
			continue;
		if (p->mine || p->refused)
			broken(s, "I7: a request was lost count of");
		for (uint32_t page = 0; page < s->cfg.pages; page++) {
			const struct cell *c = cell_at(s, n, page);
			uint32_t index;
			const struct proto *home = &s->node[dir_home(s->node[0].cfg.dir, page, &index)];
			bool known = proto_owner(home, index) == n ||
				     nodeset_has(&home->copyset[index], (node_id)n);

			if (p->page[page].busy || home->home[index].tail)
				broken(s, "I8: something is in flight for ever");
			if (c->mapped != p->page[page].right || (c->mapped && !known))
				broken(s, "I4: a holder is unknown to the home");
			if (c->mapped == PROTO_WRITE && !nodeset_empty(&home->copyset[index]))
				broken(s, "I1: a writer beside readers");
			if (c->mapped && c->value != s->latest[page])
				broken(s, "I2: a readable frame is old");
		}
	}
}

static void *zalloc(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size);

	ASSERT(p);
	return p;
}

static void sim_open(struct sim *s)
{
	const struct sim_config *c = &s->cfg;
	struct dir_range r[DIR_RANGES_MAX];
	unsigned ranges = c->pages < DIR_RANGES_MAX ? c->pages : DIR_RANGES_MAX;
	bool ok;

	/* Homes go round, with a hole after every range. */
	for (unsigned i = 0; i < ranges; i++) {
		unsigned first = c->pages * i / ranges, end = c->pages * (i + 1) / ranges;

		r[i] = (struct dir_range){ .first = first + i, .count = end - first,
					   .node = (node_id)(i % c->nodes) };
	}
	ok = dir_init(&s->dir, c->nodes, r, ranges);
	ASSERT(ok);
	s->node = zalloc(c->nodes, sizeof(*s->node));
	s->mem = zalloc(c->nodes, sizeof(*s->mem));
	s->cell = zalloc((size_t)c->nodes * c->pages, sizeof(*s->cell));
	s->thread = zalloc((size_t)c->nodes * c->threads, sizeof(*s->thread));
	s->latest = zalloc(c->pages, sizeof(*s->latest));
	s->link = zalloc((size_t)c->nodes * c->nodes, sizeof(*s->link));
	s->dead = zalloc(c->nodes, sizeof(*s->dead));
	s->pause_ns = zalloc(c->nodes, sizeof(*s->pause_ns));
	s->foreign = zalloc(c->nodes, sizeof(*s->foreign));
	s->at = zalloc(c->nodes, sizeof(*s->at));
	for (unsigned n = 0; n < c->nodes; n++) {
		struct proto_config pc = { .self = (node_id)n, .nodes = c->nodes, .dir = &s->dir };
		uint32_t index;

		proto_config_default(&pc);
		pc.requests = c->requests;
		s->mem[n] = zalloc(1, proto_bytes(&pc));
		proto_init(&s->node[n], &pc, s->mem[n]);
		rehome_init(&s->at[n].steps, (node_id)n, c->nodes);
		for (uint32_t p = 0; p < c->pages; p++)
			cell_at(s, n, p)->value = dir_home(&s->dir, p, &index) == n ? 0 : ~0ull;
		for (unsigned t = 0; t < c->threads; t++) {
			s->thread[n * c->threads + t].left = c->ops;
			sim_instruction_draw(s, &s->thread[n * c->threads + t]);
			sim_thread_soon(s, n, t, 50 * NS_PER_US);
		}
	}
	s->running = c->nodes * c->threads;
	s->drains_left = c->drains;
	if (c->drains)
		sim_drain_later(s, DRAIN_NONE);
	if (c->faults & SIM_CRASHES)
		sim_occasion_put(s, (struct occasion){ .at_ns = sim_draw_ns(s, 50 * NS_PER_MS), .kind = AT_CRASH,
						   .node = (node_id)rng_below(&s->rng, c->nodes) });
}

static void sim_close(struct sim *s)
{
	for (unsigned n = 0; n < s->cfg.nodes; n++) {
		free(s->mem[n]);
		free(s->at[n].mem);
		free(s->at[n].next_mem);
	}
	free(s->at);
	free(s->node);
	free(s->mem);
	free(s->cell);
	free(s->thread);
	free(s->latest);
	free(s->link);
	free(s->dead);
	free(s->pause_ns);
	free(s->foreign);
	free(s->heap);
}

void sim_config_draw(struct sim_config *cfg, uint64_t seed)
{
	static const unsigned nodes[] = { 2, 2, 3, 3, 3, 4, 4, 5, 8, 8, 16, 32, 64, 128 };
	struct rng r = { seed ^ 0x756e756d };
	bool trace = cfg->trace;

	*cfg = (struct sim_config){ .seed = seed, .trace = trace };
	cfg->nodes = nodes[rng_below(&r, ARRAY_LEN(nodes))];
	cfg->pages = 1 + (unsigned)rng_below(&r, rng_below(&r, 2) ? 8 : 64);
	cfg->threads = cfg->nodes > 16 ? 1 : 1 + (unsigned)rng_below(&r, 4);
	cfg->ops = 1 + 3000 / (cfg->nodes * cfg->threads);
	/* Sometimes fewer than threads, so that BUSY and ROOM are met. */
	cfg->requests = rng_below(&r, 4) ? 16 : 1 + (unsigned)rng_below(&r, 3);
	cfg->cache = rng_below(&r, 2) ? 0 : 1 + (unsigned)rng_below(&r, 8);
	cfg->delay_us = 1u << rng_below(&r, 11);
	cfg->write_percent = (unsigned)rng_below(&r, 101);
	cfg->span_max = 1 + (unsigned)rng_below(&r, cfg->nodes > 16 ? 2 : 8);
	if (cfg->cache && cfg->cache < cfg->span_max)
		cfg->cache = cfg->span_max;
	cfg->faults = (unsigned)rng_below(&r, 4); /* pauses, stalls */
	if (rng_below(&r, 4) == 0)		  /* what ends the VM ends the checks of liveness too */
		cfg->faults |= rng_below(&r, 2) ? SIM_CRASHES : SIM_DOUBLES;
	/* A loss in the middle ends the VM. */
	else if (rng_below(&r, 2))
		cfg->drains = 1 + (unsigned)rng_below(&r, 4);
}

/* No run of this size takes so many steps unless threads only snatch pages from each other. */
#define STEPS_MAX 3000000ull
/* Nor does a change of homes that gets on. */
#define LOOKS_MAX 1000000ull

void sim_run(const struct sim_config *cfg, struct sim_result *out)
{
	struct sim s = { .cfg = *cfg, .res = out, .rng = { cfg->seed } };

	memset(out, 0, sizeof(*out));
	sim_open(&s);
	while (s.heap_count && !out->broken) {
		struct occasion o = sim_occasion_take(&s);

		s.now_ns = o.at_ns > s.now_ns ? o.at_ns : s.now_ns;
		if (s.dead[o.node])
			continue;
		if ((s.cfg.faults & SIM_PAUSES) && rng_below(&s.rng, 2000) == 0) {
			uint64_t until_ns = s.now_ns + sim_draw_ns(&s, 5 * NS_PER_MS);

			/* A node that sleeps wakes as it was to, or what was moved to that time would be overtaken. */
			if (s.pause_ns[o.node] <= s.now_ns)
				s.pause_ns[o.node] = until_ns;
		}
		if (s.pause_ns[o.node] > s.now_ns) {
			/* The node sleeps.  All of its occasions move to the same time and keep their order. */
			o.at_ns = s.pause_ns[o.node];
			sim_occasion_put(&s, o);
			continue;
		}
		occasion_happen(&s, &o);
		if (out->steps > STEPS_MAX)
			broken(&s, "I8: threads do not get on");
		if (out->looks > LOOKS_MAX)
			broken(&s, "I12: a node leaves for ever");
	}
	if (!out->broken && s.running && !out->links_lost)
		broken(&s, "I8: a thread waits for ever");
	if (!out->broken && s.drain != DRAIN_NONE)
		broken(&s, "I12: a node leaves for ever");
	if (!out->broken && !out->links_lost)
		check_rest(&s);
	out->time_ns = s.now_ns;
	sim_close(&s);
}
