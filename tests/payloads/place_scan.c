/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_scan.c - processor 0 goes through memory that another node has, page after page; for tests/bench/placement.py.
 *
 * What      The last processor fills the region, so that its node has the pages.  Then processor 0 adds up each page of
 *           it and writes the sum, so that a copy for reading does not do; each round is another part of the region.
 * Options   region=N where it begins, in MiB; size=N in MiB; rounds=N.
 */
#include "rt/rt.h"

const char payload_name[] = "place_scan";

static uint64_t *region, words;

static void fill(unsigned cpu)
{
	if (cpu != platform.cpus - 1)
		return;
	for (uint64_t i = 0; i < words; i += 512)
		region[i] = i;
}

static uint64_t page_sum(uint64_t *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < 512; i += 8)
		sum += p[i];
	return sum;
}

void payload_main(void)
{
	uint64_t size = option("size", 16) << 20, rounds = option("rounds", 1), start, sum = 0, want = 0;

	region = (uint64_t *)(option("region", 64) << 20);
	words = size / 8;
	cpus_start();
	for (unsigned r = 0; r < rounds; r++) {
		cpus_run(fill);
		start = rdtsc();
		for (uint64_t i = 0; i < words; i += 512) {
			sum += page_sum(region + i);
			want += i;
			region[i + 1] = sum;
			/* What a page is worth: some work. */
			for (unsigned k = 0; k < 8; k++)
				region[i + 8 + k] = page_sum(region + i);
			for (unsigned k = 0; k < 8; k++)
				region[i + 8 + k] = 0;
			region[i + 1] = 0;
		}
		print("place: round %u took %lu\n", r, rdtsc() - start);
	}
	CHECK(sum == want, "the sum is %lu, not %lu", sum, want);
}
