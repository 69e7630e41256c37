/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench_nodes.h - what the benches of two nodes share: samples, two processes, a fabric between them. */
#ifndef TESTS_BENCH_BENCH_NODES_H
#define TESTS_BENCH_BENCH_NODES_H

#include "base/clock.h"
#include "interconnect/fabric.h"

#include <stdio.h>

#define SAMPLES_MAX 20000u
#define BENCH_SKIP 77 /* exit status: this host has no library or no device for it */
#define BLOB_MAX 1024u

struct samples {
	unsigned count;
	uint32_t ns[SAMPLES_MAX];
};

/* Shared by the two processes. */
struct control {
	_Atomic unsigned meet;
	char address[2][IC_ADDR_MAX];
	uint8_t blob[2][BLOB_MAX]; /* the same for bare transports */
	unsigned blob_len[2];
};

extern struct control *ctl;
extern node_id self;

void nodes_open(void); /* in main, before anything else here */
/* `node` in two processes, one CPU each where there are two.  0, BENCH_SKIP, or 1. */
int nodes_run(void (*node)(const void *arg), const void *arg);
/* Both processes come here; sleeping, so that the one CPU of the other stays free. */
void meet(void);
/* Ends the process with BENCH_SKIP where the backend cannot serve. */
struct ic_fabric *fabric_open(const char *backend, const char *device);
void fabric_link(struct ic_fabric *f, bool progress);

void sample_add(struct samples *s, uint64_t ns);
double percentile_us(struct samples *s, unsigned percent);

#endif
