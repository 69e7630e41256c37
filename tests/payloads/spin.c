/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spin.c - all processors write to contended pages for ever, for tests that kill something meanwhile.
 *
 * Prints    "spin: running" once all are at it.
 * Options   seconds=N at about 2 GHz, then PASS (0: never).
 */
#include "rt/rt.h"

const char payload_name[] = "spin";

static struct {
	uint64_t n;
	uint8_t fill[4088];
} pages[4] __attribute__((aligned(4096)));
static struct barrier meet;

static void spin(unsigned cpu)
{
	uint64_t cycles = option("seconds", 0) * 2000000000ull, start = rdtsc();

	barrier_wait(&meet);
	if (cpu == 0)
		print("spin: running\n");
	while (!cycles || rdtsc() - start < cycles)
		for (unsigned i = 0; i < ARRAY_LEN(pages); i++)
			add(&pages[(i + cpu) % ARRAY_LEN(pages)].n, 1);
}

void payload_main(void)
{
	cpus_start();
	cpus_run(spin);
}
