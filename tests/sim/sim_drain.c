/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim_drain.c - nodes leave the memory and come back while all others go on.
 *
 * What      The steps of core/rehome and the directory's moves, as dsm/rehome.c takes them, over the simulated links: threads of
 *           the leaver come to the end of an instruction, it gives up others' pages, all switch; then it is
 *           dead and nobody is told, or comes back later.
 * Owns      struct sim_home of each node.   Threads  One.   I/O  The trace.
 */
#include "tests/sim/sim_int.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_NS (200 * NS_PER_US)

/* A node that is out already, and dead or alive. */
static bool is_out(const struct sim *s, unsigned node)
{
	return nodeset_has(&s->out, (node_id)node);
}

bool sim_withheld(const struct sim *s, unsigned node)
{
	return s->at[node].frozen || is_out(s, node) || (s->drain == DRAIN_LEAVING && s->leaver == node);
}

void sim_drain_later(struct sim *s, unsigned stage)
{
	s->drain = (uint8_t)stage;
	sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + sim_draw_ns(s, 60 * NS_PER_MS), .kind = AT_DRAIN });
}

static void look_later(struct sim *s, unsigned node)
{
	sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + LOOK_NS, .kind = AT_LOOK, .node = (node_id)node });
}

static void say(struct sim *s, unsigned node, unsigned to, const struct rehome_msg *m, uint64_t data)
{
	uint8_t body[REHOME_MSG_BYTES];

	rehome_encode(m, body);
	sim_send(s, node, (node_id)to, body, sizeof(body), data, 0);
}

/* --- a node's steps ------------------------------------------------------------------------------------- */

static void plan_take(struct sim *s, unsigned node, uint64_t version, const struct nodeset *part, node_id leaver)
{
	struct sim_home *a = &s->at[node];
	struct dir *map = &a->map[s->node[node].cfg.dir == &a->map[0]];

	if (!rehome_begin(&a->steps, version, part, leaver) || !rehome_map_decode(s->plan, &s->dir, map)) {
		broken(s, "I12: a plan is refused");
		return;
	}
	a->next_mem = calloc(1, proto_homes_bytes(map, (node_id)node) + 16);
	ASSERT(a->next_mem);
	proto_homes_init(&a->next, map, (node_id)node, a->next_mem);
	a->frozen = true;
	look_later(s, node);
}

static bool holds_foreign(const struct sim *s, unsigned node)
{
	uint32_t index;

	for (uint32_t page = 0; page < s->cfg.pages; page++)
		if ((s->node[node].page[page].right || s->node[node].page[page].busy) &&
		    dir_home(s->node[node].cfg.dir, page, &index) != node)
			return true;
	return false;
}

static bool is_quiet(const struct sim *s, unsigned node)
{
	for (unsigned t = 0; t < s->cfg.threads; t++)
		if (s->thread[node * s->cfg.threads + t].collects)
			return false;
	return proto_quiet(&s->node[node]) && !(s->leaver == node && holds_foreign(s, node));
}

static void entries_send(struct sim *s, unsigned node)
{
	struct sim_home *a = &s->at[node];
	struct proto *p = &s->node[node];

	for (uint32_t page = 0; page < s->cfg.pages; page++) {
		struct cell *c = &s->cell[(size_t)node * s->cfg.pages + page];
		struct proto_entry e;
		uint32_t index;
		node_id to;

		if (dir_home(p->cfg.dir, page, &index) != node)
			continue;
		to = dir_home(a->next.dir, page, &index);
		if (to == node)
			continue;
		if (nodeset_has(&a->steps.gone, (node_id)node) && c->mapped != PROTO_NONE) {
			proto_right_end(p, page);
			sim_map_set(s, node, page, PROTO_NONE);
		}
		if (!proto_entry_take(p, page, to, &e))
			continue;
		s->res->entries++;
		if (e.bytes && c->mapped == PROTO_WRITE)
			broken(s, "I3: bytes leave while they can be written");
		say(s, node, to, &(struct rehome_msg){ .kind = REHOME_ENTRY, .bytes = e.bytes, .written = e.written,
						     .mig = e.mig, .node = e.owner, .number = page, .set = e.copyset },
		    c->value);
		if (e.bytes && c->mapped == PROTO_NONE)
			c->value = ~0ull;
	}
}

/* The frame of a page that was never written has never held anything but zeros. */
static void homes_switch(struct sim *s, unsigned node)
{
	struct sim_home *a = &s->at[node];
	struct proto *p = &s->node[node];
	const struct dir *old = p->cfg.dir;
	uint32_t index, before;

	if (!proto_homes_switch(p, &a->next, &a->steps.gone))
		broken(s, "I12: a node left with the only copy of a page");
	free(a->mem);
	a->mem = a->next_mem;
	a->next_mem = NULL;
	s->foreign[node] = 0;
	for (uint32_t page = 0; page < s->cfg.pages; page++) {
		struct cell *c = &s->cell[(size_t)node * s->cfg.pages + page];

		if (dir_home(p->cfg.dir, page, &index) != node)
			s->foreign[node] += c->mapped != PROTO_NONE;
		else if (dir_home(old, page, &before) != node && !p->home[index].written)
			c->value = 0;
	}
}

static void thaw(struct sim *s, unsigned node)
{
	struct sim_home *a = &s->at[node];

	a->frozen = false;
	if (node)
		say(s, node, 0, &(struct rehome_msg){ .kind = REHOME_MARK, .phase = 4, .number = a->steps.version }, 0);
}

void sim_rehome_look(struct sim *s, unsigned node)
{
	struct sim_home *a = &s->at[node];

	for (;;) {
		bool ready = a->steps.phase == REHOME_FREEZING ? is_quiet(s, node) : a->steps.phase == REHOME_MOVING;

		switch (rehome_next(&a->steps, ready)) {
		case REHOME_WAIT:
			return;
		case REHOME_SAY:
			for (unsigned n = 0; n < s->cfg.nodes; n++)
				if (n != node && nodeset_has(&a->steps.part, (node_id)n))
					say(s, node, n,
					    &(struct rehome_msg){ .kind = REHOME_MARK,
								  .phase = a->steps.reached[node],
								  .number = a->steps.version }, 0);
			break;
		case REHOME_MOVE:
			entries_send(s, node);
			break;
		case REHOME_SWITCH:
			homes_switch(s, node);
			break;
		case REHOME_THAW:
			thaw(s, node);
			break;
		}
	}
}

/* Looks again and again as long as the switch lasts. */
void sim_rehome_watch(struct sim *s, unsigned node)
{
	s->res->looks++;
	sim_rehome_look(s, node);
	if (s->at[node].steps.phase != REHOME_IDLE)
		look_later(s, node);
}

void sim_rehome_message(struct sim *s, const struct occasion *o, const struct rehome_msg *m)
{
	struct sim_home *a = &s->at[o->node];
	struct proto *p = &s->node[o->node];
	struct cell *c = &s->cell[(size_t)o->node * s->cfg.pages + (m->kind == REHOME_ENTRY ? m->number : 0)];
	struct proto_entry e = { .owner = m->node, .written = m->written, .bytes = m->bytes, .mig = m->mig,
				 .copyset = m->set };
	uint32_t index;

	TRACE(s, "n%u <- n%u rehome %u phase %u number %llu\n", o->node, o->from, m->kind, m->phase,
	      (unsigned long long)m->number);
	switch (m->kind) {
	case REHOME_PLAN:
		plan_take(s, o->node, m->number, &m->set, m->node);
		break;
	case REHOME_MARK:
		if (!rehome_mark(&a->steps, o->from, m->number, m->phase))
			broken(s, "I12: a mark is out of order");
		break;
	case REHOME_ENTRY:
		if (!rehome_entry_due(&a->steps, o->from) ||
		    dir_home(p->cfg.dir, (uint32_t)m->number, &index) != o->from ||
		    !proto_entry_put(p, &a->next, (uint32_t)m->number, &e))
			broken(s, "I12: an entry is refused");
		else if (e.bytes && c->mapped == PROTO_NONE)
			c->value = o->data;
		break;
	}
	sim_rehome_look(s, o->node);
}

/* --- who leaves, and when ---------------------------------------------------------------------------------- */

static void switch_begin(struct sim *s, const struct nodeset *part, node_id leaver, const struct dir *map)
{
	struct rehome_msg m = { .kind = REHOME_PLAN, .node = leaver, .set = *part,
				.number = s->at[0].steps.version + 1 };

	if (!rehome_map_encode(map, s->plan))
		broken(s, "I12: a plan has no bytes");
	for (unsigned n = 1; n < s->cfg.nodes; n++)
		if (nodeset_has(part, (node_id)n))
			say(s, 0, n, &m, 0);
	plan_take(s, 0, m.number, part, leaver);
	s->drain = DRAIN_SWITCHING;
}

static struct nodeset members(const struct sim *s)
{
	struct nodeset set = { 0 };

	for (unsigned n = 0; n < s->cfg.nodes; n++)
		if (!is_out(s, n))
			nodeset_add(&set, (node_id)n);
	return set;
}

/* What there is room for is drawn; together it is enough. */
static void drain_begin(struct sim *s)
{
	struct nodeset part = members(s), takers = part;
	uint64_t room[NODES_MAX] = { 0 }, need = s->at[0].dir_now->homed[s->leaver];
	struct dir map;
	int err;

	nodeset_del(&takers, (node_id)s->leaver);
	for (node_id n = nodeset_next(&takers, 0); n != NODE_NONE; n = nodeset_next(&takers, n + 1u))
		room[n] = rng_below(&s->rng, need + 1);
	room[0] += need;
	if (rng_below(&s->rng, 2))
		room[0] = need; /* else node 0 would take most */
	err = rehome_plan_drain(s->node[0].cfg.dir, (node_id)s->leaver, &takers, room, &map);
	if (err)
		broken(s, "I12: no plan");
	else
		switch_begin(s, &part, (node_id)s->leaver, &map);
}

static void threads_stop(struct sim *s)
{
	for (unsigned t = 0; t < s->cfg.threads; t++) {
		struct thread *th = &s->thread[s->leaver * s->cfg.threads + t];

		th->later = th->left > 1 ? th->left - 1 : 0;
		th->left = th->left ? 1 : 0;
	}
}

static void threads_go_on(struct sim *s)
{
	for (unsigned t = 0; t < s->cfg.threads; t++) {
		struct thread *th = &s->thread[s->leaver * s->cfg.threads + t];

		th->left = th->later;
		if (!th->left)
			continue;
		s->running++;
		sim_instruction_draw(s, th);
		sim_thread_soon(s, s->leaver, t, 50 * NS_PER_US);
	}
}

static bool threads_stand(const struct sim *s)
{
	for (unsigned t = 0; t < s->cfg.threads; t++)
		if (s->thread[s->leaver * s->cfg.threads + t].state != ENDED)
			return false;
	return true;
}

static void pages_give_up(struct sim *s)
{
	for (uint32_t page = 0; page < s->cfg.pages; page++) {
		struct proto_event ev = { .kind = PROTO_EV_EVICT, .page = page };

		if (s->cell[(size_t)s->leaver * s->cfg.pages + page].mapped != PROTO_NONE)
			sim_step(s, s->leaver, &ev, NULL, NULL);
	}
}

static void join_begin(struct sim *s)
{
	struct nodeset part = members(s);
	struct dir map;

	nodeset_add(&part, (node_id)s->leaver);
	if (rehome_plan_join(s->node[0].cfg.dir, &s->dir, (node_id)s->leaver, &map))
		broken(s, "I12: no plan");
	else
		switch_begin(s, &part, NODE_NONE, &map);
}

/* The switch is over: the leaver is out, or in again. */
static void switch_over(struct sim *s)
{
	s->res->drains++;
	if (is_out(s, s->leaver)) {
		nodeset_del(&s->out, (node_id)s->leaver);
		threads_go_on(s);
		s->drain = DRAIN_NONE;
	} else {
		nodeset_add(&s->out, (node_id)s->leaver);
		if (rng_below(&s->rng, 2)) {
			sim_drain_later(s, DRAIN_OUT);
			return;
		}
		s->dead[s->leaver] = true;
		s->drain = DRAIN_NONE;
	}
	s->leaver = 0;
	if (--s->drains_left)
		sim_drain_later(s, DRAIN_NONE);
}

void sim_drain_look(struct sim *s)
{
	s->res->looks++;
	s->at[0].dir_now = s->node[0].cfg.dir;
	switch (s->drain) {
	case DRAIN_NONE:
		s->leaver = 1 + (unsigned)rng_below(&s->rng, s->cfg.nodes - 1);
		if (is_out(s, s->leaver)) {
			s->leaver = 0;
			return;
		}
		TRACE(s, "n%u leaves\n", s->leaver);
		threads_stop(s);
		s->drain = DRAIN_STOPPING;
		break;
	case DRAIN_STOPPING:
		if (threads_stand(s))
			s->drain = DRAIN_LEAVING;
		break;
	case DRAIN_LEAVING:
		pages_give_up(s);
		if (!holds_foreign(s, s->leaver))
			drain_begin(s);
		break;
	case DRAIN_SWITCHING:
		if (rehome_over(&s->at[0].steps)) {
			switch_over(s);
			return;
		}
		break;
	case DRAIN_OUT:
		TRACE(s, "n%u comes back\n", s->leaver);
		join_begin(s);
		break;
	}
	sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + LOOK_NS, .kind = AT_DRAIN });
}
