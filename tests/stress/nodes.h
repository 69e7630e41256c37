/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/nodes.h - a node of a memory as a process of this host: fabric, dsm, guest view, fault handler.
 *
 * What      For programs that fork one process a node and let native threads use the guest view (unum-stress,
 *           litmus).  What the processes tell each other beside the memory under test is in shared memory of the
 *           host: struct nodes_meet, and whatever the program adds.
 * Threads   node_open and node_close: the process's first thread.  Faults: any thread.
 */
#ifndef TESTS_STRESS_NODES_H
#define TESTS_STRESS_NODES_H

#include "dsm/dsm.h"

#include <setjmp.h>

#define NODES_LIMIT 16u

/* Where the processes meet; zeroed memory that all share. */
struct nodes_meet {
	_Atomic unsigned opened, joined, leaving;
	_Atomic bool ending; /* a lost peer is no news any more */
	char address[NODES_LIMIT][IC_ADDR_MAX];
};

struct nodes_config {
	unsigned nodes;
	const char *backend, *device;
	const char *listen; /* NULL: loopback */
	uint64_t vm_id;
	uint64_t chaos; /* seed of a bad network; 0: as it is */
	const struct dsm_range *ranges;
	unsigned ranges_count;
	uint64_t cache_pages, spare_pages;
	enum dsm_faults faults;
};

struct node {
	node_id self;
	unsigned nodes;
	struct dsm *dsm;
	uint8_t *view; /* of gpa 0 */
	uint64_t view_bytes;
	struct ic_fabric *fabric;
	struct nodes_meet *meet;
	_Atomic unsigned ups;
};

/*
 * What a fault of the calling thread is waiting for, for those who look from outside; and where the thread goes on
 * when the fault cannot be resolved: siglongjmp(out, -errno).  One per thread, see node_thread.
 */
struct fault_seat {
	_Atomic uint64_t since_ns; /* 0: not in a fault */
	_Atomic uint64_t gfn;
	sigjmp_buf *out;
	uint64_t patience_ns; /* how long a fault may take: then -ETIMEDOUT */
};

/* All of these: 0 or -errno, logged. */
MUST_CHECK int node_open(struct node *n, const struct nodes_config *cfg, node_id self,
			 struct nodes_meet *meet);
void node_close(struct node *n);
/* The calling thread will touch the view of `n`. */
void node_thread(struct fault_seat *seat);
/* All processes come here; false: `ending` was set while waiting. */
bool nodes_meet_at(struct nodes_meet *meet, _Atomic unsigned *place, unsigned nodes);

/* Prints the fabric backends that work on this host, a line each; the others, and why, on stderr. */
void transports_print(void);
/* Zeroed memory that is shared with all processes forked later; never fails (it ends the process). */
void *shared_alloc(size_t bytes);
/* "4KiB", "16MiB", "8192"; false when it is no size. */
bool size_parse(const char *text, uint64_t *out_bytes);
/* Ranges in turn for all nodes over `pages` frames from `first`; `run`: frames in a row for one node, as few as the
 * limit on ranges allows.  How many ranges. */
unsigned ranges_deal(struct dsm_range *out, gfn_t first, uint64_t pages, uint64_t run,
		     unsigned nodes);

#endif
