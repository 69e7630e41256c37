/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress.h - what the parts of unum-stress share.
 *
 * Reading order  stress_ops.c (what the threads do, and how wrong values are noticed), stress_node.c (a process),
 *           stress_bound.c (resident memory), stress_main.c (options, the parent that watches, the report).
 * Oracle    Beside the memory under test the processes share memory of the host, coherent by hardware.  A writer says
 *           there that it begins a value and, once it is performed, that it is done; so a reader knows between which
 *           two values it must find: older is stale, younger came from nowhere, neither is torn.
 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

#include "tests/stress/nodes.h"

#include "base/rng.h"

#include <signal.h>

#define THREADS_LIMIT 8u
#define USERS_LIMIT 64u
#define PAGES_LIMIT (1u << 20)
#define WORDS (PAGE_SIZE / 8)
#define BOUND_PASSES 2u
#define FIRST_GFN 16u /* so that page numbers and frames differ */

enum op {
	OP_STAMP_WRITE,
	OP_STAMP_READ,
	OP_BYTE,
	OP_XADD,
	OP_CMPXCHG,
	OP_XCHG,
	OP_PAIR,
	OP_NARROW,
	OP_BLOCK,
	OP_CROSS_WRITE,
	OP_CROSS_READ,
	OP_SCAN,
	OP_COPY_IN,
	OP_COPY_OUT,
	OPS
};
/* OP_ names for reports, and whether the operation reads only, writes, or is atomic. */
enum op_class { CLASS_READ, CLASS_WRITE, CLASS_ATOMIC };
struct op_kind {
	const char *name;
	enum op_class class;
	unsigned weight; /* of 100 */
};
extern const struct op_kind op_kinds[OPS];

struct options {
	unsigned nodes, threads;
	const char *backend;
	double seconds;
	uint64_t seed, chaos, region_bytes, cache_bytes, share_bytes;
	enum dsm_faults faults;
	unsigned hot_pages, deadline_s;
	const char *bound; /* NULL: the mixed work */
	unsigned drain_node; /* 0: none */
	double drain_s, join_s; /* when it goes, when it comes back; join_s 0: it is killed instead */
	bool apart;	   /* the nodes are on hosts of their own: `only` is here, `shared` a file that all can map */
	unsigned only;
	const char *shared, *address, *device;
};
/* stress_options.c: fills in what is given; ends the program on a mistake. */
void options_parse(int argc, char **argv, struct options *o);

/* What one user did to the shared words of one page; only that user writes it. */
struct tally {
	uint64_t xadd, ticket_sum, ticket_squares;
	uint64_t cmpxchg, pair, block;
	uint64_t xchg_sum, xchg_hash; /* put in minus taken out */
	uint64_t narrow[4];
	uint8_t bytes[8]; /* the last value of each byte that is this user's */
};

/* A single writer's progress, by number of its values. */
struct stamp {
	_Atomic uint32_t begun, done;
};

/* One thread as seen from outside. */
struct seat {
	struct fault_seat fault;
	_Atomic uint64_t ops[OPS];
	_Atomic uint32_t op, page, parked, ended;
} __attribute__((aligned(64)));

/* Resident memory of one node, stress_bound.c.  Bytes. */
struct bound_result {
	uint64_t frames_max, anon_max, anon_process, anon_before, limit_frames, limit_anon, table_max;
};

/* Memory of the host that all processes share. */
struct control {
	struct nodes_meet meet;
	_Atomic unsigned worked, checked;
	_Atomic uint64_t violations;
	_Atomic uint64_t hot; /* number of the hot set: node 0 counts, the hosts' clocks may differ */
	_Atomic bool stop;              /* finish now: time is up or somebody said so */
	_Atomic bool dump[NODES_LIMIT]; /* print what you know of the pages that are waited for */
	struct seat seat[USERS_LIMIT];
	struct dsm_stats stats[NODES_LIMIT];
	struct bound_result bound[NODES_LIMIT];
	_Atomic unsigned away;	  /* node whose threads stand still; 0: none */
	_Atomic unsigned drained; /* node that is out of the memory and may die; 0: none */
	struct dsm_drain drain, join;
	_Atomic unsigned phase[2 * BOUND_PASSES];
	struct stamp *stamp;  /* [pages][WORDS] */
	uint32_t *generation; /* [pages], guarded by the lock in the page under test */
	struct tally *tally;  /* [users][pages] */
};

struct run {
	const struct options *opt;
	struct control *ctl;
	uint32_t pages;
	unsigned users;
	const struct dsm_range *ranges;
	unsigned ranges_count;
	struct node node;
};

struct user {
	struct run *run;
	struct seat *seat;
	unsigned id; /* across all nodes */
	struct rng rng;
	unsigned burst; /* so many more operations on `page` */
	uint32_t page;
	struct tally *tally; /* [pages] */
	uint32_t *seen;      /* [pages][WORDS] newest value seen, of stamps */
	uint64_t *ticket;    /* [pages] */
};

/* stress_ops.c */
void op_run(struct user *u);
/* After all work everywhere: the shared words of one page against the sums of what all did. */
void page_check(struct run *r, uint32_t page);
void violation(struct run *r, const char *what, uint32_t page, unsigned word, uint64_t have,
	       uint64_t want);

/* stress_node.c: a child process; its exit status. */
int node_main(const struct options *opt, struct control *ctl, node_id self);
/* The parent, of --drain. */
void drain_report(const struct options *o, const struct control *ctl);

/* stress_bound.c: a child process of --bound, and the verdict of the parent. */
int bound_main(const struct options *opt, struct control *ctl, node_id self);
uint64_t bound_report(const struct options *opt, const struct control *ctl);

static inline uint64_t mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

#endif
