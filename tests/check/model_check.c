/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model_check.c - what holds in every state of the model, by the numbers of docs/protocol.md.
 *
 * Owns nothing; one thread; no I/O.
 */
#include "tests/check/model_int.h"

/* --- what holds in every state ------------------------------------------------------------------------ */

void check_page(struct model *w, unsigned p)
{
	uint32_t index;
	const struct proto *home = &w->node[home_node(w, p, &index)];
	const struct proto_home *h = &home->home[index];
	node_id owner = proto_owner(home, index);
	unsigned writers = 0, holders = 0;

	if (nodeset_has(&home->copyset[index], owner))
		broken(w, "I4: the owner is in its own copyset");
	for (unsigned n = 0; n < w->cfg.nodes; n++) {
		const struct model_cell *c = &w->cell[n][p];

		writers += c->mapped == PROTO_WRITE;
		holders += c->mapped != PROTO_NONE;
		if (c->mapped != PROTO_NONE && !c->fresh)
			broken(w, "I2: a reader sees old bytes");
		if (w->node[n].page[p].right > c->mapped)
			broken(w, "a right is held that is not mapped");
		if (h->tail)
			continue;
		if (c->mapped != PROTO_NONE && owner != n && !nodeset_has(&home->copyset[index], (node_id)n))
			broken(w, "I4: a holder is unknown to the home");
		if (c->mapped == PROTO_WRITE && (owner != n || !nodeset_empty(&home->copyset[index])))
			broken(w, "I4: a writer is not known as the only one");
	}
	if (writers > 1 || (writers == 1 && holders > 1))
		broken(w, "I1: more than one holder beside a writer");
}

/* Requests (not EVICTs) waiting for page p, the active one first. */
void queue_shoot(const struct model *w, unsigned p, struct queue_shot *out)
{
	uint32_t index;
	const struct proto *home = &w->node[home_node(w, p, &index)];
	uint16_t tail = home->home[index].tail, i = tail;

	out->count = 0;
	while (tail) {
		i = home->wait[i].next;
		if (home->wait[i].kind != PROTO_EVICT)
			out->w[out->count++] = home->wait[i];
		if (i == tail || out->count == MODEL_WAITS)
			break;
	}
}

/* I5: what was waiting is served from the front, and a newcomer goes to the end. */
void check_order(struct model *w, const struct queue_shot *old, const struct queue_shot *now)
{
	for (unsigned served = 0; served <= old->count; served++) {
		unsigned rest = old->count - served, same = 0;

		while (same < rest && same < now->count &&
		       old->w[served + same].node == now->w[same].node &&
		       old->w[served + same].kind == now->w[same].kind)
			same++;
		if (same == rest && now->count <= rest + 1)
			return;
	}
	broken(w, "I5: the order of requests changed");
}

/* I5: how many of other nodes are before each request of a queue.  Each has one request, and one of them is the owner. */
void check_ahead(struct model *w, unsigned p)
{
	uint32_t index;
	const struct proto *home = &w->node[home_node(w, p, &index)];
	uint16_t tail = home->home[index].tail, i = tail;
	unsigned total = 0, of[MODEL_NODES] = { 0 };

	if (!tail)
		return;
	do {
		const struct proto_wait *q = &home->wait[i = home->wait[i].next];
		unsigned ahead = total - of[q->node];

		if (q->kind != PROTO_EVICT && ahead > w->seen.ahead)
			w->seen.ahead = (uint8_t)ahead;
		total++;
		of[q->node]++;
	} while (i != tail && total < MODEL_WAITS);
	if (w->seen.ahead > w->cfg.nodes)
		broken(w, "I5: a request is passed too often");
}

/* I10: what is pinned stays. */
void check_pins(struct model *w)
{
	for (unsigned n = 0; n < w->cfg.nodes; n++)
		for (unsigned k = 0; k < w->cfg.collectors; k++) {
			const struct collect *c = &w->collector[n][k].c;

			for (unsigned i = 0; i < c->pins; i++)
				if (w->cell[n][c->page[i]].mapped < c->right[i] ||
				    w->node[n].page[c->page[i]].right < c->right[i])
					broken(w, "I10: a pinned page is lost");
		}
}
