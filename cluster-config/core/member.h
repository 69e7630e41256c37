/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/member.h - is the other side alive?  One of these per connection.
 *
 * What      step(state, event, now) -> effects.  Each side pings; whatever is heard counts as life.
 *
 *                    silence > quiet            silence > dead, or closed
 *             UP ----------------> QUIET ----------------------------> DEAD (for good)
 *              ^------- heard -------|
 *
 *           The same rule is the lease: an agent runs a slice only while it hears from the `unum`
 *           that asked for it, so both sides of a cut give up after the same silence.
 *           A gap between two looks that is longer than CC_MEMBER_GAP periods is our own sleep
 *           (stopped, or starved of CPU), not the peer's: it is not counted as its silence.
 * Threads   None.  Pure: time comes in as a value and never runs backwards.
 */
#ifndef CC_CORE_MEMBER_H
#define CC_CORE_MEMBER_H

#include "base/types.h"

#define CC_PING_NS 100000000ull   /* between two pings */
#define CC_QUIET_NS 1000000000ull /* silence worth a word */
#define CC_MEMBER_GAP 5u

enum cc_member_state { CC_MEMBER_UP, CC_MEMBER_QUIET, CC_MEMBER_DEAD };
enum cc_member_event {
	CC_MEMBER_TICK,   /* time goes by; at least once per ping period */
	CC_MEMBER_HEARD,  /* any message arrived */
	CC_MEMBER_DEAF,   /* time goes by, but we ourselves are not reading just now */
	CC_MEMBER_CLOSED, /* the connection is gone */
};
enum cc_member_effect {
	CC_MEMBER_PING = 1,   /* send one */
	CC_MEMBER_SILENT = 2, /* became QUIET */
	CC_MEMBER_BACK = 4,   /* became UP again */
	CC_MEMBER_LOST = 8,   /* became DEAD */
};

struct cc_member {
	enum cc_member_state state;
	uint64_t dead_ns;                    /* silence that kills */
	uint64_t heard_ns, ping_ns, look_ns; /* when last */
};

void cc_member_init(struct cc_member *m, uint64_t dead_ns, uint64_t now_ns);
/* Set of cc_member_effect. */
unsigned cc_member_step(struct cc_member *m, enum cc_member_event event, uint64_t now_ns);

#endif
