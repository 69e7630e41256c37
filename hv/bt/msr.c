/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/msr.c - rdmsr and wrmsr.
 *
 * What      Registers of the CPU itself live here; those of the local APIC and its timer belong to
 * the monitor (HV_EXIT_MSR, answered through c->msr).  Anything else is #GP(0), as on a CPU without
 * it. Threads   The vCPU thread. I/O       The host's TSC. Limits    MTRRs are storage.  A short
 * list of model-specific registers that AMD kernels look at without a CPUID bit for them (hv/core/msr.h)
 * reads as a fixed value and ignores writes.
 */
#include "hv/bt/sysint.h"
#include "hv/core/msr.h"

/* clang-format off */
enum {
	MSR_TSC = 0x10, MSR_APIC_BASE = 0x1b, MSR_TSC_ADJUST = 0x3b, MSR_PATCH_LEVEL = 0x8b, MSR_MTRR_CAP = 0xfe,
	MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179, MSR_MCG_STATUS = 0x17a, MSR_MISC_ENABLE = 0x1a0, MSR_DEBUGCTL = 0x1d9,
	MSR_MTRR_VAR = 0x200, MSR_MTRR_VAR_END = 0x210, MSR_MTRR_FIX64K = 0x250, MSR_MTRR_FIX16K = 0x258,
	MSR_MTRR_FIX4K = 0x268, MSR_PAT = 0x277, MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_X2APIC_END = 0x900,
};
/* clang-format on */
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

#define MTRR_VARS 8u
#define MTRR_CAP_FIXED 0x100u
#define MTRR_CAP_WC 0x400u
#define MTRR_DEF_KNOWN 0xcffu /* type, FE, E */

static bool msr_is_monitors(uint32_t index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
	       (index >= MSR_X2APIC && index < MSR_X2APIC_END);
}

/* Plain 64-bit storage that any value may go to; NULL: not such a register. */
static uint64_t *msr_storage(struct bt_cpu *c, uint32_t index)
{
	if (index >= MSR_MTRR_VAR && index < MSR_MTRR_VAR_END)
		return &c->mtrr_var[index - MSR_MTRR_VAR];
	if (index == MSR_MTRR_FIX64K)
		return &c->mtrr_fixed[0];
	if (index == MSR_MTRR_FIX16K || index == MSR_MTRR_FIX16K + 1)
		return &c->mtrr_fixed[1 + index - MSR_MTRR_FIX16K];
	if (index >= MSR_MTRR_FIX4K && index < MSR_MTRR_FIX4K + 8)
		return &c->mtrr_fixed[3 + index - MSR_MTRR_FIX4K];
	switch (index) {
	case MSR_STAR:
		return &c->star;
	case MSR_MISC_ENABLE:
		return &c->misc_enable;
	case MSR_MTRR_DEF_TYPE:
		return &c->mtrr_def_type;
	case MSR_PAT:
		return &c->pat;
	default:
		return NULL;
	}
}

/* Storage that takes canonical addresses only. */
static uint64_t *msr_address(struct bt_cpu *c, uint32_t index)
{
	switch (index) {
	case MSR_SYSENTER_ESP:
		return &c->sysenter_esp;
	case MSR_SYSENTER_EIP:
		return &c->sysenter_eip;
	case MSR_LSTAR:
		return &c->lstar;
	case MSR_CSTAR:
		return &c->cstar;
	case MSR_KERNEL_GS_BASE:
		return &c->kernel_gs_base;
	default:
		return NULL;
	}
}

static bool has_tsc_adjust(const struct bt_cpu *c)
{
	return bt_cpuid_has(c, 7, 1, 1);
}

static bool msr_read(struct bt_cpu *c, uint32_t index, uint64_t *v)
{
	uint64_t *p = msr_storage(c, index);

	if (!p)
		p = msr_address(c, index);
	if (p) {
		*v = *p;
		return true;
	}
	switch (index) {
	case MSR_TSC:
		*v = bt_tsc(c);
		return true;
	case MSR_TSC_ADJUST:
		*v = c->tsc_adjust;
		return has_tsc_adjust(c);
	case MSR_MTRR_CAP:
		*v = MTRR_VARS | MTRR_CAP_FIXED | MTRR_CAP_WC;
		return true;
	case MSR_SYSENTER_CS:
		*v = c->sysenter_cs;
		return true;
	case MSR_MCG_CAP:
	case MSR_MCG_STATUS:
		*v = 0;
		return true;
	case MSR_EFER:
		*v = c->efer;
		return true;
	case MSR_SFMASK:
		*v = c->sfmask;
		return true;
	case MSR_FS_BASE:
		*v = c->fs_base;
		return true;
	case MSR_GS_BASE:
		*v = c->gs_base;
		return true;
	case MSR_TSC_AUX:
		*v = c->tsc_aux;
		return true;
	default:
		break;
	}
	return hv_msr_fixed(index, v);
}

static bool write_efer(struct bt_cpu *c, uint64_t v)
{
	uint64_t known = EFER_SCE | EFER_LME | EFER_LMA, old = c->efer;

	if (bt_cpuid_has(c, 0x80000001, 3, 20))
		known |= EFER_NXE;
	if ((v & ~known) || (((v ^ old) & EFER_LME) && (c->cr0 & CR0_PG)))
		return false;
	c->efer = (v & ~EFER_LMA) | (old & EFER_LMA);
	if ((old ^ v) & EFER_NXE) {
		bt_tlb_flush_all(c);
		bt_cache_forget_all(c);
	}
	return true;
}

static bool pat_valid(uint64_t v)
{
	for (unsigned k = 0; k < 8; k++, v >>= 8)
		if ((v & 0xff) > 7 || (v & 0xff) == 2 || (v & 0xff) == 3)
			return false;
	return true;
}

static bool msr_write(struct bt_cpu *c, uint32_t index, uint64_t v)
{
	uint64_t *p;

	if ((index == MSR_PAT && !pat_valid(v)) ||
	    (index == MSR_MTRR_DEF_TYPE && (v & ~(uint64_t)MTRR_DEF_KNOWN)))
		return false;
	p = msr_storage(c, index);
	if (!p && (p = msr_address(c, index)) && !va_canonical(v))
		return false;
	if (p) {
		*p = v;
		return true;
	}
	switch (index) {
	case MSR_TSC: {
		uint64_t delta = v - bt_tsc(c);

		c->tsc_offset += delta;
		c->tsc_adjust += delta;
		return true;
	}
	case MSR_TSC_ADJUST:
		if (!has_tsc_adjust(c))
			return false;
		c->tsc_offset += v - c->tsc_adjust;
		c->tsc_adjust = v;
		return true;
	case MSR_SYSENTER_CS:
		c->sysenter_cs = (uint32_t)v;
		return true;
	case MSR_MCG_STATUS:
		return v == 0;
	case MSR_EFER:
		return write_efer(c, v);
	case MSR_SFMASK:
		c->sfmask = (uint32_t)v;
		return true;
	case MSR_FS_BASE:
	case MSR_GS_BASE: {
		enum hv_sreg which = index == MSR_FS_BASE ? HV_FS : HV_GS;

		if (!va_canonical(v))
			return false;
		c->seg[which].base = v;
		if (which == HV_FS)
			c->fs_base = v;
		else
			c->gs_base = v;
		return true;
	}
	case MSR_TSC_AUX:
		if (v >> 32)
			return false;
		c->tsc_aux = v;
		return true;
	default:
		break;
	}
	return hv_msr_fixed(index, &v);
}

/* BT_OK with *v set for a read; BT_EXIT on the way to the monitor; BT_FAULT when it said no. */
static enum bt_res monitor_msr(struct bt_cpu *c, uint32_t index, bool write, uint64_t *v)
{
	if (c->msr.ready && c->msr.gpa == index && c->msr.write == write) {
		c->msr.ready = false;
		if (c->msr.fault)
			return res_fault(c, EXC_GP, 0);
		if (!write)
			*v = c->msr.data;
		return BT_OK;
	}
	c->msr.ready = false;
	c->msr.gpa = index;
	c->msr.size = 8;
	c->msr.write = write;
	c->exit->write = write;
	c->exit->size = 8;
	c->exit->fault = false;
	c->exit->addr = index;
	c->exit->data = write ? *v : 0;
	bt_exit(c, HV_EXIT_MSR);
	return BT_EXIT;
}

SYS_FN(bt_sys_rdmsr)
{
	uint32_t index = (uint32_t)c->gpr[HV_RCX];
	uint64_t v = 0;

	if (c->cpl != 0)
		return fault_gp0(c);
	if (msr_is_monitors(index)) {
		if (monitor_msr(c, index, false, &v))
			return BT_AGAIN;
	} else if (!msr_read(c, index, &v)) {
		return fault_gp0(c);
	}
	c->gpr[HV_RAX] = (uint32_t)v;
	c->gpr[HV_RDX] = v >> 32;
	return next_insn(c, i);
}

SYS_FN(bt_sys_wrmsr)
{
	uint32_t index = (uint32_t)c->gpr[HV_RCX];
	uint64_t v = c->gpr[HV_RDX] << 32 | (uint32_t)c->gpr[HV_RAX];

	if (c->cpl != 0)
		return fault_gp0(c);
	if (msr_is_monitors(index)) {
		if (monitor_msr(c, index, true, &v))
			return BT_AGAIN;
	} else if (!msr_write(c, index, v)) {
		return fault_gp0(c);
	}
	return index == MSR_EFER ? branch_insn(c, i) : next_insn(c, i);
}
