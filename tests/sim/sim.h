/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim.h - a VM of up to 128 nodes around the production protocol core, in virtual time.
 *
 * What      Threads run random instructions that need one to eight pages at once; links delay (in order per
 *           pair), stall and double frames; unmapping takes time; nodes pause and crash; caches are small.  Every
 *           read is compared with the last write.  Messages pass through the production wire and frame code.
 *           A stalled link is what a loss looks like above a transport that repeats; a doubled frame must be refused
 *           by the frame decoder, which ends the link.  Once a node or a link is lost, waits may be for ever, but no
 *           thread may ever read old bytes.  Where none is lost, nodes also leave the memory, and die or come back.
 * Owns      struct sim and all it points to.   Threads  One.   I/O  A trace on stdout when asked for.
 * Limits    NODES_MAX nodes; the seed decides everything: same seed, same run.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/rng.h"
#include "dsm/core/proto.h"
#include "dsm/core/wire.h"

#define SIM_SPAN 8 /* pages that one instruction can need */

enum sim_fault { SIM_PAUSES = 1, SIM_STALLS = 2, SIM_DOUBLES = 4, SIM_CRASHES = 8 };

struct sim_config {
	uint64_t seed;
	unsigned nodes, pages, threads; /* threads per node */
	unsigned ops;			/* instructions per thread */
	unsigned requests;		/* proto_config.requests */
	unsigned cache;			/* foreign pages that a node holds before it evicts; 0: no bound */
	unsigned delay_us;		/* longest delay of a link */
	unsigned write_percent, span_max;
	unsigned faults; /* enum sim_fault, a set */
	unsigned drains; /* so many times a node leaves; of those that live half come back */
	bool trace;
};

struct sim_result {
	const char *broken; /* NULL: all held */
	uint64_t time_ns, steps, instructions, requests, messages, retries_max, drops;
	uint64_t hops, grants; /* links that a request and its answer crossed one after another, over all grants */
	uint64_t stalls, doubles, crashes, links_lost;
	uint64_t drains, entries; /* nodes that left or came back; directory entries that moved then */
	uint64_t looks;
	uint64_t wait_max_ns; /* longest time that one instruction took */
};

/* Draws everything but seed and trace from the seed. */
void sim_config_draw(struct sim_config *cfg, uint64_t seed);
void sim_run(const struct sim_config *cfg, struct sim_result *out);

#endif
