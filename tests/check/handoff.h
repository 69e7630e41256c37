/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/handoff.h - a few nodes around the production hand-off of one vCPU, and the network between.
 *
 * What      A state of it, its moves, the effects performed, and what must hold after each (the numbered
 *           invariants of docs/migration.md).  Encodes a state into canonical bytes and back.
 * Owns      struct hw, plain.   Threads  One.   I/O  Only describes moves as text.
 * Limits    HW_NODES, HW_GENS tries of a move, HW_IPIS interrupts, HW_QUEUE messages per link.
 *
 * Two networks.  `wild`: a message that was ever sent may arrive at any time, any number of times or never:
 * loss, doubling, delay and reordering at once (a tick says nothing that could not arrive again anyhow).
 * Else the one that the fabric promises: each link delivers in order; a node that is killed, or a peer that
 * is given up, is reported once, after which nothing of it arrives.  Interrupts are on that one only.
 *
 * The guest is a single question: has the node that runs it the latest state?  Whoever may run does so all the
 * time, which makes every other copy an old one.
 */
#ifndef TESTS_CHECK_HANDOFF_H
#define TESTS_CHECK_HANDOFF_H

#include "vcpu-migrate/core/handoff.h"

#define HW_NODES 3
#define HW_GENS 8
#define HW_IPIS 4
#define HW_QUEUE 16
#define HW_BAG 256
#define HW_BYTES 320
#define HW_MOVES 320

struct hw_config {
	unsigned nodes, orders; /* orders: moves that begin, of any node at any time to any other */
	unsigned ipis;		/* interrupts for the vCPU, at any node at any time; not wild */
	unsigned ticks;		/* that say something again, in all; not wild */
	unsigned kills;		/* nodes that die, at any moment; not wild */
	bool wild;
	bool cuts;   /* links of one node with others are given up, each end for itself; the node lives on */
	bool refuse; /* targets may refuse an offer */
	bool fail;   /* installs may fail */
	bool greet;  /* nodes say where it is, at any time; each counts as a tick */
};

struct hw_entry {
	uint8_t kind; /* enum ho_msg_kind, or HW_IPI */
	uint8_t gen;  /* IPI: its number */
	uint8_t why;  /* IPI: how often it was passed on */
	uint8_t node;
	uint8_t lapic; /* STATE: interrupts in the snapshot */
};
#define HW_IPI HO_MSG_KINDS

struct hw_link {
	uint8_t count;
	struct hw_entry q[HW_QUEUE];
};

/* What a node has beside its struct ho_vcpu. */
struct hw_node {
	struct ho_vcpu h;
	bool stop_due, install_due; /* the thread has something to do */
	bool dead;
	bool current;	/* its engine has the latest state of the guest */
	uint8_t lost;	/* peers that it has given up */
	uint8_t mail;	/* interrupts that wait in the mailbox */
	uint8_t lapic;	/* interrupts in the captured state */
	uint8_t coming; /* in the snapshot that is being installed */
};

/* The messages that were ever sent in one search; a state has a bit for each. */
struct hw_bag {
	unsigned count;
	struct {
		uint8_t from, to;
		struct hw_entry e;
	} m[HW_BAG];
};

struct hw {
	const struct hw_config *cfg;
	struct hw_bag *all;
	bool wild; /* cfg's; false while the end is looked for */
	struct hw_node node[HW_NODES];
	struct hw_link link[HW_NODES][HW_NODES];
	uint64_t bag[HW_BAG / 64];
	uint8_t orders, open; /* given; bits of those that are not answered */
	uint16_t took;	      /* generations that were installed */
	uint8_t fresh;	      /* the generation whose snapshot is the latest state, or 0 */
	bool told, doomed;    /* HO_LOST was said; somebody died with the token */
	uint8_t ipis, seen;   /* sent; bits of those that the guest has got */
	uint8_t ticks, kills;
	uint8_t hops;	    /* most that an interrupt was passed on; not part of a state */
	const char *broken; /* what does not hold, or NULL */
};

enum hw_move_kind {
	HW_DELIVER,   /* node, arg: sender; wild: arg: message; opt: OFFER is refused */
	HW_CAPTURED,  /* node; opt: with what is in the mailbox */
	HW_INSTALLED, /* node; opt: it failed */
	HW_TAKE,      /* node: the running thread looks into its mailbox */
	HW_TICK,      /* node */
	HW_GREET,     /* node, arg: to whom */
	HW_ORDER,     /* node, arg: target */
	HW_INTR,      /* node */
	HW_LOSE,      /* node, arg: the peer that it gives up */
	HW_KILL,      /* node */
};

struct hw_move {
	uint8_t kind, node, arg;
	bool opt;
};

void hw_init(struct hw *w, const struct hw_config *cfg, struct hw_bag *all);
unsigned hw_moves(const struct hw *w, struct hw_move out[static HW_MOVES]);
/* Performs one; w->broken tells if something does not hold after it. */
void hw_move(struct hw *w, struct hw_move m);
/* H6: from node n, `where` leads to the token, or to who waits for the answer to it. */
bool hw_leads(const struct hw *w, unsigned n);
/* From here on nothing goes wrong any more: does all come to rest as it should?  NULL, or what is wrong. */
const char *hw_ending(const struct hw *w);

size_t hw_encode(const struct hw *w, uint8_t out[static HW_BYTES]);
void hw_decode(struct hw *w, const uint8_t *in);

void hw_move_print(const struct hw *w, struct hw_move m);
void hw_print(const struct hw *w);

#endif
