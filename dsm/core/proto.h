/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto.h - the coherence protocol: who may read or write a page, and how that right travels.
 *
 * What      One struct proto per node: the rights this node holds on every page of guest RAM, and the
 *           directory of the pages homed here.  proto_step(state, event) -> effects.  Normative text with
 *           message charts and the states x events table: docs/protocol.md.
 * Owns      Plain memory that the caller gives to proto_init; no heap, clock, thread, I/O or log.
 * Threads   One at a time: the shell holds one lock around a step and the performing of its effects.
 * Limits    NODES_MAX nodes, one request per node and page in flight, cfg.requests per node in all.
 *
 * In short
 *   A page has a home (by address), an owner, who must answer for its newest bytes, and a copyset of other
 *   nodes that may hold a readable copy.  A never-written page is owned by its home and reads as zero.
 *   Requests are served by the home one at a time per page, first come first served:
 *
 *     read     requester -REQ_READ-> home -FWD_READ-> owner -GRANT+page-> requester -DONE-> home
 *     write    requester -REQ_WRITE-> home -FWD_WRITE-> owner -GRANT+page-> requester -DONE-> home
 *                                     home -INV-> each sharer -ACK-> requester
 *     upgrade  as write, but the home itself sends GRANT (no page) and the owner is one of the sharers
 *     evict    owner -EVICT-> home -RECALL-> owner -RETURN+page-> home
 *
 *   Where home is the owner FWD is not sent.  A GRANT that comes from the home and needs no acks needs no
 *   DONE either: the order of messages from the home already says what DONE would.  A message that a node
 *   would send to itself is handled inside the same step.
 *
 * Invariants (numbered as in docs/protocol.md; assertions cite them)
 *   I1  One writer: while a node holds the right to write, no other node holds any right.
 *   I2  Readers see the last write: the bytes under any right are those of the latest write.
 *   I3  No ACK, GRANT or RETURN leaves a node before the right it gives up is unmapped there (UNMAPPED).
 *   I4  The directory covers: whoever holds a right is the owner or in the copyset, or the grant that gave
 *       it is the page's active transaction.
 *   I5  One transaction at a time per page, served in order of arrival at the home: no request is overtaken.
 *   I6  One request, one EVICT and one revocation at most per node and page are in flight.
 *   I7  Pools never run out: see struct proto_config.requests.
 *   I8  Every request is answered (liveness): from every state the grant can be reached, and no state
 *       without enabled moves has a waiter.
 *   I10 No circle of waiters: a pinned page is held for a thread that has all it needs, or that waits for a page with
 *       a higher number.  (The shell's duty: PROTO_EV_HOLD.)
 *   I9  Message budgets: a read <= 4 messages, a write <= 4 + 2 per sharer, an eviction <= 3; a grant among
 *       home's own pages that nobody else holds: 0.
 */
#ifndef DSM_CORE_PROTO_H
#define DSM_CORE_PROTO_H

#include "base/bits.h"
#include "base/bytes.h"
#include "base/types.h"
#include "dsm/core/dir.h"

/* Numerically the same as enum dsm_right. */
enum proto_right { PROTO_NONE, PROTO_READ, PROTO_WRITE };

/* --- messages --- */
enum proto_kind {
	PROTO_REQ_READ = 1, /* node -> home: I want to read */
	PROTO_REQ_WRITE,    /* node -> home: I want to write; `copy`: I hold a readable copy now */
	PROTO_EVICT,	    /* owner -> home: please take this page back */
	PROTO_FWD_READ,	    /* home -> owner: keep read, send GRANT(read) + page to `node` */
	PROTO_FWD_WRITE,    /* home -> owner: keep nothing, send GRANT(write, acks) + page to `node` */
	PROTO_RECALL,	    /* home -> owner: keep nothing, send RETURN + page */
	PROTO_INV,	    /* home -> sharer: keep nothing, send ACK to `node` */
	PROTO_GRANT,	    /* owner or home -> requester: take `right` once `acks` ACKs have come */
	PROTO_ACK,	    /* sharer -> requester: my copy is gone */
	PROTO_DONE,	    /* requester -> home: granted, serve the next */
	PROTO_RETURN,	    /* former owner -> home: the page's bytes */
	PROTO_KINDS
};

enum proto_bytes {
	PROTO_BYTES_NONE, /* this kind of message has none */
	PROTO_BYTES_KEEP, /* GRANT: the receiver's frame already holds them */
	PROTO_BYTES_ZERO, /* GRANT: never written, reads as zero */
	PROTO_BYTES_PAGE, /* GRANT, RETURN: the page travels with the message */
};

struct proto_msg {
	uint8_t kind;  /* enum proto_kind */
	uint8_t right; /* enum proto_right; GRANT */
	uint8_t bytes; /* enum proto_bytes; GRANT, RETURN */
	node_id node;  /* requester; FWD_READ, FWD_WRITE, INV */
	uint8_t acks;  /* FWD_WRITE, GRANT */
	uint8_t copy;  /* 0 or 1; REQ_WRITE */
	uint32_t page; /* page number, see dir.h */
};

/* --- events: what the shell tells --- */
enum proto_event_kind {
	/* A local thread wants `right` on `page`.  Answered by WAKE, in this step or a later one.  `retry`: how
	 * often the same thread has asked for this access before (0 the first time); longer hold. */
	PROTO_EV_REQUEST,
	/* `msg` came from `from` (decoded by wire_decode; FIFO per sender).  FILL in the effects of this step
	 * means the page data that came with it. */
	PROTO_EV_MESSAGE,
	/* The UNMAP effect for `page` is complete: no thread of this node can use more than that right. */
	PROTO_EV_UNMAPPED,
	/* The time of a TIMER effect for `page` has come.  A stray or early one is harmless. */
	PROTO_EV_TIMER,
	/*
	 * A right held on `page` stays until `until_ns`, at most hold_max_ns from now; or, with PROTO_HOLD_PINNED, until
	 * another HOLD says when.  For an instruction that keeps losing one of its pages while it waits for the
	 * next: it takes them again in ascending order of their numbers, and pins each.  Who waits then holds only
	 * lower pages than the one it waits for, so no circle of waiters can close (I10).  Nothing when no right
	 * is held any more; with hold_ns 0 that may be so right after the step of the grant.
	 */
	PROTO_EV_HOLD,
	/* The shell wants the frame of `page` back (cache full).  Ends with DROP, unless the page is homed here,
	 * not held, or has a request or revocation in flight: then nothing happens, pick another victim. */
	PROTO_EV_EVICT,
	/* `from` is gone for good.  Its messages are refused and nothing is sent to it from now on.  Requests
	 * that depend on it stay unanswered: the shell ends their waits. */
	PROTO_EV_PEER_LOST,
};

struct proto_event {
	uint8_t kind;  /* enum proto_event_kind */
	uint8_t right; /* REQUEST: PROTO_READ or PROTO_WRITE */
	uint8_t retry; /* REQUEST */
	node_id from;  /* MESSAGE, PEER_LOST */
	uint32_t page; /* all but MESSAGE (there msg.page) and PEER_LOST; below dir->pages */
	uint64_t now_ns;   /* monotonic */
	uint64_t until_ns; /* HOLD */
	struct proto_msg msg;
};

#define PROTO_HOLD_PINNED UINT64_MAX

/* --- effects: what the shell must do, in order, before the next step --- */
enum proto_effect_kind {
	/* Send `msg` to `to`; with PROTO_BYTES_PAGE attach the page's frame as it is now (copy it now, even when
	 * the fabric pushes back and the message has to be queued).  Per-peer order must be kept. */
	PROTO_FX_SEND,
	/* Copy the page data of the message that is being stepped into the frame.  Nobody can see the frame. */
	PROTO_FX_FILL,
	/* Make the frame read as zero (nothing to do if it holds no bytes since it was created or punched). */
	PROTO_FX_ZERO,
	/* This node now has `right` on `page`: publish and map it.  May be done in place, never blocks. */
	PROTO_FX_MAP,
	/* Lower the page to `right` at this node.  Starts now, may end later: PROTO_EV_UNMAPPED, exactly once,
	 * never from inside the performing of this step's effects (queue it when done at once). */
	PROTO_FX_UNMAP,
	/* Wake local threads that wait for `page` with a wish up to `right`. */
	PROTO_FX_WAKE,
	/* Deliver PROTO_EV_TIMER for `page` at at_ns or soon after. */
	PROTO_FX_TIMER,
	/* The frame holds nothing that anybody needs: it may be punched and counts as free.  Not for home pages. */
	PROTO_FX_DROP,
	/* REQUEST or EVICT only: cfg.requests are in flight already; the wish is forgotten until asked again. */
	PROTO_FX_BUSY,
	/* After a BUSY: there is room again; every thread that was told BUSY asks once more. */
	PROTO_FX_ROOM,
	/* MESSAGE: not legal now, ignored.  Count it against `to` (the sender). */
	PROTO_FX_REFUSED,
};

struct proto_effect {
	uint8_t kind;  /* enum proto_effect_kind */
	uint8_t right; /* MAP, UNMAP, WAKE */
	node_id to;    /* SEND, REFUSED */
	uint32_t page;
	uint64_t at_ns; /* TIMER */
	struct proto_msg msg; /* SEND */
};

/* A step serves at most all waiting readers (one GRANT each) and then one writer (one INV each). */
#define PROTO_EFFECTS_MAX (2 * NODES_MAX + 32)

struct proto_effects {
	unsigned count;
	struct proto_effect fx[PROTO_EFFECTS_MAX];
};

/* --- configuration --- */
struct proto_config {
	node_id self;
	unsigned nodes;
	const struct dir *dir; /* borrowed, outlives the proto */
	/*
	 * Requests and EVICTs that one node may have in flight, 1 .. PROTO_REQUESTS_MAX; the same on every node
	 * of the VM.  Take at least the number of threads that can wait at one node, plus evictions.  I7: the
	 * home refuses more from a peer, so nodes * requests bounds the waiters at a home, and with this
	 * node's own also the revocations and requests in flight at a node.
	 */
	unsigned requests;
	uint64_t hold_ns;     /* a granted page stays at least this long; doubled per retry ... */
	uint64_t hold_max_ns; /* ... up to this; at most PROTO_HOLD_LIMIT_NS */
	uint8_t mig_evidence; /* upgrades by alternating nodes that make a page migratory; 0: never */
	uint8_t mig_probe;    /* after so many exclusive grants on read, one plain read to see if it still holds */
};

#define PROTO_REQUESTS_MAX 256u
#define PROTO_HOLD_LIMIT_NS 100000000ull
#define PROTO_MIG_MAX 31u /* mig_evidence + mig_probe at most */

/* Sensible values for everything but self, nodes, dir. */
void proto_config_default(struct proto_config *cfg);

/* --- state: 3 + 4 + 16 bytes per page at rest (the shell has one more); in-flight records from pools --- */

/* At every node, per page of guest RAM.  All zero: no right. */
struct proto_page {
	uint8_t right : 2; /* enum proto_right; what is mapped, or will be when the UNMAP in flight is complete */
	uint8_t owner : 1; /* it answers for the bytes; meaningful where right is not none, home elsewhere */
	uint8_t busy : 1;  /* low is an index into flight[]; else high:low is when the hold ends */
	uint8_t high : 4;
	uint8_t low[2]; /* little endian */
};

/* At the home, per page.  All zero: never written, owned by the home, nobody has asked. */
struct proto_home {
	node_id owner;	     /* valid when written */
	uint8_t written : 1; /* the right to write was granted at least once */
	uint8_t mig : 5;     /* migratory detection, 0 .. PROTO_MIG_MAX */
	uint16_t tail;	     /* wait[] index of the last waiter, 0: idle; its next is the one being served */
};

/* Something in flight for a page at this node. */
struct proto_flight {
	uint8_t want;	  /* right asked of the home and not yet complete, or PROTO_NONE */
	uint8_t next;	  /* right to ask for when that, or the UNMAP, is complete */
	uint8_t retry;	  /* largest of the local requests served by it */
	uint8_t granted;  /* GRANT has come with this right, acks are missing */
	uint8_t acks_need, acks_got;
	uint8_t grant_from; /* node that sent it */
	uint8_t evict;	  /* enum proto_evict_state */
	uint8_t revoke;	  /* enum proto_revoke */
	uint8_t cause;	  /* what to do when unmapped: enum proto_kind of the message, or 0: DROP only */
	uint8_t to, acks; /* of that message */
	uint8_t bytes;	  /* what to send: PROTO_BYTES_PAGE or PROTO_BYTES_ZERO */
	uint16_t next_free;
	uint32_t hold; /* time the hold ends, in stamp units */
};

enum proto_revoke { PROTO_REVOKE_NO, PROTO_REVOKE_HELD, PROTO_REVOKE_UNMAPPING };
/* ASKED: the owner sent EVICT.  DROPPING: a sharer unmaps its clean copy. */
enum proto_evict_state { PROTO_EVICT_NO, PROTO_EVICT_ASKED, PROTO_EVICT_DROPPING };

/* A request at its home. */
struct proto_wait {
	uint16_t next; /* circular: the last one's next is the first; free list when unused */
	node_id node;
	uint8_t kind : 4; /* PROTO_REQ_READ, PROTO_REQ_WRITE, PROTO_EVICT */
	uint8_t copy : 1;
};

struct proto {
	struct proto_config cfg;
	struct proto_page *page;     /* [dir->pages] */
	struct proto_home *home;     /* [dir->homed[self]] */
	struct nodeset *copyset;     /* same; never holds the owner */
	struct proto_flight *flight; /* [1 .. flights] */
	struct proto_wait *wait;     /* [1 .. waits] */
	unsigned flights, waits;
	uint16_t flight_free, wait_free;     /* free lists, 0: end */
	uint16_t used[NODES_MAX];	     /* waits in use per requester, <= cfg.requests */
	uint16_t mine;			     /* requests and EVICTs of this node in flight, <= cfg.requests */
	uint16_t evicting;		     /* of them the EVICTs */
	bool starved;			     /* a BUSY was given and no ROOM since */
	struct nodeset lost;
	uint64_t refused; /* messages */
};

/* Bytes that proto_init needs; 0 when the configuration is out of its limits. */
size_t proto_bytes(const struct proto_config *cfg);
/* mem: proto_bytes() zeroed bytes, 16-aligned (fresh anonymous memory stays untouched where unused). */
void proto_init(struct proto *p, const struct proto_config *cfg, void *mem);

/* Never fails.  out->count is set to the effects of this step. */
void proto_step(struct proto *p, const struct proto_event *ev, struct proto_effects *out);

/* --- another home for some pages: rehome.h, docs/protocol.md section 9.  Only while nothing is in flight (I11) --- */

/* Nothing that this node began is in flight any more, as far as it is concerned. */
bool proto_quiet(const struct proto *p);

/* What takes the place of home[] and copyset[]. */
struct proto_homes {
	const struct dir *dir;
	struct proto_home *home;
	struct nodeset *copyset;
};
size_t proto_homes_bytes(const struct dir *dir, node_id self);
/* mem: so many zeroed bytes, 16-aligned; both outlive their use by the proto. */
void proto_homes_init(struct proto_homes *h, const struct dir *dir, node_id self, void *mem);

/* A directory entry on its way. */
struct proto_entry {
	node_id owner;
	bool written, bytes; /* bytes: the newest ones are in the frame of the old home, and move with it */
	uint8_t mig;
	struct nodeset copyset;
};
/* The right that this node holds is gone; its mapping is, too. */
void proto_right_end(struct proto *p, uint32_t page);
/*
 * At the old home, for the new one `to`; what right the old home holds it keeps, as one node among others.  False: the
 * entry is as that of a page that nobody ever used, and need not travel.
 */
bool proto_entry_take(struct proto *p, uint32_t page, node_id to, struct proto_entry *out);
/* At the new home.  With e->bytes and no right held here, the page's bytes belong into the frame.  False: rejected. */
bool proto_entry_put(struct proto *p, struct proto_homes *next, uint32_t page, const struct proto_entry *e);
/*
 * From now on the new table; nobody of `gone` is a peer any more, and everybody else is.  False: the newest bytes of a page
 * are at one of them, which did not give up all that it held: the memory is broken.
 */
bool proto_homes_switch(struct proto *p, struct proto_homes *next, const struct nodeset *gone);

/* For shells, checkers and dumps. */
const char *proto_kind_name(uint8_t kind);
const char *proto_effect_name(uint8_t kind);
node_id proto_owner(const struct proto *p, uint32_t home_index);
/* What is in flight for a page at this node, NULL when it is at rest. */
static inline struct proto_flight *proto_flight_of(const struct proto *p, uint32_t page)
{
	return p->page[page].busy ? &p->flight[get_le16(p->page[page].low)] : NULL;
}

#endif
