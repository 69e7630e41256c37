/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/unsent.c - messages that the fabric pushed back, in order for each peer.
 *
 * What      A ring of records and a ring of pages for each peer.  Messages without a page join the record before them, as in a
 *           batch.  A queue that gets empty begins again at its first slot, so that memory is touched only as far as
 *           queues have grown.
 * Owns      One mapping for all of them, made at open: nothing is allocated after that.
 * Threads   dsm.lock; `count` is looked at without.
 * Limits    What honest peers can make this node owe to one of them, with N nodes and R requests a node (protocol.md, I7):
 *             as requester to its home     R REQs or EVICTs, and R DONEs or RETURNs of requests before them
 *             as home                      one FWD, INV, RECALL or GRANT for each transaction that is open: N * R
 *             as owner or sharer           one GRANT or ACK for each request of that peer: R
 *           so (N + 3) R messages, 2 R of them (GRANT, RETURN) with a page; and few of rehome.c, which waits for the queue.
 *           A peer that makes it owe more has broken the rules.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "dsm/core/wire.h"

#include <string.h>
#include <sys/mman.h>

#define BATCH (IC_BODY_MAX / WIRE_MSG_BYTES)
#define OTHERS 64u /* messages of rehome.c and their pages */

struct unsent_record {
	uint16_t body_len;
	bool page, whole; /* whole: nothing may join it */
	uint8_t body[IC_BODY_MAX];
};

int unsent_open(struct unsent *u, unsigned nodes, unsigned requests)
{
	size_t each;
	void *p;

	u->nodes = nodes;
	u->pages = 2 * requests + OTHERS;
	/* Of two neighbours without a page, one is more than half full: each other is closed by a page, or of rehome.c. */
	u->records = u->pages + 4 * ((nodes + 3) * requests / BATCH + 1) + OTHERS;
	each = (size_t)u->pages * PAGE_SIZE + u->records * sizeof(struct unsent_record);
	each = (each + PAGE_SIZE - 1) & PAGE_MASK;
	u->bytes = each * nodes;
	p = mmap(NULL, u->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	u->mem = p;
	for (unsigned n = 0; n < nodes; n++) {
		u->to[n].page = u->mem + each * n;
		u->to[n].record = (void *)(u->to[n].page + (size_t)u->pages * PAGE_SIZE);
	}
	return 0;
}

void unsent_close(struct unsent *u)
{
	if (u->mem)
		munmap(u->mem, u->bytes);
}

static struct unsent_record *record_at(const struct unsent *u, const struct unsent_queue *q, unsigned i)
{
	return &q->record[(q->first + i) % u->records];
}

/* Into the last record: for as long as it is a plain batch. */
static bool joins(const struct unsent *u, struct unsent_queue *q, const void *body, uint16_t body_len)
{
	struct unsent_record *r = q->count ? record_at(u, q, q->count - 1) : NULL;

	if (!r || r->whole || r->page || r->body_len + body_len > BATCH * WIRE_MSG_BYTES)
		return false;
	memcpy(r->body + r->body_len, body, body_len);
	r->body_len = (uint16_t)(r->body_len + body_len);
	return true;
}

bool unsent_add(struct unsent *u, node_id to, const void *body, uint16_t body_len, const void *page, bool whole)
{
	struct unsent_queue *q = &u->to[to];
	struct unsent_record *r;

	ASSERT(body_len <= IC_BODY_MAX);
	if (!page && !whole && joins(u, q, body, body_len))
		return true;
	if (q->count == u->records || (page && q->page_count == u->pages))
		return false;
	r = record_at(u, q, q->count);
	r->body_len = body_len;
	r->page = page != NULL;
	r->whole = whole;
	memcpy(r->body, body, body_len);
	if (page)
		memcpy(q->page + (size_t)((q->page_first + q->page_count++) % u->pages) * PAGE_SIZE, page, PAGE_SIZE);
	q->count++;
	atomic_fetch_add(&u->count, 1);
	return true;
}

bool unsent_first(const struct unsent *u, node_id to, struct ic_msg *out)
{
	const struct unsent_queue *q = &u->to[to];
	const struct unsent_record *r = record_at(u, q, 0);

	if (!q->count)
		return false;
	out->body = r->body;
	out->body_len = r->body_len;
	out->data = r->page ? q->page + (size_t)q->page_first * PAGE_SIZE : NULL;
	out->data_len = r->page ? PAGE_SIZE : 0;
	return true;
}

void unsent_pop(struct unsent *u, node_id to)
{
	struct unsent_queue *q = &u->to[to];

	if (record_at(u, q, 0)->page) {
		q->page_first = (q->page_first + 1) % u->pages;
		q->page_count--;
	}
	q->first = (q->first + 1) % u->records;
	if (--q->count == 0)
		q->first = q->page_first = 0;
	atomic_fetch_sub(&u->count, 1);
}
