/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/fabric_priv.h - what fabric.c and the backends share.
 *
 * A transport delivers with ic_deliver and ic_peer_changed, from inside its progress, and counts with ic_count.
 */
#ifndef INTERCONNECT_FABRIC_PRIV_H
#define INTERCONNECT_FABRIC_PRIV_H

#include "interconnect/core/hello.h"
#include "interconnect/fabric.h"
#include "interconnect/path.h"

#include <pthread.h>
#include <stdatomic.h>

/* Ways to end a link, for chaos.c. */
enum ic_spoil { IC_SPOIL_CUT, IC_SPOIL_TWICE, IC_SPOIL_HEADER, IC_SPOILS };

struct ic_transport {
	MUST_CHECK int (*open)(struct ic_fabric *f, void **out);
	void (*close)(void *priv);
	void (*address)(void *priv, char out[static IC_ADDR_MAX]);
	int (*join)(void *priv, node_id peer, const char *address);
	int (*send)(void *priv, node_id to, const struct ic_msg *msg); /* any thread */
	int (*progress)(void *priv, unsigned budget);                  /* one thread at a time */
	void (*wait)(void *priv, uint64_t timeout_ns);                 /* one thread at a time */
	void (*wake)(void *priv);                                      /* any thread */
	void (*hush)(void *priv, bool on);                             /* any thread */
	void (*spoil)(void *priv, node_id to, enum ic_spoil how);      /* any thread; may be NULL */
};

struct ic_backend {
	const char *name;
	const struct ic_transport *transport;
	const struct ic_path_ops *path; /* of a stream transport, NULL: frames over the stream itself */
	ic_offers_fn *offers;		/* NULL: it cannot tell */
};

struct ic_counters {
	_Atomic uint64_t msgs_received, pages_received, bytes_received, refused;
};

/* To one peer. */
struct ic_sent {
	_Alignas(64) _Atomic uint64_t msgs;
	_Atomic uint64_t pages, bytes;
};

struct ic_fabric {
	struct ic_config cfg; /* const after open; strings not kept */
	struct ic_backend backend;
	const struct ic_transport *ops;
	void *priv;
	struct ic_chaos *chaos; /* NULL without */
	struct ic_handler handlers[IC_PORTS]; /* const after the first progress */
	pthread_mutex_t progress_lock;        /* try-lock only, so that nobody ever sleeps on it */
	struct ic_counters count;
	struct ic_sent sent[NODES_MAX];
	_Atomic uint32_t refusals_logged; /* bit per enum ic_refusal */
};

static inline void ic_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* One writer at a time: locked instructions on the data path would cost more than the rest of it. */
static inline void ic_count_alone(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

/* A transport counts what it has taken, under its lock of that peer. */
static inline void ic_count_sent(struct ic_fabric *f, node_id to, const struct ic_msg *msg)
{
	ic_count_alone(&f->sent[to].msgs, 1);
	ic_count_alone(&f->sent[to].bytes, (uint64_t)msg->body_len + msg->data_len);
	ic_count_alone(&f->sent[to].pages, msg->data_len == IC_DATA_MAX);
}

/* Inside progress. */
void ic_deliver(struct ic_fabric *f, node_id from, const struct ic_msg *msg);
void ic_peer_changed(struct ic_fabric *f, node_id peer, enum ic_peer_event event);
/* Counts a refusal of ours; the first of each cause is logged.  `who` is for the log only. */
void ic_refused(struct ic_fabric *f, enum ic_refusal why, const char *who);

extern const struct ic_transport ic_transport_stream, ic_transport_sim, ic_transport_chaos;

/* chaos.c: inside progress, before the user is told. */
void ic_chaos_peer(struct ic_chaos *c, node_id peer, bool up);

#endif
