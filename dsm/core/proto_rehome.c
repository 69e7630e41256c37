/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto_rehome.c - the directory gets another home: its entries leave, come, and are looked up anew.
 *
 * Owns struct proto's home[] and copyset[], and what will take their place; one thread at a time; no I/O.
 * All of this happens while nothing is in flight anywhere (I11), so no queue, no flight record and no hold is looked at.
 */
#include "dsm/core/proto_int.h"

#include <string.h>

static size_t align16(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

bool proto_quiet(const struct proto *p)
{
	return p->mine == 0;
}

size_t proto_homes_bytes(const struct dir *dir, node_id self)
{
	return align16(sizeof(struct proto_home) * dir->homed[self]) + align16(sizeof(struct nodeset) * dir->homed[self]);
}

void proto_homes_init(struct proto_homes *h, const struct dir *dir, node_id self, void *mem)
{
	h->dir = dir;
	h->home = mem;
	h->copyset = (void *)((uint8_t *)mem + align16(sizeof(struct proto_home) * dir->homed[self]));
}

void proto_right_end(struct proto *p, uint32_t page)
{
	ASSERT(!p->page[page].busy); /* I11 */
	p->page[page].right = PROTO_NONE;
	p->page[page].owner = 0;
}

bool proto_entry_take(struct proto *p, uint32_t page, node_id to, struct proto_entry *out)
{
	struct proto_page *pg = &p->page[page];
	node_id self = p->cfg.self, owner;
	const struct proto_home *h;
	uint32_t index;

	ASSERT(dir_home(p->cfg.dir, page, &index) == self && to != self);
	h = &p->home[index];
	ASSERT(!h->tail && !pg->busy); /* I11 */
	owner = proto_owner(p, index);
	*out = (struct proto_entry){ .owner = owner, .written = h->written, .mig = h->mig,
				     .copyset = p->copyset[index] };
	/* Whoever is home may own without a right; others not, so the page goes along, unless it is written here. */
	if (owner == self && pg->right != PROTO_WRITE) {
		out->owner = to;
		out->bytes = h->written;
		nodeset_del(&out->copyset, to); /* I4 */
		if (pg->right == PROTO_READ)
			nodeset_add(&out->copyset, self);
	}
	pg->owner = pg->right != PROTO_NONE && out->owner == self;
	return out->written || out->mig || !nodeset_empty(&out->copyset);
}

bool proto_entry_put(struct proto *p, struct proto_homes *next, uint32_t page, const struct proto_entry *e)
{
	const struct proto_page *pg = &p->page[page];
	node_id self = p->cfg.self, owner = e->written ? e->owner : self;
	uint32_t index;

	if (dir_home(next->dir, page, &index) != self || e->owner >= p->cfg.nodes ||
	    e->mig > p->cfg.mig_evidence + p->cfg.mig_probe || nodeset_next(&e->copyset, p->cfg.nodes) != NODE_NONE ||
	    nodeset_has(&e->copyset, owner))
		return false;
	/* The newest bytes are here, or come with it. */
	if (e->bytes ? owner != self : e->written && owner == self && pg->right == PROTO_NONE)
		return false;
	next->home[index] = (struct proto_home){ .owner = e->owner, .written = e->written & 1, .mig = e->mig & PROTO_MIG_MAX };
	next->copyset[index] = e->copyset;
	return true;
}

/* Entries that stay where they are. */
static void entries_keep(struct proto *p, struct proto_homes *next)
{
	for (unsigned i = 0; i < next->dir->spans_count; i++) {
		const struct dir_span *sp = &next->dir->span[i];

		for (uint32_t k = 0; sp->node == p->cfg.self && k < sp->count; k++) {
			uint32_t old;

			if (dir_home(p->cfg.dir, sp->page + k, &old) != p->cfg.self)
				continue;
			ASSERT(!p->home[old].tail); /* I11 */
			next->home[sp->home_index + k] = p->home[old];
			next->copyset[sp->home_index + k] = p->copyset[old];
		}
	}
}

bool proto_homes_switch(struct proto *p, struct proto_homes *next, const struct nodeset *gone)
{
	uint32_t count = next->dir->homed[p->cfg.self];
	bool whole = true;

	entries_keep(p, next);
	p->cfg.dir = next->dir;
	p->home = next->home;
	p->copyset = next->copyset;
	p->lost = *gone;
	nodeset_del(&p->lost, p->cfg.self);
	for (uint32_t i = 0; i < count; i++) {
		for (unsigned w = 0; w < ARRAY_LEN(gone->w); w++)
			p->copyset[i].w[w] &= ~gone->w[w];
		whole &= !nodeset_has(gone, proto_owner(p, i));
	}
	return whole;
}
