/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/peer.h - the life of one peer: idle, joining, up, down; and its epochs.
 *
 * What      step(state, event) -> effects.  The higher node number connects, the lower accepts, so between
 *           two nodes there is one connection attempt at a time.
 * Owns      Nothing; pure.  Time is a value.
 */
#ifndef INTERCONNECT_CORE_PEER_H
#define INTERCONNECT_CORE_PEER_H

#include "base/types.h"

enum ic_peer_state { IC_PEER_IDLE, IC_PEER_JOINING, IC_PEER_LINKED, IC_PEER_LOST };

struct ic_peer {
	enum ic_peer_state state;
	bool connector; /* this side connects */
	bool trying;    /* a connection attempt is under way */
	uint32_t epoch; /* of the link that is up, or of the last one */
	uint64_t deadline_ns, retry_ns, backoff_ns;
};

/* Effects, a set. */
enum {
	IC_FX_CONNECT = 1, /* start one attempt */
	IC_FX_UP = 2,      /* tell the user */
	IC_FX_DOWN = 4,    /* tell the user, after the last message of the epoch */
};

void ic_peer_init(struct ic_peer *p, node_id self, node_id peer);
/* The user wants this peer until deadline_ns. */
unsigned ic_peer_join(struct ic_peer *p, uint64_t now_ns, uint64_t deadline_ns);
/* The attempt ended without a proven link. */
unsigned ic_peer_attempt_failed(struct ic_peer *p, uint64_t now_ns);
/* Both sides proved themselves and agree on `epoch`. */
unsigned ic_peer_proven(struct ic_peer *p, uint32_t epoch);
unsigned ic_peer_link_lost(struct ic_peer *p);
unsigned ic_peer_tick(struct ic_peer *p, uint64_t now_ns);
/* The epoch an acceptor offers to a peer that last knew `theirs`. */
uint32_t ic_peer_next_epoch(const struct ic_peer *p, uint32_t theirs);

#endif
