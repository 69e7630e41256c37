/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/run.h - `unum run`: one VM from start to end on this terminal.
 *
 * Threads   The main thread; SIGINT, SIGTERM and SIGHUP are taken meanwhile.
 */
#ifndef CC_RUN_H
#define CC_RUN_H

#include "cluster-config/tls.h"

/* Exit statuses of unum; a promise. */
enum cc_exit {
	CC_EXIT_OK = 0,       /* the guest switched itself off */
	CC_EXIT_INTERNAL = 1, /* unum or a slice gave up */
	CC_EXIT_USAGE =
		2, /* bad file or usage, a node that cannot be reached: nothing was started */
	CC_EXIT_CRASH = 3,       /* the guest crashed */
	CC_EXIT_LOST = 4,        /* a node was lost */
	CC_EXIT_NOT_STARTED = 5, /* a slice could not start */
	CC_EXIT_REFUSED = 6,       /* the engine would go wrong on a host, or none can be had there */
	CC_EXIT_NO_KVM = 7,        /* engine kvm: a host has no /dev/kvm */
	CC_EXIT_NO_PERMISSION = 8, /* it may not be opened */
	CC_EXIT_KVM_BUSY = 9,      /* somebody else holds it */
	CC_EXIT_KVM_TOO_OLD = 10,  /* it lacks something */
	CC_EXIT_NO_RIGHTS = 11,    /* page faults cannot be seen: a right is missing */
	CC_EXIT_LEFT = 130,      /* Ctrl-], Ctrl-C or a signal */
};

struct cc_run_options {
	struct cc_topology *t; /* ports of agents started here are written back */
	const struct cc_vm *vm;
	struct cc_key key;
	bool start_agents;
	const char *slice_path; /* for agents started here; NULL: beside unum */
	bool stats, quiet;
	const char *stats_json; /* NULL: none */
	const char *place_trace; /* file on node 0's host; NULL: none */
	uint64_t chaos;		/* not 0: seed of a bad network between the nodes */
};

/* Exit status. */
int cc_run(const struct cc_run_options *o);

#endif
