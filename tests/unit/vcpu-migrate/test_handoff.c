/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/vcpu-migrate/test_handoff.c - one node's steps, each with what it must say; tests/check/handoff.c
 * has the nodes together.
 */
#include "vcpu-migrate/core/handoff.h"

#include <criterion/criterion.h>
#include <string.h>

#define VCPU 3
#define ORDER 77

static struct ho_effects fx;

/* A step is over `fx`: emptied before. */
static struct ho_effects *step(void)
{
	memset(&fx, 0, sizeof(fx));
	return &fx;
}

static bool hear_why(struct ho_vcpu *h, node_id from, enum ho_msg_kind kind, uint32_t gen,
		     enum ho_result why)
{
	struct ho_msg m = { .kind = kind, .vcpu = VCPU, .gen = gen, .why = (uint8_t)why };

	return ho_on_msg(h, from, &m, HO_MOVED, step());
}

static bool hear(struct ho_vcpu *h, node_id from, enum ho_msg_kind kind, uint32_t gen)
{
	return hear_why(h, from, kind, gen, HO_MOVED);
}

static bool hear_home(struct ho_vcpu *h, node_id from, node_id node, uint32_t gen)
{
	struct ho_msg m = { .kind = HO_MSG_HOME, .vcpu = VCPU, .gen = gen, .node = node };

	return ho_on_msg(h, from, &m, HO_MOVED, step());
}

static void expect_none(void)
{
	cr_assert_eq(fx.count, 0u, "an effect of kind %d", fx.list[0].kind);
}

static void expect_count(unsigned count)
{
	cr_assert_eq(fx.count, count, "%u effects, not %u", fx.count, count);
}

static void expect_effect(unsigned i, enum ho_effect_kind kind)
{
	cr_assert_lt(i, fx.count);
	cr_assert_eq(fx.list[i].kind, kind, "effect %u is %d, not %d", i, fx.list[i].kind, kind);
}

static void expect_send(unsigned i, node_id to, enum ho_msg_kind kind, uint32_t gen,
			enum ho_result why)
{
	const struct ho_msg *m = &fx.list[i].msg;

	expect_effect(i, HO_SEND);
	cr_assert_eq(fx.list[i].node, to);
	cr_assert_eq(m->kind, kind, "message %d, not %d", m->kind, kind);
	cr_assert_eq(m->vcpu, VCPU);
	cr_assert_eq(m->gen, gen);
	cr_assert_eq(m->why, why);
}

static void expect_done(unsigned i, uint64_t order, enum ho_result result)
{
	expect_effect(i, HO_DONE);
	cr_assert_eq(fx.list[i].order, order);
	cr_assert_eq(fx.list[i].result, result, "result %d, not %d", fx.list[i].result, result);
}

static void expect_home(unsigned i, enum ho_effect_kind kind, node_id node, uint32_t gen)
{
	expect_effect(i, kind);
	cr_assert_eq(fx.list[i].msg.kind, HO_MSG_HOME);
	cr_assert_eq(fx.list[i].msg.vcpu, VCPU);
	cr_assert_eq(fx.list[i].msg.node, node);
	cr_assert_eq(fx.list[i].msg.gen, gen);
}

/* Node 0 with the vCPU, in phase `p` of a move to node 1, generation 1. */
static struct ho_vcpu source_in(enum ho_phase p)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 0, 0);
	if (p != HO_HERE)
		ho_order(&h, 1, ORDER, step());
	if (p != HO_HERE && p != HO_OFFERED)
		hear(&h, 1, HO_MSG_ACCEPT, 1);
	if (p == HO_SENT || p == HO_AWAY)
		ho_captured(&h, step());
	if (p == HO_AWAY)
		hear(&h, 1, HO_MSG_TAKEN, 1);
	cr_assert_eq(h.phase, p);
	return h;
}

/* Node 1, to which node 0 has sent generation 1. */
static struct ho_vcpu target_installing(void)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 1, 0);
	cr_assert(hear(&h, 0, HO_MSG_STATE, 1));
	cr_assert_eq(h.phase, HO_INSTALLING);
	return h;
}

Test(handoff, starts_at_home)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 0, 0);
	cr_assert(ho_may_run(&h));
	ho_init(&h, VCPU, 1, 0);
	cr_assert(!ho_may_run(&h));
	cr_assert_eq(h.where, 0);
}

Test(handoff, source_moves_it)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 0, 0);
	ho_order(&h, 1, ORDER, step());
	expect_count(1);
	expect_send(0, 1, HO_MSG_OFFER, 1, 0);
	cr_assert(ho_may_run(&h));
	cr_assert(hear(&h, 1, HO_MSG_ACCEPT, 1));
	expect_count(1);
	expect_effect(0, HO_STOP);
	cr_assert(ho_may_run(&h));
	ho_captured(&h, step());
	expect_count(1);
	expect_send(0, 1, HO_MSG_STATE, 1, 0);
	cr_assert(!ho_may_run(&h));
	cr_assert_eq(h.where, 1);
	cr_assert(hear(&h, 1, HO_MSG_TAKEN, 1));
	expect_count(1);
	expect_done(0, ORDER, HO_MOVED);
	cr_assert_eq(h.phase, HO_AWAY);
	cr_assert_eq(h.where, 1);
}

Test(handoff, target_takes_it)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 1, 0);
	cr_assert(hear(&h, 0, HO_MSG_OFFER, 1));
	expect_count(1);
	expect_send(0, 0, HO_MSG_ACCEPT, 1, 0);
	cr_assert_eq(h.phase, HO_AWAY, "an ACCEPT promises nothing");
	cr_assert(hear(&h, 0, HO_MSG_STATE, 1));
	expect_count(1);
	expect_effect(0, HO_INSTALL);
	cr_assert(!ho_may_run(&h));
	ho_installed(&h, HO_MOVED, step());
	expect_count(3);
	expect_effect(0, HO_RUN);
	expect_send(1, 0, HO_MSG_TAKEN, 1, 0);
	expect_home(2, HO_TELL, 1, 1);
	cr_assert(ho_may_run(&h));
	/* A doubled STATE is answered again, also when the vCPU has left. */
	cr_assert(hear(&h, 0, HO_MSG_STATE, 1));
	expect_count(1);
	expect_send(0, 0, HO_MSG_TAKEN, 1, 0);
	cr_assert_eq(h.phase, HO_HERE);
}

Test(handoff, target_returns_it)
{
	struct ho_vcpu h = target_installing();

	ho_installed(&h, HO_CORRUPT, step());
	expect_count(1);
	expect_send(0, 0, HO_MSG_RETURN, 1, HO_CORRUPT);
	cr_assert(!ho_may_run(&h));
	cr_assert_eq(h.where, 0);
	/* A doubled STATE of a burned generation never installs. */
	cr_assert(hear(&h, 0, HO_MSG_STATE, 1));
	expect_count(1);
	expect_send(0, 0, HO_MSG_RETURN, 1, HO_CORRUPT);
	cr_assert_eq(h.phase, HO_AWAY);
	/* The next does; of the burned one's answer only the source could still care. */
	cr_assert(hear(&h, 0, HO_MSG_STATE, 2));
	expect_effect(0, HO_INSTALL);
	cr_assert(hear(&h, 0, HO_MSG_STATE, 2));
	expect_none();
}

Test(handoff, source_gets_it_back)
{
	struct ho_vcpu h = source_in(HO_SENT);

	cr_assert(hear_why(&h, 1, HO_MSG_RETURN, 1, HO_VERSION));
	expect_count(2);
	expect_effect(0, HO_RUN);
	expect_done(1, ORDER, HO_VERSION);
	cr_assert(ho_may_run(&h));
	/* Its number is burned. */
	ho_order(&h, 1, ORDER + 1, step());
	expect_send(0, 1, HO_MSG_OFFER, 2, 0);
	cr_assert(hear(&h, 1, HO_MSG_ACCEPT, 1));
	cr_assert(hear_why(&h, 1, HO_MSG_RETURN, 1, HO_VERSION));
	expect_none();
	cr_assert_eq(h.phase, HO_OFFERED);
}

Test(handoff, offer_is_refused)
{
	struct ho_vcpu h = source_in(HO_OFFERED);
	struct ho_msg m = { .kind = HO_MSG_OFFER, .vcpu = VCPU, .gen = 1 };

	cr_assert(hear_why(&h, 1, HO_MSG_REFUSE, 1, HO_FULL));
	expect_count(1);
	expect_done(0, ORDER, HO_FULL);
	cr_assert_eq(h.phase, HO_HERE);
	cr_assert(hear(&h, 1, HO_MSG_ACCEPT, 1), "late");
	expect_none();
	cr_assert_eq(h.phase, HO_HERE);

	ho_init(&h, VCPU, 1, 0);
	cr_assert(ho_on_msg(&h, 0, &m, HO_LEAVING, step()));
	expect_count(1);
	expect_send(0, 0, HO_MSG_REFUSE, 1, HO_LEAVING);
}

Test(handoff, orders_that_cannot_be)
{
	static const enum ho_phase busy[] = { HO_OFFERED, HO_STOPPING, HO_SENT };
	struct ho_vcpu h = source_in(HO_HERE);

	ho_order(&h, 0, 5, step());
	expect_count(1);
	expect_done(0, 5, HO_THERE);
	for (unsigned i = 0; i < 3; i++) {
		h = source_in(busy[i]);
		ho_order(&h, 2, 5, step());
		expect_count(1);
		expect_done(0, 5, HO_BUSY);
		cr_assert_eq(h.order, ORDER);
	}
	h = target_installing();
	ho_order(&h, 2, 5, step());
	expect_done(0, 5, HO_BUSY);
	h = source_in(HO_AWAY);
	ho_order(&h, 2, 5, step());
	expect_done(0, 5, HO_NOT_HERE);
	/* No number is left. */
	h = source_in(HO_HERE);
	h.gen = UINT32_MAX;
	ho_order(&h, 1, 5, step());
	expect_count(1);
	expect_done(0, 5, HO_BUSY);
}

Test(handoff, ticks_say_it_again)
{
	struct ho_vcpu h = source_in(HO_OFFERED);

	ho_tick(&h, step());
	expect_count(1);
	expect_send(0, 1, HO_MSG_OFFER, 1, 0);
	h = source_in(HO_SENT);
	ho_tick(&h, step());
	expect_count(1);
	expect_send(0, 1, HO_MSG_STATE, 1, 0);
	h = source_in(HO_HERE);
	ho_tick(&h, step());
	expect_none();
	h = source_in(HO_STOPPING);
	ho_tick(&h, step());
	expect_none();
	h = source_in(HO_AWAY);
	ho_tick(&h, step());
	expect_none();
	h = target_installing();
	ho_tick(&h, step());
	expect_none();
}

Test(handoff, peer_lost)
{
	struct ho_vcpu h = source_in(HO_OFFERED);

	ho_peer_lost(&h, 2, step());
	expect_none();
	ho_peer_lost(&h, 1, step());
	expect_count(1);
	expect_done(0, ORDER, HO_PEER_LOST);
	cr_assert_eq(h.phase, HO_HERE);

	h = source_in(HO_STOPPING);
	ho_peer_lost(&h, 1, step());
	expect_count(2);
	expect_effect(0, HO_RUN);
	expect_done(1, ORDER, HO_PEER_LOST);
	/* The thread was on its way: its capture counts for nothing, or for the next move. */
	ho_captured(&h, step());
	expect_none();
	cr_assert(ho_may_run(&h));

	h = source_in(HO_SENT);
	ho_peer_lost(&h, 1, step());
	expect_count(2);
	expect_effect(0, HO_LOST);
	cr_assert_eq(fx.list[0].node, 1);
	expect_done(1, ORDER, HO_GONE);
	cr_assert(!ho_may_run(&h));
	ho_peer_lost(&h, 1, step());
	expect_none();

	h = source_in(HO_AWAY);
	ho_peer_lost(&h, 1, step());
	expect_none();
}

Test(handoff, source_lost_while_installing)
{
	struct ho_vcpu h = target_installing();

	ho_peer_lost(&h, 0, step());
	expect_none();
	ho_installed(&h, HO_MOVED, step());
	expect_count(2);
	expect_effect(0, HO_RUN);
	expect_home(1, HO_TELL, 1, 1);

	h = target_installing();
	ho_peer_lost(&h, 0, step());
	ho_installed(&h, HO_STATE, step());
	expect_count(1);
	expect_effect(0, HO_LOST);
	cr_assert_eq(fx.list[0].node, 0);
	cr_assert_eq(h.phase, HO_AWAY);
}

Test(handoff, only_newer_homes_count)
{
	struct ho_vcpu h;

	ho_init(&h, VCPU, 2, 0);
	cr_assert(hear_home(&h, 1, 1, 4));
	cr_assert_eq(h.where, 1);
	cr_assert(hear_home(&h, 3, 3, 4));
	cr_assert(hear_home(&h, 0, 0, 2));
	cr_assert_eq(h.where, 1);
	cr_assert(hear_home(&h, 0, 0, 5));
	cr_assert_eq(h.where, 0);
	expect_none();
	/* An offer says where it is, too. */
	cr_assert(hear(&h, 1, HO_MSG_OFFER, 9));
	cr_assert_eq(h.where, 1);
	cr_assert_eq(h.gen, 8u);
}

Test(handoff, news_of_later_moves_prove_that_it_was_taken)
{
	struct ho_vcpu h = source_in(HO_SENT);

	cr_assert(hear_home(&h, 1, 1, 1));
	expect_count(1);
	expect_done(0, ORDER, HO_MOVED);

	h = source_in(HO_SENT);
	cr_assert(hear_home(&h, 2, 2, 2));
	expect_done(0, ORDER, HO_MOVED);
	cr_assert_eq(h.where, 2);
	cr_assert(hear(&h, 1, HO_MSG_TAKEN, 1), "late");
	expect_none();
	cr_assert_eq(h.where, 2);

	h = source_in(HO_SENT);
	cr_assert(hear(&h, 2, HO_MSG_OFFER, 3));
	expect_count(2);
	expect_done(0, ORDER, HO_MOVED);
	expect_send(1, 2, HO_MSG_ACCEPT, 3, 0);

	h = source_in(HO_SENT);
	cr_assert(hear(&h, 1, HO_MSG_STATE, 2));
	expect_count(2);
	expect_done(0, ORDER, HO_MOVED);
	expect_effect(1, HO_INSTALL);
	cr_assert_eq(h.phase, HO_INSTALLING);

	h = source_in(HO_SENT);
	cr_assert(hear_home(&h, 2, 2, 0), "old news");
	expect_none();
	cr_assert_eq(h.phase, HO_SENT);
	cr_assert_eq(h.where, 1);
}

Test(handoff, state_of_a_move_before_the_last_was_taken)
{
	struct ho_vcpu h = target_installing();

	ho_installed(&h, HO_MOVED, step());
	ho_order(&h, 2, ORDER, step());
	hear(&h, 2, HO_MSG_ACCEPT, 2);
	ho_captured(&h, step());
	hear(&h, 2, HO_MSG_TAKEN, 2);
	hear(&h, 2, HO_MSG_STATE, 3);
	ho_installed(&h, HO_CORRUPT, step());
	/* The first source has heard nothing of all that. */
	cr_assert(hear(&h, 0, HO_MSG_STATE, 1));
	expect_count(1);
	expect_send(0, 0, HO_MSG_TAKEN, 1, 0);
}

Test(handoff, greets_who_joins)
{
	struct ho_vcpu h = source_in(HO_HERE);

	ho_greet(&h, 2, step());
	expect_count(1);
	expect_home(0, HO_SEND, 0, 0);
	cr_assert_eq(fx.list[0].node, 2);
	h = target_installing();
	ho_greet(&h, 2, step());
	expect_none();
	ho_installed(&h, HO_MOVED, step());
	/* A try under way does not count: it may yet bring the vCPU elsewhere under this number. */
	ho_order(&h, 2, ORDER, step());
	ho_greet(&h, 2, step());
	expect_home(0, HO_SEND, 1, 1);
	h = source_in(HO_SENT);
	ho_greet(&h, 2, step());
	expect_none();
}

/* What no sound peer sends changes nothing. */
Test(handoff, refuses_what_cannot_be)
{
	static const enum ho_phase all[] = { HO_AWAY, HO_HERE, HO_OFFERED, HO_STOPPING, HO_SENT };
	static const struct {
		node_id from;
		struct ho_msg msg;
	} bad[] = {
		{ 0, { .kind = HO_MSG_TAKEN, .vcpu = VCPU, .gen = 1 } },		      /* from itself */
		{ 1, { .kind = HO_MSG_TAKEN, .vcpu = VCPU + 1, .gen = 1 } },		      /* another vCPU */
		{ 1, { .kind = HO_MSG_TAKEN, .vcpu = VCPU, .gen = 2 } },		      /* not sent */
		{ 1, { .kind = HO_MSG_ACCEPT, .vcpu = VCPU, .gen = 2 } },		      /* not offered */
		{ 1, { .kind = HO_MSG_REFUSE, .vcpu = VCPU, .gen = 1, .why = HO_MOVED } },    /* no reason */
		{ 1, { .kind = HO_MSG_RETURN, .vcpu = VCPU, .gen = 1, .why = HO_RESULTS } },  /* no reason */
		{ 1, { .kind = HO_MSG_RETURN, .vcpu = VCPU, .gen = 1, .why = HO_PEER_LOST } }, /* not a target's */
		{ 1, { .kind = HO_MSG_OFFER, .vcpu = VCPU, .gen = 0 } },		      /* no move */
		{ 1, { .kind = HO_MSG_STATE, .vcpu = VCPU, .gen = 0 } },
		{ 1, { .kind = HO_MSG_STATE, .vcpu = VCPU, .gen = 1 } },		      /* its own number */
		{ 1, { .kind = HO_MSG_HOME, .vcpu = VCPU, .node = 0, .gen = 9 } },	      /* it would know */
		{ 1, { .kind = HO_MSG_KINDS, .vcpu = VCPU, .gen = 1 } },
		{ 1, { .kind = 0, .vcpu = VCPU, .gen = 1 } },
	};

	for (unsigned p = 0; p < 5; p++) {
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			struct ho_vcpu h = source_in(all[p]), before = h;

			if (all[p] == HO_HERE)
				h.gen = before.gen = 1;
			cr_assert(!ho_on_msg(&h, bad[i].from, &bad[i].msg, HO_MOVED, step()),
				  "message %u in phase %d", i, all[p]);
			expect_none();
			cr_assert_eq(memcmp(&h, &before, sizeof(h)), 0);
		}
	}
}

/* A holder hears of no other one; only the peer of a move speaks on it. */
Test(handoff, refuses_a_second_token)
{
	static const enum ho_phase holder[] = { HO_HERE, HO_OFFERED, HO_STOPPING };
	struct ho_vcpu h;

	for (unsigned p = 0; p < 3; p++) {
		h = source_in(holder[p]);
		cr_assert(!hear(&h, 1, HO_MSG_STATE, 5));
		cr_assert(!hear(&h, 1, HO_MSG_OFFER, 5));
		cr_assert(!hear_home(&h, 1, 1, 5));
		cr_assert_eq(h.phase, holder[p]);
	}
	h = target_installing();
	cr_assert(!hear(&h, 2, HO_MSG_STATE, 2));
	cr_assert(!hear(&h, 2, HO_MSG_STATE, 1));
	cr_assert_eq(h.peer, 0);
	h = source_in(HO_OFFERED);
	cr_assert(!hear(&h, 2, HO_MSG_ACCEPT, 1));
	h = source_in(HO_SENT);
	cr_assert(!hear(&h, 2, HO_MSG_TAKEN, 1));
	cr_assert(!hear_why(&h, 2, HO_MSG_RETURN, 1, HO_FULL));
	cr_assert(!hear(&h, 2, HO_MSG_OFFER, 2), "only the target could go on from generation 1");
	cr_assert(!hear(&h, 2, HO_MSG_STATE, 2));
	cr_assert_eq(h.phase, HO_SENT);
}
