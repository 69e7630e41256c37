/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs.c - every register of every processor keeps its value, whatever it runs and wherever it runs.
 *
 * What      Each processor loads known values into all it has: general registers and flags, x87, xmm, ymm, control and debug
 *           registers, selectors and bases, MSRs, local APIC.  Then it runs pieces of code of different kinds (loops, hlt,
 *           string and locked instructions, user mode, interrupts and NMIs that are held back) and looks at all again.
 *           New values every EPOCH rounds.  MSRs that this machine does not have, or that do not keep what is written, are
 *           left out: the last line says how many were looked at.
 * Options   seconds=N (3); period=CYCLES of the timer that wakes a processor in hlt (2000000); loops=N of each piece (400); bodies=N: only the
 *           first N pieces (7 for a software KVM).
 * Limits    Instruction and data pointers of x87 are not compared.  Breakpoints are stored, never enabled.
 */
#include "rt/rt.h"

const char payload_name[] = "regs";

#define EPOCH 16
#define VECTOR_TIMER 0x60
#define VECTOR_HELD 0x51
#define NMI 2
#define LVT_PERIODIC (1u << 17)
#define LVT_MASKED (1u << 16)
#define COPY_BYTES 9000u
#define FLAGS 0x202ull /* interrupts on, and the bit that is always 1 */
#define FLAG_DF 0x400ull
#define SEL_LOCAL (SEL_TSS + 16 * (CPUS_MAX - 1)) /* of the LDT */

enum { R15, R14, R13, R12, R11, R10, R9, R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX, RFLAGS, REGS };
static const char *const reg_names[REGS] = { "r15", "r14", "r13", "r12", "r11", "r10", "r9",  "r8",
					     "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax", "rflags" };

struct round { /* rt/regs.S knows the offsets */
	uint64_t in[REGS], out[REGS];
	const void *body;
	uint64_t want[REGS];
};
void regs_round(struct round *r);
extern const char body_pause[], body_hlt[], body_turn[], body_copy[], body_compare[], body_locked[], body_xmm[], body_ymm[],
	body_bases[], body_user[], user_entry0[], user_entry1[], user_back[];
void ymm_high_set(const void *p), ymm_high_get(void *p);
extern uint64_t locked_all;

/* --- what there is to keep ---------------------------------------------------------------------------------------- */

/* `keep`: bits of a written value that are random, `base`: the others. */
static const struct msr { uint32_t index; const char *name; uint64_t keep, base; } msrs[] = {
	{ 0xc0000081, "STAR", 0xffffffff, 0x0033000800000000 }, /* user selectors from 0x30, kernel's from 0x08 */
	{ 0xc0000083, "CSTAR", 0x7fffffffffff, 0 },
	{ 0xc0000084, "SFMASK", 0x240dd5, 0x700 },
	{ 0x174, "SYSENTER_CS", 0xffff, 0 },
	{ 0x175, "SYSENTER_ESP", 0x7fffffffffff, 0 },
	{ 0x176, "SYSENTER_EIP", 0x7fffffffffff, 0 },
	{ 0x277, "PAT", 0x0100010100000000, 0x0604000600070406 },
	{ 0xc0000103, "TSC_AUX", 0xffffffff, 0 },
	{ 0x2ff, "MTRR_DEF_TYPE", 0x800, 6 },
#define FIXED(index, name) { index, name, 0x0101010101010101, 0x0404040404040404 }
	FIXED(0x250, "MTRR_FIX64K"), FIXED(0x258, "MTRR_FIX16K_80000"), FIXED(0x259, "MTRR_FIX16K_A0000"),
	FIXED(0x268, "MTRR_FIX4K_C0000"), FIXED(0x269, "MTRR_FIX4K_C8000"), FIXED(0x26a, "MTRR_FIX4K_D0000"),
	FIXED(0x26b, "MTRR_FIX4K_D8000"), FIXED(0x26c, "MTRR_FIX4K_E0000"), FIXED(0x26d, "MTRR_FIX4K_E8000"),
	FIXED(0x26e, "MTRR_FIX4K_F0000"), FIXED(0x26f, "MTRR_FIX4K_F8000"),
#define VAR(n) { 0x200 + 2 * (n), "MTRR_PHYSBASE" #n, 0xffff000, 6 }, { 0x201 + 2 * (n), "MTRR_PHYSMASK" #n, 0xffff000, 0 }
	VAR(0), VAR(1), VAR(2), VAR(3), VAR(4), VAR(5), VAR(6), VAR(7),
	/* never written: what they are at first */
	{ 0x1b, "APIC_BASE", 0, 0 }, { 0x3b, "TSC_ADJUST", 0, 0 }, { 0x8b, "PATCH_LEVEL", 0, 0 }, { 0xfe, "MTRR_CAP", 0, 0 },
	{ 0x179, "MCG_CAP", 0, 0 }, { 0x1a0, "MISC_ENABLE", 0, 0 }, { 0xc0000080, "EFER", 0, 0 },
	{ 0xc0010015, "HWCR", 0, 0 }, { 0xc0011029, "DE_CFG", 0, 0 },
	/* written by name */
	{ 0xc0000082, "LSTAR", 0, 0 }, { 0xc0000100, "FS_BASE", 0, 0 }, { 0xc0000101, "GS_BASE", 0, 0 },
	{ 0xc0000102, "KERNEL_GS_BASE", 0, 0 },
};
static const struct { uint8_t reg; const char *name; uint32_t keep, base; } apic_regs[] = {
	{ APIC_ID, "APIC id", 0, 0 }, { 0x03, "APIC version", 0, 0 }, { APIC_LDR, "APIC LDR", 0, 0 },
	{ APIC_SVR, "APIC SVR", 0, 0x100 | VECTOR_SPURIOUS },
	{ 0x33, "APIC LVT thermal", 0xf8, LVT_MASKED | 5 }, { 0x34, "APIC LVT performance", 0xf8, LVT_MASKED | 2 },
	{ 0x35, "APIC LVT LINT0", 0x20f8, LVT_MASKED | 1 }, { 0x36, "APIC LVT LINT1", 0x20f8, LVT_MASKED | 3 },
	{ 0x37, "APIC LVT error", 0xf8, LVT_MASKED | 4 },
	/* written by name */
	{ APIC_LVT_TIMER, "APIC LVT timer", 0, 0 }, { APIC_TIMER_INIT, "APIC initial count", 0, 0 },
	{ APIC_TIMER_DIV, "APIC divide configuration", 0, 0 },
};
/* clang-format on */
/* Read by mov; and by what else there is. */
#define MOVED(X) X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(dr0) X(dr1) X(dr2) X(dr3) X(dr6) X(dr7) X(ds) X(es) X(fs) X(gs)
#define OTHERS(X) X(ldt_selector) X(task_register) X(gdt_base) X(idt_base) X(gdt_and_idt_limits) X(xcr0)
#define ENUM(name) S_##name,
#define NAME(name) #name,
enum { MOVED(ENUM) OTHERS(ENUM) SYSTEMS };
static const char *const system_names[SYSTEMS] = { MOVED(NAME) OTHERS(NAME) };

struct cpu {
	struct round r;
	uint64_t epoch, rounds, tsc, msr[ARRAY_LEN(msrs)], system[SYSTEMS];
	bool msr_there[ARRAY_LEN(msrs)];
	uint32_t apic[ARRAY_LEN(apic_regs)];
	uint32_t ticks, held, nmis, nmi_depth, locked;
	uint64_t own[2];
	uint64_t block[16][8]; /* segment bases point at one, which reads as its own address */
	uint8_t fx[512] __attribute__((aligned(64)));
	uint8_t fx_now[512] __attribute__((aligned(64)));
	uint8_t ymm[256] __attribute__((aligned(64)));
	uint8_t ymm_now[256] __attribute__((aligned(64)));
	uint8_t from[COPY_BYTES] __attribute__((aligned(4096)));
	uint8_t to[COPY_BYTES] __attribute__((aligned(4096)));
};
static struct cpu cpus[CPUS_MAX] __attribute__((aligned(4096)));
static struct barrier meet;
static uint64_t ldt[2] = { 0, 0x00cff3000000ffff }; /* a flat data segment, any privilege */
uint64_t locked_all;
static bool has_avx, has_rdtscp;
static unsigned bodies_run, loops, period, msrs_kept;
static uint64_t run_cycles;

static uint64_t random_of(unsigned cpu, unsigned item)
{
	uint64_t z = cpus[cpu].epoch * 0x9e3779b97f4a7c15ull + ((uint64_t)cpu << 32) + item;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

enum { ITEM_MSR = 0x100, ITEM_SYSTEM = 0x200, ITEM_APIC = 0x300, ITEM_FX = 0x400, ITEM_REG = 0x500 };

static void same(uint64_t is, uint64_t want, const char *name, const char *after)
{
	unsigned cpu = cpu_id();

	CHECK(is == want, "cpu %u: %s is %lx, not %lx, after %s (round %lu)", cpu, name, is, want, after, cpus[cpu].rounds);
}

/* --- control, debug, segments ------------------------------------------------------------------------------------- */
#define GET(text) ({ uint64_t v_; __asm__ volatile("mov %%" text ", %0" : "=r"(v_)); v_; })
#define SET(text, v) __asm__ volatile("mov %0, %%" text : : "r"((uint64_t)(v)) : "memory")
#define GET_SEL(text) ({ uint64_t v_ = 0; __asm__ volatile(text " %w0" : "+r"(v_)); v_; })

static void system_read(uint64_t s[SYSTEMS])
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) g, i;
	uint32_t lo = 0, hi = 0;

	__asm__ volatile("sgdt %0\n\tsidt %1" : "=m"(g), "=m"(i));
	if (has_avx)
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
#define READ(name) s[S_##name] = GET(#name);
	MOVED(READ)
	s[S_ldt_selector] = GET_SEL("sldt");
	s[S_task_register] = GET_SEL("str");
	s[S_gdt_base] = g.base;
	s[S_idt_base] = i.base;
	s[S_gdt_and_idt_limits] = (uint64_t)g.limit << 16 | i.limit;
	s[S_xcr0] = (uint64_t)hi << 32 | lo;
}

/* Breakpoint conditions that a processor takes, none of them enabled. */
static uint64_t dr7_of(unsigned cpu)
{
	static const uint8_t conditions[4] = { 0x0, 0x1, 0xd, 0xf };
	uint64_t r = random_of(cpu, ITEM_SYSTEM + S_dr7), v = 0x400;

	for (unsigned k = 0; k < 4; k++)
		v |= (uint64_t)conditions[r >> (2 * k) & 3] << (16 + 4 * k);
	return v;
}

static void system_set(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint64_t r = random_of(cpu, ITEM_SYSTEM);

	SET("cr0", (GET("cr0") & ~0x40000ull) | (r & 0x40000)); /* AM */
	SET("cr2", random_of(cpu, ITEM_SYSTEM + S_cr2) & 0x7fffffffffff);
	SET("cr4", (GET("cr4") & ~0x108ull) | (r & 0x108)); /* PCE, DE */
	SET("cr8", r >> 20 & 3);
	SET("dr0", random_of(cpu, ITEM_SYSTEM + S_dr0) & 0x7fffffffffff);
	SET("dr1", random_of(cpu, ITEM_SYSTEM + S_dr1) & 0x7fffffffffff);
	SET("dr2", random_of(cpu, ITEM_SYSTEM + S_dr2) & 0x7fffffffffff);
	SET("dr3", random_of(cpu, ITEM_SYSTEM + S_dr3) & 0x7fffffffffff);
	SET("dr6", 0xffff0ff0 | (r >> 24 & 0x400f));
	SET("dr7", dr7_of(cpu));
	__asm__ volatile("mov %w0, %%ds\n\tmov %w1, %%es\n\tmov %w0, %%fs\n\tmov %w0, %%gs"
			 : : "r"(SEL_USER_DATA | 3), "r"(r & 0x10000 ? SEL_USER_DATA | 3 : 0xf /* entry 1 of the LDT */));
	system_read(c->system);
	same(c->system[S_cr2], random_of(cpu, ITEM_SYSTEM + S_cr2) & 0x7fffffffffff, "cr2", "it was written");
	same(c->system[S_cr8], r >> 20 & 3, "cr8", "it was written");
	same(c->system[S_dr7], dr7_of(cpu), "dr7", "it was written");
}

/* --- MSRs ---------------------------------------------------------------------------------------------------------- */
static uint64_t msr_value(unsigned cpu, unsigned k)
{
	struct cpu *c = &cpus[cpu];
	uint64_t r = random_of(cpu, ITEM_MSR + k);

	switch (msrs[k].index) {
	case 0xc0000082:
		return (uint64_t)(r & 1 ? user_entry1 : user_entry0);
	case 0xc0000100:
	case 0xc0000101:
	case 0xc0000102:
		return (uint64_t)c->block[r % ARRAY_LEN(c->block)];
	default:
		return (r & msrs[k].keep) | msrs[k].base;
	}
}

static bool msr_is_written(unsigned k)
{
	return msrs[k].keep || msrs[k].index == 0xc0000082 || (msrs[k].index >= 0xc0000100 && msrs[k].index <= 0xc0000102);
}

/* Once: which of them are there and keep a value. */
static void msrs_learn(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	unsigned kept = 0;

	for (unsigned k = 0; k < ARRAY_LEN(msrs); k++) {
		uint32_t index = msrs[k].index;
		uint64_t v = msr_value(cpu, k);

		if (TRY("mov %1, %%ecx\n\trdmsr", "r"(index))->hit)
			continue;
		if (msr_is_written(k) && (TRY("mov %1, %%ecx\n\tmov %k2, %%eax\n\tmov %2, %%rdx\n\tshr $32, %%rdx\n\twrmsr",
					      "r"(index), "r"(v))->hit || rdmsr(index) != v))
			continue;
		c->msr_there[k] = true;
		c->msr[k] = rdmsr(index);
		kept++;
	}
	if (cpu == 0)
		msrs_kept = kept;
}

static void msrs_set(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];

	for (unsigned k = 0; k < ARRAY_LEN(msrs); k++) {
		if (!c->msr_there[k] || !msr_is_written(k))
			continue;
		c->msr[k] = msr_value(cpu, k);
		wrmsr(msrs[k].index, c->msr[k]);
	}
}

static void msrs_check(unsigned cpu, const char *after)
{
	struct cpu *c = &cpus[cpu];

	for (unsigned k = 0; k < ARRAY_LEN(msrs); k++)
		if (c->msr_there[k])
			same(rdmsr(msrs[k].index), c->msr[k], msrs[k].name, after);
}

/* --- local APIC ------------------------------------------------------------------------------------------------------ */
static void apic_set(unsigned cpu)
{
	static const uint8_t divides[4] = { 0xb, 0x0, 0x1, 0x2 }; /* by 1, 2, 4, 8 */
	struct cpu *c = &cpus[cpu];
	unsigned by = random_of(cpu, ITEM_APIC) & 3;

	for (unsigned k = 0; k < ARRAY_LEN(apic_regs); k++)
		if (apic_regs[k].keep)
			apic_write(apic_regs[k].reg, ((uint32_t)random_of(cpu, ITEM_APIC + k) & apic_regs[k].keep) | apic_regs[k].base);
	apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
	apic_write(APIC_TIMER_DIV, divides[by]);
	apic_write(APIC_TIMER_INIT, (period >> by) + (uint32_t)cpu);
	for (unsigned k = 0; k < ARRAY_LEN(apic_regs); k++)
		c->apic[k] = apic_read(apic_regs[k].reg);
	same(apic_read(APIC_TIMER_INIT), (period >> by) + cpu, "APIC initial count", "it was written");
}

static void apic_check(unsigned cpu, const char *after)
{
	struct cpu *c = &cpus[cpu];
	uint32_t now = apic_read(APIC_TIMER_NOW);

	for (unsigned k = 0; k < ARRAY_LEN(apic_regs); k++)
		same(apic_read(apic_regs[k].reg), c->apic[k], apic_regs[k].name, after);
	same(apic_read(APIC_TPR), c->system[S_cr8] << 4, "APIC TPR", after);
	CHECK(now <= apic_read(APIC_TIMER_INIT), "cpu %u: the APIC's count is %u of %u", cpu, now, apic_read(APIC_TIMER_INIT));
}

/* --- x87, xmm, ymm ---------------------------------------------------------------------------------------------------- */
static void vectors_set(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint64_t r = random_of(cpu, ITEM_FX), *q = (uint64_t *)c->fx;

	memset(c->fx, 0, sizeof(c->fx));
	for (unsigned k = 4; k < 52; k++)
		q[k] = k < 20 && k % 2 ? random_of(cpu, ITEM_FX + k) & 0xffff : random_of(cpu, ITEM_FX + k);
	*(uint16_t *)(c->fx + 0) = (uint16_t)(0x037f | (r & 0xc00));	  /* exceptions masked, any rounding */
	*(uint16_t *)(c->fx + 2) = (uint16_t)((r >> 16 & 0x473f) | (r & 0x3800)); /* condition codes, top, flags */
	c->fx[4] = (uint8_t)(r >> 32);					  /* which registers are in use */
	*(uint32_t *)(c->fx + 24) = (uint32_t)(0x1f80 | (r >> 40 & 0xe03f));
	__asm__ volatile("fxrstor64 %0" : : "m"(c->fx));
	__asm__ volatile("fxsave64 %0" : "=m"(c->fx_now));
	*(uint32_t *)(c->fx + 28) = *(uint32_t *)(c->fx_now + 28); /* which bits of mxcsr there are */
	for (unsigned k = 0; k < 32; k++)
		((uint64_t *)c->ymm)[k] = random_of(cpu, ITEM_FX + 64 + k);
	if (has_avx)
		ymm_high_set(c->ymm);
}

static void bytes_same(const uint8_t *is, const uint8_t *want, unsigned bytes, const char *name, unsigned n, const char *after)
{
	for (unsigned k = 0; k < bytes; k++)
		CHECK(is[k] == want[k], "cpu %u: byte %u of %s%u is %x, not %x, after %s", cpu_id(), k, name, n, is[k], want[k], after);
}

static void vectors_check(unsigned cpu, const char *after)
{
	struct cpu *c = &cpus[cpu];

	__asm__ volatile("fxsave64 %0" : "=m"(c->fx_now));
	same(*(uint16_t *)c->fx_now, *(uint16_t *)c->fx, "x87 control word", after);
	same(*(uint16_t *)(c->fx_now + 2), *(uint16_t *)(c->fx + 2), "x87 status word", after);
	same(c->fx_now[4], c->fx[4], "x87 tag word", after);
	same(*(uint64_t *)(c->fx_now + 24), *(uint64_t *)(c->fx + 24), "mxcsr and its mask", after);
	for (unsigned n = 0; n < 8; n++)
		bytes_same(c->fx_now + 32 + 16 * n, c->fx + 32 + 16 * n, 10, "st", n, after);
	for (unsigned n = 0; n < 16; n++)
		bytes_same(c->fx_now + 160 + 16 * n, c->fx + 160 + 16 * n, 16, "xmm", n, after);
	if (has_avx)
		ymm_high_get(c->ymm_now);
	for (unsigned n = 0; has_avx && n < 16; n++)
		bytes_same(c->ymm_now + 16 * n, c->ymm + 16 * n, 16, "the upper half of ymm", n, after);
}

/* --- traps --------------------------------------------------------------------------------------------------------------- */
static void on_timer(struct trap_frame *f)
{
	struct cpu *c = &cpus[cpu_id()];

	if (++c->ticks % 8 == 0) { /* long enough to be moved inside: it stays in service */
		for (unsigned i = 0; i < loops; i++)
			pause();
		same(apic_read(0x10 + VECTOR_TIMER / 32) >> VECTOR_TIMER % 32 & 1, 1, "in-service bit", "a wait in its handler");
	}
	apic_eoi();
}

static void on_held(struct trap_frame *f)
{
	cpus[cpu_id()].held++;
	apic_eoi();
}

/* The first NMI waits while a second one is pending: that comes behind iret, not before, and once. */
static void on_nmi(struct trap_frame *f)
{
	unsigned cpu = cpu_id();
	struct cpu *c = &cpus[cpu];

	(void)f;
	CHECK(c->nmi_depth == 0, "cpu %u: an NMI inside an NMI", cpu);
	c->nmi_depth++;
	if (++c->nmis % 2 == 1) {
		apic_ipi(cpu, ICR_NMI);
		for (unsigned i = 0; i < loops; i++)
			pause();
	}
	c->nmi_depth--;
}

static void hold_back(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint32_t before = c->held;

	irq_off();
	apic_ipi(cpu, ICR_FIXED | VECTOR_HELD);
	WAIT_FOR(apic_read(0x20 + VECTOR_HELD / 32) >> VECTOR_HELD % 32 & 1, "cpu %u: an interrupt to itself is lost", cpu);
	for (unsigned i = 0; i < loops; i++)
		pause();
	same(apic_read(0x20 + VECTOR_HELD / 32) >> VECTOR_HELD % 32 & 1, 1, "interrupt request bit", "a wait with interrupts off");
	same(load(&c->held), before, "count of held back interrupts", "a wait with interrupts off");
	irq_on();
	WAIT_FOR(load(&c->held) != before, "cpu %u: an interrupt that was held back is lost", cpu);
	same(load(&c->held), before + 1, "count of held back interrupts", "interrupts on");
	if (apic_x2)
		same(rdmsr(0x830) & ~0x1000ull, (uint64_t)cpu << 32 | ICR_ASSERT | VECTOR_HELD, "APIC ICR", "it was written");
}

static void two_nmis(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint32_t before = load(&c->nmis);

	apic_ipi(cpu, ICR_NMI);
	WAIT_FOR(load(&c->nmis) >= before + 2, "cpu %u: %u of two NMIs", cpu, load(&c->nmis) - before);
	for (unsigned i = 0; i < loops; i++)
		pause();
	same(load(&c->nmis), before + 2, "count of NMIs", "two NMIs");
}

/* --- rounds ---------------------------------------------------------------------------------------------------------------- */
static void ready_loop(struct cpu *c, unsigned n)
{
	c->r.in[RCX] = n;
	c->r.want[RCX] = 0;
}

static void ready_pause(struct cpu *c) { ready_loop(c, loops); }
static void ready_hlt(struct cpu *c) { ready_loop(c, 2); }
static void ready_copy(struct cpu *c)
{
	bool down = c->rounds & 8;
	uint64_t by = down ? -(uint64_t)COPY_BYTES : COPY_BYTES;

	for (unsigned k = 0; k < COPY_BYTES; k++)
		c->from[k] = (uint8_t)(k * 7 + c->rounds);
	c->r.in[RSI] = (uint64_t)c->from + (down ? COPY_BYTES - 1 : 0);
	c->r.in[RDI] = (uint64_t)c->to + (down ? COPY_BYTES - 1 : 0);
	c->r.want[RSI] = c->r.in[RSI] + by;
	c->r.want[RDI] = c->r.in[RDI] + by;
	c->r.in[RFLAGS] |= down ? FLAG_DF : 0;
	c->r.want[RFLAGS] = c->r.in[RFLAGS];
	c->r.in[RCX] = COPY_BYTES;
	c->r.want[RCX] = 0;
}

/* What the last copy left: equal to the end, and the flags of that comparison. */
static void ready_compare(struct cpu *c)
{
	c->r.in[RSI] = (uint64_t)c->from;
	c->r.in[RDI] = (uint64_t)c->to;
	c->r.want[RSI] = c->r.in[RSI] + COPY_BYTES;
	c->r.want[RDI] = c->r.in[RDI] + COPY_BYTES;
	c->r.in[RCX] = COPY_BYTES;
	c->r.want[RCX] = 0;
	c->r.want[RFLAGS] = (c->r.in[RFLAGS] & ~0x8d5ull) | 0x44; /* ZF, PF */
}

static void ready_locked(struct cpu *c)
{
	ready_loop(c, loops / 4 + 1);
	c->r.in[RSI] = c->r.want[RSI] = (uint64_t)&c->own[0];
	c->r.in[RDI] = c->r.want[RDI] = (uint64_t)&c->own[1];
	c->locked += loops / 4 + 1;
}

static void ready_bases(struct cpu *c)
{
	ready_loop(c, loops);
	c->r.want[RAX] = rdmsr(0xc0000100);
	c->r.want[RDX] = rdmsr(0xc0000101);
	c->r.want[RBX] = rdmsr(0xc0000102);
}

static void ready_user(struct cpu *c)
{
	ready_loop(c, loops);
	c->r.want[RCX] = (uint64_t)user_back;
	c->r.want[R11] = c->r.in[RFLAGS];
}

static const struct {
	const char *name;
	const void *body;
	void (*ready)(struct cpu *c);
} bodies[] = {
	{ "a pause loop", body_pause, ready_pause },	   { "hlt", body_hlt, ready_hlt },
	{ "moves between registers", body_turn, ready_pause }, { "rep movsb", body_copy, ready_copy },
	{ "repe cmpsb", body_compare, ready_compare },	   { "locked instructions", body_locked, ready_locked },
	{ "segment bases", body_bases, ready_bases },	   { "user mode", body_user, ready_user },
	{ "xmm shuffles", body_xmm, ready_pause },	   { "ymm shuffles", body_ymm, ready_pause },
};

static void round_run(unsigned cpu, unsigned kind)
{
	struct cpu *c = &cpus[cpu];

	for (unsigned k = 0; k < REGS; k++)
		c->r.in[k] = random_of(cpu, ITEM_REG + k) ^ c->rounds;
	c->r.in[RFLAGS] = FLAGS | (c->r.in[RFLAGS] & 0x2008d5); /* ID and what arithmetic sets */
	memcpy(c->r.want, c->r.in, sizeof(c->r.want));
	c->r.body = bodies[kind].body;
	bodies[kind].ready(c);
	regs_round(&c->r);
	for (unsigned k = 0; k < REGS; k++)
		same(c->r.out[k], c->r.want[k], reg_names[k], bodies[kind].name);
}

static void all_set(unsigned cpu)
{
	if (cpus[cpu].epoch == 1)
		msrs_learn(cpu);
	system_set(cpu);
	msrs_set(cpu); /* behind the selectors, which set bases */
	apic_set(cpu);
	vectors_set(cpu);
}

static void all_check(unsigned cpu, const char *after)
{
	struct cpu *c = &cpus[cpu];
	uint64_t now[SYSTEMS], tsc = rdtsc();

	system_read(now);
	for (unsigned k = 0; k < SYSTEMS; k++)
		same(now[k], c->system[k], system_names[k], after);
	msrs_check(cpu, after);
	apic_check(cpu, after);
	vectors_check(cpu, after);
	CHECK(tsc >= c->tsc, "cpu %u: time went back by %lu cycles", cpu, c->tsc - tsc);
	c->tsc = tsc;
	if (has_rdtscp) {
		uint32_t aux;

		__asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
		same(aux, (uint32_t)rdmsr(0xc0000103), "what rdtscp says", after);
	}
}

static void prepare(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];

	__asm__ volatile("lldt %w0" : : "r"(SEL_LOCAL));
	/* Interrupts in user mode come in on the lower half of this processor's stack. */
	cpu_tss[cpu].rsp[0] = (uint64_t)cpu_stacks + STACK_SIZE * cpu + STACK_SIZE / 2;
	for (unsigned k = 0; k < ARRAY_LEN(c->block); k++)
		c->block[k][0] = (uint64_t)c->block[k];
	if (has_avx) {
		SET("cr4", GET("cr4") | 0x40000); /* OSXSAVE */
		__asm__ volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
	}
}

static void keep(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint64_t start = rdtsc();

	prepare(cpu);
	while (rdtsc() - start < run_cycles || c->rounds < ARRAY_LEN(bodies) + 2) {
		unsigned kind = (unsigned)(c->rounds % (ARRAY_LEN(bodies) + 2));
		const char *after;

		if (c->rounds % EPOCH == 0) {
			c->epoch++;
			all_set(cpu);
		}
		if (kind < ARRAY_LEN(bodies)) {
			after = bodies[kind].name;
			if (kind < bodies_run && (bodies[kind].body != body_ymm || has_avx))
				round_run(cpu, kind);
		} else if (kind == ARRAY_LEN(bodies)) {
			after = "an interrupt that was held back";
			hold_back(cpu);
		} else {
			after = "two NMIs";
			two_nmis(cpu);
		}
		all_check(cpu, after);
		c->rounds++;
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	SET("cr8", 0);
	barrier_wait(&meet);
}

void payload_main(void)
{
	uint64_t base = (uint64_t)ldt, rounds = 0, ticks = 0, locked = 0;
	uint32_t r[4];

	cpuid(1, 0, r);
	bodies_run = (unsigned)option("bodies", ARRAY_LEN(bodies));
	has_avx = (r[2] >> 26 & 1) && (r[2] >> 28 & 1) && bodies_run == ARRAY_LEN(bodies);
	cpuid(0x80000001, 0, r);
	has_rdtscp = r[3] >> 27 & 1;
	run_cycles = option("seconds", 3) * tsc_hz(NULL);
	period = (unsigned)option("period", 2000000);
	loops = (unsigned)option("loops", 400);
	gdt[SEL_LOCAL / 8] = (sizeof(ldt) - 1) | (base & 0xffffff) << 16 | 0x82ull << 40 | (base >> 24 & 0xff) << 56;
	CHECK(platform.cpus < CPUS_MAX && base >> 32 == 0, "no descriptor for the LDT");
	trap_set(VECTOR_TIMER, on_timer);
	trap_set(VECTOR_HELD, on_held);
	trap_set(NMI, on_nmi);
	cpus_start();
	print("regs: running\n");
	cpus_run(keep);
	for (unsigned cpu = 0; cpu < platform.cpus; cpu++) {
		rounds += cpus[cpu].rounds;
		ticks += cpus[cpu].ticks;
		locked += cpus[cpu].locked;
		CHECK(cpus[cpu].own[0] == cpus[cpu].locked, "cpu %u: lock inc lost updates", cpu);
	}
	CHECK(locked_all == locked, "lock add lost updates: %lu of %lu", locked_all, locked);
	print("regs: %u processors, %lu rounds, %lu ticks; %u MSRs, %s: all kept\n", platform.cpus, rounds, ticks, msrs_kept,
	      has_avx ? "ymm" : "xmm");
}
