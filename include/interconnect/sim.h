/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/sim.h - a network between fabrics of one process, with delays and faults from a seed.
 *
 * What      Each fabric that ic_open makes with ic_config.sim is one node of it.  Messages arrive in order per peer, each
 *           after a delay of its own.  Loss, as a transport that repeats shows it, is a stall: one message, and with it
 *           all behind it, comes late.
 * Threads   Any.  Time is clock_now_ns.  With one seed and the same calls at the same times everything is the same again.
 * Limits    Messages in flight are on the heap; more than `queue` on one link are -EAGAIN.
 */
#ifndef INTERCONNECT_SIM_H
#define INTERCONNECT_SIM_H

#include "interconnect/fabric.h"

struct ic_sim_config {
	unsigned nodes;
	uint64_t seed;
	uint64_t delay_min_ns, delay_max_ns; /* of a message */
	unsigned stall_every;		     /* one message in so many stalls; 0: none */
	uint64_t stall_ns;		     /* for at most this long */
	unsigned queue;			     /* messages that one link holds */
	uint64_t detect_ns;		     /* from a crash until its peers are told */
};

struct ic_sim;

MUST_CHECK int ic_sim_open(const struct ic_sim_config *cfg, struct ic_sim **out);
/* The node is gone, without a word: what it sent last may be lost, what it is sent is; its peers get IC_PEER_DOWN. */
void ic_sim_crash(struct ic_sim *s, node_id node);
/* After the last ic_close. */
void ic_sim_close(struct ic_sim *s);

#endif
