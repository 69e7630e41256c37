/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain.c - a node is emptied while the VM runs, so that it may go; or used again.
 *
 * What      Node 0 has the vCPUs of the node moved to the others in turn, then its memory (dsm_drain).  From then on
 *           loss of that node is not the end of the VM.  A node with devices stays, since its files and the far ends of its
 *           consoles are on it; and so does node 0, which has the interrupt controller and the serial port.
 * Owns      The thread of the one order that is being carried out.
 * Threads   order: any, does not block; leave: the fabric's; the rest: that thread.
 * Limits    One at a time.  vCPUs that have gone do not come back when the rest then fails: the policy places them.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_NS (60 * NS_PER_S) /* until the freeze */
#define LOOK_US 1000u
#define AGAIN_NS (100 * NS_PER_MS) /* a vCPU that is still there is ordered away again */
#define CALM_NS (200 * NS_PER_MS)  /* a move that was agreed on before has ended by then */
#define MIB(pages) ((double)(pages) / (double)((1 << 20) >> PAGE_SHIFT))

static void answer(struct hv_slice *s, bool last, bool ok, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void answer(struct hv_slice *s, bool last, bool ok, const char *fmt, ...)
{
	struct cc_answer a = { .id = s->drain.order.id, .last = last, .ok = ok, .to = s->drain.order.node };
	char text[HV_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_info("drain: %s", text);
	a.text = text;
	/* Before the word is out: who hears it may give the next order at once. */
	if (last)
		atomic_store(&s->drain.busy, false);
	hv_slice_answer(s, &a);
}

/* --- may it go? ------------------------------------------------------------------------------------------------------ */

/* False, and why in text. */
static bool may_leave(const struct hv_slice *s, node_id node, char text[static HV_TEXT_MAX])
{
	const char *name = s->spec->node_name[node];

	if (node == 0) {
		snprintf(text, HV_TEXT_MAX, "node %s cannot leave: the interrupt controller and the serial port of the VM are on it",
			 name);
		return false;
	}
	for (unsigned i = 0; i < s->spec->devices; i++) {
		const struct cc_device *d = &s->spec->device[i];

		if (d->node != node || d->kind == CC_DEV_SERIAL)
			continue;
		if (d->kind == CC_DEV_BLK)
			snprintf(text, HV_TEXT_MAX, "node %s cannot leave: its disks are on it (%s)", name, d->path);
		else
			snprintf(text, HV_TEXT_MAX, "node %s cannot leave: a %s of the VM is on it", name,
				 d->kind == CC_DEV_CONSOLE ? "console" : d->kind == CC_DEV_RNG ? "source of random numbers" :
											      "network card");
		return false;
	}
	return true;
}

static void refuse_memory(struct hv_slice *s, node_id node, int err, const struct dsm_drain *m)
{
	const char *name = s->spec->node_name[node];

	if (err == -ENOSPC)
		answer(s, true, false, "node %s cannot leave: its %.1f MiB of guest memory do not fit, the others have room for %.1f MiB",
		       name, MIB(m->need_pages), MIB(m->room_pages));
	else if (err == -EALREADY)
		answer(s, true, false, "node %s has left already", name);
	else
		answer(s, true, false, "node %s cannot leave: memory: %s", name, strerror(-err));
}

/* --- vCPUs ------------------------------------------------------------------------------------------------------------ */

static bool takes_vcpus(const struct hv_slice *s, node_id node)
{
	return node != s->drain.order.node && !dsm_drained(s->dsm, node);
}

static node_id next_taker(struct hv_slice *s)
{
	do
		s->drain.turn = (s->drain.turn + 1) % s->spec->nodes;
	while (!takes_vcpus(s, (node_id)s->drain.turn));
	return (node_id)s->drain.turn;
}

/* Those that are on the node; each `order`ed to the next of the others.  The names of the takers are the caller's to know. */
static unsigned vcpus_left(struct hv_slice *s, bool order)
{
	unsigned left = 0;

	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		if (hv_move_where(s, v) != s->drain.order.node)
			continue;
		left++;
		if (order)
			hv_move_order(s, v, next_taker(s), HV_ORDER_DRAIN);
	}
	return left;
}

/* 0; -ETIMEDOUT; -EPIPE: the VM ends. */
static int vcpus_away(struct hv_slice *s, uint64_t deadline_ns)
{
	uint64_t again_ns = 0, since_ns = clock_now_ns();

	for (;;) {
		uint64_t now = clock_now_ns();
		bool order = now >= again_ns;
		unsigned left = vcpus_left(s, order);

		if (hv_slice_ending(s))
			return -EPIPE;
		if (now > deadline_ns)
			return -ETIMEDOUT;
		if (order)
			again_ns = now + AGAIN_NS;
		if (left)
			since_ns = now;
		else if (now - since_ns > CALM_NS)
			return 0;
		usleep(LOOK_US);
	}
}

static void leaving_tell(struct hv_slice *s, node_id node, bool leaving)
{
	struct hv_msg m = { .kind = HV_MSG_LEAVE, .leave = { leaving } };

	hv_link_send(s, node, &m);
}

void hv_drain_on_message(struct hv_slice *s, node_id from, const struct hv_msg *m)
{
	if (from != 0 || s->spec->self == 0)
		hv_count(&s->refused);
	else
		atomic_store(&s->moves.leaving, m->leave.on);
}

void hv_drain_moved(const struct mig_outcome *o)
{
	if (o->result != HO_MOVED && o->result != HO_THERE)
		log_info("drain: vCPU %u stays for now: %s %s", o->vcpu, ho_result_text(o->result), o->text);
}

/* --- the two orders -------------------------------------------------------------------------------------------------- */

static void dry_run(struct hv_slice *s, node_id node)
{
	struct dsm_drain m;
	int err = dsm_drain_ask(s->dsm, node, clock_now_ns() + DRAIN_NS, &m);

	if (err)
		refuse_memory(s, node, err, &m);
	else
		answer(s, true, true, "node %s could leave: %u vCPUs would move, and %.1f MiB of guest memory to others that have room for %.1f MiB",
		       s->spec->node_name[node], vcpus_left(s, false), MIB(m.need_pages), MIB(m.room_pages));
}

static void drain(struct hv_slice *s, node_id node)
{
	const char *name = s->spec->node_name[node];
	uint64_t start = clock_now_ns(), deadline = start + DRAIN_NS;
	unsigned vcpus = vcpus_left(s, false);
	struct dsm_drain m;
	int err = dsm_drain_ask(s->dsm, node, deadline, &m);

	if (err) {
		refuse_memory(s, node, err, &m);
		return;
	}
	leaving_tell(s, node, true);
	answer(s, false, true, "node %s: %u vCPUs move away", name, vcpus);
	err = vcpus_away(s, deadline);
	if (err) {
		leaving_tell(s, node, false);
		answer(s, true, false, "node %s cannot leave: %u vCPUs do not go: %s", name, vcpus_left(s, false), strerror(-err));
		return;
	}
	answer(s, false, true, "node %s: %.1f MiB of guest memory move", name, MIB(m.need_pages));
	err = dsm_drain(s->dsm, node, deadline, &m);
	if (err) {
		leaving_tell(s, node, false);
		refuse_memory(s, node, err, &m);
		return;
	}
	answer(s, true, true,
	       "node %s has left and may go: %u vCPUs and %.1f MiB moved in %.2f s (%llu pages with their bytes; memory stood still for %.1f ms)",
	       name, vcpus, MIB(m.need_pages), (double)(clock_now_ns() - start) / 1e9, (unsigned long long)m.moved_pages,
	       (double)m.frozen_ns / 1e6);
}

static void join(struct hv_slice *s, node_id node)
{
	const char *name = s->spec->node_name[node];
	struct dsm_drain m;
	int err = dsm_join(s->dsm, node, &m);

	if (err) {
		answer(s, true, false, "node %s cannot come back: %s", name,
		       err == -EALREADY ? "it has not left" :
		       err == -ENOTCONN ? "its slice is dead" : strerror(-err));
		return;
	}
	leaving_tell(s, node, false);
	answer(s, true, true, "node %s is back: it has its share of memory again (%llu pages moved; memory stood still for %.1f ms) and takes vCPUs",
	       name, (unsigned long long)m.moved_pages, (double)m.frozen_ns / 1e6);
}

static void *drain_run(void *arg)
{
	struct hv_slice *s = arg;
	const struct cc_order *o = &s->drain.order;
	char text[HV_TEXT_MAX];

	log_set_thread("drain");
	if (o->kind == CC_ORDER_DRAIN && !may_leave(s, o->node, text))
		answer(s, true, false, "%s", text);
	else if (o->kind == CC_ORDER_JOIN && o->dry_run)
		answer(s, true, dsm_drained(s->dsm, o->node), dsm_drained(s->dsm, o->node) ? "node %s could come back" : "node %s has not left",
		       s->spec->node_name[o->node]);
	else if (o->kind == CC_ORDER_JOIN)
		join(s, o->node);
	else if (o->dry_run)
		dry_run(s, o->node);
	else
		drain(s, o->node);
	return NULL;
}

bool hv_drain_order(struct hv_slice *s, const struct cc_order *o, const char **why)
{
	struct hv_drain *d = &s->drain;

	*why = !s->multi ? "the VM has only one node" :
	       o->node >= s->spec->nodes ? "the VM has no such node" :
	       atomic_exchange(&d->busy, true) ? "another node is just leaving or coming back" : NULL;
	if (*why)
		return false;
	if (d->runs)
		pthread_join(d->thread, NULL);
	d->order = *o;
	d->order.name = "";
	d->runs = !pthread_create(&d->thread, NULL, drain_run, s);
	if (!d->runs) {
		atomic_store(&d->busy, false);
		*why = "out of memory";
	}
	return d->runs;
}

void hv_drain_close(struct hv_slice *s)
{
	if (s->drain.runs)
		pthread_join(s->drain.thread, NULL);
}
