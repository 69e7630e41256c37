/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cross.c - accesses and instructions that lie across two pages, while other processors write to both pages.
 *
 * What      Each processor has three pages; what lies across their boundaries is its own, at both ends everybody counts.
 *           No locked access crosses pages: an engine need not make that atomic (docs/limits.md).
 * Options   rounds=N of each kind.
 */
#include "rt/rt.h"

const char payload_name[] = "cross";

#define STEP (16ull << 20) /* memory of two nodes meets at a multiple of this, or at none we know of */
#define SPOTS_MAX 64

/* Three pages; one boundary in the middle of before and behind, the other in the middle of source. */
static struct span {
	uint64_t low[CPUS_MAX];
	uint8_t fill0[4096 - 8 * CPUS_MAX - 64], before[64];
	uint8_t behind[64], fill1[4096 - 64 - 16], source[32];
	uint8_t fill2[4096 - 16 - 8 * CPUS_MAX];
	uint64_t high[CPUS_MAX];
} spans[CPUS_MAX] __attribute__((aligned(4096)));
_Static_assert(sizeof(struct span) == 3 * 4096, "three pages");

static struct barrier meet;
static unsigned rounds, spots;
static uint64_t spot[SPOTS_MAX]; /* addresses of the second of two pages */

/* Takes pages of everybody for a moment. */
static void disturb(unsigned cpu)
{
	for (unsigned i = 0; i < platform.cpus; i++) {
		add(&spans[i].low[cpu], 1);
		add(&spans[i].high[cpu], 1);
	}
}

#define ACROSS(type, value)                                                                                  \
	for (unsigned before = 1; before < sizeof(type); before++) {                                         \
		volatile type *p = (volatile type *)(spans[cpu].behind - before);                            \
		type v = (type)(value);                                                                      \
                                                                                                             \
		*p = v;                                                                                      \
		CHECK(*p == v, "cpu %u: %u bytes, %u before the boundary: %lx, not %lx", cpu,                \
		      (unsigned)sizeof(type), before, (uint64_t)*p, (uint64_t)v);                            \
		*p += 3;                                                                                     \
		v = (type)(v + 3);                                                                           \
		CHECK(memcmp((const void *)p, &v, sizeof(v)) == 0, "cpu %u: %u bytes, %u before the boundary, " \
		      "one by one", cpu, (unsigned)sizeof(type), before);                                    \
	}

static void values(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		ACROSS(uint16_t, 0xabcd + r)
		disturb(cpu);
		ACROSS(uint32_t, 0x89abcdef + r)
		disturb(cpu);
		ACROSS(uint64_t, 0x0123456789abcdef + r)
	}
}

static void counted(unsigned cpu)
{
	for (unsigned i = 0; i < platform.cpus; i++)
		CHECK(spans[cpu].low[i] == spans[cpu].high[i] && spans[cpu].low[i] == 2 * rounds,
		      "cpu %u's pages: cpu %u counted %lu and %lu, not %u", cpu, i, spans[cpu].low[i],
		      spans[cpu].high[i], 2 * rounds);
}

/* String instructions with source and destination across a boundary, forwards and backwards. */
static void strings(unsigned cpu)
{
	unsigned other = (cpu + 1) % platform.cpus;

	memset(spans[cpu].source, (int)cpu + 1, sizeof(spans[cpu].source));
	spans[cpu].source[0] = spans[cpu].source[31] = 0xee;
	barrier_wait(&meet);
	for (unsigned r = 0; r < rounds; r++) {
		uint8_t *si = spans[other].source, *dst = spans[cpu].behind - 1 - r % 30, *di = dst;
		uint64_t n = r % 3 == 1 ? 4 : 32;

		memset(dst, 0, 32);
		if (r % 3 == 0) {
			__asm__ volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(n) : : "memory");
		} else if (r % 3 == 1) {
			__asm__ volatile("rep movsq" : "+S"(si), "+D"(di), "+c"(n) : : "memory");
		} else {
			si += 31;
			di += 31;
			__asm__ volatile("std; rep movsb; cld" : "+S"(si), "+D"(di), "+c"(n) : : "memory", "cc");
		}
		CHECK(memcmp(dst, spans[other].source, 32) == 0, "cpu %u: string copy %u is wrong", cpu, r % 3);
		CHECK(dst[0] == 0xee && dst[1] == other + 1 && dst[30] == other + 1, "cpu %u: string copy %u: %x %x", cpu,
		      r % 3, dst[1], dst[30]);
		disturb(cpu);
	}
	barrier_wait(&meet);
}

/* push, call and pop with a stack pointer just behind a boundary. The trap code finds its processor by rsp. */
static void stacks(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		uint64_t rsp = (uint64_t)spans[cpu].behind + 1 + r % 7, want = 0x1122334455667788ull + r, got, back;

		irq_off();
		__asm__ volatile("mov %%rsp, %1; mov %2, %%rsp; push %3; pop %0; call 1f; 1: pop %%rax; push %3; pushq $0;"
				 "pop %%rax; pop %%rax; xor %0, %%rax; or %%rax, %0; mov %1, %%rsp"
				 : "=&r"(got), "=&r"(back)
				 : "r"(rsp), "r"(want)
				 : "rax", "memory", "cc");
		irq_on();
		CHECK(got == want, "cpu %u: a stack across pages gives %lx, not %lx", cpu, got, want);
		disturb(cpu);
	}
}

static bool is_ram(uint64_t a)
{
	for (unsigned i = 0; i < boot.modules; i++)
		if (a + 4096 > boot.module[i].addr && a < boot.module[i].addr + boot.module[i].len + 4096)
			return false;
	for (unsigned i = 0; i < boot.ranges; i++)
		if (boot.range[i].type == 1 && a >= boot.range[i].addr + 4096 &&
		    a + 4096 <= boot.range[i].addr + boot.range[i].len)
			return a > (uint64_t)image_end + 4096;
	return false;
}

/* One writes a value and an instruction across a boundary, all read and execute them, each in turn. */
static void hand_over(unsigned cpu)
{
	for (unsigned i = 0; i < spots; i++)
		for (unsigned turn = 0; turn < platform.cpus; turn++) {
			volatile uint64_t *across = (volatile uint64_t *)(spot[i] - 1 - turn % 7);
			uint8_t *code = (uint8_t *)spot[i] + 64 - 67 - turn % 2;
			uint64_t want = 0x1122334455667788ull * (turn + 1) + i;
			uint32_t out;

			barrier_wait(&meet);
			if (turn == cpu)
				*across = want;
			barrier_wait(&meet);
			CHECK(*across == want, "cpu %u: %lx holds %lx, not %lx of cpu %u", cpu, (uint64_t)across, *across,
			      want, turn);
			barrier_wait(&meet);
			if (turn == cpu) {
				memcpy(code, "\xb8\x00\x02\x03\x04\xc3", 6); /* mov $0x04030200, %eax; ret */
				code[1] = (uint8_t)(turn + i);
			}
			barrier_wait(&meet);
			/* serialise before executing what another processor wrote (SDM vol 3, 9.1.3) */
			__asm__ volatile("xor %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
			__asm__ volatile("call *%1" : "=a"(out) : "r"(code) : "memory");
			CHECK(out == 0x04030200u + (uint8_t)(turn + i), "cpu %u: an instruction across %lx gives %x", cpu,
			      spot[i], out);
		}
	barrier_wait(&meet);
}

void payload_main(void)
{
	static const struct {
		void (*fn)(unsigned cpu);
		const char *name;
	} parts[] = { { values, "values" }, { counted, "counts" }, { strings, "strings" }, { stacks, "stacks" },
		      { hand_over, "handed over" } };

	rounds = (unsigned)option("rounds", 100);
	for (unsigned i = 0; i < platform.cpus; i++)
		spot[spots++] = (uint64_t)spans[i].behind;
	for (uint64_t a = STEP; a < 1ull << 32 && spots < SPOTS_MAX; a += STEP)
		if (is_ram(a))
			spot[spots++] = a;
	cpus_start();
	for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
		cpus_run(parts[i].fn);
		print("cross: %s: ok\n", parts[i].name);
	}
	print("cross: %u cpus, %u boundaries: ok\n", platform.cpus, spots);
}
