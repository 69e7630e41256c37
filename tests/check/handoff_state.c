/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/handoff_state.c - see handoff.h: a state as canonical bytes and as text.
 *
 * Owns nothing; one thread; prints.
 */
#include "tests/check/handoff.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdio.h>
#include <string.h>

static bool moving(const struct ho_vcpu *h)
{
	return h->phase == HO_OFFERED || h->phase == HO_STOPPING || h->phase == HO_SENT;
}

static void put_node(struct writer *o, const struct hw_node *n)
{
	const struct ho_vcpu *h = &n->h;

	writer_u8(o, (uint8_t)(h->phase | n->stop_due << 3 | n->install_due << 4 | n->dead << 5 | n->current << 6));
	writer_u8(o, (uint8_t)(h->where | (h->peer == NODE_NONE ? 7 : h->peer) << 3));
	writer_u8(o, h->verdict);
	writer_u8(o, (uint8_t)(h->tried | h->gen << 4));
	writer_u8(o, (uint8_t)(moving(h) ? h->order : 0)); /* else without a meaning */
	writer_u8(o, n->lost);
	writer_u8(o, (uint8_t)(n->mail | n->lapic << 4));
	writer_u8(o, n->coming);
}

static void get_node(struct reader *i, struct hw_node *n)
{
	uint8_t a = reader_u8(i), b = reader_u8(i), verdict = reader_u8(i), gens = reader_u8(i);
	node_id self = n->h.self;

	*n = (struct hw_node){ .stop_due = a >> 3 & 1, .install_due = a >> 4 & 1, .dead = a >> 5 & 1,
			       .current = a >> 6 & 1 };
	/* All bytes of it, padding too: they are compared. */
	memset(&n->h, 0, sizeof(n->h));
	n->h.phase = a & 7;
	n->h.self = self;
	n->h.where = b & 7;
	n->h.peer = b >> 3 == 7 ? NODE_NONE : b >> 3;
	n->h.verdict = verdict;
	n->h.tried = gens & 15;
	n->h.gen = gens >> 4;
	n->h.order = reader_u8(i);
	n->lost = reader_u8(i);
	b = reader_u8(i);
	n->mail = b & 15;
	n->lapic = b >> 4;
	n->coming = reader_u8(i);
}

static void put_link(struct writer *o, const struct hw_link *l)
{
	writer_u8(o, l->count);
	for (unsigned k = 0; k < l->count; k++) {
		const struct hw_entry *e = &l->q[k];

		writer_u8(o, (uint8_t)(e->kind | e->gen << 4));
		writer_u8(o, (uint8_t)(e->why | e->node << 4));
		if (e->kind == HO_MSG_STATE)
			writer_u8(o, e->lapic);
	}
}

static void get_link(struct reader *i, struct hw_link *l)
{
	memset(l, 0, sizeof(*l));
	l->count = reader_u8(i);
	for (unsigned k = 0; k < l->count; k++) {
		uint8_t a = reader_u8(i), b = reader_u8(i);

		l->q[k] = (struct hw_entry){ .kind = a & 15, .gen = a >> 4, .why = b & 15, .node = b >> 4 };
		if (l->q[k].kind == HO_MSG_STATE)
			l->q[k].lapic = reader_u8(i);
	}
}

size_t hw_encode(const struct hw *w, uint8_t out[static HW_BYTES])
{
	struct writer o = { .p = out, .end = out + HW_BYTES };
	unsigned nodes = w->cfg->nodes;

	for (unsigned n = 0; n < nodes; n++)
		put_node(&o, &w->node[n]);
	for (unsigned i = 0; i < nodes * nodes; i++)
		if (!w->wild && i % nodes != i / nodes)
			put_link(&o, &w->link[i / nodes][i % nodes]);
	for (unsigned i = 0; w->wild && i < HW_BAG / 64; i++)
		writer_u64(&o, w->bag[i]);
	writer_u8(&o, w->orders);
	writer_u8(&o, w->open);
	writer_u16(&o, w->took);
	writer_u8(&o, (uint8_t)(w->fresh | w->told << 4 | w->doomed << 5));
	writer_u8(&o, (uint8_t)(w->ipis | w->kills << 4));
	writer_u8(&o, w->seen);
	writer_u8(&o, w->ticks);
	ASSERT(!o.bad);
	return (size_t)(o.p - out);
}

void hw_decode(struct hw *w, const uint8_t *in)
{
	struct reader i = { .p = in, .end = in + HW_BYTES };
	unsigned nodes = w->cfg->nodes;
	uint8_t a;

	for (unsigned n = 0; n < nodes; n++)
		get_node(&i, &w->node[n]);
	for (unsigned k = 0; k < nodes * nodes; k++)
		if (!w->wild && k % nodes != k / nodes)
			get_link(&i, &w->link[k / nodes][k % nodes]);
	for (unsigned k = 0; w->wild && k < HW_BAG / 64; k++)
		w->bag[k] = reader_u64(&i);
	w->orders = reader_u8(&i);
	w->open = reader_u8(&i);
	w->took = reader_u16(&i);
	a = reader_u8(&i);
	w->fresh = a & 15;
	w->told = a >> 4 & 1;
	w->doomed = a >> 5 & 1;
	a = reader_u8(&i);
	w->ipis = a & 15;
	w->kills = a >> 4;
	w->seen = reader_u8(&i);
	w->ticks = reader_u8(&i);
	w->broken = NULL;
}

/* --- text --------------------------------------------------------------------------------------------- */

static const char *const kinds[] = { "?", "OFFER", "ACCEPT", "REFUSE", "STATE", "TAKEN", "RETURN", "HOME", "IPI" };

static void entry_print(const struct hw_entry *e)
{
	printf("%s{%u", kinds[e->kind], e->gen);
	if (e->kind == HO_MSG_HOME)
		printf(" n%u", e->node);
	else if (e->why)
		printf(" why %u", e->why);
	printf("}");
}

/* Of the state before the move. */
void hw_move_print(const struct hw *w, struct hw_move m)
{
	static const char *const names[] = { "receives", "captured", "installed", "takes its mail", "ticks", "greets",
					     "is ordered to move it to", "has an interrupt for it", "loses", "dies" };

	printf("  n%u %s", m.node, names[m.kind]);
	if (m.kind == HW_DELIVER && w->wild) {
		printf(" of n%u ", w->all->m[m.arg].from);
		entry_print(&w->all->m[m.arg].e);
	} else if (m.kind == HW_DELIVER) {
		printf(" of n%u ", m.arg);
		entry_print(&w->link[m.arg][m.node].q[0]);
	} else if (m.kind == HW_ORDER || m.kind == HW_LOSE || m.kind == HW_GREET) {
		printf(" n%u", m.arg);
	}
	printf("%s\n", !m.opt			  ? ""
		       : m.kind == HW_DELIVER	  ? " and is unwilling"
		       : m.kind == HW_CAPTURED ? " with its mail"
						  : ": failed");
}

void hw_print(const struct hw *w)
{
	static const char *const phases[] = { "away", "HERE", "OFFERED", "STOPPING", "sent", "installing" };

	printf("     ");
	for (unsigned n = 0; n < w->cfg->nodes; n++) {
		const struct hw_node *node = &w->node[n];

		printf(" n%u %s gen %u where n%u%s%s |", n, node->dead ? "dead" : phases[node->h.phase], node->h.gen,
		       node->h.where, node->current ? " newest" : "", node->mail ? " mail" : "");
	}
	for (unsigned i = 0; i < w->cfg->nodes * w->cfg->nodes; i++) {
		const struct hw_link *l = &w->link[i / w->cfg->nodes][i % w->cfg->nodes];

		if (l->count)
			printf(" n%u-n%u:", i / w->cfg->nodes, i % w->cfg->nodes);
		for (unsigned k = 0; k < l->count; k++) {
			printf(" ");
			entry_print(&l->q[k]);
		}
	}
	printf("\n");
}
