/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/choose_fabric.h - what `fabric: { backend: auto }` means for a VM, out of what its nodes can do.
 *
 * What      shm when all nodes are on one host; else verbs when all have an RDMA port on a network that they share; else
 *           tcp, which there always is.  ofi and ucx are for who names them: on none of the paths that they
 *           can use do they beat what is chosen here (docs/running.md).
 * Threads   None. Pure.
 */
#ifndef CC_CORE_CHOOSE_FABRIC_H
#define CC_CORE_CHOOSE_FABRIC_H

#include "cluster-config/control.h"

#define CC_RDMA_PORTS_MAX 16u
#define CC_FABRIC_WHY_MAX 320u

/* A port that the backend verbs would take of its device. */
struct cc_rdma_port {
	const char *device;  /* as in the topology */
	const char *network; /* that its address is in, like 10.77.0.0/24; an InfiniBand subnet is one, too */
	bool ok;	     /* verbs can use it; then it has a network */
	const char *why;     /* if not */
};

/* Texts are never NULL. */
struct cc_fabric_facts {
	const char *unknown; /* "": known; else why not, and nothing below holds */
	const char *host;    /* the same text: processes reach each other by shared memory and unix sockets */
	struct cc_rdma_port rdma[CC_RDMA_PORTS_MAX];
	unsigned rdmas;
};

struct cc_fabric_choice {
	const char *backend;
	const char *device[NODES_MAX]; /* of each node; "": any */
	char why[CC_FABRIC_WHY_MAX];   /* words */
};

/* `name`: of each node, for `why`; `device`: what its `fabric:` names, "" any. */
void cc_fabric_choose(const struct cc_fabric_facts *const *facts, const char *const *name, const char *const *device,
		      unsigned count, struct cc_fabric_choice *out);

#endif
