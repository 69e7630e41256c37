/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_conform.c - the contract of interconnect/fabric.h, for any backend.
 *
 * What      usage: fabric_conform BACKEND[=DEVICE] [CASE] | list
 *           Each case opens fabrics of its own in this process (one more process where a peer has to die) and
 *           pumps them in turn.  Cases that need raw bytes on the wire know the backend's transport and are
 *           listed for it only.
 * Exit      0 when every case held.
 */
#include "tests/conform/fabric_conform.h"

#include "base/log.h"
#include "base/rng.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *backend_name, *backend_arg;
uint64_t chaos_seed;
bool chaos_breaks;
unsigned dead_after_ms;
const char *case_skip;
static const char *device_name;

/* --- ends ------------------------------------------------------------------------------------------- */

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct end *e = arg;

	if (event == IC_PEER_UP) {
		CHECK(!e->is_up[peer]);
		e->ups++;
	} else {
		e->downs++;
	}
	e->is_up[peer] = event == IC_PEER_UP;
}

/* Content of message k from `from`: everything follows from the two numbers. */
static void message_make(node_id from, uint32_t k, struct ic_msg *msg, uint8_t *bytes)
{
	struct rng r = { .state = ((uint64_t)from << 32) + k };
	uint64_t x = rng_next(&r);
	static const uint16_t bodies[] = { 4, 5, 16, 17, 255, IC_BODY_MAX };
	static const uint16_t datas[] = { 0, 0, 1, 100, IC_DATA_MAX - 1, IC_DATA_MAX };

	msg->port = IC_PORT_TEST;
	msg->body_len = bodies[x % ARRAY_LEN(bodies)];
	msg->data_len = datas[(x >> 8) % ARRAY_LEN(datas)];
	msg->body = bytes;
	msg->data = bytes + msg->body_len;
	memset(bytes, (int)(x >> 16), (size_t)msg->body_len + msg->data_len);
	memcpy(bytes, &k, sizeof(k));
	if (msg->data_len)
		bytes[msg->body_len + msg->data_len - 1] = (uint8_t)(x >> 24);
}

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	struct end *e = arg;
	uint8_t bytes[IC_BODY_MAX + IC_DATA_MAX];
	struct ic_msg want;

	CHECK(e->is_up[from]);
	if (e->raw) {
		e->raw(e, from, msg);
		return;
	}
	message_make(from, e->got[from], &want, bytes);
	CHECK(msg->port == IC_PORT_TEST);
	CHECK(msg->body_len == want.body_len && msg->data_len == want.data_len);
	CHECK(!memcmp(msg->body, want.body, want.body_len));
	CHECK(!memcmp(msg->data, want.data, want.data_len));
	e->got[from]++;
}

void end_open(struct end *e, node_id self, unsigned nodes, uint8_t key, uint64_t vm)
{
	struct ic_config cfg = { .self = self,
				 .nodes = nodes,
				 .backend = backend_name,
				 .device = device_name,
				 .listen = "127.0.0.1:0",
				 .vm_id = vm,
				 .on_peer = on_peer,
				 .arg = e,
				 .dead_after_ms = dead_after_ms,
				 .chaos = { chaos_seed, chaos_breaks } };

	memset(e, 0, sizeof(*e));
	memset(cfg.key, key, sizeof(cfg.key));
	CHECK(!ic_open(&cfg, &e->f));
	e->self = self;
	ic_set_handler(e->f, IC_PORT_TEST, (struct ic_handler){ on_message, e });
	ic_address(e->f, e->address);
}

bool pump_once(struct end *e, unsigned count)
{
	bool any = false;

	for (unsigned i = 0; i < count; i++)
		if (e[i].f)
			any |= ic_progress(e[i].f, 16) > 0;
	return any;
}

#define PUMP_UNTIL(e, count, cond) PUMP_FOR(e, count, cond, 10 * NS_PER_S)

void ends_join(struct end *e, unsigned count)
{
	unsigned ups = 0;

	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < count; k++)
			if (k != i)
				CHECK(!ic_join(e[i].f, (node_id)k, e[k].address));
	while (ups < count * (count - 1)) {
		PUMP_UNTIL(e, count, true);
		ups = 0;
		for (unsigned i = 0; i < count; i++)
			ups += e[i].ups;
		usleep(100);
	}
}

void ends_open(struct end *e, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		end_open(&e[i], (node_id)i, count, 1, 77);
	ends_join(e, count);
}

void ends_close(struct end *e, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (e[i].f)
			ic_close(e[i].f);
}

int send_next(struct end *e, node_id to)
{
	uint8_t bytes[IC_BODY_MAX + IC_DATA_MAX];
	struct ic_msg msg;
	int err;

	message_make(e->self, e->sent[to], &msg, bytes);
	err = ic_send(e->f, to, &msg);
	if (!err)
		e->sent[to]++;
	return err;
}

/* --- cases ------------------------------------------------------------------------------------------ */

static void order_both_ways(void)
{
	struct end e[2];

	ends_open(e, 2);
	while (e[0].sent[1] < 20000 || e[1].sent[0] < 20000) {
		for (unsigned i = 0; i < 2; i++)
			for (unsigned k = 0; k < 50 && e[i].sent[!i] < 20000; k++)
				if (send_next(&e[i], (node_id)!i) == -EAGAIN)
					break;
		pump_once(e, 2);
	}
	PUMP_UNTIL(e, 2, e[0].got[1] == 20000 && e[1].got[0] == 20000);
	ends_close(e, 2);
}

static unsigned raw_count;
static uint16_t raw_body, raw_data;
static void raw_sizes(struct end *e, node_id from, const struct ic_msg *msg)
{
	(void)e;
	(void)from;
	raw_count++;
	raw_body = msg->body_len;
	raw_data = msg->data_len;
	for (unsigned i = 0; i < msg->data_len; i++)
		CHECK(((const uint8_t *)msg->data)[i] == (uint8_t)(i * 3 + msg->data_len));
	for (unsigned i = 0; i < msg->body_len; i++)
		CHECK(((const uint8_t *)msg->body)[i] == (uint8_t)(i * 5 + msg->body_len));
}

static void every_size(void)
{
	uint8_t body[IC_BODY_MAX], data[IC_DATA_MAX];
	struct ic_stats st;
	struct end e[2];
	unsigned n = 0;

	ends_open(e, 2);
	e[1].raw = raw_sizes;
	raw_count = 0;
	for (unsigned b = 0, d = 0; d <= IC_DATA_MAX; b = (b + 1) % (IC_BODY_MAX + 1), d++) {
		struct ic_msg msg = { .port = IC_PORT_TEST,
				      .body_len = (uint16_t)b,
				      .data_len = (uint16_t)d,
				      .body = body,
				      .data = data };

		for (unsigned i = 0; i < b; i++)
			body[i] = (uint8_t)(i * 5 + b);
		for (unsigned i = 0; i < d; i++)
			data[i] = (uint8_t)(i * 3 + d);
		PUMP_UNTIL(e, 2, ic_send(e[0].f, 1, &msg) != -EAGAIN);
		memset(body, 0, sizeof(body)); /* the fabric has copied */
		memset(data, 0, sizeof(data));
		n++;
		PUMP_UNTIL(e, 2, raw_count == n);
		CHECK(raw_body == b && raw_data == d);
	}
	ic_stats(e[0].f, &st);
	CHECK(st.msgs_sent == n && st.pages_sent == 1);
	ic_stats(e[1].f, &st);
	CHECK(st.msgs_received == n && st.pages_received == 1);
	ends_close(e, 2);
}

static void back_pressure_is_bounded_and_loses_nothing(void)
{
	struct end e[2];
	int err = 0;

	ends_open(e, 2);
	for (unsigned round = 0; round < 3; round++) {
		unsigned first = e[0].sent[1];

		while (!(err = send_next(&e[0], 1)))
			CHECK(e[0].sent[1] - first < 100000);
		CHECK(err == -EAGAIN);
		PUMP_UNTIL(e, 2, e[1].got[0] == e[0].sent[1]);
	}
	ends_close(e, 2);
}

static void all_to_all(unsigned count)
{
	struct end *e = calloc(count, sizeof(*e));
	bool all = false;

	ends_open(e, count);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < count; i++)
			for (unsigned k = 0; k < count; k++)
				if (k != i)
					PUMP_UNTIL(e, count, send_next(&e[i], (node_id)k) != -EAGAIN);
		pump_once(e, count);
	}
	while (!all) {
		pump_once(e, count);
		all = true;
		for (unsigned i = 0; i < count; i++)
			for (unsigned k = 0; k < count; k++)
				all &= k == i || e[i].got[k] == 200;
	}
	ends_close(e, count);
	free(e);
}

static void peers_2_to_8(void)
{
	for (unsigned n = 2; n <= 8; n++)
		all_to_all(n);
}

struct sender {
	struct end *e;
	unsigned id;
};

#define SENDERS 4u
#define PER_SENDER 5000u
static unsigned sender_next[SENDERS];

static void raw_senders(struct end *e, node_id from, const struct ic_msg *msg)
{
	uint32_t v[2];

	(void)e;
	(void)from;
	CHECK(msg->body_len == sizeof(v));
	memcpy(v, msg->body, sizeof(v));
	CHECK(v[0] < SENDERS && v[1] == sender_next[v[0]]);
	sender_next[v[0]]++;
	raw_count++;
}

static void *sender_run(void *arg)
{
	struct sender *s = arg;
	static const uint8_t page[IC_DATA_MAX];

	for (uint32_t i = 0; i < PER_SENDER; i++) {
		uint32_t v[2] = { s->id, i };
		struct ic_msg msg = { .port = IC_PORT_TEST,
				      .body_len = sizeof(v),
				      .body = v,
				      .data_len = i % 3 ? 0 : IC_DATA_MAX,
				      .data = page };
		int err;

		while ((err = ic_send(s->e->f, 1, &msg)) == -EAGAIN)
			usleep(50);
		CHECK(!err);
	}
	return NULL;
}

static void senders_of_many_threads(void)
{
	struct sender s[SENDERS];
	pthread_t tid[SENDERS];
	struct end e[2];

	ends_open(e, 2);
	e[1].raw = raw_senders;
	raw_count = 0;
	memset(sender_next, 0, sizeof(sender_next));
	for (unsigned i = 0; i < SENDERS; i++) {
		s[i] = (struct sender){ &e[0], i };
		pthread_create(&tid[i], NULL, sender_run, &s[i]);
	}
	PUMP_FOR(e, 2, raw_count == SENDERS * PER_SENDER, 30 * NS_PER_S);
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(tid[i], NULL);
	ends_close(e, 2);
}

/* One thread waits, the other wakes it, by ic_wake and by a message. */
static void *waker_run(void *arg)
{
	struct end *e = arg;

	usleep(20000);
	ic_wake(e[1].f);
	usleep(20000);
	CHECK(!send_next(&e[0], 1));
	return NULL;
}

/* The next wait that really waits: a path may come back at once, a few times, to see to what arming has stirred. */
static uint64_t wait_long(struct end *e, uint64_t timeout_ns)
{
	uint64_t t = 0;

	for (unsigned tries = 0; tries < 8 && t < 4 * NS_PER_MS; tries++) {
		uint64_t start = clock_now_ns();

		ic_wait(e->f, timeout_ns);
		t = clock_now_ns() - start;
		ic_progress(e->f, 16);
	}
	return t;
}

static void wait_ends_by_wake_message_and_time(void)
{
	uint64_t start, t;
	pthread_t tid;
	struct end e[2];

	ends_open(e, 2);
	while (pump_once(e, 2))
		;
	for (unsigned i = 0; i < 200; i++) /* leftovers of joining are seen to */
		pump_once(e, 2);
	ic_wait(e[1].f, 0); /* a wake that came before counts */
	CHECK(wait_long(&e[1], 5 * NS_PER_MS) >= 4 * NS_PER_MS);
	pthread_create(&tid, NULL, waker_run, e);
	start = clock_now_ns();
	t = wait_long(&e[1], 5 * NS_PER_S);
	CHECK(t > 10 * NS_PER_MS && t < 2 * NS_PER_S);
	while (!e[1].got[0] && clock_now_ns() - start < 4 * NS_PER_S) {
		ic_wait(e[1].f, 5 * NS_PER_S);
		ic_progress(e[1].f, 16);
	}
	CHECK(e[1].got[0] == 1);
	pthread_join(tid, NULL);
	ends_close(e, 2);
}

static void raw_nested(struct end *e, node_id from, const struct ic_msg *msg)
{
	(void)from;
	(void)msg;
	CHECK(ic_progress(e->f, 1) == -EBUSY);
	raw_count++;
}

static void progress_is_for_one_thread(void)
{
	struct end e[2];

	ends_open(e, 2);
	e[1].raw = raw_nested;
	raw_count = 0;
	CHECK(!send_next(&e[0], 1));
	PUMP_UNTIL(e, 2, raw_count == 1);
	ends_close(e, 2);
}

static void a_new_epoch_after_loss(void)
{
	struct end e[2];

	ends_open(e, 2);
	for (unsigned round = 0; round < 3; round++) {
		while (!send_next(&e[0], 1)) /* full: what is under way belongs to the old epoch */
			;
		ic_close(e[1].f);
		e[1].f = NULL;
		PUMP_UNTIL(e, 2, e[0].downs == round + 1);
		CHECK(send_next(&e[0], 1) == -ENOTCONN);
		end_open(&e[1], 1, 2, 1, 77);
		e[0].sent[1] =
			0; /* the new end counts from 0: a message of the old epoch would not fit */
		e[0].got[1] = 0;
		CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
		PUMP_UNTIL(e, 2, e[0].ups == round + 2 && e[1].ups == 1);
		for (unsigned i = 0; i < 100; i++)
			for (unsigned k = 0; k < 2; k++)
				PUMP_UNTIL(e, 2, send_next(&e[k], (node_id)(1 - k)) != -EAGAIN);
		PUMP_UNTIL(e, 2, e[1].got[0] == 100 && e[0].got[1] == 100);
	}
	ends_close(e, 2);
}

/* Two nodes that do not agree on `what` never come up, count it, and leave a live link alone. */
static void disagree(uint8_t key, uint64_t vm)
{
	struct ic_stats st[3];
	struct end e[3];

	end_open(&e[0], 0, 3, 1, 77);
	end_open(&e[1], 1, 3, 1, 77);
	end_open(&e[2], 2, 3, key, vm);
	CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
	PUMP_UNTIL(e, 3, e[0].ups == 1 && e[1].ups == 1);
	CHECK(!ic_join(e[0].f, 2, e[2].address) && !ic_join(e[2].f, 0, e[0].address));
	memset(st, 0, sizeof(st));
	while (!st[0].refused || !st[2].refused || e[1].got[0] < 1000) {
		if (e[0].sent[1] < 1000)
			PUMP_UNTIL(e, 3, send_next(&e[0], 1) != -EAGAIN);
		PUMP_UNTIL(e, 3, true);
		ic_stats(e[0].f, &st[0]);
		ic_stats(e[2].f, &st[2]);
	}
	CHECK(e[0].ups == 1 && !e[2].ups && !e[0].downs && !e[1].downs);
	ends_close(e, 3);
}

static void wrong_key(void)
{
	disagree(2, 77);
}
static void wrong_vm(void)
{
	disagree(1, 78);
}

#define MOCK "verbs (mock)"

static const struct {
	const char *name, *backend; /* NULL: every one; MOCK: verbs, when its library is the fake one */
	void (*run)(void);
} cases[] = {
	{ "order_both_ways", NULL, order_both_ways },
	{ "every_size", NULL, every_size },
	{ "back_pressure_is_bounded_and_loses_nothing", NULL,
	  back_pressure_is_bounded_and_loses_nothing },
	{ "peers_2_to_8", NULL, peers_2_to_8 },
	{ "senders_of_many_threads", NULL, senders_of_many_threads },
	{ "wait_ends_by_wake_message_and_time", NULL, wait_ends_by_wake_message_and_time },
	{ "progress_is_for_one_thread", NULL, progress_is_for_one_thread },
	{ "death_while_sending", NULL, death_while_sending },
	{ "death_while_receiving", NULL, death_while_receiving },
	{ "death_while_connecting", NULL, death_while_connecting },
	{ "standstill_while_connecting", NULL, standstill_while_connecting },
	{ "closing_while_connecting", NULL, closing_while_connecting },
	{ "a_new_epoch_after_loss", NULL, a_new_epoch_after_loss },
	{ "sleepers_are_woken", NULL, sleepers_are_woken },
	{ "sleepers_beside_pollers", NULL, sleepers_beside_pollers },
	{ "host_vanishes", "tcp", host_vanishes },
	{ "host_vanishes", "ofi", host_vanishes },
	{ "host_vanishes", "ucx", host_vanishes },
	{ "host_vanishes", MOCK, host_vanishes },
	{ "slow_receiver_costs_bounded_memory", NULL, slow_receiver_costs_bounded_memory },
	{ "closing_under_load", NULL, closing_under_load },
	{ "descriptors_run_out", "tcp", descriptors_run_out },
	{ "descriptors_run_out", "shm", descriptors_run_out },
	{ "peers_64", "tcp", peers_64 },
	{ "peers_64", "shm", peers_64 },
	{ "chaos_keeps_order_within_a_peer", "tcp", chaos_keeps_order_within_a_peer },
	{ "chaos_keeps_order_within_a_peer", "shm", chaos_keeps_order_within_a_peer },
	{ "chaos_keeps_order_within_a_peer", MOCK, chaos_keeps_order_within_a_peer },
	{ "chaos_wakes_who_waits", "tcp", chaos_wakes_who_waits },
	{ "chaos_wakes_who_waits", "shm", chaos_wakes_who_waits },
	{ "chaos_wakes_who_waits", MOCK, chaos_wakes_who_waits },
	{ "chaos_breaks_cleanly", "tcp", chaos_breaks_cleanly },
	{ "chaos_breaks_cleanly", "shm", chaos_breaks_cleanly },
	{ "chaos_breaks_cleanly", MOCK, chaos_breaks_cleanly },
	{ "data_path_counts", NULL, data_path_counts },
	{ "errors_of_sends", MOCK, errors_of_sends },
	{ "errors_of_receives", MOCK, errors_of_receives },
	{ "queue_pair_fails_in_silence", MOCK, queue_pair_fails_in_silence },
	{ "device_dies", MOCK, device_dies },
	{ "completion_queue_overruns", MOCK, completion_queue_overruns },
	{ "queue_pairs_run_out", MOCK, queue_pairs_run_out },
	{ "memory_cannot_be_registered", MOCK, memory_cannot_be_registered },
	{ "late_completions", MOCK, late_completions },
	{ "wrong_key", NULL, wrong_key },
	{ "wrong_vm", NULL, wrong_vm },
	{ "garbage_instead_of_a_handshake", "tcp", tcp_garbage_handshakes },
	{ "another_version", "tcp", tcp_another_version },
	{ "garbage_on_an_open_link", "tcp", tcp_garbage_frames },
	{ "silent_strangers", "tcp", tcp_silent_strangers },
	{ "garbage_in_the_rings", "shm", shm_garbage_in_the_rings },
};

/* False: this host has no library or device for the backend. */
static bool can_serve(void)
{
	struct ic_config cfg = { .nodes = 2, .backend = backend_name, .device = device_name, .listen = "127.0.0.1:0" };
	struct ic_fabric *f;
	int err = ic_open(&cfg, &f);

	if (!err)
		ic_close(f);
	return err != -ENODEV && err != -ELIBACC;
}

static void backend_split(const char *arg)
{
	static char text[64];
	char *rest = text;

	snprintf(text, sizeof(text), "%s", arg);
	backend_name = strsep(&rest, "=");
	device_name = rest;
}

int main(int argc, char **argv)
{
	const char *shown;
	unsigned run = 0;
	bool victim, vanish;

	if (argc < 2) {
		fprintf(stderr, "usage: %s BACKEND[=DEVICE] [CASE | -CASE,CASE...] | list\n", argv[0]);
		return 2;
	}
	if (!strcmp(argv[1], "list")) {
		for (const char *const *name = ic_backend_names(); *name; name++)
			puts(*name);
		return 0;
	}
	victim = argc > 2 && !strcmp(argv[1], "victim");
	vanish = argc > 2 && !strcmp(argv[1], "vanish");
	backend_arg = argv[1 + (victim || vanish)];
	backend_split(backend_arg);
	log_set_level(LOG_ERROR); /* refusals are the point here */
	signal(SIGPIPE, SIG_IGN);
	if (victim)
		return victim_main(argc, argv);
	if (vanish)
		return vanish_main();
	if (!can_serve()) {
		printf("  SKIP %s: no library or no device for it here\n", backend_name);
		return CASE_SKIPPED;
	}
	shown = mock_present() ? MOCK : backend_name;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t start = clock_now_ns();

		if (!case_wanted(argc > 2 ? argv[2] : NULL, cases[i].name) ||
		    (cases[i].backend && strcmp(cases[i].backend, shown)))
			continue;
		case_skip = NULL;
		cases[i].run();
		run++;
		if (case_skip)
			printf("  SKIP %s %s: %s\n", shown, cases[i].name, case_skip);
		else
			printf("  ok %s %s (%llu ms)\n", shown, cases[i].name,
			       (unsigned long long)((clock_now_ns() - start) / NS_PER_MS));
		fflush(stdout);
	}
	printf("fabric_conform %s: %u cases, 0 failed\n", shown, run);
	return run == 0;
}
