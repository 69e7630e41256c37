/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_bounds.c - too much of everything: a receiver that does not read, 64 peers, no descriptors left,
 * closing while everybody sends.
 */
#include "tests/conform/fabric_conform.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LONG_NS (30 * NS_PER_S)
#define SLOW_BYTES (16u << 20) /* resident memory that one link may add; what is sent is far more */
#define SLOW_MESSAGES 20000u

static uint64_t resident_bytes(void)
{
	unsigned long total = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%lu %lu", &total, &resident) == 2);
	fclose(f);
	return (uint64_t)resident * PAGE_SIZE;
}

/* Never progresses; the sender is pushed back, and what waits for it does not grow, however long that lasts. */
void slow_receiver_costs_bounded_memory(void)
{
	uint64_t before, pushed_back = 0;
	uint32_t accepted;
	struct end e[2];

	ends_open(e, 2);
	for (unsigned i = 0; i < 100; i++)
		PUMP_FOR(e, 2, send_next(&e[0], 1) != -EAGAIN, LONG_NS);
	PUMP_FOR(e, 2, e[1].got[0] == 100, LONG_NS);
	before = resident_bytes();
	while (pushed_back < SLOW_MESSAGES) {
		int err = send_next(&e[0], 1);

		CHECK(!err || err == -EAGAIN);
		pushed_back += err == -EAGAIN;
		pump_once(e, 1); /* the sender only */
	}
	accepted = e[0].sent[1];
	CHECK(resident_bytes() < before + SLOW_BYTES && accepted < SLOW_MESSAGES);
	PUMP_FOR(e, 2, e[1].got[0] == accepted, LONG_NS); /* nothing was lost for it */
	ends_close(e, 2);
}

#define MANY 64u

/* One node of 64, its peers all in this process: each link carries messages both ways. */
static void star(unsigned count)
{
	struct end *e = calloc(count, sizeof(*e));
	uint32_t got = 0;

	for (unsigned i = 0; i < count; i++)
		end_open(&e[i], (node_id)i, count, 1, 77);
	for (unsigned i = 1; i < count; i++)
		CHECK(!ic_join(e[0].f, (node_id)i, e[i].address) && !ic_join(e[i].f, 0, e[0].address));
	PUMP_FOR(e, count, e[0].ups == count - 1, LONG_NS);
	for (unsigned round = 0; round < 50; round++)
		for (unsigned i = 1; i < count; i++) {
			PUMP_FOR(e, count, send_next(&e[0], (node_id)i) != -EAGAIN, LONG_NS);
			PUMP_FOR(e, count, send_next(&e[i], 0) != -EAGAIN, LONG_NS);
		}
	while (got < 2 * 50 * (count - 1)) {
		PUMP_FOR(e, count, true, LONG_NS);
		got = 0;
		for (unsigned i = 1; i < count; i++)
			got += e[0].got[i] + e[i].got[0];
	}
	CHECK(!e[0].downs);
	ends_close(e, count);
	free(e);
}

/* All to all is 2016 links in one process; their handshakes are bounded to 32 a node at a time, so some try again. */
static void mesh(unsigned count)
{
	struct end *e = calloc(count, sizeof(*e));
	uint32_t got = 0;

	ends_open(e, count);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < count; k++)
			if (k != i)
				PUMP_FOR(&e[k], 1, send_next(&e[i], (node_id)k) != -EAGAIN, LONG_NS);
	while (got < count * (count - 1)) {
		pump_once(e, count);
		got = 0;
		for (unsigned i = 0; i < count; i++)
			for (unsigned k = 0; k < count; k++)
				got += e[i].got[k];
	}
	ends_close(e, count);
	free(e);
}

void peers_64(void)
{
	struct rlimit old, more;

	CHECK(!getrlimit(RLIMIT_NOFILE, &old));
	more = old;
	more.rlim_cur = old.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &more));
	star(MANY);
	mesh(MANY);
	CHECK(!setrlimit(RLIMIT_NOFILE, &old));
}

/* No descriptor is left for a link: nobody crashes or hangs, and it comes up when there is one. */
void descriptors_run_out(void)
{
	struct rlimit old, few;
	struct end e[3];
	int spare;

	end_open(&e[0], 0, 3, 1, 77);
	end_open(&e[1], 1, 3, 1, 77);
	end_open(&e[2], 2, 3, 1, 77);
	ends_join(e, 2);
	spare = dup(0);
	CHECK(spare >= 0 && !getrlimit(RLIMIT_NOFILE, &old));
	close(spare);
	few = old;
	few.rlim_cur = (rlim_t)spare; /* the lowest free number is the limit */
	CHECK(!setrlimit(RLIMIT_NOFILE, &few));
	for (unsigned i = 0; i < 2; i++)
		CHECK(!ic_join(e[i].f, 2, e[2].address) && !ic_join(e[2].f, (node_id)i, e[i].address));
	for (unsigned i = 0; i < 1000; i++) {
		PUMP_FOR(e, 3, send_next(&e[0], 1) != -EAGAIN, LONG_NS);
		CHECK(!e[2].ups && !e[0].downs);
	}
	CHECK(!setrlimit(RLIMIT_NOFILE, &old));
	PUMP_FOR(e, 3, e[2].ups == 2 && e[0].is_up[2] && e[1].is_up[2] && e[1].got[0] == 1000, LONG_NS);
	ends_close(e, 3);
}

struct load {
	struct end *e;
	node_id to;
	_Atomic bool *stop;
	_Atomic unsigned ended;
};

static void *load_run(void *arg)
{
	static const uint8_t page[IC_DATA_MAX];
	struct load *l = arg;
	uint32_t body = 0;
	struct ic_msg msg = { .port = IC_PORT_TEST, .body_len = 4, .body = &body, .data_len = IC_DATA_MAX, .data = page };

	while (!*l->stop) {
		int err = ic_send(l->e->f, l->to, &msg);

		CHECK(!err || err == -EAGAIN || err == -ENOTCONN);
		if (err == -ENOTCONN)
			l->ended++;
		if (err)
			usleep(20);
	}
	return NULL;
}

static void ignore(struct end *e, node_id from, const struct ic_msg *msg)
{
	(void)from;
	(void)msg;
	CHECK(e->is_up[from]);
}

/* Threads send both ways while one side closes and opens again; theirs gets -ENOTCONN, then it works again. */
void closing_under_load(void)
{
	struct end e[2];

	ends_open(e, 2);
	for (unsigned round = 0; round < 5; round++) {
		_Atomic bool stop[2] = { false, false };
		struct load l[2] = { { &e[0], 1, &stop[0], 0 }, { &e[1], 0, &stop[1], 0 } };
		uint64_t until = clock_now_ns() + 10 * NS_PER_MS;
		pthread_t tid[2];

		e[0].raw = e[1].raw = ignore;
		for (unsigned i = 0; i < 2; i++)
			CHECK(!pthread_create(&tid[i], NULL, load_run, &l[i]));
		PUMP_FOR(e, 2, clock_now_ns() > until, LONG_NS);
		stop[1] = true; /* nobody may be inside the fabric that is closed */
		pthread_join(tid[1], NULL);
		ic_close(e[1].f);
		e[1].f = NULL;
		PUMP_FOR(e, 2, e[0].downs == round + 1 && l[0].ended, LONG_NS);
		end_open(&e[1], 1, 2, 1, 77);
		e[1].raw = ignore;
		CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
		PUMP_FOR(e, 2, e[0].ups == round + 2 && e[1].ups == 1, LONG_NS);
		stop[0] = true;
		pthread_join(tid[0], NULL);
	}
	ends_close(e, 2);
}
