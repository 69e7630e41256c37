/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/observe.h - a state of the protocol as names and numbers, for comparing two models of it.
 *
 * What      What both the C core in its checker and the Promela model have: rights, what is in flight, the directory entry
 *           and the messages of page 0.  A set of such states, written as sorted lines of text.
 * Threads   One.   I/O  observed_write only.
 * Left out  Of the C core: when holds end and retry counts (both models choose freely whether a hold is over), pool
 *           indices, free lists and counts, the checker's counts of messages, threads that were told BUSY (worlds that are
 *           compared have pools that suffice), pages other than 0, lost peers.
 */
#ifndef TESTS_CHECK_OBSERVE_H
#define TESTS_CHECK_OBSERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define OBSERVED_NODES 4
#define OBSERVED_QUEUE 8
#define OBSERVED_LINK 8

/* Rights, message kinds and bytes are numbered as in dsm/core/proto.h; what means nothing in a state is 0. */
struct observed_node {
	uint8_t right, mapped, target, unmapping, own, fresh;
	uint8_t waiting; /* bit of the right */
	uint8_t want, next, granted, need, got, from;
	uint8_t evict, revoke, cause, to, acks, bytes;
};

struct observed_msg {
	uint8_t kind, right, bytes, who, acks, copy, fresh;
};

struct observed_wait {
	uint8_t node, kind, copy;
};

struct observed {
	uint8_t nodes;
	struct observed_node node[OBSERVED_NODES];
	uint8_t ever, written, owner, mig, copies;
	uint8_t waits;
	struct observed_wait wait[OBSERVED_QUEUE];
	uint8_t used[OBSERVED_NODES][OBSERVED_NODES];
	struct observed_msg link[OBSERVED_NODES][OBSERVED_NODES][OBSERVED_LINK];
};

struct observed_set;

struct observed_set *observed_open(void);
/* Adds a state that is not there yet. */
void observed_add(struct observed_set *s, const struct observed *o);
/* One line a state, ascending; the number of states. */
unsigned long observed_write(struct observed_set *s, FILE *f);
void observed_close(struct observed_set *s);

#endif
