/* SPDX-License-Identifier: Apache-2.0 */
/* test_migrate.c - nodes of vcpu-migrate joined by queues: moves, refusals, orders that run after a vCPU, bad bytes. */
#include "vcpu-migrate/migrate.h"
#include "vcpu-migrate/wire.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 3u
#define VCPUS 2u
#define QUEUE 256u

struct letter {
	node_id from, to;
	struct ic_msg msg;
	uint8_t body[IC_BODY_MAX], data[IC_DATA_MAX];
};

struct world;
struct node {
	struct world *w;
	node_id self;
	struct mig *m;
	enum ho_result willing;
	unsigned attends, lost;
	struct mig_outcome last;
	unsigned outcomes;
};
static struct world {
	struct node node[NODES];
	struct letter *queue[QUEUE];
	unsigned head, tail;
	bool drop; /* the next one */
} w;

static void on_send(void *arg, node_id to, const struct ic_msg *msg)
{
	struct node *n = arg;
	struct letter *l = malloc(sizeof(*l));

	cr_assert(to < NODES && to != n->self);
	cr_assert_eq(msg->port, IC_PORT_MIGRATE);
	if (w.drop) {
		w.drop = false;
		free(l);
		return;
	}
	*l = (struct letter){ .from = n->self, .to = to, .msg = *msg };
	memcpy(l->body, msg->body, msg->body_len);
	if (msg->data_len)
		memcpy(l->data, msg->data, msg->data_len);
	cr_assert_lt(w.head - w.tail, QUEUE);
	w.queue[w.head++ % QUEUE] = l;
}

static enum ho_result on_willing(void *arg, unsigned vcpu)
{
	(void)vcpu;
	return ((struct node *)arg)->willing;
}

static void on_attend(void *arg, unsigned vcpu)
{
	(void)vcpu;
	((struct node *)arg)->attends++;
}

static void on_done(void *arg, const struct mig_outcome *o)
{
	struct node *n = arg;

	n->last = *o;
	n->outcomes++;
}

static void on_lost(void *arg, unsigned vcpu, node_id with)
{
	(void)vcpu;
	(void)with;
	((struct node *)arg)->lost++;
}

static const struct mig_ops ops = { on_send, on_willing, on_attend, on_done, on_lost };

static void open_with(const char *const features[NODES])
{
	static const node_id home[VCPUS] = { 0, 1 };

	for (unsigned n = 0; n < NODES; n++) {
		struct mig_config cfg = {
			.self = (node_id)n,
			.nodes = NODES,
			.vcpus = VCPUS,
			.home = home,
			.features = features[n],
			.ops = &ops,
			.arg = &w.node[n],
		};

		w.node[n] = (struct node){ .w = &w, .self = (node_id)n };
		cr_assert_eq(mig_open(&cfg, &w.node[n].m), 0);
	}
}

static void open_all(void)
{
	static const char *const same[NODES] = { "sse4_2 avx", "sse4_2 avx", "sse4_2 avx" };

	open_with(same);
}

static void close_all(void)
{
	while (w.tail != w.head)
		free(w.queue[w.tail++ % QUEUE]);
	for (unsigned n = 0; n < NODES; n++)
		mig_close(w.node[n].m);
}

/* What the threads of the vCPUs would do; the snapshot names the vCPU. */
static void threads(enum ho_result how)
{
	for (unsigned n = 0; n < NODES; n++)
		for (unsigned v = 0; v < VCPUS; v++) {
			struct mig *m = w.node[n].m;
			struct mig_incoming in;
			char snap[32];

			switch (mig_task(m, v)) {
			case MIG_TAKE:
				snprintf(snap, sizeof(snap), "vCPU %u", v);
				mig_captured(m, v, snap, sizeof(snap), 1000, 1500);
				break;
			case MIG_INSTALL:
				mig_incoming(m, v, &in);
				snprintf(snap, sizeof(snap), "vCPU %u", v);
				cr_assert_eq(in.len, sizeof(snap));
				cr_assert_str_eq((char *)in.snapshot, snap);
				cr_assert_eq(in.capture_ns, 500);
				mig_installed(m, v, how, 7000);
				break;
			default:
				break;
			}
		}
}

static unsigned runners(unsigned vcpu)
{
	unsigned n = 0;

	for (unsigned k = 0; k < NODES; k++)
		n += mig_task(w.node[k].m, vcpu) < MIG_INSTALL;
	return n;
}

static bool deliver_one(void)
{
	struct letter *l;

	if (w.tail == w.head)
		return false;
	l = w.queue[w.tail++ % QUEUE];
	l->msg.body = l->body;
	l->msg.data = l->msg.data_len ? l->data : NULL;
	mig_on_message(w.node[l->to].m, l->from, &l->msg);
	free(l);
	return true;
}

static void settle(enum ho_result how)
{
	do {
		threads(how);
		for (unsigned v = 0; v < VCPUS; v++)
			cr_assert_leq(runners(v), 1);
	} while (deliver_one());
	threads(how);
}

Test(migrate, there_and_back, .init = open_all, .fini = close_all)
{
	mig_order(w.node[0].m, 0, 2, 41);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.order, 41);
	cr_expect_eq(w.node[0].last.result, HO_MOVED);
	cr_expect_eq(w.node[0].last.pause_ns, 7000);
	for (unsigned n = 0; n < NODES; n++)
		cr_expect_eq(mig_where(w.node[n].m, 0), 2, "as node %u sees it", n);
	cr_expect_eq(mig_task(w.node[2].m, 0), MIG_RUN);
	cr_expect_eq(mig_task(w.node[0].m, 0), MIG_PASS);
	/* Ordered at a node that does not have it: runs after it, and the answer comes back. */
	mig_order(w.node[1].m, 0, 0, 42);
	settle(HO_MOVED);
	cr_expect_eq(w.node[1].last.order, 42);
	cr_expect_eq(w.node[1].last.result, HO_MOVED);
	cr_expect_eq(w.node[1].last.from, 2);
	cr_expect_eq(mig_task(w.node[0].m, 0), MIG_RUN);
	cr_expect_eq(w.node[0].outcomes + w.node[1].outcomes + w.node[2].outcomes, 2);
}

Test(migrate, refusals_say_why_and_the_vcpu_goes_on, .init = open_all, .fini = close_all)
{
	w.node[2].willing = HO_LEAVING;
	mig_order(w.node[0].m, 0, 2, 1);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.result, HO_LEAVING);
	cr_expect_eq(mig_task(w.node[0].m, 0), MIG_RUN);
	mig_order(w.node[0].m, 0, 0, 2);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.result, HO_THERE);
	mig_order(w.node[0].m, 0, 1, 3);
	settle(HO_CORRUPT);
	cr_expect_eq(w.node[0].last.result, HO_CORRUPT);
	cr_expect_eq(mig_task(w.node[0].m, 0), MIG_RUN);
	mig_order(w.node[0].m, 0, 1, 4);
	mig_order(w.node[0].m, 0, 2, 5);
	cr_expect_eq(w.node[0].last.order, 5);
	cr_expect_eq(w.node[0].last.result, HO_BUSY);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.order, 4);
	cr_expect_eq(w.node[0].last.result, HO_MOVED);
}

static void open_unlike(void)
{
	static const char *const unlike[NODES] = { "sse4_2 avx avx2", "sse4_2 avx2 fma",
						   "avx2 avx sse4_2" };

	open_with(unlike);
}

Test(migrate, missing_features_are_named_before_the_vcpu_stops, .init = open_unlike,
     .fini = close_all)
{
	mig_order(w.node[0].m, 0, 1, 1);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.result, HO_FEATURES);
	cr_expect_str_eq(w.node[0].last.text, "it lacks avx, and shows also fma");
	mig_order(w.node[0].m, 0, 2, 2);
	settle(HO_MOVED);
	cr_expect_eq(w.node[0].last.result, HO_MOVED, "the order of the words does not matter");
}

Test(migrate, what_is_lost_is_said_again, .init = open_all, .fini = close_all)
{
	/* Each message of a move in turn. */
	for (unsigned lose = 0; lose < 4; lose++) {
		node_id to = lose % 2 ? 0 : 1;
		unsigned outcomes = w.node[0].outcomes;

		mig_order(w.node[0].m, 0, to, lose);
		for (unsigned i = 0; i < lose; i++) {
			threads(HO_MOVED);
			deliver_one();
		}
		w.drop = true;
		settle(HO_MOVED);
		w.drop = false;
		for (unsigned i = 0; i < 4; i++) {
			for (unsigned n = 0; n < NODES; n++)
				mig_tick(w.node[n].m);
			settle(HO_MOVED);
		}
		cr_expect_eq(w.node[0].outcomes, outcomes + 1, "message %u", lose);
		cr_expect_eq(mig_task(w.node[to].m, 0), MIG_RUN, "message %u", lose);
		cr_expect(!mig_waiting(w.node[0].m) && !mig_waiting(w.node[1].m));
	}
}

Test(migrate, a_vcpu_that_went_to_a_lost_node_is_lost, .init = open_all, .fini = close_all)
{
	mig_order(w.node[0].m, 0, 1, 1);
	deliver_one(); /* OFFER */
	deliver_one(); /* ACCEPT */
	threads(HO_MOVED);
	cr_expect_eq(mig_task(w.node[0].m, 0), MIG_PASS);
	mig_peer_lost(w.node[0].m, 1);
	cr_expect_eq(w.node[0].lost, 1);
	cr_expect_eq(w.node[0].last.result, HO_GONE);
	/* Before the token leaves it goes on. */
	mig_order(w.node[1].m, 1, 2, 2);
	mig_peer_lost(w.node[1].m, 2);
	cr_expect_eq(w.node[1].last.result, HO_PEER_LOST);
	cr_expect_eq(mig_task(w.node[1].m, 1), MIG_RUN);
}

Test(migrate, random_bytes_change_nothing, .init = open_all, .fini = close_all)
{
	struct rng r = { 5 };
	struct mig_stats st;

	for (unsigned i = 0; i < 100000; i++) {
		uint8_t body[64], data[64];
		struct ic_msg m = { .port = IC_PORT_MIGRATE, .body = body, .data = data };

		m.body_len = (uint16_t)rng_below(&r, sizeof(body));
		for (unsigned k = 0; k < m.body_len; k++)
			body[k] = (uint8_t)rng_below(&r, rng_below(&r, 2) ? 4 : 256);
		if (m.body_len && body[0] == HO_MSG_STATE)
			continue; /* a well-formed one is taken: peers are authenticated */
		mig_on_message(w.node[0].m, 1, &m);
		cr_assert_eq(mig_task(w.node[0].m, 0), MIG_RUN);
		while (w.tail != w.head)
			free(w.queue[w.tail++ % QUEUE]);
	}
	mig_stats(w.node[0].m, &st);
	cr_expect_gt(st.garbage, 90000);
}

Test(migrate, every_message_decodes_to_itself)
{
	struct rng r = { 9 };

	for (unsigned i = 0; i < 20000; i++) {
		uint8_t a[MIG_BODY_MAX], b[MIG_BODY_MAX];
		struct mig_msg in = { .kind = (uint8_t)(1 + rng_below(&r, MIG_MSG_KINDS - 1)) },
			       out;
		unsigned n;

		if (in.kind == MIG_MSG_ORDER) {
			in.order.order = rng_next(&r) >> 8;
			in.order.vcpu = (uint8_t)rng_next(&r);
			in.order.to = (uint8_t)rng_next(&r);
		} else if (in.kind == MIG_MSG_DONE) {
			in.done.order = rng_next(&r) >> 8;
			in.done.result = (enum ho_result)rng_below(&r, HO_RESULTS);
			in.done.pause_ns = (uint32_t)rng_next(&r);
			strcpy(in.done.text, "avx2 fma");
		} else {
			in.ho.msg.kind = in.kind;
			in.ho.msg.gen = (uint32_t)rng_next(&r);
			in.ho.msg.why = (uint8_t)rng_below(&r, HO_RESULTS);
			in.ho.ns = (uint32_t)rng_next(&r);
		}
		n = mig_msg_encode(&in, a);
		cr_assert(mig_msg_decode(a, n, &out));
		cr_assert_eq(mig_msg_encode(&out, b), n);
		cr_assert_arr_eq(a, b, n);
		for (unsigned k = 0; k < n; k++)
			cr_assert(!mig_msg_decode(a, k, &out), "cut at %u", k);
	}
}
