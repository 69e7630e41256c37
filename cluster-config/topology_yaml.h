/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/topology_yaml.h - YAML text to a tree; see topology_yaml.c. */
#ifndef CC_TOPOLOGY_YAML_H
#define CC_TOPOLOGY_YAML_H

#include "cluster-config/core/tree.h"

struct cc_yaml;

/* A tree of what could be read; mistakes go to `d`.  -ENOMEM; -EINVAL: there is no tree, the
 * mistakes say why. */
MUST_CHECK int cc_yaml_read(const void *text, size_t len, struct cc_diags *d, struct cc_yaml **out);
struct cc_tree cc_yaml_tree(const struct cc_yaml *y);
void cc_yaml_free(struct cc_yaml *y);

#endif
