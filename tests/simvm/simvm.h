/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/simvm.h - one run of a payload guest over several slices in one process: its plan, and what came of it.
 */
#ifndef TESTS_SIMVM_SIMVM_H
#define TESTS_SIMVM_SIMVM_H

#include "base/types.h"

#define SIMVM_NODES_MAX 4u
#define SIMVM_TEXT_MAX 4096u

/* All of it comes from the seed; what is set before plan_draw stays. */
struct simvm_plan {
	uint64_t seed;
	const char *payload, *options;
	unsigned nodes, vcpus; /* vcpus: on each node */
	uint64_t cache_pages;
	uint64_t delay_min_ns, delay_max_ns;
	unsigned stall_every;
	uint64_t stall_ns;
	unsigned pauses;
	bool crash, skew;
	unsigned calls_mean, blocks_mean;
	uint64_t limit_ns; /* of virtual time */
};

struct simvm_result {
	bool good;
	uint64_t digest, virtual_ns, switches, exits, messages, pages, evictions;
	char text[SIMVM_TEXT_MAX]; /* !good: why */
};

void simvm_plan_draw(struct simvm_plan *p, uint64_t seed);
void simvm_plan_print(const struct simvm_plan *p);
/* Once in a process: runs and calls `done`, which does not return. */
_Noreturn void simvm_run(const struct simvm_plan *p, const char *payload_dir, bool trace,
			 void (*done)(const struct simvm_result *) __attribute__((noreturn)));

#endif
