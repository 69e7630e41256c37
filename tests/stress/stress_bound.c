/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress_bound.c - unum-stress --bound: a region larger than any node, and what each process takes.
 *
 * What      Each node brings a share; the region is all shares, at least three times a node's share and cache.
 *           `one`: the thread of node 0 writes all of it and reads it back, others only lend.  `all`: every node's
 *           thread writes its part, all over the region, and then reads everything; each twice, in random order.
 *           All the while a thread of each process counts what is resident:
 *             frames  pages of the memory file that have memory, by mincore on the alias mapping
 *             anon    RssAnon of the whole process: metadata, stacks, queues; less what it was when the memory had been
 *                     opened and all links were up: what that took (libfabric takes 90 MiB) is reported
 *             tables  VmPTE, the kernel's page tables for it: reported, no limit
 * Limits    frames <= share + cache + SLACK_PAGES; anon <= META_BYTES for each page of the region + SLACK_ANON, and a
 *           constant for backends with pools of their own.
 */
#include "tests/stress/stress.h"

#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLACK_PAGES 32u       /* in flight */
#define META_BYTES 24u        /* for each page of guest RAM */
#define SLACK_ANON (2u << 20) /* stacks, fabric queues, heap: not by size of memory */
#define SAMPLE_NS (10 * NS_PER_MS)
#define STEP 8u /* words: every cache line */

struct bound {
	struct run run;
	struct bound_result *out;
	uint8_t *vec; /* mincore's */
	_Atomic bool done;
};

/* What a backend's library or slots take beside that once there is traffic; they do not grow with guest RAM either. */
static uint64_t fabric_slack(const char *backend)
{
	static const struct {
		const char *backend;
		uint64_t bytes;
	} more[] = { { "ofi", 32 << 20 }, { "ucx", 8 << 20 }, { "verbs", 32 << 20 } };

	for (unsigned i = 0; i < ARRAY_LEN(more); i++)
		if (!strcmp(backend, more[i].backend))
			return more[i].bytes;
	return 0;
}

/* A line "NAME:  n kB" of /proc/self/status, in bytes. */
static uint64_t status_read(const char *name)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) &&
		    sscanf(line + strlen(name), ": %llu", &kib))
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

static void sample(struct bound *b)
{
	size_t frames = FIRST_GFN + b->run.pages;
	uint64_t resident = 0, anon = status_read("RssAnon"), tables = status_read("VmPTE");

	if (mincore(dsm_alias(b->run.node.dsm), frames << PAGE_SHIFT, b->vec)) {
		violation(&b->run, "mincore", 0, 0, (uint64_t)errno, 0);
		return;
	}
	for (size_t i = 0; i < frames; i++)
		resident += (uint64_t)(b->vec[i] & 1) << PAGE_SHIFT;
	if (resident > b->out->frames_max)
		b->out->frames_max = resident;
	if (anon > b->out->anon_max)
		b->out->anon_max = anon;
	if (tables > b->out->table_max)
		b->out->table_max = tables;
}

static void *sampler_run(void *arg)
{
	struct bound *b = arg;
	struct timespec nap = { .tv_nsec = SAMPLE_NS };

	log_set_thread("sampler");
	while (!atomic_load(&b->done)) {
		sample(b);
		nanosleep(&nap, NULL);
	}
	return NULL;
}

/* --- the work --------------------------------------------------------------------------------------- */

static uint64_t word_value(uint32_t page, unsigned word, unsigned pass)
{
	return mix64(((uint64_t)page << 16 | word) + (uint64_t)pass * 0x9e3779b97f4a7c15ull) | 1;
}

static volatile uint64_t *page_at(const struct run *r, uint32_t page)
{
	return (volatile uint64_t *)(r->node.view + (((uint64_t)FIRST_GFN + page) << PAGE_SHIFT));
}

/* Position i of a walk over all pages that looks random: an odd multiplier permutes a power of two. */
static bool walk(const struct run *r, uint32_t i, uint32_t *page)
{
	uint32_t mask = 1;

	while (mask < r->pages)
		mask <<= 1;
	*page = (uint32_t)(i * 2654435761u + (uint32_t)r->opt->seed) & (mask - 1);
	return *page < r->pages;
}

static uint32_t walk_length(const struct run *r)
{
	uint32_t n = 1;

	while (n < r->pages)
		n <<= 1;
	return n;
}

static void region_write(struct run *r, struct seat *seat, unsigned part, unsigned parts,
			 unsigned pass)
{
	for (uint32_t i = 0, page; i < walk_length(r) && !atomic_load(&r->ctl->stop); i++) {
		if (!walk(r, i, &page) || page % parts != part)
			continue;
		atomic_store(&seat->page, page);
		for (unsigned word = 0; word < WORDS; word += STEP)
			page_at(r, page)[word] = word_value(page, word, pass);
		atomic_fetch_add(&seat->ops[OP_STAMP_WRITE], 1);
	}
}

static void region_read(struct run *r, struct seat *seat, unsigned pass)
{
	for (uint32_t i = 0, page; i < walk_length(r) && !atomic_load(&r->ctl->stop); i++) {
		if (!walk(r, i + r->node.self * 977u, &page))
			continue;
		atomic_store(&seat->page, page);
		for (unsigned word = 0; word < WORDS; word += STEP)
			if (page_at(r, page)[word] != word_value(page, word, pass))
				violation(r, "lost", page, word, page_at(r, page)[word],
					  word_value(page, word, pass));
		atomic_fetch_add(&seat->ops[OP_STAMP_READ], 1);
	}
}

static void work(struct bound *b)
{
	struct run *r = &b->run;
	struct seat *seat = &r->ctl->seat[r->node.self];
	bool all = !strcmp(r->opt->bound, "all");
	sigjmp_buf out;
	int err;

	seat->fault.out = &out;
	seat->fault.patience_ns = (uint64_t)r->opt->deadline_s * NS_PER_S;
	node_thread(&seat->fault);
	err = sigsetjmp(out, 1);
	if (err) {
		violation(r, strerror(err), (uint32_t)(atomic_load(&seat->fault.gfn) - FIRST_GFN),
			  0, 0, 0);
		atomic_store(&r->ctl->stop, true);
		atomic_store(&r->ctl->meet.ending, true);
		return;
	}
	for (unsigned pass = 0; pass < BOUND_PASSES; pass++) {
		if (all)
			region_write(r, seat, (r->node.self + pass) % r->opt->nodes, r->opt->nodes,
				     pass);
		else if (r->node.self == 0)
			region_write(r, seat, 0, 1, pass);
		if (!nodes_meet_at(&r->ctl->meet, &r->ctl->phase[2 * pass], r->opt->nodes))
			return;
		if (all || r->node.self == 0)
			region_read(r, seat, pass);
		if (!nodes_meet_at(&r->ctl->meet, &r->ctl->phase[2 * pass + 1], r->opt->nodes))
			return;
	}
	node_thread(NULL);
}

int bound_main(const struct options *opt, struct control *ctl, node_id self)
{
	struct bound b = { .run = { .opt = opt, .ctl = ctl }, .out = &ctl->bound[self] };
	struct dsm_range ranges[NODES_LIMIT];
	uint64_t share = opt->share_bytes >> PAGE_SHIFT;
	struct nodes_config cfg = { .nodes = opt->nodes,
				    .backend = opt->backend,
				    .vm_id = opt->seed,
				    .ranges = ranges,
				    .cache_pages = opt->cache_bytes >> PAGE_SHIFT,
				    .faults = opt->faults };
	pthread_t sampler;

	b.run.pages = (uint32_t)(share * opt->nodes);
	cfg.ranges_count = ranges_deal(ranges, FIRST_GFN, b.run.pages, share, opt->nodes);
	b.vec = calloc(FIRST_GFN + b.run.pages, 1);
	if (!b.vec)
		return 2;
	memset(b.vec, 1, FIRST_GFN + b.run.pages);
	b.out->limit_frames = opt->share_bytes + opt->cache_bytes + SLACK_PAGES * PAGE_SIZE;
	b.out->limit_anon =
		(uint64_t)META_BYTES * b.run.pages + SLACK_ANON + fabric_slack(opt->backend);
	b.out->anon_process = status_read("RssAnon");
	if (node_open(&b.run.node, &cfg, self, &ctl->meet))
		return 2;
	b.out->anon_before = status_read("RssAnon");
	if (pthread_create(&sampler, NULL, sampler_run, &b))
		return 2;
	work(&b);
	atomic_store(&ctl->seat[self].ended, 1);
	atomic_store(&b.done, true);
	pthread_join(sampler, NULL);
	sample(&b);
	dsm_stats(b.run.node.dsm, &ctl->stats[self]);
	if (nodes_meet_at(&ctl->meet, &ctl->checked, opt->nodes))
		atomic_store(&ctl->meet.ending, true);
	node_close(&b.run.node);
	free(b.vec);
	return 0;
}

uint64_t bound_report(const struct options *opt, const struct control *ctl)
{
	uint64_t over = 0;

	for (unsigned n = 0; n < opt->nodes; n++) {
		const struct bound_result *b = &ctl->bound[n];
		uint64_t anon = b->anon_max - b->anon_before;
		bool bad =
			!b->frames_max || b->frames_max > b->limit_frames || anon > b->limit_anon;

		printf("node %u: region %llu KiB, frames %llu KiB (limit %llu: share %llu, cache "
		       "%llu, in "
		       "flight %u), anon %llu KiB (limit %llu), page tables %llu KiB, fabric and "
		       "stacks %llu KiB%s\n",
		       n, (unsigned long long)(opt->share_bytes * opt->nodes >> 10),
		       (unsigned long long)b->frames_max >> 10,
		       (unsigned long long)b->limit_frames >> 10,
		       (unsigned long long)opt->share_bytes >> 10,
		       (unsigned long long)opt->cache_bytes >> 10, SLACK_PAGES * PAGE_SIZE >> 10,
		       (unsigned long long)anon >> 10, (unsigned long long)b->limit_anon >> 10,
		       (unsigned long long)b->table_max >> 10,
		       (unsigned long long)(b->anon_before - b->anon_process) >> 10,
		       bad ? "  OVER" : "");
		over += bad;
	}
	return over;
}
