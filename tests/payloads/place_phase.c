/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_phase.c - what processor 0 works on moves to another node, and back; for tests/bench/placement.py.
 *
 * What      In each phase processor 0 shares its counters with one other processor: the second in even phases, the last
 *           in odd ones.  With two nodes and four processors these are of its own node, and of the other.
 * Options   pages=N shared, rounds=N in each phase, ahead=N rounds of the two, phases=N.
 */
#include "rt/rt.h"

const char payload_name[] = "place_phase";

static struct page {
	uint64_t count, fill[511];
} shared[2][64] __attribute__((aligned(4096)));
static unsigned pages, rounds, ahead, phase;
static struct {
	unsigned rounds;
	uint8_t fill[4092];
} done[2] __attribute__((aligned(4096)));

static void hammer(unsigned cpu)
{
	unsigned partner = phase % 2 ? platform.cpus - 1 : 1, me = cpu != 0, from = phase * rounds;

	if (cpu && cpu != partner)
		return;
	for (unsigned r = from; r < from + rounds; r++) {
		for (unsigned i = 0; i < pages; i++)
			add(&shared[phase % 2][i].count, 1);
		store(&done[me].rounds, r + 1);
		while (load(&done[!me].rounds) + ahead < r)
			pause();
	}
}

void payload_main(void)
{
	unsigned phases = (unsigned)option("phases", 6);

	pages = (unsigned)option("pages", 4);
	rounds = (unsigned)option("rounds", 10000);
	ahead = (unsigned)option("ahead", 8);
	CHECK(pages <= ARRAY_LEN(shared[0]) && platform.cpus >= 3, "too many pages, or too few processors");
	cpus_start();
	for (phase = 0; phase < phases; phase++) {
		uint64_t start = rdtsc();

		cpus_run(hammer);
		print("place: round %u took %lu\n", phase, rdtsc() - start);
	}
	for (unsigned i = 0; i < 2 * pages; i++) {
		uint64_t want = 2ul * rounds * (i % 2 ? phases / 2 : (phases + 1) / 2);

		CHECK(shared[i % 2][i / 2].count == want, "page %u: %lu of %lu", i, shared[i % 2][i / 2].count, want);
	}
}
