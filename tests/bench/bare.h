/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bare.h - a transport with nothing around it: what fabric_bench compares the interconnect with.
 *
 * What      Messages of sizes that both sides know, in order, between two processes; each is what a small program that
 *           knows its peer would do with the library.  The interconnect itself is one of these, too (fabric_bench.c).
 * Plugins   bare-NAME.so for those with a library, with a struct bare_ops bare_NAME.
 */
#ifndef TESTS_BENCH_BARE_H
#define TESTS_BENCH_BARE_H

#include "base/types.h"

#define BARE_MESSAGE_MAX 4096u
#define BARE_DEPTH 64u /* messages under way, at least as many as the interconnect's paths allow */

struct bare_ops {
	/* `device` as the backend's, `shared`: BARE_SHARED_BYTES of zeroes that both processes see.  The address is what
	 * the other side's connect gets; *len is its room before.  -ENODEV. */
	int (*open)(const char *device, unsigned node, void *shared, uint8_t *address, unsigned *len);
	void (*connect)(const uint8_t *address, unsigned len);
	/* False: no room now; moves what is under way. */
	bool (*send)(const void *at, unsigned len);
	/* A message of that length has come, and is done with. */
	bool (*recv)(unsigned len);
	/* Sleeps until something may have come. */
	void (*sleep)(void);
};

#define BARE_SHARED_BYTES (1u << 20)

extern const struct bare_ops bare_tcp, bare_shm;

#endif
