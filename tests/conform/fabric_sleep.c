/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_sleep.c - two threads, each asleep in ic_wait whenever it has nothing to do: what arrives wakes
 * them, whatever else was going on at that moment.
 */
#include "tests/conform/fabric_conform.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define ROUNDS 400u
#define BURST 40u		/* below what any backend takes without progress */
#define NAP_NS (20 * NS_PER_S)	 /* who is not woken sleeps that long */
#define ROUND_NS (12 * NS_PER_S) /* and is found out; a busy machine may hold a round up for seconds */

static _Atomic bool stop;
static _Atomic uint32_t answers;

static int send_word(struct end *e, node_id to, uint32_t word, uint16_t data_len)
{
	static const uint8_t page[IC_DATA_MAX];
	struct ic_msg msg = { .port = IC_PORT_TEST, .body_len = 4, .body = &word, .data_len = data_len, .data = page };

	return ic_send(e->f, to, &msg);
}

/* The last one of a burst is answered on the spot. */
static void answer(struct end *e, node_id from, const struct ic_msg *msg)
{
	uint32_t word;

	memcpy(&word, msg->body, sizeof(word));
	if (word)
		CHECK(!send_word(e, from, 0, 0));
}

static void count_answer(struct end *e, node_id from, const struct ic_msg *msg)
{
	(void)e;
	(void)from;
	(void)msg;
	answers++;
}

/* One call of progress for each wake, so that what it leaves must wake again. */
static void *sleeper_run(void *arg)
{
	struct end *e = arg;

	while (!stop) {
		ic_wait(e->f, NAP_NS);
		ic_progress(e->f, 16);
	}
	return NULL;
}

/* Two ends; the second sleeps in a thread of its own and answers. */
static pthread_t sleeper_open(struct end e[2])
{
	pthread_t tid;

	ends_open(e, 2);
	e[0].raw = count_answer;
	e[1].raw = answer;
	stop = false;
	answers = 0;
	CHECK(!pthread_create(&tid, NULL, sleeper_run, &e[1]));
	return tid;
}

static void sleeper_close(struct end e[2], pthread_t tid)
{
	stop = true;
	ic_wake(e[1].f);
	pthread_join(tid, NULL);
	ends_close(e, 2);
}

/* Another thread polls the same end for a while and takes what the sleeper was to be woken by; from then on it is alone. */
void sleepers_beside_pollers(void)
{
	struct end e[2];
	pthread_t tid;

	tid = sleeper_open(e);
	for (uint32_t round = 0; round < ROUNDS / 2; round++) {
		uint64_t start = clock_now_ns();
		uint32_t want = answers + BURST;

		for (uint32_t i = 0; i < BURST; i++) {
			CHECK(!send_word(&e[0], 1, 1, 0));
			for (unsigned k = 0; k < 8; k++)
				pump_once(e, 2);
		}
		while (answers != want)
			pump_once(e, 2);
		CHECK(!send_word(&e[0], 1, 1, 0));
		while (answers != want + 1) {
			ic_wait(e[0].f, NAP_NS);
			ic_progress(e[0].f, 16);
		}
		CHECK(clock_now_ns() < start + ROUND_NS);
	}
	sleeper_close(e, tid);
}

void sleepers_are_woken(void)
{
	struct end e[2];
	pthread_t tid;

	tid = sleeper_open(e);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint64_t start = clock_now_ns();

		for (uint32_t i = 1 + round * 7 % BURST; i--;)
			CHECK(!send_word(&e[0], 1, !i, round & 1 ? IC_DATA_MAX : 0));
		while (answers != round + 1) {
			ic_wait(e[0].f, NAP_NS);
			ic_progress(e[0].f, 16);
		}
		CHECK(clock_now_ns() < start + ROUND_NS);
	}
	sleeper_close(e, tid);
}
