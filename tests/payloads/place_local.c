/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_local.c - every processor works on memory of its own, and all meet now and then; for tests/bench/placement.py.
 *
 * What      Good locality: the pages are fetched once.  Whoever moves a processor here can only lose.
 * Options   pages=N of each processor, rounds=N, meet=N rounds between two barriers.
 */
#include "rt/rt.h"

const char payload_name[] = "place_local";

#define PAGES_MAX 64

static struct page {
	uint64_t count, fill[511];
} own[CPUS_MAX][PAGES_MAX] __attribute__((aligned(4096)));
static struct barrier meet __attribute__((aligned(4096)));
static unsigned pages, rounds, every;

static void work(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < pages; i++)
			for (unsigned k = 0; k < 8; k++)
				own[cpu][i].fill[k * 8] += own[cpu][i].count++;
		if (r % every == every - 1)
			barrier_wait(&meet);
	}
}

void payload_main(void)
{
	uint64_t start;

	pages = (unsigned)option("pages", 32);
	rounds = (unsigned)option("rounds", 20000);
	every = (unsigned)option("meet", 5000);
	CHECK(pages <= PAGES_MAX && every, "pages=%u is too much", pages);
	cpus_start();
	start = rdtsc();
	cpus_run(work);
	print("place: round 0 took %lu\n", rdtsc() - start);
	for (unsigned c = 0; c < platform.cpus; c++)
		for (unsigned i = 0; i < pages; i++)
			CHECK(own[c][i].count == 8ul * rounds, "cpu %u, page %u: %lu", c, i, own[c][i].count);
}
