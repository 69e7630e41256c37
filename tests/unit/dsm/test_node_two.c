/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_node_two.c - two nodes in one process over tcp: pages travel, the reader contract holds
 * across nodes, deadlines and the loss of a peer end waits.
 */
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define SOON (clock_now_ns() + 5 * NS_PER_S)

/* Frames 0 .. 63 homed on node 0, 64 .. 127 on node 1. */
static void open_two(struct node n[2])
{
	static const struct dsm_range ranges[] = { { 0, 64, 0 }, { 64, 64, 1 } };

	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = 2, .backend = "tcp", .ranges = ranges,
							 .ranges_count = 2, .mapping = DSM_MAP_TLB }),
		     0);
}

static void close_two(struct node n[2])
{
	nodes_close(n, 2);
}

Test(two, never_written_pages_are_zero_and_do_not_travel)
{
	struct node n[2];
	uint8_t page[PAGE_SIZE];

	open_two(n);
	memset(page, 1, sizeof(page));
	cr_assert_eq(dsm_copy_in(n[0].d, page, 70 * PAGE_SIZE, PAGE_SIZE, SOON), 0);
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		cr_assert_eq(page[i], 0);
	cr_assert_eq(stats_of(&n[0]).pages_received, 0);
	cr_assert_eq(stats_of(&n[0]).faults_read, 1);
	close_two(n);
}

Test(two, what_one_writes_the_other_reads)
{
	struct node n[2];
	uint8_t out[3 * PAGE_SIZE], in[3 * PAGE_SIZE];

	open_two(n);
	for (unsigned round = 0; round < 20; round++) {
		unsigned writer = round % 2;
		gpa_t at = (62 + round % 3) * PAGE_SIZE + round * 13;

		for (size_t i = 0; i < sizeof(out); i++)
			out[i] = (uint8_t)(i * round + round);
		cr_assert_eq(dsm_copy_out(n[writer].d, at, out, sizeof(out), SOON), 0);
		cr_assert_eq(dsm_copy_in(n[!writer].d, in, at, sizeof(in), SOON), 0);
		cr_assert_eq(memcmp(in, out, sizeof(in)), 0, "round %u", round);
	}
	cr_assert_gt(stats_of(&n[0]).pages_received, 0);
	cr_assert_gt(stats_of(&n[1]).pages_received, 0);
	cr_assert_eq(stats_of(&n[0]).refused + stats_of(&n[1]).refused, 0);
	close_two(n);
}

struct seen {
	_Atomic unsigned drops;
	gfn_t gfn;
	enum dsm_right right;
};

static void on_drop(void *arg, gfn_t gfn, enum dsm_right right)
{
	struct seen *s = arg;

	s->gfn = gfn;
	s->right = right;
	s->drops++;
}

struct asker {
	struct dsm *d;
	gfn_t gfn;
	enum dsm_right right;
	int result;
	_Atomic bool done;
	uint64_t deadline_ns;
};

static void *ask(void *arg)
{
	struct asker *a = arg;

	a->result = dsm_acquire(a->d, a->gfn, a->right, a->deadline_ns);
	a->done = true;
	return NULL;
}

/* The right is gone at once for newcomers, but the peer gets the page only when the reader has let go. */
Test(two, an_active_reader_is_waited_for)
{
	struct node n[2];
	struct seen s = { 0 };
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct asker a;
	pthread_t tid;

	open_two(n);
	cr_assert_eq(dsm_reader_open(n[0].d, &kick, &r), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 3, DSM_WRITE, SOON), 0);
	dsm_reader_enter(r, on_drop, &s);
	cr_assert_eq(dsm_reader_right(r, 3), DSM_WRITE);
	a = (struct asker){ .d = n[1].d, .gfn = 3, .right = DSM_READ, .deadline_ns = SOON };
	pthread_create(&tid, NULL, ask, &a);
	while (!kick)
		usleep(100);
	cr_assert_eq(dsm_right(n[0].d, 3), DSM_READ, "lowered before the reader lets go");
	dsm_alias(n[0].d)[3 * PAGE_SIZE] = 42; /* still ours to write */
	usleep(20000);
	cr_assert_not(a.done);
	cr_assert_eq(s.drops, 0);
	kick = 0;
	dsm_reader_poll(r, on_drop, &s);
	cr_assert_eq(s.drops, 1);
	cr_assert_eq(s.gfn, 3);
	cr_assert_eq(s.right, DSM_READ);
	pthread_join(tid, NULL);
	cr_assert_eq(a.result, 0);
	cr_assert_eq(dsm_alias(n[1].d)[3 * PAGE_SIZE], 42);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	close_two(n);
}

Test(two, leaving_lets_go_and_entering_tells)
{
	struct node n[2];
	struct seen s = { 0 };
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct asker a;
	pthread_t tid;

	open_two(n);
	cr_assert_eq(dsm_reader_open(n[0].d, &kick, &r), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 3, DSM_WRITE, SOON), 0);
	dsm_reader_enter(r, on_drop, &s);
	cr_assert_eq(dsm_reader_right(r, 3), DSM_WRITE);
	a = (struct asker){ .d = n[1].d, .gfn = 3, .right = DSM_WRITE, .deadline_ns = SOON };
	pthread_create(&tid, NULL, ask, &a);
	while (!kick)
		usleep(100);
	dsm_reader_leave(r);
	pthread_join(tid, NULL);
	cr_assert_eq(a.result, 0);
	cr_assert_eq(s.drops, 0);
	dsm_reader_enter(r, on_drop, &s);
	cr_assert_eq(s.drops, 1);
	cr_assert_eq(s.right, DSM_NONE);
	cr_assert_eq(dsm_right(n[0].d, 3), DSM_NONE);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	close_two(n);
}

Test(two, a_deadline_ends_the_wait_and_the_page_still_comes)
{
	struct node n[2];
	struct seen s = { 0 };
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;

	open_two(n);
	cr_assert_eq(dsm_reader_open(n[0].d, &kick, &r), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 3, DSM_WRITE, SOON), 0);
	dsm_reader_enter(r, on_drop, &s); /* and does not poll */
	dsm_reader_right(r, 3);
	cr_assert_eq(dsm_acquire(n[1].d, 3, DSM_WRITE, clock_now_ns() + 30 * NS_PER_MS),
		     -ETIMEDOUT);
	dsm_reader_leave(r);
	cr_assert_eq(dsm_acquire(n[1].d, 3, DSM_WRITE, SOON), 0);
	dsm_reader_close(r);
	close_two(n);
}

Test(two, loss_of_the_peer_ends_every_wait)
{
	struct node n[2];
	struct seen s = { 0 };
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;
	struct asker a;
	pthread_t tid;

	open_two(n);
	cr_assert_eq(dsm_reader_open(n[0].d, &kick, &r), 0);
	cr_assert_eq(dsm_acquire(n[0].d, 3, DSM_WRITE, SOON), 0);
	dsm_reader_enter(r, on_drop, &s); /* and never lets go */
	cr_assert_eq(dsm_reader_right(r, 3), DSM_WRITE);
	a = (struct asker){ .d = n[1].d, .gfn = 3, .right = DSM_WRITE, .deadline_ns = UINT64_MAX };
	pthread_create(&tid, NULL, ask, &a);
	while (!kick)
		usleep(100);
	usleep(10000); /* long enough for the waiter to sleep */
	cr_assert_not(a.done);
	dsm_peer_lost(n[1].d, 0);
	pthread_join(tid, NULL);
	cr_assert_eq(a.result, -EPIPE);
	cr_assert_eq(dsm_acquire(n[1].d, 5, DSM_READ, UINT64_MAX), -EPIPE);
	dsm_reader_leave(r);
	dsm_reader_close(r);
	close_two(n);
}

/* Bytes that no node would send are counted and change nothing. */
Test(two, garbage_messages_are_refused)
{
	struct node n[2];
	uint8_t body[64], page[PAGE_SIZE] = { 0 };
	uint64_t state = 1;

	open_two(n);
	for (unsigned i = 0; i < 2000; i++) {
		struct ic_msg msg = { .port = IC_PORT_DSM, .body = body, .data = page };

		for (unsigned k = 0; k < sizeof(body); k++)
			body[k] = (uint8_t)((state = state * 6364136223846793005u +
						     1442695040888963407u) >>
					    56);
		if (i % 2)
			body[0] = 1; /* the version, so that some get further */
		msg.body_len = (uint16_t)(i % 3 ? 16 : body[5] % 64);
		msg.data_len = i % 5 ? 0 : PAGE_SIZE;
		while (ic_send(n[0].f, 1, &msg) == -EAGAIN)
			usleep(100);
	}
	while (stats_of(&n[1]).refused < 2000)
		usleep(1000);
	cr_assert_eq(dsm_copy_in(n[0].d, page, 70 * PAGE_SIZE, PAGE_SIZE, SOON), 0);
	cr_assert_eq(dsm_copy_in(n[1].d, page, 10 * PAGE_SIZE, PAGE_SIZE, SOON), 0);
	close_two(n);
}
