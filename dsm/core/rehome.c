/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/rehome.c - see rehome.h.
 *
 * Owns nothing; one thread at a time; no I/O.
 */
#include "dsm/core/rehome.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/err.h"
#include "dsm/core/proto.h"

#include <string.h>

/* --- who gets what ------------------------------------------------------------------------------------ */

struct ranges {
	unsigned count;
	bool over;
	struct dir_range range[DIR_RANGES_MAX];
};

static void range_add(struct ranges *rs, gfn_t first, uint64_t count, node_id node)
{
	struct dir_range *last = rs->count ? &rs->range[rs->count - 1] : NULL;

	if (last && last->node == node && last->first + last->count == first)
		last->count += count;
	else if (rs->count == REHOME_SPANS || rs->count == DIR_RANGES_MAX)
		rs->over = true;
	else
		rs->range[rs->count++] = (struct dir_range){ first, count, node };
}

static int ranges_done(const struct ranges *rs, unsigned nodes, struct dir *out)
{
	bool ok = !rs->over && dir_init(out, nodes, rs->range, rs->count);

	ASSERT(ok || rs->over); /* the pages are those of a valid table */
	return ok ? 0 : -E2BIG;
}

static node_id roomiest(const struct nodeset *takers, const uint64_t room[static NODES_MAX])
{
	node_id best = NODE_NONE;

	for (node_id n = nodeset_next(takers, 0); n != NODE_NONE; n = nodeset_next(takers, n + 1u))
		if (room[n] && (best == NODE_NONE || room[n] > room[best]))
			best = n;
	return best;
}

int rehome_plan_drain(const struct dir *now, node_id leaver, const struct nodeset *takers,
		      const uint64_t room[static NODES_MAX], struct dir *out)
{
	struct ranges rs = { 0 };
	uint64_t left[NODES_MAX];

	memcpy(left, room, sizeof(left));
	left[leaver] = 0;
	for (unsigned i = 0; i < now->spans_count; i++) {
		const struct dir_span *sp = &now->span[i];
		gfn_t at = sp->first, end = sp->first + sp->count;

		while (at < end) {
			node_id to = sp->node == leaver ? roomiest(takers, left) : sp->node;
			uint64_t count = end - at;

			if (to == NODE_NONE)
				return -ENOSPC;
			if (sp->node == leaver) {
				count = count < left[to] ? count : left[to];
				left[to] -= count;
			}
			range_add(&rs, at, count, to);
			at += count;
		}
	}
	return ranges_done(&rs, now->nodes, out);
}

/* Both tables cover the same frames, each cut in its own way. */
int rehome_plan_join(const struct dir *now, const struct dir *first, node_id comer, struct dir *out)
{
	struct ranges rs = { 0 };
	unsigned k = 0;

	ASSERT(now->pages == first->pages);
	for (unsigned i = 0; i < now->spans_count; i++) {
		gfn_t at = now->span[i].first, end = at + now->span[i].count;

		while (at < end) {
			const struct dir_span *sp = &first->span[k];
			gfn_t until = sp->first + sp->count < end ? sp->first + sp->count : end;

			if (sp->first + sp->count <= at) {
				k++;
				continue;
			}
			range_add(&rs, at, until - at, sp->node == comer ? comer : now->span[i].node);
			at = until;
		}
	}
	return ranges_done(&rs, now->nodes, out);
}

/* --- messages ----------------------------------------------------------------------------------------- */

/* Fields that a kind uses; all others are 0 on the wire. */
enum { HAS_NUMBER = 1, HAS_SET = 2, HAS_NODE = 4, HAS_PHASE = 8, HAS_ENTRY = 16, HAS_DATA = 32 };

static const uint8_t fields[REHOME_KINDS] = {
	[REHOME_ASK] = 0,
	[REHOME_ROOM] = HAS_NUMBER,
	[REHOME_LEAVE] = 0,
	[REHOME_LEFT] = HAS_NUMBER,
	[REHOME_STAY] = 0,
	[REHOME_PLAN] = HAS_NUMBER | HAS_SET | HAS_NODE | HAS_DATA,
	[REHOME_MARK] = HAS_NUMBER | HAS_SET | HAS_PHASE,
	[REHOME_ENTRY] = HAS_NUMBER | HAS_SET | HAS_NODE | HAS_ENTRY,
};

void rehome_encode(const struct rehome_msg *m, uint8_t out[static REHOME_MSG_BYTES])
{
	memset(out, 0, REHOME_MSG_BYTES);
	out[0] = REHOME_WIRE;
	out[1] = m->kind;
	out[2] = m->phase;
	out[3] = m->bytes;
	out[4] = m->written;
	out[5] = m->mig;
	out[6] = m->node;
	put_le64(out + 8, m->number);
	put_le64(out + 16, m->set.w[0]);
	put_le64(out + 24, m->set.w[1]);
}

static bool msg_valid(const struct rehome_msg *m, uint8_t has)
{
	if (has & HAS_PHASE ? m->phase < 1 || m->phase > 4 : m->phase != 0)
		return false;
	if (m->bytes > !!(has & HAS_ENTRY) || m->written > !!(has & HAS_ENTRY) ||
	    m->mig > (has & HAS_ENTRY ? PROTO_MIG_MAX : 0) || (m->bytes && !m->written))
		return false;
	if (!(has & HAS_NODE) && m->node)
		return false;
	if (!(has & HAS_NUMBER) && m->number)
		return false;
	if ((!(has & HAS_SET) || (m->kind == REHOME_MARK && m->phase != 4)) && !nodeset_empty(&m->set))
		return false;
	return m->kind != REHOME_ENTRY || m->number < DIR_PAGE_NONE;
}

bool rehome_decode(const void *body, size_t body_len, size_t data_len, struct rehome_msg *out)
{
	const uint8_t *b = body;
	struct rehome_msg m;

	if (body_len != REHOME_MSG_BYTES || b[0] != REHOME_WIRE || b[1] == 0 || b[1] >= REHOME_KINDS || b[7])
		return false;
	m = (struct rehome_msg){ .kind = b[1], .phase = b[2], .bytes = b[3], .written = b[4], .mig = b[5],
				 .node = b[6], .number = get_le64(b + 8),
				 .set = { { get_le64(b + 16), get_le64(b + 24) } } };
	if (!msg_valid(&m, fields[m.kind]))
		return false;
	if (data_len != (m.bytes || (fields[m.kind] & HAS_DATA) ? PAGE_SIZE : 0))
		return false;
	*out = m;
	return true;
}

/* 8 bytes: how many there are; then for each its first page, its home and three zeros.  What is left is zero. */
bool rehome_map_encode(const struct dir *d, uint8_t out[static PAGE_SIZE])
{
	if (d->spans_count > REHOME_SPANS)
		return false;
	memset(out, 0, PAGE_SIZE);
	put_le64(out, d->spans_count);
	for (unsigned i = 0; i < d->spans_count; i++) {
		put_le32(out + 8 + 8 * (size_t)i, d->span[i].page);
		out[12 + 8 * (size_t)i] = d->span[i].node;
	}
	return true;
}

/* Frames of pages [page, end) of `like`, whose span k holds `page` or is before the one that does. */
static void pages_add(struct ranges *rs, const struct dir *like, unsigned *k, uint32_t page, uint32_t end, node_id node)
{
	while (page < end) {
		const struct dir_span *sp = &like->span[*k];
		uint32_t until = sp->page + sp->count < end ? sp->page + sp->count : end;

		if (sp->page + sp->count <= page) {
			++*k;
			continue;
		}
		range_add(rs, sp->first + (page - sp->page), until - page, node);
		page = until;
	}
}

bool rehome_map_decode(const uint8_t in[static PAGE_SIZE], const struct dir *like, struct dir *out)
{
	struct ranges rs = { 0 };
	uint64_t count = get_le64(in);
	unsigned k = 0;

	if (count == 0 || count > REHOME_SPANS || get_le32(in + 8) != 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *at = in + 8 + 8 * i;
		uint32_t page = get_le32(at), end = i + 1 < count ? get_le32(at + 8) : like->pages;

		if (page >= end || end > like->pages || at[4] >= like->nodes || at[5] || at[6] || at[7])
			return false;
		pages_add(&rs, like, &k, page, end, at[4]);
	}
	for (size_t i = 8 + 8 * count; i < PAGE_SIZE; i++)
		if (in[i])
			return false;
	return !rs.over && dir_init(out, like->nodes, rs.range, rs.count);
}

/* --- the steps ---------------------------------------------------------------------------------------- */

void rehome_init(struct rehome *r, node_id self, unsigned nodes)
{
	*r = (struct rehome){ .self = self, .nodes = nodes };
}

/* A version that nobody here has heard of. */
static void version_new(struct rehome *r, uint64_t version)
{
	r->version = version;
	memset(r->reached, 0, sizeof(r->reached));
}

bool rehome_begin(struct rehome *r, uint64_t version, const struct nodeset *part, node_id leaver)
{
	if (r->phase != REHOME_IDLE || version <= r->done || version < r->version ||
	    !nodeset_has(part, r->self) || !nodeset_has(part, 0) || leaver == 0 ||
	    nodeset_next(part, r->nodes) != NODE_NONE ||
	    (leaver != NODE_NONE && (leaver >= r->nodes || !nodeset_has(part, leaver))))
		return false;
	if (version != r->version)
		version_new(r, version);
	r->phase = REHOME_FREEZING;
	r->part = *part;
	for (unsigned n = 0; n < r->nodes; n++)
		if (!nodeset_has(part, (node_id)n) || n == leaver)
			nodeset_add(&r->gone, (node_id)n);
		else
			nodeset_del(&r->gone, (node_id)n);
	return true;
}

bool rehome_mark(struct rehome *r, node_id from, uint64_t version, uint8_t phase)
{
	/* The PLAN and a MARK of somebody who had it sooner come over different links. */
	if (r->phase == REHOME_IDLE && version > r->version)
		version_new(r, version);
	if (version != r->version || phase != r->reached[from] + 1 || (phase == 4 && r->self != 0))
		return false;
	r->reached[from] = phase;
	return true;
}

static bool all_reached(const struct rehome *r, uint8_t phase)
{
	for (node_id n = nodeset_next(&r->part, 0); n != NODE_NONE; n = nodeset_next(&r->part, n + 1u))
		if (r->reached[n] < phase)
			return false;
	return true;
}

bool rehome_entry_due(const struct rehome *r, node_id from)
{
	return r->phase >= REHOME_STILL && r->phase <= REHOME_MOVED && nodeset_has(&r->part, from) &&
	       r->reached[from] == 1;
}

static enum rehome_act say(struct rehome *r, uint8_t phase)
{
	r->reached[r->self]++;
	r->phase = phase;
	return REHOME_SAY;
}

enum rehome_act rehome_next(struct rehome *r, bool ready)
{
	switch (r->phase) {
	case REHOME_FREEZING:
		return ready ? say(r, REHOME_STILL) : REHOME_WAIT;
	case REHOME_STILL:
		if (!all_reached(r, 1))
			return REHOME_WAIT;
		r->phase = REHOME_MOVING;
		return REHOME_MOVE;
	case REHOME_MOVING:
		return ready ? say(r, REHOME_MOVED) : REHOME_WAIT;
	case REHOME_MOVED:
		if (!all_reached(r, 2))
			return REHOME_WAIT;
		/* Twice: the switch, then the word that it is done. */
		if (r->done != r->version) {
			r->done = r->version;
			return REHOME_SWITCH;
		}
		return say(r, REHOME_SWITCHED);
	case REHOME_SWITCHED:
		if (!all_reached(r, 3))
			return REHOME_WAIT;
		r->phase = REHOME_IDLE;
		r->reached[r->self] = 4;
		return REHOME_THAW;
	}
	return REHOME_WAIT;
}

bool rehome_over(const struct rehome *r)
{
	return r->self == 0 && r->phase == REHOME_IDLE && r->version == r->done && all_reached(r, 4);
}
