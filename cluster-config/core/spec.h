/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/spec.h - a VM of the topology as each of its slices must know it.
 *
 * Threads   None. Pure; strings of the spec point into the topology.
 */
#ifndef CC_CORE_SPEC_H
#define CC_CORE_SPEC_H

#include "cluster-config/control.h"

/* All but vm_id, vm_key and fabric_listen, which only the shell can make, for node `self` of `vm`.
 */
void cc_spec_make(const struct cc_topology *t, const struct cc_vm *vm, node_id self,
		  struct cc_vm_spec *spec);
/* The backend that the nodes of the VM name, or "auto": all that name one name the same. */
const char *cc_spec_backend(const struct cc_topology *t, const struct cc_vm *vm);
/* Number within the VM of the topology's node; NODE_NONE: it has no share. */
node_id cc_spec_node(const struct cc_vm *vm, unsigned node);

#endif
