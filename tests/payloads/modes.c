/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modes.c - real, protected, compatibility and long mode, rings 0 and 3, and exceptions with the right frame in each.
 *
 * What      Every processor does all of it in turn: the real-mode page, GDT and IDT are shared.
 * Options   strict=0: leave out what QEMU 7.2 does not check or gets wrong; parts=MASK of parts[] (all).
 * Source    SDM vol 3: 6.15 (exceptions), 6.13 (error codes), 9.8.5 (IA-32e initialisation), 20.1 (real mode);
 *           vol 2: SYSCALL, SYSRET, IRET.
 */
#include "rt/rt.h"

const char payload_name[] = "modes";

/* rt/modes.S */
void real_call(void);
uint64_t ring3_call(uint64_t rip, uint64_t cs, uint64_t rsp);
extern char ring3_back[], user_syscalls[], syscall_entry[], user_compat[], pm_gp[], pm_ud[];
extern char real_code[], real_code_end[], real_int[], real_div[], real_words[];
extern uint32_t pm_limit_faults, pm_ud_faults, pm_far_calls, pm_gp_error, pm_das, pm_daa;
extern uint64_t ring3_rsp;
uint64_t pm_idt[32];

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define CR0_TS 8ul
#define CR0_EM 4ul
#define NON_CANONICAL 0x8000000000000000ul
#define NO_ERROR (~0ul)
#define SUPERVISOR_PAGE 0xa00000ul /* a 2 MiB page that ring 3 may not touch */

static struct barrier meet;
static uint64_t steps, breakpoints, ist_rsp, segment_data[4];

static void expect(struct caught *c, unsigned vector, uint64_t error, const char *what)
{
	CHECK(c->hit, "%s: nothing happens", what);
	CHECK(c->frame.vector == vector, "%s: vector %lu, not %u", what, c->frame.vector, vector);
	if (error != NO_ERROR)
		CHECK(c->frame.error == error, "%s: error code %lx, not %lx", what, c->frame.error, error);
}

static void expect_at(struct caught *c, uint8_t first, uint8_t second, const char *what)
{
	const uint8_t *at = (const uint8_t *)c->frame.rip;

	CHECK(at[0] == first && at[1] == second, "%s: rip points at %x %x", what, at[0], at[1]);
}

/* SDM vol 3, 6.13: the index is the vector, also where gates have 16 bytes (QEMU 7.2 doubles it). */
static uint64_t gate_error(unsigned vector)
{
	return option("strict", 1) ? vector << 3 | 2 : NO_ERROR;
}

/* --- long mode, ring 0 --------------------------------------------------------------------------------- */
static void faults(unsigned cpu)
{
	struct caught *c;

	c = TRY("xor %%eax, %%eax; xor %%edx, %%edx; xor %%ecx, %%ecx; .byte 0xf7, 0xf1");
	expect(c, 0, 0, "divide by zero");
	expect_at(c, 0xf7, 0xf1, "divide by zero");
	expect(TRY("mov $2, %%edx; xor %%eax, %%eax; mov $1, %%ecx; div %%ecx"), 0, 0, "quotient too large");
	c = TRY("ud2");
	expect(c, 6, 0, "ud2");
	expect_at(c, 0x0f, 0x0b, "ud2");
	expect(TRY(".byte 0x06"), 6, 0, "push es in long mode");
	expect(TRY("mov (%1), %%rax", "r"(NON_CANONICAL)), 13, 0, "non-canonical read");
	expect(TRY("mov %%rax, (%1)", "r"(NON_CANONICAL)), 13, 0, "non-canonical write");
	expect(TRY("mov $0xfff8, %%eax; mov %%eax, %%ds"), 13, 0xfff8, "selector behind the table");
	if (!option("strict", 1))
		return;
	expect(TRY("mov %%cr4, %%rax; bts $63, %%rax; mov %%rax, %%cr4"), 13, 0, "reserved bit of cr4");
	expect(TRY("mov %%cr0, %%rax; btr $0, %%rax; mov %%rax, %%cr0"), 13, 0, "paging without protection");
	expect(TRY("xor %%eax, %%eax; mov $1, %%edx; mov $0xc0000080, %%ecx; wrmsr"), 13, 0, "reserved bit of efer");
}

static void descriptor_faults(unsigned cpu)
{
	gdt[SEL_FREE / 8] = 0x00cf13000000ffff; /* data, not present */
	expect(TRY("mov %k1, %%ds", "r"(SEL_FREE)), 11, SEL_FREE, "segment not present");
	expect(TRY("mov %k1, %%ss", "r"(SEL_FREE)), 12, SEL_FREE, "stack segment not present");
	gdt[SEL_FREE / 8] = 0;
	expect(TRY("mov %k1, %%ds", "r"(SEL_FREE)), 13, SEL_FREE, "empty descriptor");
	expect(TRY("ltr %w1", "r"(SEL_DATA)), 13, SEL_DATA, "task register with a data segment");
	idt[0x90].type = 0x0e;
	expect(TRY("int $0x90"), 11, gate_error(0x90), "gate not present");
	idt[0x90].type = 0x8e;
	/* #GP whose own gate is not present: contributory on contributory is a double fault */
	idt[13].type = 0x0e;
	expect(TRY("mov (%1), %%rax", "r"(NON_CANONICAL)), 8, 0, "double fault");
	idt[13].type = 0x8e;
}

static void fpu_faults(unsigned cpu)
{
	uint32_t mxcsr = 0x1f80 & ~(1u << 9), normal = 0x1f80;
	uint16_t control = 0x37f & ~4;

	write_cr0(read_cr0() | CR0_TS);
	expect(TRY("fld1"), 7, 0, "x87 with cr0.ts");
	expect(TRY("xorps %%xmm0, %%xmm0"), 7, 0, "sse with cr0.ts");
	__asm__ volatile("clts");
	write_cr0(read_cr0() | CR0_EM);
	expect(TRY("fld1"), 7, 0, "x87 with cr0.em");
	expect(TRY("xorps %%xmm0, %%xmm0"), 6, 0, "sse with cr0.em");
	write_cr0(read_cr0() & ~CR0_EM);
	expect(TRY("fninit; fldcw (%1); fld1; fldz; fdivrp; fwait", "r"(&control)), 16, 0, "x87 divide by zero");
	__asm__ volatile("fninit");
	if (option("strict", 1))
		expect(TRY("ldmxcsr (%1); xorps %%xmm0, %%xmm0; mov $0x3f800000, %%eax; movd %%eax, %%xmm1;"
			   "divss %%xmm0, %%xmm1",
			   "r"(&mxcsr)),
		       19, 0, "sse divide by zero");
	__asm__ volatile("ldmxcsr %0" : : "m"(normal));
	CHECK(!TRY("fninit; fld1; fld1; faddp; fstp %%st(0); xorps %%xmm0, %%xmm0")->hit, "the fpu still faults");
}

static void on_step(struct trap_frame *f)
{
	if (++steps == 4)
		f->rflags &= ~0x100ul;
}

static void on_breakpoint(struct trap_frame *f)
{
	CHECK(((uint8_t *)f->rip)[-1] == 0xcc, "int3: rip is not behind it");
	breakpoints++;
}

static void on_ist(struct trap_frame *f)
{
	ist_rsp = (uint64_t)f;
}

static void traps(unsigned cpu)
{
	uint64_t top = (uint64_t)cpu_stacks + cpu * STACK_SIZE + 4096, before = breakpoints;

	steps = 0;
	__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop; nop; nop; nop" : : : "memory", "cc");
	CHECK(steps == 4, "single steps: %lu of 4", steps);
	__asm__ volatile("int3");
	CHECK(breakpoints == before + 1, "int3 does not trap");
	cpu_tss[cpu].ist[0] = top;
	idt[0x91].ist = 1;
	__asm__ volatile("int $0x91" : : : "memory");
	CHECK(ist_rsp == top - sizeof(struct trap_frame), "stack of an interrupt with IST is %lx", ist_rsp);
	idt[0x91].ist = 0;
}

static void bases(unsigned cpu)
{
	uint64_t values[2] = { 0x1111, 0x2222 }, a, b, c;

	wrmsr(MSR_FS_BASE, (uint64_t)&values[0]);
	wrmsr(MSR_GS_BASE, (uint64_t)&values[0]);
	wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)&values[1]);
	__asm__ volatile("mov %%fs:0, %0; mov %%gs:0, %1; swapgs; mov %%gs:0, %2; swapgs"
			 : "=&r"(a), "=&r"(b), "=&r"(c)
			 :
			 : "memory");
	CHECK(a == 0x1111 && b == 0x1111 && c == 0x2222, "fs, gs, swapped gs: %lx %lx %lx", a, b, c);
}

/* --- ring 3 -------------------------------------------------------------------------------------------- */
static void on_user_end(struct trap_frame *f)
{
	CHECK((f->cs & 3) == 3, "int 0x80 not from ring 3");
	f->cs = SEL_CODE64;
	f->ss = SEL_DATA;
	f->rip = (uint64_t)ring3_back;
	f->rsp = ring3_rsp;
	f->rflags = 2;
}

static void user_faults(void)
{
	struct caught *c;
	uint64_t cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	CHECK((cs & 3) == 3, "ring 3 has cs %lx", cs);
	expect(TRY("hlt"), 13, 0, "hlt in ring 3");
	expect(TRY("cli"), 13, 0, "cli in ring 3");
	expect(TRY("mov %%cr0, %%rax"), 13, 0, "mov from cr0 in ring 3");
	expect(TRY("mov $0x10, %%ecx; rdmsr"), 13, 0, "rdmsr in ring 3");
	expect(TRY("in $0x80, %%al"), 13, 0, "in in ring 3");
	expect(TRY("mov %k1, %%ds", "r"(SEL_DATA)), 13, SEL_DATA, "ring 0 data in ring 3");
	expect(TRY("int $0x92"), 13, gate_error(0x92), "ring 0 gate from ring 3");
	expect(TRY("mov (%1), %%rax", "r"(SUPERVISOR_PAGE)), 14, 5, "supervisor page read in ring 3");
	expect(TRY("mov %%rax, (%1)", "r"(SUPERVISOR_PAGE)), 14, 7, "supervisor page written in ring 3");
	c = TRY("ud2");
	expect(c, 6, 0, "ud2 in ring 3");
	CHECK(c->frame.cs == (SEL_USER64 | 3) && c->frame.ss == (SEL_USER_DATA | 3), "ud2 in ring 3: frame has %lx:%lx",
	      c->frame.cs, c->frame.ss);
}

static void user_main(void)
{
	user_faults();
	__asm__ volatile("mov $0x600d, %%eax; int $0x80" : : : "memory");
	__builtin_unreachable();
}

static void rings(unsigned cpu)
{
	uint64_t region = (uint64_t)cpu_stacks + cpu * STACK_SIZE, user_rsp = region + 8192, v;

	/* traps from ring 3 arrive between the user's stack and ours */
	cpu_tss[cpu].rsp[0] = region + STACK_SIZE - 4096;
	idt[0x80].type = 0xee;
	tables_here()->pd[SUPERVISOR_PAGE >> 21] &= ~4ul;
	invlpg(SUPERVISOR_PAGE);
	irq_off();
	v = ring3_call((uint64_t)user_main, SEL_USER64 | 3, user_rsp - 8);
	CHECK(v == 0x600d, "ring 3 answers %lx", v);
	wrmsr(MSR_STAR, (uint64_t)SEL_USER32 << 48 | (uint64_t)SEL_CODE64 << 32);
	wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
	wrmsr(MSR_SFMASK, 0x700);
	v = ring3_call((uint64_t)user_syscalls, SEL_USER64 | 3, user_rsp);
	CHECK(v == 100, "%lu of 100 syscalls", v);
	v = ring3_call((uint64_t)user_compat, SEL_USER32 | 3, user_rsp);
	CHECK((uint32_t)v == 0x80000000u, "32-bit code in ring 3 answers %lx", v);
	irq_on();
	tables_here()->pd[SUPERVISOR_PAGE >> 21] |= 4;
}

/* --- other modes ---------------------------------------------------------------------------------------- */
static void vector_set(unsigned vector, const char *handler)
{
	uint32_t entry = (uint32_t)(handler - real_code) | REAL_BASE >> 4 << 16;

	/* the vector table is at address 0, which C does not let one name */
	__asm__ volatile("movl %0, (%1)" : : "r"(entry), "r"((uint64_t)vector * 4) : "memory");
}

static uint64_t gate32(const char *handler)
{
	uint64_t at = (uint64_t)handler;

	return (at & 0xffff) | (uint64_t)SEL_CODE32 << 16 | 0x8e00ull << 32 | (at >> 16) << 48;
}

static void other_modes(unsigned cpu)
{
	const uint16_t *w = (const uint16_t *)(REAL_BASE + (uint64_t)(real_words - real_code));
	uint64_t base = (uint64_t)segment_data;
	uint32_t far_before = pm_far_calls, ud_before = pm_ud_faults, limit_before = pm_limit_faults;

	memcpy((void *)REAL_BASE, real_code, (size_t)(real_code_end - real_code));
	memset((void *)(REAL_BASE + 0x800), 0, 64);
	vector_set(0, real_div);
	vector_set(0x77, real_int);
	pm_idt[6] = gate32(pm_ud);
	pm_idt[13] = gate32(pm_gp);
	memset(segment_data, 0, sizeof(segment_data));
	/* 32-bit data, base as said, limit 15 */
	gdt[SEL_FREE / 8] = 15 | (base & 0xffffff) << 16 | 0x409300ull << 32 | (base >> 24 & 0xff) << 56;
	irq_off();
	real_call();
	trap_load();
	irq_on();
	CHECK(((uint32_t *)segment_data)[1] == 0x5a5a1234, "a segment base is not added");
	if (option("strict", 1)) {
		CHECK(segment_data[2] == 0, "a store behind a segment's limit went through");
		CHECK(pm_limit_faults == limit_before + 1 && pm_gp_error == 0, "no #GP at a segment's limit");
	}
	CHECK(pm_ud_faults == ud_before + 1, "no #UD in protected mode");
	CHECK((pm_das & 0xff) == 0x38, "das gives %x", pm_das);
	CHECK((pm_daa & 0xff) == 0x83, "daa gives %x", pm_daa);
	CHECK(pm_far_calls == far_before + 1, "no far call in protected mode");
	CHECK(w[0] == 0x1111 && w[7] == 1, "int in real mode: %x, %u times", w[0], w[7]);
	CHECK(w[1] == 1, "divide fault in real mode: %u times", w[1]);
	CHECK(memcmp((void *)(REAL_BASE + 0x810), "real mode", 9) == 0, "rep movsb in real mode");
	CHECK(w[2] == 21 && w[3] == 1, "loop gives %u, carry %u", w[2], w[3]);
	CHECK(w[4] == 0x5678 && w[5] == 0x1234, "32-bit operands in 16-bit code");
	CHECK(w[8] == 1, "far call in real mode");
}

static void all_modes(unsigned cpu)
{
	static const struct {
		void (*fn)(unsigned cpu);
		const char *name;
	} parts[] = { { faults, "faults" },   { descriptor_faults, "descriptors" }, { fpu_faults, "fpu" }, { traps, "traps" },
		      { bases, "bases" },     { rings, "rings" }, { other_modes, "other modes" }, { faults, "faults again" } };

	for (unsigned turn = 0; turn < platform.cpus; turn++) {
		barrier_wait(&meet);
		for (unsigned i = 0; turn == cpu && i < ARRAY_LEN(parts); i++) {
			if (!(option("parts", 0xff) >> i & 1))
				continue;
			parts[i].fn(cpu);
			print("modes: cpu %u: %s: ok\n", cpu, parts[i].name);
		}
	}
	barrier_wait(&meet);
}

void payload_main(void)
{
	trap_set(1, on_step);
	trap_set(3, on_breakpoint);
	trap_set(0x80, on_user_end);
	trap_set(0x91, on_ist);
	cpus_start();
	cpus_run(all_modes);
}
