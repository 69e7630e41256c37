/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/verdict.h - what ended the VM, out of reports that race each other.
 *
 * What      When a node dies, its neighbours often say so, or fail themselves, before the news of
 *           the cause itself is here. A firm report settles the verdict at once: the guest's own
 *           end, or a loss told by the node's own agent or connection. A loose one (a slice that
 *           misses a peer, or cannot go on) settles it only when CC_VERDICT_GRACE_NS have brought
 *           nothing firm.
 * Threads   None. Pure: time comes in as a value.
 */
#ifndef CC_CORE_VERDICT_H
#define CC_CORE_VERDICT_H

#include "cluster-config/control.h"

#define CC_VERDICT_GRACE_NS 300000000ull
#define CC_VERDICT_TEXT 512
#define CC_VERDICT_DUMP 16384

struct cc_verdict {
	bool settled, waiting;
	uint64_t settle_ns; /* when waiting */
	enum cc_end reason;
	node_id node;
	char text[CC_VERDICT_TEXT], dump[CC_VERDICT_DUMP];
};

/* A report by node `from` about *e. */
void cc_verdict_report(struct cc_verdict *v, node_id from, const struct cc_ended *e,
		       uint64_t now_ns);
/* Time goes by. */
void cc_verdict_tick(struct cc_verdict *v, uint64_t now_ns);

#endif
