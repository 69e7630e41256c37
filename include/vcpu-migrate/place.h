/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/place.h - where vCPUs should run: counters of one period in, moves and reasons out.
 *
 * What      A vCPU that waits for pages of another node can go on fetching them, or go there.  It goes when what it has
 *           lately lost by waiting for that node's pages is more than twice the price of going: the classical rule for
 *           a choice between renting and buying, so never much worse than the best choice in hindsight.
 *           docs/migration.md, "Placement", has the cost model and why vCPUs do not oscillate.
 *
 *             price    (move + lost pages * page) << burden
 *             gain     what it waited for node n lately (forgotten over a horizon of HORIZON prices), less what waits
 *                      it is known to have had at n, less the time it would lack for want of CPUs there
 *             burden   doubles the price of a vCPU whose last move did not pay: its waits did not even halve
 *
 * Owns      Nothing: the caller gives the memory.
 * Threads   One at a time.  Pure and deterministic: same inputs, same moves.  Integers only.
 * Limits    One move per vCPU and step, PLACE_MOVES_MAX in all; O(moves * vCPUs * nodes) per step.
 */
#ifndef VCPU_MIGRATE_PLACE_H
#define VCPU_MIGRATE_PLACE_H

#include "base/bits.h"
#include "base/types.h"

#define PLACE_MOVES_MAX 8u

/* Prices, as measured on this fabric; at most PLACE_COST_MAX each. */
struct place_costs {
	uint32_t move_us;    /* from order to running again */
	uint32_t page_us;    /* one page from another node */
	uint32_t lost_pages; /* what a vCPU has to fetch again after a move: first guess, then learnt from its moves */
};
#define PLACE_COST_MAX 1000000u

struct place_config {
	unsigned nodes, vcpus;
	uint32_t period_us;		 /* between steps, about */
	bool pinned;			 /* no moves at all */
	const struct nodeset *allowed; /* [vcpus] where each may run; copied; NULL: anywhere */
	struct place_costs costs;
};

struct place_node {
	uint16_t room; /* busy vCPUs that it takes; one that is halted half of its time counts for half */
	uint16_t most; /* vCPUs that it takes at all */
	uint16_t cpus; /* of its host, >= 1 */
	uint16_t host; /* nodes on one host have the same: between them a move changes no load */
	uint16_t load; /* threads that run or want to on that host, per 1000 of its CPUs: 1000 is full */
	bool closed;   /* leaving or not up: takes none, and what it has should go */
};

/* Waits of one vCPU for pages that one node sent, since the last step. */
struct place_stall {
	uint32_t waits;
	uint32_t reads;	  /* of them: a copy was enough */
	uint32_t bounced; /* of them: a page that this vCPU had had a moment ago */
	uint32_t us;
};

struct place_vcpu {
	node_id at;
	bool moving;	  /* a move is under way: left alone */
	uint32_t busy_us; /* since the last step: not halted, waits included */
};

struct place_input {
	uint64_t now_us; /* monotonic */
	const struct place_node *node;	 /* [nodes] */
	const struct place_vcpu *vcpu;	 /* [vcpus] */
	const struct place_stall *stall; /* [vcpus * nodes], that of vCPU v and node n at v * nodes + n */
};

enum place_why {
	/* it moves */
	PLACE_SCAN,	/* to the pages that it keeps fetching */
	PLACE_PINGPONG, /* to the vCPUs that it takes pages from in turns */
	PLACE_LOAD,	/* to where CPUs are free */
	PLACE_LEAVING,	/* its node is leaving */
	PLACE_RULE,	/* it may not be where it is */
	/* it stays */
	PLACE_FETCH, /* fetching is cheaper than the move */
	PLACE_COPY,  /* the same, and readable copies are what it fetches */
	PLACE_KNOWN, /* it was there, and waited as much */
	PLACE_BUSY,  /* CPUs are short there, that costs more than the waits */
	PLACE_FULL,  /* no room there */
	PLACE_HELD,  /* it, or one that it shares with, has just moved */
	PLACE_WHYS
};
static inline bool place_moves(enum place_why why)
{
	return why <= PLACE_RULE;
}
const char *place_why_name(enum place_why why); /* one word */
const char *place_why_text(enum place_why why); /* half a sentence */

/* The numbers behind one decision, microseconds of the horizon. */
struct place_verdict {
	uint8_t vcpu;
	enum place_why why;
	node_id from, to;     /* to: moves there, or would */
	uint8_t burden;
	uint32_t stall_us;    /* waits for `to` */
	uint32_t total_us;    /* waits for all nodes */
	uint32_t saved_us;    /* what it would wait less */
	int32_t lack_us;      /* what it would lack of CPU there more than here */
	uint32_t price_us;    /* it goes when saved - lack >= PLACE_MARGIN prices */
};
#define PLACE_MARGIN 2u

struct place_output {
	uint32_t lost_pages;   /* as learnt */
	uint32_t horizon_us;
	unsigned count, moves; /* verdicts, of which the first `moves` move */
	struct place_verdict list[VCPUS_MAX];
};

struct place;
size_t place_bytes(unsigned nodes, unsigned vcpus);
/* mem: place_bytes(), 8-aligned. */
struct place *place_init(const struct place_config *cfg, void *mem);
/* What was measured anew. */
void place_costs_set(struct place *p, uint32_t move_us, uint32_t page_us);
/* `allowed` as in the config, NULL: anywhere. */
void place_rules_set(struct place *p, bool pinned, const struct nodeset *allowed);
/* One period.  vCPUs with nothing to say get no verdict. */
void place_step(struct place *p, const struct place_input *in, struct place_output *out);

#endif
