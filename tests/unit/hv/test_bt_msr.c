/* SPDX-License-Identifier: Apache-2.0 */
/* rdmsr and wrmsr of the bt engine. */
#include "bt_fixture.h"

static enum bt_next msr(uint16_t mnemonic, uint32_t index, uint64_t v)
{
	struct bt_insn i = fx_insn(mnemonic, 4);

	fx.c->gpr[HV_RCX] = 0xdead00000000ull | index;
	if (mnemonic == ZYDIS_MNEMONIC_WRMSR) {
		fx.c->gpr[HV_RAX] = 0xdead00000000ull | (uint32_t)v;
		fx.c->gpr[HV_RDX] = 0xdead00000000ull | v >> 32;
	}
	return fx_run(&i);
}

static uint64_t rd(uint32_t index)
{
	enum bt_next n = msr(ZYDIS_MNEMONIC_RDMSR, index, 0);

	cr_assert_eq(n, BT_NEXT, "rdmsr %#x", index);
	return fx.c->gpr[HV_RDX] << 32 | fx.c->gpr[HV_RAX];
}

static bool wr(uint32_t index, uint64_t v)
{
	if (msr(ZYDIS_MNEMONIC_WRMSR, index, v) != BT_AGAIN)
		return true;
	fx_expect_fault(EXC_GP, 0);
	return false;
}

Test(bt_msr, storage)
{
	static const uint32_t any[] = { 0xc0000081, 0x1a0, 0x200, 0x20f, 0x250,
					0x258,      0x259, 0x268, 0x26f };
	static const uint32_t addresses[] = { 0x175,      0x176,      0xc0000082, 0xc0000083,
					      0xc0000100, 0xc0000101, 0xc0000102 };

	fx_long();
	for (unsigned k = 0; k < ARRAY_LEN(any); k++)
		cr_assert(wr(any[k], 0x0102030405060000ull + k), "%#x", any[k]);
	for (unsigned k = 0; k < ARRAY_LEN(any); k++)
		cr_assert_eq(rd(any[k]), 0x0102030405060000ull + k);
	for (unsigned k = 0; k < ARRAY_LEN(addresses); k++)
		cr_assert(wr(addresses[k], 0xffffffff81000000ull + k));
	for (unsigned k = 0; k < ARRAY_LEN(addresses); k++) {
		cr_assert_eq(rd(addresses[k]), 0xffffffff81000000ull + k);
		cr_assert(!wr(addresses[k], 1ull << 47));
	}
	cr_assert_eq(fx.c->seg[HV_FS].base, fx.c->fs_base);
	cr_assert_eq(fx.c->gs_base, 0xffffffff81000005ull);
}

Test(bt_msr, checks)
{
	fx_long();
	cr_assert_eq(rd(0x277), 0x0007040600070406ull);
	cr_assert(wr(0x277, 0x0107050600070406ull));
	cr_assert(!wr(0x277, 0x0207050600070406ull));
	cr_assert(!wr(0x277, 0x0807050600070406ull));
	cr_assert(wr(0x2ff, 0xc06));
	cr_assert(!wr(0x2ff, 0x1000));
	cr_assert_eq(rd(0xfe) & 0xff, 8);
	cr_assert(wr(0xc0000103, 0x1234));
	cr_assert(!wr(0xc0000103, 1ull << 32));
	cr_assert_eq(rd(0xc0000103), 0x1234);
	cr_assert(wr(0xc0000084, 0x47700));
	cr_assert_eq(rd(0xc0000084), 0x47700);
	cr_assert(!wr(0xc0000080, rd(0xc0000080) | 1u << 12)); /* no SVM */
	cr_assert(wr(0xc0000080, rd(0xc0000080) & ~EFER_SCE));
	cr_assert_eq(fx.c->efer, EFER_LME | EFER_LMA | EFER_NXE);
	cr_assert_eq(rd(0xc0010015), 1u << 24);
	cr_assert(wr(0xc0010015, 0));
	cr_assert_eq(rd(0xc0010015), 1u << 24);
	cr_assert_eq(rd(0x8b), 0);
	cr_assert_eq(rd(0x179), 0);
	cr_assert(wr(0x17a, 0));
	cr_assert(!wr(0x17a, 1));
	cr_assert_eq(rd(0xc0011029) & 2, 2);
}

Test(bt_msr, unknown)
{
	struct bt_cpu *c = fx_long();

	static const uint32_t none[] = { 0x48,       0x3a,       0x10a,      0x3b,
					 0x4b564d00, 0x4b564d01, 0xc0010000, 0x400 };

	for (unsigned k = 0; k < ARRAY_LEN(none); k++) {
		cr_assert_eq(msr(ZYDIS_MNEMONIC_RDMSR, none[k], 0), BT_AGAIN);
		fx_expect_fault(EXC_GP, 0);
		cr_assert(!wr(none[k], 0));
	}
	fx_ring(c, 3, SEL_U64);
	cr_assert_eq(msr(ZYDIS_MNEMONIC_RDMSR, 0x10, 0), BT_AGAIN);
	fx_expect_fault(EXC_GP, 0);
	cr_assert(!wr(0x277, 0x0007040600070406ull));
}

Test(bt_msr, tsc)
{
	struct bt_cpu *c = fx_long();
	uint64_t v;

	cr_assert(wr(0x10, 5000000));
	v = rd(0x10);
	cr_assert_geq(v, 5000000);
	cr_assert_lt(v, 5000000 + 100000000000ull);
	cr_assert_eq(c->tsc_offset, c->tsc_adjust);
}

Test(bt_msr, the_monitors)
{
	struct bt_cpu *c = fx_long();

	cr_assert_eq(msr(ZYDIS_MNEMONIC_RDMSR, 0x802, 0), BT_AGAIN);
	cr_assert(c->exit_pending);
	cr_assert_eq(fx.exit.reason, HV_EXIT_MSR);
	cr_assert_eq(fx.exit.addr, 0x802);
	cr_assert(!fx.exit.write);
	cr_assert_eq(c->rip, 0x5000);
	c->exit_pending = false;
	c->msr.data = 0x1234567890ull;
	c->msr.ready = true;
	cr_assert_eq(rd(0x802), 0x1234567890ull);
	cr_assert_eq(c->rip, 0x5003);
	cr_assert_eq(msr(ZYDIS_MNEMONIC_WRMSR, 0x6e0, 0x1122334455667788ull), BT_AGAIN);
	cr_assert(fx.exit.write);
	cr_assert_eq(fx.exit.data, 0x1122334455667788ull);
	c->exit_pending = false;
	c->msr.ready = true;
	cr_assert_eq(msr(ZYDIS_MNEMONIC_WRMSR, 0x6e0, 0x1122334455667788ull), BT_NEXT);
	cr_assert_eq(msr(ZYDIS_MNEMONIC_WRMSR, 0x1b, 0), BT_AGAIN);
	c->exit_pending = false;
	c->msr.ready = true;
	c->msr.fault = true;
	cr_assert_eq(msr(ZYDIS_MNEMONIC_WRMSR, 0x1b, 0), BT_AGAIN);
	cr_assert(!c->exit_pending);
	fx_expect_fault(EXC_GP, 0);
}
