/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_beats.c - heartbeats on the fabric while threads of three nodes all write one page.
 *
 * What      A thread of each node sends a message to each other node every 10 ms, stamped with the time at which it was due.
 *           Printed is how late they are delivered, with the nodes idle and under attack (docs/limits.md); a delay as long
 *           as the time after which a silent peer is taken for dead fails.
 */
#include "base/bytes.h"
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES 3u
#define THREADS 2u /* per node */
#define EVERY_NS (10 * NS_PER_MS)
#define BEATS 150u
#define DEAD_AFTER_NS (5 * NS_PER_S)
#define TOTAL (NODES * (NODES - 1) * BEATS)

static uint64_t delay[TOTAL];
static _Atomic unsigned delivered;
static _Atomic bool ending;

static void on_beat(void *node, node_id from, const struct ic_msg *msg)
{
	unsigned i = atomic_fetch_add(&delivered, 1);

	(void)node;
	(void)from;
	delay[i] = clock_now_ns() - get_le64(msg->body);
}

struct beater {
	struct node *n;
	unsigned self;
	pthread_t tid;
};

static void *beat(void *arg)
{
	struct beater *b = arg;
	uint64_t due = clock_now_ns();

	for (unsigned i = 0; i < BEATS; i++) {
		uint8_t body[8];
		struct ic_msg msg = { .port = IC_PORT_TEST, .body_len = sizeof(body), .body = body };
		uint64_t now;

		due += EVERY_NS;
		while ((now = clock_now_ns()) < due)
			usleep((useconds_t)((due - now) / NS_PER_US + 1));
		put_le64(body, due);
		for (unsigned to = 0; to < NODES; to++)
			while (to != b->self && ic_send(b->n->f, (node_id)to, &msg) == -EAGAIN)
				usleep(50);
	}
	return NULL;
}

/* A vCPU: writes as soon as it may. */
static void drop_nothing(void *arg, gfn_t gfn, enum dsm_right right)
{
	(void)arg;
	(void)gfn;
	(void)right;
}

struct writer_thread {
	struct dsm *d;
	pthread_t tid;
	uint64_t writes;
};

static void *write_run(void *arg)
{
	struct writer_thread *w = arg;
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;

	if (dsm_reader_open(w->d, &kick, &r))
		return NULL;
	while (!ending) {
		dsm_reader_enter(r, drop_nothing, NULL);
		for (unsigned i = 0; i < 100 && dsm_reader_right(r, 0) == DSM_WRITE; i++, w->writes++) {
			atomic_fetch_add((_Atomic uint64_t *)dsm_alias(w->d), 1);
			dsm_reader_poll(r, drop_nothing, NULL);
		}
		dsm_reader_leave(r);
		if (dsm_right(w->d, 0) < DSM_WRITE && dsm_acquire(w->d, 0, DSM_WRITE, clock_now_ns() + DEAD_AFTER_NS))
			break;
	}
	dsm_reader_close(r);
	return NULL;
}

static int order(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void beats(struct node n[NODES], const char *name)
{
	struct beater b[NODES];
	uint64_t until;

	delivered = 0;
	for (unsigned i = 0; i < NODES; i++) {
		b[i] = (struct beater){ .n = &n[i], .self = i };
		cr_assert_eq(pthread_create(&b[i].tid, NULL, beat, &b[i]), 0);
	}
	for (unsigned i = 0; i < NODES; i++)
		pthread_join(b[i].tid, NULL);
	until = clock_now_ns() + DEAD_AFTER_NS;
	while (delivered < TOTAL && clock_now_ns() < until)
		usleep(1000);
	cr_assert_eq(delivered, TOTAL, "%s: %u of %u came", name, delivered, TOTAL);
	usleep(1000); /* the last handler is writing it down */
	qsort(delay, TOTAL, sizeof(delay[0]), order);
	printf("heartbeats, %s: delay p50 %.2f ms, p99 %.2f ms, max %.2f ms\n", name, (double)delay[TOTAL / 2] / NS_PER_MS,
	       (double)delay[TOTAL * 99 / 100] / NS_PER_MS, (double)delay[TOTAL - 1] / NS_PER_MS);
	cr_assert_lt(delay[TOTAL - 1], DEAD_AFTER_NS);
}

Test(beats, come_while_all_write_one_page, .timeout = 60)
{
	static const struct dsm_range ranges[] = { { 0, 8, 0 }, { 8, 8, 1 }, { 16, 8, 2 } };
	static struct node n[NODES];
	struct writer_thread w[NODES * THREADS];
	uint64_t value, sum = 0;

	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = NODES, .backend = "tcp", .ranges = ranges,
							 .ranges_count = NODES, .mapping = DSM_MAP_TLB,
							 .on_test = on_beat }),
		     0);
	beats(n, "idle");
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		w[i] = (struct writer_thread){ .d = n[i % NODES].d };
		cr_assert_eq(pthread_create(&w[i].tid, NULL, write_run, &w[i]), 0);
	}
	beats(n, "all writing one page");
	ending = true;
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		pthread_join(w[i].tid, NULL);
		cr_assert_gt(w[i].writes, 0u);
		sum += w[i].writes;
	}
	cr_assert_eq(dsm_copy_in(n[1].d, &value, 0, sizeof(value), clock_now_ns() + DEAD_AFTER_NS), 0);
	cr_assert_eq(value, sum);
	nodes_close(n, NODES);
}
