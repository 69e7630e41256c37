/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_collect.c - instructions that need eight contended pages at once, on three nodes: all get on, none is
 * lost, and no thread waits without bound.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "dsm/dsm.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NODES 3u
#define THREADS 2u /* per node */
#define PAGES 8u
#define ROUNDS 200u

struct node {
	struct ic_fabric *f;
	struct dsm *d;
	_Atomic unsigned up;
};

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct node *n = arg;

	if (event == IC_PEER_UP)
		n->up++;
	else if (n->d)
		dsm_peer_lost(n->d, peer);
}

/* Frame k is homed on node k modulo NODES. */
static void nodes_open(struct node n[NODES], uint64_t cache_pages)
{
	struct dsm_range ranges[PAGES];
	char address[NODES][IC_ADDR_MAX];

	memset(n, 0, NODES * sizeof(*n));
	for (unsigned k = 0; k < PAGES; k++)
		ranges[k] = (struct dsm_range){ k, 1, (node_id)(k % NODES) };
	for (unsigned i = 0; i < NODES; i++) {
		struct ic_config ic = { .self = (node_id)i, .nodes = NODES, .backend = "shm", .vm_id = 5,
					.listen = "", .on_peer = on_peer, .arg = &n[i] };
		struct dsm_config cfg = { .self = (node_id)i, .nodes = NODES, .ranges = ranges,
					  .ranges_count = PAGES, .mapping = DSM_MAP_TLB,
					  .cache_pages = cache_pages };

		cr_assert_eq(ic_open(&ic, &n[i].f), 0);
		ic_address(n[i].f, address[i]);
		cfg.fabric = n[i].f;
		cr_assert_eq(dsm_open(&cfg, &n[i].d), 0);
	}
	for (unsigned i = 0; i < NODES; i++)
		for (unsigned k = 0; k < NODES; k++)
			cr_assert(i == k || !ic_join(n[i].f, (node_id)k, address[k]));
	for (unsigned i = 0; i < NODES; i++)
		while (n[i].up < NODES - 1)
			usleep(100);
}

static void nodes_close(struct node n[NODES])
{
	for (unsigned i = 0; i < NODES; i++)
		dsm_stop(n[i].d);
	for (unsigned i = 0; i < NODES; i++) {
		struct dsm *d = n[i].d;

		n[i].d = NULL;
		dsm_close(d);
	}
	for (unsigned i = 0; i < NODES; i++)
		ic_close(n[i].f);
}

struct user {
	struct dsm *d;
	uint64_t seed, longest_ns;
};

static void drop_nothing(void *arg, gfn_t gfn, enum dsm_right right)
{
	(void)arg;
	(void)gfn;
	(void)right;
}

/* All eight pages for writing, in an order of its own, as an instruction that is tried again after each fault. */
static void instruction(struct user *u, struct dsm_reader *r, const gfn_t order[PAGES])
{
	uint64_t start = clock_now_ns(), took;

	for (;;) {
		unsigned have = 0;

		dsm_reader_enter(r, drop_nothing, NULL);
		while (have < PAGES && dsm_reader_right(r, order[have]) == DSM_WRITE)
			have++;
		for (unsigned i = 0; have == PAGES && i < PAGES; i++)
			atomic_fetch_add((_Atomic uint64_t *)(dsm_alias(u->d) + (i << PAGE_SHIFT)), 1);
		dsm_reader_leave(r);
		if (have == PAGES)
			break;
		cr_assert_eq(dsm_acquire(u->d, order[have], DSM_WRITE, start + 60 * NS_PER_S), 0);
	}
	took = clock_now_ns() - start;
	u->longest_ns = took > u->longest_ns ? took : u->longest_ns;
}

static void *user_run(void *arg)
{
	struct user *u = arg;
	struct rng rng = { u->seed };
	struct dsm_reader *r;
	_Atomic uint32_t kick = 0;

	cr_assert_eq(dsm_reader_open(u->d, &kick, &r), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		gfn_t order[PAGES] = { 0, 1, 2, 3, 4, 5, 6, 7 };

		for (unsigned k = PAGES - 1; k > 0; k--) {
			unsigned other = (unsigned)rng_below(&rng, k + 1);
			gfn_t swap = order[k];

			order[k] = order[other];
			order[other] = swap;
		}
		instruction(u, r, order);
	}
	dsm_reader_close(r);
	return NULL;
}

/* Collections that it took. */
static uint64_t contend(uint64_t cache_pages)
{
	struct node n[NODES];
	struct user u[NODES * THREADS];
	pthread_t tid[NODES * THREADS];
	uint64_t sum, longest = 0, collections = 0;

	nodes_open(n, cache_pages);
	for (unsigned i = 0; i < NODES * THREADS; i++) {
		u[i] = (struct user){ .d = n[i % NODES].d, .seed = i + 1 };
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
		cr_assert_eq(sum, NODES * THREADS * ROUNDS, "page %u: %llu", i, (unsigned long long)sum);
	}
	for (unsigned i = 0; i < NODES; i++) {
		struct dsm_stats st;

		dsm_stats(n[i].d, &st);
		collections += st.collections;
	}
	printf("longest wait %llu ms, %llu collections\n", (unsigned long long)(longest / NS_PER_MS),
	       (unsigned long long)collections);
	nodes_close(n);
	return collections;
}

Test(collect, eight_contended_pages_at_once, .timeout = 120)
{
	uint64_t collections = 0;

	/* How often threads are in each other's way is the scheduler's choice. */
	for (unsigned i = 0; i < 20 && !collections; i++)
		collections += contend(0);
	cr_assert_gt(collections, 0u);
}

/* Half of so small a cache is as much as one collection needs: at most one at a time on a node. */
Test(collect, the_same_with_a_small_cache, .timeout = 120)
{
	contend(16);
}
