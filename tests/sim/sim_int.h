/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim_int.h - what the files of the simulator share: sim_node.c (what happens next, and the effects of the core),
 * sim_thread.c (instructions), sim_drain.c (nodes that leave), sim.c (losses, the run).
 */
#ifndef TESTS_SIM_SIM_INT_H
#define TESTS_SIM_SIM_INT_H

#include "interconnect/core/frame.h"
#include "dsm/core/rehome.h"
#include "tests/sim/sim.h"

#include <stdio.h>

enum { AT_DELIVER, AT_UNMAPPED, AT_TIMER, AT_THREAD, AT_CRASH, AT_LOST, AT_DRAIN, AT_LOOK };

struct occasion {
	uint64_t at_ns, order; /* order: of scheduling, so that equal times stay in sequence */
	uint8_t kind;
	node_id node, from;
	uint16_t thread;
	uint16_t hops; /* links crossed since the request that all this answers */
	uint32_t page;
	uint8_t frame[IC_FRAME_HEADER + REHOME_MSG_BYTES]; /* of either kind of message */
	uint64_t data; /* the page's bytes */
};

struct cell {
	uint64_t value; /* the frame's bytes: number of the write that made them */
	uint8_t mapped, target;
	bool unmapping;
};

enum thread_state { RUNS, WAITS, PARKED, ENDED };

/* A page that was lost so often is taken in order.  The shell's number is in dsm/fault.c. */
#define COLLECT_AFTER 4

struct thread {
	uint8_t state;
	unsigned left;	 /* instructions */
	unsigned later;	 /* more of them, when the node is back */
	uint64_t began_ns; /* the present one */
	unsigned needs;	 /* pages of the present one */
	uint32_t page[SIM_SPAN];
	uint8_t right[SIM_SPAN];
	uint8_t asked[SIM_SPAN]; /* times */
	unsigned waits_for;	 /* index into page[] */
	bool collects;		 /* takes its pages in ascending order and pins each; needs is sorted */
	unsigned pins;		 /* page[0 .. pins) are pinned */
};

struct link {
	uint64_t last_ns; /* arrival of the last message */
	uint32_t tx_seq, rx_seq;
	bool lost; /* as the receiver sees it */
};

/* A node's part in a change of homes. */
struct sim_home {
	struct rehome steps;
	struct dir map[2];
	const struct dir *dir_now; /* node 0 */
	struct proto_homes next;
	void *mem, *next_mem;
	bool frozen;
};

enum { DRAIN_NONE, DRAIN_STOPPING, DRAIN_LEAVING, DRAIN_SWITCHING, DRAIN_OUT };

struct sim {
	struct sim_config cfg;
	struct sim_result *res;
	struct rng rng;
	struct dir dir;
	struct proto *node;
	void **mem;
	struct cell *cell;     /* [node][page] */
	struct thread *thread; /* [node][thread] */
	uint64_t *latest;      /* [page] */
	struct link *link;     /* [from][to] */
	uint64_t *pause_ns;    /* [node] until */
	bool *dead;            /* [node] */
	unsigned *foreign;     /* [node] foreign pages mapped */
	struct occasion *heap;
	size_t heap_count, heap_max;
	uint64_t now_ns, orders;
	unsigned running; /* threads that have not ended */
	struct sim_home *at;	/* [node] */
	unsigned drains_left, leaver; /* leaver 0: nobody */
	uint8_t drain;
	struct nodeset out;
	uint8_t plan[PAGE_SIZE]; /* of the switch under way, as bytes */
	bool pin_due;	  /* a thread that collects was woken in this step */
	struct proto_effects fx;
};

static inline struct link *link_at(struct sim *s, unsigned from, unsigned to)
{
	return &s->link[from * s->cfg.nodes + to];
}

static inline struct cell *cell_at(struct sim *s, unsigned node, uint32_t page)
{
	return &s->cell[(size_t)node * s->cfg.pages + page];
}

static inline void broken(struct sim *s, const char *what)
{
	if (!s->res->broken)
		s->res->broken = what;
}

#define TRACE(s, ...) \
	do { \
		if ((s)->cfg.trace) { \
			printf("%10.3f ", (double)(s)->now_ns / 1e3); \
			printf(__VA_ARGS__); \
		} \
	} while (0)

/* sim_node.c */
void sim_occasion_put(struct sim *s, struct occasion o);
struct occasion sim_occasion_take(struct sim *s);
/* A random time up to max_ns: mostly short, sometimes the longest, that is where the races are. */
uint64_t sim_draw_ns(struct sim *s, uint64_t max_ns);
void sim_thread_soon(struct sim *s, unsigned node, unsigned t, uint64_t max_ns);
void sim_map_set(struct sim *s, unsigned node, uint32_t page, uint8_t right);
void sim_step(struct sim *s, unsigned node, struct proto_event *ev, const struct occasion *cause, struct thread *asker);

/* body: of a message with `data` beside it. */
void sim_send(struct sim *s, unsigned node, node_id to, const void *body, size_t body_len, uint64_t data, unsigned hops);

/* sim_drain.c */
void sim_drain_later(struct sim *s, unsigned stage);
void sim_drain_look(struct sim *s);
void sim_rehome_watch(struct sim *s, unsigned node);
void sim_rehome_look(struct sim *s, unsigned node);
void sim_rehome_message(struct sim *s, const struct occasion *o, const struct rehome_msg *m);
/* Threads of this node may not begin anything. */
bool sim_withheld(const struct sim *s, unsigned node);

/* sim_thread.c */
void sim_instruction_draw(struct sim *s, struct thread *th);
void sim_thread_run(struct sim *s, unsigned node, unsigned t);
/* Before anything else happens at this node: what a collecting thread was just given is pinned. */
void sim_pin(struct sim *s, unsigned node);

#endif
