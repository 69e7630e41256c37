/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/segops.c - instructions on segment registers, LDT, TR and selectors.
 *
 * What      mov/push/pop with a segment register, lds and friends, lldt, ltr, sldt, str, lar, lsl,
 * verr, verw, arpl, rd/wr fs/gs base. Threads   The vCPU thread, active as a DSM reader. I/O Guest
 * memory only.
 */
#include "hv/bt/sysint.h"

/* Translation mode may have changed with the segment. */
static enum bt_next seg_loaded(struct bt_cpu *c, const struct bt_insn *i, enum hv_sreg which)
{
	uint32_t old = c->mode;

	bt_mode_update(c);
	if (which == HV_SS) {
		c->irq_shadow = true;
		return branch_insn(c, i);
	}
	return c->mode != old ? branch_insn(c, i) : next_insn(c, i);
}

/* mov with a segment register; those with control and debug registers are in control.c. */
SYS_FN(bt_sys_mov)
{
	uint64_t v;
	enum bt_res r;

	if (i->op[0].kind == 5 || i->op[1].kind == 5)
		return bt_sys_mov_cr(c, i);
	if (i->op[0].kind == 6 || i->op[1].kind == 6)
		return bt_sys_mov_dr(c, i);
	if (i->op[1].kind == 4) {
		unsigned size = i->op[0].kind == 1 ? i->op[0].size : 2;

		r = bt_op_write(c, i, 0, size, c->seg[i->op[1].reg].sel);
		return r ? BT_AGAIN : next_insn(c, i);
	}
	if (i->op[0].kind != 4 || i->op[0].reg == HV_CS)
		return fault(c, EXC_UD);
	r = bt_op_read(c, i, 1, 2, &v);
	if (!r)
		r = bt_seg_load(c, i->op[0].reg, (uint16_t)v);
	return r ? BT_AGAIN : seg_loaded(c, i, i->op[0].reg);
}

SYS_FN(bt_sys_push)
{
	struct stack s;

	if (i->op[0].kind != 4)
		return fault(c, EXC_UD);
	bt_stack_current(c, &s);
	stack_push(&s, c->seg[i->op[0].reg].sel);
	if (bt_stack_commit(c, &s, i->opsize))
		return BT_AGAIN;
	bt_stack_store_sp(c, &s);
	return next_insn(c, i);
}

SYS_FN(bt_sys_pop)
{
	struct stack s;
	uint64_t v;

	if (i->op[0].kind != 4 || i->op[0].reg == HV_CS)
		return fault(c, EXC_UD);
	bt_stack_current(c, &s);
	if (bt_stack_pop(c, &s, i->opsize, &v, 1) || bt_seg_load(c, i->op[0].reg, (uint16_t)v))
		return BT_AGAIN;
	/* as wide as the stack was when it was read */
	bt_stack_store_sp(c, &s);
	return seg_loaded(c, i, i->op[0].reg);
}

/* lds, les, lfs, lgs, lss: op 0 is the register, the mnemonic's segment is told apart in sys.c. */
static enum bt_next load_far_pointer(struct bt_cpu *c, const struct bt_insn *i, enum hv_sreg which)
{
	uint64_t off = 0, sel = 0;
	gva_t va;
	enum bt_res r;

	if (i->op[1].kind != 2)
		return fault(c, EXC_UD);
	r = bt_insn_mem(c, i, 0, i->opsize + 2u, BT_READ, &va);
	if (!r)
		r = bt_mem_read(c, va, &off, i->opsize);
	if (!r)
		r = bt_mem_read(c, va + i->opsize, &sel, 2);
	if (!r)
		r = bt_seg_load(c, which, (uint16_t)sel);
	if (r)
		return BT_AGAIN;
	reg_write(c, i->op[0].reg, off, i->opsize);
	if (which == HV_SS) { /* lss has no interrupt shadow of its own */
		bt_mode_update(c);
		return branch_insn(c, i);
	}
	return seg_loaded(c, i, which);
}

SYS_FN(bt_sys_lds)
{
	return load_far_pointer(c, i, HV_DS);
}
SYS_FN(bt_sys_les)
{
	return load_far_pointer(c, i, HV_ES);
}
SYS_FN(bt_sys_lfs)
{
	return load_far_pointer(c, i, HV_FS);
}
SYS_FN(bt_sys_lgs)
{
	return load_far_pointer(c, i, HV_GS);
}
SYS_FN(bt_sys_lss)
{
	return load_far_pointer(c, i, HV_SS);
}

/* --- LDT and TR --- */
static enum bt_res read_system(struct bt_cpu *c, uint16_t sel, struct desc *d)
{
	enum bt_res r;

	if (sel & 4) /* must be in the GDT */
		return res_fault(c, EXC_GP, sel & ~3u);
	r = bt_desc_read(c, sel, EXC_GP, 0, d);
	if (!r && cpu_lma(c))
		r = bt_desc_read_high(c, sel, EXC_GP, d);
	return r;
}

SYS_FN(bt_sys_lldt)
{
	struct desc d;
	uint64_t v;

	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (c->cpl != 0)
		return fault_gp0(c);
	if (bt_op_read(c, i, 0, 2, &v))
		return BT_AGAIN;
	if (!(v & ~3ull)) {
		c->ldt = (struct hv_seg){ .sel = (uint16_t)v };
		return next_insn(c, i);
	}
	if (read_system(c, (uint16_t)v, &d))
		return BT_AGAIN;
	if (desc_s(&d) || desc_type(&d) != SYS_LDT)
		return fault_error(c, EXC_GP, v & ~3u);
	if (!desc_p(&d))
		return fault_error(c, EXC_NP, v & ~3u);
	if (cpu_lma(c) && !va_canonical(desc_base(&d)))
		return fault_error(c, EXC_GP, v & ~3u);
	bt_seg_from_desc(&c->ldt, (uint16_t)v, &d);
	return next_insn(c, i);
}

SYS_FN(bt_sys_ltr)
{
	struct desc d;
	unsigned type;
	uint64_t v;

	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (c->cpl != 0)
		return fault_gp0(c);
	if (bt_op_read(c, i, 0, 2, &v))
		return BT_AGAIN;
	if (!(v & ~3ull))
		return fault_gp0(c);
	if (read_system(c, (uint16_t)v, &d))
		return BT_AGAIN;
	type = desc_type(&d);
	if (desc_s(&d) || (type != SYS_TSS && (type != SYS_TSS16 || cpu_lma(c))))
		return fault_error(c, EXC_GP, v & ~3u);
	if (!desc_p(&d))
		return fault_error(c, EXC_NP, v & ~3u);
	if (cpu_lma(c) && !va_canonical(desc_base(&d)))
		return fault_error(c, EXC_GP, v & ~3u);
	if (bt_mem_or8(c, d.addr + 5, 2, AS_SYSTEM)) /* busy */
		return BT_AGAIN;
	d.raw |= 2ull << 40;
	bt_seg_from_desc(&c->tr, (uint16_t)v, &d);
	return next_insn(c, i);
}

static enum bt_next store_selector(struct bt_cpu *c, const struct bt_insn *i, uint16_t sel)
{
	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (bt_op_write(c, i, 0, i->op[0].kind == 1 ? i->op[0].size : 2, sel))
		return BT_AGAIN;
	return next_insn(c, i);
}

SYS_FN(bt_sys_sldt)
{
	return store_selector(c, i, c->ldt.sel);
}
SYS_FN(bt_sys_str)
{
	return store_selector(c, i, c->tr.sel);
}

/* --- lar, lsl, verr, verw: ZF says whether the selector may be seen --- */
static enum bt_next set_zf(struct bt_cpu *c, const struct bt_insn *i, bool zf)
{
	c->rflags = (c->rflags & ~(uint64_t)RFLAGS_ZF) | (zf ? RFLAGS_ZF : 0);
	return next_insn(c, i);
}

/* BT_OK with *seen false: outside the table or null, which is not a fault here. */
static enum bt_res look_at(struct bt_cpu *c, uint16_t sel, struct desc *d, bool *seen)
{
	uint32_t limit = sel & 4 ? c->ldt.limit : c->gdt_limit;
	enum bt_res r;

	*seen = false;
	if (!(sel & ~3u) || (sel | 7u) > limit || ((sel & 4) && !(c->ldt.attr & ATTR_P)))
		return BT_OK;
	r = bt_desc_read(c, sel, EXC_GP, 0, d);
	if (r)
		return r;
	*seen = true;
	return BT_OK;
}

static bool may_see(const struct bt_cpu *c, uint16_t sel, const struct desc *d)
{
	if (desc_code(d) && desc_conforming(d))
		return true;
	return desc_dpl(d) >= c->cpl && desc_dpl(d) >= (sel & 3u);
}

static enum bt_next lar_lsl(struct bt_cpu *c, const struct bt_insn *i, bool lsl)
{
	/* system types that lar and lsl answer for; long mode has fewer */
	static const uint16_t lar_types = 0x1a3e, lar_types64 = 0x1a04, lsl_types = 0x0a0e,
			      lsl_types64 = 0x0a04;
	uint16_t types = lsl ? (cpu_lma(c) ? lsl_types64 : lsl_types)
			     : (cpu_lma(c) ? lar_types64 : lar_types);
	struct desc d;
	uint64_t v;
	bool seen;

	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (bt_op_read(c, i, 1, 2, &v) || look_at(c, (uint16_t)v, &d, &seen))
		return BT_AGAIN;
	if (!seen || !may_see(c, (uint16_t)v, &d) || (!desc_s(&d) && !(types >> desc_type(&d) & 1)))
		return set_zf(c, i, false);
	reg_write(c, i->op[0].reg, lsl ? desc_limit(&d) : (d.raw >> 32) & 0x00ffff00u, i->opsize);
	return set_zf(c, i, true);
}

SYS_FN(bt_sys_lar)
{
	return lar_lsl(c, i, false);
}
SYS_FN(bt_sys_lsl)
{
	return lar_lsl(c, i, true);
}

static enum bt_next ver(struct bt_cpu *c, const struct bt_insn *i, bool write)
{
	struct desc d;
	uint64_t v;
	bool seen, ok;

	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (bt_op_read(c, i, 0, 2, &v) || look_at(c, (uint16_t)v, &d, &seen))
		return BT_AGAIN;
	if (!seen || !desc_s(&d) || !may_see(c, (uint16_t)v, &d))
		return set_zf(c, i, false);
	if (write)
		ok = desc_data(&d) && (desc_type(&d) & TYPE_RW);
	else
		ok = desc_data(&d) || (desc_type(&d) & TYPE_RW);
	return set_zf(c, i, ok);
}

SYS_FN(bt_sys_verr)
{
	return ver(c, i, false);
}
SYS_FN(bt_sys_verw)
{
	return ver(c, i, true);
}

SYS_FN(bt_sys_arpl)
{
	uint64_t dst, src;

	if (cpu_real(c))
		return fault(c, EXC_UD);
	if (bt_op_read(c, i, 0, 2, &dst) || bt_op_read(c, i, 1, 2, &src))
		return BT_AGAIN;
	if ((dst & 3) >= (src & 3))
		return set_zf(c, i, false);
	if (bt_op_write(c, i, 0, 2, (dst & ~3ull) | (src & 3)))
		return BT_AGAIN;
	return set_zf(c, i, true);
}

/* --- rdfsbase and friends --- */
static enum bt_next base_access(struct bt_cpu *c, const struct bt_insn *i, enum hv_sreg which,
				bool write)
{
	uint64_t *base = which == HV_FS ? &c->fs_base : &c->gs_base;
	uint64_t v;

	if (!cpu_code64(c) || !(c->cr4 & CR4_FSGSBASE))
		return fault(c, EXC_UD);
	if (!write) {
		reg_write(c, i->op[0].reg, *base, i->opsize);
		return next_insn(c, i);
	}
	v = reg_read(c, i->op[0].reg, i->opsize);
	if (!va_canonical(v))
		return fault_gp0(c);
	*base = v;
	c->seg[which].base = v;
	return next_insn(c, i);
}

SYS_FN(bt_sys_rdfsbase)
{
	return base_access(c, i, HV_FS, false);
}
SYS_FN(bt_sys_rdgsbase)
{
	return base_access(c, i, HV_GS, false);
}
SYS_FN(bt_sys_wrfsbase)
{
	return base_access(c, i, HV_FS, true);
}
SYS_FN(bt_sys_wrgsbase)
{
	return base_access(c, i, HV_GS, true);
}
