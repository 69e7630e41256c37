/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/interconnect/test_credit.c - a receiver never lacks a slot, and nobody waits for ever. */
#include "base/rng.h"
#include "interconnect/core/credit.h"

#include <criterion/criterion.h>

#define QUEUE 256u

/* Two peers, a queue each way of what is under way: frames (1) and messages without one (0), with their number. */
struct way {
	struct {
		bool frame;
		uint32_t consumed;
	} q[QUEUE];
	unsigned head, tail;
};

static void put(struct way *w, bool frame, uint32_t consumed)
{
	cr_assert_lt(w->head - w->tail, QUEUE);
	w->q[w->head % QUEUE].frame = frame;
	w->q[w->head++ % QUEUE].consumed = consumed;
}

static void take(struct way *in, struct way *out, struct ic_credit *c)
{
	unsigned i = in->tail++ % QUEUE;

	cr_assert(ic_credit_told(c, in->q[i].consumed));
	if (in->q[i].frame && ic_credit_got(c))
		put(out, false, c->told = c->got);
}

Test(credit, slots_are_enough_and_traffic_goes_on)
{
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct rng r = { seed };
		struct ic_credit c[2] = { { 0 } };
		struct way to[2] = { { .head = 0 } };
		unsigned long frames = 0;

		c[0].sent = c[0].freed = c[1].got = c[1].told = (uint32_t)-50; /* counters wrap */
		for (unsigned i = 0; i < 20000; i++) {
			unsigned self = (unsigned)rng_below(&r, 2), other = 1 - self;
			/* Seeds differ in who talks more, and in how long things are under way. */
			bool talk = rng_below(&r, 8) < (seed % 7) + self;

			if (talk && ic_credit_may_send(&c[self])) {
				put(&to[other], true, ic_credit_send(&c[self]));
				frames++;
			}
			if (rng_below(&r, 4) == 0)
				while (to[self].head != to[self].tail)
					take(&to[self], &to[other], &c[self]);
			cr_assert_leq(to[other].head - to[other].tail, IC_CREDIT_SLOTS);
			cr_assert_leq(to[self].head - to[self].tail, IC_CREDIT_SLOTS);
		}
		cr_assert_gt(frames, 1000u);
	}
}

Test(credit, a_number_that_cannot_be_is_refused)
{
	struct ic_credit c = { 0 };

	ic_credit_send(&c);
	cr_assert_not(ic_credit_told(&c, 2));
	cr_assert_not(ic_credit_told(&c, (uint32_t)-1));
	cr_assert(ic_credit_told(&c, 1));
	cr_assert_not(ic_credit_told(&c, 0));
	cr_assert(ic_credit_told(&c, 1));
}

Test(credit, the_window_closes_and_opens)
{
	struct ic_credit c = { 0 };

	for (unsigned i = 0; i < IC_CREDIT_WINDOW; i++) {
		cr_assert(ic_credit_may_send(&c));
		ic_credit_send(&c);
	}
	cr_assert_not(ic_credit_may_send(&c));
	cr_assert(ic_credit_told(&c, 1));
	cr_assert(ic_credit_may_send(&c));
}
