/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress_node.c - one node of unum-stress: a process with its threads.
 *
 * What      Opens the memory, lets the threads work until the time is up, meets the others, checks its part of the
 *           pages, leaves.  A fault that cannot be resolved ends its thread and counts as a violation.
 * Threads   THREADS users; the first thread waits for them and says what it knows when it is asked to.
 */
#include "tests/stress/stress.h"

#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static node_id home_of(const struct run *r, gfn_t gfn)
{
	for (unsigned i = 0; i < r->ranges_count; i++)
		if (gfn - r->ranges[i].first < r->ranges[i].count)
			return r->ranges[i].node;
	return NODE_NONE;
}

/* The threads that wait for a page anywhere, as this node sees those pages. */
static void dump(struct run *r)
{
	static const char *const rights[] = { "none", "read", "write" };
	uint64_t now = clock_now_ns();

	for (unsigned id = 0; id < r->users; id++) {
		struct seat *s = &r->ctl->seat[id];
		uint64_t since = atomic_load(&s->fault.since_ns);
		uint64_t gfn =
			since ? atomic_load(&s->fault.gfn) : FIRST_GFN + atomic_load(&s->page);

		if (!atomic_load(&s->ended))
			fprintf(stderr,
				"node %u: gfn %llu is %s here%s; thread %u of node %u %s for %.3f "
				"s, in %s\n",
				r->node.self, (unsigned long long)gfn,
				rights[dsm_right(r->node.dsm, gfn)],
				home_of(r, gfn) == r->node.self ? " (home)" : "",
				id % r->opt->threads, id / r->opt->threads,
				since ? "waits" : "works",
				since ? (double)(now - since) / 1e9 : 0.0,
				op_kinds[atomic_load(&s->op)].name);
	}
}

static void user_fault_failed(struct user *u, int err)
{
	struct run *r = u->run;

	atomic_store(&r->ctl->stop, true);
	if (atomic_load(&r->ctl->meet.ending))
		return;
	violation(r, err == ETIMEDOUT ? "a fault was not served in time" : strerror(err),
		  (uint32_t)(atomic_load(&u->seat->fault.gfn) - FIRST_GFN), 0,
		  u->seat->fault.patience_ns, 0);
	for (unsigned n = 0; n < r->opt->nodes; n++)
		atomic_store(&r->ctl->dump[n], true);
	usleep(200000);
	atomic_store(&r->ctl->meet.ending, true);
}

static void *user_run(void *arg)
{
	struct user *u = arg;
	struct control *ctl = u->run->ctl;
	sigjmp_buf out;
	int err;

	log_set_thread("user");
	u->seat->fault.out = &out;
	node_thread(&u->seat->fault);
	err = sigsetjmp(out, 1);
	if (err)
		user_fault_failed(u, err);
	else
		while (!atomic_load(&ctl->stop)) {
			bool away = u->run->node.self && atomic_load(&ctl->away) == u->run->node.self;

			atomic_store(&u->seat->parked, away);
			if (away)
				usleep(1000);
			else
				op_run(u);
		}
	atomic_store(&u->seat->ended, 1);
	return NULL;
}

/* --- a node leaves, and comes back ---------------------------------------------------------------------- */

static bool sleep_unless_ending(struct control *ctl, uint64_t until_ns)
{
	while (clock_now_ns() < until_ns && !atomic_load(&ctl->meet.ending))
		usleep(1000);
	return !atomic_load(&ctl->meet.ending);
}

static void drain_failed(struct run *r, const char *what, int err)
{
	if (atomic_load(&r->ctl->meet.ending))
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-err));
	atomic_fetch_add(&r->ctl->violations, 1);
}

/* A thread of node 0. */
static void *drain_run(void *arg)
{
	struct run *r = arg;
	const struct options *o = r->opt;
	uint64_t start = clock_now_ns();
	int err;

	if (!sleep_unless_ending(r->ctl, start + (uint64_t)(o->drain_s * 1e9)))
		return NULL;
	atomic_store(&r->ctl->away, o->drain_node);
	for (unsigned i = 0; i < o->threads; i++)
		while (!atomic_load(&r->ctl->seat[o->drain_node * o->threads + i].parked) &&
		       !atomic_load(&r->ctl->meet.ending))
			usleep(1000);
	err = dsm_drain(r->node.dsm, (node_id)o->drain_node, clock_now_ns() + (uint64_t)o->deadline_s * NS_PER_S,
			&r->ctl->drain);
	if (err) {
		drain_failed(r, "drain", err);
		return NULL;
	}
	atomic_store(&r->ctl->drained, o->drain_node);
	if (!(o->join_s > 0) || !sleep_unless_ending(r->ctl, start + (uint64_t)(o->join_s * 1e9)))
		return NULL;
	err = dsm_join(r->node.dsm, (node_id)o->drain_node, &r->ctl->join);
	if (err) {
		drain_failed(r, "join", err);
		return NULL;
	}
	atomic_store(&r->ctl->drained, 0);
	atomic_store(&r->ctl->away, 0);
	return NULL;
}

void drain_report(const struct options *o, const struct control *ctl)
{
	const struct dsm_drain *out = &ctl->drain, *in = &ctl->join;

	if (!o->drain_node)
		return;
	printf("node %u left: gave up others' pages in %.1f ms, all froze for %.1f ms, %llu entries and %llu pages moved\n",
	       o->drain_node, (double)out->leave_ns / 1e6, (double)out->frozen_ns / 1e6,
	       (unsigned long long)out->moved_entries, (unsigned long long)out->moved_pages);
	if (o->join_s > 0)
		printf("node %u came back: all froze for %.1f ms, %llu entries and %llu pages moved\n", o->drain_node,
		       (double)in->frozen_ns / 1e6, (unsigned long long)in->moved_entries,
		       (unsigned long long)in->moved_pages);
}

/* Each living node its part of all. */
static void pages_check(struct run *r)
{
	unsigned dead = atomic_load(&r->ctl->drained), self = r->node.self;
	unsigned parts = r->opt->nodes - !!dead, part = self - (dead && self > dead);
	struct fault_seat seat = { .patience_ns = (uint64_t)r->opt->deadline_s * NS_PER_S };
	sigjmp_buf out;
	int err;

	seat.out = &out;
	node_thread(&seat);
	err = sigsetjmp(out, 1);
	if (err) {
		violation(r, "the final check gets no page", (uint32_t)seat.gfn - FIRST_GFN, 0, 0,
			  0);
		return;
	}
	for (uint32_t page = 0; page < r->pages; page++)
		if ((page + 1) % parts == part)
			page_check(r, page);
	node_thread(NULL);
}

#define HOT_NS (100 * NS_PER_MS) /* how long a hot set stays where it is */

/* Node 0 tells all when to stop and which pages are hot. */
static void time_tell(const struct run *r, uint64_t start_ns)
{
	uint64_t now = clock_now_ns();

	if (r->node.self)
		return;
	if (now - start_ns > (uint64_t)(r->opt->seconds * 1e9))
		atomic_store(&r->ctl->stop, true);
	atomic_store_explicit(&r->ctl->hot, now / HOT_NS, memory_order_relaxed);
}

static void users_run(struct run *r, struct user *users)
{
	uint64_t start = clock_now_ns();
	pthread_t tid[THREADS_LIMIT], drainer;
	bool drains = r->opt->drain_node && r->node.self == 0;
	unsigned ended = 0;

	for (unsigned i = 0; i < r->opt->threads; i++) {
		struct user *u = &users[i];

		u->run = r;
		u->id = r->node.self * r->opt->threads + i;
		u->rng.state = mix64(r->opt->seed * 1000 + u->id);
		u->seat = &r->ctl->seat[u->id];
		u->seat->fault.patience_ns = (uint64_t)r->opt->deadline_s * NS_PER_S;
		u->tally = r->ctl->tally + (uint64_t)u->id * r->pages;
		u->seen = calloc((size_t)r->pages * WORDS, sizeof(*u->seen));
		u->ticket = calloc(r->pages, sizeof(*u->ticket));
		if (!u->seen || !u->ticket || pthread_create(&tid[i], NULL, user_run, u))
			abort();
	}
	if (drains && pthread_create(&drainer, NULL, drain_run, r))
		abort();
	while (ended < r->opt->threads) {
		usleep(20000);
		time_tell(r, start);
		if (atomic_exchange(&r->ctl->dump[r->node.self], false))
			dump(r);
		if (atomic_load(&r->ctl->meet.ending))
			dsm_stop(r->node.dsm); /* threads that wait come back */
		ended = 0;
		for (unsigned i = 0; i < r->opt->threads; i++)
			ended += atomic_load(&users[i].seat->ended);
	}
	for (unsigned i = 0; i < r->opt->threads; i++) {
		pthread_join(tid[i], NULL);
		free(users[i].seen);
		free(users[i].ticket);
	}
	if (drains)
		pthread_join(drainer, NULL);
}

int node_main(const struct options *opt, struct control *ctl, node_id self)
{
	struct run run = { .opt = opt,
			   .ctl = ctl,
			   .pages = (uint32_t)(opt->region_bytes >> PAGE_SHIFT),
			   .users = opt->nodes * opt->threads };
	struct dsm_range ranges[DSM_RANGES_MAX];
	struct nodes_config cfg = { .nodes = opt->nodes,
				    .backend = opt->backend,
				    .device = opt->device,
				    .listen = opt->address,
				    .vm_id = opt->seed,
				    .chaos = opt->chaos,
				    .ranges = ranges,
				    .cache_pages = opt->cache_bytes >> PAGE_SHIFT,
				    .faults = opt->faults };
	struct user users[THREADS_LIMIT] = { 0 };
	unsigned living;

	cfg.spare_pages = opt->drain_node ? run.pages : 0;
	cfg.ranges_count = ranges_deal(ranges, FIRST_GFN, run.pages, 1, opt->nodes);
	run.ranges = ranges;
	run.ranges_count = cfg.ranges_count;
	if (node_open(&run.node, &cfg, self, &ctl->meet))
		return 2;
	users_run(&run, users);
	living = opt->nodes - (opt->drain_node && !(opt->join_s > 0));
	/* Node 0 is at the end of its work only when this one is out, and then it is killed. */
	while (living < opt->nodes && self == opt->drain_node && !atomic_load(&ctl->meet.ending))
		usleep(1000);
	if (nodes_meet_at(&ctl->meet, &ctl->worked, living))
		pages_check(&run);
	dsm_stats(run.node.dsm, &ctl->stats[self]);
	if (nodes_meet_at(&ctl->meet, &ctl->checked, living))
		atomic_store(&ctl->meet.ending, true);
	node_close(&run.node);
	return 0;
}
