/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/region.c - a guest that writes and reads all of its memory, which is more than any of its nodes has.
 *
 * What      First the boot processor alone, then all processors at once, each its part of the pages and then everything;
 *           one word in each cache line.  tests/stress/region.py measures what the slices take meanwhile.
 */
#include "rt/rt.h"

const char payload_name[] = "region";

#define LINE 64u
#define PAGE 4096u

static struct barrier meet __attribute__((aligned(PAGE)));
static unsigned turn __attribute__((aligned(PAGE)));
static struct {
	uint64_t begin, end;
} range[BOOT_RANGES_MAX];
static unsigned ranges;

/* RAM behind the image, below 4 GiB, in whole pages. */
static uint64_t ranges_find(void)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < boot.ranges; i++) {
		uint64_t begin = boot.range[i].addr, end = begin + boot.range[i].len;

		if (begin < (uint64_t)image_end)
			begin = (uint64_t)image_end;
		if (end > 1ull << 32)
			end = 1ull << 32;
		begin = (begin + PAGE - 1) & ~(uint64_t)(PAGE - 1);
		end &= ~(uint64_t)(PAGE - 1);
		if (boot.range[i].type != 1 || begin >= end)
			continue;
		range[ranges].begin = begin;
		range[ranges++].end = end;
		bytes += end - begin;
	}
	return bytes;
}

static uint64_t value_of(uint64_t addr)
{
	return (addr ^ (uint64_t)turn << 40) * 0x9e3779b97f4a7c15ull | 1;
}

static void write_part(unsigned part, unsigned parts)
{
	for (unsigned r = 0; r < ranges; r++)
		for (uint64_t page = range[r].begin; page < range[r].end; page += PAGE)
			for (uint64_t at = page; at < page + PAGE && page / PAGE % parts == part;
			     at += LINE)
				*(volatile uint64_t *)at = value_of(at);
}

static void read_all(void)
{
	for (unsigned r = 0; r < ranges; r++)
		for (uint64_t at = range[r].begin; at < range[r].end; at += LINE) {
			uint64_t have = *(volatile uint64_t *)at;

			CHECK(have == value_of(at), "cpu %u: lost at %lx: %lx, not %lx", cpu_id(),
			      at, have, value_of(at));
		}
}

static void together(unsigned cpu)
{
	barrier_wait(&meet);
	write_part(cpu, platform.cpus);
	barrier_wait(&meet);
	read_all();
	barrier_wait(&meet);
}

void payload_main(void)
{
	uint64_t bytes = ranges_find();

	turn = 1;
	write_part(0, 1);
	read_all();
	print("region: one processor, %lu KiB\n", bytes >> 10);
	cpus_start();
	turn = 2;
	cpus_run(together);
	print("region: %u processors, %lu KiB\n", platform.cpus, bytes >> 10);
}
