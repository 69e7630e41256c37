/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/paths/slots.h - what the message-passing paths (verbs, ofi, ucx) have in common.
 *
 * What      Bounce slots, credits and the proof of a sender.  Each message is a prefix, and a frame or nothing:
 *
 *             token u32   which link of the receiver, and a random part that only its OFFER told
 *             nonce u32
 *             consumed u32  frames of the other direction (core/credit.h)
 *
 *           Guest memory is never exposed: a peer can fill a slot, no more.
 * Threads   path.h.  The port's functions are called: post_send under the link's lock, by any thread; the rest by the
 *           thread inside progress.
 * Memory    IC_CREDIT_SLOTS receive slots and SLOTS_TX transmit slots of SLOT_BYTES for each peer, one block, made at
 *           open.  Nothing is allocated later but the link records.
 */
#ifndef INTERCONNECT_PATHS_SLOTS_H
#define INTERCONNECT_PATHS_SLOTS_H

#include "base/assert.h"
#include "interconnect/core/credit.h"
#include "interconnect/core/frame.h"
#include "interconnect/path.h"

#include <pthread.h>
#include <stdatomic.h>

#define SLOT_PREFIX 12u
#define SLOT_BYTES 4672u /* SLOT_PREFIX + IC_FRAME_MAX, rounded to cache lines */
#define SLOTS_TX (IC_CREDIT_WINDOW + 4u)
STATIC_ASSERT(SLOT_BYTES % 64 == 0 && SLOT_BYTES >= SLOT_PREFIX + IC_FRAME_MAX, "a slot holds any message");

struct port;	  /* private to the path: device, endpoint, completion queue */
struct port_link; /* the same: one per peer */

#define SLOT_CONTEXT 64u /* bytes in each slot for the library, which finds the slot again by their address */

#define SLOTS_BATCH 32u /* completions that a port takes at a time, at most */

struct slots_tx {
	_Alignas(16) uint8_t context[SLOT_CONTEXT];
	uint8_t *bytes;
	uint32_t index;
	node_id peer;
	uint32_t nonce; /* of the link that sends it */
	_Atomic bool busy;
};

struct slots_rx {
	_Alignas(16) uint8_t context[SLOT_CONTEXT];
	uint8_t *bytes;
	uint32_t index;
	node_id peer; /* whose it is, with per_link */
};

static inline struct slots_tx *slots_tx_of(void *context)
{
	return (struct slots_tx *)context;
}
static inline struct slots_rx *slots_rx_of(void *context)
{
	return (struct slots_rx *)context;
}
STATIC_ASSERT(offsetof(struct slots_tx, context) == 0 && offsetof(struct slots_rx, context) == 0, "first");

struct port_ops {
	bool per_link; /* receive slots take messages of their peer only: posted when the link is opened, and when it is
			  closed, the device lets go of all of the peer's slots */
	bool lazy;     /* connects with the first message: the link is up when one has left */
	/* `block`: all slots, to be registered; const until close.  Those of peer k, SLOTS_PEER_BYTES, start at k times
	 * that. */
	MUST_CHECK int (*open)(const char *device, struct ic_path *slots, void *block, size_t bytes, struct port **out);
	void (*close)(struct port *p);
	MUST_CHECK int (*link_open)(struct port *p, struct ic_path_link *l, node_id peer, struct port_link **out,
				    uint8_t *offer, uint16_t *len, uint16_t room);
	MUST_CHECK int (*link_connect)(struct port_link *l, const uint8_t *offer, uint16_t len);
	void (*link_close)(struct port_link *l); /* unless per_link its sends may still complete */
	/* 0: slots_sent follows, or came already; -EAGAIN; -EPROTO. */
	MUST_CHECK int (*post_send)(struct port_link *l, struct slots_tx *slot, size_t len);
	/* Gives a receive slot to the device.  -errno: it cannot take it.  per_link and no link: 0, nothing. */
	MUST_CHECK int (*post_recv)(struct port *p, struct slots_rx *slot);
	/* Completions.  Fewer than `budget` (1 to SLOTS_BATCH): there are no more.  -errno: the port is broken, with all its
	 * links, and not polled again. */
	MUST_CHECK int (*poll)(struct port *p, unsigned budget);
	bool (*sleep)(struct port *p, bool on); /* as ic_path_ops.sleep */
	int (*fd)(struct port *p);
};

#define SLOTS_PEER_BYTES ((size_t)(IC_CREDIT_SLOTS + SLOTS_TX) * SLOT_BYTES)

/* From inside the port's poll, with no lock of a library held that post_send takes: messages are answered on the spot.
 * slots_sent: from anywhere. */
void slots_sent(struct slots_tx *slot);
/* By their index, which is below nodes * (IC_CREDIT_SLOTS or SLOTS_TX). */
struct slots_tx *slots_tx_at(struct ic_path *p, uint32_t index);
struct slots_rx *slots_rx_at(struct ic_path *p, uint32_t index);
/* Sent in vain: the link, if it is still the same, cannot go on. */
void slots_failed(struct ic_path *p, struct slots_tx *slot);
void slots_received(struct ic_path *p, struct slots_rx *slot, size_t len); /* and posts the slot again */
/* The link cannot go on. */
void slots_broken(struct ic_path_link *l);

MUST_CHECK int slots_open(const struct port_ops *ops, const char *device, const struct ic_path_host *host,
			  unsigned nodes, struct ic_path **out);
/* The rest of a path's ops. */
void slots_close(struct ic_path *p);
int slots_link_open(struct ic_path *p, void *owner, node_id peer, bool acceptor, struct ic_path_link **out,
		    struct ic_path_offer *offer);
int slots_link_connect(struct ic_path_link *l, const struct ic_path_offer *theirs);
void slots_link_close(struct ic_path_link *l);
int slots_send(struct ic_path_link *l, const struct iovec *iov, unsigned count, bool *bell);
unsigned slots_poll(struct ic_path *p, unsigned budget);
bool slots_sleep(struct ic_path *p, bool on);
int slots_fd(struct ic_path *p);

#define SLOTS_PATH_OPS(open_fn)                                                                      \
	{                                                                                            \
		.open = (open_fn), .close = slots_close, .link_open = slots_link_open,               \
		.link_connect = slots_link_connect, .link_close = slots_link_close,                  \
		.send = slots_send, .poll = slots_poll, .sleep = slots_sleep, .fd = slots_fd,        \
	}

#endif
