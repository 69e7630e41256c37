/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim_node.c - what happens next, and the effects of the protocol core.
 *
 * Owns nothing; one thread; prints the trace.
 */
#include "tests/sim/sim_int.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/* --- what is to happen -------------------------------------------------------------------------------- */

static bool before(const struct occasion *a, const struct occasion *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_occasion_put(struct sim *s, struct occasion o)
{
	size_t i;

	if (s->heap_count == s->heap_max) {
		s->heap_max = s->heap_max ? 2 * s->heap_max : 1024;
		s->heap = realloc(s->heap, s->heap_max * sizeof(*s->heap));
		ASSERT(s->heap);
	}
	o.order = s->orders++;
	for (i = s->heap_count++; i > 0 && before(&o, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = o;
}

struct occasion sim_occasion_take(struct sim *s)
{
	struct occasion top = s->heap[0], last = s->heap[--s->heap_count];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < s->heap_count) {
		if (k + 1 < s->heap_count && before(&s->heap[k + 1], &s->heap[k]))
			k++;
		if (!before(&s->heap[k], &last))
			break;
		s->heap[i] = s->heap[k];
		i = k;
	}
	if (s->heap_count)
		s->heap[i] = last;
	return top;
}

uint64_t sim_draw_ns(struct sim *s, uint64_t max_ns)
{
	return rng_below(&s->rng, rng_below(&s->rng, 4) ? max_ns / 4 + 1 : max_ns + 1);
}

void sim_thread_soon(struct sim *s, unsigned node, unsigned t, uint64_t max_ns)
{
	s->thread[node * s->cfg.threads + t].state = RUNS;
	sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + 100 + sim_draw_ns(s, max_ns), .kind = AT_THREAD,
					   .node = (node_id)node, .thread = (uint16_t)t });
}

/* --- effects ------------------------------------------------------------------------------------------ */

/* Loss that the transport repairs: the link stands still, then everything comes, in order. */
static uint64_t stall_ns(struct sim *s)
{
	if (!(s->cfg.faults & SIM_STALLS) || rng_below(&s->rng, 500))
		return 0;
	s->res->stalls++;
	return sim_draw_ns(s, 20 * NS_PER_MS);
}

static void fx_send(struct sim *s, unsigned node, const struct proto_effect *e, unsigned hops)
{
	struct cell *c = cell_at(s, node, e->msg.page);
	uint8_t body[WIRE_MSG_BYTES];

	if (e->msg.bytes == PROTO_BYTES_PAGE && c->mapped == PROTO_WRITE)
		broken(s, "I3: bytes leave while they can be written");
	if ((e->msg.kind == PROTO_ACK || e->msg.kind == PROTO_RETURN) && c->mapped != PROTO_NONE)
		broken(s, "I3: answered before unmapped");
	wire_encode(&e->msg, body);
	s->res->messages++;
	sim_send(s, node, e->to, body, sizeof(body), c->value, hops);
}

void sim_send(struct sim *s, unsigned node, node_id to, const void *body, size_t body_len, uint64_t data, unsigned hops)
{
	struct link *link = link_at(s, node, to);
	struct occasion o = { .kind = AT_DELIVER, .node = to, .from = (node_id)node,
			      .data = data, .hops = (uint16_t)(hops + 1) };
	struct ic_frame fr = { .body_len = (uint16_t)body_len, .epoch = 1, .seq = link->tx_seq++ };
	uint64_t at = s->now_ns + 1000 + sim_draw_ns(s, s->cfg.delay_us * NS_PER_US) + stall_ns(s);

	link->last_ns = at > link->last_ns ? at : link->last_ns;
	o.at_ns = link->last_ns;
	ic_frame_encode(&fr, o.frame);
	memcpy(o.frame + IC_FRAME_HEADER, body, body_len);
	sim_occasion_put(s, o);
	if ((s->cfg.faults & SIM_DOUBLES) && rng_below(&s->rng, 5000) == 0) {
		s->res->doubles++;
		sim_occasion_put(s, o);
	}
}

static void wake(struct sim *s, unsigned node, uint32_t page, uint8_t right, unsigned hops)
{
	s->res->hops += hops;
	s->res->grants++;
	for (unsigned t = 0; t < s->cfg.threads; t++) {
		struct thread *th = &s->thread[node * s->cfg.threads + t];

		if (th->state != WAITS || th->page[th->waits_for] != page ||
		    th->right[th->waits_for] > right)
			continue;
		s->pin_due |= th->collects;
		if (th->collects)
			th->pins = th->waits_for + 1;
		sim_thread_soon(s, node, t, 20 * NS_PER_US);
	}
}

void sim_map_set(struct sim *s, unsigned node, uint32_t page, uint8_t right)
{
	struct cell *c = cell_at(s, node, page);
	uint32_t index;

	if (dir_home(s->node[node].cfg.dir, page, &index) != node)
		s->foreign[node] += (unsigned)((right != PROTO_NONE) - (c->mapped != PROTO_NONE));
	c->mapped = right;
}

static void fx_perform(struct sim *s, unsigned node, const struct proto_effect *e,
		       const struct occasion *cause, struct thread *asker)
{
	struct cell *c = cell_at(s, node, e->page);
	uint16_t hops = cause ? cause->hops : 0;

	switch (e->kind) {
	case PROTO_FX_SEND:
		fx_send(s, node, e, hops);
		break;
	case PROTO_FX_FILL:
	case PROTO_FX_ZERO:
		if (c->mapped != PROTO_NONE)
			broken(s, "a frame changes under a reader");
		c->value = e->kind == PROTO_FX_FILL ? cause->data : 0;
		break;
	case PROTO_FX_MAP:
		if (c->unmapping || c->mapped >= e->right)
			broken(s, "I6: MAP is out of place");
		sim_map_set(s, node, e->page, e->right);
		break;
	case PROTO_FX_UNMAP:
		if (c->unmapping || c->mapped <= e->right)
			broken(s, "I6: UNMAP is out of place");
		c->unmapping = true;
		c->target = e->right;
		sim_occasion_put(s, (struct occasion){ .at_ns = s->now_ns + sim_draw_ns(s, 10 * NS_PER_US),
						   .kind = AT_UNMAPPED, .node = (node_id)node,
						   .page = e->page, .hops = hops });
		break;
	case PROTO_FX_WAKE:
		wake(s, node, e->page, e->right, hops);
		break;
	case PROTO_FX_TIMER:
		sim_occasion_put(s, (struct occasion){ .at_ns = e->at_ns, .kind = AT_TIMER,
						   .node = (node_id)node, .page = e->page, .hops = hops });
		break;
	case PROTO_FX_DROP:
		c->value = ~0ull; /* rubbish that nobody may ever read */
		s->res->drops++;
		break;
	case PROTO_FX_BUSY:
		if (asker)
			asker->state = PARKED;
		break;
	case PROTO_FX_ROOM:
		for (unsigned t = 0; t < s->cfg.threads; t++)
			if (s->thread[node * s->cfg.threads + t].state == PARKED)
				sim_thread_soon(s, node, t, 20 * NS_PER_US);
		break;
	case PROTO_FX_REFUSED:
		broken(s, "a message of an honest peer is refused");
		break;
	}
}

void sim_step(struct sim *s, unsigned node, struct proto_event *ev, const struct occasion *cause,
		 struct thread *asker)
{
	ev->now_ns = s->now_ns;
	proto_step(&s->node[node], ev, &s->fx);
	s->res->steps++;
	for (unsigned i = 0; i < s->fx.count; i++) {
		const struct proto_effect *e = &s->fx.fx[i];

		TRACE(s, "n%u   %s p%u right %u to n%u %s\n", node, proto_effect_name(e->kind), e->page,
		      e->right, e->to, e->kind == PROTO_FX_SEND ? proto_kind_name(e->msg.kind) : "");
		fx_perform(s, node, e, cause, asker);
	}
	if (s->pin_due)
		sim_pin(s, node);
}
