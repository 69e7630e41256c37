/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_node_uffd.c - native threads on the views of two nodes in one process, in each way to resolve their
 * faults: storms, races of upgrades, mappings that the kernel drops, the end with threads parked.
 */
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#define LIMIT (10 * NS_PER_S)

static const struct way {
	const char *name;
	enum dsm_faults faults;
	bool copy;
} ways[] = {
	{ "inline", DSM_FAULTS_INLINE, false },
	{ "inline-copy", DSM_FAULTS_INLINE, true },
	{ "dispatch", DSM_FAULTS_DISPATCH, false },
	{ "dispatch-copy", DSM_FAULTS_DISPATCH, true },
};

static struct node node[2];

/* Which node's view an address is in.  Each thread keeps to one node. */
static __thread struct node *mine;
static __thread sigjmp_buf refused;

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	bool write = ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_ERR] & 2;

	(void)sig;
	if (dsm_view_fault(mine->d, si->si_addr, write, clock_now_ns() + LIMIT))
		siglongjmp(refused, 1);
}

static void on_sigsegv(int sig)
{
	(void)sig;
	siglongjmp(refused, 1);
}

/* Frames 0 .. 31 homed on node 0, a hole, 64 .. 95 on node 1. */
static void open_two(const struct way *way, bool join)
{
	static const struct dsm_range ranges[] = { { 0, 32, 0 }, { 64, 32, 1 } };
	struct sigaction bus = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction segv = { .sa_handler = on_sigsegv, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	cr_assert_eq(nodes_open(node, &(struct nodes_spec){ .nodes = 2, .backend = "tcp", .ranges = ranges,
							    .ranges_count = 2, .mapping = DSM_MAP_UFFD,
							    .faults = way->faults, .uffd_copy = way->copy,
							    .apart = !join }),
		     0);
}

static void close_two(void)
{
	nodes_close(node, 2);
}

static volatile uint8_t *at(struct node *n, gfn_t gfn, unsigned offset)
{
	return dsm_view(n->d) + gfn * PAGE_SIZE + offset;
}

static struct criterion_test_params every_way(void)
{
	return cr_make_param_array(const struct way, (struct way *)ways, ARRAY_LEN(ways));
}

/* --- storms ------------------------------------------------------------------------------------------- */

#define ADDERS 4u /* two a node */
#define ROUNDS 400u

struct adder {
	struct node *n;
	pthread_t tid;
	uint64_t seen;
	bool refused;
};

/* Each round reads, then upgrades, a word that all write; and stores across the border of two pages that all write. */
static void *add(void *arg)
{
	struct adder *a = arg;
	uint64_t *word, *border;

	mine = a->n;
	if (sigsetjmp(refused, 1)) {
		a->refused = true;
		return NULL;
	}
	word = (uint64_t *)at(mine, 3, 64);
	border = (uint64_t *)at(mine, 67, PAGE_SIZE - 4);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t now = __atomic_load_n(word, __ATOMIC_SEQ_CST),
			 twice = 0x0101010101010101u * (i & 0x7f);

		if (now < a->seen)
			return NULL;
		a->seen = now;
		__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
		__asm__ volatile("movq %1, %0" : "=m"(*border) : "r"(twice));
	}
	a->seen = ROUNDS;
	return NULL;
}

ParameterizedTestParameters(node_uffd, a_storm_loses_nothing)
{
	return every_way();
}

ParameterizedTest(struct way *way, node_uffd, a_storm_loses_nothing, .timeout = 60)
{
	struct adder a[ADDERS];
	struct dsm_stats st;
	uint64_t sum = 0;

	open_two(way, true);
	for (unsigned i = 0; i < ADDERS; i++) {
		a[i] = (struct adder){ .n = &node[i % 2] };
		pthread_create(&a[i].tid, NULL, add, &a[i]);
	}
	for (unsigned i = 0; i < ADDERS; i++) {
		pthread_join(a[i].tid, NULL);
		cr_assert_not(a[i].refused, "%s", way->name);
		cr_assert_eq(a[i].seen, ROUNDS, "%s: the word went back", way->name);
	}
	cr_assert_eq(dsm_copy_in(node[1].d, &sum, 3 * PAGE_SIZE + 64, sizeof(sum),
				 clock_now_ns() + LIMIT),
		     0);
	cr_assert_eq(sum, ADDERS * ROUNDS, "%s: %lu", way->name, sum);
	dsm_stats(node[0].d, &st);
	cr_assert_gt(st.faults_read + st.faults_write + st.faults_upgrade, 0);
	close_two();
}

/* --- what the kernel may do by itself ------------------------------------------------------------------ */

ParameterizedTestParameters(node_uffd, a_lost_mapping_comes_back)
{
	return every_way();
}

/* As reclaim does it: the page table entry goes, the frame and the right stay. */
ParameterizedTest(struct way *way, node_uffd, a_lost_mapping_comes_back, .timeout = 30)
{
	uint8_t bytes[PAGE_SIZE];

	open_two(way, true);
	mine = &node[0];
	memset(bytes, 0x33, sizeof(bytes));
	cr_assert_eq(dsm_copy_out(node[1].d, 70 * PAGE_SIZE, bytes, sizeof(bytes),
				  clock_now_ns() + LIMIT),
		     0);
	if (sigsetjmp(refused, 1))
		cr_assert_fail("%s: refused", way->name);
	cr_assert_eq(*at(mine, 70, 9), 0x33);
	for (unsigned write = 0; write < 2; write++) {
		enum dsm_right right;

		while (!(right = dsm_right(mine->d, 70)))
			; /* published only after the page is there, hence after this thread was woken */
		cr_assert_eq(madvise(dsm_view(mine->d) + 70 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED),
			     0);
		cr_assert_eq(*at(mine, 70, 4095), 0x33, "%s", way->name);
		cr_assert_eq(dsm_right(mine->d, 70), right, "%s: %u, was %u, write %u", way->name,
			     dsm_right(mine->d, 70), right, write);
		cr_assert_eq(madvise(dsm_view(mine->d) + 70 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED),
			     0);
		*at(mine, 70, 1) = 0x44;
		cr_assert_eq(dsm_right(mine->d, 70), DSM_WRITE);
		cr_assert_eq(*at(mine, 70, 9), 0x33);
	}
	cr_assert_eq(dsm_copy_in(node[1].d, bytes, 70 * PAGE_SIZE, 2, clock_now_ns() + LIMIT), 0);
	cr_assert_eq(bytes[1], 0x44);
	close_two();
}

/* --- the end -------------------------------------------------------------------------------------------- */

#define PARKED 6u

struct parked {
	unsigned i;
	pthread_t tid;
	_Atomic bool touched, refused;
};

static void *park(void *arg)
{
	struct parked *p = arg;

	mine = &node[0];
	if (sigsetjmp(refused, 1)) {
		p->refused = true;
		return NULL;
	}
	if (p->i % 2)
		*at(mine, 64 + p->i / 3, 0) = 1;
	else
		(void)*at(mine, 64 + p->i / 3, 0);
	p->touched = true;
	return NULL;
}

ParameterizedTestParameters(node_uffd, stop_frees_the_parked)
{
	return every_way();
}

/* The other node was never joined: nobody answers. */
ParameterizedTest(struct way *way, node_uffd, stop_frees_the_parked, .timeout = 30)
{
	struct parked p[PARKED];

	open_two(way, false);
	mine = &node[0];
	cr_assert_eq(dsm_acquire(mine->d, 5, DSM_WRITE, clock_now_ns() + LIMIT), 0);
	*at(mine, 5, 0) = 1;
	for (unsigned i = 0; i < PARKED; i++) {
		p[i] = (struct parked){ .i = i };
		pthread_create(&p[i].tid, NULL, park, &p[i]);
	}
	usleep(50000);
	for (unsigned i = 0; i < PARKED; i++)
		cr_assert(!p[i].touched && !p[i].refused);
	dsm_stop(mine->d);
	for (unsigned i = 0; i < PARKED; i++) {
		pthread_join(p[i].tid, NULL);
		cr_assert(p[i].refused && !p[i].touched, "%s: thread %u", way->name, i);
	}
	if (!sigsetjmp(refused, 1)) {
		*at(mine, 5, 0) = 2;
		cr_assert_fail("%s: a page can be used after the end", way->name);
	}
	cr_assert_eq(dsm_view_fault(mine->d, dsm_view(mine->d), false, UINT64_MAX), -EPIPE);
	cr_assert_eq(dsm_alias(mine->d)[5 * PAGE_SIZE], 1);
	close_two();
}

ParameterizedTestParameters(node_uffd, holes_cannot_be_touched)
{
	return every_way();
}

ParameterizedTest(struct way *way, node_uffd, holes_cannot_be_touched, .timeout = 30)
{
	open_two(way, true);
	mine = &node[0];
	if (!sigsetjmp(refused, 1)) {
		(void)*at(mine, 32, 0);
		cr_assert_fail("%s: a hole was read", way->name);
	}
	cr_assert_eq(dsm_view_fault(mine->d, (const void *)at(mine, 40, 0), false, UINT64_MAX),
		     -EFAULT);
	cr_assert_eq(dsm_view_fault(mine->d, (const void *)at(mine, 96, 0), false, UINT64_MAX),
		     -EFAULT);
	close_two();
}
