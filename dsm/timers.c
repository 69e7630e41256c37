/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/timers.c - a binary heap of times at which the core wants to look at a page.
 *
 * Threads   dsm.lock.
 * Limits    One entry for each record of a revocation that the core can have (I7), allocated at open.  A new TIMER for a
 *           record takes the place of the old one: the core has computed it from the hold as it is now.  An entry that
 *           outlives its revocation is a stray TIMER, which the core ignores.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"

#include <stdlib.h>

int timers_open(struct timers *t, unsigned room)
{
	t->heap = calloc(room, sizeof(*t->heap));
	t->where = calloc(room, sizeof(*t->where));
	t->room = room;
	return t->heap && t->where ? 0 : -ENOMEM;
}

void timers_close(struct timers *t)
{
	free(t->heap);
	free(t->where);
}

static void put(struct timers *t, unsigned i, struct timer timer)
{
	t->heap[i] = timer;
	t->where[timer.slot] = i + 1;
}

static void rise(struct timers *t, unsigned i)
{
	struct timer timer = t->heap[i];

	for (; i && timer.at_ns < t->heap[(i - 1) / 2].at_ns; i = (i - 1) / 2)
		put(t, i, t->heap[(i - 1) / 2]);
	put(t, i, timer);
}

static void sink(struct timers *t, unsigned i)
{
	struct timer timer = t->heap[i];
	unsigned child;

	while ((child = 2 * i + 1) < t->count) {
		if (child + 1 < t->count && t->heap[child + 1].at_ns < t->heap[child].at_ns)
			child++;
		if (t->heap[child].at_ns >= timer.at_ns)
			break;
		put(t, i, t->heap[child]);
		i = child;
	}
	put(t, i, timer);
}

void timers_set(struct timers *t, struct timer timer)
{
	unsigned i;

	ASSERT(timer.slot < t->room);
	i = t->where[timer.slot];
	if (i == 0)
		i = ++t->count;
	put(t, i - 1, timer);
	rise(t, i - 1);
	sink(t, t->where[timer.slot] - 1);
}

struct timer timers_pop(struct timers *t)
{
	struct timer top = t->heap[0];

	t->where[top.slot] = 0;
	if (--t->count) {
		put(t, 0, t->heap[t->count]);
		sink(t, 0);
	}
	return top;
}
