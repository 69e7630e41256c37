/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/peer.c - peer state machine.
 *
 * Pure.  LOST is left only by another join; an epoch number is never used twice by the acceptor, which is the
 * side that chooses it.
 */
#include "interconnect/core/peer.h"

#define BACKOFF_MIN_NS 10000000ull  /* 10 ms: slices of one VM start within moments of each other */
#define BACKOFF_MAX_NS 200000000ull /* 200 ms */

void ic_peer_init(struct ic_peer *p, node_id self, node_id peer)
{
	*p = (struct ic_peer){ .state = IC_PEER_IDLE, .connector = self > peer };
}

unsigned ic_peer_join(struct ic_peer *p, uint64_t now_ns, uint64_t deadline_ns)
{
	if (p->state == IC_PEER_JOINING || p->state == IC_PEER_LINKED)
		return 0;
	p->state = IC_PEER_JOINING;
	p->deadline_ns = deadline_ns;
	p->retry_ns = now_ns;
	p->backoff_ns = BACKOFF_MIN_NS;
	p->trying = p->connector;
	return p->connector ? IC_FX_CONNECT : 0;
}

unsigned ic_peer_attempt_failed(struct ic_peer *p, uint64_t now_ns)
{
	if (!p->trying)
		return 0;
	p->trying = false;
	p->retry_ns = now_ns + p->backoff_ns;
	p->backoff_ns *= 2;
	if (p->backoff_ns > BACKOFF_MAX_NS)
		p->backoff_ns = BACKOFF_MAX_NS;
	return 0;
}

unsigned ic_peer_proven(struct ic_peer *p, uint32_t epoch)
{
	if (p->state != IC_PEER_JOINING)
		return 0;
	p->state = IC_PEER_LINKED;
	p->trying = false;
	p->epoch = epoch;
	return IC_FX_UP;
}

unsigned ic_peer_link_lost(struct ic_peer *p)
{
	if (p->state != IC_PEER_LINKED)
		return 0;
	p->state = IC_PEER_LOST;
	return IC_FX_DOWN;
}

unsigned ic_peer_tick(struct ic_peer *p, uint64_t now_ns)
{
	if (p->state != IC_PEER_JOINING)
		return 0;
	if (now_ns >= p->deadline_ns) {
		p->state = IC_PEER_LOST;
		p->trying = false;
		return IC_FX_DOWN;
	}
	if (p->connector && !p->trying && now_ns >= p->retry_ns) {
		p->trying = true;
		return IC_FX_CONNECT;
	}
	return 0;
}

uint32_t ic_peer_next_epoch(const struct ic_peer *p, uint32_t theirs)
{
	uint32_t last = p->epoch > theirs ? p->epoch : theirs;

	return last + 1;
}
