/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/fabric_bench.c - what the interconnect adds to the transport below it.
 *
 * What      usage: fabric_bench [BACKEND]      (default: all)
 *           Two processes, one CPU each where there are two, joined twice: through ic_* and by a bare transport over
 *           the same path (bare.h).  Rounds alternate between the two.
 * Cases     rtt     64 B there, 4 KiB back; both poll
 *           stream  4 KiB messages one way, as many as go
 *           sleep   rtt, but both sleep when there is nothing: ic_wait, and what the library has for it
 * Output    A line of JSON per case: p50 of all samples (median of the rounds for the stream), and their ratio.
 */
#include "tests/bench/bare.h"
#include "tests/bench/bench_nodes.h"

#include "base/assert.h"
#include "base/log.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 10u
#define RTTS 400u   /* of a round */
#define SLEEPS 40u  /* the same */
#define WARM 20u    /* of them, not counted */
#define PAGES 1000u /* of a stream */
#define STREAMS 3u  /* of a round */
#define ASK 64u
#define SPINS 2000u /* polls that find nothing, before the other process may have this CPU, if it wants it */

static const struct way {
	const char *backend, *device, *path; /* path: the name in the output */
	const char *env[2];		     /* for the library, set in both processes */
} ways[] = {
	{ "tcp", "", "loopback", { NULL } },
	{ "shm", "", "memory", { NULL } },
	{ "verbs", "", "device", { NULL } },
	{ "ofi", "tcp;ofi_rxm", "tcp;ofi_rxm", { NULL } },
	{ "ofi", "shm", "shm", { NULL } },
	{ "ofi", "verbs;ofi_rxm", "verbs;ofi_rxm", { NULL } },
	{ "ucx", "", "tcp", { "UCX_TLS", "tcp" } },
};

static void *bare_shared;

/* --- the interconnect as one of those that are measured ----------------------------------------------------------- */

static struct {
	struct ic_fabric *f;
	unsigned got[2]; /* asks, pages */
} ic;

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	(void)arg;
	(void)from;
	ASSERT(msg->data_len ? msg->data_len == BARE_MESSAGE_MAX : msg->body_len == ASK);
	ic.got[msg->data_len != 0]++;
}

static bool fabric_send(const void *at, unsigned len)
{
	struct ic_msg msg = { .port = IC_PORT_TEST };
	int err;

	if (len == ASK) {
		msg.body = at;
		msg.body_len = ASK;
	} else {
		msg.data = at;
		msg.data_len = (uint16_t)len;
	}
	err = ic_send(ic.f, !self, &msg);
	ASSERT(!err || err == -EAGAIN);
	if (err)
		ic_progress(ic.f, 16);
	return !err;
}

static bool fabric_recv(unsigned len)
{
	unsigned *got = &ic.got[len != ASK];

	if (!*got)
		ic_progress(ic.f, 16);
	if (!*got)
		return false;
	--*got;
	return true;
}

static void fabric_sleep(void)
{
	ic_wait(ic.f, NS_PER_S);
}

static const struct bare_ops through_fabric = { .send = fabric_send, .recv = fabric_recv, .sleep = fabric_sleep };

/* --- what is measured --------------------------------------------------------------------------------------------- */

static const uint8_t page[BARE_MESSAGE_MAX];

static void recv_one(const struct bare_ops *t, unsigned len, bool sleeps)
{
	for (unsigned spins = 0; !t->recv(len);) {
		if (sleeps)
			t->sleep();
		else if (++spins % SPINS == 0)
			sched_yield();
	}
}

static void send_one(const struct bare_ops *t, unsigned len)
{
	for (unsigned spins = 0; !t->send(page, len);)
		if (++spins % SPINS == 0)
			sched_yield();
}

static void round_trips(const struct bare_ops *t, unsigned count, bool sleeps, struct samples *s)
{
	meet();
	for (unsigned i = 0; i < count + WARM; i++) {
		uint64_t start = clock_now_ns();

		if (self == 0) {
			send_one(t, ASK);
			recv_one(t, BARE_MESSAGE_MAX, sleeps);
			if (i >= WARM)
				sample_add(s, clock_now_ns() - start);
		} else {
			recv_one(t, ASK, sleeps);
			send_one(t, BARE_MESSAGE_MAX);
		}
	}
}

/* One sample: ns for each page. */
static void stream(const struct bare_ops *t, struct samples *s)
{
	uint64_t start;

	meet();
	start = clock_now_ns();
	for (unsigned i = 0; i < PAGES; i++) {
		if (self == 0)
			send_one(t, BARE_MESSAGE_MAX);
		else
			recv_one(t, BARE_MESSAGE_MAX, false);
	}
	if (self == 0) {
		recv_one(t, ASK, false);
		sample_add(s, (clock_now_ns() - start) / PAGES);
	} else {
		send_one(t, ASK);
	}
	/* Some libraries move the last message only when they are called again. */
	for (unsigned i = 0; i < 100; i++)
		ASSERT(!t->recv(ASK));
}

/* --- one way ------------------------------------------------------------------------------------------------------ */

enum { RTT, SLEEP, STREAM, CASES };
enum { OURS, BARE, SIDES };

static void report(const struct way *w, unsigned c, struct samples s[SIDES])
{
	static const char *const names[] = { "rtt", "sleep", "stream" };
	double ours = percentile_us(&s[OURS], 50), bare = percentile_us(&s[BARE], 50);

	printf("{\"bench\":\"fabric\",\"backend\":\"%s\",\"path\":\"%s\",\"case\":\"%s\",\"samples\":%u,", w->backend,
	       w->path, names[c], s[OURS].count);
	if (c == STREAM) {
		ours = BARE_MESSAGE_MAX / ours / 1.048576;
		bare = BARE_MESSAGE_MAX / bare / 1.048576;
		printf("\"ours_mib_s\":%.0f,\"bare_mib_s\":%.0f,\"ratio\":%.2f}\n", ours, bare, ours / bare);
	} else {
		printf("\"ours_us\":%.2f,\"bare_us\":%.2f,\"ratio\":%.2f,\"p50\":%.2f,\"p99\":%.2f,\"bare_p99\":%.2f}\n", ours,
		       bare, ours / bare, ours, percentile_us(&s[OURS], 99), percentile_us(&s[BARE], 99));
	}
	fflush(stdout);
}

static const struct bare_ops *bare_find(const char *backend)
{
	char name[32];
	void *so;

	if (!strcmp(backend, "tcp"))
		return &bare_tcp;
	if (!strcmp(backend, "shm"))
		return &bare_shm;
	snprintf(name, sizeof(name), "bare-%s.so", backend);
	so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	snprintf(name, sizeof(name), "bare_%s", backend);
	return so ? dlsym(so, name) : NULL;
}

static void node_run(const void *arg)
{
	const struct way *w = arg;
	struct samples(*s)[SIDES] = calloc(CASES, sizeof(*s));
	const struct bare_ops *sides[SIDES] = { &through_fabric };
	unsigned len = BLOB_MAX;

	ASSERT(s);
	if (w->env[0])
		setenv(w->env[0], w->env[1], 1);
	ic.f = fabric_open(w->backend, w->device); /* its plugin sets what its library must know before it is loaded */
	ic_set_handler(ic.f, IC_PORT_TEST, (struct ic_handler){ on_message, NULL });
	fabric_link(ic.f, true);
	sides[BARE] = bare_find(w->backend);
	if (!sides[BARE] || sides[BARE]->open(w->device, self, bare_shared, ctl->blob[self], &len))
		exit(BENCH_SKIP);
	ctl->blob_len[self] = len;
	meet();
	sides[BARE]->connect(ctl->blob[!self], ctl->blob_len[!self]);
	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < SIDES; i++)
			round_trips(sides[i], RTTS, false, &s[RTT][i]);
		for (unsigned i = 0; i < SIDES; i++)
			for (unsigned k = 0; k < STREAMS; k++)
				stream(sides[i], &s[STREAM][i]);
		for (unsigned i = 0; i < SIDES; i++)
			round_trips(sides[i], SLEEPS, true, &s[SLEEP][i]);
	}
	for (unsigned c = 0; self == 0 && c < CASES; c++)
		report(w, c, s[c]);
	free(s);
	meet();
	ic_close(ic.f);
}

int main(int argc, char **argv)
{
	int failed = 0;

	log_set_level(LOG_ERROR);
	nodes_open();
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		const struct way *w = &ways[i];
		int result;

		if (argc > 1 && strcmp(argv[1], w->backend))
			continue;
		bare_shared = mmap(NULL, BARE_SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		ASSERT(bare_shared != MAP_FAILED);
		result = nodes_run(node_run, w);
		munmap(bare_shared, BARE_SHARED_BYTES);
		failed |= result == 1;
		if (result == BENCH_SKIP)
			fprintf(stderr, "fabric_bench: SKIP %s over %s: no library, no device or nothing bare here\n", w->backend, w->path);
		else if (result)
			fprintf(stderr, "fabric_bench: FAIL %s over %s\n", w->backend, w->path);
	}
	return failed;
}
