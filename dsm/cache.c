/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/cache.c - how many frames of pages homed elsewhere this node may fill.
 *
 * What      A frame that was filled stays resident until it is punched.  When the protocol has dropped a page
 *           its frame is free but kept, since a page that moves back and forth would be punched and filled
 *           again all the time.  Only at the limit free frames are punched, and held ones are evicted, oldest
 *           first.
 * Owns      A ring with the page number of every resident frame of a page homed elsewhere; a new one when homes change.
 * Threads   dsm.lock.
 * I/O       MADV_REMOVE, which gives the memory back.
 * Limits    cfg.cache_pages, at least CACHE_MIN, so that one instruction finds room for all its pages.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CACHE_MIN 16u
#define LOOKS_MAX 32u /* ring entries per search */

int cache_open(struct dsm *d, uint64_t pages)
{
	struct cache *c = &d->cache;

	if (!pages)
		return 0;
	c->limit = (uint32_t)(pages < CACHE_MIN      ? CACHE_MIN
			      : pages < d->dir.pages ? pages
						     : d->dir.pages);
	c->room = d->dir.pages - d->dir.homed[d->self]; /* untouched memory costs nothing */
	c->ring = calloc(c->room, sizeof(*c->ring));
	return c->ring ? 0 : -ENOMEM;
}

void cache_close(struct dsm *d)
{
	free(d->cache.ring);
}

static bool homed_elsewhere(const struct dsm *d, uint32_t page)
{
	uint32_t index;

	return dir_home(d->homes, page, &index) != d->self;
}

static void ring_push(struct cache *c, uint32_t page)
{
	ASSERT(c->resident < c->room);
	c->ring[(c->first + c->resident++) % c->room] = page;
}

static uint32_t ring_pop(struct cache *c)
{
	uint32_t page = c->ring[c->first];

	c->first = (c->first + 1) % c->room;
	c->resident--;
	return page;
}

void cache_filled(struct dsm *d, gfn_t gfn, uint32_t page)
{
	uint8_t st = atomic_fetch_or_explicit(&d->state[gfn], ST_BYTES, memory_order_relaxed);

	if (st & ST_FREE)
		atomic_fetch_and_explicit(&d->state[gfn], (uint8_t)~ST_FREE, memory_order_relaxed);
	if (!(st & ST_BYTES) && d->cache.limit && homed_elsewhere(d, page))
		ring_push(&d->cache, page);
}

void cache_dropped(struct dsm *d, gfn_t gfn)
{
	atomic_fetch_or_explicit(&d->state[gfn], ST_FREE, memory_order_relaxed);
}

static void punch(struct dsm *d, gfn_t gfn)
{
	if (madvise(frame_of(d, gfn), PAGE_SIZE, MADV_REMOVE))
		memset(frame_of(d, gfn), 0, PAGE_SIZE);
	atomic_fetch_and_explicit(&d->state[gfn], (uint8_t) ~(ST_BYTES | ST_FREE),
				  memory_order_relaxed);
	count_one(&d->count.evictions);
}

void cache_rehomed(struct dsm *d)
{
	struct cache *c = &d->cache, old = *c;

	if (!c->limit)
		return;
	c->room = d->dir.pages - d->homes->homed[d->self];
	c->ring = calloc((size_t)c->room + 1, sizeof(*c->ring));
	ASSERT(c->ring);
	c->first = c->resident = 0;
	while (old.resident) {
		uint32_t page = ring_pop(&old);

		if (homed_elsewhere(d, page))
			ring_push(c, page);
	}
	free(old.ring);
}

void cache_passed_on(struct dsm *d, gfn_t gfn, uint32_t page)
{
	uint8_t st = atomic_load_explicit(&d->state[gfn], memory_order_relaxed);

	if (!homed_elsewhere(d, page) || !(st & ST_BYTES))
		return;
	if (!(st & ST_RIGHT))
		punch(d, gfn);
	else if (d->cache.limit)
		ring_push(&d->cache, page);
}

void cache_forget(struct dsm *d)
{
	for (unsigned i = 0; i < d->dir.spans_count; i++) {
		const struct dir_span *sp = &d->dir.span[i];

		if (madvise(frame_of(d, sp->first), (size_t)sp->count << PAGE_SHIFT, MADV_REMOVE))
			memset(frame_of(d, sp->first), 0, (size_t)sp->count << PAGE_SHIFT);
		for (uint32_t k = 0; k < sp->count; k++)
			atomic_fetch_and_explicit(&d->state[sp->first + k], (uint8_t) ~(ST_BYTES | ST_FREE),
						  memory_order_relaxed);
	}
	d->cache.first = d->cache.resident = 0;
}

void cache_homecoming(struct dsm *d, gfn_t gfn, const void *bytes)
{
	memcpy(frame_of(d, gfn), bytes, PAGE_SIZE);
	atomic_fetch_or_explicit(&d->state[gfn], ST_BYTES, memory_order_relaxed);
	atomic_fetch_and_explicit(&d->state[gfn], (uint8_t)~ST_FREE, memory_order_relaxed);
}

/* Every thread that waits for a page may bring a frame. */
bool cache_full(const struct dsm *d)
{
	return d->cache.limit && d->cache.resident + waiters_asking(d) > d->cache.limit;
}

uint32_t cache_victim(struct dsm *d)
{
	struct cache *c = &d->cache;

	for (unsigned i = 0; i < LOOKS_MAX && c->resident && cache_full(d); i++) {
		uint32_t page = ring_pop(c);
		gfn_t gfn = dir_gfn(&d->dir, page);
		uint8_t st = atomic_load_explicit(&d->state[gfn], memory_order_relaxed);

		if (st & ST_FREE) {
			punch(d, gfn);
			continue;
		}
		ring_push(c, page);
		if (st & ST_RIGHT)
			return page;
	}
	return DIR_PAGE_NONE;
}
