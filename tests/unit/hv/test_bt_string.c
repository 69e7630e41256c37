/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions of the bt engine against the host's own. */
#include "bt_fixture.h"

#include "base/rng.h"

#define PAGES 8u
#define BYTES (PAGES * PAGE_SIZE)
#define VA 0x10000000ull

struct regs {
	uint64_t rax, rcx, rsi, rdi, rflags;
};

/* The host runs the instruction on a flat buffer; rsi and rdi are offsets from `base`. */
#define NATIVE(insn)                                                                               \
	static void native_##insn(struct regs *r, bool down, unsigned rep)                         \
	{                                                                                          \
		uint64_t fl = r->rflags & RFLAGS_ARITH;                                            \
                                                                                                   \
		if (down)                                                                          \
			fl |= RFLAGS_DF;                                                           \
		if (rep == 0xf3)                                                                   \
			__asm__ volatile("sub $256,%%rsp; push %5; popf; rep " #insn               \
					 "; pushf; pop %%rdx; cld; add $256,%%rsp"                 \
					 : "+a"(r->rax), "+c"(r->rcx), "+S"(r->rsi), "+D"(r->rdi), \
					   "=&d"(fl)                                               \
					 : "4"(fl)                                                 \
					 : "memory", "cc");                                        \
		else if (rep == 0xf2)                                                              \
			__asm__ volatile("sub $256,%%rsp; push %5; popf; repne " #insn             \
					 "; pushf; pop %%rdx; cld; add $256,%%rsp"                 \
					 : "+a"(r->rax), "+c"(r->rcx), "+S"(r->rsi), "+D"(r->rdi), \
					   "=&d"(fl)                                               \
					 : "4"(fl)                                                 \
					 : "memory", "cc");                                        \
		else                                                                               \
			__asm__ volatile("sub $256,%%rsp; push %5; popf; " #insn                   \
					 "; pushf; pop %%rdx; cld; add $256,%%rsp"                 \
					 : "+a"(r->rax), "+c"(r->rcx), "+S"(r->rsi), "+D"(r->rdi), \
					   "=&d"(fl)                                               \
					 : "4"(fl)                                                 \
					 : "memory", "cc");                                        \
		r->rflags = fl & RFLAGS_ARITH;                                                     \
	}
NATIVE(movsb)
NATIVE(movsw) NATIVE(movsl) NATIVE(movsq) NATIVE(stosb) NATIVE(stosw) NATIVE(stosl) NATIVE(stosq)
	NATIVE(lodsb) NATIVE(lodsw) NATIVE(lodsl) NATIVE(lodsq) NATIVE(scasb) NATIVE(scasw)
		NATIVE(scasl) NATIVE(scasq) NATIVE(cmpsb) NATIVE(cmpsw) NATIVE(cmpsl) NATIVE(cmpsq)

			static const struct {
	uint16_t mnemonic;
	void (*native)(struct regs *, bool, unsigned);
	unsigned size;
	bool compares;
} ops[] = {
	{ ZYDIS_MNEMONIC_MOVSB, native_movsb, 1, false },
	{ ZYDIS_MNEMONIC_MOVSW, native_movsw, 2, false },
	{ ZYDIS_MNEMONIC_MOVSD, native_movsl, 4, false },
	{ ZYDIS_MNEMONIC_MOVSQ, native_movsq, 8, false },
	{ ZYDIS_MNEMONIC_STOSB, native_stosb, 1, false },
	{ ZYDIS_MNEMONIC_STOSW, native_stosw, 2, false },
	{ ZYDIS_MNEMONIC_STOSD, native_stosl, 4, false },
	{ ZYDIS_MNEMONIC_STOSQ, native_stosq, 8, false },
	{ ZYDIS_MNEMONIC_LODSB, native_lodsb, 1, false },
	{ ZYDIS_MNEMONIC_LODSW, native_lodsw, 2, false },
	{ ZYDIS_MNEMONIC_LODSD, native_lodsl, 4, false },
	{ ZYDIS_MNEMONIC_LODSQ, native_lodsq, 8, false },
	{ ZYDIS_MNEMONIC_SCASB, native_scasb, 1, true },
	{ ZYDIS_MNEMONIC_SCASW, native_scasw, 2, true },
	{ ZYDIS_MNEMONIC_SCASD, native_scasl, 4, true },
	{ ZYDIS_MNEMONIC_SCASQ, native_scasq, 8, true },
	{ ZYDIS_MNEMONIC_CMPSB, native_cmpsb, 1, true },
	{ ZYDIS_MNEMONIC_CMPSW, native_cmpsw, 2, true },
	{ ZYDIS_MNEMONIC_CMPSD, native_cmpsl, 4, true },
	{ ZYDIS_MNEMONIC_CMPSQ, native_cmpsq, 8, true },
};

/* VA .. VA + BYTES in shuffled frames. */
static gpa_t frame_of(unsigned page)
{
	return 0x180000 + ((page * 5) % PAGES) * PAGE_SIZE;
}

static void map_buffer(void)
{
	for (unsigned p = 0; p < PAGES; p++)
		fx_map(VA + p * PAGE_SIZE, frame_of(p), PT_W | PT_A | PT_D);
}

static void fill(uint8_t *flat, struct rng *r)
{
	/* few values and long runs, so that comparisons last */
	for (unsigned k = 0; k < BYTES; k++)
		flat[k] = rng_below(r, 4000) ? 0x5a : (uint8_t)rng_next(r);
	for (unsigned p = 0; p < PAGES; p++)
		memcpy(fx.ram + frame_of(p), flat + p * PAGE_SIZE, PAGE_SIZE);
}

/* Runs to the end, through kicks. */
static void run_string(const struct bt_insn *i)
{
	for (unsigned n = 0; n < 4096; n++) {
		enum bt_next r = fx_run(i);

		cr_assert(!fx.c->exc.pending);
		if (r == BT_NEXT) {
			cr_assert_eq(fx.c->rip, i->next_rip);
			return;
		}
		cr_assert_eq(r, BT_AGAIN);
		cr_assert_eq(fx.c->rip, i->rip);
	}
	cr_assert(false, "does not come to an end");
}

Test(bt_string, same_as_the_host)
{
	static uint8_t flat[BYTES] __attribute__((aligned(PAGE_SIZE)));
	struct bt_cpu *c = fx_long();
	struct rng rng = { 12345 };

	map_buffer();
	for (unsigned round = 0; round < 6000; round++) {
		unsigned o = (unsigned)rng_below(&rng, ARRAY_LEN(ops)), size = ops[o].size;
		unsigned rep = (unsigned[]){ 0, 0xf3, 0xf3, 0xf2 }[rng_below(&rng, 4)];
		bool down = rng_below(&rng, 2);
		uint64_t count =
			rng_below(&rng, 3) ? rng_below(&rng, 64) : rng_below(&rng, 6000 / size);
		uint64_t room = BYTES - (count + 1) * size;
		uint64_t src = rng_below(&rng, room), dst = rng_below(&rng, room);
		struct bt_insn i = fx_insn(ops[o].mnemonic, size);
		struct regs r = { .rcx = count, .rax = 0x5a5a5a5a5a5a5a5aull };

		if (rep == 0xf2 && !ops[o].compares)
			rep = 0xf3;
		if (round % 64 == 0)
			fill(flat, &rng);
		if (rng_below(&rng, 3) == 0) /* overlap */
			dst = src + rng_below(&rng, 40) < room ? src + rng_below(&rng, 40) : src;
		if (dst > room)
			dst = room;
		if (down) {
			src += count * size;
			dst += count * size;
		}
		if (rep == 0xf2)
			r.rax = rng_next(&rng);
		r.rflags = rng_next(&rng) & RFLAGS_ARITH;
		c->gpr[HV_RAX] = r.rax;
		c->gpr[HV_RCX] = count;
		c->gpr[HV_RSI] = VA + src;
		c->gpr[HV_RDI] = VA + dst;
		c->rflags = RFLAGS_FIXED | r.rflags | (down ? RFLAGS_DF : 0);
		c->kick = rng_below(&rng, 2);
		i.rep = (uint8_t)rep;
		run_string(&i);
		r.rsi = (uint64_t)(flat + src);
		r.rdi = (uint64_t)(flat + dst);
		ops[o].native(&r, down, rep);
		cr_assert_eq(c->gpr[HV_RCX], r.rcx, "round %u op %u", round, o);
		cr_assert_eq(c->gpr[HV_RSI] - VA, r.rsi - (uint64_t)flat, "round %u op %u", round,
			     o);
		cr_assert_eq(c->gpr[HV_RDI] - VA, r.rdi - (uint64_t)flat, "round %u op %u", round,
			     o);
		cr_assert_eq(c->gpr[HV_RAX], r.rax, "round %u op %u", round, o);
		cr_assert_eq(c->rflags & RFLAGS_ARITH, r.rflags, "round %u op %u: %#lx %#lx", round,
			     o, c->rflags & RFLAGS_ARITH, r.rflags);
		for (unsigned p = 0; p < PAGES; p++)
			cr_assert_arr_eq(fx.ram + frame_of(p), flat + p * PAGE_SIZE, PAGE_SIZE,
					 "round %u", round);
	}
}

Test(bt_string, faults_are_precise)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOVSQ, 8);

	map_buffer();
	put64(fx_pte(VA + 2 * PAGE_SIZE, 1), 0);
	memset(fx.ram + frame_of(0), 0x11, PAGE_SIZE);
	c->gpr[HV_RCX] = 100;
	c->gpr[HV_RSI] = VA;
	c->gpr[HV_RDI] = VA + 2 * PAGE_SIZE - 20; /* two elements fit, the third crosses */
	i.rep = 0xf3;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	cr_assert_eq(c->exc.cr2, VA + 2 * PAGE_SIZE);
	fx_expect_fault(EXC_PF, PF_W);
	cr_assert_eq(c->gpr[HV_RCX], 98);
	cr_assert_eq(c->gpr[HV_RSI], VA + 16);
	cr_assert_eq(c->gpr[HV_RDI], VA + 2 * PAGE_SIZE - 4);
	cr_assert_eq(ram64(frame_of(1) + PAGE_SIZE - 12), 0x1111111111111111ull);
	cr_assert_eq(ram32(frame_of(1) + PAGE_SIZE - 4), 0, "nothing of the third");
	cr_assert_eq(c->rip, i.rip);
	fx_map(VA + 2 * PAGE_SIZE, frame_of(2), PT_W);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RCX], 0);
}

Test(bt_string, rights_and_code)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOVSB, 1);

	map_buffer();
	fx.right[frame_of(0) >> 12] = DSM_NONE;
	fx.right[frame_of(1) >> 12] = DSM_READ;
	fx.code[frame_of(1) >> 12] = true;
	fx.steal_for = frame_of(1) >> 12;
	fx.stolen = frame_of(0) >> 12;
	fx.steals = 1;
	fx.ram[frame_of(0) + 7] = 0x99;
	c->gpr[HV_RCX] = 32;
	c->gpr[HV_RSI] = VA;
	c->gpr[HV_RDI] = VA + PAGE_SIZE + 64;
	i.rep = 0xf3;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(fx.acquired[frame_of(0) >> 12][DSM_READ], 2, "lost and fetched again");
	cr_assert_eq(fx.acquired[frame_of(1) >> 12][DSM_WRITE], 1);
	cr_assert_eq(fx.ram[frame_of(1) + 64 + 7], 0x99);
	cr_assert_eq(fx.wrote, 1);
	cr_assert_eq(fx.wrote_gpa, frame_of(1) + 64);
	cr_assert_eq(fx.wrote_len, 32);
	/* downwards the range lies before the pointer */
	c->rflags |= RFLAGS_DF;
	c->gpr[HV_RCX] = 4;
	c->gpr[HV_RDI] = VA + PAGE_SIZE + 100;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(fx.wrote_gpa, frame_of(1) + 97);
	cr_assert_eq(fx.wrote_len, 4);
}

/* The monitor's part: answers reads with the low bits of the address. */
static void answer(void)
{
	struct bt_cpu *c = fx.c;

	cr_assert(c->exit_pending);
	cr_assert_eq(fx.exit.reason, HV_EXIT_MMIO);
	c->exit_pending = false;
	c->mmio.data = fx.exit.write ? 0 : fx.exit.addr & 0xffff;
	c->mmio.ready = true;
}

Test(bt_string, between_two_devices)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOVSD, 4);
	unsigned reads = 0, writes = 0;

	fx_map(VA, 0xfed00000, PT_W | PT_A | PT_D);
	c->gpr[HV_RCX] = 3;
	c->gpr[HV_RSI] = VA + 0x100;
	c->gpr[HV_RDI] = VA + 0x200;
	i.rep = 0xf3;
	while (fx_run(&i) == BT_AGAIN) {
		cr_assert_lt(reads + writes, 6);
		cr_assert_eq(fx.exit.size, 4);
		if (fx.exit.write) {
			cr_assert_eq(fx.exit.addr, 0xfed00200 + 4 * writes);
			cr_assert_eq(fx.exit.data, 0x100 + 4 * writes);
			writes++;
		} else {
			cr_assert_eq(fx.exit.addr, 0xfed00100 + 4 * reads);
			reads++;
		}
		answer();
	}
	cr_assert_eq(reads, 3);
	cr_assert_eq(writes, 3);
	cr_assert(!c->held.valid);
	cr_assert(!c->mmio.ready);
	/* comparing them: 0x300 against 0x200, so it ends at once */
	i = fx_insn(ZYDIS_MNEMONIC_CMPSD, 4);
	i.rep = 0xf3;
	c->gpr[HV_RCX] = 3;
	c->gpr[HV_RSI] = VA + 0x300;
	c->gpr[HV_RDI] = VA + 0x200;
	for (reads = 0; fx_run(&i) == BT_AGAIN; reads++)
		answer();
	cr_assert_eq(reads, 2);
	cr_assert_eq(c->gpr[HV_RCX], 2);
	cr_assert_eq(c->rflags & (RFLAGS_ZF | RFLAGS_CF), 0);
}

Test(bt_string, address_sizes)
{
	struct bt_cpu *c = fx_protected();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_STOSB, 1);

	/* 16-bit addresses wrap, the upper halves stay */
	i.addrsize = 2;
	i.rep = 0xf3;
	c->gpr[HV_RAX] = 0x77;
	c->gpr[HV_RCX] = 0xaaaa0008;
	c->gpr[HV_RDI] = 0xbbbbfffc;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RCX], 0xaaaa0000);
	cr_assert_eq(c->gpr[HV_RDI], 0xbbbb0004);
	cr_assert_eq(ram32(0xfffc), 0x77777777);
	cr_assert_eq(ram32(0), 0x77777777);
	cr_assert_eq(ram32(4), 0);
	/* downwards through zero */
	c->rflags |= RFLAGS_DF;
	c->gpr[HV_RAX] = 0x66;
	c->gpr[HV_RCX] = 4;
	c->gpr[HV_RDI] = 1;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RDI], 0xfffd);
	cr_assert_eq(ram32(0xfffc), 0x66667777);
	cr_assert_eq(ram32(0), 0x77776666);
	/* a limit in the middle of a run */
	c->rflags &= ~(uint64_t)RFLAGS_DF;
	c->seg[HV_ES].limit = 0x5003;
	i.addrsize = 4;
	c->gpr[HV_RCX] = 8;
	c->gpr[HV_RDI] = 0x5000;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(c->gpr[HV_RCX], 4);
	cr_assert_eq(c->gpr[HV_RDI], 0x5004);
	/* a count of zero does nothing, not even fault */
	c->gpr[HV_RCX] = 0;
	cr_assert_eq(fx_run(&i), BT_NEXT);
}
