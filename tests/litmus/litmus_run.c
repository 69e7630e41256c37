/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus_run.c - litmus tests by native threads on the nodes of a memory.
 *
 * What      A process for each node with L_THREADS threads.  For a batch the parent says which node runs which thread of
 *           the test and where its variables lie; the threads clear them, then run L_BATCH instances, each on
 *           variables of its own, meeting before each in memory of the host and starting after a random delay; then one
 *           of them reads what is left in memory.
 * Threads   Those of a batch run, the others sleep on a futex.
 */
#include "tests/litmus/litmus.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#define SPINS 300u /* before the CPU is given away: there may be fewer than threads */

const char *const l_place_names[L_PLACES] = { "spread", "pairs", "together" };
const char *const l_layout_names[L_LAYOUTS] = { "apart", "crossed", "same", "line" };

struct worker {
	const struct l_setup *s;
	struct node *node;
	unsigned thread; /* of the test */
	struct fault_seat seat;
	struct rng rng;
};

/* --- meeting ---------------------------------------------------------------------------------------- */

static void futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *limit)
{
	syscall(SYS_futex, word, op, value, limit, NULL, 0);
}

/* All threads of the batch; *want: the count when they are there.  False when somebody failed. */
static bool meet(struct l_control *ctl, unsigned threads, uint32_t *want)
{
	*want += threads;
	atomic_fetch_add(&ctl->arrived, 1);
	for (unsigned i = 0;
	     (int32_t)(atomic_load_explicit(&ctl->arrived, memory_order_acquire) - *want) < 0;
	     i++) {
		if (i % SPINS == SPINS - 1)
			sched_yield();
		__builtin_ia32_pause();
		if (atomic_load_explicit(&ctl->failed, memory_order_relaxed))
			return false;
	}
	return true;
}

/* --- where variables lie ---------------------------------------------------------------------------- */

/*
 * apart: each its own page.  crossed: the same, but every other instance has them the other way round, so that
 * each page is wanted by all threads.  same: one page, a cache line each.  line: one cache line.
 */
static uint8_t *var_at(const struct worker *w, const struct l_job *job, unsigned vars, unsigned i,
		       unsigned v)
{
	unsigned of = job->layout == L_CROSSED ? (v + i) % vars : v;
	unsigned offset = i * 256 + (job->layout == L_SAME ? v * 64 : v * 4);

	if (job->layout == L_SAME || job->layout == L_LINE)
		of = 0;
	return w->node->view + (((uint64_t)L_FIRST_GFN + job->page[of]) << PAGE_SHIFT) + offset;
}

/* --- a batch ---------------------------------------------------------------------------------------- */

static void instance_run(struct worker *w, const struct l_job *job, const struct l_test *t,
			 unsigned i)
{
	const uint8_t *code = w->s->code + ((size_t)job->test * L_THREADS + w->thread) * L_CODE;
	struct l_result *r = &w->s->ctl->result[i];
	struct l_args args;
	uint64_t until;

	for (unsigned v = 0; v < t->vars; v++)
		args.addr[v] = (uint64_t)(uintptr_t)var_at(w, job, t->vars, i, v);
	until = __rdtsc() + rng_below(&w->rng, job->jitter_cycles + 1);
	while (__rdtsc() < until)
		;
	/* LFENCE keeps the clock in order with the code's loads and leaves the store buffer alone. */
	_mm_lfence();
	r->begin[w->thread] = __rdtsc();
	((long (*)(struct l_args *))(uintptr_t)code)(&args);
	_mm_lfence();
	r->end[w->thread] = __rdtsc();
	for (unsigned g = 0; g < L_REGS; g++)
		r->outcome.reg[w->thread][g] =
			t->loaded[w->thread] >> g & 1 ? l_value(args.reg[g]) : 0;
}

static void batch_run(struct worker *w, const struct l_job *job)
{
	const struct l_test *t = &w->s->tests[job->test];
	struct l_control *ctl = w->s->ctl;
	uint32_t met = job->arrived;

	w->rng.state = job->seed * 31 + w->thread;
	for (unsigned v = 0; v < t->vars; v++)
		for (unsigned i = 0; i < L_BATCH && job->init[v] == w->thread; i++)
			*(volatile uint32_t *)var_at(w, job, t->vars, i, v) = 0;
	for (unsigned i = 0; i < L_BATCH; i++) {
		if (!meet(ctl, t->threads, &met))
			return;
		instance_run(w, job, t, i);
	}
	if (!meet(ctl, t->threads, &met))
		return;
	for (unsigned i = 0; i < L_BATCH && job->reader == w->thread; i++)
		for (unsigned v = 0; v < t->vars; v++)
			ctl->result[i].outcome.var[v] =
				l_value(*(volatile uint32_t *)var_at(w, job, t->vars, i, v));
	if (!meet(ctl, t->threads, &met))
		return;
	if (w->thread == 0) {
		atomic_fetch_add(&ctl->jobs_done, 1);
		futex(&ctl->jobs_done, FUTEX_WAKE, 1, NULL);
	}
}

static void worker_serve(struct worker *w)
{
	struct l_control *ctl = w->s->ctl;
	struct timespec nap = { .tv_nsec = 100 * NS_PER_MS };
	uint32_t last = 0;

	while (!atomic_load(&ctl->meet.ending) && !atomic_load(&ctl->failed)) {
		uint32_t number = atomic_load(&ctl->job_number);
		struct l_job job;

		if (number == last) {
			futex(&ctl->job_number, FUTEX_WAIT, last, &nap);
			continue;
		}
		job = ctl->job[number % 2];
		if (atomic_load(&ctl->job_number) != number)
			continue; /* a batch without this thread, or it would have waited */
		last = number;
		if (w->thread < w->s->tests[job.test].threads &&
		    job.node[w->thread] == w->node->self)
			batch_run(w, &job);
	}
}

/* Threads that shall race must not take turns on one CPU. */
static void pin(unsigned thread)
{
	cpu_set_t all, one;
	unsigned n = 0;

	if (sched_getaffinity(0, sizeof(all), &all))
		return;
	thread %= (unsigned)CPU_COUNT(&all);
	CPU_ZERO(&one);
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && n++ == thread)
			CPU_SET(i, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	sigjmp_buf out;
	int err;

	log_set_thread("litmus");
	pin(w->thread);
	w->seat.out = &out;
	w->seat.patience_ns = (uint64_t)w->s->deadline_s * NS_PER_S;
	node_thread(&w->seat);
	err = sigsetjmp(out, 1);
	if (!err)
		worker_serve(w);
	else if (!atomic_exchange(&w->s->ctl->failed, true))
		fprintf(stderr, "node %u: gfn %llu is not served: %s; right here %d\n",
			w->node->self, (unsigned long long)w->seat.gfn, strerror(err),
			dsm_right(w->node->dsm, w->seat.gfn));
	return NULL;
}

int l_node_main(const struct l_setup *s, node_id self)
{
	struct dsm_range ranges[DSM_RANGES_MAX];
	struct nodes_config cfg = { .nodes = s->nodes,
				    .backend = s->backend,
				    .vm_id = s->seed,
				    .ranges = ranges,
				    .cache_pages = s->cache_pages,
				    .faults = s->faults };
	struct worker worker[L_THREADS];
	pthread_t tid[L_THREADS];
	struct node node;

	cfg.ranges_count = ranges_deal(ranges, L_FIRST_GFN, L_PAGES, 1, s->nodes);
	if (node_open(&node, &cfg, self, &s->ctl->meet)) {
		atomic_store(&s->ctl->failed, true);
		return 1;
	}
	for (unsigned i = 0; i < L_THREADS; i++) {
		worker[i] = (struct worker){ .s = s, .node = &node, .thread = i };
		if (pthread_create(&tid[i], NULL, worker_run, &worker[i]))
			return 1;
	}
	while (!atomic_load(&s->ctl->meet.ending) && !atomic_load(&s->ctl->failed))
		usleep(20000);
	dsm_stop(node.dsm);
	for (unsigned i = 0; i < L_THREADS; i++)
		pthread_join(tid[i], NULL);
	dsm_stats(node.dsm, &s->ctl->stats[self]);
	node_close(&node);
	return atomic_load(&s->ctl->failed);
}

bool l_batch(const struct l_setup *s, struct l_job *job)
{
	struct l_control *ctl = s->ctl;
	uint32_t done = atomic_load(&ctl->jobs_done);
	uint64_t limit = clock_now_ns() + (uint64_t)(s->deadline_s + 5) * NS_PER_S;
	struct timespec nap = { .tv_nsec = 50 * NS_PER_MS };

	job->arrived = atomic_load(&ctl->arrived);
	ctl->job[(atomic_load(&ctl->job_number) + 1) % 2] = *job;
	memset(ctl->result, 0, sizeof(ctl->result));
	atomic_fetch_add(&ctl->job_number, 1);
	futex(&ctl->job_number, FUTEX_WAKE, INT32_MAX, NULL);
	while (atomic_load(&ctl->jobs_done) == done) {
		if (atomic_load(&ctl->failed) || clock_now_ns() > limit) {
			atomic_store(&ctl->failed, true);
			return false;
		}
		futex(&ctl->jobs_done, FUTEX_WAIT, done, &nap);
	}
	return true;
}
