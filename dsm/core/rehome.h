/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/rehome.h - pages get another home while the VM lives: a node leaves the memory, or comes back.
 *
 * What      Who gets what (plans), the messages, and the steps that all nodes take together.  Normative text:
 *           docs/protocol.md, section 9.  Node 0 begins every switch; one at a time.
 * Owns      struct rehome, a plain value.   Threads  One at a time.   I/O  None.
 * Limits    REHOME_SPANS ranges in a map.
 *
 *   PLAN   0 -> all       from now on start nothing (freeze)
 *   MARK 1 each -> all    nothing of mine is in flight any more
 *   ENTRY  old home -> new home, for each page that moves and was ever used
 *   MARK 2 each -> all    all my entries are before this
 *   MARK 3 each -> all    I use the new map
 *   MARK 4 each -> 0      I have heard that from all, and go on (thaw)
 *
 * A link is in order, so a MARK is behind all that its sender said before.
 */
#ifndef DSM_CORE_REHOME_H
#define DSM_CORE_REHOME_H

#include "base/bits.h"
#include "base/err.h"
#include "dsm/core/dir.h"

/* --- who gets what --- */

/*
 * `now` without `leaver`: its ranges go one by one to whoever of `takers` has most room[] (pages) left, cut where no
 * room is enough.  0; -ENOSPC: the rooms together are less than it homes; -E2BIG: too many ranges.
 */
int rehome_plan_drain(const struct dir *now, node_id leaver, const struct nodeset *takers,
		      const uint64_t room[static NODES_MAX], struct dir *out);
/* `now`, but what was homed on `comer` in `first` is again.  Both number the same pages.  0, -E2BIG. */
int rehome_plan_join(const struct dir *now, const struct dir *first, node_id comer, struct dir *out);

/* --- messages --- */

#define REHOME_WIRE 0x41u /* first byte; that of a coherence message is WIRE_VERSION */
#define REHOME_MSG_BYTES 32u
#define REHOME_SPANS (PAGE_SIZE / 8 - 1)

enum rehome_kind {
	REHOME_ASK = 1, /* 0 -> each: how many pages more could you be home to? */
	REHOME_ROOM,	/* each -> 0: `number` pages */
	REHOME_LEAVE,	/* 0 -> leaver: give up what you hold of others' pages, and ask for none */
	REHOME_LEFT,	/* leaver -> 0: I still hold `number` of them */
	REHOME_STAY,	/* 0 -> leaver: forget it */
	REHOME_PLAN,	/* 0 -> each of `set`: version `number`; `node` leaves, or NODE_NONE; data: the map */
	REHOME_MARK,	/* version `number`, `phase`; in phase 4 set.w[0] entries and w[1] pages were moved by the sender */
	REHOME_ENTRY,	/* old home -> new home: page `number`, its entry; data: its bytes, if any */
	REHOME_KINDS
};

struct rehome_msg {
	uint8_t kind;
	uint8_t phase;	 /* MARK: 1 .. 4 */
	uint8_t bytes;	 /* ENTRY: the page is beside it */
	uint8_t written; /* ENTRY */
	uint8_t mig;	 /* ENTRY */
	node_id node;	 /* ENTRY: owner */
	uint64_t number;
	struct nodeset set; /* ENTRY: copyset */
};

void rehome_encode(const struct rehome_msg *m, uint8_t out[static REHOME_MSG_BYTES]);
/* Untrusted bytes; data_len: of the data beside them.  True when encoding would have made them. */
bool rehome_decode(const void *body, size_t body_len, size_t data_len, struct rehome_msg *out);

/* The homes of all pages as PAGE_SIZE bytes, and back: `like` has the frames.  Decoding rejects (untrusted bytes). */
bool rehome_map_encode(const struct dir *d, uint8_t out[static PAGE_SIZE]);
bool rehome_map_decode(const uint8_t in[static PAGE_SIZE], const struct dir *like, struct dir *out);

/* --- the steps --- */

enum rehome_phase {
	REHOME_IDLE,
	REHOME_FREEZING, /* starts nothing; waits until nothing of its own is in flight */
	REHOME_STILL,	 /* MARK 1 was said */
	REHOME_MOVING,	 /* sends its entries */
	REHOME_MOVED,	 /* MARK 2 was said */
	REHOME_SWITCHED, /* MARK 3 was said */
};

struct rehome {
	node_id self;
	unsigned nodes;
	uint8_t phase;
	uint64_t version; /* of the switch under way, or that somebody said a MARK of */
	uint64_t done;	  /* of the last one that ended here */
	struct nodeset part, gone; /* who takes part; who is out of the memory afterwards */
	uint8_t reached[NODES_MAX]; /* last MARK of each in this version */
};

/* What the shell has to do now. */
enum rehome_act {
	REHOME_WAIT,
	REHOME_SAY,    /* MARK `reached[self]` to all others of `part` */
	REHOME_MOVE,   /* begin to send entries; `ready` at the next call: they are all sent */
	REHOME_SWITCH, /* use the new map, and know who is gone */
	REHOME_THAW,   /* go on; MARK 4 to node 0 */
};

void rehome_init(struct rehome *r, node_id self, unsigned nodes);
/* A PLAN of node 0, or node 0's own.  False: not now. */
bool rehome_begin(struct rehome *r, uint64_t version, const struct nodeset *part, node_id leaver);
/* False: out of order. */
bool rehome_mark(struct rehome *r, node_id from, uint64_t version, uint8_t phase);
/* An ENTRY of `from` is in order now. */
bool rehome_entry_due(const struct rehome *r, node_id from);
/*
 * Until it says WAIT.  `ready`: in FREEZING nothing of this node's own is in flight, in MOVING all entries are sent.
 */
enum rehome_act rehome_next(struct rehome *r, bool ready);
/* Node 0: everybody has thawed; now a node that left may die. */
bool rehome_over(const struct rehome *r);

#endif
