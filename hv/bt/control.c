/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/control.c - control and debug registers, descriptor table registers, TLB and cache
 * instructions.
 *
 * What      SDM vol 3 chapter 2 and vol 2 (MOV CR, MOV DR, LMSW, LGDT, INVLPG ...).
 * Threads   The vCPU thread, active as a DSM reader.
 * I/O       Guest memory only.
 * Limits    CR4 takes only what CPUID shows and this engine does.  Debug registers are storage: no
 * hardware breakpoints.  Caches do not exist, so wbinvd and CR0.CD change nothing.
 */
#include "hv/bt/sysint.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)
#define DR6_ONES 0xffff0ff0u
#define DR6_KNOWN 0xe00fu
#define DR7_ONES 0x400u
#define DR7_KNOWN 0xffff23ffu
#define DR7_GD 0x2000u

/* --- control registers --- */
static enum bt_res write_cr0(struct bt_cpu *c, uint64_t v)
{
	uint64_t old = c->cr0;

	if (v >> 32)
		return res_fault(c, EXC_GP, 0);
	v = (v & CR0_KNOWN) | CR0_ET;
	if (((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		return res_fault(c, EXC_GP, 0);
	if ((v & CR0_PG) && !(old & CR0_PG) && (c->efer & EFER_LME)) {
		if (!(c->cr4 & CR4_PAE) || (c->seg[HV_CS].attr & ATTR_L))
			return res_fault(c, EXC_GP, 0);
		c->efer |= EFER_LMA;
	}
	if (!(v & CR0_PG) && (old & CR0_PG)) {
		if (cpu_code64(c))
			return res_fault(c, EXC_GP, 0);
		c->efer &= ~EFER_LMA;
	}
	c->cr0 = v;
	if ((old ^ v) & (CR0_PG | CR0_WP | CR0_PE)) {
		bt_tlb_flush_all(c);
		bt_cache_forget_all(c);
	}
	bt_mode_update(c);
	return BT_OK;
}

static enum bt_res write_cr3(struct bt_cpu *c, uint64_t v)
{
	if (cpu_lma(c) && (v & ~(c->phys_mask | 0xfff)))
		return res_fault(c, EXC_GP, 0);
	c->cr3 = v;
	bt_tlb_flush_nonglobal(c);
	bt_cache_forget_all(c);
	return BT_OK;
}

uint64_t bt_cr4_allowed(const struct bt_cpu *c)
{
	static const struct {
		uint32_t leaf;
		uint8_t reg, bit; /* reg: 0 eax .. 3 edx */
		uint64_t cr4;
	} by_cpuid[] = {
		{ 1, 3, 2, CR4_DE },      { 1, 3, 3, CR4_PSE },    { 1, 3, 4, CR4_TSD },
		{ 1, 3, 6, CR4_PAE },     { 1, 3, 7, CR4_MCE },    { 1, 3, 13, CR4_PGE },
		{ 1, 3, 24, CR4_OSFXSR }, { 1, 3, 25, CR4_OSXMM }, { 7, 1, 0, CR4_FSGSBASE },
	};
	uint64_t allowed = CR4_PCE;

	for (unsigned k = 0; k < sizeof(by_cpuid) / sizeof(by_cpuid[0]); k++)
		if (bt_cpuid_has(c, by_cpuid[k].leaf, by_cpuid[k].reg, by_cpuid[k].bit))
			allowed |= by_cpuid[k].cr4;
	return allowed;
}

static enum bt_res write_cr4(struct bt_cpu *c, uint64_t v)
{
	uint64_t old = c->cr4;

	if ((v & ~bt_cr4_allowed(c)) || (cpu_lma(c) && !(v & CR4_PAE)))
		return res_fault(c, EXC_GP, 0);
	c->cr4 = v;
	if ((old ^ v) & (CR4_PSE | CR4_PAE | CR4_PGE)) {
		bt_tlb_flush_all(c);
		bt_cache_forget_all(c);
	}
	return BT_OK;
}

static enum bt_next write_cr8(struct bt_cpu *c, const struct bt_insn *i, uint64_t v)
{
	bool lower = v < c->cr8;

	if (v > 15)
		return fault_gp0(c);
	c->cr8 = v;
	if (!lower)
		return next_insn(c, i);
	/* an interrupt may have become deliverable: let the monitor look */
	c->rip = i->next_rip;
	bt_exit(c, HV_EXIT_KICKED);
	return BT_AGAIN;
}

SYS_FN(bt_sys_mov_cr)
{
	bool write = i->op[0].kind == 5;
	unsigned cr = i->op[write ? 0 : 1].reg, gpr = i->op[write ? 1 : 0].reg,
		 size = cpu_code64(c) ? 8 : 4;
	uint64_t v = reg_read(c, gpr, size);
	enum bt_res r = BT_OK;

	if (cr != 0 && cr != 2 && cr != 3 && cr != 4 && cr != 8)
		return fault(c, EXC_UD);
	if (c->cpl != 0)
		return fault_gp0(c);
	if (!write) {
		v = cr == 0   ? c->cr0
		    : cr == 2 ? c->cr2
		    : cr == 3 ? c->cr3
		    : cr == 4 ? c->cr4
			      : c->cr8;
		reg_write(c, gpr, v, size);
		return next_insn(c, i);
	}
	switch (cr) {
	case 0:
		r = write_cr0(c, v);
		break;
	case 2:
		c->cr2 = v;
		return next_insn(c, i);
	case 3:
		r = write_cr3(c, v);
		break;
	case 4:
		r = write_cr4(c, v);
		break;
	default:
		return write_cr8(c, i, v);
	}
	return r ? BT_AGAIN : branch_insn(c, i);
}

SYS_FN(bt_sys_lmsw)
{
	uint64_t v;

	if (c->cpl != 0)
		return fault_gp0(c);
	if (bt_op_read(c, i, 0, 2, &v))
		return BT_AGAIN;
	if (write_cr0(c, (c->cr0 & ~0xeull) | (v & 0xf))) /* cannot clear PE */
		return BT_AGAIN;
	return branch_insn(c, i);
}

SYS_FN(bt_sys_smsw)
{
	unsigned size = i->op[0].kind == 1 ? i->op[0].size : 2;

	return bt_op_write(c, i, 0, size, c->cr0) ? BT_AGAIN : next_insn(c, i);
}

SYS_FN(bt_sys_clts)
{
	if (c->cpl != 0)
		return fault_gp0(c);
	if (!(c->cr0 & CR0_TS))
		return next_insn(c, i);
	c->cr0 &= ~CR0_TS;
	bt_mode_update(c);
	return branch_insn(c, i);
}

/* --- debug registers --- */
SYS_FN(bt_sys_mov_dr)
{
	bool write = i->op[0].kind == 6;
	unsigned dr = i->op[write ? 0 : 1].reg, gpr = i->op[write ? 1 : 0].reg,
		 size = cpu_code64(c) ? 8 : 4;
	uint64_t v = reg_read(c, gpr, size);

	if (dr > 7 || ((dr == 4 || dr == 5) && (c->cr4 & CR4_DE)))
		return fault(c, EXC_UD);
	if (c->cpl != 0)
		return fault_gp0(c);
	if (dr == 4 || dr == 5)
		dr += 2;
	if (c->dr[7] & DR7_GD) {
		c->dr[6] |= 1u << 13; /* BD */
		c->dr[7] &= ~(uint64_t)DR7_GD;
		return fault(c, EXC_DB);
	}
	if (!write) {
		reg_write(c, gpr, c->dr[dr], size);
		return next_insn(c, i);
	}
	if (dr >= 6 && v >> 32)
		return fault_gp0(c);
	if (dr == 6)
		v = (v & DR6_KNOWN) | DR6_ONES;
	else if (dr == 7)
		v = (v & DR7_KNOWN) | DR7_ONES;
	c->dr[dr] = v;
	return next_insn(c, i);
}

/* --- descriptor table registers --- */
static enum bt_next load_table(struct bt_cpu *c, const struct bt_insn *i, uint64_t *base,
			       uint16_t *limit)
{
	unsigned size = cpu_code64(c) ? 8 : 4;
	uint64_t b = 0;
	uint16_t l;
	gva_t va;
	enum bt_res r;

	if (c->cpl != 0)
		return fault_gp0(c);
	r = bt_insn_mem(c, i, 0, size + 2, BT_READ, &va);
	if (!r)
		r = bt_mem_read(c, va, &l, 2);
	if (!r)
		r = bt_mem_read(c, va + 2, &b, size);
	if (r)
		return BT_AGAIN;
	if (size == 8 && !va_canonical(b))
		return fault_gp0(c);
	if (size == 4 && i->opsize == 2)
		b &= 0xffffff;
	*base = b;
	*limit = l;
	return next_insn(c, i);
}

static enum bt_next store_table(struct bt_cpu *c, const struct bt_insn *i, uint64_t base,
				uint16_t limit)
{
	unsigned size = cpu_code64(c) ? 8 : 4;
	gva_t va;
	enum bt_res r;

	r = bt_insn_mem(c, i, 0, size + 2, BT_WRITE, &va);
	if (!r)
		r = bt_mem_probe(c, va, size + 2, BT_WRITE);
	if (!r)
		r = bt_mem_write(c, va, &limit, 2);
	if (!r)
		r = bt_mem_write(c, va + 2, &base, size);
	return r ? BT_AGAIN : next_insn(c, i);
}

SYS_FN(bt_sys_lgdt)
{
	return load_table(c, i, &c->gdt_base, &c->gdt_limit);
}
SYS_FN(bt_sys_lidt)
{
	return load_table(c, i, &c->idt_base, &c->idt_limit);
}
SYS_FN(bt_sys_sgdt)
{
	return store_table(c, i, c->gdt_base, c->gdt_limit);
}
SYS_FN(bt_sys_sidt)
{
	return store_table(c, i, c->idt_base, c->idt_limit);
}

/* --- TLB and caches --- */
SYS_FN(bt_sys_invlpg)
{
	gva_t va;

	if (c->cpl != 0)
		return fault_gp0(c);
	va = bt_insn_ea(c, i);
	if (cpu_code64(c)) {
		va += i->seg == HV_FS ? c->fs_base : i->seg == HV_GS ? c->gs_base : 0;
		if (!va_canonical(va)) /* a no-op, not a fault */
			return next_insn(c, i);
	} else {
		va = (va + c->seg[i->seg].base) & 0xffffffffu;
	}
	if (bt_tlb_flush_va(c, va))
		bt_cache_forget_all(c);
	else
		bt_cache_forget_va(c, va);
	return branch_insn(c, i);
}

SYS_FN(bt_sys_wbinvd)
{
	return c->cpl == 0 ? next_insn(c, i) : fault_gp0(c);
}
