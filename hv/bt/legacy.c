/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/legacy.c - small instructions of 16- and 32-bit code that are not worth translating.
 *
 * What      enter, leave, pusha, popa, bound, decimal adjustments, xlat, salc, lahf, sahf.  SDM
 * vol 2. Threads   The vCPU thread, active as a DSM reader. I/O       Guest memory only.
 */
#include "hv/bt/sysint.h"

#define AL(c) ((uint8_t)(c)->gpr[HV_RAX])
#define AH(c) ((uint8_t)((c)->gpr[HV_RAX] >> 8))

SYS_FN(bt_sys_enter)
{
	unsigned size = i->opsize, level = (unsigned)i->op[1].imm & 31;
	uint64_t bytes = i->op[0].imm & 0xffff, frame, v;
	struct stack s, at;
	enum bt_res r;

	bt_stack_current(c, &s);
	at = s;
	stack_push(&s, c->gpr[HV_RBP]);
	frame = (s.sp - size) & s.mask;
	at.sp = c->gpr[HV_RBP] & s.mask;
	for (unsigned k = 1; k < level; k++) {
		at.sp = (at.sp - size) & s.mask;
		r = bt_stack_pop(c, &at, size, &v, 1);
		if (r)
			return BT_AGAIN;
		at.sp = (at.sp - size) & s.mask;
		stack_push(&s, v);
	}
	if (level)
		stack_push(&s, frame);
	if (bt_stack_commit(c, &s, size))
		return BT_AGAIN;
	s.sp = (s.sp - bytes) & s.mask;
	reg_write(c, HV_RBP, frame, size);
	bt_stack_store_sp(c, &s);
	return next_insn(c, i);
}

SYS_FN(bt_sys_leave)
{
	struct stack s;
	uint64_t v;

	bt_stack_current(c, &s);
	s.sp = c->gpr[HV_RBP] & s.mask;
	if (bt_stack_pop(c, &s, i->opsize, &v, 1))
		return BT_AGAIN;
	bt_stack_store_sp(c, &s);
	reg_write(c, HV_RBP, v, i->opsize);
	return next_insn(c, i);
}

SYS_FN(bt_sys_pusha)
{
	struct stack s;

	bt_stack_current(c, &s);
	for (unsigned k = HV_RAX; k <= HV_RDI; k++)
		stack_push(&s, c->gpr[k]);
	if (bt_stack_commit(c, &s, i->opsize))
		return BT_AGAIN;
	bt_stack_store_sp(c, &s);
	return next_insn(c, i);
}

SYS_FN(bt_sys_popa)
{
	uint64_t v[8];
	struct stack s;

	bt_stack_current(c, &s);
	if (bt_stack_pop(c, &s, i->opsize, v, 8))
		return BT_AGAIN;
	for (unsigned k = 0; k < 8; k++)
		if (HV_RDI - k != HV_RSP)
			reg_write(c, HV_RDI - k, v[k], i->opsize);
	bt_stack_store_sp(c, &s);
	return next_insn(c, i);
}

SYS_FN(bt_sys_bound)
{
	unsigned size = i->opsize, shift = 64 - 8 * size;
	uint64_t lo = 0, hi = 0;
	int64_t index, lower, upper;
	gva_t va;
	enum bt_res r;

	r = bt_insn_mem(c, i, 0, 2 * size, BT_READ, &va);
	if (!r)
		r = bt_mem_read(c, va, &lo, size);
	if (!r)
		r = bt_mem_read(c, va + size, &hi, size);
	if (r)
		return BT_AGAIN;
	index = (int64_t)(reg_read(c, i->op[0].reg, size) << shift) >> shift;
	lower = (int64_t)(lo << shift) >> shift;
	upper = (int64_t)(hi << shift) >> shift;
	if (index < lower || index > upper)
		return fault(c, EXC_BR);
	return next_insn(c, i);
}

/* --- decimal --- */
static void set_flags(struct bt_cpu *c, uint32_t which, uint32_t value)
{
	c->rflags = (c->rflags & ~(uint64_t)which) | (value & which);
}

/* SF, ZF, PF of al. */
static uint32_t szp(uint8_t al)
{
	return (al & 0x80 ? RFLAGS_SF : 0) | (al ? 0 : RFLAGS_ZF) |
	       (__builtin_parity(al) ? 0 : RFLAGS_PF);
}

static enum bt_next decimal(struct bt_cpu *c, const struct bt_insn *i, bool sub)
{
	uint8_t old = AL(c), al = old;
	bool cf = c->rflags & RFLAGS_CF, af = c->rflags & RFLAGS_AF, carry = false;

	if ((al & 0xf) > 9 || af) {
		carry = cf || (sub ? al < 6 : al > 0xf9);
		al = (uint8_t)(sub ? al - 6 : al + 6);
		af = true;
	}
	if (old > 0x99 || cf) {
		al = (uint8_t)(sub ? al - 0x60 : al + 0x60);
		carry = true;
	}
	reg_write(c, HV_RAX, al, 1);
	set_flags(c, RFLAGS_ARITH & ~RFLAGS_OF,
		  szp(al) | (carry ? RFLAGS_CF : 0) | (af ? RFLAGS_AF : 0));
	return next_insn(c, i);
}

SYS_FN(bt_sys_daa)
{
	return decimal(c, i, false);
}
SYS_FN(bt_sys_das)
{
	return decimal(c, i, true);
}

static enum bt_next ascii(struct bt_cpu *c, const struct bt_insn *i, int step)
{
	uint16_t ax = (uint16_t)c->gpr[HV_RAX];
	bool adjust = (ax & 0xf) > 9 || (c->rflags & RFLAGS_AF);

	if (adjust)
		ax = (uint16_t)(ax + step);
	reg_write(c, HV_RAX, ax & 0xff0f, 2);
	set_flags(c, RFLAGS_AF | RFLAGS_CF, adjust ? RFLAGS_AF | RFLAGS_CF : 0);
	return next_insn(c, i);
}

SYS_FN(bt_sys_aaa)
{
	return ascii(c, i, 0x106);
}
SYS_FN(bt_sys_aas)
{
	return ascii(c, i, -0x106);
}

SYS_FN(bt_sys_aam)
{
	uint8_t base = i->nops ? (uint8_t)i->op[0].imm : 10, al = AL(c);

	if (!base)
		return fault(c, EXC_DE);
	reg_write(c, HV_RAX, (uint64_t)(al / base) << 8 | al % base, 2);
	set_flags(c, RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF, szp((uint8_t)(al % base)));
	return next_insn(c, i);
}

SYS_FN(bt_sys_aad)
{
	uint8_t base = i->nops ? (uint8_t)i->op[0].imm : 10, al = (uint8_t)(AL(c) + AH(c) * base);

	reg_write(c, HV_RAX, al, 2);
	set_flags(c, RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF, szp(al));
	return next_insn(c, i);
}

/* --- the rest --- */
SYS_FN(bt_sys_xlat)
{
	uint64_t ea = (c->gpr[HV_RBX] + AL(c)) & size_mask(i->addrsize);
	uint8_t v;
	gva_t va;

	if (bt_seg_address(c, i->seg, ea, 1, BT_READ, &va) || bt_mem_read(c, va, &v, 1))
		return BT_AGAIN;
	reg_write(c, HV_RAX, v, 1);
	return next_insn(c, i);
}

SYS_FN(bt_sys_salc)
{
	reg_write(c, HV_RAX, c->rflags & RFLAGS_CF ? 0xff : 0, 1);
	return next_insn(c, i);
}

SYS_FN(bt_sys_lahf)
{
	reg_write(c, 0x10, (c->rflags & 0xd5) | 2, 1);
	return next_insn(c, i);
}

SYS_FN(bt_sys_sahf)
{
	set_flags(c, RFLAGS_ARITH & ~RFLAGS_OF, AH(c));
	return next_insn(c, i);
}
