/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model.h - a whole small VM around the production protocol core: nodes, links, frames, threads.
 *
 * What      A state of it, its moves, the effects performed, and what must hold after each (the numbered
 *           invariants of docs/protocol.md).  Encodes a state into canonical bytes and back.
 * Owns      struct model.   Threads  One.   I/O  Only describes moves as text.
 * Limits    MODEL_NODES, MODEL_PAGES, MODEL_QUEUE messages per link.
 *
 * The world is larger than the real one: time is either "before the end of any hold" or "after it", chosen
 * freely at each event; a link delivers in order, any link at any time; every thread of a node may ask for
 * anything at any time, and some collect; and whoever may write does so all the time.  A page's bytes are one bit: those of
 * the latest write, or not.
 */
#ifndef TESTS_CHECK_MODEL_H
#define TESTS_CHECK_MODEL_H

#include "dsm/core/collect.h"
#include "dsm/core/proto.h"

#define MODEL_NODES 4
#define MODEL_PAGES 2
#define MODEL_COLLECTORS 2
#define MODEL_QUEUE 8
#define MODEL_WAITS 32 /* nodes * requests at most */
#define MODEL_BYTES 512

struct model_config {
	unsigned nodes, pages, requests;
	unsigned mig_evidence, mig_probe;
	bool evict; /* nodes evict at any time */
	bool hold;  /* grants are held */
	bool writes_only; /* threads never ask to read: for larger worlds */
	bool loss;  /* links of one node with others are lost, at any time and each end for itself */
	bool collect_only; /* no other threads, and collectors read, too */
	unsigned collectors; /* threads of each node that collect all pages, at any time; with `hold` only */
	unsigned depth; /* moves at most, 0: all states */
};

/* Per node and page: what the shell and the threads know. */
struct model_cell {
	uint8_t mapped;	  /* right that threads of the node can really use */
	uint8_t target;	  /* of the UNMAP in flight */
	bool unmapping;
	bool fresh;	  /* the frame holds the bytes of the latest write */
	uint8_t waiting;  /* bit PROTO_READ, PROTO_WRITE: a thread waits for that right */
	uint8_t parked;	  /* the same, but it was told BUSY */
	uint8_t ready;	  /* the same, and ROOM was given since: it asks again */
	uint8_t cost, invs; /* messages and ACKs among them sent so far for this request */
	uint8_t evict_cost;
	bool far; /* the GRANT of this request came from another node than the home */
	bool timer; /* a TIMER is due while a revocation waits for the end of a hold */
};

/* A thread that takes all pages in order and pins them (protocol.md, I10); count 0: not now. */
struct model_collector {
	struct collect c;
	bool asked; /* waits for the next page */
};

struct model_link {
	uint8_t count;
	struct {
		struct proto_msg msg;
		bool fresh;
	} q[MODEL_QUEUE];
};

/* The largest that was seen; not part of a state. */
struct model_seen {
	uint8_t grant_cost[MODEL_NODES]; /* messages of a grant, by the number of copies that had to go */
	uint8_t evict_cost;
	uint8_t ahead; /* entries of others before a request in its home's queue: how often it is passed */
};

struct model {
	struct model_config cfg;
	struct dir dir;
	struct proto node[MODEL_NODES];
	struct model_cell cell[MODEL_NODES][MODEL_PAGES];
	struct model_link link[MODEL_NODES][MODEL_NODES];
	struct model_collector collector[MODEL_NODES][MODEL_COLLECTORS];
	bool written[MODEL_PAGES];
	bool done_due; /* within a move: MAP was last, and a DONE may follow */
	uint8_t moving; /* enum move_kind */
	bool pin_due;  /* within a move: `pin` was granted to a collector */
	uint32_t pin;
	struct model_seen seen;
	const char *broken;	/* what does not hold, or NULL */
	void *mem[MODEL_NODES];
};

enum move_kind { MOVE_DELIVER, MOVE_UNMAPPED, MOVE_TIMER, MOVE_AGAIN, MOVE_NEXT, MOVE_FINISH, MOVE_REQUEST, MOVE_EVICT,
		 MOVE_LOST, MOVE_COLLECT };
/* Moves from here on are the threads' choice; the others happen by themselves. */
#define MOVE_FREE MOVE_REQUEST

struct move {
	uint8_t kind;
	uint8_t node, page; /* page: of NEXT, FINISH, COLLECT the collector */
	uint8_t arg; /* DELIVER: sender; REQUEST, AGAIN: right; LOST: whom; COLLECT: bit of each page to be read only */
	bool late;   /* after every hold */
};

#define MODEL_MOVES 128

bool model_init(struct model *w, const struct model_config *cfg);
void model_free(struct model *w);
/* All moves that are possible now. */
unsigned model_moves(const struct model *w, struct move out[static MODEL_MOVES]);
/* Performs one; w->broken tells if something does not hold after it.  `out`: effects of its step. */
void model_move(struct model *w, struct move m, struct proto_effects *out);
/* After no move but free ones is left: nobody waits and nothing is in flight?  NULL, or what is wrong. */
const char *model_rest(const struct model *w);

size_t model_encode(const struct model *w, uint8_t out[static MODEL_BYTES]);
void model_decode(struct model *w, const uint8_t *in);

struct observed;
void model_observe(const struct model *w, struct observed *out);
void model_move_print(const struct model *w, struct move m, const struct proto_effects *fx);
void model_print(const struct model *w);

#endif
