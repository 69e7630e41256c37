/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/core/handoff.c - see handoff.h: the steps.
 *
 * What      Why each step is safe rests on one fact: only who has the token makes generations.  Thus whoever
 *           speaks of a higher generation than that of a STATE proves that the STATE was taken.
 * Owns nothing; pure.  Invariants H1 to H9 of docs/migration.md, checked by tests/check/handoff.c.
 */
#include "vcpu-migrate/core/handoff.h"

#include "base/assert.h"

static struct ho_effect *effect(struct ho_effects *fx, enum ho_effect_kind kind, node_id node)
{
	struct ho_effect *e = &fx->list[fx->count];

	ASSERT(fx->count < HO_EFFECTS_MAX);
	fx->count++;
	*e = (struct ho_effect){ .kind = kind, .node = node };
	return e;
}

static void send(const struct ho_vcpu *h, node_id to, enum ho_msg_kind kind, uint32_t gen,
		 enum ho_result why, struct ho_effects *fx)
{
	effect(fx, HO_SEND, to)->msg = (struct ho_msg){
		.kind = kind,
		.vcpu = h->vcpu,
		.why = (uint8_t)why,
		.gen = gen,
	};
}

static void done(uint64_t order, enum ho_result result, struct ho_effects *fx)
{
	struct ho_effect *e = effect(fx, HO_DONE, NODE_NONE);

	e->order = order;
	e->result = result;
}

/* The move under way from here has ended. */
static void leave(struct ho_vcpu *h, enum ho_phase phase, enum ho_result result,
		  struct ho_effects *fx)
{
	h->phase = phase;
	h->peer = NODE_NONE;
	if (phase == HO_HERE)
		h->where = h->self;
	done(h->order, result, fx);
}

/* What a target tells about a generation; of an older one than its last it knows only that it was taken:
 * a source that still waits for the answer cannot have had it back, or there were no later one. */
static void answer(const struct ho_vcpu *h, node_id to, uint32_t gen, struct ho_effects *fx)
{
	if (gen < h->tried || h->verdict == HO_MOVED)
		send(h, to, HO_MSG_TAKEN, gen, 0, fx);
	else
		send(h, to, HO_MSG_RETURN, gen, h->verdict, fx);
}

static bool holds(const struct ho_vcpu *h)
{
	return h->phase != HO_AWAY && h->phase != HO_SENT;
}

/* `node` had the vCPU at generation gen: where to look for it, if this is news; and a STATE that was sent
 * before has been taken. */
static void learn(struct ho_vcpu *h, node_id node, uint32_t gen, struct ho_effects *fx)
{
	if (h->phase == HO_SENT && (gen > h->gen || (gen == h->gen && node == h->peer)))
		leave(h, HO_AWAY, HO_MOVED, fx);
	else if (h->phase != HO_AWAY || gen <= h->gen)
		return;
	h->where = node;
	h->gen = gen;
}

void ho_init(struct ho_vcpu *h, uint8_t vcpu, node_id self, node_id home)
{
	*h = (struct ho_vcpu){
		.phase = self == home ? HO_HERE : HO_AWAY,
		.vcpu = vcpu,
		.self = self,
		.where = home,
		.peer = NODE_NONE,
		.verdict = HO_MOVED,
	};
}

bool ho_may_run(const struct ho_vcpu *h)
{
	return holds(h) && h->phase != HO_INSTALLING;
}

void ho_order(struct ho_vcpu *h, node_id to, uint64_t order, struct ho_effects *fx)
{
	if (h->phase == HO_AWAY) {
		done(order, HO_NOT_HERE, fx);
	} else if (h->phase != HO_HERE || h->gen == UINT32_MAX) {
		done(order, HO_BUSY, fx);
	} else if (to == h->self) {
		done(order, HO_THERE, fx);
	} else {
		h->phase = HO_OFFERED;
		h->peer = to;
		h->order = order;
		h->gen++;
		send(h, to, HO_MSG_OFFER, h->gen, 0, fx);
	}
}

static bool on_offer(struct ho_vcpu *h, node_id from, uint32_t gen, enum ho_result willing,
		     struct ho_effects *fx)
{
	if (gen <= h->gen)
		return gen > 0; /* late: that move has ended */
	if (holds(h))
		return false;
	learn(h, from, gen - 1, fx);
	if (h->phase == HO_SENT)
		return false;
	if (willing == HO_MOVED)
		send(h, from, HO_MSG_ACCEPT, gen, 0, fx);
	else
		send(h, from, HO_MSG_REFUSE, gen, willing, fx);
	return true;
}

static bool on_state(struct ho_vcpu *h, node_id from, uint32_t gen, struct ho_effects *fx)
{
	if (gen == 0)
		return false;
	if (gen <= h->tried) {
		answer(h, from, gen, fx);
		return true;
	}
	if (gen <= h->gen) /* doubled: the answer will come with the installation */
		return h->phase == HO_INSTALLING && gen == h->gen && from == h->where;
	if (holds(h))
		return false;
	learn(h, from, gen - 1, fx);
	if (h->phase == HO_SENT)
		return false;
	h->phase = HO_INSTALLING;
	h->gen = gen;
	h->peer = h->where = from;
	effect(fx, HO_INSTALL, from);
	return true;
}

static bool on_home(struct ho_vcpu *h, node_id node, uint32_t gen, struct ho_effects *fx)
{
	if (gen > h->gen && (holds(h) || node == h->self))
		return false;
	learn(h, node, gen, fx);
	return true;
}

/* ACCEPT, REFUSE, TAKEN, RETURN: of the move under way, or late. */
static bool on_answer(struct ho_vcpu *h, node_id from, const struct ho_msg *m,
		      struct ho_effects *fx)
{
	bool to_offer = m->kind == HO_MSG_ACCEPT || m->kind == HO_MSG_REFUSE;
	bool reason = m->kind == HO_MSG_REFUSE || m->kind == HO_MSG_RETURN;

	if (m->gen > h->gen || (reason && (m->why < HO_FULL || m->why > HO_STATE)))
		return false;
	if (m->gen < h->gen || h->phase != (to_offer ? HO_OFFERED : HO_SENT))
		return true;
	if (from != h->peer)
		return false;
	switch (m->kind) {
	case HO_MSG_ACCEPT:
		h->phase = HO_STOPPING;
		effect(fx, HO_STOP, NODE_NONE);
		break;
	case HO_MSG_TAKEN:
		learn(h, from, m->gen, fx);
		break;
	case HO_MSG_RETURN:
		effect(fx, HO_RUN, NODE_NONE);
		leave(h, HO_HERE, m->why, fx);
		break;
	default:
		leave(h, HO_HERE, m->why, fx);
	}
	return true;
}

bool ho_on_msg(struct ho_vcpu *h, node_id from, const struct ho_msg *msg, enum ho_result willing,
	       struct ho_effects *fx)
{
	if (msg->vcpu != h->vcpu || from == h->self)
		return false;
	switch (msg->kind) {
	case HO_MSG_OFFER:
		return on_offer(h, from, msg->gen, willing, fx);
	case HO_MSG_STATE:
		return on_state(h, from, msg->gen, fx);
	case HO_MSG_HOME:
		return on_home(h, msg->node, msg->gen, fx);
	case HO_MSG_ACCEPT:
	case HO_MSG_REFUSE:
	case HO_MSG_TAKEN:
	case HO_MSG_RETURN:
		return on_answer(h, from, msg, fx);
	default:
		return false;
	}
}

void ho_captured(struct ho_vcpu *h, struct ho_effects *fx)
{
	if (h->phase != HO_STOPPING)
		return;
	h->phase = HO_SENT;
	h->where = h->peer;
	send(h, h->peer, HO_MSG_STATE, h->gen, 0, fx);
}

void ho_installed(struct ho_vcpu *h, enum ho_result how, struct ho_effects *fx)
{
	node_id source = h->peer;

	ASSERT(h->phase == HO_INSTALLING);
	ASSERT(how == HO_MOVED || (how >= HO_FULL && how <= HO_STATE));
	h->peer = NODE_NONE;
	h->tried = h->gen;
	h->verdict = (uint8_t)how;
	if (how == HO_MOVED) {
		h->phase = HO_HERE;
		h->where = h->self;
		effect(fx, HO_RUN, NODE_NONE);
	} else {
		h->phase = HO_AWAY;
	}
	if (source != NODE_NONE)
		answer(h, source, h->gen, fx);
	else if (how != HO_MOVED)
		effect(fx, HO_LOST, h->where);
	if (how == HO_MOVED)
		effect(fx, HO_TELL, NODE_NONE)->msg = (struct ho_msg){
			.kind = HO_MSG_HOME,
			.vcpu = h->vcpu,
			.node = h->self,
			.gen = h->gen,
		};
}

void ho_tick(struct ho_vcpu *h, struct ho_effects *fx)
{
	if (h->phase == HO_OFFERED)
		send(h, h->peer, HO_MSG_OFFER, h->gen, 0, fx);
	else if (h->phase == HO_SENT)
		send(h, h->peer, HO_MSG_STATE, h->gen, 0, fx);
}

void ho_greet(const struct ho_vcpu *h, node_id node, struct ho_effects *fx)
{
	/* What brought it here was the last that this node took; later numbers are burned or not yet used. */
	if (ho_may_run(h))
		effect(fx, HO_SEND, node)->msg = (struct ho_msg){
			.kind = HO_MSG_HOME,
			.vcpu = h->vcpu,
			.node = h->self,
			.gen = h->tried,
		};
}

void ho_peer_lost(struct ho_vcpu *h, node_id peer, struct ho_effects *fx)
{
	if (h->peer != peer)
		return;
	switch (h->phase) {
	case HO_STOPPING:
		effect(fx, HO_RUN, NODE_NONE);
		leave(h, HO_HERE, HO_PEER_LOST, fx);
		break;
	case HO_OFFERED:
		leave(h, HO_HERE, HO_PEER_LOST, fx);
		break;
	case HO_SENT:
		effect(fx, HO_LOST, peer);
		leave(h, HO_AWAY, HO_GONE, fx);
		break;
	default:
		h->peer = NODE_NONE; /* INSTALLING: the source will not hear the answer */
	}
}
