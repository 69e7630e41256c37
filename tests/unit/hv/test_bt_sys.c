/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers, flags, cpuid, fxsave, ports, legacy instructions, state and reset of the bt
 * engine. */
#include "bt_fixture.h"

#include "base/rng.h"

static enum bt_next op0(uint16_t mnemonic, unsigned opsize)
{
	struct bt_insn i = fx_insn(mnemonic, opsize);

	return fx_run(&i);
}

static enum bt_next write_cr(unsigned cr, uint64_t v)
{
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOV, 8);

	fx.c->gpr[HV_R9] = v;
	fx_op(&i, 5, cr, 8, 0);
	fx_op(&i, 1, HV_R9, 8, 0);
	return fx_run(&i);
}

static uint64_t read_cr(unsigned cr)
{
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOV, 8);

	fx_op(&i, 1, HV_R9, 8, 0);
	fx_op(&i, 5, cr, 8, 0);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	return fx.c->gpr[HV_R9];
}

static enum bt_next wrmsr(uint32_t index, uint64_t v)
{
	fx.c->gpr[HV_RCX] = index;
	fx.c->gpr[HV_RAX] = (uint32_t)v;
	fx.c->gpr[HV_RDX] = v >> 32;
	return op0(ZYDIS_MNEMONIC_WRMSR, 4);
}

/* From reset to 64-bit mode by instructions only, as a boot loader does it. */
Test(bt_sys, reset_to_long_mode)
{
	struct bt_cpu *c = fx_cpu();
	struct bt_insn i;

	cr_assert_eq(c->rip, 0xfff0);
	cr_assert_eq(c->seg[HV_CS].base, 0xffff0000);
	cr_assert_eq(c->cr0, 0x60000010);
	cr_assert_eq(c->gpr[HV_RDX], 0x00800f12);
	cr_assert_eq(c->mode, BT_MODE_REAL);
	for (gpa_t a = 0; a < 0x200000; a += PAGE_SIZE)
		fx_map(a, a, PT_W);
	fx_gdt();
	put16(0x6000, 0x7f);
	put32(0x6002, FX_GDT);
	i = fx_insn(ZYDIS_MNEMONIC_LGDT, 4);
	i.addrsize = 2;
	fx_mem(&i, 0x6000, 6);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gdt_base, FX_GDT);
	cr_assert_eq(c->gdt_limit, 0x7f);
	i.opsize = 2; /* 24 bits */
	put32(0x6002, 0xff000000 | FX_GDT);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gdt_base, FX_GDT);

	cr_assert_eq(write_cr(0, 0x60000011), BT_BRANCH);
	cr_assert_eq(c->mode & (BT_MODE_REAL | BT_MODE_CODE), 0);
	i = fx_insn(ZYDIS_MNEMONIC_JMP, 4);
	fx_op(&i, 7, 0, 6, (uint64_t)SEL_K32 << 32 | 0x7000);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE32);
	i = fx_insn(ZYDIS_MNEMONIC_MOV, 4);
	c->gpr[HV_RAX] = SEL_KDATA;
	fx_op(&i, 4, HV_SS, 2, 0);
	fx_op(&i, 1, HV_RAX, 4, 0);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert(c->mode & BT_MODE_SS32);
	cr_assert(!(c->mode & BT_MODE_FLAT), "ds and es still end at 64 KiB");
	i.op[0].reg = HV_ES;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	i.op[0].reg = HV_DS;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert(c->mode & BT_MODE_FLAT);

	cr_assert_eq(wrmsr(0xc0000080, EFER_LME | EFER_NXE | EFER_SCE), BT_BRANCH);
	cr_assert_eq(write_cr(3, FX_ROOT), BT_BRANCH);
	cr_assert_eq(write_cr(0, CR0_PE | CR0_PG), BT_AGAIN); /* without PAE */
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(4, CR4_PAE | CR4_PGE), BT_BRANCH);
	fx.forget_all = 0;
	cr_assert_eq(write_cr(0, CR0_PE | CR0_PG | CR0_WP), BT_BRANCH);
	cr_assert_eq(fx.forget_all, 1);
	cr_assert_eq(c->efer, EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE32,
		     "compatibility mode until the far jump");
	i = fx_insn(ZYDIS_MNEMONIC_JMP, 4);
	fx_op(&i, 7, 0, 6, (uint64_t)SEL_K64 << 32 | 0x7000);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE64);
	/* no way back to no paging from here */
	cr_assert_eq(write_cr(0, CR0_PE), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(4, 0), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(wrmsr(0xc0000080, EFER_NXE), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_sys, control_registers)
{
	struct bt_cpu *c = fx_long();

	cr_assert_eq(write_cr(0, c->cr0 | 1ull << 32), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(0, c->cr0 | CR0_NW), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(4, c->cr4 | 1u << 20), BT_AGAIN); /* SMEP is not shown */
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(4, c->cr4 | 1u << 18), BT_AGAIN); /* nor XSAVE */
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(3, 1ull << 40 | FX_ROOT), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(3, FX_ROOT | 0x18), BT_BRANCH);
	cr_assert_eq(read_cr(3), FX_ROOT | 0x18);
	cr_assert_eq(write_cr(2, 0xffff800000000123ull), BT_NEXT);
	cr_assert_eq(read_cr(2), 0xffff800000000123ull);
	cr_assert_eq(write_cr(1, 0), BT_AGAIN);
	fx_expect_plain_fault(EXC_UD);
	cr_assert_eq(write_cr(8, 9), BT_NEXT);
	cr_assert_eq(read_cr(8), 9);
	cr_assert_eq(write_cr(8, 16), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(write_cr(8, 3), BT_AGAIN, "lowered: the monitor has to look");
	cr_assert(c->exit_pending);
	cr_assert_eq(fx.exit.reason, HV_EXIT_KICKED);
	c->exit_pending = false;
	/* TS traps show in the mode, clts takes them away */
	cr_assert_eq(write_cr(0, c->cr0 | CR0_TS), BT_BRANCH);
	cr_assert(c->mode & BT_MODE_TS);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CLTS, 4), BT_BRANCH);
	cr_assert(!(c->mode & BT_MODE_TS));
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(write_cr(3, FX_ROOT), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CLTS, 4), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_sys, cr3_keeps_global_entries_and_invlpg_does_not)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_INVLPG, 1);
	gva_t va = 0x7f0000000000ull;
	uint8_t v;

	fx_map(va, 0x150000, PT_G | PT_W);
	cr_assert_eq(bt_mem_read(c, va, &v, 1), BT_OK);
	cr_assert_eq(write_cr(3, FX_ROOT), BT_BRANCH);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(va)], va);
	fx_mem(&i, va, 1);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(va)], BT_TLB_NONE);
	cr_assert_eq(fx.forget_va, 1);
	i.disp = (int64_t)(1ull << 47);
	cr_assert_eq(fx_run(&i), BT_NEXT, "not canonical: nothing happens");
}

Test(bt_sys, debug_registers)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOV, 8);

	fx_op(&i, 6, 7, 8, 0);
	fx_op(&i, 1, HV_RAX, 8, 0);
	c->gpr[HV_RAX] = 0xffffffffu & ~0x2000u;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->dr[7], 0xffff07ffu);
	c->gpr[HV_RAX] = 1ull << 32;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	i.op[0].reg = 4; /* an alias of dr6 without CR4.DE */
	c->gpr[HV_RAX] = 0xf;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->dr[6], 0xffff0fffu);
	c->cr4 |= CR4_DE;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_plain_fault(EXC_UD);
}

Test(bt_sys, flags)
{
	struct bt_cpu *c = fx_long();

	c->rflags = RFLAGS_FIXED;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_STI, 8), BT_BRANCH);
	cr_assert(c->irq_shadow);
	c->irq_shadow = false;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_STI, 8), BT_NEXT, "IF was set: no shadow");
	cr_assert(!c->irq_shadow);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CLI, 8), BT_NEXT);
	cr_assert_eq(c->rflags, RFLAGS_FIXED);

	c->gpr[HV_RSP] = FX_STACK0 - 8;
	put64(FX_STACK0 - 8, ~0ull & ~(uint64_t)RFLAGS_TF);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_POPFQ, 8), BT_BRANCH);
	cr_assert_eq(c->rflags, 0x247ed7, "ID AC NT IOPL OF DF IF SF ZF AF PF 1 CF");
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0);
	c->rflags |= RFLAGS_RF;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_PUSHFQ, 8), BT_NEXT);
	cr_assert_eq(ram64(FX_STACK0 - 8), 0x247ed7);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 8);
	/* ring 3 with IOPL 0: IF and IOPL stay */
	fx_ring(c, 3, SEL_U64);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	c->gpr[HV_RSP] = FX_USTACK - 8;
	put64(FX_USTACK - 8, RFLAGS_IOPL | RFLAGS_DF);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_POPFQ, 8), BT_NEXT);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_DF);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CLI, 8), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_STI, 8), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_HLT, 8), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	/* 16 bits leave the upper half */
	c->rflags = RFLAGS_FIXED | RFLAGS_AC;
	c->gpr[HV_RSP] = FX_USTACK - 8;
	put16(FX_USTACK - 8, RFLAGS_CF);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_POPF, 2), BT_NEXT);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_AC | RFLAGS_CF);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK - 6);
}

Test(bt_sys, hlt)
{
	struct bt_cpu *c = fx_long();

	c->irq_shadow = true;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_HLT, 8), BT_AGAIN);
	cr_assert(c->exit_pending);
	cr_assert_eq(fx.exit.reason, HV_EXIT_HLT);
	cr_assert_eq(c->rip, 0x5003);
	cr_assert(!c->irq_shadow);
}

Test(bt_sys, cpuid)
{
	struct bt_cpu *c = fx_long();

	c->gpr[HV_RAX] = ~0ull << 32 | 1;
	c->gpr[HV_RBX] = ~0ull;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CPUID, 4), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RAX], 0x00800f12);
	cr_assert_eq(c->gpr[HV_RBX], 0x05010800);
	cr_assert_eq(c->gpr[HV_RCX], 0x81982203);
	c->gpr[HV_RAX] = 0xb;
	c->gpr[HV_RCX] = 7;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CPUID, 4), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RDX], 5);
	cr_assert_eq(c->gpr[HV_RCX], 7);
	cr_assert_eq(c->gpr[HV_RBX], 0);
	c->gpr[HV_RAX] = 0x12345;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_CPUID, 4), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RAX] | c->gpr[HV_RBX] | c->gpr[HV_RCX] | c->gpr[HV_RDX], 0);
}

static uint64_t edx_eax(void)
{
	return fx.c->gpr[HV_RDX] << 32 | fx.c->gpr[HV_RAX];
}

Test(bt_sys, tsc)
{
	struct bt_cpu *c = fx_long();
	uint64_t a;

	c->tsc_offset = 1ull << 62;
	c->tsc_aux = 0x1003;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_RDTSC, 4), BT_NEXT);
	a = edx_eax();
	cr_assert_gt(a, 1ull << 62);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_RDTSCP, 4), BT_NEXT);
	cr_assert_gt(edx_eax(), a);
	cr_assert_eq(c->gpr[HV_RCX], 0x1003);
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_RDTSC, 4), BT_NEXT);
	c->cr4 |= CR4_TSD;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_RDTSC, 4), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_sys, fxsave_and_fxrstor)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn save = fx_insn(ZYDIS_MNEMONIC_FXSAVE64, 8),
		       load = fx_insn(ZYDIS_MNEMONIC_FXRSTOR64, 8);
	uint8_t image[512];
	struct rng r = { 7 };

	for (unsigned k = 160; k < 416; k++)
		c->fx[k] = (uint8_t)rng_next(&r);
	memcpy(image, c->fx, 512);
	fx_mem(&save, FX_DATA + 0xf80, 255);
	fx_mem(&load, FX_DATA + 0xf80, 255);
	memset(fx.ram + FX_DATA + 0xf80, 0xcc, 512);
	cr_assert_eq(fx_run(&save), BT_NEXT);
	bt_fpu_park(c);
	cr_assert_arr_eq(fx.ram + FX_DATA + 0xf80, image, 28);
	cr_assert_arr_eq(fx.ram + FX_DATA + 0xf80 + 32, image + 32, 384);
	cr_assert_eq(fx.ram[FX_DATA + 0xf80 + 464], 0xcc, "the software's part is not written");
	fx.ram[FX_DATA + 0xf80 + 160] ^= 0xff;
	fx.ram[FX_DATA + 0xf80 + 400] ^= 0xff;
	cr_assert_eq(fx_run(&load), BT_NEXT);
	bt_fpu_park(c);
	cr_assert_eq(c->fx[160], image[160] ^ 0xff);
	cr_assert_eq(c->fx[400], image[400] ^ 0xff);
	fx.ram[FX_DATA + 0xf80 + 27] = 0x80; /* reserved MXCSR bit */
	cr_assert_eq(fx_run(&load), BT_AGAIN);
	bt_fpu_park(c);
	fx_expect_fault(EXC_GP, 0);
	load.disp += 8;
	cr_assert_eq(fx_run(&load), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	c->cr0 |= CR0_TS;
	cr_assert_eq(fx_run(&save), BT_AGAIN);
	fx_expect_plain_fault(EXC_NM);
}

static enum bt_next port(uint16_t mnemonic, bool imm, uint64_t p, unsigned size)
{
	struct bt_insn i = fx_insn(mnemonic, size);

	if (mnemonic == ZYDIS_MNEMONIC_IN)
		fx_op(&i, 1, HV_RAX, size, 0);
	if (imm)
		fx_op(&i, 3, 0, 1, p);
	else
		fx_op(&i, 1, HV_RDX, 2, 0);
	if (mnemonic == ZYDIS_MNEMONIC_OUT)
		fx_op(&i, 1, HV_RAX, size, 0);
	if (!imm)
		fx.c->gpr[HV_RDX] = 0xffff0000 | p;
	return fx_run(&i);
}

Test(bt_sys, ports)
{
	struct bt_cpu *c = fx_long();

	c->gpr[HV_RAX] = 0x1122334455667788ull;
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3f8, 1), BT_AGAIN);
	cr_assert_eq(fx.exit.reason, HV_EXIT_PIO);
	cr_assert_eq(fx.exit.addr, 0x3f8);
	cr_assert_eq(fx.exit.size, 1);
	cr_assert_eq(c->rip, 0x5000);
	c->exit_pending = false;
	c->pio.data = 0xabcd;
	c->pio.ready = true;
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3f8, 1), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RAX], 0x11223344556677cdull);
	cr_assert_eq(port(ZYDIS_MNEMONIC_OUT, true, 0xf4, 4), BT_AGAIN);
	cr_assert_eq(fx.exit.addr, 0xf4);
	cr_assert(fx.exit.write);
	cr_assert_eq(fx.exit.data, 0x556677cd);
	c->pio.ready = true;
	cr_assert_eq(port(ZYDIS_MNEMONIC_OUT, true, 0xf4, 4), BT_NEXT);
	cr_assert(!c->pio.ready);
	/* ring 3: IOPL, then the bitmap */
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3f8, 1), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	c->tr.limit = 0x67 + 0x81;
	put16(FX_TSS + 102, 0x68);
	memset(fx.ram + FX_TSS + 0x68, 0xff, 0x81);
	fx.ram[FX_TSS + 0x68 + 0x7f] = 0xf0; /* 0x3f8 - 0x3fb are free */
	c->exit_pending = false;
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3f8, 4), BT_AGAIN);
	cr_assert(!c->exc.pending);
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3f8, 1), BT_AGAIN);
	cr_assert(!c->exc.pending);
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x3fa, 4), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	put16(FX_TSS + 0xe8, 0); /* free, but the second byte is beyond the limit */
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x400, 1), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x408, 1), BT_AGAIN); /* beyond the limit */
	fx_expect_fault(EXC_GP, 0);
	c->rflags |= RFLAGS_IOPL;
	cr_assert_eq(port(ZYDIS_MNEMONIC_IN, false, 0x408, 1), BT_AGAIN);
	cr_assert(!c->exc.pending);
}

Test(bt_sys, port_strings)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_INSW, 2);
	unsigned n = 0;

	i.rep = 0xf3;
	c->gpr[HV_RCX] = 3;
	c->gpr[HV_RDI] = FX_DATA + 2;
	c->gpr[HV_RDX] = 0x1f0;
	while (fx_run(&i) == BT_AGAIN) {
		cr_assert_eq(fx.exit.reason, HV_EXIT_PIO);
		cr_assert_lt(n, 3);
		c->pio.data = 0x1111 * ++n;
		c->pio.ready = true;
	}
	cr_assert_eq(n, 3);
	cr_assert_eq(ram64(FX_DATA), 0x3333222211110000ull);
	cr_assert_eq(c->gpr[HV_RDI], FX_DATA + 8);
	i = fx_insn(ZYDIS_MNEMONIC_OUTSB, 1);
	i.rep = 0xf3;
	c->gpr[HV_RCX] = 2;
	c->gpr[HV_RSI] = FX_DATA + 3;
	n = 0;
	while (fx_run(&i) == BT_AGAIN) {
		cr_assert_eq(fx.exit.data, n ? 0x22 : 0x11);
		cr_assert_lt(n++, 2);
		c->pio.ready = true;
	}
	cr_assert_eq(n, 2);
	/* a fault on the destination comes before the port is read */
	i = fx_insn(ZYDIS_MNEMONIC_INSD, 4);
	c->gpr[HV_RDI] = 0x600000;
	c->exit_pending = false;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	cr_assert(!c->exit_pending);
	fx_expect_fault(EXC_PF, PF_W);
}

/* Against the SDM's own definition, over every al, CF and AF. */
Test(bt_sys, decimal)
{
	struct bt_cpu *c = fx_protected();

	for (unsigned k = 0; k < 1024; k++) {
		uint8_t old = (uint8_t)k, al = old;
		bool cf = k & 256, af = k & 512, ncf = false, naf = false;

		c->gpr[HV_RAX] = 0x4400 | old;
		c->rflags = RFLAGS_FIXED | (cf ? RFLAGS_CF : 0) | (af ? RFLAGS_AF : 0);
		if ((al & 15) > 9 || af) {
			ncf = cf || (al + 6 > 255);
			al = (uint8_t)(al + 6);
			naf = true;
		}
		if (old > 0x99 || cf) {
			al = (uint8_t)(al + 0x60);
			ncf = true;
		}
		cr_assert_eq(op0(ZYDIS_MNEMONIC_DAA, 4), BT_NEXT);
		cr_assert_eq(c->gpr[HV_RAX], 0x4400u | al);
		cr_assert_eq(!!(c->rflags & RFLAGS_CF), ncf);
		cr_assert_eq(!!(c->rflags & RFLAGS_AF), naf);
		cr_assert_eq(!!(c->rflags & RFLAGS_ZF), al == 0);
	}
}

Test(bt_sys, frames)
{
	struct bt_cpu *c = fx_protected();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_ENTER, 4);
	uint64_t sp = c->gpr[HV_RSP];

	c->gpr[HV_RBP] = FX_DATA + 0x100;
	put32(FX_DATA + 0xfc, 0xaaaa);
	fx_op(&i, 3, 0, 2, 0x20);
	fx_op(&i, 3, 0, 1, 2);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(ram32(sp - 4), FX_DATA + 0x100);
	cr_assert_eq(ram32(sp - 8), 0xaaaa);
	cr_assert_eq(ram32(sp - 12), sp - 4);
	cr_assert_eq(c->gpr[HV_RBP], sp - 4);
	cr_assert_eq(c->gpr[HV_RSP], sp - 12 - 0x20);
	cr_assert_eq(op0(ZYDIS_MNEMONIC_LEAVE, 4), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RSP], sp);
	cr_assert_eq(c->gpr[HV_RBP], FX_DATA + 0x100);
	for (unsigned k = 0; k < 8; k++)
		c->gpr[k] = k == HV_RSP ? sp : 0x100 + k;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_PUSHAD, 4), BT_NEXT);
	cr_assert_eq(ram32(sp - 20), sp);
	cr_assert_eq(ram32(sp - 32), 0x100 + HV_RDI);
	for (unsigned k = 0; k < 8; k++)
		if (k != HV_RSP)
			c->gpr[k] = 0;
	cr_assert_eq(op0(ZYDIS_MNEMONIC_POPAD, 4), BT_NEXT);
	for (unsigned k = 0; k < 8; k++)
		cr_assert_eq(c->gpr[k], k == HV_RSP ? sp : 0x100 + k);
}

/* Every field of the snapshot survives a round trip through a fresh CPU. */
Test(bt_sys, state)
{
	static struct hv_cpu_state a, b;
	struct bt_cpu *c = fx_long();
	struct rng r = { 3 };

	for (unsigned k = 0; k < 16; k++)
		c->gpr[k] = rng_next(&r);
	for (unsigned k = 160; k < 416; k++)
		c->fx[k] = (uint8_t)rng_next(&r);
	c->fs_base = 0x7f1234567000;
	c->kernel_gs_base = 0xffff888000000000;
	c->star = 0x23001000000000;
	c->lstar = 0xffffffff81000000;
	c->tsc_aux = 0x1001;
	c->tsc_offset = rng_next(&r);
	c->nmi_blocked = true;
	c->irq_shadow = true;
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	fx_ring(c, 3, SEL_U64);
	bt_page_fault(c, 0x1234000, PF_U);
	bt_state_get(c, &a);
	cr_assert_eq(a.event_type, 3);
	cr_assert_eq(a.cr2, 0x1234000);
	bt_cpu_reset(c);
	cr_assert(!c->exc.pending);
	cr_assert_eq(bt_state_set(c, &a), 0);
	bt_state_get(c, &b);
	cr_assert_arr_eq((uint8_t *)&a, (uint8_t *)&b, sizeof(a));
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->mode, BT_MODE_CODE64 | BT_MODE_USER | BT_MODE_FLAT);

#define BAD(change)                                                  \
	do {                                                         \
		b = a;                                               \
		change;                                              \
		cr_assert_eq(bt_state_set(c, &b), -EINVAL, #change); \
	} while (0)
	BAD(b.cr0 &= ~CR0_PE);
	BAD(b.cr4 &= ~CR4_PAE);
	BAD(b.cr4 |= 1u << 20);
	BAD(b.efer &= ~EFER_LMA);
	BAD(b.rip = 1ull << 47);
	BAD(b.rflags |= RFLAGS_VM);
	BAD(b.rflags = 0);
	BAD(b.lstar = 1ull << 50);
	BAD(b.xcr0 = 7);
	BAD(b.fxsave[27] = 0x80);
	BAD(b.cr3 |= 1ull << 50);
	bt_state_get(c, &b);
	cr_assert_arr_eq((uint8_t *)&a, (uint8_t *)&b, sizeof(a),
			 "a refused state changes nothing");
}
