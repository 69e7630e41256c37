/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/handoff.c - see handoff.h: moves, effects, invariants.
 *
 * Owns struct hw; one thread; no I/O.
 */
#include "tests/check/handoff.h"

#include <string.h>

static void broken(struct hw *w, const char *what)
{
	if (!w->broken)
		w->broken = what;
}

void hw_init(struct hw *w, const struct hw_config *cfg, struct hw_bag *all)
{
	memset(w, 0, sizeof(*w));
	w->cfg = cfg;
	w->all = all;
	w->wild = cfg->wild;
	for (unsigned n = 0; n < cfg->nodes; n++)
		ho_init(&w->node[n].h, 0, (node_id)n, 0);
	w->node[0].current = true;
}

static bool passes_on(const struct hw_node *n)
{
	return n->h.phase == HO_AWAY || n->h.phase == HO_SENT;
}

static bool holds(const struct hw_node *n)
{
	return !passes_on(n);
}

/* --- the network -------------------------------------------------------------------------------------- */

static void bag_add(struct hw *w, unsigned from, unsigned to, const struct hw_entry *e)
{
	struct hw_bag *all = w->all;
	unsigned i = 0;

	while (i < all->count && (all->m[i].from != from || all->m[i].to != to ||
				  memcmp(&all->m[i].e, e, sizeof(*e))))
		i++;
	if (i == HW_BAG) {
		broken(w, "too many messages for HW_BAG");
		return;
	}
	if (i == all->count) {
		all->m[i].from = (uint8_t)from;
		all->m[i].to = (uint8_t)to;
		all->m[i].e = *e;
		all->count++;
	}
	w->bag[i / 64] |= 1ull << i % 64;
}

static void net_put(struct hw *w, unsigned from, unsigned to, struct hw_entry e)
{
	struct hw_link *l = &w->link[from][to];

	if (to >= w->cfg->nodes || to == from) {
		broken(w, "a message goes nowhere");
	} else if (w->wild) {
		bag_add(w, from, to, &e);
	} else if (!w->node[to].dead && !(w->node[to].lost >> from & 1) && !(w->node[from].lost >> to & 1)) {
		if (l->count == HW_QUEUE)
			broken(w, "a link fills up");
		else
			l->q[l->count++] = e;
	}
}

static void net_send(struct hw *w, unsigned from, unsigned to, const struct ho_msg *m)
{
	struct hw_entry e = { .kind = (uint8_t)m->kind, .gen = (uint8_t)m->gen, .why = m->why, .node = m->node };

	if (m->gen > HW_GENS)
		broken(w, "a generation that no order made");
	if (m->kind == HO_MSG_STATE)
		e.lapic = w->node[from].lapic;
	net_put(w, from, to, e);
}

/* --- interrupts --------------------------------------------------------------------------------------- */

static void intr_route(struct hw *w, unsigned n, unsigned id, unsigned hops)
{
	struct hw_node *node = &w->node[n];

	if (!passes_on(node)) {
		node->mail |= (uint8_t)(1u << id);
		return;
	}
	/* Each try moves it on once, and once back if it is returned; the first hop is to the oldest place. */
	if (hops > 2 * w->cfg->orders)
		broken(w, "H8: an interrupt is passed on for ever");
	if (w->hops < hops + 1)
		w->hops = (uint8_t)(hops + 1);
	net_put(w, n, node->h.where,
		(struct hw_entry){ .kind = HW_IPI, .gen = (uint8_t)id, .why = (uint8_t)(hops + 1) });
}

static void intr_seen(struct hw *w, uint8_t ids)
{
	if (w->seen & ids)
		broken(w, "H8: an interrupt arrives twice");
	w->seen |= ids;
}

/* --- effects ------------------------------------------------------------------------------------------ */

/* H4: one answer for each order, and it is true.  gen: of the move. */
static void order_done(struct hw *w, const struct ho_effect *e, uint32_t gen, const struct hw_entry *said)
{
	uint8_t bit = (uint8_t)(1u << (e->order & 7));
	bool took = w->took >> gen & 1;

	if (!(w->open & bit))
		broken(w, "H4: an order is answered twice");
	w->open &= (uint8_t)~bit;
	if (e->result == HO_MOVED ? !took : took && e->result != HO_GONE)
		broken(w, "H4: the answer to an order is not true");
	if ((e->result == HO_PEER_LOST || e->result == HO_GONE) && !w->kills && !w->cfg->cuts)
		broken(w, "H4: a peer is called lost");
	if (said && (said->kind == HO_MSG_REFUSE || said->kind == HO_MSG_RETURN) && e->result != said->why)
		broken(w, "H4: an order ends with another reason than the target's");
}

static void perform(struct hw *w, unsigned n, const struct ho_effect *e, uint32_t gen, const struct hw_entry *said)
{
	struct hw_node *node = &w->node[n];

	switch (e->kind) {
	case HO_SEND:
		if (node->lost >> e->node & 1)
			broken(w, "a message to a peer that is lost");
		net_send(w, n, e->node, &e->msg);
		break;
	case HO_TELL:
		for (unsigned to = 0; to < w->cfg->nodes; to++)
			if (to != n && !(node->lost >> to & 1))
				net_send(w, n, to, &e->msg);
		break;
	case HO_STOP:
		node->stop_due = true;
		break;
	case HO_INSTALL:
		if (node->install_due)
			broken(w, "H1: two installs at once");
		node->install_due = true;
		node->coming = said->lapic;
		break;
	case HO_RUN:
		if (!ho_may_run(&node->h))
			broken(w, "H1: RUN without the token");
		break;
	case HO_DONE:
		order_done(w, e, gen, said);
		break;
	case HO_LOST:
		if (!w->kills && !w->cfg->cuts)
			broken(w, "H3: a vCPU is called lost");
		w->told = true;
		break;
	}
}

/* --- what holds in every state ------------------------------------------------------------------------ */

bool hw_leads(const struct hw *w, unsigned n)
{
	for (unsigned hop = 0; hop <= w->cfg->nodes; hop++) {
		const struct hw_node *node = &w->node[n];

		if (holds(node) || (node->h.phase == HO_SENT && node->h.gen == w->fresh))
			return true;
		if (node->h.where == n || node->h.where >= w->cfg->nodes)
			return false;
		n = node->h.where;
	}
	return false;
}

static void check(struct hw *w)
{
	unsigned runners = 0, holders = 0, sent = 0;

	for (unsigned n = 0; n < w->cfg->nodes; n++) {
		const struct hw_node *node = &w->node[n];

		if (node->dead)
			continue;
		holders += holds(node);
		sent += node->h.phase == HO_SENT && node->h.gen == w->fresh && node->current;
		runners += ho_may_run(&node->h);
		if (ho_may_run(&node->h) && !node->current)
			broken(w, "H2: the guest goes on from an old state");
		if (ho_may_run(&node->h) != (node->h.phase == HO_HERE || node->h.phase == HO_OFFERED ||
					     node->h.phase == HO_STOPPING))
			broken(w, "H1: may_run is wrong");
		if (node->install_due != (node->h.phase == HO_INSTALLING))
			broken(w, "H1: the thread installs without being asked");
	}
	if (runners > 1)
		broken(w, "H1: two nodes run the vCPU");
	if (holders > 1)
		broken(w, "H1: two nodes hold the token");
	if ((holders ? holders : sent) != 1 && !w->told && !w->doomed && !w->cfg->cuts)
		broken(w, "H3: the token is lost, or doubled");
	if (!w->cfg->cuts && !w->kills)
		for (unsigned n = 0; n < w->cfg->nodes; n++)
			if (!hw_leads(w, n))
				broken(w, "H6: a node would look for it in vain");
}

/* The guest runs wherever it may: it takes what came with the state, and other copies grow old. */
static void settle(struct hw *w)
{
	for (unsigned n = 0; n < w->cfg->nodes; n++) {
		struct hw_node *node = &w->node[n];

		if (node->dead || !ho_may_run(&node->h))
			continue;
		intr_seen(w, node->lapic);
		node->lapic = 0;
		w->fresh = 0;
		for (unsigned o = 0; o < w->cfg->nodes; o++)
			if (o != n)
				w->node[o].current = false;
	}
}

/* --- moves -------------------------------------------------------------------------------------------- */

static void after(struct hw *w, unsigned n, const struct ho_vcpu *old, const struct ho_effects *fx,
		  const struct hw_entry *said)
{
	struct hw_node *node = &w->node[n];

	if (node->h.gen < old->gen || node->h.tried < old->tried || node->h.tried > node->h.gen)
		broken(w, "H5: a generation goes back");
	if (node->h.where == n && passes_on(node))
		broken(w, "H6: a node passes on to itself");
	for (unsigned i = 0; i < fx->count; i++)
		perform(w, n, &fx->list[i], old->gen, said);
	for (unsigned id = 0; passes_on(node) && id < HW_IPIS; id++)
		if (node->mail >> id & 1) {
			node->mail &= (uint8_t)~(1u << id);
			intr_route(w, n, id, 0);
		}
	if (node->h.phase == HO_AWAY)
		node->lapic = 0;
	settle(w);
	check(w);
}

static void deliver(struct hw *w, struct hw_move m, struct ho_effects *fx)
{
	struct hw_node *node = &w->node[m.node];
	struct ho_vcpu old = node->h;
	struct hw_entry e;
	struct ho_msg msg;
	unsigned from = m.arg;

	if (w->wild) {
		e = w->all->m[m.arg].e;
		from = w->all->m[m.arg].from;
	} else {
		struct hw_link *l = &w->link[from][m.node];

		e = l->q[0];
		memmove(&l->q[0], &l->q[1], sizeof(l->q[0]) * --l->count);
		memset(&l->q[l->count], 0, sizeof(l->q[0]));
	}
	if (e.kind == HW_IPI) {
		intr_route(w, m.node, e.gen, e.why);
		return;
	}
	msg = (struct ho_msg){ .kind = e.kind, .gen = e.gen, .why = e.why, .node = e.node };
	/* Reasons by generation: all of them come up. */
	if (!ho_on_msg(&node->h, (node_id)from, &msg, m.opt ? HO_FULL + e.gen % 3 : HO_MOVED, fx))
		broken(w, "H9: a message of an honest peer is refused");
	if (m.opt && fx->count && fx->list[fx->count - 1].msg.kind == HO_MSG_ACCEPT)
		broken(w, "H4: an unwilling target accepts");
	after(w, m.node, &old, fx, &e);
}

static void lose(struct hw *w, unsigned n, unsigned peer)
{
	struct ho_effects fx = { 0 };
	struct hw_node *node = &w->node[n];
	struct ho_vcpu old = node->h;

	node->lost |= (uint8_t)(1u << peer);
	memset(&w->link[peer][n], 0, sizeof(w->link[0][0]));
	ho_peer_lost(&node->h, (node_id)peer, &fx);
	after(w, n, &old, &fx, NULL);
}

static void die(struct hw *w, unsigned n)
{
	struct hw_node *node = &w->node[n];

	if (holds(node) || (node->h.phase == HO_SENT && node->h.gen == w->fresh))
		w->doomed = true;
	node->dead = true;
	for (unsigned o = 0; o < w->cfg->nodes; o++)
		memset(&w->link[o][n], 0, sizeof(w->link[0][0]));
	if (node->h.phase == HO_OFFERED || node->h.phase == HO_STOPPING || node->h.phase == HO_SENT)
		w->open &= (uint8_t)~(1u << node->h.order); /* it cannot answer any more */
	w->kills++;
	/* What it was is of no account. */
	node->stop_due = node->install_due = node->current = false;
	node->mail = node->lapic = node->coming = node->lost = 0;
	ho_init(&node->h, 0, (node_id)n, n ? 0 : 1);
}

static void installed(struct hw *w, struct hw_move m, struct ho_effects *fx)
{
	struct hw_node *node = &w->node[m.node];
	struct ho_vcpu old = node->h;

	node->install_due = false;
	if (m.opt) {
		ho_installed(&node->h, HO_CORRUPT + old.gen % 3, fx);
	} else {
		node->current = old.gen == w->fresh;
		node->lapic = node->coming;
		w->took |= (uint16_t)(1u << old.gen);
		ho_installed(&node->h, HO_MOVED, fx);
	}
	node->coming = 0;
	after(w, m.node, &old, fx, NULL);
}

static void captured(struct hw *w, struct hw_move m, struct ho_effects *fx)
{
	struct hw_node *node = &w->node[m.node];
	struct ho_vcpu old = node->h;

	node->stop_due = false;
	if (old.phase == HO_STOPPING) {
		w->fresh = (uint8_t)old.gen;
		if (m.opt) {
			node->lapic = node->mail;
			node->mail = 0;
		}
	}
	ho_captured(&node->h, fx);
	after(w, m.node, &old, fx, NULL);
}

void hw_move(struct hw *w, struct hw_move m)
{
	struct hw_node *node = &w->node[m.node];
	struct ho_vcpu old = node->h;
	struct ho_effects fx = { 0 };

	w->broken = NULL;
	switch (m.kind) {
	case HW_DELIVER: deliver(w, m, &fx); break;
	case HW_CAPTURED: captured(w, m, &fx); break;
	case HW_INSTALLED: installed(w, m, &fx); break;
	case HW_TAKE:
		intr_seen(w, node->mail);
		node->mail = 0;
		break;
	case HW_TICK:
		w->ticks++;
		ho_tick(&node->h, &fx);
		after(w, m.node, &old, &fx, NULL);
		break;
	case HW_GREET:
		w->ticks = (uint8_t)(w->ticks + !w->wild);
		ho_greet(&node->h, m.arg, &fx);
		after(w, m.node, &old, &fx, NULL);
		break;
	case HW_ORDER:
		w->open |= (uint8_t)(1u << w->orders);
		ho_order(&node->h, m.arg, w->orders++, &fx);
		after(w, m.node, &old, &fx, NULL);
		break;
	case HW_INTR: intr_route(w, m.node, w->ipis++, 0); break;
	case HW_LOSE: lose(w, m.node, m.arg); break;
	case HW_KILL: die(w, m.node); break;
	}
}

static void add(struct hw *w, struct hw_move *out, unsigned *count, struct hw_move m)
{
	if (*count == HW_MOVES)
		broken(w, "too many moves for HW_MOVES");
	else
		out[(*count)++] = m;
}

/* An order that begins no move: refused at once, and nothing changes. */
static void order_refused(struct hw *w, unsigned n, unsigned to)
{
	struct ho_vcpu h = w->node[n].h, old = h;
	struct ho_effects fx = { 0 };
	enum ho_result why = h.phase == HO_AWAY ? HO_NOT_HERE : h.phase == HO_HERE ? HO_THERE : HO_BUSY;

	ho_order(&h, (node_id)to, 99, &fx);
	if (fx.count != 1 || fx.list[0].kind != HO_DONE || fx.list[0].order != 99 || fx.list[0].result != why ||
	    memcmp(&h, &old, sizeof(h)))
		broken(w, "H4: an order that cannot be is not refused");
}

static void deliveries(struct hw *w, struct hw_move *out, unsigned *count)
{
	const unsigned nodes = w->cfg->nodes;

	for (unsigned i = 0; w->wild && i < w->all->count; i++) {
		struct hw_move m = { .kind = HW_DELIVER, .node = w->all->m[i].to, .arg = (uint8_t)i };

		if (!(w->bag[i / 64] >> i % 64 & 1) || w->node[m.node].lost >> w->all->m[i].from & 1)
			continue;
		add(w, out, count, m);
		m.opt = true;
		if (w->cfg->refuse && w->all->m[i].e.kind == HO_MSG_OFFER)
			add(w, out, count, m);
	}
	for (unsigned i = 0; !w->wild && i < nodes * nodes; i++) {
		struct hw_move m = { .kind = HW_DELIVER, .node = (uint8_t)(i % nodes), .arg = (uint8_t)(i / nodes) };
		const struct hw_link *l = &w->link[m.arg][m.node];

		if (l->count == 0)
			continue;
		add(w, out, count, m);
		m.opt = true;
		if (w->cfg->refuse && l->q[0].kind == HO_MSG_OFFER)
			add(w, out, count, m);
	}
}

/* All links that are lost have one node in common. */
static bool may_lose(const struct hw *w, unsigned a, unsigned b)
{
	unsigned common = 1u << a | 1u << b;

	if (a == b || w->node[a].lost >> b & 1)
		return false;
	if (!w->cfg->cuts)
		return w->node[b].dead;
	for (unsigned n = 0; n < w->cfg->nodes; n++)
		for (unsigned o = 0; o < w->cfg->nodes; o++)
			if (w->node[n].lost >> o & 1)
				common &= 1u << n | 1u << o;
	return common != 0;
}

/* What the world around does to a node. */
static void free_moves(struct hw *w, unsigned n, struct hw_move *out, unsigned *count)
{
	const struct hw_config *cfg = w->cfg;
	struct hw_move m = { .node = (uint8_t)n };

	for (unsigned o = 0; o < cfg->nodes; o++) {
		m.arg = (uint8_t)o;
		m.kind = HW_ORDER;
		if (w->node[n].h.phase != HO_HERE || o == n)
			order_refused(w, n, o);
		else if (w->orders < cfg->orders && !(w->node[n].lost >> o & 1)) /* the caller's part */
			add(w, out, count, m);
		m.kind = HW_LOSE;
		if (may_lose(w, n, o))
			add(w, out, count, m);
		m.kind = HW_GREET;
		if (cfg->greet && o != n && !(w->node[n].lost >> o & 1) && ho_may_run(&w->node[n].h) &&
		    (w->wild || w->ticks < cfg->ticks))
			add(w, out, count, m);
	}
	m.arg = 0;
	m.kind = HW_INTR;
	if (w->ipis < cfg->ipis)
		add(w, out, count, m);
	m.kind = HW_TICK;
	if (w->ticks < cfg->ticks && (w->node[n].h.phase == HO_OFFERED || w->node[n].h.phase == HO_SENT))
		add(w, out, count, m);
	m.kind = HW_KILL;
	if (w->kills < cfg->kills)
		add(w, out, count, m);
}

unsigned hw_moves(const struct hw *world, struct hw_move out[static HW_MOVES])
{
	struct hw *w = (struct hw *)world;
	unsigned count = 0;

	deliveries(w, out, &count);
	for (unsigned n = 0; n < w->cfg->nodes; n++) {
		const struct hw_node *node = &w->node[n];
		struct hw_move m = { .node = (uint8_t)n };

		if (node->dead)
			continue;
		m.kind = HW_CAPTURED;
		if (node->stop_due)
			add(w, out, &count, m);
		m.opt = true;
		if (node->stop_due && node->mail)
			add(w, out, &count, m);
		m.kind = HW_INSTALLED;
		if (node->install_due && w->cfg->fail)
			add(w, out, &count, m);
		m.opt = false;
		if (node->install_due)
			add(w, out, &count, m);
		m.kind = HW_TAKE;
		if (node->mail && ho_may_run(&node->h))
			add(w, out, &count, m);
		free_moves(w, n, out, &count);
	}
	return count;
}
