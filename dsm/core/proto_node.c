/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto_node.c - a node as the holder of rights: local wishes, grants, revocations, eviction.
 *
 * Owns struct proto's page[] and flight[]; one thread at a time; no I/O.
 * A page at rest has no flight record: its 20 spare bits then say when the hold ends.
 */
#include "dsm/core/proto_int.h"

/* Hold times: 20 bits in units of 4096 ns wrap after 4.3 s; a stamp further ahead than any hold can be is an
 * old one.  A stale stamp that the wrap makes look young costs at most one hold. */
#define STAMP_SHIFT 12
#define STAMP_MASK 0xfffffu
#define STAMP_PINNED STAMP_MASK /* PROTO_EV_HOLD without end; no time has this stamp */
#define LEFT_PINNED UINT32_MAX

static uint32_t stamp_of(uint64_t ns)
{
	uint32_t stamp = (uint32_t)(ns >> STAMP_SHIFT) & STAMP_MASK;

	return stamp == STAMP_PINNED ? 0 : stamp;
}

static uint32_t stamp_at_rest(const struct proto_page *pg)
{
	return (uint32_t)pg->high << 16 | get_le16(pg->low);
}

static void stamp_rest(struct proto_page *pg, uint32_t stamp)
{
	pg->high = stamp >> 16 & 0xf;
	put_le16(pg->low, (uint16_t)stamp);
}

static node_id home_of(const struct step *s, uint32_t page)
{
	uint32_t index;

	return dir_home(s->p->cfg.dir, page, &index);
}

/* NULL when the pool is empty, which takes a peer that breaks the rules (I7). */
static struct proto_flight *flight_make(struct step *s, struct proto_page *pg)
{
	struct proto *p = s->p;
	uint16_t i = p->flight_free;

	if (pg->busy)
		return &p->flight[get_le16(pg->low)];
	if (i == 0)
		return NULL;
	p->flight_free = p->flight[i].next_free;
	p->flight[i] = (struct proto_flight){ .hold = stamp_at_rest(pg) };
	pg->busy = 1;
	put_le16(pg->low, i);
	return &p->flight[i];
}

/* Back to rest when nothing is in flight any more. */
static void flight_settle(struct step *s, struct proto_page *pg)
{
	struct proto *p = s->p;
	uint16_t i = get_le16(pg->low);
	struct proto_flight *fl = &p->flight[i];

	if (fl->want || fl->next || fl->evict || fl->revoke)
		return;
	pg->busy = 0;
	stamp_rest(pg, fl->hold);
	fl->next_free = p->flight_free;
	p->flight_free = i;
}

/* Another request or EVICT of this node in flight; false with a BUSY when there are enough. */
static bool mine_take(struct step *s, uint32_t page)
{
	if (s->p->mine == s->p->cfg.requests) {
		s->p->starved = true;
		fx_put(s, PROTO_FX_BUSY, page);
		return false;
	}
	s->p->mine++;
	return true;
}

static void mine_put(struct step *s, uint32_t page)
{
	ASSERT(s->p->mine > 0); /* I7 */
	s->p->mine--;
	if (s->p->starved)
		fx_put(s, PROTO_FX_ROOM, page);
	s->p->starved = false;
}

/*
 * Nodes that snatch pages from each other must not stay in step, or an instruction that needs several of them
 * never gets all.  The hold is doubled k times, k drawn with odds of 1/2 each, up to the retries so far:
 * most holds stay short, so queues move, and now and then one lasts long enough to collect the rest.
 * The draw is a hash of time, node and page (splitmix64's finaliser).
 */
static uint64_t hold_length(const struct step *s, uint32_t page, uint8_t retry)
{
	const struct proto_config *c = &s->p->cfg;
	uint64_t z = s->now_ns ^ (uint64_t)c->self << 56 ^ (uint64_t)page << 24;
	unsigned k;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	k = (unsigned)__builtin_ctzll((z ^ (z >> 31)) | 1ull << (retry < 20 ? retry : 20));
	return c->hold_ns << k < c->hold_max_ns ? c->hold_ns << k : c->hold_max_ns;
}

static uint32_t stamp_get(const struct step *s, const struct proto_page *pg)
{
	return pg->busy ? s->p->flight[get_le16(pg->low)].hold : stamp_at_rest(pg);
}

static void stamp_put(struct step *s, struct proto_page *pg, uint32_t stamp)
{
	if (pg->busy)
		s->p->flight[get_le16(pg->low)].hold = stamp;
	else
		stamp_rest(pg, stamp);
}

static void hold_set(struct step *s, uint32_t page, uint8_t retry)
{
	struct proto_page *pg = &s->p->page[page];
	uint64_t hold = hold_length(s, page, retry);
	uint64_t end = s->now_ns + (hold ? hold + (1u << STAMP_SHIFT) - 1 : 0);

	if (stamp_get(s, pg) != STAMP_PINNED)
		stamp_put(s, pg, stamp_of(end));
}

/* Stamp units that the hold still lasts, 0 when it is over, LEFT_PINNED when it has no end. */
static uint32_t hold_left(const struct step *s, const struct proto_page *pg)
{
	uint32_t stamp = stamp_get(s, pg);
	uint32_t left = (stamp - stamp_of(s->now_ns)) & STAMP_MASK;

	if (stamp == STAMP_PINNED)
		return LEFT_PINNED;
	/* Rounding up adds a unit, and where `now` stands within its own another. */
	return left <= (s->p->cfg.hold_max_ns >> STAMP_SHIFT) + 2 ? left : 0;
}

/* --- asking ------------------------------------------------------------------------------------------- */

static void request_send(struct step *s, uint32_t page, struct proto_flight *fl, uint8_t right)
{
	struct proto_msg m = { .page = page };

	fl->want = right;
	m.kind = right == PROTO_WRITE ? PROTO_REQ_WRITE : PROTO_REQ_READ;
	m.copy = right == PROTO_WRITE && s->p->page[page].right != PROTO_NONE;
	msg_send(s, home_of(s, page), &m);
}

/* A wish that the right held does not cover. */
static void request_queue(struct step *s, uint32_t page, uint8_t right, uint8_t retry)
{
	struct proto_page *pg = &s->p->page[page];
	struct proto_flight *fl = proto_flight_of(s->p, page);
	bool asking = fl && (fl->want || fl->next);

	if (!asking) {
		if (!mine_take(s, page))
			return;
		fl = flight_make(s, pg);
		ASSERT(fl); /* I7: own requests are within their share of the pool */
	}
	if (fl->retry < retry)
		fl->retry = retry;
	if (fl->want >= right || fl->next >= right)
		return;
	/* One at a time (I6); and while unmapping, so that the grant cannot meet the UNMAP. */
	if (fl->want || fl->revoke == PROTO_REVOKE_UNMAPPING)
		fl->next = right;
	else
		request_send(s, page, fl, right);
}

void node_request(struct step *s, uint32_t page, uint8_t right, uint8_t retry)
{
	struct proto_page *pg = &s->p->page[page];
	struct proto_flight *fl = proto_flight_of(s->p, page);

	if (pg->right < right) {
		request_queue(s, page, right, retry);
		return;
	}
	/* Held longer for a thread that lost it before, but not once somebody waits for it. */
	if (retry > 0 && !(fl && fl->revoke))
		hold_set(s, page, retry);
	fx_put(s, PROTO_FX_WAKE, page)->right = pg->right;
}

/* --- being granted ------------------------------------------------------------------------------------ */

/* All of a GRANT is there: the right is ours. */
static void grant_complete(struct step *s, uint32_t page, struct proto_flight *fl)
{
	struct proto_page *pg = &s->p->page[page];
	node_id home = home_of(s, page);
	uint8_t right = fl->granted;

	ASSERT(fl->revoke == PROTO_REVOKE_NO); /* I5, I6 */
	pg->right = right & 3;
	pg->owner = right == PROTO_WRITE;
	fx_put(s, PROTO_FX_MAP, page)->right = right;
	fx_put(s, PROTO_FX_WAKE, page)->right = right;
	hold_set(s, page, fl->retry);
	if (fl->grant_from != home || fl->acks_need > 0)
		msg_send(s, home, &(struct proto_msg){ .kind = PROTO_DONE, .page = page });
	fl->want = fl->granted = 0; /* acks_got is 0 when a stronger wish follows: that was a read */
	fl->retry = 0;
	if (fl->next > right) {
		request_send(s, page, fl, fl->next);
		fl->next = PROTO_NONE;
		return;
	}
	fl->next = PROTO_NONE;
	mine_put(s, page);
	flight_settle(s, pg);
}

static bool grant_legal(const struct step *s, node_id from, const struct proto_msg *m)
{
	const struct proto_page *pg = &s->p->page[m->page];
	const struct proto_flight *fl = proto_flight_of(s->p, m->page);
	node_id home = home_of(s, m->page);

	if (!fl || !fl->want || fl->granted || fl->revoke || m->right < fl->want ||
	    m->right > PROTO_WRITE || m->acks < fl->acks_got || m->acks >= s->p->cfg.nodes ||
	    (m->acks > 0 && fl->want != PROTO_WRITE))
		return false;
	switch (m->bytes) {
	case PROTO_BYTES_PAGE:
		return pg->right == PROTO_NONE && from != s->p->cfg.self;
	case PROTO_BYTES_ZERO:
		return pg->right == PROTO_NONE && from == home && from != s->p->cfg.self;
	case PROTO_BYTES_KEEP:
		/* The frame of a page that its home owns is valid there without any right. */
		return from == home && (pg->right != PROTO_NONE || from == s->p->cfg.self);
	}
	return false;
}

bool node_grant(struct step *s, node_id from, const struct proto_msg *m)
{
	struct proto_flight *fl;

	if (!grant_legal(s, from, m))
		return false;
	fl = proto_flight_of(s->p, m->page);
	fl->granted = m->right;
	fl->acks_need = m->acks;
	fl->grant_from = from;
	if (m->bytes == PROTO_BYTES_PAGE)
		fx_put(s, PROTO_FX_FILL, m->page);
	else if (m->bytes == PROTO_BYTES_ZERO)
		fx_put(s, PROTO_FX_ZERO, m->page);
	if (fl->acks_got == fl->acks_need)
		grant_complete(s, m->page, fl);
	return true;
}

bool node_ack(struct step *s, node_id from, const struct proto_msg *m)
{
	struct proto_flight *fl = proto_flight_of(s->p, m->page);
	unsigned most;

	(void)from;
	if (!fl || fl->want != PROTO_WRITE)
		return false;
	most = fl->granted ? fl->acks_need : s->p->cfg.nodes - 1;
	if (fl->acks_got >= most)
		return false;
	fl->acks_got++;
	if (fl->granted && fl->acks_got == fl->acks_need)
		grant_complete(s, m->page, fl);
	return true;
}

/* --- giving up ---------------------------------------------------------------------------------------- */

/* The right is unmapped here: tell whoever waits for that (I3). */
static void revoke_answer(struct step *s, uint32_t page, const struct proto_flight *why)
{
	node_id self = s->p->cfg.self, home = home_of(s, page);
	struct proto_msg m = { .page = page };
	node_id to = why->to;

	switch (why->cause) {
	case PROTO_FWD_READ:
	case PROTO_FWD_WRITE:
		m.kind = PROTO_GRANT;
		m.right = why->cause == PROTO_FWD_READ ? PROTO_READ : PROTO_WRITE;
		m.bytes = why->bytes;
		m.acks = why->acks;
		break;
	case PROTO_RECALL:
		m.kind = PROTO_RETURN;
		m.bytes = PROTO_BYTES_PAGE;
		to = home;
		break;
	case PROTO_INV:
		m.kind = PROTO_ACK;
		break;
	}
	if (why->cause)
		msg_send(s, to, &m);
	if (why->cause != PROTO_FWD_READ && home != self)
		fx_put(s, PROTO_FX_DROP, page);
	/* No DONE will come for what the home grants alone. */
	if (m.kind == PROTO_GRANT && home == self && m.acks == 0)
		home_end(s, page);
}

/* EVICT is over once the page left, by RECALL or by another way that made the home forget it. */
static void evict_over(struct step *s, uint32_t page, struct proto_flight *fl)
{
	if (fl->evict == PROTO_EVICT_NO)
		return;
	fl->evict = PROTO_EVICT_NO;
	s->p->evicting--;
	mine_put(s, page);
}

static void revoke_unmap(struct step *s, uint32_t page, struct proto_flight *fl)
{
	uint8_t right = fl->cause == PROTO_FWD_READ ? PROTO_READ : PROTO_NONE;

	fl->revoke = PROTO_REVOKE_UNMAPPING;
	s->p->page[page].right = right & 3;
	fx_put(s, PROTO_FX_UNMAP, page)->right = right;
}

void node_unmapped(struct step *s, uint32_t page)
{
	struct proto_page *pg = &s->p->page[page];
	struct proto_flight *fl = proto_flight_of(s->p, page);
	struct proto_flight why;

	ASSERT(fl && fl->revoke == PROTO_REVOKE_UNMAPPING); /* I6; the shell's duty */
	why = *fl;
	fl->revoke = PROTO_REVOKE_NO;
	if (why.cause != PROTO_FWD_READ)
		evict_over(s, page, fl);
	revoke_answer(s, page, &why);
	if (fl->next && !fl->want) {
		uint8_t right = fl->next;

		fl->next = PROTO_NONE;
		request_send(s, page, fl, right);
	}
	flight_settle(s, pg);
}

/* A revocation that may have to wait for the end of the hold; of a pinned page for PROTO_EV_HOLD. */
static void revoke_when_over(struct step *s, uint32_t page, struct proto_flight *fl)
{
	uint32_t left = hold_left(s, &s->p->page[page]);

	fl->revoke = PROTO_REVOKE_HELD;
	if (left == 0)
		revoke_unmap(s, page, fl);
	else if (left != LEFT_PINNED)
		fx_put(s, PROTO_FX_TIMER, page)->at_ns = s->now_ns + ((uint64_t)left << STAMP_SHIFT);
}

void node_timer(struct step *s, uint32_t page)
{
	struct proto_flight *fl = proto_flight_of(s->p, page);

	if (fl && fl->revoke == PROTO_REVOKE_HELD)
		revoke_when_over(s, page, fl);
}

void node_hold(struct step *s, uint32_t page, uint64_t until_ns)
{
	struct proto_page *pg = &s->p->page[page];
	uint64_t most = s->now_ns + s->p->cfg.hold_max_ns;

	if (pg->right == PROTO_NONE)
		return;
	if (until_ns == PROTO_HOLD_PINNED) {
		stamp_put(s, pg, STAMP_PINNED);
		return;
	}
	stamp_put(s, pg, stamp_of(until_ns < most ? until_ns : most));
	node_timer(s, page);
}

/* Lower the page for `m` now, or when its hold is over.  False when no record is free (I7). */
static bool revoke_begin(struct step *s, const struct proto_msg *m, uint8_t bytes)
{
	struct proto_page *pg = &s->p->page[m->page];
	struct proto_flight why = { .cause = m->kind, .to = m->node, .acks = m->acks, .bytes = bytes };
	struct proto_flight *fl = proto_flight_of(s->p, m->page);

	if (pg->right <= (m->kind == PROTO_FWD_READ ? PROTO_READ : PROTO_NONE)) {
		ASSERT(!fl || fl->evict == PROTO_EVICT_NO || m->kind == PROTO_FWD_READ);
		revoke_answer(s, m->page, &why);
		return true;
	}
	fl = flight_make(s, pg);
	if (!fl)
		return false;
	fl->cause = why.cause;
	fl->to = why.to;
	fl->acks = why.acks;
	fl->bytes = why.bytes;
	revoke_when_over(s, m->page, fl);
	return true;
}

/* FWD_READ, FWD_WRITE, RECALL: this node is the owner and must give the bytes. */
bool node_fwd(struct step *s, node_id from, const struct proto_msg *m)
{
	const struct proto_page *pg = &s->p->page[m->page];
	const struct proto_flight *fl = proto_flight_of(s->p, m->page);
	node_id self = s->p->cfg.self;

	if (from != home_of(s, m->page) || (fl && (fl->revoke || fl->granted)))
		return false;
	/* The home may own without holding any right; anybody else who owns can read. */
	if (from != self && (!pg->owner || pg->right == PROTO_NONE))
		return false;
	if (m->kind != PROTO_RECALL && m->node == self)
		return false;
	/* Only a home that asks itself says what the bytes are. */
	return revoke_begin(s, m, from == self ? m->bytes : PROTO_BYTES_PAGE);
}

bool node_inv(struct step *s, node_id from, const struct proto_msg *m)
{
	struct proto_page *pg = &s->p->page[m->page];
	struct proto_flight *fl = proto_flight_of(s->p, m->page);

	if (from != home_of(s, m->page) || m->node == s->p->cfg.self || (fl && fl->granted) ||
	    pg->right == PROTO_WRITE)
		return false;
	if (fl && fl->revoke) {
		/* On its way out already: answer when it is unmapped. */
		if (fl->evict != PROTO_EVICT_DROPPING || fl->cause != 0)
			return false;
		fl->cause = PROTO_INV;
		fl->to = m->node;
		return true;
	}
	return revoke_begin(s, m, PROTO_BYTES_NONE);
}

/* --- eviction ----------------------------------------------------------------------------------------- */

void node_evict(struct step *s, uint32_t page)
{
	struct proto_page *pg = &s->p->page[page];
	node_id home = home_of(s, page);
	struct proto_flight *fl;

	if (home == s->p->cfg.self || pg->right == PROTO_NONE || pg->busy || hold_left(s, pg) ||
	    !mine_take(s, page))
		return;
	s->p->evicting++;
	fl = flight_make(s, pg);
	ASSERT(fl); /* I7 */
	if (pg->owner) {
		fl->evict = PROTO_EVICT_ASKED;
		msg_send(s, home, &(struct proto_msg){ .kind = PROTO_EVICT, .page = page });
	} else {
		fl->evict = PROTO_EVICT_DROPPING;
		fl->cause = 0;
		revoke_unmap(s, page, fl);
	}
}
