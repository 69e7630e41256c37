/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/dsm_bench.h - what the two halves of dsm_bench share. */
#ifndef TESTS_BENCH_DSM_BENCH_H
#define TESTS_BENCH_DSM_BENCH_H

#include "base/clock.h"
#include "dsm/dsm.h"

#include <stdio.h>

#define PAGES 1000u /* per case and round */
#define SAMPLES_MAX 20000u

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

struct samples {
	unsigned count;
	uint32_t ns[SAMPLES_MAX];
};

struct control {
	_Atomic unsigned meet, failed;
	char address[2][IC_ADDR_MAX];
};

extern struct control *ctl;
extern node_id self;

void sample_add(struct samples *s, uint64_t ns);
void meet(void);
struct ic_fabric *fabric_open(const char *backend);
void fabric_link(struct ic_fabric *f, bool progress);

/* bench_floor.c */
void floor_round(const char *backend, struct samples s[BENCH_CASES]);
int floor_fault(void *addr, bool write);

#endif
