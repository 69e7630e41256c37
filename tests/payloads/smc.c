/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smc.c - code that changes itself, changes through another address, and changes under other processors.
 *
 * Source    SDM vol 3, 9.1.3 (self- and cross-modifying code) and 12.6: one's own store to the linear address that
 *           executes is seen at once; any other case needs a serialising instruction first.
 * Options   rounds=N; int3=0: an invalid opcode in place of int3, which software KVM cannot emulate.
 */
#include "rt/rt.h"

const char payload_name[] = "smc";

#define ALIAS (1ull << 39)

static uint8_t code[8192] __attribute__((aligned(4096)));
static struct barrier meet;
static unsigned rounds;
static uint8_t stopper; /* INT3 or PUSH_ES */
static uint32_t sync_acks, patched_to;

#define PATCHED (code + 512)
#define VECTOR_SYNC 0x51
#define INT3 0xcc
#define PUSH_ES 0x06 /* raises #UD in 64-bit mode, and has one byte, too */

static void serialise(void)
{
	__asm__ volatile("xor %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
}

static uint32_t call(const void *fn)
{
	uint32_t v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(fn) : "rcx", "rdx", "memory", "cc");
	return v;
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}

/* mov $value, %eax; ret */
static void write_return(uint8_t *at, uint32_t value)
{
	at[0] = 0xb8;
	put32(at + 1, value);
	at[5] = 0xc3;
}

/* The store changes the very next instruction, of the same basic block. */
static void next_instruction(void)
{
	static const uint8_t text[] = {
		0x89, 0x3d, 0x01, 0, 0, 0,   /* mov %edi, 1(%rip): the immediate of what follows */
		0xb8, 0, 0, 0, 0,	     /* mov $0, %eax */
		0xc3,
	};

	memcpy(code, text, sizeof(text));
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t v;

		__asm__ volatile("call *%1" : "=a"(v) : "r"(code), "D"(i * 2654435761u) : "memory");
		CHECK(v == i * 2654435761u, "the next instruction is old: %x", v);
	}
}

/* A loop that increments its own immediate while it runs. */
static void own_loop(void)
{
	static const uint8_t text[] = {
		0x31, 0xc0,			      /* xor %eax, %eax */
		0x05, 1, 0, 0, 0,		      /* 1: add $1, %eax */
		0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* incl -10(%rip): that 1 */
		0xff, 0xc9,			      /* dec %ecx */
		0x75, 0xf1,			      /* jnz 1b */
		0xc3,
	};
	uint32_t v, n = rounds, sum = 0;

	memcpy(code, text, sizeof(text));
	for (uint32_t i = 1; i <= n; i++)
		sum += i;
	__asm__ volatile("call *%2" : "=a"(v), "+c"(n) : "r"(code) : "memory", "cc");
	CHECK(v == sum, "a loop that changes itself gives %u, not %u", v, sum);
}

/* Changed through another linear address of the same page, and by string and locked stores. */
static void other_ways(void)
{
	uint8_t *alias = (uint8_t *)(ALIAS + (uint64_t)code);

	for (uint32_t i = 0; i < rounds; i++) {
		uint8_t image[6];

		write_return(alias, i);
		serialise();
		CHECK(call(code) == i, "code changed through an alias is old");
		write_return(image, i + 7);
		__asm__ volatile("rep movsb"
				 :
				 : "S"(image), "D"(code), "c"(sizeof(image))
				 : "memory");
		CHECK(call(code) == i + 7, "code changed by rep movsb is old");
		__atomic_exchange_n((uint32_t *)(code + 1), i + 9, __ATOMIC_SEQ_CST);
		CHECK(call(code) == i + 9, "code changed by xchg is old");
	}
}

/* Code that lies across two pages, changed in the second one only. */
static void second_page(void)
{
	uint8_t *at = code + 4096 - 2;

	for (uint32_t i = 0; i < rounds; i++) {
		write_return(at, i << 8);
		CHECK(call(at) == i << 8, "code across pages is old");
		at[4] = (uint8_t)i;
		CHECK(call(at) >> 24 == (i & 0xff), "the second page of code is old");
	}
}

/* One writes, all execute, each in turn; then they do it without being told which. */
static void across_processors(unsigned cpu)
{
	for (unsigned r = 0; r < rounds / 4; r++)
		for (unsigned turn = 0; turn < platform.cpus; turn++) {
			uint32_t value = r << 8 | turn;

			if (turn == cpu)
				write_return(code + 256, value);
			barrier_wait(&meet);
			serialise();
			CHECK(call(code + 256) == value, "cpu %u executes old code of cpu %u", cpu, turn);
			barrier_wait(&meet);
		}
}

/*
 * Under execution, the way kernels patch themselves: a breakpoint first, then the tail, then the first byte, with
 * every processor serialised by an interrupt between the steps. Who meets the breakpoint tries again.
 */
static void on_sync(struct trap_frame *f)
{
	(void)f;
	serialise();
	add(&sync_acks, 1);
	apic_eoi();
}

static void on_breakpoint(struct trap_frame *f)
{
	if (f->vector == 3)
		f->rip--;
	CHECK(f->rip == (uint64_t)PATCHED, "trap %lu at %lx", f->vector, f->rip);
}

static void sync_others(void)
{
	store(&sync_acks, 0);
	serialise();
	apic_ipi(0, ICR_OTHERS | VECTOR_SYNC);
	WAIT_FOR(load(&sync_acks) == platform.cpus - 1, "%u of %u processors serialised", load(&sync_acks),
		 platform.cpus - 1);
}

static void patch(uint32_t value)
{
	PATCHED[0] = stopper;
	sync_others();
	put32(PATCHED + 1, value);
	sync_others();
	PATCHED[0] = 0xb8;
	sync_others();
	store(&patched_to, value);
}

static void under_execution(unsigned cpu)
{
	uint32_t last = 0, until = rounds / 8;
	uint64_t patience = rdtsc() + PATIENCE_CYCLES / 2;

	if (cpu == 0)
		write_return(PATCHED, 0);
	barrier_wait(&meet);
	serialise();
	while (last < until) {
		uint32_t before = load(&patched_to), now;

		if (cpu == 0) {
			patch(++last);
			continue;
		}
		now = call(PATCHED);
		CHECK(now >= last && now <= until, "cpu %u executes %u after %u", cpu, now, last);
		CHECK(now >= before, "cpu %u executes %u, and %u was done", cpu, now, before);
		CHECK(rdtsc() < patience, "cpu %u executes %u for ever, the bytes say %u of %u", cpu, now,
		      *(uint32_t *)(PATCHED + 1), until);
		if (now != last)
			patience = rdtsc() + PATIENCE_CYCLES / 2;
		last = now;
	}
	barrier_wait(&meet);
}

void payload_main(void)
{
	rounds = (unsigned)option("rounds", 500);
	tables_here()->pml4[1] = tables_here()->pml4[0]; /* of the one processor that uses ALIAS */
	next_instruction();
	own_loop();
	other_ways();
	second_page();
	print("smc: one processor: ok\n");
	trap_set(VECTOR_SYNC, on_sync);
	stopper = option("int3", 1) ? INT3 : PUSH_ES;
	trap_set(stopper == INT3 ? 3 : 6, on_breakpoint);
	cpus_start();
	cpus_run(across_processors);
	print("smc: across processors: ok\n");
	cpus_run(under_execution);
	print("smc: under execution: ok\n");
}
