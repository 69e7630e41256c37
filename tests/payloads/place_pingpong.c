/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_pingpong.c - the first and the last processor write to the same pages in turns; for tests/bench/placement.py.
 *
 * What      Each adds to every shared page; neither gets far ahead of the other, and nothing is lost.
 * Options   pages=N shared, rounds=N of each processor, ahead=N rounds.
 */
#include "rt/rt.h"

const char payload_name[] = "place_pingpong";

static struct page {
	uint64_t count, fill[511];
} shared[64] __attribute__((aligned(4096)));
static unsigned pages, rounds, ahead;
static struct {
	unsigned rounds;
	uint8_t fill[4092];
} done[2] __attribute__((aligned(4096)));

static void hammer(unsigned cpu)
{
	unsigned me = cpu != 0;

	if (cpu && cpu != platform.cpus - 1)
		return;
	for (unsigned r = 0; r < rounds; r++) {
		for (unsigned i = 0; i < pages; i++)
			add(&shared[i].count, 1);
		store(&done[me].rounds, r + 1);
		while (load(&done[!me].rounds) + ahead < r)
			pause();
	}
}

void payload_main(void)
{
	uint64_t start;

	pages = (unsigned)option("pages", 4);
	rounds = (unsigned)option("rounds", 20000);
	ahead = (unsigned)option("ahead", 8);
	CHECK(pages <= ARRAY_LEN(shared), "pages=%u is too much", pages);
	cpus_start();
	start = rdtsc();
	cpus_run(hammer);
	print("place: round 0 took %lu\n", rdtsc() - start);
	for (unsigned i = 0; i < pages; i++)
		CHECK(shared[i].count == 2ul * rounds, "page %u: %lu of %lu", i, shared[i].count, 2ul * rounds);
}
