/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migrate.c - the handoffs of one node: messages in and out, snapshots kept, orders answered; vcpu-migrate/migrate.h.
 *
 * What      Drives one ho_vcpu per vCPU and performs its effects.  An order is passed on to the node that has the vCPU
 *           and answered to the node that gave it.
 * Owns      The snapshot of each vCPU that is on its way from here or to here: one buffer each, since it is never both.
 * Threads   include/vcpu-migrate/migrate.h; task and where are read without the lock.
 * I/O       Through ops.send.
 */
#include "vcpu-migrate/migrate.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "vcpu-migrate/core/handoff.h"
#include "vcpu-migrate/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOPS_MAX 16u /* of an order that runs after a vCPU */
#define SAMPLES 4096u
#define ORDER_BITS 56u

struct samples {
	uint32_t ns[SAMPLES];
	uint64_t count; /* ever; the last SAMPLES are kept */
};

struct vcpu {
	struct ho_vcpu ho;
	_Atomic uint8_t task;
	_Atomic node_id where;
	bool waits;     /* for an answer: counted in mig.waiting */
	node_id target; /* of the order under way */
	uint32_t capture_ns, pause_ns;
	uint64_t stop_ns, arrived_ns; /* clock */
	size_t len;                   /* of snapshot */
	char why[MIG_TEXT_MAX];       /* of the last REFUSE */
	uint8_t snapshot[MIG_SNAPSHOT_MAX];
};

struct mig {
	struct mig_config cfg;
	char features[MIG_FEATURES_MAX];
	pthread_mutex_t lock;
	_Atomic unsigned waiting;
	bool lost[NODES_MAX];
	struct mig_stats stats;
	struct samples part[MIG_PARTS];
	struct vcpu vcpu[];
};

const char *ho_result_text(enum ho_result r)
{
	static const char *const text[HO_RESULTS] = {
		[HO_MOVED] = "moved",
		[HO_BUSY] = "another move of it is under way",
		[HO_THERE] = "it is there already",
		[HO_NOT_HERE] = "it could not be found: it moves too often",
		[HO_FULL] = "that node has no room for another vCPU",
		[HO_LEAVING] = "that node is being drained",
		[HO_FEATURES] = "that node does not show the CPU that the guest was shown",
		[HO_CORRUPT] = "its state arrived damaged",
		[HO_VERSION] = "that node speaks another version of the snapshot",
		[HO_STATE] = "that node's engine refuses its state",
		[HO_PEER_LOST] = "that node is lost",
		[HO_GONE] = "that node is lost, and the vCPU with it",
	};

	return r < HO_RESULTS ? text[r] : "?";
}

/* --- messages out ------------------------------------------------------------------------------------------------- */

static void send(struct mig *m, node_id to, const struct mig_msg *msg, const void *data, size_t len)
{
	uint8_t body[MIG_BODY_MAX];
	struct ic_msg ic = { .port = IC_PORT_MIGRATE, .body = body };

	ic.body_len = (uint16_t)mig_msg_encode(msg, body);
	ic.data = data;
	ic.data_len = (uint16_t)len;
	m->cfg.ops->send(m->cfg.arg, to, &ic);
}

/* Words of `list` that `other` has not got, behind `head`, as far as they fit. */
static void words_less(const char *list, const char *other, const char *head,
		       char text[static MIG_TEXT_MAX])
{
	char copy[MIG_FEATURES_MAX], *save = NULL;
	size_t at = strlen(text);

	snprintf(copy, sizeof(copy), "%s", list);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		const char *hit = other;
		size_t len = strlen(w);

		while ((hit = strstr(hit, w)) &&
		       ((hit > other && hit[-1] != ' ') || (hit[len] && hit[len] != ' ')))
			hit++;
		if (hit || at + strlen(head) + len + 2 >= MIG_TEXT_MAX)
			continue;
		at += (size_t)snprintf(text + at, MIG_TEXT_MAX - at, "%s %s", head, w);
		head = "";
	}
}

/* The guest must go on to see what it was shown: neither less nor more.  "": it would. */
static void features_compare(struct mig *m, const void *shown, size_t len,
			     char text[static MIG_TEXT_MAX])
{
	char theirs[MIG_FEATURES_MAX];

	snprintf(theirs, sizeof(theirs), "%.*s", (int)len, (const char *)shown);
	for (char *p = theirs; *p; p++)
		*p = *p > ' ' && *p <= '~' ? *p : ' ';
	words_less(theirs, m->features, "it lacks", text);
	words_less(m->features, theirs, *text ? ", and shows also" : "it shows also", text);
}

static void ho_send(struct mig *m, struct vcpu *v, node_id to, const struct ho_msg *msg,
		    const char *text)
{
	struct mig_msg out = { .kind = (uint8_t)msg->kind, .ho.msg = *msg };

	if (msg->kind == HO_MSG_STATE)
		out.ho.ns = v->capture_ns;
	if (msg->kind == HO_MSG_TAKEN)
		out.ho.ns = v->pause_ns;
	if (msg->kind == HO_MSG_REFUSE)
		snprintf(out.ho.text, sizeof(out.ho.text), "%s", text);
	if (msg->kind == HO_MSG_STATE)
		send(m, to, &out, v->snapshot, v->len);
	else if (msg->kind == HO_MSG_OFFER)
		send(m, to, &out, m->features, strlen(m->features));
	else
		send(m, to, &out, NULL, 0);
}

static void done(struct mig *m, const struct mig_outcome *o, node_id origin)
{
	if (origin == m->cfg.self) {
		m->cfg.ops->done(m->cfg.arg, o);
		return;
	}
	send(m, origin, &(struct mig_msg){ .kind = MIG_MSG_DONE, .done = *o }, NULL, 0);
}

static void order_ends(struct mig *m, struct vcpu *v, const struct ho_effect *e)
{
	struct mig_outcome o = {
		.order = e->order & ((1ull << ORDER_BITS) - 1),
		.vcpu = v->ho.vcpu,
		.result = e->result,
		.from = m->cfg.self,
		.to = v->target,
		.pause_ns = e->result == HO_MOVED ? v->pause_ns : 0,
	};

	if (e->result == HO_MOVED)
		m->stats.moved_out++;
	else
		m->stats.refused++;
	if (e->result == HO_FEATURES || e->result == HO_FULL)
		snprintf(o.text, sizeof(o.text), "%s", v->why);
	done(m, &o, (node_id)(e->order >> ORDER_BITS));
}

/* --- one vCPU's steps --------------------------------------------------------------------------------------------- */

static enum mig_task task_of(const struct ho_vcpu *h)
{
	switch (h->phase) {
	case HO_HERE:
	case HO_OFFERED:
		return MIG_RUN;
	case HO_STOPPING:
		return MIG_TAKE;
	case HO_INSTALLING:
		return MIG_INSTALL;
	case HO_AWAY:
	case HO_SENT:
		break;
	}
	return MIG_PASS;
}

static bool waits(const struct ho_vcpu *h)
{
	return h->phase == HO_OFFERED || h->phase == HO_SENT;
}

static void perform(struct mig *m, struct vcpu *v, const struct ho_effects *fx, const char *text)
{
	enum mig_task task = task_of(&v->ho);

	for (unsigned i = 0; i < fx->count; i++) {
		const struct ho_effect *e = &fx->list[i];

		switch (e->kind) {
		case HO_SEND:
			ho_send(m, v, e->node, &e->msg, text);
			break;
		case HO_TELL:
			for (unsigned n = 0; n < m->cfg.nodes; n++)
				if (n != m->cfg.self && !m->lost[n])
					ho_send(m, v, (node_id)n, &e->msg, "");
			break;
		case HO_STOP:
			v->stop_ns = clock_now_ns();
			break;
		case HO_INSTALL:
		case HO_RUN:
			break; /* attend was called */
		case HO_DONE:
			order_ends(m, v, e);
			break;
		case HO_LOST:
			m->cfg.ops->lost(m->cfg.arg, v->ho.vcpu, e->node);
			break;
		}
	}
	if (waits(&v->ho) != v->waits) {
		v->waits = !v->waits;
		atomic_fetch_add(&m->waiting, v->waits ? 1u : -1u);
	}
	/* After the messages: what is passed on to `where` must not overtake them. */
	atomic_store(&v->where, task == MIG_PASS ? v->ho.where : m->cfg.self);
	if (atomic_exchange(&v->task, (uint8_t)task) != task && task != MIG_PASS)
		m->cfg.ops->attend(m->cfg.arg, v->ho.vcpu);
}

enum mig_task mig_task(const struct mig *m, unsigned vcpu)
{
	return (enum mig_task)atomic_load_explicit(&m->vcpu[vcpu].task, memory_order_acquire);
}

node_id mig_where(const struct mig *m, unsigned vcpu)
{
	return atomic_load_explicit(&m->vcpu[vcpu].where, memory_order_acquire);
}

static void sample(struct samples *s, uint32_t ns)
{
	s->ns[s->count++ % SAMPLES] = ns;
}

void mig_captured(struct mig *m, unsigned vcpu, const void *snapshot, size_t len,
		  uint64_t stopped_ns, uint64_t captured_ns)
{
	struct vcpu *v = &m->vcpu[vcpu];
	struct ho_effects fx = { 0 };

	ASSERT(len <= MIG_SNAPSHOT_MAX);
	pthread_mutex_lock(&m->lock);
	memcpy(v->snapshot, snapshot, len);
	v->len = len;
	v->capture_ns = (uint32_t)(captured_ns - stopped_ns);
	if (len > m->stats.snapshot_bytes)
		m->stats.snapshot_bytes = (uint32_t)len;
	sample(&m->part[MIG_STOP],
	       (uint32_t)(stopped_ns > v->stop_ns ? stopped_ns - v->stop_ns : 0));
	ho_captured(&v->ho, &fx);
	perform(m, v, &fx, "");
	pthread_mutex_unlock(&m->lock);
}

void mig_incoming(struct mig *m, unsigned vcpu, struct mig_incoming *out)
{
	struct vcpu *v = &m->vcpu[vcpu];

	pthread_mutex_lock(&m->lock);
	out->len = v->len;
	out->capture_ns = v->capture_ns;
	out->arrived_ns = v->arrived_ns;
	memcpy(out->snapshot, v->snapshot, v->len);
	pthread_mutex_unlock(&m->lock);
}

void mig_installed(struct mig *m, unsigned vcpu, enum ho_result how, uint32_t pause_ns)
{
	struct vcpu *v = &m->vcpu[vcpu];
	struct ho_effects fx = { 0 };

	pthread_mutex_lock(&m->lock);
	v->pause_ns = pause_ns;
	if (how == HO_MOVED)
		m->stats.moved_in++;
	ho_installed(&v->ho, how, &fx);
	perform(m, v, &fx, "");
	pthread_mutex_unlock(&m->lock);
}

void mig_measured(struct mig *m, const uint32_t part[static MIG_PARTS])
{
	pthread_mutex_lock(&m->lock);
	for (unsigned k = MIG_CAPTURE; k < MIG_PARTS; k++)
		sample(&m->part[k], part[k]);
	pthread_mutex_unlock(&m->lock);
}

/* --- orders ------------------------------------------------------------------------------------------------------- */

static void order_step(struct mig *m, unsigned vcpu, node_id to, node_id origin, uint64_t order,
		       unsigned hops)
{
	struct vcpu *v = &m->vcpu[vcpu];
	struct ho_effects fx = { 0 };
	struct mig_msg on = { .kind = MIG_MSG_ORDER,
			      .order = { order, (uint8_t)vcpu, (uint8_t)(hops + 1), origin, to } };
	struct mig_outcome o = {
		.order = order, .vcpu = (uint8_t)vcpu, .from = m->cfg.self, .to = to
	};

	if (v->ho.phase == HO_AWAY && hops < HOPS_MAX && !m->lost[v->ho.where]) {
		send(m, v->ho.where, &on, NULL, 0);
		return;
	}
	if (v->ho.phase == HO_AWAY)
		o.result = m->lost[v->ho.where] ? HO_PEER_LOST : HO_NOT_HERE;
	else if (v->ho.phase != HO_HERE)
		o.result = HO_BUSY;
	else if (m->lost[to]) /* the core keeps no list: an offer to it would wait for ever */
		o.result = HO_PEER_LOST;
	if (o.result != HO_MOVED) {
		done(m, &o, origin);
		return;
	}
	v->target = to;
	v->why[0] = 0;
	v->pause_ns = 0;
	ho_order(&v->ho, to, (uint64_t)origin << ORDER_BITS | order, &fx);
	perform(m, v, &fx, "");
}

void mig_order(struct mig *m, unsigned vcpu, node_id to, uint64_t order)
{
	ASSERT(vcpu < m->cfg.vcpus && to < m->cfg.nodes && !(order >> ORDER_BITS));
	pthread_mutex_lock(&m->lock);
	order_step(m, vcpu, to, m->cfg.self, order, 0);
	pthread_mutex_unlock(&m->lock);
}

/* --- messages in -------------------------------------------------------------------------------------------------- */

static bool on_handoff(struct mig *m, node_id from, const struct mig_msg *msg,
		       const struct ic_msg *ic)
{
	struct vcpu *v;
	struct ho_effects fx = { 0 };
	enum ho_result willing = HO_MOVED;
	char text[MIG_TEXT_MAX] = "";

	if (msg->ho.msg.vcpu >= m->cfg.vcpus ||
	    (ic->data_len && msg->kind != HO_MSG_STATE && msg->kind != HO_MSG_OFFER) ||
	    (msg->kind == HO_MSG_HOME && msg->ho.msg.node >= m->cfg.nodes))
		return false;
	v = &m->vcpu[msg->ho.msg.vcpu];
	if (msg->kind == HO_MSG_OFFER) {
		willing = m->cfg.ops->willing(m->cfg.arg, msg->ho.msg.vcpu);
		if (willing == HO_MOVED) {
			features_compare(m, ic->data, ic->data_len, text);
			willing = *text ? HO_FEATURES : HO_MOVED;
		}
	}
	if (msg->kind == HO_MSG_REFUSE && msg->ho.msg.gen == v->ho.gen)
		snprintf(v->why, sizeof(v->why), "%s", msg->ho.text);
	if (msg->kind == HO_MSG_TAKEN && v->ho.phase == HO_SENT)
		v->pause_ns = msg->ho.ns;
	if (!ho_on_msg(&v->ho, from, &msg->ho.msg, willing, &fx))
		return false;
	if (v->ho.phase == HO_INSTALLING && msg->kind == HO_MSG_STATE) {
		bool begins = false;

		for (unsigned i = 0; i < fx.count; i++)
			begins = begins || fx.list[i].kind == HO_INSTALL;
		if (begins) {
			memcpy(v->snapshot, ic->data, ic->data_len);
			v->len = ic->data_len;
			v->capture_ns = msg->ho.ns;
			v->arrived_ns = clock_now_ns();
		}
	}
	if (msg->kind == HO_MSG_RETURN)
		m->stats.returned++;
	perform(m, v, &fx, text);
	return true;
}

void mig_on_message(struct mig *m, node_id from, const struct ic_msg *ic)
{
	struct mig_msg msg;
	bool good = mig_msg_decode(ic->body, ic->body_len, &msg);

	pthread_mutex_lock(&m->lock);
	if (good && msg.kind == MIG_MSG_ORDER) {
		good = msg.order.vcpu < m->cfg.vcpus && msg.order.to < m->cfg.nodes &&
		       msg.order.origin < m->cfg.nodes && msg.order.hops <= HOPS_MAX &&
		       !(msg.order.order >> ORDER_BITS) && !ic->data_len;
		if (good)
			order_step(m, msg.order.vcpu, msg.order.to, msg.order.origin,
				   msg.order.order, msg.order.hops);
	} else if (good && msg.kind == MIG_MSG_DONE) {
		good = msg.done.vcpu < m->cfg.vcpus && msg.done.to < m->cfg.nodes && !ic->data_len;
		msg.done.from = from;
		if (good)
			m->cfg.ops->done(m->cfg.arg, &msg.done);
	} else if (good) {
		good = on_handoff(m, from, &msg, ic);
	}
	if (!good)
		m->stats.garbage++;
	pthread_mutex_unlock(&m->lock);
}

bool mig_tick(struct mig *m)
{
	bool any = false;

	pthread_mutex_lock(&m->lock);
	for (unsigned k = 0; k < m->cfg.vcpus; k++) {
		struct ho_effects fx = { 0 };
		struct vcpu *v = &m->vcpu[k];

		if (!waits(&v->ho))
			continue;
		any = true;
		ho_tick(&v->ho, &fx);
		perform(m, v, &fx, "");
	}
	pthread_mutex_unlock(&m->lock);
	return any;
}

bool mig_waiting(const struct mig *m)
{
	return atomic_load(&m->waiting) != 0;
}

void mig_peer_lost(struct mig *m, node_id peer)
{
	pthread_mutex_lock(&m->lock);
	m->lost[peer] = true;
	for (unsigned k = 0; k < m->cfg.vcpus; k++) {
		struct ho_effects fx = { 0 };

		ho_peer_lost(&m->vcpu[k].ho, peer, &fx);
		perform(m, &m->vcpu[k], &fx, "");
	}
	pthread_mutex_unlock(&m->lock);
}

/* --- life and statistics ------------------------------------------------------------------------------------------- */

int mig_open(const struct mig_config *cfg, struct mig **out)
{
	struct mig *m = calloc(1, sizeof(*m) + cfg->vcpus * sizeof(m->vcpu[0]));

	if (!m)
		return -ENOMEM;
	ASSERT(strlen(cfg->features) < MIG_FEATURES_MAX);
	m->cfg = *cfg;
	snprintf(m->features, sizeof(m->features), "%s", cfg->features);
	pthread_mutex_init(&m->lock, NULL);
	for (unsigned k = 0; k < cfg->vcpus; k++) {
		struct vcpu *v = &m->vcpu[k];

		ho_init(&v->ho, (uint8_t)k, cfg->self, cfg->home[k]);
		atomic_init(&v->task, (uint8_t)task_of(&v->ho));
		atomic_init(&v->where, cfg->home[k]);
	}
	m->cfg.home = NULL;
	m->cfg.features = NULL;
	*out = m;
	return 0;
}

void mig_close(struct mig *m)
{
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void mig_stats(struct mig *m, struct mig_stats *out)
{
	uint32_t *sorted = malloc(SAMPLES * sizeof(*sorted));

	pthread_mutex_lock(&m->lock);
	*out = m->stats;
	for (unsigned k = 0; sorted && k < MIG_PARTS; k++) {
		const struct samples *s = &m->part[k];
		size_t n = s->count < SAMPLES ? (size_t)s->count : SAMPLES;

		if (!n)
			continue;
		memcpy(sorted, s->ns, n * sizeof(*sorted));
		qsort(sorted, n, sizeof(*sorted), by_value);
		out->part_p50_ns[k] = sorted[n / 2];
		out->part_p99_ns[k] = sorted[n * 99 / 100];
	}
	pthread_mutex_unlock(&m->lock);
	free(sorted);
}
