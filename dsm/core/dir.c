/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/dir.c - see dir.h.
 *
 * Owns nothing; const after dir_init; no I/O.
 */
#include "dsm/core/dir.h"

#include "base/assert.h"

#include <string.h>

/* Insertion by first frame: a few ranges, once per VM. */
static void span_insert(struct dir *d, const struct dir_range *r)
{
	unsigned at = d->spans_count++;

	for (; at > 0 && d->span[at - 1].first > r->first; at--)
		d->span[at] = d->span[at - 1];
	d->span[at] = (struct dir_span){
		.first = r->first, .count = (uint32_t)r->count, .node = r->node
	};
}

bool dir_init(struct dir *out, unsigned nodes, const struct dir_range *ranges, unsigned count)
{
	uint64_t pages = 0, end = 0;

	memset(out, 0, sizeof(*out));
	out->nodes = nodes;
	if (nodes == 0 || nodes > NODES_MAX || count > DIR_RANGES_MAX)
		return false;
	for (unsigned i = 0; i < count; i++) {
		const struct dir_range *r = &ranges[i];

		if (r->count == 0)
			continue;
		if (r->node >= nodes || r->count >= DIR_PAGE_NONE || r->first + r->count < r->first)
			return false;
		span_insert(out, r);
	}
	for (unsigned i = 0; i < out->spans_count; i++) {
		struct dir_span *sp = &out->span[i];

		if (sp->first < end)
			return false;
		end = sp->first + sp->count;
		sp->page = (uint32_t)pages;
		sp->home_index = out->homed[sp->node];
		pages += sp->count;
		if (pages >= DIR_PAGE_NONE)
			return false;
		out->homed[sp->node] += sp->count;
	}
	out->pages = (uint32_t)pages;
	return pages > 0;
}

uint32_t dir_page(const struct dir *d, gfn_t gfn)
{
	unsigned lo = 0, hi = d->spans_count;

	/* span[lo - 1].first <= gfn < span[hi].first */
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (d->span[mid].first <= gfn)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0 || gfn - d->span[lo - 1].first >= d->span[lo - 1].count)
		return DIR_PAGE_NONE;
	return d->span[lo - 1].page + (uint32_t)(gfn - d->span[lo - 1].first);
}

static const struct dir_span *span_of_page(const struct dir *d, uint32_t page)
{
	unsigned lo = 0, hi = d->spans_count;

	ASSERT(page < d->pages);
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (d->span[mid].page <= page)
			lo = mid + 1;
		else
			hi = mid;
	}
	return &d->span[lo - 1];
}

gfn_t dir_gfn(const struct dir *d, uint32_t page)
{
	const struct dir_span *sp = span_of_page(d, page);

	return sp->first + (page - sp->page);
}

node_id dir_home(const struct dir *d, uint32_t page, uint32_t *index)
{
	const struct dir_span *sp = span_of_page(d, page);

	*index = sp->home_index + (page - sp->page);
	return sp->node;
}
