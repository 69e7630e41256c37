/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/fabric.h - messages and pages between the nodes of one VM.
 *
 * What      One open fabric per slice; a peer is named by its node number.  A message is a short body and
 *           at most one page of data, bound for a port (the component that will read it).
 * Contract  In order per peer while an epoch of that peer lasts.  Loss of a peer is one IC_PEER_DOWN
 *           event, after which no message of that epoch arrives.  ic_send copies; -EAGAIN is
 *           back-pressure and obliges the caller to queue and try again after progress.
 * Threads   ic_send: any, never blocks.  ic_progress: any, one at a time (-EBUSY for the others); handlers
 *           run inside it, may call ic_send, must not block and must not call ic_progress.
 * Limits    IC_BODY_MAX, IC_DATA_MAX, NODES_MAX.  Bodies are untrusted bytes for whoever decodes them.
 */
#ifndef INTERCONNECT_FABRIC_H
#define INTERCONNECT_FABRIC_H

#include "base/err.h"
#include "base/types.h"

#define IC_BODY_MAX 512u
#define IC_DATA_MAX PAGE_SIZE
#define IC_KEY_BYTES 32u
#define IC_ADDR_MAX 128u
#define IC_DEAD_AFTER_MS 5000u

enum ic_port { IC_PORT_DSM, IC_PORT_HV, IC_PORT_MIGRATE, IC_PORT_TEST, IC_PORTS };

struct ic_msg {
	enum ic_port port;
	uint16_t body_len; /* bytes, <= IC_BODY_MAX */
	uint16_t data_len; /* bytes, <= IC_DATA_MAX */
	const void *body;  /* valid during the call only */
	const void *data;
};

enum ic_peer_event { IC_PEER_UP, IC_PEER_DOWN };

struct ic_handler {
	/* Context: inside ic_progress; does not block. */
	void (*on_message)(void *arg, node_id from, const struct ic_msg *msg);
	void *arg;
};

struct ic_config {
	node_id self;
	unsigned nodes;
	const char *backend; /* a name of ic_backend_names */
	const char *device;  /* which of several that the backend could use; NULL or "": any */
	const char *listen;  /* "address:port"; port 0 takes a free one */
	uint64_t vm_id;	     /* both ends must agree, or the peer is refused */
	uint8_t key[IC_KEY_BYTES]; /* shared secret of this VM, proves a peer in the handshake */
	struct ic_sim *sim; /* not NULL: this node of a simulated network (interconnect/sim.h); backend is not looked at */
	void (*on_peer)(void *arg, node_id peer, enum ic_peer_event event); /* inside ic_progress */
	void *arg;
	unsigned dead_after_ms; /* silence, with data under way, after which a peer is lost; 0: IC_DEAD_AFTER_MS */
	/* For tests: a seed other than 0 makes the network bad, within the contract above (interconnect/chaos.c). */
	struct {
		uint64_t seed;
		bool breaks; /* ends links, too.  -EOPNOTSUPP where the backend cannot */
	} chaos;
};

struct ic_stats {
	uint64_t msgs_sent, msgs_received, pages_sent, pages_received, bytes_sent, bytes_received;
	uint64_t refused; /* handshakes and frames that were not ours */
};

struct ic_fabric;

/* Names of the backends there are, NULL-terminated.  Whether one can serve here, ic_open tells. */
const char *const *ic_backend_names(void);
/*
 * Opens a backend for a moment, without listening; `device` as in ic_config.  0, with what it offers in `text`, as far
 * as it can tell, a line each; or as ic_open, with the cause in `text` where there are words for it, else "".  Some
 * libraries look at every device of the host: it may take a second.
 */
MUST_CHECK int ic_backend_try(const char *backend, const char *device, char *text, size_t size);
/* Opens and listens.  -EINVAL unknown backend, -ELIBACC its library is not here, -ENODEV no device for it, -EADDRINUSE,
 * ...; logged once. */
MUST_CHECK int ic_open(const struct ic_config *cfg, struct ic_fabric **out);
/* Who gets messages of `port`; before the first ic_progress. */
void ic_set_handler(struct ic_fabric *f, enum ic_port port, struct ic_handler handler);
/* "address:port" that peers can connect to. */
void ic_address(struct ic_fabric *f, char out[static IC_ADDR_MAX]);
/* Starts joining `peer` (the higher id connects, the lower accepts); IC_PEER_UP tells when it holds. */
MUST_CHECK int ic_join(struct ic_fabric *f, node_id peer, const char *address);
/* 0, -EAGAIN (queue full), -ENOTCONN (peer not up).  Any thread, does not block, copies. */
MUST_CHECK int ic_send(struct ic_fabric *f, node_id to, const struct ic_msg *msg);
/* Moves bytes and delivers up to `budget` messages.  Number delivered, or -EBUSY.  Does not block. */
int ic_progress(struct ic_fabric *f, unsigned budget);
/* Blocks until there is something to progress, ic_wake, or the timeout.  One thread at a time. */
void ic_wait(struct ic_fabric *f, uint64_t timeout_ns);
void ic_wake(struct ic_fabric *f);
/*
 * While hushed, what arrives does not end ic_wait: for a thread that polls ic_progress itself, so that the one in
 * ic_wait is not woken for nothing.  Whoever hushes says false again soon.  Any thread; ic_wake still works.
 */
void ic_hush(struct ic_fabric *f, bool on);
void ic_stats(struct ic_fabric *f, struct ic_stats *out);
/* Closes all links at once; no handler runs after it returns.  No thread may be inside any call. */
void ic_close(struct ic_fabric *f);

#endif
