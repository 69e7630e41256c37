/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim.c - see sim.h.
 *
 * Owns struct sim; one thread; prints the trace.
 */
#include "tests/sim/sim.h"

#include "base/assert.h"
#include "base/clock.h"
#include "interconnect/core/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_DELIVER, AT_UNMAPPED, AT_TIMER, AT_THREAD, AT_CRASH, AT_LOST };

struct occasion {
	uint64_t at_ns, order; /* order: of scheduling, so that equal times stay in sequence */
	uint8_t kind;
	node_id node, from;
	uint16_t thread;
	uint16_t hops; /* links crossed since the request that all this answers */
	uint32_t page;
	uint8_t frame[IC_FRAME_HEADER + WIRE_MSG_BYTES];
	uint64_t data; /* the page's bytes */
};

struct cell {
	uint64_t value; /* the frame's bytes: number of the write that made them */
	uint8_t mapped, target;
	bool unmapping;
};

enum thread_state { RUNS, WAITS, PARKED, ENDED };

/* A page that was lost so often is taken in order.  The shell's number is in dsm/fault.c. */
#define COLLECT_AFTER 4

struct thread {
	uint8_t state;
	unsigned left;	 /* instructions */
	uint64_t began_ns; /* the present one */
	unsigned needs;	 /* pages of the present one */
	uint32_t page[SIM_SPAN];
	uint8_t right[SIM_SPAN];
	uint8_t asked[SIM_SPAN]; /* times */
	unsigned waits_for;	 /* index into page[] */
	bool collects;		 /* takes its pages in ascending order and pins each; needs is sorted */
	unsigned pins;		 /* page[0 .. pins) are pinned */
};

struct link {
	uint64_t last_ns; /* arrival of the last message */
	uint32_t tx_seq, rx_seq;
	bool lost; /* as the receiver sees it */
};

struct sim {
	struct sim_config cfg;
	struct sim_result *res;
	struct rng rng;
	struct dir dir;
	struct proto *node;
	void **mem;
	struct cell *cell;     /* [node][page] */
	struct thread *thread; /* [node][thread] */
	uint64_t *latest;      /* [page] */
	struct link *link;     /* [from][to] */
	uint64_t *pause_ns;    /* [node] until */
	bool *dead;            /* [node] */
	unsigned *foreign;     /* [node] foreign pages mapped */
	struct occasion *heap;
	size_t heap_count, heap_max;
	uint64_t now_ns, orders;
	unsigned running; /* threads that have not ended */
	bool pin_due;	  /* a thread that collects was woken in this step */
	struct proto_effects fx;
};

static struct link *link_at(struct sim *s, unsigned from, unsigned to)
{
	return &s->link[from * s->cfg.nodes + to];
}

static struct cell *cell_at(struct sim *s, unsigned node, uint32_t page)
{
	return &s->cell[(size_t)node * s->cfg.pages + page];
}

static void broken(struct sim *s, const char *what)
{
	if (!s->res->broken)
		s->res->broken = what;
}

#define TRACE(s, ...) \
	do { \
		if ((s)->cfg.trace) { \
			printf("%10.3f ", (double)(s)->now_ns / 1e3); \
			printf(__VA_ARGS__); \
		} \
	} while (0)

/* --- what is to happen -------------------------------------------------------------------------------- */

static bool before(const struct occasion *a, const struct occasion *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void occasion_put(struct sim *s, struct occasion o)
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

static struct occasion occasion_take(struct sim *s)
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

static uint64_t draw_ns(struct sim *s, uint64_t max_ns)
{
	/* Mostly short, sometimes the longest: that is where the races are. */
	return rng_below(&s->rng, rng_below(&s->rng, 4) ? max_ns / 4 + 1 : max_ns + 1);
}

static void thread_soon(struct sim *s, unsigned node, unsigned t, uint64_t max_ns)
{
	s->thread[node * s->cfg.threads + t].state = RUNS;
	occasion_put(s, (struct occasion){ .at_ns = s->now_ns + 100 + draw_ns(s, max_ns), .kind = AT_THREAD,
					   .node = (node_id)node, .thread = (uint16_t)t });
}

/* --- effects ------------------------------------------------------------------------------------------ */

/* Loss that the transport repairs: the link stands still, then everything comes, in order. */
static uint64_t stall_ns(struct sim *s)
{
	if (!(s->cfg.faults & SIM_STALLS) || rng_below(&s->rng, 500))
		return 0;
	s->res->stalls++;
	return draw_ns(s, 20 * NS_PER_MS);
}

static void fx_send(struct sim *s, unsigned node, const struct proto_effect *e, unsigned hops)
{
	struct link *link = link_at(s, node, e->to);
	struct cell *c = cell_at(s, node, e->msg.page);
	struct occasion o = { .kind = AT_DELIVER, .node = e->to, .from = (node_id)node,
			      .data = c->value, .page = e->msg.page, .hops = (uint16_t)(hops + 1) };
	struct ic_frame fr = { .body_len = WIRE_MSG_BYTES, .epoch = 1, .seq = link->tx_seq++ };
	uint64_t at = s->now_ns + 1000 + draw_ns(s, s->cfg.delay_us * NS_PER_US) + stall_ns(s);

	if (e->msg.bytes == PROTO_BYTES_PAGE && c->mapped == PROTO_WRITE)
		broken(s, "I3: bytes leave while they can be written");
	if ((e->msg.kind == PROTO_ACK || e->msg.kind == PROTO_RETURN) && c->mapped != PROTO_NONE)
		broken(s, "I3: answered before unmapped");
	link->last_ns = at > link->last_ns ? at : link->last_ns;
	o.at_ns = link->last_ns;
	ic_frame_encode(&fr, o.frame);
	wire_encode(&e->msg, o.frame + IC_FRAME_HEADER);
	s->res->messages++;
	occasion_put(s, o);
	if ((s->cfg.faults & SIM_DOUBLES) && rng_below(&s->rng, 5000) == 0) {
		s->res->doubles++;
		occasion_put(s, o);
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
		thread_soon(s, node, t, 20 * NS_PER_US);
	}
}

static void map_set(struct sim *s, unsigned node, uint32_t page, uint8_t right)
{
	struct cell *c = cell_at(s, node, page);
	uint32_t index;

	if (dir_home(&s->dir, page, &index) != node)
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
		map_set(s, node, e->page, e->right);
		break;
	case PROTO_FX_UNMAP:
		if (c->unmapping || c->mapped <= e->right)
			broken(s, "I6: UNMAP is out of place");
		c->unmapping = true;
		c->target = e->right;
		occasion_put(s, (struct occasion){ .at_ns = s->now_ns + draw_ns(s, 10 * NS_PER_US),
						   .kind = AT_UNMAPPED, .node = (node_id)node,
						   .page = e->page, .hops = hops });
		break;
	case PROTO_FX_WAKE:
		wake(s, node, e->page, e->right, hops);
		break;
	case PROTO_FX_TIMER:
		occasion_put(s, (struct occasion){ .at_ns = e->at_ns, .kind = AT_TIMER,
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
				thread_soon(s, node, t, 20 * NS_PER_US);
		break;
	case PROTO_FX_REFUSED:
		broken(s, "a message of an honest peer is refused");
		break;
	}
}

static void step_pins(struct sim *s, unsigned node);

static void step(struct sim *s, unsigned node, struct proto_event *ev, const struct occasion *cause,
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
		step_pins(s, node);
}

/* --- threads ------------------------------------------------------------------------------------------ */

static void hold(struct sim *s, unsigned node, uint32_t page, uint64_t until_ns)
{
	struct proto_event ev = { .kind = PROTO_EV_HOLD, .page = page, .until_ns = until_ns };

	step(s, node, &ev, NULL, NULL);
}

/* Before anything else happens at this node: what a collecting thread was just given is pinned. */
static void step_pins(struct sim *s, unsigned node)
{
	s->pin_due = false;
	for (unsigned t = 0; t < s->cfg.threads; t++) {
		const struct thread *th = &s->thread[node * s->cfg.threads + t];

		if (th->collects && th->pins)
			hold(s, node, th->page[th->pins - 1], PROTO_HOLD_PINNED);
	}
}

/* From here on in order of page numbers, each page once with the strongest right. */
static void collect_begin(struct thread *th)
{
	unsigned kept = 0;

	for (unsigned i = 1; i < th->needs; i++)
		for (unsigned k = i; k > 0 && th->page[k] < th->page[k - 1]; k--) {
			uint32_t page = th->page[k];
			uint8_t right = th->right[k];

			th->page[k] = th->page[k - 1];
			th->right[k] = th->right[k - 1];
			th->page[k - 1] = page;
			th->right[k - 1] = right;
		}
	for (unsigned i = 0; i < th->needs; i++) {
		if (kept && th->page[kept - 1] == th->page[i]) {
			if (th->right[kept - 1] < th->right[i])
				th->right[kept - 1] = th->right[i];
			continue;
		}
		th->page[kept] = th->page[i];
		th->right[kept++] = th->right[i];
	}
	th->needs = kept;
	th->collects = true;
	th->pins = 0;
	memset(th->asked, 0, sizeof(th->asked));
}

/* All are there.  Each is held for a moment, unless another thread of the node still has it pinned. */
static void collect_end(struct sim *s, unsigned node, struct thread *th)
{
	unsigned pins = th->pins;

	th->collects = false;
	th->pins = 0;
	for (unsigned i = 0; i < pins; i++) {
		bool other = false;

		for (unsigned t = 0; t < s->cfg.threads; t++) {
			const struct thread *o = &s->thread[node * s->cfg.threads + t];

			for (unsigned k = 0; k < o->pins; k++)
				other |= o->page[k] == th->page[i];
		}
		if (!other)
			hold(s, node, th->page[i], s->now_ns);
	}
}

static void instruction_draw(struct sim *s, struct thread *th)
{
	th->began_ns = s->now_ns;
	th->needs = 1;
	if (s->cfg.span_max > 1 && rng_below(&s->rng, 8) == 0)
		th->needs = 1 + (unsigned)rng_below(&s->rng, s->cfg.span_max);
	for (unsigned i = 0; i < th->needs; i++) {
		/* Half of all accesses go to an eighth of the pages. */
		uint64_t span = rng_below(&s->rng, 2) ? s->cfg.pages : s->cfg.pages / 8 + 1;

		th->page[i] = (uint32_t)rng_below(&s->rng, span);
		th->right[i] = rng_below(&s->rng, 100) < s->cfg.write_percent ? PROTO_WRITE : PROTO_READ;
		th->asked[i] = 0;
	}
}

static void instruction_do(struct sim *s, unsigned node, struct thread *th)
{
	for (unsigned i = 0; i < th->needs; i++) {
		struct cell *c = cell_at(s, node, th->page[i]);

		if (c->value != s->latest[th->page[i]])
			broken(s, "I2: a thread reads old bytes");
		if (th->right[i] == PROTO_WRITE)
			c->value = ++s->latest[th->page[i]];
	}
	s->res->instructions++;
	if (s->res->wait_max_ns < s->now_ns - th->began_ns)
		s->res->wait_max_ns = s->now_ns - th->began_ns;
}

/* Threads that collect count on it that a request of theirs is never turned away (proto_config.requests). */
static bool collects_ever(const struct sim *s)
{
	return s->cfg.requests > s->cfg.threads;
}

static bool may_evict(const struct sim *s, unsigned node)
{
	return !collects_ever(s) || s->node[node].mine + s->cfg.threads < s->cfg.requests;
}

static void evict_some(struct sim *s, unsigned node)
{
	uint32_t at = (uint32_t)rng_below(&s->rng, s->cfg.pages);

	for (uint32_t i = 0; i < s->cfg.pages && s->foreign[node] > s->cfg.cache && may_evict(s, node); i++) {
		struct proto_event ev = { .kind = PROTO_EV_EVICT, .page = (at + i) % s->cfg.pages };

		if (cell_at(s, node, ev.page)->mapped != PROTO_NONE)
			step(s, node, &ev, NULL, NULL);
	}
}

/* Asks the core for what page i needs; the thread goes on when it is woken. */
static void thread_ask(struct sim *s, unsigned node, unsigned t, unsigned i)
{
	struct thread *th = &s->thread[node * s->cfg.threads + t];
	struct proto_event ev = { .kind = PROTO_EV_REQUEST, .page = th->page[i],
				  .right = th->right[i], .retry = th->asked[i] };

	TRACE(s, "n%u.%u asks p%u right %u retry %u\n", node, t, ev.page, ev.right, ev.retry);
	if (th->asked[i] < 255)
		th->asked[i]++;
	if (s->res->retries_max < ev.retry)
		s->res->retries_max = ev.retry;
	s->res->requests++;
	th->waits_for = i;
	th->state = WAITS;
	step(s, node, &ev, NULL, th);
	if (s->cfg.cache)
		evict_some(s, node);
}

/* The first page that is missing; needs when there is none. */
static unsigned thread_lacks(struct sim *s, unsigned node, const struct thread *th)
{
	unsigned i = 0;

	while (i < th->needs && cell_at(s, node, th->page[i])->mapped >= th->right[i])
		i++;
	return i;
}

/* Tries the instruction: asks for the first page that is missing, or performs it. */
static void thread_run(struct sim *s, unsigned node, unsigned t)
{
	struct thread *th = &s->thread[node * s->cfg.threads + t];
	unsigned lacks = thread_lacks(s, node, th);

	if (lacks < th->needs && !th->collects && th->asked[lacks] >= COLLECT_AFTER && collects_ever(s))
		collect_begin(th);
	if (th->collects) {
		if (lacks < th->pins)
			broken(s, "I10: a pinned page is lost");
		lacks = th->pins;
	}
	if (lacks < th->needs) {
		thread_ask(s, node, t, lacks);
		return;
	}
	instruction_do(s, node, th);
	if (th->collects)
		collect_end(s, node, th);
	if (--th->left == 0) {
		th->state = ENDED;
		s->running--;
		return;
	}
	instruction_draw(s, th);
	thread_soon(s, node, t, 5 * NS_PER_US);
}

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
	step(s, node, &ev, NULL, NULL);
}

static void peer_lost_later(struct sim *s, unsigned node, node_id from)
{
	occasion_put(s, (struct occasion){ .at_ns = s->now_ns + draw_ns(s, 2 * NS_PER_MS), .kind = AT_LOST,
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

/* What came is the next message of its link, or the link is over. */
static bool message_take(struct sim *s, const struct occasion *o, struct proto_msg *msg)
{
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
	if (!wire_decode(o->frame + IC_FRAME_HEADER, WIRE_MSG_BYTES,
			 o->frame[IC_FRAME_HEADER + 3] == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, msg))
		broken(s, "a message does not survive the wire");
	return true;
}

/* --- the run ------------------------------------------------------------------------------------------ */

static void occasion_happen(struct sim *s, const struct occasion *o)
{
	struct proto_event ev = { .page = o->page, .from = o->from };
	struct cell *c;

	switch (o->kind) {
	case AT_DELIVER:
		ev.kind = PROTO_EV_MESSAGE;
		if (!message_take(s, o, &ev.msg))
			return;
		TRACE(s, "n%u <- n%u %s p%u right %u acks %u\n", o->node, o->from,
		      proto_kind_name(ev.msg.kind), ev.msg.page, ev.msg.right, ev.msg.acks);
		break;
	case AT_UNMAPPED:
		ev.kind = PROTO_EV_UNMAPPED;
		c = cell_at(s, o->node, o->page);
		map_set(s, o->node, o->page, c->target);
		c->unmapping = false;
		break;
	case AT_TIMER:
		ev.kind = PROTO_EV_TIMER;
		break;
	case AT_THREAD:
		thread_run(s, o->node, o->thread);
		return;
	case AT_CRASH:
		node_crash(s, o->node);
		return;
	case AT_LOST:
		peer_lost(s, o->node, o->from);
		return;
	}
	step(s, o->node, &ev, o, NULL);
}

/* Everybody has finished and every link is empty: nothing may be left over, the directory must be exact. */
static void check_rest(struct sim *s)
{
	for (unsigned n = 0; n < s->cfg.nodes; n++) {
		const struct proto *p = &s->node[n];

		if (p->mine || p->refused)
			broken(s, "I7: a request was lost count of");
		for (uint32_t page = 0; page < s->cfg.pages; page++) {
			const struct cell *c = cell_at(s, n, page);
			uint32_t index;
			const struct proto *home = &s->node[dir_home(&s->dir, page, &index)];
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
	for (unsigned n = 0; n < c->nodes; n++) {
		struct proto_config pc = { .self = (node_id)n, .nodes = c->nodes, .dir = &s->dir };
		uint32_t index;

		proto_config_default(&pc);
		pc.requests = c->requests;
		s->mem[n] = zalloc(1, proto_bytes(&pc));
		proto_init(&s->node[n], &pc, s->mem[n]);
		for (uint32_t p = 0; p < c->pages; p++)
			cell_at(s, n, p)->value = dir_home(&s->dir, p, &index) == n ? 0 : ~0ull;
		for (unsigned t = 0; t < c->threads; t++) {
			s->thread[n * c->threads + t].left = c->ops;
			instruction_draw(s, &s->thread[n * c->threads + t]);
			thread_soon(s, n, t, 50 * NS_PER_US);
		}
	}
	s->running = c->nodes * c->threads;
	if (c->faults & SIM_CRASHES)
		occasion_put(s, (struct occasion){ .at_ns = draw_ns(s, 50 * NS_PER_MS), .kind = AT_CRASH,
						   .node = (node_id)rng_below(&s->rng, c->nodes) });
}

static void sim_close(struct sim *s)
{
	for (unsigned n = 0; n < s->cfg.nodes; n++)
		free(s->mem[n]);
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
}

/* No run of this size takes so many steps unless threads only snatch pages from each other. */
#define STEPS_MAX 3000000ull

void sim_run(const struct sim_config *cfg, struct sim_result *out)
{
	struct sim s = { .cfg = *cfg, .res = out, .rng = { cfg->seed } };

	memset(out, 0, sizeof(*out));
	sim_open(&s);
	while (s.heap_count && !out->broken) {
		struct occasion o = occasion_take(&s);

		s.now_ns = o.at_ns > s.now_ns ? o.at_ns : s.now_ns;
		if (s.dead[o.node])
			continue;
		if ((s.cfg.faults & SIM_PAUSES) && rng_below(&s.rng, 2000) == 0)
			s.pause_ns[o.node] = s.now_ns + draw_ns(&s, 5 * NS_PER_MS);
		if (s.pause_ns[o.node] > s.now_ns) {
			/* The node sleeps.  All of its occasions move to the same time and keep their order. */
			o.at_ns = s.pause_ns[o.node];
			occasion_put(&s, o);
			continue;
		}
		occasion_happen(&s, &o);
		if (out->steps > STEPS_MAX)
			broken(&s, "I8: threads do not get on");
	}
	if (!out->broken && s.running && !out->links_lost)
		broken(&s, "I8: a thread waits for ever");
	if (!out->broken && !out->links_lost)
		check_rest(&s);
	out->time_ns = s.now_ns;
	sim_close(&s);
}
