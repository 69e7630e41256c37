/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, descriptors and far control transfers of the bt engine. */
#include "bt_fixture.h"

static enum bt_next mov_sreg(enum hv_sreg which, uint16_t sel)
{
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_MOV, 4);

	fx.c->gpr[HV_RAX] = sel;
	fx_op(&i, 4, which, 2, 0);
	fx_op(&i, 1, HV_RAX, 4, 0);
	return fx_run(&i);
}

Test(bt_seg, loads)
{
	struct bt_cpu *c = fx_long();

	c->fs_base = 0x1234;
	cr_assert_eq(mov_sreg(HV_FS, 0), BT_NEXT);
	cr_assert_eq(c->seg[HV_FS].attr, 0);
	cr_assert_eq(c->fs_base, 0);
	cr_assert_eq(c->rip, 0x5003);
	cr_assert_eq(mov_sreg(HV_DS, SEL_UDATA | 3), BT_NEXT);
	cr_assert_eq(c->seg[HV_DS].sel, SEL_UDATA | 3);
	cr_assert_eq(mov_sreg(HV_DS, SEL_KDATA | 3), BT_AGAIN); /* RPL 3 > DPL 0 */
	fx_expect_fault(EXC_GP, SEL_KDATA);
	cr_assert_eq(mov_sreg(HV_DS, SEL_TSS), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_TSS);
	cr_assert_eq(mov_sreg(HV_DS, SEL_NP | 3), BT_AGAIN);
	fx_expect_fault(EXC_NP, SEL_NP);
	cr_assert_eq(mov_sreg(HV_DS, 0x88), BT_AGAIN); /* beyond the table */
	fx_expect_fault(EXC_GP, 0x88);
	cr_assert_eq(mov_sreg(HV_DS, SEL_UDATA | 4), BT_AGAIN); /* no LDT */
	fx_expect_fault(EXC_GP, SEL_UDATA | 4);
	cr_assert_eq(mov_sreg(HV_SS, SEL_KDATA), BT_BRANCH);
	cr_assert(c->irq_shadow);
	cr_assert_eq(mov_sreg(HV_SS, 0), BT_BRANCH); /* null SS in 64-bit ring 0 */
	cr_assert_eq(mov_sreg(HV_SS, SEL_RODATA), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_RODATA);
	cr_assert_eq(mov_sreg(HV_SS, SEL_UDATA | 3), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_UDATA);
	put64(FX_GDT + SEL_FREE, DESC_KDATA & ~(1ull << 47));
	cr_assert_eq(mov_sreg(HV_SS, SEL_FREE), BT_AGAIN);
	fx_expect_fault(EXC_SS, SEL_FREE);
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(mov_sreg(HV_SS, 0), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(mov_sreg(HV_DS, SEL_KDATA), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_KDATA);
}

Test(bt_seg, accessed_bit_needs_a_write)
{
	struct bt_cpu *c = fx_long();

	cr_assert_eq(c->tlb[0].tag_write[tlb_index(FX_GDT)], BT_TLB_NONE);
	fx.right[FX_GDT >> 12] = DSM_READ;
	cr_assert_eq(mov_sreg(HV_ES, SEL_KDATA), BT_NEXT); /* accessed already */
	cr_assert_eq(fx.acquires, 0);
	put64(FX_GDT + SEL_FREE, DESC_UDATA & ~(1ull << 40));
	cr_assert_eq(mov_sreg(HV_ES, SEL_FREE), BT_NEXT);
	cr_assert_eq(fx.acquired[FX_GDT >> 12][DSM_WRITE], 1);
	cr_assert_eq(ram64(FX_GDT + SEL_FREE), DESC_UDATA);
	cr_assert_eq(c->seg[HV_ES].attr, 0xc0f3);
}

Test(bt_seg, hidden_parts)
{
	struct bt_cpu *c = fx_protected();

	put64(FX_GDT + SEL_FREE, 0x12409334567800ffull); /* base 0x12345678, limit 0x000ff bytes */
	cr_assert_eq(mov_sreg(HV_GS, SEL_FREE), BT_NEXT);
	cr_assert_eq(c->seg[HV_GS].base, 0x12345678);
	cr_assert_eq(c->gs_base, 0x12345678);
	cr_assert_eq(c->seg[HV_GS].limit, 0xff);
	cr_assert_eq(c->seg[HV_GS].attr, 0x4093);
	cr_assert_eq(mov_sreg(HV_DS, SEL_FREE), BT_BRANCH);
	cr_assert(!(c->mode & BT_MODE_FLAT));
	cr_assert_eq(c->seg[HV_CS].limit, 0xffffffff);

	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_LGDT, 4);
	gva_t va;

	fx_mem(&i, 0xfc, 4);
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_OK);
	cr_assert_eq(va, 0x12345774);
	i.disp = 0xfd;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_FAULT);
	fx_expect_fault(EXC_GP, 0);
	bt_seg_null(c, HV_DS, 0);
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_FAULT);
	fx_expect_fault(EXC_GP, 0);
	/* expand-down: offsets above the limit */
	put64(FX_GDT + SEL_FREE, 0x0040970000000fffull);
	cr_assert_eq(mov_sreg(HV_SS, SEL_FREE), BT_BRANCH);
	i.seg = HV_SS;
	i.disp = 0x1000;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_OK);
	i.disp = 0xfff;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_FAULT);
	fx_expect_fault(EXC_SS, 0);
}

Test(bt_seg, linear_address)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_INVLPG, 8);
	gva_t va;

	fx_mem(&i, 0x10, 8);
	c->gpr[HV_RBX] = 0x7fffffffff00;
	c->gpr[HV_R9] = 0x20;
	i.base = HV_RBX;
	i.index = HV_R9;
	i.scale = 4;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_OK);
	cr_assert_eq(va, 0x7fffffffff90);
	i.scale = 8;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_FAULT);
	fx_expect_fault(EXC_GP, 0);
	i.seg = HV_SS;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_FAULT);
	fx_expect_fault(EXC_SS, 0);
	i.seg = HV_GS;
	c->gs_base = 0xffff888000000000ull - 0x800000000000ull;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_OK);
	i.addrsize = 4;
	c->gs_base = 0x1000;
	cr_assert_eq(bt_seg_linear(c, &i, &va), BT_OK);
	cr_assert_eq(va, 0x1000 + 0x00000010);
}

Test(bt_seg, ltr_and_lldt)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_LTR, 2);

	c->gpr[HV_RAX] = SEL_TSS;
	fx_op(&i, 1, HV_RAX, 2, 0);
	put64(FX_GDT + SEL_TSS + 8, 0xffff8880);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->tr.base, 0xffff888000000000ull | FX_TSS);
	cr_assert_eq(c->tr.attr, 0x8b);
	cr_assert_eq(c->tr.limit, 0x67);
	cr_assert_eq(fx.ram[FX_GDT + SEL_TSS + 5], 0x8b);
	cr_assert_eq(fx_run(&i), BT_AGAIN); /* busy */
	fx_expect_fault(EXC_GP, SEL_TSS);
	i.mnemonic = ZYDIS_MNEMONIC_LLDT;
	c->gpr[HV_RAX] = SEL_LDT;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->ldt.base, 0x3000);
	cr_assert_eq(c->ldt.limit, 0xfff);
	put64(0x3000 + 8, DESC_UDATA);
	cr_assert_eq(mov_sreg(HV_DS, 8 | 4 | 3), BT_NEXT);
	c->gpr[HV_RAX] = 0;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(mov_sreg(HV_DS, 8 | 4 | 3), BT_AGAIN);
	fx_expect_fault(EXC_GP, 8 | 4);
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_seg, lar_lsl_ver)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_LSL, 8);

	put64(FX_GDT + SEL_FREE,
	      0x0040f50000000000ull | 0x3005); /* the kernel's CPU number segment */
	fx_ring(c, 3, SEL_U64);
	c->gpr[HV_RAX] = SEL_FREE | 3;
	fx_op(&i, 1, HV_RCX, 8, 0);
	fx_op(&i, 1, HV_RAX, 4, 0);
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(c->rflags & RFLAGS_ZF);
	cr_assert_eq(c->gpr[HV_RCX], 0x3005);
	i.mnemonic = ZYDIS_MNEMONIC_LAR;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gpr[HV_RCX], 0x0040f500);
	c->gpr[HV_RAX] = SEL_KDATA;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(!(c->rflags & RFLAGS_ZF));
	cr_assert_eq(c->gpr[HV_RCX], 0x0040f500);
	i.nops = 0;
	fx_op(&i, 1, HV_RAX, 2, 0);
	c->gpr[HV_RAX] = SEL_UDATA | 3;
	i.mnemonic = ZYDIS_MNEMONIC_VERW;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(c->rflags & RFLAGS_ZF);
	c->gpr[HV_RAX] = SEL_U64 | 3;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(!(c->rflags & RFLAGS_ZF));
	i.mnemonic = ZYDIS_MNEMONIC_VERR;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(c->rflags & RFLAGS_ZF);
	c->gpr[HV_RAX] = 0;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert(!(c->rflags & RFLAGS_ZF));
}

Test(bt_seg, iretq)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_IRETQ, 8);
	uint64_t sp = FX_STACK0 - 0x80;
	uint64_t frame[5] = { 0x7000, SEL_U64 | 3,
			      RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF | RFLAGS_IOPL, FX_USTACK - 8,
			      SEL_UDATA | 3 };

	memcpy(fx.ram + sp, frame, sizeof(frame));
	c->gpr[HV_RSP] = sp;
	c->nmi_blocked = true;
	c->seg[HV_FS].attr = 0;
	c->fs_base = c->seg[HV_FS].base = 0x7f0000001000;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->rip, 0x7000);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK - 8);
	cr_assert_eq(c->seg[HV_SS].sel, SEL_UDATA | 3);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL);
	cr_assert(c->mode & BT_MODE_USER);
	cr_assert(!c->nmi_blocked);
	cr_assert_eq(c->fs_base, 0x7f0000001000, "a null selector keeps its base");
	/* user mode may not change IOPL, nor IF above it */
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	frame[2] = RFLAGS_FIXED | RFLAGS_IOPL | RFLAGS_CF;
	memcpy(fx.ram + FX_USTACK - 0x100, frame, sizeof(frame));
	c->gpr[HV_RSP] = FX_USTACK - 0x100;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
	/* and not go inwards */
	frame[1] = SEL_K64;
	memcpy(fx.ram + FX_USTACK - 0x100, frame, sizeof(frame));
	c->gpr[HV_RSP] = FX_USTACK - 0x100;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_K64);
	frame[1] = SEL_U64 | 3;
	frame[0] = 1ull << 47;
	memcpy(fx.ram + FX_USTACK - 0x100, frame, sizeof(frame));
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	frame[0] = 0x7000;
	frame[4] = 0; /* null SS for ring 3 */
	memcpy(fx.ram + FX_USTACK - 0x100, frame, sizeof(frame));
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK - 0x100);
	c->rflags |= RFLAGS_NT;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_seg, iretq_to_kernel_with_null_ss)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_IRETQ, 8);
	uint64_t frame[5] = { 0xffffffff81000000ull, SEL_K64, RFLAGS_FIXED, FX_STACK0 - 8, 0 };

	memcpy(fx.ram + FX_STACK0 - 0x80, frame, sizeof(frame));
	c->gpr[HV_RSP] = FX_STACK0 - 0x80;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, frame[0]);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 8);
	cr_assert_eq(c->seg[HV_SS].attr & ATTR_P, 0);
}

Test(bt_seg, iretq_to_compat_mode)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_IRETQ, 8);
	uint64_t frame[5] = { 0x7000, SEL_U32 | 3, RFLAGS_FIXED, 0x1234567890ull, SEL_UDATA | 3 };

	memcpy(fx.ram + FX_STACK0 - 0x80, frame, sizeof(frame));
	c->gpr[HV_RSP] = FX_STACK0 - 0x80;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE32);
	cr_assert_eq(c->gpr[HV_RSP], 0x34567890);
	cr_assert(c->mode & BT_MODE_SS32);
}

Test(bt_seg, syscall_and_sysret)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i;

	c->star = (uint64_t)SEL_K64 << 32 | (uint64_t)SEL_U32 << 48;
	c->lstar = 0xffffffff81800000ull;
	c->cstar = 0xffffffff81900000ull;
	c->sfmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_DF;
	fx_ring(c, 3, SEL_U64);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF;
	c->rip = 0x7000;
	i = fx_insn(ZYDIS_MNEMONIC_SYSCALL, 8);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, c->lstar);
	cr_assert_eq(c->gpr[HV_RCX], 0x7003);
	cr_assert_eq(c->gpr[HV_R11], RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_CF);
	cr_assert_eq(c->cpl, 0);
	cr_assert_eq(c->seg[HV_CS].sel, SEL_K64);
	cr_assert_eq(c->seg[HV_CS].attr, 0xa09b);
	cr_assert_eq(c->seg[HV_SS].sel, SEL_KDATA);
	cr_assert_eq(c->seg[HV_SS].attr, 0xc093);
	i = fx_insn(ZYDIS_MNEMONIC_SYSRET, 8);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, 0x7003);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->seg[HV_CS].sel, SEL_U64 | 3);
	cr_assert_eq(c->seg[HV_CS].attr, 0xa0fb);
	cr_assert_eq(c->seg[HV_SS].sel, SEL_UDATA | 3);
	cr_assert_eq(c->seg[HV_SS].attr, 0xc0f3);
	cr_assert_eq(fx_run(&i), BT_AGAIN); /* not from ring 3 */
	fx_expect_fault(EXC_GP, 0);
	fx_ring(c, 0, SEL_K64);
	i.opsize = 4;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->seg[HV_CS].sel, SEL_U32 | 3);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE32);
	i = fx_insn(ZYDIS_MNEMONIC_SYSCALL, 4);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, c->cstar);
	i = fx_insn(ZYDIS_MNEMONIC_SYSRET, 8);
	c->gpr[HV_RCX] = 1ull << 47;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	c->efer &= ~EFER_SCE;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_plain_fault(EXC_UD);
}

Test(bt_seg, swapgs)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_SWAPGS, 8);

	c->gs_base = 1;
	c->kernel_gs_base = 2;
	cr_assert_eq(fx_run(&i), BT_NEXT);
	cr_assert_eq(c->gs_base, 2);
	cr_assert_eq(c->kernel_gs_base, 1);
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
}

Test(bt_seg, far_jump_into_long_mode)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i;

	fx_ring(c, 0, SEL_K32);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE32);
	i = fx_insn(ZYDIS_MNEMONIC_JMP, 4);
	fx_op(&i, 7, 0, 6, (uint64_t)SEL_K64 << 32 | 0x9000);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->mode & BT_MODE_CODE, BT_MODE_CODE64);
	cr_assert_eq(c->rip, 0x9000);
	i = fx_insn(ZYDIS_MNEMONIC_JMP, 8);
	fx_mem(&i, 0x6000, 10);
	put64(0x6000, 0xffffffff81000000ull);
	put16(0x6008, SEL_K64);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, 0xffffffff81000000ull);
	put16(0x6008, SEL_UDATA);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_UDATA);
	put16(0x6008, SEL_U64 | 3); /* outwards only by ret */
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_U64);
}

Test(bt_seg, far_call_and_ret)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_CALL, 8), ret = fx_insn(ZYDIS_MNEMONIC_RET, 8);
	uint64_t sp = c->gpr[HV_RSP];

	fx_mem(&i, 0x6000, 10);
	put64(0x6000, 0x9000);
	put16(0x6008, SEL_K64);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, 0x9000);
	cr_assert_eq(c->gpr[HV_RSP], sp - 16);
	cr_assert_eq(ram64(sp - 16), 0x5003);
	cr_assert_eq(ram64(sp - 8), SEL_K64);
	cr_assert_eq(fx_run(&ret), BT_BRANCH);
	cr_assert_eq(c->rip, 0x5003);
	cr_assert_eq(c->gpr[HV_RSP], sp);
	/* to ring 3 with bytes to release on both stacks */
	put64(sp, 0x7000);
	put64(sp + 8, SEL_U64 | 3);
	put64(sp + 16 + 8, FX_USTACK - 0x40);
	put64(sp + 16 + 16, SEL_UDATA | 3);
	fx_op(&ret, 3, 0, 2, 8);
	cr_assert_eq(fx_run(&ret), BT_BRANCH);
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->rip, 0x7000);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK - 0x38);
}

Test(bt_seg, call_gate)
{
	struct bt_cpu *c = fx_protected();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_CALL, 4);

	/* two parameters, DPL 3 */
	put64(FX_GDT + SEL_FREE, 0x0040ec0000001000ull | (uint64_t)SEL_K32 << 16 | 2ull << 32);
	fx_ring(c, 3, SEL_U32);
	c->gpr[HV_RSP] = FX_USTACK - 8;
	put32(FX_USTACK - 8, 0x11);
	put32(FX_USTACK - 4, 0x22);
	fx_op(&i, 7, 0, 6, (uint64_t)(SEL_FREE | 3) << 32);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->cpl, 0);
	cr_assert_eq(c->rip, 0x00401000);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 24);
	cr_assert_eq(ram32(FX_STACK0 - 4), SEL_UDATA | 3);
	cr_assert_eq(ram32(FX_STACK0 - 8), FX_USTACK - 8);
	cr_assert_eq(ram32(FX_STACK0 - 12), 0x22);
	cr_assert_eq(ram32(FX_STACK0 - 16), 0x11);
	cr_assert_eq(ram32(FX_STACK0 - 20), SEL_U32 | 3);
	cr_assert_eq(ram32(FX_STACK0 - 24), 0x5003);
	/* the way back releases the parameters on both stacks */
	i = fx_insn(ZYDIS_MNEMONIC_RET, 4);
	fx_op(&i, 3, 0, 2, 8);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK);
}

Test(bt_seg, real_mode)
{
	struct bt_cpu *c = fx_cpu();
	struct bt_insn i;

	cr_assert(c->mode & BT_MODE_REAL);
	cr_assert_eq(mov_sreg(HV_DS, 0x1234), BT_NEXT); /* CS has a base: not flat before either */
	cr_assert_eq(c->seg[HV_DS].base, 0x12340);
	cr_assert_eq(c->seg[HV_DS].limit, 0xffff);
	i = fx_insn(ZYDIS_MNEMONIC_JMP, 2);
	fx_op(&i, 7, 0, 4, 0x0700ull << 32 | 0x10);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->seg[HV_CS].base, 0x7000);
	cr_assert_eq(c->rip, 0x10);
	i = fx_insn(ZYDIS_MNEMONIC_LLDT, 2);
	fx_op(&i, 1, HV_RAX, 2, 0);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_plain_fault(EXC_UD);
}
