/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/syscall.c - the fast ways into the kernel and out: syscall, sysret, sysenter, sysexit,
 * swapgs.
 *
 * What      SDM vol 2; syscall and sysret outside 64-bit mode as AMD has them.
 * Threads   The vCPU thread.
 * I/O       None.
 */
#include "hv/bt/sysint.h"

#define ATTR_CODE 0x809bu /* g p s code read accessed */
#define ATTR_DATA 0xc093u /* g db p s data write accessed */

static void flat_pair(struct bt_cpu *c, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool code64)
{
	struct hv_seg s = { .base = 0, .limit = 0xffffffffu };

	s.sel = (uint16_t)((cs_sel & ~3u) | cpl);
	s.attr = (uint16_t)(ATTR_CODE | cpl << ATTR_DPL_SHIFT | (code64 ? ATTR_L : ATTR_DB));
	bt_seg_set(c, HV_CS, &s);
	s.sel = (uint16_t)((ss_sel & ~3u) | cpl);
	s.attr = (uint16_t)(ATTR_DATA | cpl << ATTR_DPL_SHIFT);
	bt_seg_set(c, HV_SS, &s);
	c->cpl = (uint8_t)cpl;
}

SYS_FN(bt_sys_syscall)
{
	uint16_t sel = (uint16_t)(c->star >> 32) & 0xfffc;
	uint64_t target;

	if (!(c->efer & EFER_SCE) || cpu_real(c))
		return fault(c, EXC_UD);
	if (cpu_lma(c)) {
		c->gpr[HV_RCX] = i->next_rip;
		c->gpr[HV_R11] = c->rflags & ~(uint64_t)RFLAGS_RF;
		target = cpu_code64(c) ? c->lstar : c->cstar;
		c->rflags = (c->rflags & ~c->sfmask & ~(uint64_t)RFLAGS_RF) | RFLAGS_FIXED;
	} else {
		c->gpr[HV_RCX] = (uint32_t)i->next_rip;
		target = (uint32_t)c->star;
		c->rflags &= ~(uint64_t)(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
	}
	flat_pair(c, sel, (uint16_t)(sel + 8), 0, cpu_lma(c));
	c->rip = target;
	bt_mode_update(c);
	return BT_BRANCH;
}

SYS_FN(bt_sys_sysret)
{
	uint16_t sel = (uint16_t)(c->star >> 48);
	bool wide = i->opsize == 8;
	uint64_t target = wide ? c->gpr[HV_RCX] : (uint32_t)c->gpr[HV_RCX];

	if (!(c->efer & EFER_SCE) || cpu_real(c))
		return fault(c, EXC_UD);
	if (c->cpl != 0 || (wide && !va_canonical(target)))
		return fault_gp0(c);
	if (cpu_lma(c))
		c->rflags = (c->gpr[HV_R11] & RFLAGS_ALL & ~(uint64_t)(RFLAGS_RF | RFLAGS_VM)) |
			    RFLAGS_FIXED;
	else
		c->rflags |= RFLAGS_IF;
	flat_pair(c, (uint16_t)(sel + (wide ? 16 : 0)), (uint16_t)(sel + 8), 3, wide);
	c->rip = target;
	bt_mode_update(c);
	return BT_BRANCH;
}

SYS_FN(bt_sys_sysenter)
{
	uint16_t sel = (uint16_t)c->sysenter_cs & 0xfffc;

	(void)i;
	if (cpu_real(c) || !sel)
		return fault_gp0(c);
	c->rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
	flat_pair(c, sel, (uint16_t)(sel + 8), 0, cpu_lma(c));
	c->gpr[HV_RSP] = cpu_lma(c) ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
	c->rip = cpu_lma(c) ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
	bt_mode_update(c);
	return BT_BRANCH;
}

SYS_FN(bt_sys_sysexit)
{
	uint16_t sel = (uint16_t)c->sysenter_cs & 0xfffc;
	bool wide = i->opsize == 8;

	if (cpu_real(c) || !sel || c->cpl != 0)
		return fault_gp0(c);
	if (wide && (!va_canonical(c->gpr[HV_RCX]) || !va_canonical(c->gpr[HV_RDX])))
		return fault_gp0(c);
	flat_pair(c, (uint16_t)(sel + (wide ? 32 : 16)), (uint16_t)(sel + (wide ? 40 : 24)), 3,
		  wide);
	c->gpr[HV_RSP] = wide ? c->gpr[HV_RCX] : (uint32_t)c->gpr[HV_RCX];
	c->rip = wide ? c->gpr[HV_RDX] : (uint32_t)c->gpr[HV_RDX];
	bt_mode_update(c);
	return BT_BRANCH;
}

SYS_FN(bt_sys_swapgs)
{
	uint64_t base = c->gs_base;

	if (!cpu_code64(c))
		return fault(c, EXC_UD);
	if (c->cpl != 0)
		return fault_gp0(c);
	c->gs_base = c->kernel_gs_base;
	c->seg[HV_GS].base = c->gs_base;
	c->kernel_gs_base = base;
	return next_insn(c, i);
}
