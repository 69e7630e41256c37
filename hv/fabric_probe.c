/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fabric_probe.c - `unum fabric`: measures the fabric between two nodes, in a process that is started like a slice.
 *
 * What      The messages of a slice's start (cluster-config/control.h), but with no machine behind them.  After RUN node 0
 *           measures: round trips of a request of 64 bytes and an answer of a page, then pages one way.  Its report is one
 *           line of JSON as console output.  Node 1 answers.
 * Threads   main reads the channel; the prober owns the fabric from CONNECT on.
 * I/O       The fabric's.
 * Limits    Every wait ends: JOIN_NS to reach the other node, PART_NS for each part, DEAD_NS without an answer.
 */
#include "hv/slice_front.h"

#include "base/clock.h"
#include "base/log.h"
#include "interconnect/fabric.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_NS (10 * NS_PER_S)
#define PART_NS (300 * NS_PER_MS)
#define DEAD_NS (5 * NS_PER_S)
#define SPIN_NS (200 * NS_PER_US) /* without news, before a sleep: the other side is about to answer */
#define NAP_NS (20 * NS_PER_MS)
#define REQUEST_BYTES 64u
#define WARM_UP 50u
#define ROUNDS_MAX 20000u
#define BUDGET 32u

enum kind { KIND_REQUEST, KIND_ANSWER, KIND_PAGE, KIND_LAST, KIND_COUNTED };

struct probe {
	struct cc_chan *chan;
	const struct cc_vm_spec *spec;
	struct ic_fabric *fabric;
	char address[IC_ADDR_MAX];
	pthread_t prober;
	bool started;
	_Atomic bool run, stop;
	/* the prober's, from here on */
	bool up, down;
	uint64_t answers, counted; /* that came */
	uint64_t owed_answers;
	bool owed_count;
	uint8_t page[PAGE_SIZE], taken[PAGE_SIZE];
	uint64_t took_ns[ROUNDS_MAX];
};

static int tell(struct probe *p, const struct cc_msg *msg)
{
	return cc_chan_send(p->chan, msg);
}

static void tell_failed(struct probe *p, const char *what, int err)
{
	char text[256];

	snprintf(text, sizeof(text), "fabric %s: %s%s%s", p->spec->fabric_backend, what, err ? ": " : "",
		 err ? strerror(-err) : "");
	if (tell(p, &(struct cc_msg){ .type = CC_MSG_FAILED, .failed = { text } }))
		log_debug("probe: agent is gone");
}

static void tell_end(struct probe *p, enum cc_end reason, const char *text)
{
	if (tell(p, &(struct cc_msg){ .type = CC_MSG_ENDED, .ended = { reason, p->spec->self, text, "" } }))
		log_debug("probe: agent is gone");
}

/* --- messages between the two ----------------------------------------------------------------------------------- */

static node_id other(const struct probe *p)
{
	return p->spec->self ? 0 : 1;
}

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	struct probe *p = arg;

	(void)from;
	switch (msg->body_len ? *(const uint8_t *)msg->body : KIND_PAGE) {
	case KIND_REQUEST:
		p->owed_answers++;
		break;
	case KIND_ANSWER:
		if (msg->data_len != PAGE_SIZE)
			break;
		memcpy(p->taken, msg->data, PAGE_SIZE);
		p->answers++;
		break;
	case KIND_PAGE: /* read, as by a slice, which puts it into the guest's memory */
		if (msg->data_len == PAGE_SIZE)
			memcpy(p->taken, msg->data, PAGE_SIZE);
		break;
	case KIND_LAST:
		p->owed_count = true;
		break;
	case KIND_COUNTED:
		p->counted++;
		break;
	default:
		break;
	}
}

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct probe *p = arg;

	(void)peer;
	p->up = event == IC_PEER_UP;
	p->down |= event == IC_PEER_DOWN;
}

/* False: no room now.  A page of data goes with it when `page`. */
static bool put(struct probe *p, enum kind kind, uint16_t body_len, bool page)
{
	uint8_t body[REQUEST_BYTES] = { (uint8_t)kind };

	return !ic_send(p->fabric, other(p),
			&(struct ic_msg){ IC_PORT_TEST, body_len, page ? PAGE_SIZE : 0, body, p->page });
}

static void answer_owed(struct probe *p)
{
	while (p->owed_answers && put(p, KIND_ANSWER, 1, true))
		p->owed_answers--;
	if (p->owed_count && put(p, KIND_COUNTED, 1, false))
		p->owed_count = false;
}

/* Moves the fabric until *what is `wanted` or more, or the end; spins as long as news may come soon, as a slice that
 * waits for a page.  False: it was the end. */
static bool wait_for(struct probe *p, const uint64_t *what, uint64_t wanted, uint64_t until_ns)
{
	uint64_t now = clock_now_ns(), quiet_ns = now;

	while (*what < wanted) {
		if (p->down || atomic_load(&p->stop) || now > until_ns)
			return false;
		if (ic_progress(p->fabric, BUDGET) > 0)
			quiet_ns = clock_now_ns();
		else if (now - quiet_ns > SPIN_NS)
			ic_wait(p->fabric, NAP_NS);
		else
			sched_yield();
		answer_owed(p);
		now = clock_now_ns();
	}
	return true;
}

/* --- measuring --------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The same, as soon as there is room.  False: there was none in time. */
static bool put_soon(struct probe *p, enum kind kind, uint16_t body_len, bool page)
{
	uint64_t end_ns = clock_now_ns() + DEAD_NS;

	while (!put(p, kind, body_len, page)) {
		if (p->down || atomic_load(&p->stop) || clock_now_ns() > end_ns)
			return false;
		ic_progress(p->fabric, BUDGET);
		sched_yield();
	}
	return true;
}

/* Round trips that were timed, sorted; 0: none came back. */
static unsigned round_trips(struct probe *p)
{
	uint64_t began = clock_now_ns();
	unsigned n = 0;

	for (unsigned i = 0; n < ROUNDS_MAX && (clock_now_ns() - began < PART_NS || n < 2); i++) {
		uint64_t at = clock_now_ns();

		if (!put_soon(p, KIND_REQUEST, REQUEST_BYTES, false) ||
		    !wait_for(p, &p->answers, p->answers + 1, at + DEAD_NS))
			return 0;
		if (i >= WARM_UP)
			p->took_ns[n++] = clock_now_ns() - at;
		else if (clock_now_ns() - began > PART_NS)
			i = WARM_UP; /* so slow that there is no warming up */
	}
	qsort(p->took_ns, n, sizeof(p->took_ns[0]), compare);
	return n;
}

/* Bytes a second, one way; 0: the other side did not count them in time. */
static uint64_t stream(struct probe *p)
{
	uint64_t began = clock_now_ns(), pages = 0;

	for (; clock_now_ns() - began < PART_NS; pages++)
		if (!put_soon(p, KIND_PAGE, 1, true))
			return 0;
	if (!put_soon(p, KIND_LAST, 1, false) || !wait_for(p, &p->counted, 1, clock_now_ns() + DEAD_NS))
		return 0;
	return (uint64_t)((double)pages * PAGE_SIZE * 1e9 / (double)(clock_now_ns() - began));
}

static void measure(struct probe *p)
{
	unsigned n = round_trips(p);
	uint64_t speed = n ? stream(p) : 0;
	char line[256];

	if (!speed) {
		tell_end(p, CC_END_ERROR, p->down ? "the link broke" : "the other node does not answer");
		return;
	}
	snprintf(line, sizeof(line),
		 "{ \"round_trips\": %u, \"p50_ns\": %llu, \"p99_ns\": %llu, \"min_ns\": %llu, \"bytes_per_s\": %llu }\n", n,
		 (unsigned long long)p->took_ns[n / 2], (unsigned long long)p->took_ns[n - 1 - n / 100],
		 (unsigned long long)p->took_ns[0], (unsigned long long)speed);
	if (tell(p, &(struct cc_msg){ .type = CC_MSG_CONSOLE,
				      .console = { (const uint8_t *)line, strlen(line) } }))
		log_debug("probe: agent is gone");
	tell_end(p, CC_END_POWEROFF, "measured");
}

static void *prober(void *arg)
{
	struct probe *p = arg;
	uint64_t end_ns = clock_now_ns() + JOIN_NS;
	bool measured = false;
	char text[192];

	log_set_thread("probe");
	while (!p->up && !p->down && !atomic_load(&p->stop) && clock_now_ns() < end_ns)
		if (ic_progress(p->fabric, BUDGET) <= 0)
			ic_wait(p->fabric, NAP_NS);
	if (!p->up) {
		snprintf(text, sizeof(text), "node %s is not reached within %llu s", p->spec->node_name[other(p)],
			 JOIN_NS / NS_PER_S);
		tell_failed(p, text, 0);
		return NULL;
	}
	if (tell(p, &(struct cc_msg){ .type = CC_MSG_READY }))
		return NULL;
	while (!atomic_load(&p->stop) && !p->down) {
		static const uint64_t never;

		if (!measured && p->spec->self == 0 && atomic_load(&p->run)) {
			measured = true;
			measure(p);
		}
		wait_for(p, &never, 1, clock_now_ns() + NAP_NS);
	}
	return NULL;
}

/* --- the channel ------------------------------------------------------------------------------------------------- */

static int probe_open(struct probe *p)
{
	const struct cc_vm_spec *s = p->spec;
	struct ic_config cfg = { .self = s->self,
				 .nodes = s->nodes,
				 .backend = s->fabric_backend,
				 .device = s->fabric_device,
				 .listen = s->fabric_listen,
				 .vm_id = s->vm_id,
				 .on_peer = on_peer,
				 .arg = p,
				 .dead_after_ms = s->dead_after_ms,
				 .chaos.seed = s->chaos };
	int err;

	if (s->nodes != 2)
		return -EINVAL;
	memcpy(cfg.key, s->vm_key, sizeof(cfg.key));
	err = ic_open(&cfg, &p->fabric);
	if (err)
		return err;
	ic_set_handler(p->fabric, IC_PORT_TEST, (struct ic_handler){ on_message, p });
	ic_address(p->fabric, p->address);
	return 0;
}

static int on_connect(struct probe *p, const struct cc_connect *all)
{
	int err = p->started || all->nodes != 2 ? -EPROTO : ic_join(p->fabric, other(p), all->address[other(p)]);

	if (err)
		return err;
	err = -pthread_create(&p->prober, NULL, prober, p);
	p->started = !err;
	return err;
}

/* A slice says what it counted before it ends. */
static void on_stop(struct probe *p)
{
	struct cc_msg m = { .type = CC_MSG_STATS, .stats = { .node = p->spec->self, .engine = "" } };
	struct ic_stats net;

	ic_stats(p->fabric, &net);
	m.stats.msgs_sent = net.msgs_sent;
	m.stats.msgs_received = net.msgs_received;
	m.stats.bytes_sent = net.bytes_sent;
	m.stats.bytes_received = net.bytes_received;
	m.stats.refused = net.refused;
	if (tell(p, &m))
		log_debug("probe: agent is gone");
	tell_end(p, CC_END_STOPPED, "stopped");
}

/* 0: go on; 1: the end; -errno. */
static int step(struct probe *p, const struct cc_msg *m)
{
	switch (m->type) {
	case CC_MSG_CONNECT:
		return on_connect(p, &m->connect);
	case CC_MSG_RUN:
		atomic_store(&p->run, true);
		ic_wake(p->fabric);
		return p->started ? 0 : -EPROTO;
	case CC_MSG_CONSOLE:
		return 0;
	case CC_MSG_STOP:
		on_stop(p);
		return 1;
	default:
		return -EPROTO;
	}
}

int hv_fabric_probe(struct cc_chan *chan, const struct cc_vm_spec *spec)
{
	struct probe *p = calloc(1, sizeof(*p));
	int err = p ? 0 : -ENOMEM;

	if (err)
		return err;
	p->chan = chan;
	p->spec = spec;
	err = probe_open(p);
	if (err)
		tell_failed(p, spec->fabric_listen, err);
	else
		err = tell(p, &(struct cc_msg){ .type = CC_MSG_PREPARED, .prepared = { p->address } });
	while (!err) {
		struct cc_msg m = { 0 };

		err = cc_chan_recv(chan, &m, UINT64_MAX);
		if (!err)
			err = step(p, &m);
		cc_msg_clear(&m);
	}
	atomic_store(&p->stop, true);
	if (p->started) {
		ic_wake(p->fabric);
		pthread_join(p->prober, NULL);
	}
	if (p->fabric)
		ic_close(p->fabric);
	free(p);
	return err;
}
