/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/core/member.c - liveness of one peer as a pure state machine; see member.h. */
#include "cluster-config/core/member.h"

void cc_member_init(struct cc_member *m, uint64_t dead_ns, uint64_t now_ns)
{
	*m = (struct cc_member){ .dead_ns = dead_ns, .heard_ns = now_ns, .look_ns = now_ns };
	/* the first tick pings at once */
	m->ping_ns = now_ns >= CC_PING_NS ? now_ns - CC_PING_NS : 0;
}

static unsigned silence_judge(struct cc_member *m, uint64_t now_ns)
{
	uint64_t silence = now_ns - m->heard_ns;

	if (silence > m->dead_ns) {
		m->state = CC_MEMBER_DEAD;
		return CC_MEMBER_LOST;
	}
	if (silence > CC_QUIET_NS && m->state == CC_MEMBER_UP) {
		m->state = CC_MEMBER_QUIET;
		return CC_MEMBER_SILENT;
	}
	return 0;
}

static unsigned time_pass(struct cc_member *m, bool deaf, uint64_t now_ns)
{
	uint64_t gap = now_ns - m->look_ns;
	unsigned effects = 0;

	m->look_ns = now_ns;
	if (deaf || gap > CC_MEMBER_GAP * CC_PING_NS)
		m->heard_ns += m->heard_ns + gap > now_ns ? now_ns - m->heard_ns : gap;
	if (now_ns - m->ping_ns >= CC_PING_NS) {
		m->ping_ns = now_ns;
		effects |= CC_MEMBER_PING;
	}
	return effects | silence_judge(m, now_ns);
}

unsigned cc_member_step(struct cc_member *m, enum cc_member_event event, uint64_t now_ns)
{
	bool was_quiet = m->state == CC_MEMBER_QUIET;

	if (m->state == CC_MEMBER_DEAD)
		return 0;
	switch (event) {
	case CC_MEMBER_HEARD:
		m->heard_ns = now_ns;
		m->state = CC_MEMBER_UP;
		return was_quiet ? CC_MEMBER_BACK : 0;
	case CC_MEMBER_CLOSED:
		m->state = CC_MEMBER_DEAD;
		return CC_MEMBER_LOST;
	case CC_MEMBER_TICK:
	case CC_MEMBER_DEAF:
		break;
	}
	return time_pass(m, event == CC_MEMBER_DEAF, now_ns);
}
