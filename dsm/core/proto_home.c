/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto_home.c - the directory: who waits for a page, who owns it, who has a copy.
 *
 * Owns struct proto's home[], copyset[] and wait[]; one thread at a time; no I/O.
 * The directory changes when a transaction starts; it is true again when the transaction is over (I4), and
 * nobody looks at it in between, because transactions of a page never overlap (I5).
 */
#include "dsm/core/proto_int.h"

/* Index of a page homed here, or false. */
static bool home_index(const struct step *s, uint32_t page, uint32_t *index)
{
	return dir_home(s->p->cfg.dir, page, index) == s->p->cfg.self;
}

/* --- the queue of a page: circular, h->tail is the last, its next the active one ---------------------- */

static struct proto_wait *queue_active(const struct proto *p, const struct proto_home *h)
{
	return h->tail ? &p->wait[p->wait[h->tail].next] : NULL;
}

static bool queue_has(const struct proto *p, const struct proto_home *h, node_id node, bool evict)
{
	uint16_t i = h->tail;

	if (i == 0)
		return false;
	do {
		const struct proto_wait *w = &p->wait[i];

		if (w->node == node && (w->kind == PROTO_EVICT) == evict)
			return true;
		i = w->next;
	} while (i != h->tail);
	return false;
}

static void queue_push(struct proto *p, struct proto_home *h, node_id node, const struct proto_msg *m)
{
	uint16_t i = p->wait_free;
	struct proto_wait *w = &p->wait[i];

	ASSERT(i != 0); /* I7 */
	p->wait_free = w->next;
	p->used[node]++;
	*w = (struct proto_wait){ .node = node, .kind = m->kind & 0xf, .copy = m->copy & 1 };
	if (h->tail) {
		w->next = p->wait[h->tail].next;
		p->wait[h->tail].next = i;
	} else {
		w->next = i;
	}
	h->tail = i;
}

/* Takes out the successor of `before`. */
static void queue_remove(struct proto *p, struct proto_home *h, uint16_t before)
{
	uint16_t i = p->wait[before].next;
	struct proto_wait *w = &p->wait[i];

	ASSERT(p->used[w->node] > 0);
	p->used[w->node]--;
	if (i == before) {
		h->tail = 0;
	} else {
		p->wait[before].next = w->next;
		if (h->tail == i)
			h->tail = before;
	}
	w->next = p->wait_free;
	p->wait_free = i;
}

/* An EVICT of a node that is no longer the owner has nothing left to ask for; the node knows, too. */
static void queue_forget_evict(struct proto *p, struct proto_home *h, node_id node)
{
	uint16_t before = h->tail;

	do {
		const struct proto_wait *w = &p->wait[p->wait[before].next];

		if (w->kind == PROTO_EVICT && w->node == node) {
			queue_remove(p, h, before);
			return;
		}
		before = p->wait[before].next;
	} while (before != h->tail);
}

/* --- transactions ------------------------------------------------------------------------------------- */

/*
 * A page that one node after the other reads and then writes is migratory: granting it for writing at once
 * saves the upgrade (Cox and Fowler; Stenstroem, Brorsson and Sandberg, both 1993).  What shows it: an
 * upgrade by the only sharer, who is not the last writer (the owner).  A reader beside others shows the
 * contrary.
 */
static void migratory_upgrade(const struct proto *p, struct proto_home *h, bool migrates)
{
	if (!migrates)
		h->mig = 0;
	else if (h->mig < p->cfg.mig_evidence)
		h->mig++;
}

/* Whether a read is to be granted for writing.  Now and then it is not, to see if the page still migrates. */
static bool migratory_read(const struct proto *p, struct proto_home *h)
{
	if (p->cfg.mig_evidence == 0 || h->mig < p->cfg.mig_evidence)
		return false;
	if (h->mig < p->cfg.mig_evidence + p->cfg.mig_probe) {
		h->mig++;
		return true;
	}
	h->mig = (p->cfg.mig_evidence - 1u) & PROTO_MIG_MAX;
	return false;
}

static void owner_ask(struct step *s, uint32_t page, uint8_t kind, node_id owner, node_id requester,
		      uint8_t acks, bool written)
{
	struct proto_msg m = { .kind = kind, .node = requester, .acks = acks, .page = page };

	if (owner == s->p->cfg.self)
		m.bytes = written ? PROTO_BYTES_PAGE : PROTO_BYTES_ZERO;
	msg_send(s, owner, &m);
}

/* The requester's own frame has the bytes. */
static void grant_keep(struct step *s, uint32_t page, node_id to, uint8_t right, uint8_t acks)
{
	struct proto_msg m = { .kind = PROTO_GRANT, .right = right, .bytes = PROTO_BYTES_KEEP,
			       .acks = acks, .page = page };

	msg_send(s, to, &m);
	if (acks == 0)
		home_end(s, page);
}

static void owner_set(struct step *s, struct proto_home *h, struct nodeset *cs, node_id node)
{
	node_id old = h->written ? h->owner : s->p->cfg.self;

	h->written = 1;
	h->owner = node;
	nodeset_del(cs, node); /* I4: the owner is not in its own copyset */
	if (old != node && h->tail)
		queue_forget_evict(s->p, h, old);
}

static void write_start(struct step *s, uint32_t page, uint32_t index, const struct proto_wait *w)
{
	struct proto_home *h = &s->p->home[index];
	struct nodeset *cs = &s->p->copyset[index];
	node_id owner = proto_owner(s->p, index), x = w->node;
	bool written = h->written;
	bool keep = x == owner || (w->copy && nodeset_has(cs, x));
	struct nodeset inv = *cs;
	uint8_t acks;

	nodeset_del(&inv, x);
	if (w->kind == PROTO_REQ_WRITE && keep && !nodeset_empty(cs))
		migratory_upgrade(s->p, h, x != owner && nodeset_empty(&inv));
	if (keep && x != owner)
		nodeset_add(&inv, owner);
	acks = (uint8_t)nodeset_count(&inv);
	*cs = (struct nodeset){ 0 };
	owner_set(s, h, cs, x);
	for (node_id n = nodeset_next(&inv, 0); n != NODE_NONE; n = nodeset_next(&inv, n + 1u))
		msg_send(s, n, &(struct proto_msg){ .kind = PROTO_INV, .node = x, .page = page });
	if (keep)
		grant_keep(s, page, x, PROTO_WRITE, acks);
	else
		owner_ask(s, page, PROTO_FWD_WRITE, owner, x, acks, written);
}

static void read_start(struct step *s, uint32_t page, uint32_t index, const struct proto_wait *w)
{
	struct proto_home *h = &s->p->home[index];
	struct nodeset *cs = &s->p->copyset[index];
	node_id owner = proto_owner(s->p, index), x = w->node;
	struct nodeset others = *cs;

	nodeset_del(&others, x);
	if (x == owner) {
		/* The home itself, of whom nobody took the page away.  A page that is its alone it may write,
		 * too; but a never-written one stays so. */
		bool alone = h->written && nodeset_empty(cs);

		grant_keep(s, page, x, alone ? PROTO_WRITE : PROTO_READ, 0);
		return;
	}
	if (!nodeset_empty(&others)) {
		h->mig = 0;
	} else if (h->written && migratory_read(s->p, h)) {
		write_start(s, page, index, w);
		return;
	}
	nodeset_add(cs, x);
	owner_ask(s, page, PROTO_FWD_READ, owner, x, 0, h->written);
}

static void transaction_start(struct step *s, uint32_t page, uint32_t index)
{
	struct proto_home *h = &s->p->home[index];
	struct proto_wait w = *queue_active(s->p, h);

	switch (w.kind) {
	case PROTO_REQ_READ:
		read_start(s, page, index, &w);
		break;
	case PROTO_REQ_WRITE:
		write_start(s, page, index, &w);
		break;
	case PROTO_EVICT:
		ASSERT(proto_owner(s->p, index) == w.node); /* or it was forgotten */
		h->owner = s->p->cfg.self;
		nodeset_del(&s->p->copyset[index], s->p->cfg.self);
		msg_send(s, w.node, &(struct proto_msg){ .kind = PROTO_RECALL, .page = page });
		break;
	}
}

void home_end(struct step *s, uint32_t page)
{
	uint32_t index;
	struct proto_home *h;

	ASSERT(home_index(s, page, &index));
	h = &s->p->home[index];
	ASSERT(h->tail); /* I5 */
	queue_remove(s->p, h, h->tail);
	if (h->tail)
		transaction_start(s, page, index);
}

bool home_request(struct step *s, node_id from, const struct proto_msg *m)
{
	struct proto *p = s->p;
	struct proto_home *h;
	uint32_t index;
	bool evict = m->kind == PROTO_EVICT, idle, owns;

	if (!home_index(s, m->page, &index))
		return false;
	h = &p->home[index];
	owns = proto_owner(p, index) == from;
	if (p->used[from] >= p->cfg.requests || queue_has(p, h, from, evict)) /* I6, I7 */
		return false;
	if (from != p->cfg.self) {
		/* An EVICT that crossed the message by which its sender lost the page: both know. */
		if (evict && !owns)
			return true;
		/* Whoever owns without being the home can read. */
		if (!evict && owns && !m->copy)
			return false;
	} else if (evict) {
		return false;
	}
	idle = h->tail == 0;
	queue_push(p, h, from, m);
	if (idle)
		transaction_start(s, m->page, index);
	return true;
}

/* The active transaction of `from`, if it can be over now: nothing of it is still in flight at the home. */
static bool transaction_closes(const struct step *s, node_id from, uint32_t page, bool evict)
{
	const struct proto *p = s->p;
	const struct proto_flight *fl = proto_flight_of(p, page);
	const struct proto_wait *w;
	uint32_t index;

	if (!home_index(s, page, &index))
		return false;
	w = queue_active(p, &p->home[index]);
	return w && w->node == from && (w->kind == PROTO_EVICT) == evict &&
	       !(fl && fl->revoke);
}

bool home_done(struct step *s, node_id from, const struct proto_msg *m)
{
	if (!transaction_closes(s, from, m->page, false))
		return false;
	home_end(s, m->page);
	return true;
}

bool home_return(struct step *s, node_id from, const struct proto_msg *m)
{
	if (!transaction_closes(s, from, m->page, true) || m->bytes != PROTO_BYTES_PAGE)
		return false;
	/* A readable copy at the home is the same bytes already. */
	if (s->p->page[m->page].right == PROTO_NONE)
		fx_put(s, PROTO_FX_FILL, m->page);
	home_end(s, m->page);
	return true;
}
