/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/collect.c - an instruction that keeps losing one of its pages while it waits for the next gets them all.
 *
 * What      The thread takes again, in ascending order of page numbers, every page that it has asked for since it last got
 *           on, and each is pinned in the very step that grants it (PROTO_EV_HOLD).  With the last one there, all
 *           holds get an end, and the thread tries its instruction.  docs/protocol.md, section 6, says why
 *           that ends (I10).
 * Owns      The collections of this node, linked under dsm.lock: on their threads' stacks, and those of dispatch.c.
 * Threads   dsm_acquire's, and the fault reader for threads that are parked.
 * Limits    COLLECT_MAX pages (core/collect.h); at most half of the cache is pinned, whoever comes then goes on as before.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/clock.h"

/* How long all of them stay once the last one is there: enough to be woken and to try the instruction.  Everybody else
 * waits meanwhile: 10 ms here doubled the time of a boot. */
#define KEEP_NS (300 * NS_PER_US)

STATIC_ASSERT(COLLECT_MAX >= RECENT, "all that a thread remembers");

/* False: it needs no others, no more of the cache may be pinned, or nothing is to begin. */
bool collection_begin(struct dsm *d, struct collection *k, const struct recents *rs)
{
	k->c = (struct collect){ .count = 0 };
	for (unsigned i = 0; i < RECENT; i++)
		if (rs->slot[i].d == d && rs->slot[i].chain == rs->chain)
			collect_add(&k->c, dir_page(&d->dir, rs->slot[i].gfn), (uint8_t)rs->slot[i].right);
	/* One page needs no others: whoever spins on it is in nobody's way. */
	if (k->c.count < 2 || (d->cache.limit && d->pinned + k->c.count > d->cache.limit / 2) ||
	    rehome_withholds(d, NULL))
		return false;
	d->pinned += k->c.count;
	k->next = d->collections;
	d->collections = k;
	count_one(&d->count.collections);
	return true;
}

void collection_next(const struct collection *k, struct waiter *w)
{
	unsigned i = collect_next(&k->c);

	w->page = k->c.page[i];
	w->right = (enum dsm_right)k->c.right[i];
}

/* Another thread of this node has the page pinned. */
static bool pinned_by_others(const struct dsm *d, uint32_t page)
{
	for (const struct collection *k = d->collections; k; k = k->next)
		if (collect_pins(&k->c, page))
			return true;
	return false;
}

void collection_end(struct dsm *d, struct collection *k, uint64_t until_ns)
{
	struct collection **at = &d->collections;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	d->pinned -= k->c.count;
	for (unsigned i = 0; i < k->c.count; i++)
		if (collect_pins(&k->c, k->c.page[i]) && !pinned_by_others(d, k->c.page[i]))
			drive_hold(d, k->c.page[i], until_ns);
}

int collect(struct dsm *d, const struct recents *rs, uint64_t deadline_ns, bool *remote)
{
	struct collection k;
	bool begun;
	int err = 0;

	dsm_lock(d);
	begun = collection_begin(d, &k, rs);
	dsm_unlock(d);
	if (!begun)
		return -ENOBUFS;
	while (!err && collect_next(&k.c) < k.c.count) {
		struct waiter w = { .pin_for = &k };

		collection_next(&k, &w);
		do
			err = waiter_ask(d, &w, 0, deadline_ns, remote);
		while (err == -EAGAIN);
	}
	dsm_lock(d);
	collection_end(d, &k, err ? 0 : clock_now_ns() + KEEP_NS);
	dsm_unlock(d);
	return err;
}
