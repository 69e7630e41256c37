/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/agent.h - the agent of one node: takes VMs from `unum`, keeps one slice for each.
 *
 * Contract  One control connection is one VM. The slice lives while that connection does: when
 *           `unum` goes, is silent for dead_after, or speaks garbage, the slice is killed; when the
 *           slice dies without a word, `unum` is told.
 * Threads   The loop's.
 */
#ifndef CC_AGENT_H
#define CC_AGENT_H

#include "cluster-config/loop.h"
#include "cluster-config/tls.h"

struct cc_agent_config {
	const char *name;       /* "" goes for any name */
	const char *slice_path; /* the program */
	struct cc_key key;
	int listen_fd;   /* listening, taken over */
	unsigned cpus;   /* lent to all VMs together; 0: no bound */
	uint64_t memory; /* bytes, likewise */
};

struct cc_agent;

#define CC_AGENT_TICK_MS 50

/* Name and slice_path are borrowed. */
MUST_CHECK int cc_agent_open(struct cc_loop *loop, const struct cc_agent_config *cfg,
			     struct cc_agent **out);
/* At least every CC_AGENT_TICK_MS: heartbeats and deadlines. */
void cc_agent_tick(struct cc_agent *a);
/* Kills all slices and waits for their end. */
void cc_agent_close(struct cc_agent *a);

#endif
