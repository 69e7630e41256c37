/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_member.c - liveness of a peer, and the verdict on what ended a VM.
 */
#include "base/clock.h"
#include "cluster-config/core/member.h"
#include "cluster-config/core/verdict.h"

#include <criterion/criterion.h>
#include <string.h>

#define DEAD_NS (5 * NS_PER_S)
#define STEP_NS (50 * NS_PER_MS)
#define T0 (1000 * NS_PER_S)

/* Ticks from *now for `span`; all effects seen. */
static unsigned ticks(struct cc_member *m, enum cc_member_event event, uint64_t *now, uint64_t span,
		      unsigned *pings)
{
	unsigned seen = 0;

	for (uint64_t end = *now + span; *now < end;) {
		unsigned effects;

		*now += STEP_NS;
		effects = cc_member_step(m, event, *now);
		if (pings && (effects & CC_MEMBER_PING))
			(*pings)++;
		seen |= effects;
	}
	return seen;
}

Test(member, pings_ten_times_a_second)
{
	struct cc_member m;
	uint64_t now = T0;
	unsigned pings = 0;

	cc_member_init(&m, DEAD_NS, now);
	ticks(&m, CC_MEMBER_TICK, &now, NS_PER_S, &pings);
	cr_expect_eq(pings, 10);
}

Test(member, silent_then_back)
{
	struct cc_member m;
	uint64_t now = T0;

	cc_member_init(&m, DEAD_NS, now);
	cr_expect_eq(ticks(&m, CC_MEMBER_TICK, &now, 900 * NS_PER_MS, NULL) & ~CC_MEMBER_PING, 0);
	cr_expect(ticks(&m, CC_MEMBER_TICK, &now, 200 * NS_PER_MS, NULL) & CC_MEMBER_SILENT);
	cr_expect_eq(m.state, CC_MEMBER_QUIET);
	cr_expect_eq(ticks(&m, CC_MEMBER_TICK, &now, NS_PER_S, NULL) & ~CC_MEMBER_PING, 0,
		     "said once");
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_HEARD, now), CC_MEMBER_BACK);
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_HEARD, now), 0);
	cr_expect_eq(m.state, CC_MEMBER_UP);
}

Test(member, dead_after_its_time_and_for_good)
{
	struct cc_member m;
	uint64_t now = T0;

	cc_member_init(&m, DEAD_NS, now);
	cr_expect_not(ticks(&m, CC_MEMBER_TICK, &now, DEAD_NS, NULL) & CC_MEMBER_LOST);
	cr_expect(ticks(&m, CC_MEMBER_TICK, &now, STEP_NS, NULL) & CC_MEMBER_LOST);
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_HEARD, now), 0);
	cr_expect_eq(ticks(&m, CC_MEMBER_TICK, &now, NS_PER_S, NULL), 0);
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_CLOSED, now), 0);
	cr_expect_eq(m.state, CC_MEMBER_DEAD);
}

Test(member, closed_is_dead_at_once)
{
	struct cc_member m;

	cc_member_init(&m, DEAD_NS, T0);
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_CLOSED, T0), CC_MEMBER_LOST);
}

Test(member, own_sleep_is_not_the_peers_silence)
{
	struct cc_member m;
	uint64_t now = T0;

	cc_member_init(&m, DEAD_NS, now);
	ticks(&m, CC_MEMBER_TICK, &now, 800 * NS_PER_MS, NULL);
	now += 3600 * NS_PER_S;
	cr_expect_eq(cc_member_step(&m, CC_MEMBER_TICK, now), CC_MEMBER_PING);
	cr_expect(ticks(&m, CC_MEMBER_TICK, &now, 300 * NS_PER_MS, NULL) & CC_MEMBER_SILENT,
		  "but silence before it counts");
}

Test(member, nobody_dies_while_we_are_deaf)
{
	struct cc_member m;
	uint64_t now = T0;
	unsigned pings = 0;

	cc_member_init(&m, DEAD_NS, now);
	cr_expect_eq(ticks(&m, CC_MEMBER_DEAF, &now, 20 * NS_PER_S, &pings) & ~CC_MEMBER_PING, 0);
	cr_expect_geq(pings, 190, "the other side must still hear us");
	cr_expect_leq(m.heard_ns, now);
	cr_expect(ticks(&m, CC_MEMBER_TICK, &now, DEAD_NS + STEP_NS, NULL) & CC_MEMBER_LOST);
}

/* --- verdict ---------------------------------------------------------------------------------- */

static const struct cc_ended poweroff = { CC_END_POWEROFF, 0, "off", "" };
static const struct cc_ended lost_1 = { CC_END_PEER_LOST, 1, "killed", "" };
static const struct cc_ended error_0 = { CC_END_ERROR, 0, "no memory", "" };
static const struct cc_ended crash_0 = { CC_END_CRASH, 0, "triple fault", "rip 0" };

Test(verdict, the_guests_own_end_is_firm)
{
	struct cc_verdict v = { 0 };

	cc_verdict_report(&v, 0, &poweroff, T0);
	cr_expect(v.settled);
	cc_verdict_report(&v, 1, &lost_1, T0); /* what follows is only the aftermath */
	cr_expect_eq(v.reason, CC_END_POWEROFF);
}

Test(verdict, a_neighbours_word_waits_for_better_news)
{
	struct cc_verdict v = { 0 };

	cc_verdict_report(&v, 0, &lost_1, T0);
	cr_expect_not(v.settled);
	cc_verdict_tick(&v, T0 + CC_VERDICT_GRACE_NS - 1);
	cr_expect_not(v.settled);
	cc_verdict_report(&v, 0, &crash_0, T0 + 1);
	cr_expect(v.settled);
	cr_expect_eq(v.reason, CC_END_CRASH);
	cr_expect_str_eq(v.dump, "rip 0");
}

Test(verdict, without_better_news_the_word_stands)
{
	struct cc_verdict v = { 0 };

	cc_verdict_report(&v, 0, &error_0, T0);
	cc_verdict_report(&v, 2, &lost_1, T0 + 1); /* names a cause: better than a symptom */
	cc_verdict_report(&v, 0, &error_0, T0 + 2);
	cc_verdict_tick(&v, T0 + CC_VERDICT_GRACE_NS);
	cr_expect(v.settled);
	cr_expect_eq(v.reason, CC_END_PEER_LOST);
	cr_expect_eq(v.node, 1);
}

Test(verdict, the_nodes_own_agent_is_firm)
{
	struct cc_verdict v = { 0 };

	cc_verdict_report(&v, 0, &error_0, T0);
	cc_verdict_report(&v, 1, &lost_1, T0);
	cr_expect(v.settled);
	cr_expect_eq(v.reason, CC_END_PEER_LOST);
	cr_expect_str_eq(v.text, "killed");
}

Test(verdict, long_texts_are_cut)
{
	struct cc_verdict *v = calloc(1, sizeof(*v));
	char *text = malloc(100000);
	struct cc_ended e = { CC_END_CRASH, 0, text, text };

	memset(text, 'x', 99999);
	text[99999] = 0;
	cc_verdict_report(v, 0, &e, T0);
	cr_expect_eq(strlen(v->text), CC_VERDICT_TEXT - 1);
	cr_expect_eq(strlen(v->dump), CC_VERDICT_DUMP - 1);
	free(text);
	free(v);
}
