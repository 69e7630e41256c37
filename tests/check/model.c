/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model.c - see model.h: moves and effects.
 *
 * Owns struct model; one thread; no I/O.
 */
#include "tests/check/model_int.h"

#include <stdlib.h>
#include <string.h>

/* Two times that matter, in the core's stamp units: holds end in between. */
#define UNIT_NS 4096ull
#define EARLY_NS (1000 * UNIT_NS)
#define LATE_NS (2000 * UNIT_NS)
#define HOLD_NS (16 * UNIT_NS)

bool model_init(struct model *w, const struct model_config *cfg)
{
	struct dir_range r[MODEL_PAGES];

	memset(w, 0, sizeof(*w));
	w->cfg = *cfg;
	if (cfg->nodes > MODEL_NODES || cfg->pages > MODEL_PAGES || cfg->nodes * cfg->requests > MODEL_WAITS ||
	    cfg->collectors > MODEL_COLLECTORS || (cfg->collectors && !cfg->hold))
		return false;
	/* Page k is homed on node k. */
	for (unsigned i = 0; i < cfg->pages; i++)
		r[i] = (struct dir_range){ .first = i, .count = 1, .node = (node_id)(i % cfg->nodes) };
	if (!dir_init(&w->dir, cfg->nodes, r, cfg->pages))
		return false;
	for (unsigned n = 0; n < cfg->nodes; n++) {
		struct proto_config pc = {
			.self = (node_id)n, .nodes = cfg->nodes, .dir = &w->dir,
			.requests = cfg->requests,
			.hold_ns = cfg->hold ? HOLD_NS : 0, .hold_max_ns = cfg->hold ? 2 * HOLD_NS : 0,
			.mig_evidence = (uint8_t)cfg->mig_evidence, .mig_probe = (uint8_t)cfg->mig_probe,
		};
		size_t bytes = proto_bytes(&pc);

		if (bytes == 0)
			return false;
		w->mem[n] = calloc(1, bytes);
		if (!w->mem[n])
			return false;
		proto_init(&w->node[n], &pc, w->mem[n]);
		for (unsigned i = 0; i < cfg->pages; i++) {
			uint32_t index;

			/* Foreign frames hold rubbish: only ZERO makes them read as zero. */
			w->cell[n][i].fresh = home_node(w, i, &index) == n;
		}
	}
	return true;
}

void model_free(struct model *w)
{
	for (unsigned n = 0; n < w->cfg.nodes; n++)
		free(w->mem[n]);
}

/* --- performing effects ------------------------------------------------------------------------------- */

/* Whoever may write does: every other copy, and every page on its way, is old. */
static void write_all(struct model *w)
{
	for (unsigned p = 0; p < w->cfg.pages; p++) {
		for (unsigned n = 0; n < w->cfg.nodes; n++) {
			if (w->cell[n][p].mapped != PROTO_WRITE)
				continue;
			for (unsigned o = 0; o < w->cfg.nodes; o++)
				w->cell[o][p].fresh = o == n;
			w->written[p] = true;
			for (unsigned l = 0; l < w->cfg.nodes * w->cfg.nodes; l++) {
				struct model_link *k = &w->link[l / w->cfg.nodes][l % w->cfg.nodes];

				for (unsigned i = 0; i < k->count; i++)
					if (k->q[i].msg.page == p)
						k->q[i].fresh = false;
			}
		}
	}
}

/* I9: who pays for which message.  DONE is the only one after MAP. */
static void charge(struct model *w, unsigned from, const struct proto_effect *fx)
{
	const struct proto_msg *m = &fx->msg;
	unsigned payer = from;
	uint32_t index;

	switch (m->kind) {
	case PROTO_EVICT:
	case PROTO_RETURN:
	case PROTO_RECALL:
		payer = m->kind == PROTO_RECALL ? fx->to : from;
		if (m->kind == PROTO_EVICT)
			w->cell[from][m->page].evict_cost = 0;
		if (++w->cell[payer][m->page].evict_cost > 3)
			broken(w, "I9: an eviction costs more than 3 messages");
		if (w->seen.evict_cost < w->cell[payer][m->page].evict_cost)
			w->seen.evict_cost = w->cell[payer][m->page].evict_cost;
		return;
	case PROTO_FWD_READ:
	case PROTO_FWD_WRITE:
	case PROTO_INV:
		payer = m->node;
		break;
	case PROTO_GRANT:
		payer = fx->to;
		w->cell[payer][m->page].far = home_node(w, m->page, &index) != from;
		break;
	case PROTO_ACK:
		payer = fx->to;
		break;
	case PROTO_DONE:
		if (!w->done_due)
			broken(w, "I9: a DONE that nobody needs");
		w->done_due = false;
		return; /* settle_cost has counted it */
	}
	w->cell[payer][m->page].cost++;
	w->cell[payer][m->page].invs += m->kind == PROTO_ACK;
}

static void send(struct model *w, unsigned from, const struct proto_effect *fx)
{
	struct model_link *l = &w->link[from][fx->to];
	struct model_cell *c = &w->cell[from][fx->msg.page];
	const struct proto_msg *m = &fx->msg;
	uint8_t keep = PROTO_WRITE;

	if (fx->to >= w->cfg.nodes || fx->to == from || m->page >= w->cfg.pages) {
		broken(w, "a message goes nowhere");
		return;
	}
	if (m->kind == PROTO_ACK || m->kind == PROTO_RETURN)
		keep = PROTO_NONE;
	else if (m->kind == PROTO_GRANT && m->bytes != PROTO_BYTES_KEEP)
		keep = m->right == PROTO_WRITE ? PROTO_NONE : PROTO_READ;
	if (c->mapped > keep)
		broken(w, "I3: a right is given away that is still mapped");
	if (nodeset_has(&w->node[from].lost, fx->to))
		broken(w, "a message to a peer that is lost");
	charge(w, from, fx);
	if (nodeset_has(&w->node[fx->to].lost, (node_id)from))
		return; /* it hears nothing of this one any more */
	if (l->count == MODEL_QUEUE) {
		broken(w, "I9: a link fills up");
		return;
	}
	l->q[l->count].msg = *m;
	l->q[l->count++].fresh = m->bytes == PROTO_BYTES_PAGE && c->fresh;
}

static void map(struct model *w, unsigned n, const struct proto_effect *fx)
{
	struct model_cell *c = &w->cell[n][fx->page];

	if (c->unmapping)
		broken(w, "I6: MAP while an UNMAP is in flight");
	if (!c->fresh)
		broken(w, "I2: a right is granted over old bytes");
	if (c->mapped >= fx->right)
		broken(w, "MAP does not raise the right");
	c->mapped = fx->right;
}

/*
 * The request that this MAP answers is complete, but for its DONE.  The table of docs/protocol.md, I9, for k copies that
 * had to go: at another node than the home REQ and GRANT, with FWD and DONE when another node than the home has the
 * bytes, DONE when copies had to go; at the home itself only FWD and GRANT; and INV and ACK for each copy.
 */
static void settle_cost(struct model *w, unsigned n, unsigned page)
{
	struct model_cell *c = &w->cell[n][page];
	uint32_t index;
	bool home = home_node(w, page, &index) == n;
	unsigned k = c->invs, done = !home && (c->far || k > 0);
	unsigned most = (home ? 0 : 2) + (c->far ? 1 + home : 0) + 2 * k;

	if (c->cost > most || k >= w->cfg.nodes)
		broken(w, "I9: a grant costs too many messages");
	else if (w->seen.grant_cost[k] < c->cost + done)
		w->seen.grant_cost[k] = (uint8_t)(c->cost + done);
	w->done_due = done;
	c->cost = c->invs = 0;
	c->far = false;
}

/* --- threads that collect ------------------------------------------------------------------------------ */

static void collectors_wake(struct model *w, unsigned n, uint32_t page, uint8_t right)
{
	for (unsigned k = 0; k < w->cfg.collectors; k++) {
		struct model_collector *mc = &w->collector[n][k];

		if (!mc->asked || !collect_granted(&mc->c, page, right))
			continue;
		mc->asked = false;
		w->pin_due = true;
		w->pin = page;
	}
}

static void perform(struct model *w, unsigned n, const struct proto_effect *fx, bool data_fresh,
		    uint8_t *asked)
{
	struct model_cell *c = &w->cell[n][fx->page];
	uint32_t index;

	switch (fx->kind) {
	case PROTO_FX_SEND:
		send(w, n, fx);
		break;
	case PROTO_FX_FILL:
	case PROTO_FX_ZERO:
		if (c->mapped != PROTO_NONE)
			broken(w, "I6: a frame changes under a reader");
		c->fresh = fx->kind == PROTO_FX_FILL ? data_fresh : !w->written[fx->page];
		break;
	case PROTO_FX_MAP:
		map(w, n, fx);
		settle_cost(w, n, fx->page);
		break;
	case PROTO_FX_UNMAP:
		if (c->unmapping)
			broken(w, "I6: two UNMAPs in flight");
		if (c->mapped <= fx->right)
			broken(w, "UNMAP does not lower the right");
		c->unmapping = true;
		c->target = fx->right;
		break;
	case PROTO_FX_WAKE:
		if (c->mapped < fx->right)
			broken(w, "WAKE without the right");
		collectors_wake(w, n, fx->page, fx->right);
		c->waiting &= (uint8_t)(fx->right == PROTO_WRITE ? 0 : ~(1u << PROTO_READ));
		break;
	case PROTO_FX_DROP:
		if (c->mapped != PROTO_NONE || home_node(w, fx->page, &index) == n)
			broken(w, "DROP of a frame in use");
		c->fresh = false;
		c->evict_cost = 0;
		break;
	case PROTO_FX_TIMER:
		c->timer = true;
		break;
	case PROTO_FX_BUSY:
		if (w->moving == MOVE_NEXT)
			broken(w, "I10: a thread that collects is turned away");
		if (asked) {
			c->waiting &= (uint8_t)~*asked;
			c->parked |= *asked;
		}
		break;
	case PROTO_FX_ROOM:
		for (unsigned p = 0; p < w->cfg.pages; p++) {
			w->cell[n][p].ready |= w->cell[n][p].parked;
			w->cell[n][p].parked = 0;
		}
		break;
	case PROTO_FX_REFUSED:
		broken(w, "a message of an honest peer is refused");
		break;
	}
}

/* --- moves -------------------------------------------------------------------------------------------- */

static void add(struct move *out, unsigned *count, struct move m)
{
	if (*count < MODEL_MOVES)
		out[(*count)++] = m;
}

static void add_timed(const struct model *w, struct move *out, unsigned *count, struct move m)
{
	add(out, count, m);
	if (w->cfg.hold) {
		m.late = true;
		add(out, count, m);
	}
}

static void cell_moves(const struct model *w, unsigned n, unsigned p, struct move *out, unsigned *count)
{
	const struct model_cell *c = &w->cell[n][p];
	const struct proto_page *pg = &w->node[n].page[p];
	struct move m = { .node = (uint8_t)n, .page = (uint8_t)p };

	if (c->unmapping) {
		m.kind = MOVE_UNMAPPED;
		add_timed(w, out, count, m);
	}
	if (c->timer) {
		m.kind = MOVE_TIMER;
		m.late = true;
		add(out, count, m);
		m.late = false;
	}
	for (uint8_t r = PROTO_READ; r <= PROTO_WRITE; r++) {
		m.arg = r;
		m.kind = MOVE_AGAIN;
		if (c->ready >> r & 1)
			add_timed(w, out, count, m);
		m.kind = MOVE_REQUEST;
		if (!w->cfg.collect_only && !((c->waiting | c->parked | c->ready) >> r & 1) && pg->right < r &&
		    !(r == PROTO_READ && w->cfg.writes_only))
			add_timed(w, out, count, m);
	}
	m.arg = 0;
	m.kind = MOVE_EVICT;
	if (w->cfg.evict && pg->right != PROTO_NONE && !pg->busy) {
		m.late = w->cfg.hold;
		add(out, count, m);
	}
}

static void collector_moves(const struct model *w, unsigned n, unsigned k, struct move *out, unsigned *count)
{
	const struct model_collector *mc = &w->collector[n][k];
	struct move m = { .node = (uint8_t)n, .page = (uint8_t)k };

	if (mc->c.count) {
		m.kind = collect_next(&mc->c) < mc->c.count ? MOVE_NEXT : MOVE_FINISH;
		if (!mc->asked)
			add_timed(w, out, count, m);
		return;
	}
	m.kind = MOVE_COLLECT;
	for (m.arg = 0; m.arg < (w->cfg.writes_only ? 1u : 1u << w->cfg.pages); m.arg++)
		add(out, count, m);
}

/* All links that are lost have one node in common. */
static bool may_lose(const struct model *w, unsigned a, unsigned b)
{
	unsigned common = 1u << a | 1u << b;

	if (!w->cfg.loss || a == b || nodeset_has(&w->node[a].lost, (node_id)b))
		return false;
	for (unsigned n = 0; n < w->cfg.nodes; n++)
		for (unsigned o = 0; o < w->cfg.nodes; o++)
			if (nodeset_has(&w->node[n].lost, (node_id)o))
				common &= 1u << n | 1u << o;
	return common != 0;
}

unsigned model_moves(const struct model *w, struct move out[static MODEL_MOVES])
{
	unsigned count = 0;

	for (unsigned n = 0; n < w->cfg.nodes; n++) {
		for (unsigned from = 0; from < w->cfg.nodes; from++) {
			struct move m = { .kind = MOVE_DELIVER, .node = (uint8_t)n, .arg = (uint8_t)from };

			if (w->link[from][n].count)
				add_timed(w, out, &count, m);
			m.kind = MOVE_LOST;
			if (may_lose(w, n, from))
				add(out, &count, m);
		}
		for (unsigned p = 0; p < w->cfg.pages; p++)
			cell_moves(w, n, p, out, &count);
		for (unsigned k = 0; k < w->cfg.collectors; k++)
			collector_moves(w, n, k, out, &count);
	}
	return count;
}

static void event_of(struct model *w, struct move m, struct proto_event *ev, bool *fresh, uint8_t *asked)
{
	struct model_cell *c = &w->cell[m.node][m.page];
	struct model_collector *collector;
	struct model_link *l;

	ev->page = m.page;
	ev->now_ns = m.late ? LATE_NS : EARLY_NS;
	switch (m.kind) {
	case MOVE_DELIVER:
		l = &w->link[m.arg][m.node];
		ev->kind = PROTO_EV_MESSAGE;
		ev->from = m.arg;
		ev->msg = l->q[0].msg;
		*fresh = l->q[0].fresh;
		memmove(&l->q[0], &l->q[1], sizeof(l->q[0]) * --l->count);
		memset(&l->q[l->count], 0, sizeof(l->q[0]));
		break;
	case MOVE_UNMAPPED:
		ev->kind = PROTO_EV_UNMAPPED;
		c->unmapping = false;
		c->mapped = c->target;
		c->target = 0;
		break;
	case MOVE_TIMER:
		ev->kind = PROTO_EV_TIMER;
		c->timer = false;
		break;
	case MOVE_AGAIN:
	case MOVE_REQUEST:
		ev->kind = PROTO_EV_REQUEST;
		ev->right = m.arg;
		*asked = (uint8_t)(1u << m.arg);
		c->ready &= (uint8_t)~*asked;
		c->waiting |= *asked;
		break;
	case MOVE_EVICT:
		ev->kind = PROTO_EV_EVICT;
		break;
	case MOVE_NEXT:
		collector = &w->collector[m.node][m.page];
		collector->asked = true;
		ev->kind = PROTO_EV_REQUEST;
		ev->page = collector->c.page[collect_next(&collector->c)];
		ev->right = collector->c.right[collect_next(&collector->c)];
		break;
	case MOVE_LOST:
		/* Nothing of this life of the link arrives after that. */
		ev->kind = PROTO_EV_PEER_LOST;
		ev->from = m.arg;
		memset(&w->link[m.arg][m.node], 0, sizeof(w->link[0][0]));
		break;
	}
}

/* One step of the core and its effects, which are added to `out`; what it gives to a collector is pinned at once. */
static void step(struct model *w, unsigned n, const struct proto_event *ev, bool fresh, uint8_t asked,
		 struct proto_effects *out)
{
	struct proto_effects fx;

	proto_step(&w->node[n], ev, &fx);
	for (unsigned i = 0; i < fx.count; i++) {
		perform(w, n, &fx.fx[i], fresh, asked ? &asked : NULL);
		write_all(w);
		if (out->count < PROTO_EFFECTS_MAX)
			out->fx[out->count++] = fx.fx[i];
	}
	if (w->pin_due) {
		struct proto_event hold = { .kind = PROTO_EV_HOLD, .page = w->pin, .now_ns = ev->now_ns,
					    .until_ns = PROTO_HOLD_PINNED };

		w->pin_due = false;
		step(w, n, &hold, false, 0, out);
	}
	for (unsigned p = 0; p < w->cfg.pages; p++) {
		const struct proto_flight *fl = proto_flight_of(&w->node[n], p);

		/* One that outlives its revocation is as good as none: stray TIMERs change nothing. */
		if (!fl || fl->revoke != PROTO_REVOKE_HELD)
			w->cell[n][p].timer = false;
	}
}

static void collect_start(struct model *w, struct move m)
{
	struct collect *c = &w->collector[m.node][m.page].c;

	/* Instructions meet their pages in different orders. */
	for (unsigned i = 0; i < w->cfg.pages; i++) {
		uint32_t p = (m.node + i) % w->cfg.pages;

		collect_add(c, p, m.arg >> p & 1 ? PROTO_READ : PROTO_WRITE);
	}
}

/* The instruction is done: what no other collector of this node has pinned is let go. */
static void collect_finish(struct model *w, struct move m, struct proto_effects *out)
{
	struct collect c = w->collector[m.node][m.page].c;

	w->collector[m.node][m.page].c = (struct collect){ 0 };
	for (unsigned i = 0; i < c.count; i++) {
		struct proto_event hold = { .kind = PROTO_EV_HOLD, .page = c.page[i],
					    .now_ns = m.late ? LATE_NS : EARLY_NS,
					    .until_ns = m.late ? LATE_NS : EARLY_NS + HOLD_NS };
		bool other = false;

		for (unsigned k = 0; k < w->cfg.collectors; k++)
			other |= collect_pins(&w->collector[m.node][k].c, c.page[i]);
		if (!other)
			step(w, m.node, &hold, false, 0, out);
	}
}

void model_move(struct model *w, struct move m, struct proto_effects *out)
{
	struct queue_shot before[MODEL_PAGES], after;
	struct proto_event ev = { 0 };
	bool fresh = false;
	uint8_t asked = 0;

	w->broken = NULL;
	w->done_due = w->pin_due = false;
	w->moving = m.kind;
	out->count = 0;
	for (unsigned p = 0; p < w->cfg.pages; p++)
		queue_shoot(w, p, &before[p]);
	if (m.kind == MOVE_COLLECT) {
		collect_start(w, m);
	} else if (m.kind == MOVE_FINISH) {
		collect_finish(w, m, out);
	} else {
		event_of(w, m, &ev, &fresh, &asked);
		step(w, m.node, &ev, fresh, asked, out);
	}
	check_pins(w);
	for (unsigned p = 0; p < w->cfg.pages; p++) {
		check_page(w, p);
		queue_shoot(w, p, &after);
		check_order(w, &before[p], &after);
		check_ahead(w, p);
	}
	/* Somebody alone with its own pages needs no messages. */
	if (w->cfg.nodes == 1 && m.kind == MOVE_REQUEST && w->cell[m.node][m.page].waiting)
		broken(w, "I9: a node alone waits");
}

const char *model_rest(const struct model *w)
{
	/* Who depends on a lost node waits until the shell ends the VM. */
	for (unsigned n = 0; n < w->cfg.nodes; n++)
		if (!nodeset_empty(&w->node[n].lost))
			return NULL;
	for (unsigned n = 0; n < w->cfg.nodes; n++) {
		for (unsigned k = 0; k < w->cfg.collectors; k++)
			if (w->collector[n][k].c.count)
				return "I10: threads that collect wait for each other";
		for (unsigned p = 0; p < w->cfg.pages; p++) {
			if (w->cell[n][p].waiting || w->cell[n][p].parked || w->cell[n][p].ready)
				return "I8: stuck with a waiter";
			if (w->node[n].page[p].busy)
				return "I8: at rest with something in flight";
		}
		for (uint32_t i = 0; i < w->dir.homed[n]; i++)
			if (w->node[n].home[i].tail)
				return "I8: at rest with a transaction";
		if (w->node[n].mine)
			return "I7: a request was lost count of";
		for (unsigned i = 0; i < w->cfg.nodes; i++)
			if (w->node[n].used[i])
				return "I7: a waiter was lost count of";
	}
	return NULL;
}
