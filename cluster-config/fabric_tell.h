/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/fabric_tell.h - the words of `unum fabric`, out of the JSON that it gives to programs (docs/running.md). */
#ifndef CC_FABRIC_TELL_H
#define CC_FABRIC_TELL_H

#include "cluster-config/facts.h"

/* An element of `hosts`, of `pairs`, and `together`; on stdout. */
void cc_fabric_host_print(const json_t *host);
void cc_fabric_pair_print(const json_t *pair);
void cc_fabric_together_print(const json_t *together);
/* What does not fit between two nodes, whose hosts told `ja` and `jb`: appends to the findings. */
void cc_fabric_compare(const struct cc_node *a, const json_t *ja, const struct cc_node *b, const json_t *jb,
		       json_t *findings);

#endif
