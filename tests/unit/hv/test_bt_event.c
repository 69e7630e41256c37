/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions and interrupts of the bt engine: frames, stacks, error codes, double and triple
 * faults. */
#include "bt_fixture.h"

#define HANDLER 0x40123456ull

static void user_at(uint64_t rip, uint64_t rsp)
{
	fx_ring(fx.c, 3, SEL_U64);
	fx.c->rip = rip;
	fx.c->gpr[HV_RSP] = rsp;
}

Test(bt_event, same_ring_fault_with_error_code)
{
	struct bt_cpu *c = fx_long();
	uint64_t sp = FX_STACK0 - 0x108;

	fx_gate64(EXC_GP, SEL_K64, 0xffffffff81000000ull, SYS_INT, 0, 0);
	c->gpr[HV_RSP] = sp;
	c->rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF | RFLAGS_CF | RFLAGS_NT;
	bt_mode_update(c);
	bt_exception_error(c, EXC_GP, 0x18);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->rip, 0xffffffff81000000ull);
	cr_assert(!c->exc.pending);
	sp &= ~0xfull; /* aligned before the frame */
	cr_assert_eq(c->gpr[HV_RSP], sp - 48);
	cr_assert_eq(ram64(sp - 48), 0x18);
	cr_assert_eq(ram64(sp - 40), 0x5000);
	cr_assert_eq(ram64(sp - 32), SEL_K64);
	cr_assert_eq(ram64(sp - 24),
		     RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF | RFLAGS_CF | RFLAGS_NT | RFLAGS_RF);
	cr_assert_eq(ram64(sp - 16), FX_STACK0 - 0x108);
	cr_assert_eq(ram64(sp - 8), SEL_KDATA);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_CF);
	cr_assert(!(c->mode & BT_MODE_SINGLE));
}

Test(bt_event, interrupt_from_user_takes_rsp0)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(0x40, SEL_K64, HANDLER, SYS_INT, 0, 0);
	user_at(0x7000, FX_USTACK - 24);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	c->irq_shadow = true;
	cr_assert_eq(bt_event_interrupt(c, 0x40, false), BT_OK);
	cr_assert_eq(c->cpl, 0);
	cr_assert_eq(c->seg[HV_CS].sel, SEL_K64);
	cr_assert_eq(c->seg[HV_SS].sel, 0, "null SS with the new RPL");
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 40);
	cr_assert_eq(ram64(FX_STACK0 - 8), SEL_UDATA | 3);
	cr_assert_eq(ram64(FX_STACK0 - 16), FX_USTACK - 24);
	cr_assert_eq(ram64(FX_STACK0 - 24), RFLAGS_FIXED | RFLAGS_IF, "no RF for an interrupt");
	cr_assert_eq(ram64(FX_STACK0 - 32), SEL_U64 | 3);
	cr_assert_eq(ram64(FX_STACK0 - 40), 0x7000);
	cr_assert(!(c->rflags & RFLAGS_IF));
	cr_assert(!c->irq_shadow);
	cr_assert(!(c->mode & BT_MODE_USER));
	cr_assert(!c->nmi_blocked);
}

Test(bt_event, trap_gate_and_ist)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(EXC_NMI, SEL_K64, HANDLER, SYS_TRAP, 0, 1);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	cr_assert_eq(bt_event_interrupt(c, 0, true), BT_OK);
	cr_assert(c->nmi_blocked);
	cr_assert(c->rflags & RFLAGS_IF);
	cr_assert_eq(c->gpr[HV_RSP], FX_IST1 - 40);
	cr_assert_eq(ram64(FX_IST1 - 8), SEL_KDATA);
	cr_assert_eq(c->seg[HV_SS].sel, SEL_KDATA, "no change of ring: SS stays");
}

Test(bt_event, page_fault_sets_cr2)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(EXC_PF, SEL_K64, HANDLER, SYS_INT, 0, 0);
	user_at(0x7000, FX_USTACK);
	bt_page_fault(c, 0xdead000, PF_U | PF_W);
	cr_assert_eq(c->cr2, 0);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->cr2, 0xdead000);
	cr_assert_eq(ram64(FX_STACK0 - 48), PF_U | PF_W);
}

Test(bt_event, soft_interrupts)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_INT, 8);

	fx_op(&i, 3, 0, 1, 0x80);
	fx_gate64(0x80, SEL_K64, HANDLER, SYS_TRAP, 3, 0);
	fx_gate64(0x81, SEL_K64, HANDLER, SYS_TRAP, 0, 0);
	user_at(0x7000, FX_USTACK);
	i.next_rip = 0x7002;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, HANDLER);
	cr_assert_eq(ram64(FX_STACK0 - 40), 0x7002);
	user_at(0x7000, FX_USTACK);
	i.op[0].imm = 0x81; /* DPL 0 */
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0x81 * 8 + 2);
	cr_assert_eq(c->rip, 0x7000);
	/* the same gate is fine for an external interrupt */
	cr_assert_eq(bt_event_interrupt(c, 0x81, false), BT_OK);
	/* and int1 does not look at the DPL */
	fx_gate64(EXC_DB, SEL_K64, HANDLER, SYS_INT, 0, 0);
	user_at(0x7000, FX_USTACK);
	i.mnemonic = ZYDIS_MNEMONIC_INT1;
	cr_assert_eq(fx_run(&i), BT_BRANCH);
}

Test(bt_event, gate_errors)
{
	struct bt_cpu *c = fx_long();
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_INT, 8);

	fx_op(&i, 3, 0, 1, 0x30);
	cr_assert_eq(fx_run(&i), BT_AGAIN); /* no gate */
	fx_expect_fault(EXC_GP, 0x30 * 8 + 2);
	fx_gate64(0x30, SEL_K64, HANDLER, SYS_INT, 3, 0);
	fx.ram[FX_IDT + 16 * 0x30 + 5] &= 0x7f;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_NP, 0x30 * 8 + 2);
	fx_gate64(0x30, 0, HANDLER, SYS_INT, 3, 0);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	fx_gate64(0x30, SEL_KDATA, HANDLER, SYS_INT, 3, 0);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_KDATA);
	fx_gate64(0x30, SEL_K32, HANDLER, SYS_INT, 3, 0); /* not 64-bit */
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, SEL_K32);
	fx_gate64(0x30, SEL_K64, 1ull << 47, SYS_INT, 3, 0); /* not canonical */
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	fx_gate64(0x30, SEL_K64, HANDLER, SYS_INT, 3, 0);
	c->idt_limit = 0x30 * 16 + 14;
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0x30 * 8 + 2);
	c->idt_limit = 0xfff;
	c->gpr[HV_RSP] = (1ull << 47) + 0x100; /* stack not canonical */
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_SS, 0);
	cr_assert_eq(c->gpr[HV_RSP], (1ull << 47) + 0x100);
	cr_assert_eq(c->rip, 0x5000);
}

Test(bt_event, double_fault)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(EXC_DF, SEL_K64, HANDLER, SYS_INT, 0, 1);
	/* #GP whose gate is missing: #GP during #GP */
	bt_exception_error(c, EXC_GP, 0);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->rip, HANDLER);
	cr_assert_eq(c->gpr[HV_RSP], FX_IST1 - 48);
	cr_assert_eq(ram64(FX_IST1 - 48), 0);
	cr_assert_eq(ram64(FX_IST1 - 40), 0x5000);
}

Test(bt_event, page_fault_on_the_stack_of_a_page_fault)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(EXC_PF, SEL_K64, HANDLER + 1, SYS_INT, 0, 0);
	fx_gate64(EXC_DF, SEL_K64, HANDLER, SYS_INT, 0, 1);
	c->gpr[HV_RSP] = 0x600000; /* not mapped */
	bt_page_fault(c, 0x123000, PF_W);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->rip, HANDLER);
	cr_assert_eq(c->cr2, 0x600000 - 8);
}

Test(bt_event, benign_then_fault_is_serial)
{
	struct bt_cpu *c = fx_long();

	/* #UD whose handler's stack is not there: #PF is delivered, on its own stack */
	fx_gate64(EXC_UD, SEL_K64, HANDLER + 1, SYS_INT, 0, 0);
	fx_gate64(EXC_PF, SEL_K64, HANDLER, SYS_INT, 0, 1);
	c->gpr[HV_RSP] = 0x600000;
	bt_exception(c, EXC_UD);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->rip, HANDLER);
	cr_assert_eq(ram64(FX_IST1 - 48), PF_W);
	cr_assert_eq(ram64(FX_IST1 - 40), 0x5000);
}

Test(bt_event, triple_fault)
{
	struct bt_cpu *c = fx_long();

	c->idt_limit = 0;
	bt_exception(c, EXC_UD);
	cr_assert_eq(bt_event_deliver(c), BT_EXIT);
	cr_assert_eq(fx.exit.reason, HV_EXIT_SHUTDOWN);
	cr_assert(c->exit_pending);
}

Test(bt_event, a_stack_page_that_is_elsewhere)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(0x40, SEL_K64, HANDLER, SYS_INT, 0, 0);
	c->gpr[HV_RSP] = FX_STACK0 + 0x10; /* the frame lies in two pages */
	for (gpa_t a = FX_STACK0 - PAGE_SIZE; a <= FX_STACK0; a += PAGE_SIZE)
		fx.right[a >> 12] = DSM_NONE;
	fx.steal_for = FX_STACK0 >> 12;
	fx.stolen = (FX_STACK0 >> 12) - 1;
	fx.steals = 2;
	cr_assert_eq(bt_event_interrupt(c, 0x40, false), BT_OK);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 + 0x10 - 40);
	cr_assert_eq(ram64(FX_STACK0 + 8), SEL_KDATA);
	cr_assert_eq(ram64(FX_STACK0 - 24), 0x5000);
	cr_assert_eq(fx.right[FX_STACK0 >> 12], DSM_WRITE);
	cr_assert_eq(fx.right[(FX_STACK0 >> 12) - 1], DSM_WRITE);
}

Test(bt_event, real_mode)
{
	struct bt_cpu *c = fx_cpu();
	struct bt_insn i;

	c->idt_limit = 0x3ff;
	put32(0x10 * 4, 0x12345678);
	c->seg[HV_CS].sel = 0x0700;
	c->seg[HV_CS].base = 0x7000;
	c->seg[HV_SS].sel = 0x9000;
	c->seg[HV_SS].base = 0x90000;
	c->gpr[HV_RSP] = 0xaaaa0002; /* wraps inside 64 KiB */
	c->rip = 0x100;
	c->rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_ZF;
	i = fx_insn(ZYDIS_MNEMONIC_INT, 2);
	i.next_rip = 0x102;
	fx_op(&i, 3, 0, 1, 0x10);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->seg[HV_CS].sel, 0x1234);
	cr_assert_eq(c->seg[HV_CS].base, 0x12340);
	cr_assert_eq(c->rip, 0x5678);
	cr_assert_eq(c->gpr[HV_RSP], 0xaaaafffc);
	cr_assert_eq(ram32(0x90000), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_ZF);
	cr_assert_eq(ram32(0x9fffc), 0x07000102);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_ZF);
	i = fx_insn(ZYDIS_MNEMONIC_IRET, 2);
	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->rip, 0x102);
	cr_assert_eq(c->seg[HV_CS].base, 0x7000);
	cr_assert_eq(c->gpr[HV_RSP], 0xaaaa0002);
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_ZF);
}

static void gate32(unsigned vector, uint16_t sel, uint32_t off, unsigned type, unsigned dpl)
{
	put64(FX_IDT + 8 * vector, (off & 0xffff) | (uint64_t)sel << 16 |
					   (uint64_t)(0x80 | dpl << 5 | type) << 40 |
					   (uint64_t)(off >> 16) << 48);
}

Test(bt_event, protected_mode)
{
	struct bt_cpu *c = fx_protected();

	gate32(EXC_GP, SEL_K32, 0x00401000, SYS_INT, 0);
	gate32(0x40, SEL_K32, 0x00402000, SYS_TRAP, 0);
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	bt_exception_error(c, EXC_GP, 0x50);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert_eq(c->rip, 0x00401000);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 0x110);
	cr_assert_eq(ram32(FX_STACK0 - 0x110), 0x50);
	cr_assert_eq(ram32(FX_STACK0 - 0x10c), 0x5000);
	cr_assert_eq(ram32(FX_STACK0 - 0x108), SEL_K32);
	cr_assert_eq(ram32(FX_STACK0 - 0x104), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF);
	/* from user: stack of the TSS, and back */
	fx_ring(c, 3, SEL_U32);
	c->rip = 0x7000;
	c->gpr[HV_RSP] = FX_USTACK;
	c->rflags = RFLAGS_FIXED | RFLAGS_IF;
	cr_assert_eq(bt_event_interrupt(c, 0x40, false), BT_OK);
	cr_assert_eq(c->gpr[HV_RSP], FX_STACK0 - 20);
	cr_assert_eq(c->seg[HV_SS].sel, SEL_KDATA);
	cr_assert_eq(c->cpl, 0);
	cr_assert_eq(ram32(FX_STACK0 - 4), SEL_UDATA | 3);
	cr_assert_eq(ram32(FX_STACK0 - 8), FX_USTACK);
	cr_assert_eq(ram32(FX_STACK0 - 20), 0x7000);

	fx_seg(c, HV_FS, SEL_KDATA);
	struct bt_insn i = fx_insn(ZYDIS_MNEMONIC_IRETD, 4);

	cr_assert_eq(fx_run(&i), BT_BRANCH);
	cr_assert_eq(c->cpl, 3);
	cr_assert_eq(c->rip, 0x7000);
	cr_assert_eq(c->gpr[HV_RSP], FX_USTACK);
	cr_assert_eq(c->seg[HV_FS].attr, 0, "segments of ring 0 are taken away");
	cr_assert_eq(c->rflags, RFLAGS_FIXED | RFLAGS_IF);
	/* a TSS stack with a selector of the wrong ring */
	put32(FX_TSS + 8, SEL_UDATA | 3);
	gate32(EXC_TS, SEL_K32, 0x00403000, SYS_INT, 3);
	i = fx_insn(ZYDIS_MNEMONIC_INT, 4);
	fx_op(&i, 3, 0, 1, EXC_TS);
	cr_assert_eq(fx_run(&i), BT_AGAIN);
	fx_expect_fault(EXC_TS, SEL_UDATA);
}

Test(bt_event, single_step)
{
	struct bt_cpu *c = fx_long();

	fx_gate64(EXC_DB, SEL_K64, HANDLER, SYS_INT, 0, 0);
	c->rflags |= RFLAGS_TF;
	bt_mode_update(c);
	cr_assert(c->mode & BT_MODE_SINGLE);
	bt_debug_step(c);
	cr_assert_eq(bt_event_deliver(c), BT_OK);
	cr_assert(c->dr[6] & 1u << 14);
	cr_assert_eq(ram64(c->gpr[HV_RSP] + 16), RFLAGS_FIXED | RFLAGS_TF, "a trap: no RF");
	cr_assert(!(c->mode & BT_MODE_SINGLE));
}
