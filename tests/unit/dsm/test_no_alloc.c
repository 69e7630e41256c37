/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_no_alloc.c - nothing is allocated while pages are got, although the fabric pushes back most of the time.
 *
 * What      Counts the allocator's calls of the whole process while threads of three nodes write to the same pages, and
 *           the transport under them says -EAGAIN in four of every five stretches of time.
 */
#include "base/rng.h"
#include "interconnect/fabric_priv.h"
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES 3u
#define THREADS 4u /* per node */
#define PAGES 48u
#define ROUNDS 150u
#define STRETCH_NS (400 * NS_PER_US)

static _Atomic bool armed;
static _Atomic unsigned long allocations, pushed_back;

/* --- the allocator, counted (a sanitizer has its own) ------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED 0
#else
#define COUNTED 1
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);

void *malloc(size_t bytes)
{
	allocations += armed;
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	allocations += armed;
	return __libc_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes)
{
	allocations += armed;
	return __libc_realloc(p, bytes);
}
#endif

/* --- the fabric, pushing back --------------------------------------------------------------------------- */

static const struct ic_transport *real; /* of all nodes */

static int push_back(void *priv, node_id to, const struct ic_msg *msg)
{
	if (armed && (clock_now_ns() / STRETCH_NS + to) % 5) {
		pushed_back++;
		return -EAGAIN;
	}
	return real->send(priv, to, msg);
}

/* --- threads ---------------------------------------------------------------------------------------------- */

struct user {
	struct dsm *d;
	uint64_t seed;
	pthread_t tid;
	pthread_barrier_t *start, *end;
	unsigned failed;
};

static void drop_nothing(void *arg, gfn_t gfn, enum dsm_right right)
{
	(void)arg;
	(void)gfn;
	(void)right;
}

static void add_one(struct user *u, struct dsm_reader *r, gfn_t gfn)
{
	for (bool done = false; !done && !u->failed;) {
		dsm_reader_enter(r, drop_nothing, NULL);
		done = dsm_reader_right(r, gfn) == DSM_WRITE;
		if (done)
			atomic_fetch_add((_Atomic uint64_t *)(dsm_alias(u->d) + (gfn << PAGE_SHIFT)), 1);
		dsm_reader_leave(r);
		if (!done)
			u->failed = dsm_acquire(u->d, gfn, DSM_WRITE, clock_now_ns() + 60 * NS_PER_S) != 0;
	}
}

static void *user_run(void *arg)
{
	struct user *u = arg;
	struct rng rng = { u->seed };
	_Atomic uint32_t kick = 0;
	struct dsm_reader *r;

	u->failed = dsm_reader_open(u->d, &kick, &r) != 0;
	pthread_barrier_wait(u->start); /* all readers are open */
	pthread_barrier_wait(u->start); /* and the allocator is watched */
	for (unsigned i = 0; i < ROUNDS && !u->failed; i++)
		add_one(u, r, rng_below(&rng, PAGES));
	pthread_barrier_wait(u->end);
	dsm_reader_close(r);
	return NULL;
}

static void run(uint64_t cache_pages)
{
	static const struct dsm_range ranges[] = { { 0, 16, 0 }, { 16, 16, 1 }, { 32, 16, 2 } };
	static struct ic_transport pushing;
	struct node n[NODES];
	struct user u[NODES * THREADS];
	pthread_barrier_t start, end;
	uint64_t sum = 0, value;

	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = NODES, .backend = "shm", .ranges = ranges,
							 .ranges_count = NODES, .mapping = DSM_MAP_TLB,
							 .cache_pages = cache_pages }),
		     0);
	real = n[0].f->ops;
	pushing = *real;
	pushing.send = push_back;
	for (unsigned i = 0; i < NODES; i++)
		n[i].f->ops = &pushing;
	pthread_barrier_init(&start, NULL, NODES * THREADS + 1);
	pthread_barrier_init(&end, NULL, NODES * THREADS + 1);
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		u[i] = (struct user){ .d = n[i % NODES].d, .seed = i + 1, .start = &start, .end = &end };
		cr_assert_eq(pthread_create(&u[i].tid, NULL, user_run, &u[i]), 0);
	}
	pthread_barrier_wait(&start);
	armed = true;
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&end);
	armed = false;
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		pthread_join(u[i].tid, NULL);
		cr_assert_eq(u[i].failed, 0u);
	}
	for (gfn_t gfn = 0; gfn < PAGES; gfn++) {
		cr_assert_eq(dsm_copy_in(n[0].d, &value, gfn << PAGE_SHIFT, sizeof(value), clock_now_ns() + 10 * NS_PER_S), 0);
		sum += value;
	}
	printf("pushed back %lu times, %lu allocations\n", pushed_back, allocations);
	cr_assert_eq(sum, NODES * THREADS * ROUNDS);
	cr_assert_gt(pushed_back, 1000u);
	cr_assert_eq(allocations, 0u);
	nodes_close(n, NODES);
}

Test(no_alloc, allocations_are_counted)
{
	void *volatile p; /* or the compiler leaves out both */

	if (!COUNTED)
		cr_skip_test("a sanitizer has the allocator");
	armed = true;
	p = malloc(1);
	armed = false;
	free(p);
	cr_assert_gt(allocations, 0u);
}

Test(no_alloc, faults_under_back_pressure, .timeout = 120)
{
	run(0);
}

Test(no_alloc, faults_and_evictions_under_back_pressure, .timeout = 120)
{
	run(16);
}
