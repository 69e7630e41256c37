/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc.c - time that processors hand to each other through memory never runs backwards.
 *
 * What      First between every pair in turn (a ball), then all at once against the newest value anyone has seen.
 * Options   rounds=N passes of each pair.
 */
#include "rt/rt.h"

const char payload_name[] = "tsc";

static struct barrier meet;
static unsigned rounds;
static uint64_t ball; /* bit 0: whose turn; the rest: TSC */
static uint64_t newest;

static void side(unsigned turn, unsigned cpu, unsigned other)
{
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t seen, mine;

		WAIT_FOR(((seen = load(&ball)) & 1) == turn, "cpu %u waits for cpu %u in vain", cpu, other);
		mine = rdtsc();
		CHECK(mine >= (seen & ~1ul), "time of cpu %u is %lu cycles behind what cpu %u said", cpu,
		      (seen & ~1ul) - mine, other);
		store(&ball, (mine & ~1ul) | !turn);
	}
}

static void pairs(unsigned cpu)
{
	for (unsigned a = 0; a < platform.cpus; a++)
		for (unsigned b = a + 1; b < platform.cpus; b++) {
			if (cpu == 0)
				store(&ball, 0);
			barrier_wait(&meet);
			if (cpu == a)
				side(0, a, b);
			else if (cpu == b)
				side(1, b, a);
			barrier_wait(&meet);
		}
}

static void all(unsigned cpu)
{
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t seen = load(&newest), mine = rdtsc();

		CHECK(mine >= seen, "time of cpu %u is %lu cycles behind the newest", cpu, seen - mine);
		while (mine > seen && !__atomic_compare_exchange_n(&newest, &seen, mine, false, __ATOMIC_SEQ_CST,
								   __ATOMIC_SEQ_CST))
			;
	}
	barrier_wait(&meet);
}

void payload_main(void)
{
	rounds = (unsigned)option("rounds", 300);
	cpus_start();
	cpus_run(pairs);
	print("tsc: pairs: ok\n");
	cpus_run(all);
	print("tsc: all at once: ok\n");
}
