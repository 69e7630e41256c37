/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/collect.c - an instruction that keeps losing one of its pages while it waits for the next gets them all.
 *
 * What      The thread takes again, in ascending order of page numbers, every page that it has asked for since it last got
 *           on, and each is pinned in the very step that grants it (PROTO_EV_HOLD).  With the last one there, all
 *           holds get an end, and the thread tries its instruction.  docs/protocol.md, section 6, says why
 *           that ends (I10).
 * Owns      The collections of this node: on their threads' stacks, linked under dsm.lock.
 * Threads   dsm_acquire's.
 * Limits    COLLECT_MAX pages; at most half of the cache is pinned, whoever comes then goes on as before.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/clock.h"

/* How long all of them stay once the last one is there: enough to be woken and to try the instruction.  Everybody else
 * waits meanwhile: 10 ms here doubled the time of a boot. */
#define KEEP_NS (300 * NS_PER_US)

static void add(struct collection *c, uint32_t page, enum dsm_right right)
{
	unsigned i = c->count;

	for (unsigned k = 0; k < c->count; k++)
		if (c->page[k] == page) {
			c->right[k] = c->right[k] > right ? c->right[k] : right;
			return;
		}
	if (c->count == COLLECT_MAX)
		return;
	for (c->count++; i > 0 && c->page[i - 1] > page; i--) {
		c->page[i] = c->page[i - 1];
		c->right[i] = c->right[i - 1];
	}
	c->page[i] = page;
	c->right[i] = right;
}

/* False: no more of the cache may be pinned. */
static bool begin(struct dsm *d, struct collection *c)
{
	bool room;

	dsm_lock(d);
	room = !d->cache.limit || d->pinned + c->count <= d->cache.limit / 2;
	if (room) {
		d->pinned += c->count;
		c->next = d->collections;
		d->collections = c;
		count_one(&d->count.collections);
	}
	dsm_unlock(d);
	return room;
}

/* Another thread of this node has the page pinned.  Not one that still waits for it: it may want a stronger right than this
 * node holds, and be queued behind somebody who waits for the weaker one to go. */
static bool wanted(const struct dsm *d, uint32_t page)
{
	for (const struct collection *c = d->collections; c; c = c->next)
		for (unsigned i = 0; i < c->pins; i++)
			if (c->page[i] == page)
				return true;
	return false;
}

static void end(struct dsm *d, struct collection *c, uint64_t until_ns)
{
	struct collection **at = &d->collections;

	dsm_lock(d);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	d->pinned -= c->count;
	for (unsigned i = 0; i < c->pins; i++)
		if (!wanted(d, c->page[i]))
			drive_hold(d, c->page[i], until_ns);
	dsm_unlock(d);
}

int collect(struct dsm *d, const struct recents *rs, uint64_t deadline_ns, bool *remote)
{
	struct collection c = { .count = 0 };
	int err = 0;

	for (unsigned i = 0; i < RECENT; i++)
		if (rs->slot[i].d == d && rs->slot[i].chain == rs->chain)
			add(&c, dir_page(&d->dir, rs->slot[i].gfn), rs->slot[i].right);
	/* One page needs no others: whoever spins on it is in nobody's way. */
	if (c.count < 2 || !begin(d, &c))
		return -ENOBUFS;
	for (unsigned i = 0; !err && i < c.count; i++) {
		struct waiter w = { .page = c.page[i], .right = c.right[i], .pin_for = &c };

		do
			err = waiter_ask(d, &w, 0, deadline_ns, remote);
		while (err == -EAGAIN);
	}
	end(d, &c, err ? 0 : clock_now_ns() + KEEP_NS);
	return err;
}
