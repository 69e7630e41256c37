/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/door.h - how other programs of the same user reach a VM that runs: a unix socket with its name.
 *
 * What      `unum run` opens it; `unum migrate` and its like send ORDERs there and get ANSWERs.  A client hears a HELLO
 *           first, whose name is the VM's size in words: vCPUs, then the names of its nodes.
 * Where     $XDG_RUNTIME_DIR/unum, else /run/unum for root, else /tmp/unum-UID; a folder of mode 0700.  NAME.sock, or
 *           NAME-PID.sock where another VM of that name runs.
 * Owns      The socket and its clients.
 * Threads   The loop's.
 * Limits    CC_DOOR_CLIENTS at one time, CC_DOOR_ORDERS without their last answer.
 */
#ifndef CC_DOOR_H
#define CC_DOOR_H

#include "cluster-config/control.h"
#include "cluster-config/loop.h"

#define CC_DOOR_CLIENTS 16u
#define CC_DOOR_ORDERS 1024u
#define CC_DOOR_PATH_MAX 108u

struct cc_door;

/* on_order: its id is the door's; cc_door_answer wants the same. */
MUST_CHECK int cc_door_open(struct cc_loop *loop, const char *vm, const char *size,
			    void (*on_order)(void *arg, const struct cc_order *o), void *arg,
			    struct cc_door **out);
/* By which name it is reached. */
const char *cc_door_name(const struct cc_door *d);
void cc_door_answer(struct cc_door *d, const struct cc_answer *a);
void cc_door_close(struct cc_door *d); /* NULL is fine */

/* Where the door of `vm` is; the folder is made when `make`.  -errno. */
MUST_CHECK int cc_door_path(const char *vm, bool make, char out[static CC_DOOR_PATH_MAX]);
/* A connected socket. */
MUST_CHECK int cc_door_dial(const char *vm, int *fd);

#endif
