/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.c - vCPUs that come and go: what a vCPU's own thread does for it, and orders.
 *
 * What      The thread captures its vCPU between two instructions, installs what comes, and while the vCPU is elsewhere
 *           passes on whatever lands in its mailbox: so no interrupt is lost, and none is delivered twice.
 * Threads   attend, resumed: the vCPU's.  Orders: any.  Callbacks of mig: any, under its lock.
 * Limits    A vCPU is captured only where its engine tells all there is (hv_engine.settle); until then it runs on.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "hv/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TSC_WAIT_NS (10 * NS_PER_MS) /* clocks of nodes differ by less */

/* --- in the vCPU's thread ----------------------------------------------------------------------------------------- */

static void capture(struct hv_cpu *c)
{
	const struct hv_engine *e = c->slice->engine;
	uint64_t stopped_ns = clock_now_ns();
	uint8_t bytes[HV_SNAPSHOT_MAX];
	struct hv_snapshot snap = {
		.halted = c->halted,
		.deadline_tsc = c->deadline_tsc,
		.addr_seq = c->addr_seq,
		.stopped_tsc = hv_clock_guest_tsc(&c->slice->clock),
	};
	size_t len;

	e->get_state(c->engine_vcpu, &snap.cpu);
	hv_lapic_set_cr8(&c->lapic, e->get_tpr(c->engine_vcpu));
	snap.lapic = c->lapic;
	/* In the snapshot only: should the vCPU go on here, the engine still has it. */
	if (snap.cpu.irq_latched)
		hv_lapic_unack(&snap.lapic, snap.cpu.irq_vector);
	len = hv_snapshot_encode(&snap, bytes);
	mig_captured(c->slice->mig, c->id, bytes, len, stopped_ns, clock_now_ns());
}

static uint32_t ns_since_tsc(struct hv_slice *s, uint64_t tsc)
{
	uint64_t now = hv_clock_guest_tsc(&s->clock);

	return now > tsc ? (uint32_t)((now - tsc) * 1000000 / s->clock.tsc_khz) : 0;
}

/* The guest's time must not run backwards across a move: what is left of the clocks' error is waited for. */
static void wait_for_tsc(struct hv_slice *s, uint64_t tsc)
{
	uint64_t end = clock_now_ns() + TSC_WAIT_NS;

	while (hv_clock_guest_tsc(&s->clock) <= tsc && clock_now_ns() < end)
		__builtin_ia32_pause();
}

static enum ho_result take_in(struct hv_cpu *c, struct hv_snapshot *snap,
			      const struct mig_incoming *in)
{
	struct hv_slice *s = c->slice;
	int err = hv_snapshot_decode(in->snapshot, in->len, snap);

	if (err || snap->lapic.id != c->id)
		return err == -EPROTO ? HO_VERSION : HO_CORRUPT;
	if (atomic_load(&s->moves.leaving))
		return HO_LEAVING;
	if (hv_cpu_engine_open(c))
		return HO_FULL;
	snap->cpu.tsc_offset = s->clock.offset;
	wait_for_tsc(s, snap->stopped_tsc);
	return s->engine->set_state(c->engine_vcpu, &snap->cpu) ? HO_STATE : HO_MOVED;
}

static void install(struct hv_cpu *c)
{
	struct hv_slice *s = c->slice;
	struct mig_incoming in;
	struct hv_snapshot snap;
	enum ho_result how;

	mig_incoming(s->mig, c->id, &in);
	how = take_in(c, &snap, &in);
	if (how == HO_MOVED) {
		uint64_t now = clock_now_ns();
		uint32_t pause = ns_since_tsc(s, snap.stopped_tsc),
			 restore = (uint32_t)(now - in.arrived_ns);
		uint32_t known = in.capture_ns + restore;

		c->lapic = snap.lapic;
		c->halted = snap.halted;
		c->deadline_tsc = snap.deadline_tsc;
		c->addr_seq = snap.addr_seq;
		c->arrival.fresh = true;
		c->arrival.installed_ns = now;
		c->arrival.stopped_tsc = snap.stopped_tsc;
		c->arrival.part[MIG_CAPTURE] = in.capture_ns;
		c->arrival.part[MIG_SEND] = pause > known ? pause - known : 0;
		c->arrival.part[MIG_RESTORE] = restore;
		mig_installed(s->mig, c->id, how, pause);
	} else {
		log_warn("move: vCPU %u cannot come here: %s", c->id, ho_result_text(how));
		mig_installed(s->mig, c->id, how, 0);
	}
}

static void pass(struct hv_cpu *c, node_id to, enum hv_intr_mode mode, uint8_t vector, bool level)
{
	struct hv_msg m = { .kind = HV_MSG_IPI };

	m.ipi.mode = (uint8_t)mode;
	m.ipi.vector = vector;
	m.ipi.level = level;
	hv_vcpu_set_add(&m.ipi.to, c->id);
	hv_link_send(c->slice, to, &m);
}

static void pass_vectors(struct hv_cpu *c, node_id to, const uint64_t words[4], bool level)
{
	for (unsigned w = 0; w < 4; w++)
		for (uint64_t bits = words[w]; bits; bits &= bits - 1)
			pass(c, to, HV_INTR_FIXED,
			     (uint8_t)(w * 64 + (unsigned)__builtin_ctzll(bits)), level);
}

/* The vCPU is elsewhere.  What is taken from the mailbox here goes to where it was then; should it be on its way back, that
 * node passes it on again, behind it. */
static void pass_on(struct hv_cpu *c)
{
	struct hv_mail mail;
	node_id to = mig_where(c->slice->mig, c->id);

	if (to == c->slice->spec->self)
		return;
	if (!hv_cpu_mail_take(c, &mail)) {
		hv_cpu_wait(c, HV_NEVER);
		return;
	}
	pass_vectors(c, to, mail.edge, false);
	pass_vectors(c, to, mail.level, true);
	if (mail.flags & MAIL_INIT)
		pass(c, to, HV_INTR_INIT, 0, false);
	if (mail.flags & MAIL_SIPI)
		pass(c, to, HV_INTR_SIPI, mail.flags & 0xff, false);
	if (mail.flags & MAIL_NMI)
		pass(c, to, HV_INTR_NMI, 0, false);
}

bool hv_move_attend(struct hv_cpu *c)
{
	switch (mig_task(c->slice->mig, c->id)) {
	case MIG_RUN:
		break;
	case MIG_TAKE:
		if (!c->slice->engine->settle(c->engine_vcpu)) {
			c->slice->engine->kick(c->engine_vcpu);
			return true;
		}
		capture(c);
		break;
	case MIG_INSTALL:
		install(c);
		break;
	case MIG_PASS:
		pass_on(c);
		break;
	}
	return false;
}

void hv_move_resumed(struct hv_cpu *c)
{
	c->arrival.fresh = false;
	c->arrival.part[MIG_RESUME] = (uint32_t)(clock_now_ns() - c->arrival.installed_ns);
	c->arrival.part[MIG_PAUSE] = ns_since_tsc(c->slice, c->arrival.stopped_tsc);
	mig_measured(c->slice->mig, c->arrival.part);
}

/* --- orders ------------------------------------------------------------------------------------------------------- */

struct hv_moved {
	struct hv_moved *next;
	struct mig_outcome o;
};

static void on_send(void *arg, node_id to, const struct ic_msg *msg)
{
	hv_link_send_raw(arg, to, msg);
}

static enum ho_result on_willing(void *arg, unsigned vcpu)
{
	struct hv_slice *s = arg;

	(void)vcpu;
	return atomic_load(&s->moves.leaving) ? HO_LEAVING : HO_MOVED;
}

static void on_attend(void *arg, unsigned vcpu)
{
	hv_cpu_kick(((struct hv_slice *)arg)->cpu[vcpu]);
}

static void on_done(void *arg, const struct mig_outcome *o)
{
	struct hv_slice *s = arg;
	struct hv_moved *d = malloc(sizeof(*d));

	if (!d) {
		hv_slice_end(s, CC_END_ERROR, s->spec->self, NULL, "out of memory");
		return;
	}
	*d = (struct hv_moved){ .o = *o };
	pthread_mutex_lock(&s->moves.lock);
	*s->moves.tail = d;
	s->moves.tail = &d->next;
	pthread_mutex_unlock(&s->moves.lock);
	hv_io_wake(s);
}

static void on_lost(void *arg, unsigned vcpu, node_id with)
{
	struct hv_slice *s = arg;

	hv_slice_end(s, CC_END_PEER_LOST, with, NULL, "node %s is lost, and vCPU %u with it",
		     s->spec->node_name[with], vcpu);
}

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	struct hv_slice *s = arg;

	pthread_mutex_lock(&s->gate);
	if (!s->deaf)
		mig_on_message(s->mig, from, msg);
	pthread_mutex_unlock(&s->gate);
}

int hv_move_open(struct hv_slice *s)
{
	static const struct mig_ops ops = { on_send, on_willing, on_attend, on_done, on_lost };
	char features[HV_CPUID_WORDS_MAX];

	struct mig_config cfg = {
		.self = s->spec->self,
		.nodes = s->spec->nodes,
		.vcpus = s->spec->vcpus,
		.home = s->spec->vcpu_node,
		.features = features,
		.ops = &ops,
		.arg = s,
	};
	int err;

	STATIC_ASSERT(HV_CPUID_WORDS_MAX <= MIG_FEATURES_MAX, "all words");
	pthread_mutex_init(&s->moves.lock, NULL);
	s->moves.tail = &s->moves.head;
	if (!s->multi)
		return 0;
	hv_cpuid_shown(s->cpuid, s->cpuid_count, features);
	err = mig_open(&cfg, &s->mig);
	if (!err)
		ic_set_handler(s->fabric, IC_PORT_MIGRATE, (struct ic_handler){ on_message, s });
	return err;
}

void hv_move_close(struct hv_slice *s)
{
	struct hv_moved *d;

	while ((d = s->moves.head)) {
		s->moves.head = d->next;
		free(d);
	}
	if (s->mig)
		mig_close(s->mig);
	s->mig = NULL;
	pthread_mutex_destroy(&s->moves.lock);
}

node_id hv_move_where(struct hv_slice *s, unsigned vcpu)
{
	return s->mig ? mig_where(s->mig, vcpu) : s->spec->self;
}

void hv_move_order(struct hv_slice *s, unsigned vcpu, node_id to, uint64_t order)
{
	struct mig_outcome o = {
		.order = order, .vcpu = (uint8_t)vcpu, .result = HO_THERE, .from = to, .to = to
	};

	if (s->mig)
		mig_order(s->mig, vcpu, to, order);
	else
		on_done(s, &o);
}

static struct hv_moved *next_outcome(struct hv_slice *s)
{
	struct hv_moved *d;

	pthread_mutex_lock(&s->moves.lock);
	d = s->moves.head;
	if (d && !(s->moves.head = d->next))
		s->moves.tail = &s->moves.head;
	pthread_mutex_unlock(&s->moves.lock);
	return d;
}

static void tell(struct hv_slice *s, const struct mig_outcome *o)
{
	char text[MIG_TEXT_MAX + 128];
	struct cc_answer a = {
		.id = o->order,
		.last = true,
		.ok = o->result == HO_MOVED,
		.vcpu = o->vcpu,
		.from = o->from,
		.to = o->to,
		.pause_ns = o->pause_ns,
		.text = text,
	};

	if (o->order & HV_ORDER_DRAIN) {
		hv_drain_moved(o);
		return;
	}
	if (o->order & HV_ORDER_OWN) {
		hv_balance_moved(s, o);
		return;
	}
	snprintf(text, sizeof(text), "%s%s%s", ho_result_text(o->result), *o->text ? ": " : "",
		 o->text);
	hv_slice_answer(s, &a);
}

bool hv_move_serve(struct hv_slice *s)
{
	struct hv_moved *d;
	uint64_t now;

	while ((d = next_outcome(s))) {
		tell(s, &d->o);
		free(d);
	}
	if (!s->mig)
		return false;
	now = clock_now_ns();
	if (now - s->moves.ticked_ns < HV_MOVE_TICK_NS)
		return mig_waiting(s->mig);
	s->moves.ticked_ns = now;
	return mig_tick(s->mig);
}
