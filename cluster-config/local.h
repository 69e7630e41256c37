/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/local.h - agents that `unum` starts itself, on addresses of this host.
 *
 * What      One agent process per node of a VM. `unum` opens the listening sockets, so that a port
 *           in use is found before anything starts, and hands them over; the key goes through a
 *           pipe. No file is made.
 * Threads   The loop's.
 */
#ifndef CC_LOCAL_H
#define CC_LOCAL_H

#include "cluster-config/spawn.h"
#include "cluster-config/tls.h"

struct cc_local_agents {
	struct cc_child child[NODES_MAX];
	unsigned count;
};

/* `slice_path` NULL: beside the agent's program.  A node with port 0 gets a free one, written back
 * into `t`. Trouble is printed as for topology files.  -EINVAL: nothing was started. */
MUST_CHECK int cc_local_start(struct cc_topology *t, const struct cc_vm *vm,
			      const struct cc_key *key, const char *slice_path,
			      struct cc_local_agents *out);
/* Ends all, and with them their slices; waits. */
void cc_local_stop(struct cc_local_agents *l);

/* A stream socket that listens on address:port (0: a free one).  -errno */
MUST_CHECK int cc_listen(const char *address, uint16_t port, int *out);

#endif
