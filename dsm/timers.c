/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/timers.c - a binary heap of times at which the core wants to look at a page.
 *
 * Threads   dsm.lock.
 * Limits    Room for four times as many as revocations can be under way is made at open; only timers that outlive their
 *           revocation can need more, and then the heap grows.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"

#include <stdlib.h>

int timers_open(struct timers *t, unsigned room)
{
	t->heap = calloc(room, sizeof(*t->heap));
	t->room = room;
	return t->heap ? 0 : -ENOMEM;
}

void timers_close(struct timers *t)
{
	free(t->heap);
}

static void swap(struct timers *t, unsigned a, unsigned b)
{
	struct timer kept = t->heap[a];

	t->heap[a] = t->heap[b];
	t->heap[b] = kept;
}

void timers_push(struct timers *t, struct timer timer)
{
	unsigned i = t->count++;

	if (i == t->room) {
		t->room *= 2;
		t->heap = realloc(t->heap, t->room * sizeof(*t->heap));
		ASSERT(t->heap);
	}
	t->heap[i] = timer;
	for (; i && t->heap[i].at_ns < t->heap[(i - 1) / 2].at_ns; i = (i - 1) / 2)
		swap(t, i, (i - 1) / 2);
}

struct timer timers_pop(struct timers *t)
{
	struct timer top = t->heap[0];
	unsigned i = 0;

	t->heap[0] = t->heap[--t->count];
	for (;;) {
		unsigned least = i;

		for (unsigned child = 2 * i + 1; child <= 2 * i + 2; child++)
			if (child < t->count && t->heap[child].at_ns < t->heap[least].at_ns)
				least = child;
		if (least == i)
			return top;
		swap(t, i, least);
		i = least;
	}
}
