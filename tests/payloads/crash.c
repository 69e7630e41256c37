/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash.c - a triple fault, for the tests of how a machine ends.
 *
 * Options   cpu=N, which processor does it (0).
 */
#include "rt/rt.h"

const char payload_name[] = "crash";

static void triple_fault(unsigned cpu)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) empty = { 0, 0 };

	if (cpu != option("cpu", 0))
		return;
	print("crash: triple fault on cpu %u\n", cpu);
	__asm__ volatile("lidt %0; ud2" : : "m"(empty));
}

void payload_main(void)
{
	cpus_start();
	cpus_run(triple_fault);
	fail("still there after a triple fault");
}
