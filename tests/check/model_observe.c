/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model_observe.c - a state of the checker's world as struct observed (page 0).
 *
 * Owns nothing; one thread; no I/O.
 */
#include "tests/check/model.h"
#include "tests/check/observe.h"

static void node_observe(const struct model *w, unsigned n, struct observed_node *o)
{
	const struct proto_page *pg = &w->node[n].page[0];
	const struct proto_flight *fl = proto_flight_of(&w->node[n], 0);
	const struct model_cell *c = &w->cell[n][0];

	*o = (struct observed_node){ .right = pg->right, .mapped = c->mapped, .target = c->target,
				     .unmapping = c->unmapping, .own = pg->right ? pg->owner : 0,
				     .fresh = c->fresh, .waiting = c->waiting };
	if (!fl)
		return;
	o->want = fl->want;
	o->next = fl->next;
	o->got = fl->acks_got;
	o->evict = fl->evict;
	o->revoke = fl->revoke;
	if (fl->granted) {
		o->granted = fl->granted;
		o->need = fl->acks_need;
		o->from = fl->grant_from;
	}
	if (fl->revoke) {
		o->cause = fl->cause;
		o->to = fl->to;
		o->acks = fl->acks;
		o->bytes = fl->bytes;
	}
}

void model_observe(const struct model *w, struct observed *o)
{
	const struct proto *home = &w->node[0];
	const struct proto_home *h = &home->home[0];
	uint16_t i = h->tail;

	*o = (struct observed){ .nodes = (uint8_t)w->cfg.nodes, .ever = w->written[0], .written = h->written,
				.owner = proto_owner(home, 0), .mig = h->mig,
				.copies = (uint8_t)home->copyset[0].w[0] };
	for (unsigned n = 0; n < w->cfg.nodes; n++)
		node_observe(w, n, &o->node[n]);
	while (h->tail) {
		i = home->wait[i].next;
		o->wait[o->waits++] = (struct observed_wait){ home->wait[i].node, home->wait[i].kind,
							      home->wait[i].copy };
		if (i == h->tail)
			break;
	}
	for (unsigned f = 0; f < w->cfg.nodes; f++) {
		for (unsigned t = 0; t < w->cfg.nodes; t++) {
			const struct model_link *l = &w->link[f][t];

			o->used[f][t] = l->count;
			for (unsigned k = 0; k < l->count; k++) {
				const struct proto_msg *m = &l->q[k].msg;

				o->link[f][t][k] = (struct observed_msg){ m->kind, m->right, m->bytes, m->node,
									  m->acks, m->copy, l->q[k].fresh };
			}
		}
	}
}
