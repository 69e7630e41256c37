/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello.c - what the loader hands over: command line, modules, memory map; and that the memory is there.
 *
 * Prints    Each of them, one a line, with a checksum for every module (the sum of its bytes).
 */
#include "rt/rt.h"

const char payload_name[] = "hello";

#define FOUR_GIB (1ull << 32)

static void check_range(const struct boot_range *r)
{
	uint64_t end = r->addr + r->len, last;

	if (r->type != 1 || end > FOUR_GIB || r->len < 4096 || r->addr < 0x100000)
		return;
	last = (end & ~7ull) - 8;
	if (last < (uint64_t)image_end)
		return;
	for (unsigned i = 0; i < boot.modules; i++)
		if (last + 8 > boot.module[i].addr && last < boot.module[i].addr + boot.module[i].len)
			return;
	*(volatile uint64_t *)last = 0x756e756d756e756dull;
	CHECK(*(volatile uint64_t *)last == 0x756e756d756e756dull, "no memory at %lx", last);
}

void payload_main(void)
{
	uint64_t usable = 0;

	print("hello by %s\n", boot.pvh ? "pvh" : "multiboot");
	print("cmdline '%s'\n", boot.cmdline);
	for (unsigned i = 0; i < boot.modules; i++) {
		const struct boot_module *m = &boot.module[i];
		uint32_t sum = 0;

		for (uint64_t j = 0; j < m->len; j++)
			sum += ((const uint8_t *)m->addr)[j];
		print("module %u at %lx len %lu sum %u cmdline '%s'\n", i, m->addr, m->len, sum, m->cmdline);
		CHECK(m->addr >= (uint64_t)image_end || m->addr + m->len <= (uint64_t)image_start,
		      "module %u lies over the payload", i);
	}
	for (unsigned i = 0; i < boot.ranges; i++) {
		const struct boot_range *r = &boot.range[i];

		print("memory %lx len %lx type %u\n", r->addr, r->len, r->type);
		usable += r->type == 1 ? r->len : 0;
		check_range(r);
	}
	print("usable %lu KiB, cpus %u, numa nodes %u, mmio slots %u\n", usable >> 10, platform.cpus,
	      platform.numa_nodes, platform.mmio_slots);
	CHECK(usable >= 8u << 20, "only %lu bytes of memory", usable);
	CHECK(option("expect_modules", boot.modules) == boot.modules, "%u modules", boot.modules);
	CHECK(option("expect_cpus", platform.cpus) == platform.cpus, "%u processors", platform.cpus);
}
