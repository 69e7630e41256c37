/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model_state.c - a state of the model as canonical bytes and as text.
 *
 * Owns nothing; one thread; prints to stdout.
 * Left out, because it follows from the rest or because the model chooses it freely: indices of pool records
 * and free lists, counts of records in use, ends of holds, retry counts.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "tests/check/model.h"

#include <stdio.h>
#include <string.h>

/* A hold that lasts at EARLY and is over at LATE (model.c), in stamp units. */
#define HOLD_STAMP 1010u
#define PINNED_STAMP 0xfffffu /* proto_node.c */

static void put_flight(struct writer *o, const struct proto_flight *f)
{
	writer_u8(o, (uint8_t)(f->want | f->next << 2 | f->granted << 4 | f->evict << 6));
	writer_u8(o, (uint8_t)(f->revoke | f->cause << 2 | f->bytes << 6));
	writer_u8(o, (uint8_t)(f->to | f->acks << 2 | f->acks_need << 4 | f->acks_got << 6));
	writer_u8(o, f->grant_from);
}

static void get_flight(struct reader *i, struct proto_flight *f)
{
	uint8_t a = reader_u8(i), b = reader_u8(i), c = reader_u8(i);

	*f = (struct proto_flight){
		.want = a & 3, .next = a >> 2 & 3, .granted = a >> 4 & 3, .evict = a >> 6,
		.revoke = b & 3, .cause = b >> 2 & 15, .bytes = b >> 6,
		.to = c & 3, .acks = c >> 2 & 3, .acks_need = c >> 4 & 3, .acks_got = c >> 6,
		.grant_from = reader_u8(i), .hold = HOLD_STAMP,
	};
}

/* Fields that mean nothing in a state must not make two states of one. */
static struct proto_flight flight_normal(const struct proto_flight *f)
{
	struct proto_flight o = *f;

	if (o.revoke == PROTO_REVOKE_NO)
		o.cause = o.to = o.acks = o.bytes = 0;
	if (!o.granted)
		o.grant_from = o.acks_need = 0;
	return o;
}

/* Of ends of holds only whether there is one makes a difference. */
static bool is_pinned(const struct proto *pr, unsigned p)
{
	const struct proto_page *pg = &pr->page[p];
	uint32_t stamp = pg->busy ? proto_flight_of(pr, p)->hold : (uint32_t)pg->high << 16 | get_le16(pg->low);

	return stamp == PINNED_STAMP;
}

static void put_cell(struct writer *o, const struct model *w, unsigned n, unsigned p)
{
	const struct model_cell *c = &w->cell[n][p];
	const struct proto_page *pg = &w->node[n].page[p];

	writer_u8(o, (uint8_t)(pg->right | (pg->right ? pg->owner : 0) << 2 | pg->busy << 3 |
			       c->mapped << 4 | c->target << 6));
	writer_u8(o, (uint8_t)(c->unmapping | c->fresh << 1 | c->timer << 2 | c->waiting << 2 | c->parked << 5));
	writer_u8(o, (uint8_t)(c->cost | c->invs << 4));
	writer_u8(o, (uint8_t)(c->evict_cost | c->far << 3 | c->ready << 4 | is_pinned(&w->node[n], p) << 7));
	if (pg->busy) {
		struct proto_flight f = flight_normal(proto_flight_of(&w->node[n], p));

		put_flight(o, &f);
	}
}

static void get_cell(struct reader *i, struct model *w, unsigned n, unsigned p)
{
	struct model_cell *c = &w->cell[n][p];
	struct proto *pr = &w->node[n];
	struct proto_page *pg = &pr->page[p];
	uint8_t a = reader_u8(i), b = reader_u8(i), d = reader_u8(i), e = reader_u8(i);

	*pg = (struct proto_page){ .right = a & 3, .owner = a >> 2 & 1, .busy = a >> 3 & 1 };
	pg->high = e & 0x80 ? PINNED_STAMP >> 16 : HOLD_STAMP >> 16;
	put_le16(pg->low, e & 0x80 ? PINNED_STAMP & 0xffff : HOLD_STAMP);
	*c = (struct model_cell){ .mapped = a >> 4 & 3, .target = a >> 6, .unmapping = b & 1,
				  .fresh = b >> 1 & 1, .timer = b >> 2 & 1, .waiting = b >> 2 & 6, .parked = b >> 5,
				  .cost = d & 15, .invs = d >> 4, .evict_cost = e & 7, .far = e >> 3 & 1, .ready = e >> 4 & 7 };
	if (pg->busy) {
		struct proto_flight *f;

		put_le16(pg->low, pr->flight_free);
		f = &pr->flight[pr->flight_free];
		pr->flight_free = f->next_free;
		get_flight(i, f);
		if (e & 0x80)
			f->hold = PINNED_STAMP;
		pr->mine = (uint16_t)(pr->mine + (f->want || f->next) + (f->evict != PROTO_EVICT_NO));
		pr->evicting = (uint16_t)(pr->evicting + (f->evict != PROTO_EVICT_NO));
	}
}

static void put_home(struct writer *o, const struct proto *p, uint32_t index)
{
	const struct proto_home *h = &p->home[index];
	uint16_t i = h->tail;

	writer_u8(o, (uint8_t)((h->written ? h->owner : 0) | h->written << 2 | h->mig << 3));
	writer_u8(o, (uint8_t)p->copyset[index].w[0]);
	if (h->tail) {
		do {
			i = p->wait[i].next;
			writer_u8(o, (uint8_t)(p->wait[i].node | p->wait[i].kind << 2 |
					       p->wait[i].copy << 6));
		} while (i != h->tail);
	}
	writer_u8(o, 0xff);
}

static void get_home(struct reader *i, struct proto *p, uint32_t index)
{
	struct proto_home *h = &p->home[index];
	uint8_t a = reader_u8(i);
	uint16_t first = 0, at;

	*h = (struct proto_home){ .owner = a & 3, .written = a >> 2 & 1, .mig = a >> 3 };
	p->copyset[index].w[0] = reader_u8(i);
	while ((a = reader_u8(i)) != 0xff) {
		at = p->wait_free;
		p->wait_free = p->wait[at].next;
		p->wait[at] = (struct proto_wait){ .node = a & 3, .kind = a >> 2 & 15, .copy = a >> 6 & 1 };
		p->used[a & 3]++;
		if (h->tail)
			p->wait[h->tail].next = at;
		else
			first = at;
		p->wait[at].next = first;
		h->tail = at;
	}
}

static void put_link(struct writer *o, const struct model_link *l)
{
	writer_u8(o, l->count);
	for (unsigned i = 0; i < l->count; i++) {
		const struct proto_msg *m = &l->q[i].msg;

		writer_u8(o, (uint8_t)(m->kind | m->right << 4 | m->bytes << 6));
		writer_u8(o, (uint8_t)(m->node | m->acks << 2 | m->copy << 4 | m->page << 5 |
				       l->q[i].fresh << 7));
	}
}

static void get_link(struct reader *i, struct model_link *l)
{
	l->count = reader_u8(i);
	for (unsigned k = 0; k < l->count; k++) {
		uint8_t a = reader_u8(i), b = reader_u8(i);

		l->q[k].msg = (struct proto_msg){ .kind = a & 15, .right = a >> 4 & 3, .bytes = a >> 6,
						  .node = b & 3, .acks = b >> 2 & 3, .copy = b >> 4 & 1,
						  .page = b >> 5 & 3 };
		l->q[k].fresh = b >> 7;
	}
}

/* It takes every page; which of them only to read is a choice. */
static void put_collector(struct writer *o, const struct model_collector *mc)
{
	uint8_t writes = 0;

	for (unsigned i = 0; i < mc->c.count; i++)
		writes |= (uint8_t)((mc->c.right[i] == PROTO_WRITE) << i);
	writer_u8(o, (uint8_t)(mc->c.count | mc->c.pins << 2 | mc->asked << 4 | writes << 5));
	for (unsigned i = 0; i < mc->c.count; i++)
		writer_u8(o, (uint8_t)mc->c.page[i]);
}

static void get_collector(struct reader *i, struct model_collector *mc)
{
	uint8_t a = reader_u8(i);

	*mc = (struct model_collector){ .c = { .count = a & 3, .pins = a >> 2 & 3 }, .asked = a >> 4 & 1 };
	for (unsigned k = 0; k < mc->c.count; k++) {
		mc->c.page[k] = reader_u8(i);
		mc->c.right[k] = a >> (5 + k) & 1 ? PROTO_WRITE : PROTO_READ;
	}
}

size_t model_encode(const struct model *w, uint8_t out[static MODEL_BYTES])
{
	struct writer o = { .p = out, .end = out + MODEL_BYTES };

	for (unsigned n = 0; n < w->cfg.nodes; n++) {
		writer_u8(&o, (uint8_t)(w->node[n].starved | w->node[n].lost.w[0] << 1));
		for (unsigned p = 0; p < w->cfg.pages; p++)
			put_cell(&o, w, n, p);
		for (uint32_t i = 0; i < w->dir.homed[n]; i++)
			put_home(&o, &w->node[n], i);
		for (unsigned k = 0; k < w->cfg.collectors; k++)
			put_collector(&o, &w->collector[n][k]);
		for (unsigned to = 0; to < w->cfg.nodes; to++)
			if (to != n)
				put_link(&o, &w->link[n][to]);
	}
	for (unsigned p = 0; p < w->cfg.pages; p++)
		writer_u8(&o, w->written[p]);
	ASSERT(!o.bad);
	return (size_t)(o.p - out);
}

static void pools_reset(struct proto *p)
{
	for (unsigned i = 1; i <= p->flights; i++) {
		p->flight[i].next_free = (uint16_t)(i < p->flights ? i + 1 : 0);
		p->wait[i].next = (uint16_t)(i < p->waits ? i + 1 : 0);
	}
	p->flight_free = p->wait_free = 1;
	p->mine = p->evicting = 0;
	p->refused = 0;
	memset(p->used, 0, sizeof(p->used[0]) * p->cfg.nodes);
}

void model_decode(struct model *w, const uint8_t *in)
{
	struct reader i = { .p = in, .end = in + MODEL_BYTES };

	for (unsigned n = 0; n < w->cfg.nodes; n++) {
		uint8_t a = reader_u8(&i);

		pools_reset(&w->node[n]);
		w->node[n].starved = a & 1;
		w->node[n].lost.w[0] = a >> 1;
		for (unsigned p = 0; p < w->cfg.pages; p++)
			get_cell(&i, w, n, p);
		for (uint32_t k = 0; k < w->dir.homed[n]; k++)
			get_home(&i, &w->node[n], k);
		for (unsigned k = 0; k < w->cfg.collectors; k++)
			get_collector(&i, &w->collector[n][k]);
		for (unsigned to = 0; to < w->cfg.nodes; to++)
			if (to != n)
				get_link(&i, &w->link[n][to]);
	}
	for (unsigned p = 0; p < w->cfg.pages; p++)
		w->written[p] = reader_u8(&i);
	w->broken = NULL;
}

/* --- text --------------------------------------------------------------------------------------------- */

static const char right_letter[] = "-rw";

static void msg_print(const struct proto_msg *m)
{
	static const char *const bytes[] = { "", "+keep", "+zero", "+page" };

	printf("%s p%u", proto_kind_name(m->kind), m->page);
	if (m->kind == PROTO_GRANT)
		printf(" %c acks=%u", right_letter[m->right], m->acks);
	if (m->kind == PROTO_FWD_READ || m->kind == PROTO_FWD_WRITE || m->kind == PROTO_INV)
		printf(" for n%u", m->node);
	if (m->copy)
		printf(" copy");
	printf("%s", bytes[m->bytes]);
}

void model_move_print(const struct model *w, struct move m, const struct proto_effects *fx)
{
	static const char *const names[] = { "receives from", "unmapped", "timer", "asks again", "asks for collector",
					     "ends collector", "asks", "evicts", "loses", "begins collector" };

	(void)w;
	printf("  n%u %s", m.node, names[m.kind]);
	if (m.kind == MOVE_DELIVER || m.kind == MOVE_LOST)
		printf(" n%u", m.arg);
	else if (m.kind == MOVE_NEXT || m.kind == MOVE_FINISH || m.kind == MOVE_COLLECT)
		printf(" %u", m.page);
	else
		printf(" p%u", m.page);
	if (m.kind == MOVE_REQUEST || m.kind == MOVE_AGAIN)
		printf(" %c", right_letter[m.arg]);
	printf("%s:", m.late ? " (holds over)" : "");
	for (unsigned i = 0; i < fx->count; i++) {
		const struct proto_effect *e = &fx->fx[i];

		printf(" %s", proto_effect_name(e->kind));
		if (e->kind == PROTO_FX_SEND) {
			printf(" n%u ", e->to);
			msg_print(&e->msg);
		} else {
			printf(" p%u", e->page);
		}
		if (e->kind == PROTO_FX_MAP || e->kind == PROTO_FX_UNMAP || e->kind == PROTO_FX_WAKE)
			printf(" %c", right_letter[e->right]);
		printf(";");
	}
	printf("\n");
}

void model_print(const struct model *w)
{
	for (unsigned p = 0; p < w->cfg.pages; p++) {
		uint32_t index;
		const struct proto *home = &w->node[dir_home(&w->dir, p, &index)];

		printf("      p%u owner n%u copies", p, proto_owner(home, index));
		for (unsigned n = 0; n < w->cfg.nodes; n++)
			if (nodeset_has(&home->copyset[index], (node_id)n))
				printf(" n%u", n);
		printf(home->home[index].tail ? " busy |" : " idle |");
		for (unsigned n = 0; n < w->cfg.nodes; n++) {
			const struct model_cell *c = &w->cell[n][p];

			printf(" n%u %c%s%s%s", n, right_letter[c->mapped], c->unmapping ? " unmapping" : "",
			       c->fresh ? "" : " old", c->waiting ? " waits" : "");
		}
		printf("\n");
	}
}
