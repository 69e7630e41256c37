/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/order.h - `unum migrate` and its like: orders to a VM that runs, through its door.
 *
 * Threads   The main thread.
 */
#ifndef CC_ORDER_H
#define CC_ORDER_H

#include "cluster-config/control.h"

/* One order; prints its answers.  Exit status: 0 done, 1 refused (with the reason), 2 no such VM. */
int cc_order_give(const char *vm, const struct cc_order *o);

struct cc_churn {
	const char *vm;
	double rate;    /* moves a second */
	uint64_t count; /* 0: until a signal */
	uint64_t seed;
};
/* Moves vCPUs at random; ends with one line of JSON.  Exit status: 0 when no move failed (a refused one has not). */
int cc_order_churn(const struct cc_churn *o);

/* `unum migrate`: argv[0] is the word itself. */
extern const char cc_migrate_usage[];
int cc_migrate_main(int argc, char **argv);

/* `unum drain`, `unum join`. */
extern const char cc_drain_usage[], cc_join_usage[];
int cc_drain_main(int argc, char **argv);
int cc_join_main(int argc, char **argv);

#endif
