/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pagetables.c - page tables that all processors share and each in turn changes; shootdown by IPI; accessed and
 * dirty bits; page faults that say the right thing.
 *
 * What      Virtual addresses from WINDOW on are mapped by 4 KiB pages through tables of our own, PAGES of them,
 *           each to one of two frames with different stamps.
 * Options   rounds=N changes of each kind.
 */
#include "rt/rt.h"

const char payload_name[] = "pagetables";
SHARED_PAGE_TABLES;

#define WINDOW (1ull << 39) /* slot 1 of the PML4 */
#define PAGES 8
#define VECTOR_FLUSH 0x50
#define P 1ull
#define RW 2ull
#define A 0x20ull
#define D 0x40ull
#define NX (1ull << 63)
#define FRAME_MASK 0x000ffffffffff000ull

static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));
static uint64_t pt[2][512] __attribute__((aligned(4096)));
static struct frame {
	uint64_t stamp, by_cpu[CPUS_MAX];
	uint8_t fill[4096 - 8 - 8 * CPUS_MAX];
} frames[PAGES][2] __attribute__((aligned(4096)));

static struct barrier meet;
static unsigned rounds;
static uint64_t flush_addr; /* 0: everything */
static uint32_t flush_acks, settled;

static volatile struct frame *window(unsigned page)
{
	return (volatile struct frame *)(WINDOW + page * 4096ull);
}

static void flush_here(uint64_t addr)
{
	if (addr)
		invlpg(addr);
	else
		write_cr3(read_cr3());
}

static void on_flush(struct trap_frame *f)
{
	(void)f;
	flush_here(load(&flush_addr));
	add(&flush_acks, 1);
	apic_eoi();
}

static void shootdown(uint64_t addr)
{
	store(&flush_addr, addr);
	store(&flush_acks, 0);
	flush_here(addr);
	apic_ipi(0, ICR_OTHERS | VECTOR_FLUSH);
	WAIT_FOR(load(&flush_acks) == platform.cpus - 1, "%u of %u processors acknowledged a shootdown",
		 load(&flush_acks), platform.cpus - 1);
}

/* One changes a mapping while the others read through it: they see the old or the new page, then the new one. */
static void remap(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		unsigned page = r % PAGES, to = (r / PAGES + 1) % 2;
		uint64_t old = frames[page][!to].stamp, new = frames[page][to].stamp, seen;

		if (cpu == 0)
			store(&settled, 0);
		barrier_wait(&meet);
		if (r % platform.cpus == cpu) {
			store(&pt[0][page], (uint64_t)&frames[page][to] | P | RW);
			shootdown(WINDOW + page * 4096ull);
			store(&settled, 1);
		}
		do {
			seen = window(page)->stamp;
			CHECK(seen == old || seen == new, "cpu %u reads %lx, neither %lx nor %lx", cpu, seen, old, new);
		} while (!load(&settled));
		seen = window(page)->stamp;
		CHECK(seen == new, "cpu %u still sees the old page after the shootdown: %lx", cpu, seen);
		window(page)->by_cpu[cpu] = r + 1;
		CHECK(frames[page][to].by_cpu[cpu] == r + 1, "a store of cpu %u went elsewhere", cpu);
		barrier_wait(&meet);
		for (unsigned i = 0; i < platform.cpus; i++)
			CHECK(window(page)->by_cpu[i] == r + 1, "cpu %u misses a store of cpu %u", cpu, i);
		barrier_wait(&meet);
	}
}

static void expect_fault(struct caught *c, uint64_t addr, uint64_t error, const char *what)
{
	CHECK(c->hit && c->frame.vector == 14, "%s: no page fault", what);
	CHECK(c->cr2 == addr, "%s: cr2 %lx, not %lx", what, c->cr2, addr);
	CHECK(c->frame.error == error, "%s: error code %lx, not %lx", what, c->frame.error, error);
}

static void expect_none(struct caught *c, const char *what)
{
	CHECK(!c->hit, "%s: trap %lu error %lx cr2 %lx at %lx rbx %lx", what, c->frame.vector, c->frame.error, c->cr2,
	      c->frame.rip, c->frame.rbx);
}

/* One takes a page away, then gives it back read-only, then without execution: all others fault rightly. */
static void revoke(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		unsigned page = r % PAGES;
		uint64_t addr = WINDOW + page * 4096ull + 8 * cpu, frame = (uint64_t)&frames[page][0];
		bool mine = r % platform.cpus == cpu;

		barrier_wait(&meet);
		if (mine) {
			store(&pt[0][page], frame | RW);
			shootdown(WINDOW + page * 4096ull);
		}
		barrier_wait(&meet);
		expect_fault(TRY("mov (%1), %%rax", "r"(addr)), addr, 0, "read of an absent page");
		expect_fault(TRY("movb $1, (%1)", "r"(addr)), addr, 2, "write to an absent page");
		barrier_wait(&meet);
		if (mine)
			store(&pt[0][page], frame | P | NX); /* absent before: no shootdown is needed */
		barrier_wait(&meet);
		expect_none(TRY("mov (%1), %%rax", "r"(addr)), "read of a read-only page");
		expect_fault(TRY("lock incq (%1)", "r"(addr)), addr, 3, "write to a read-only page");
		expect_fault(TRY("jmp *%1", "r"(addr)), addr, 0x11, "execution of a page without");
		barrier_wait(&meet);
		if (mine) {
			store(&pt[0][page], frame | P | RW | 1ull << 51);
			shootdown(WINDOW + page * 4096ull);
		}
		barrier_wait(&meet);
		if (option("reserved", 1))
			expect_fault(TRY("mov (%1), %%rax", "r"(addr)), addr, 9, "reserved bit in an entry");
		barrier_wait(&meet);
		if (mine) {
			store(&pt[0][page], frame | P | RW);
			shootdown(WINDOW + page * 4096ull);
		}
		barrier_wait(&meet);
		expect_none(TRY("lock incq (%1)", "r"(addr)), "write to a page that is back");
	}
}

/* A read sets accessed only, a write dirty too, whoever does it; a cleared bit comes back after a shootdown. */
static void accessed_dirty(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		unsigned page = r % PAGES, user = (r + 1) % platform.cpus;
		bool mine = r % platform.cpus == cpu;

		barrier_wait(&meet);
		if (mine) {
			__atomic_and_fetch(&pt[0][page], ~(A | D), __ATOMIC_SEQ_CST);
			shootdown(WINDOW + page * 4096ull);
			CHECK((load(&pt[0][page]) & (A | D)) == 0, "a bit is set that nobody used");
		}
		barrier_wait(&meet);
		if (user == cpu)
			(void)window(page)->stamp;
		barrier_wait(&meet);
		CHECK((load(&pt[0][page]) & (A | D)) == A, "after a read the entry is %lx", load(&pt[0][page]));
		barrier_wait(&meet);
		window(page)->by_cpu[cpu] = 7; /* all at once: each sets the bit, none may lose another's */
		barrier_wait(&meet);
		CHECK((load(&pt[0][page]) & ~FRAME_MASK) == (P | RW | A | D), "after writes the entry is %lx",
		      load(&pt[0][page]));
		CHECK(pd[0] & A && pdpt[0] & A, "upper entries are not accessed");
	}
}

/* One exchanges a whole table; all reload cr3. */
static void retable(unsigned cpu)
{
	for (unsigned r = 0; r < rounds; r++) {
		unsigned to = (r + 1) % 2;

		barrier_wait(&meet);
		if (r % platform.cpus == cpu) {
			store(&pd[0], (uint64_t)pt[to] | P | RW);
			shootdown(0);
		}
		barrier_wait(&meet);
		for (unsigned page = 0; page < PAGES; page++) {
			uint64_t frame = (load(&pt[to][page]) & FRAME_MASK), stamp = *(uint64_t *)frame;

			CHECK(window(page)->stamp == stamp, "cpu %u: page %u is from the old table", cpu, page);
		}
	}
	barrier_wait(&meet);
}

/* A 16-byte object across two pages whose frames are not neighbours, and an instruction across them too. */
static void crossing(unsigned cpu)
{
	volatile uint64_t *across = (volatile uint64_t *)(WINDOW + 3 * 4096ull - 4);
	uint8_t *code = (uint8_t *)(WINDOW + 5 * 4096ull - 3);
	uint32_t out;

	for (unsigned turn = 0; turn < platform.cpus; turn++) {
		barrier_wait(&meet);
		if (turn == cpu) {
			*across = 0x1122334455667788ull + turn;
			memcpy(code, "\xb8\x01\x02\x03\x04\xc3", 6); /* mov $0x04030201, %eax; ret */
			code[1] = (uint8_t)turn;
		}
		barrier_wait(&meet);
		CHECK(*across == 0x1122334455667788ull + turn, "a value across two pages is torn: %lx", *across);
		/* serialise before executing what another processor wrote (SDM vol 3, 9.1.3) */
		__asm__ volatile("xor %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
		__asm__ volatile("call *%1" : "=a"(out) : "r"(code) : "memory");
		CHECK(out == 0x04030200 + turn, "an instruction across two pages gives %x", out);
	}
	barrier_wait(&meet);
}

void payload_main(void)
{
	static const struct {
		void (*fn)(unsigned cpu);
		const char *name;
	} parts[] = { { remap, "remap" }, { revoke, "revoke" }, { accessed_dirty, "accessed and dirty" },
		      { retable, "whole tables" }, { crossing, "across pages" } };

	rounds = (unsigned)option("rounds", 40);
	for (unsigned i = 0; i < PAGES; i++) {
		for (unsigned j = 0; j < 2; j++) {
			frames[i][j].stamp = 0xabc0000000000000ull + i * 16 + j;
			pt[j][i] = (uint64_t)&frames[i][j] | P | RW;
		}
	}
	pd[0] = (uint64_t)pt[0] | P | RW;
	pdpt[0] = (uint64_t)pd | P | RW;
	tables_here()->pml4[1] = (uint64_t)pdpt | P | RW;
	trap_set(VECTOR_FLUSH, on_flush);
	cpus_start();
	for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
		cpus_run(parts[i].fn);
		print("pagetables: %s: ok\n", parts[i].name);
	}
}
