/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/conn.h - control messages over one socket, inside an event loop; with TLS or
 *            (socketpair) without.
 *
 * Contract  on_open once (the handshake is over and proved the key), then on_message for each
 *           message, then at most one on_close. Any of them may call cc_conn_free. Sending never
 *           blocks: bytes wait in memory.
 * Threads   The loop's. The process must ignore SIGPIPE: OpenSSL writes with write(2).
 * Limits    CC_FRAME_MAX in, CC_CONN_OUT_MAX waiting to go out, then the connection counts as
 *           broken.
 */
#ifndef CC_CONN_H
#define CC_CONN_H

#include "cluster-config/control.h"
#include "cluster-config/loop.h"
#include "cluster-config/tls.h"

#define CC_CONN_OUT_MAX (8u << 20)
#define CC_CONN_OUT_BUSY (1u << 20) /* cc_conn_busy above this */

struct cc_conn;

enum cc_conn_role { CC_CONN_PLAIN, CC_CONN_TLS_CLIENT, CC_CONN_TLS_SERVER };

struct cc_conn_ops {
	void (*on_open)(void *arg);
	void (*on_message)(void *arg, const struct cc_msg *msg);
	/* `why` is text for a human.  `garbage`: what came was not ours (wrong key, no TLS, no
	 * message). */
	void (*on_close)(void *arg, const char *why, bool garbage);
};

/* Takes over `fd`, a connected or connecting stream socket; `tls` is borrowed, NULL for
 * CC_CONN_PLAIN. */
MUST_CHECK int cc_conn_make(struct cc_loop *loop, int fd, enum cc_conn_role role,
			    struct cc_tls *tls, const struct cc_conn_ops *ops, void *arg,
			    struct cc_conn **out);
/* Queues a message.  Failures end the connection by on_close, later. */
void cc_conn_send(struct cc_conn *c, const struct cc_msg *msg);
/* So much waits to go out that whoever feeds this connection should stop for a while. */
bool cc_conn_busy(const struct cc_conn *c);
/* Stops or goes on reading. */
void cc_conn_pause(struct cc_conn *c, bool pause);
/* Closes; NULL is fine.  What waits to go out is tried once more, without blocking. */
void cc_conn_free(struct cc_conn *c);

#endif
