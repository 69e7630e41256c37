/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/schema.h - from a tree to a checked topology.
 *
 * What      cc_schema_read fills the topology from the tree; cc_schema_check compares its parts
 *           with each other. Both add every mistake they find and never stop at the first.
 * Threads   None. Pure: no I/O, no heap; strings of the topology point into the tree.
 */
#ifndef CC_CORE_SCHEMA_H
#define CC_CORE_SCHEMA_H

#include "cluster-config/core/tree.h"

/* Which parts were read without a mistake: only those are compared, so that one slip is reported
 * once. */
struct cc_sound {
	bool nodes, vm[CC_VMS_MAX];
};

/* `t` must be zeroed.  What could not be read stays zero or NULL and has a mistake in `d`. */
void cc_schema_read(const struct cc_tree *tree, struct cc_topology *t, struct cc_sound *sound,
		    struct cc_diags *d);
/* Splits VMs without shares over the nodes, sets what was not told, checks names, sums and
 * references. */
void cc_schema_check(struct cc_topology *t, const struct cc_sound *sound, struct cc_diags *d);

/*
 * Splits `total` in whole units over `count` parts, in proportion to `weight`, none above its
 * weight unless the sum of weights is too small; what rounding leaves goes to the first parts with
 * room.
 */
void cc_split(uint64_t total, const uint64_t *weight, unsigned count, uint64_t *part);

#endif
