/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_collect.c - threads of three nodes that write to one page, to pages in a ring, and to eight pages at
 * once: all get on, nothing is lost, and the longest wait is told (docs/limits.md).  With a TLB each thread gets its pages
 * itself; with a view whose faults are dispatched the kernel parks it at each page that it lacks.
 */
#include "base/rng.h"
#include "dsm/dsm_priv.h"
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>

#define NODES 3u
#define THREADS 2u /* per node */
#define PAGES 8u
#define ROUNDS 200u

/* Frame k is homed on node k modulo NODES. */
static void open_three(struct node n[NODES], enum dsm_mapping mapping, uint64_t cache_pages)
{
	struct dsm_range ranges[PAGES];

	for (unsigned k = 0; k < PAGES; k++)
		ranges[k] = (struct dsm_range){ k, 1, (node_id)(k % NODES) };
	cr_assert_eq(nodes_open(n, &(struct nodes_spec){ .nodes = NODES, .backend = "shm", .ranges = ranges,
							 .ranges_count = PAGES, .mapping = mapping, .faults = DSM_FAULTS_DISPATCH,
							 .cache_pages = cache_pages }),
		     0);
}

struct user {
	struct dsm *d;
	unsigned self, needs; /* needs: pages at once, from page `self` on, around; PAGES: in random order */
	bool native;
	uint64_t seed, longest_ns;
};

static void drop_nothing(void *arg, gfn_t gfn, enum dsm_right right)
{
	(void)arg;
	(void)gfn;
	(void)right;
}

/* The pages for writing, all at once, as an instruction that is tried again after each fault. */
static void instruction(struct user *u, struct dsm_reader *r, const gfn_t order[PAGES])
{
	uint64_t start = clock_now_ns(), took;

	for (;;) {
		unsigned have = 0;

		dsm_reader_enter(r, drop_nothing, NULL);
		while (have < u->needs && dsm_reader_right(r, order[have]) == DSM_WRITE)
			have++;
		for (unsigned i = 0; have == u->needs && i < u->needs; i++)
			atomic_fetch_add((_Atomic uint64_t *)(dsm_alias(u->d) + (order[i] << PAGE_SHIFT)), 1);
		dsm_reader_leave(r);
		if (have == u->needs)
			break;
		cr_assert_eq(dsm_acquire(u->d, order[have], DSM_WRITE, start + 60 * NS_PER_S), 0);
	}
	took = clock_now_ns() - start;
	u->longest_ns = took > u->longest_ns ? took : u->longest_ns;
}

/* The same with native accesses: a store to the first page that is missing, until none is.  The lock keeps them while it
 * counts. */
static void native_instruction(struct user *u, const gfn_t order[PAGES])
{
	uint64_t start = clock_now_ns(), took;

	for (;;) {
		unsigned have = 0;

		dsm_lock(u->d);
		while (have < u->needs && dsm_right(u->d, order[have]) == DSM_WRITE)
			have++;
		for (unsigned i = 0; have == u->needs && i < u->needs; i++)
			atomic_fetch_add((_Atomic uint64_t *)(dsm_alias(u->d) + (order[i] << PAGE_SHIFT)), 1);
		dsm_unlock(u->d);
		if (have == u->needs)
			break;
		atomic_fetch_add((_Atomic uint64_t *)(dsm_view(u->d) + (order[have] << PAGE_SHIFT) + 64), 1);
		cr_assert_lt(clock_now_ns(), start + 60 * NS_PER_S);
	}
	took = clock_now_ns() - start;
	u->longest_ns = took > u->longest_ns ? took : u->longest_ns;
}

static void *user_run(void *arg)
{
	struct user *u = arg;
	struct rng rng = { u->seed };
	struct dsm_reader *r = NULL;
	_Atomic uint32_t kick = 0;

	if (!u->native)
		cr_assert_eq(dsm_reader_open(u->d, &kick, &r), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		gfn_t order[PAGES];

		for (unsigned k = 0; k < PAGES; k++)
			order[k] = (u->self + k) % (NODES * THREADS);
		for (unsigned k = 0; u->needs == PAGES && k < PAGES; k++)
			order[k] = k;
		for (unsigned k = PAGES - 1; u->needs == PAGES && k > 0; k--) {
			unsigned other = (unsigned)rng_below(&rng, k + 1);
			gfn_t swap = order[k];

			order[k] = order[other];
			order[other] = swap;
		}
		if (u->native)
			native_instruction(u, order);
		else
			instruction(u, r, order);
	}
	if (r)
		dsm_reader_close(r);
	return NULL;
}

/* `ring`: each thread its own first page.  Collections that it took. */
static uint64_t contend(const char *name, enum dsm_mapping mapping, unsigned needs, bool ring, uint64_t cache_pages)
{
	struct node n[NODES];
	struct user u[NODES * THREADS];
	pthread_t tid[NODES * THREADS];
	uint64_t sum, total = 0, longest = 0, collections = 0;

	open_three(n, mapping, cache_pages);
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		u[i] = (struct user){ .d = n[i % NODES].d, .self = ring ? i : 0, .needs = needs, .seed = i + 1,
				   .native = mapping == DSM_MAP_UFFD };
		cr_assert_eq(pthread_create(&tid[i], NULL, user_run, &u[i]), 0);
	}
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		pthread_join(tid[i], NULL);
		longest = u[i].longest_ns > longest ? u[i].longest_ns : longest;
	}
	for (unsigned i = 0; i < PAGES; i++) {
		cr_assert_eq(dsm_copy_in(n[0].d, &sum, (gpa_t)i << PAGE_SHIFT, sizeof(sum),
					 clock_now_ns() + 10 * NS_PER_S),
			     0);
		total += sum;
	}
	cr_assert_eq(total, (uint64_t)NODES * THREADS * ROUNDS * needs);
	for (unsigned i = 0; i < NODES; i++) {
		struct dsm_stats st;

		dsm_stats(n[i].d, &st);
		collections += st.collections;
	}
	printf("%s: longest wait %llu ms, %llu collections\n", name, (unsigned long long)(longest / NS_PER_MS),
	       (unsigned long long)collections);
	nodes_close(n, NODES);
	return collections;
}

Test(collect, one_page, .timeout = 120)
{
	contend("one page", DSM_MAP_TLB, 1, false, 0);
}

Test(collect, pages_in_a_ring, .timeout = 120)
{
	contend("a ring, two each", DSM_MAP_TLB, 2, true, 0);
}

Test(collect, eight_contended_pages_at_once, .timeout = 120)
{
	uint64_t collections = 0;

	/* How often threads are in each other's way is the scheduler's choice. */
	for (unsigned i = 0; i < 20 && !collections; i++)
		collections += contend("eight pages", DSM_MAP_TLB, PAGES, false, 0);
	cr_assert_gt(collections, 0u);
}

/* Half of so small a cache is as much as one collection needs: at most one at a time on a node. */
Test(collect, the_same_with_a_small_cache, .timeout = 120)
{
	contend("eight pages, cache of 16", DSM_MAP_TLB, PAGES, false, 16);
}

Test(collect, eight_contended_pages_at_once_dispatched, .timeout = 120)
{
	uint64_t collections = 0;

	contend("dispatched, one page", DSM_MAP_UFFD, 1, false, 0);
	for (unsigned i = 0; i < 20 && !collections; i++)
		collections += contend("dispatched, eight pages", DSM_MAP_UFFD, PAGES, false, 0);
	cr_assert_gt(collections, 0u);
}
