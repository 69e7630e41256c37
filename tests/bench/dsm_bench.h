/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/dsm_bench.h - what the two halves of dsm_bench share. */
#ifndef TESTS_BENCH_DSM_BENCH_H
#define TESTS_BENCH_DSM_BENCH_H

#include "dsm/dsm.h"
#include "tests/bench/bench_nodes.h"

#define PAGES 1000u /* per case and round */

/* BENCH_FRESH and BENCH_PING: what a page and an acknowledgement cost with no mapping call at all. */
enum bench_case {
	BENCH_RAW,
	BENCH_READ,
	BENCH_WRITE,
	BENCH_INVALIDATE,
	BENCH_FRESH,
	BENCH_PING,
	BENCH_CASES
};

/* bench_floor.c */
void floor_round(const char *backend, struct samples s[BENCH_CASES]);
int floor_fault(void *addr, bool write);

#endif
