/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim_thread.c - threads: instructions that need several pages at once, and how they get them.
 *
 * Owns nothing; one thread; prints the trace.
 */
#include "tests/sim/sim_int.h"

#include "base/clock.h"

#include <string.h>

static void hold(struct sim *s, unsigned node, uint32_t page, uint64_t until_ns)
{
	struct proto_event ev = { .kind = PROTO_EV_HOLD, .page = page, .until_ns = until_ns };

	sim_step(s, node, &ev, NULL, NULL);
}

void sim_pin(struct sim *s, unsigned node)
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

void sim_instruction_draw(struct sim *s, struct thread *th)
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
			sim_step(s, node, &ev, NULL, NULL);
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
	sim_step(s, node, &ev, NULL, th);
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
void sim_thread_run(struct sim *s, unsigned node, unsigned t)
{
	struct thread *th = &s->thread[node * s->cfg.threads + t];
	unsigned lacks = thread_lacks(s, node, th);

	if (lacks < th->needs && !th->collects && sim_withheld(s, node)) {
		sim_thread_soon(s, node, t, 50 * NS_PER_US);
		return;
	}
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
	sim_instruction_draw(s, th);
	sim_thread_soon(s, node, t, 5 * NS_PER_US);
}
