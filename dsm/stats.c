/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/stats.c - what the memory did: counters, latency histogram, hot pages.
 *
 * What      Hot pages by the space-saving algorithm (Metwally 2005): HOT_SLOTS counters; a page that has none
 *           takes over the smallest and its count, so counts may be too high but a hot page is never missed.
 * Threads   Any.  Counters are relaxed atomics; the hot table has a lock of its own, held for one scan.
 * Limits    Percentiles are as coarse as the histogram: powers of two, interpolated inside a bucket.
 */
#include "dsm/dsm_priv.h"

#include <string.h>

void stats_open(struct counters *c)
{
	pthread_mutex_init(&c->hot_lock, NULL);
}

void stats_close(struct counters *c)
{
	pthread_mutex_destroy(&c->hot_lock);
}

static void hot_add(struct counters *c, gfn_t gfn)
{
	unsigned least = 0;

	pthread_mutex_lock(&c->hot_lock);
	for (unsigned i = 0; i < HOT_SLOTS; i++) {
		if (c->hot[i].faults && c->hot[i].gfn == gfn) {
			least = i;
			break;
		}
		if (c->hot[i].faults < c->hot[least].faults)
			least = i;
	}
	c->hot[least].gfn = gfn;
	c->hot[least].faults++;
	pthread_mutex_unlock(&c->hot_lock);
}

void stats_remote_fault(struct counters *c, gfn_t gfn, enum dsm_right had, enum dsm_right want,
			uint64_t latency_ns)
{
	unsigned bucket = latency_ns ? 63u - (unsigned)__builtin_clzll(latency_ns) : 0;

	if (want == DSM_READ)
		count_one(&c->faults_read);
	else if (had == DSM_READ)
		count_one(&c->faults_upgrade);
	else
		count_one(&c->faults_write);
	count_one(&c->latency_hist[bucket < DSM_LAT_BUCKETS ? bucket : DSM_LAT_BUCKETS - 1]);
	hot_add(c, gfn);
}

void stats_stall(struct dsm_stalls *s, node_id from, enum dsm_right want, bool bounced, uint64_t ns)
{
	if (!s)
		return;
	atomic_fetch_add_explicit(&s->by[from].ns, ns, memory_order_relaxed);
	count_one(&s->by[from].waits);
	if (want == DSM_READ)
		count_one(&s->by[from].reads);
	if (bounced)
		count_one(&s->by[from].bounced);
}

struct dsm_stalls *stats_stalls_of(const struct dsm *d, uint32_t thread)
{
	struct dsm_stalls *s = d->stalls;

	while (s && s->thread != thread)
		s = s->next;
	return s;
}

/* Nanoseconds below which `percent` of the faults stayed. */
static uint64_t percentile(const uint64_t hist[DSM_LAT_BUCKETS], unsigned percent)
{
	uint64_t total = 0, before = 0, rank;

	for (unsigned i = 0; i < DSM_LAT_BUCKETS; i++)
		total += hist[i];
	if (!total)
		return 0;
	rank = (total * percent + 99) / 100;
	for (unsigned i = 0; i < DSM_LAT_BUCKETS; i++) {
		if (before + hist[i] >= rank)
			return (1ull << i) + (uint64_t)((double)(1ull << i) *
							(double)(rank - before) / (double)hist[i]);
		before += hist[i];
	}
	return 1ull << DSM_LAT_BUCKETS;
}

static void hot_top(struct counters *c, struct dsm_stats *out)
{
	uint64_t bound = UINT64_MAX;
	unsigned bound_slot = 0;

	pthread_mutex_lock(&c->hot_lock);
	for (unsigned n = 0; n < DSM_HOT_PAGES; n++) {
		unsigned best = HOT_SLOTS;

		/* The largest one after the last one taken; equal counts in order of slots. */
		for (unsigned i = 0; i < HOT_SLOTS; i++) {
			uint64_t v = c->hot[i].faults;
			bool taken = v > bound || (v == bound && n && i <= bound_slot);

			if (v && !taken && (best == HOT_SLOTS || v > c->hot[best].faults))
				best = i;
		}
		if (best == HOT_SLOTS)
			break;
		bound = c->hot[best].faults;
		bound_slot = best;
		out->hot[n].gfn = c->hot[best].gfn;
		out->hot[n].faults = c->hot[best].faults;
	}
	pthread_mutex_unlock(&c->hot_lock);
}

void dsm_stats(struct dsm *d, struct dsm_stats *out)
{
	struct counters *c = &d->count;

	memset(out, 0, sizeof(*out));
	out->faults_read = c->faults_read;
	out->faults_write = c->faults_write;
	out->faults_upgrade = c->faults_upgrade;
	out->faults_local = c->faults_local;
	out->pages_sent = c->pages_sent;
	out->pages_received = c->pages_received;
	out->invalidations_received = c->invalidations_received;
	out->refused = c->refused;
	out->evictions = c->evictions;
	out->collections = c->collections;
	for (unsigned i = 0; i < DSM_LAT_BUCKETS; i++)
		out->latency_hist[i] = c->latency_hist[i];
	out->latency_p50_ns = percentile(out->latency_hist, 50);
	out->latency_p99_ns = percentile(out->latency_hist, 99);
	hot_top(c, out);
}
