/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/state.c - reset state, and the exchange with the snapshot format struct hv_cpu_state.
 *
 * What      SDM vol 3, table 9-1.  A state from outside is checked before anything of it is taken.
 * Threads   The vCPU thread, between instructions, guest FPU state parked.
 * I/O       None.
 * Limits    XCR0 is 1 or 0: there is no xsave.  A soft interrupt under delivery is dropped: rip
 * still points at the instruction, which raises it again.
 */
#include "hv/bt/sysint.h"

#include <string.h>

#define MXCSR_RESET 0x1f80u
#define FCW_RESET 0x037fu
#define FX_MXCSR 24
#define FX_MXCSR_MASK 28

#define MISC_FAST_STRINGS 1u
#define PAT_RESET 0x0007040600070406ull
#define PHYS_BITS_DEFAULT 36u

static uint64_t phys_mask(const struct bt_cpu *c)
{
	uint32_t v[4];
	unsigned bits;

	bt_cpuid(c, 0x80000008, 0, v);
	bits = v[0] & 0xff;
	if (bits < 32 || bits > 52)
		bits = PHYS_BITS_DEFAULT;
	return (1ull << bits) - 1;
}

void bt_cpu_reset(struct bt_cpu *c)
{
	uint32_t v[4];

	memset(c->gpr, 0, sizeof(c->gpr));
	bt_cpuid(c, 1, 0, v);
	c->gpr[HV_RDX] = v[0]; /* family, model, stepping */
	c->rip = 0xfff0;
	c->rflags = RFLAGS_FIXED;
	for (unsigned k = 0; k < 6; k++) {
		struct hv_seg s = { .base = 0, .limit = 0xffff, .sel = 0, .attr = 0x93 };

		if (k == HV_CS)
			s = (struct hv_seg){
				.base = 0xffff0000u, .limit = 0xffff, .sel = 0xf000, .attr = 0x9b
			};
		bt_seg_set(c, k, &s);
	}
	c->ldt = (struct hv_seg){ .limit = 0xffff, .attr = 0x82 };
	c->tr = (struct hv_seg){ .limit = 0xffff, .attr = 0x8b };
	c->gdt_base = c->idt_base = 0;
	c->gdt_limit = c->idt_limit = 0xffff;
	c->cr0 = CR0_CD | CR0_NW | CR0_ET;
	c->cr2 = c->cr3 = c->cr4 = c->cr8 = c->efer = 0;
	memset(c->dr, 0, sizeof(c->dr));
	c->dr[6] = 0xffff0ff0u;
	c->dr[7] = 0x400;
	c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = 0;
	c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
	c->pat = PAT_RESET;
	c->tsc_aux = 0;
	c->misc_enable = MISC_FAST_STRINGS;
	c->mtrr_def_type = 0;
	memset(c->mtrr_fixed, 0, sizeof(c->mtrr_fixed));
	memset(c->mtrr_var, 0, sizeof(c->mtrr_var));
	c->cpl = 0;
	c->irq_shadow = c->nmi_blocked = c->halted = false;
	c->phys_mask = phys_mask(c);

	memset(c->fx, 0, sizeof(c->fx));
	store_le(c->fx, FCW_RESET, 2);
	store_le(c->fx + FX_MXCSR, MXCSR_RESET, 4);
	c->fpu_live = 0;

	memset(&c->exc, 0, sizeof(c->exc));
	memset(&c->held, 0, sizeof(c->held));
	c->exit_pending = false;
	c->mmio.ready = c->pio.ready = c->msr.ready = false;
	bt_tlb_flush_all(c);
	bt_mode_update(c);
}

void bt_state_get(struct bt_cpu *c, struct hv_cpu_state *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->gpr, c->gpr, sizeof(out->gpr));
	out->rip = c->rip;
	out->rflags = c->rflags;
	memcpy(out->seg, c->seg, sizeof(out->seg));
	out->seg[HV_FS].base = c->fs_base;
	out->seg[HV_GS].base = c->gs_base;
	out->ldt = c->ldt;
	out->tr = c->tr;
	out->gdt_base = c->gdt_base;
	out->idt_base = c->idt_base;
	out->gdt_limit = c->gdt_limit;
	out->idt_limit = c->idt_limit;
	out->cr0 = c->cr0;
	out->cr2 = c->cr2;
	out->cr3 = c->cr3;
	out->cr4 = c->cr4;
	out->cr8 = c->cr8;
	out->efer = c->efer;
	out->xcr0 = 1;
	memcpy(out->dr, c->dr, sizeof(out->dr));
	out->star = c->star;
	out->lstar = c->lstar;
	out->cstar = c->cstar;
	out->sfmask = c->sfmask;
	out->kernel_gs_base = c->kernel_gs_base;
	out->sysenter_cs = c->sysenter_cs;
	out->sysenter_esp = c->sysenter_esp;
	out->sysenter_eip = c->sysenter_eip;
	out->pat = c->pat;
	out->tsc_aux = c->tsc_aux;
	out->misc_enable = c->misc_enable;
	out->mtrr_def_type = c->mtrr_def_type;
	memcpy(out->mtrr_fixed, c->mtrr_fixed, sizeof(out->mtrr_fixed));
	memcpy(out->mtrr_var, c->mtrr_var, sizeof(out->mtrr_var));
	out->tsc_offset = c->tsc_offset;
	memcpy(out->fxsave, c->fx, sizeof(out->fxsave));
	out->sti_shadow = c->irq_shadow;
	out->nmi_blocked = c->nmi_blocked;
	if (c->exc.pending) {
		out->event_valid = true;
		out->event_vector = c->exc.vector;
		out->event_type = c->exc.kind == BT_EVENT_EXTERNAL ? 0
				  : c->exc.kind == BT_EVENT_NMI    ? 2
								   : 3;
		out->event_has_error = c->exc.has_error;
		out->event_error = c->exc.error;
		if (c->exc.kind == BT_EVENT_FAULT && c->exc.vector == EXC_PF)
			out->cr2 = c->exc.cr2;
	}
}

static bool control_valid(const struct bt_cpu *c, const struct hv_cpu_state *s)
{
	bool pg = s->cr0 & CR0_PG, pe = s->cr0 & CR0_PE, lma = s->efer & EFER_LMA;

	if (s->cr0 >> 32 || (pg && !pe) || ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return false;
	if (lma != (pg && (s->efer & EFER_LME)) || (lma && !(s->cr4 & CR4_PAE)))
		return false;
	if ((s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)) ||
	    (s->cr4 & ~bt_cr4_allowed(c)))
		return false;
	if ((lma && (s->cr3 & ~(c->phys_mask | 0xfff))) || s->cr8 > 15 || s->xcr0 > 1)
		return false;
	return true;
}

static bool state_valid(const struct bt_cpu *c, const struct hv_cpu_state *s)
{
	bool lma = s->efer & EFER_LMA, code64 = lma && (s->seg[HV_CS].attr & ATTR_L);
	uint32_t mask = (uint32_t)load_le(s->fxsave + FX_MXCSR_MASK, 4);

	if (!control_valid(c, s))
		return false;
	if ((s->rflags & ~(uint64_t)RFLAGS_ALL) || (s->rflags & RFLAGS_VM) ||
	    !(s->rflags & RFLAGS_FIXED))
		return false;
	if (code64 ? !va_canonical(s->rip) || (s->seg[HV_CS].attr & ATTR_DB) : s->rip >> 32 != 0)
		return false;
	if (!va_canonical(s->seg[HV_FS].base) || !va_canonical(s->seg[HV_GS].base) ||
	    !va_canonical(s->kernel_gs_base) || !va_canonical(s->gdt_base) ||
	    !va_canonical(s->idt_base) || !va_canonical(s->tr.base) || !va_canonical(s->ldt.base) ||
	    !va_canonical(s->lstar) || !va_canonical(s->cstar) || !va_canonical(s->sysenter_esp) ||
	    !va_canonical(s->sysenter_eip))
		return false;
	if (s->dr[6] >> 32 || s->dr[7] >> 32)
		return false;
	if (s->event_valid && s->event_type != 0 && s->event_type != 2 && s->event_type != 3 &&
	    s->event_type != 4)
		return false;
	/* fxrstor would fault on these */
	return !(load_le(s->fxsave + FX_MXCSR, 4) & ~(uint64_t)(mask ? mask & 0xffff : 0xffbf));
}

static void set_event(struct bt_cpu *c, const struct hv_cpu_state *in)
{
	memset(&c->exc, 0, sizeof(c->exc));
	if (!in->event_valid || in->event_type == 4)
		return;
	c->exc.pending = true;
	c->exc.vector = in->event_vector;
	c->exc.kind = in->event_type == 0   ? BT_EVENT_EXTERNAL
		      : in->event_type == 2 ? BT_EVENT_NMI
					    : BT_EVENT_FAULT;
	c->exc.has_error = in->event_has_error;
	c->exc.error = in->event_error;
	c->exc.cr2 = in->cr2;
}

int bt_state_set(struct bt_cpu *c, const struct hv_cpu_state *in)
{
	if (!state_valid(c, in))
		return -EINVAL;
	memcpy(c->gpr, in->gpr, sizeof(c->gpr));
	c->rip = in->rip;
	c->rflags = in->rflags & ~(uint64_t)RFLAGS_RF;
	for (unsigned k = 0; k < 6; k++)
		bt_seg_set(c, k, &in->seg[k]);
	c->ldt = in->ldt;
	c->tr = in->tr;
	c->gdt_base = in->gdt_base;
	c->idt_base = in->idt_base;
	c->gdt_limit = in->gdt_limit;
	c->idt_limit = in->idt_limit;
	c->cr0 = in->cr0 | CR0_ET;
	c->cr2 = in->cr2;
	c->cr3 = in->cr3;
	c->cr4 = in->cr4;
	c->cr8 = in->cr8;
	c->efer = in->efer;
	memcpy(c->dr, in->dr, sizeof(c->dr));
	c->dr[6] |= 0xffff0ff0u;
	c->dr[7] |= 0x400;
	c->star = in->star;
	c->lstar = in->lstar;
	c->cstar = in->cstar;
	c->sfmask = (uint32_t)in->sfmask;
	c->kernel_gs_base = in->kernel_gs_base;
	c->sysenter_cs = in->sysenter_cs;
	c->sysenter_esp = in->sysenter_esp;
	c->sysenter_eip = in->sysenter_eip;
	c->pat = in->pat;
	c->tsc_aux = in->tsc_aux;
	c->misc_enable = in->misc_enable;
	c->mtrr_def_type = in->mtrr_def_type;
	memcpy(c->mtrr_fixed, in->mtrr_fixed, sizeof(c->mtrr_fixed));
	memcpy(c->mtrr_var, in->mtrr_var, sizeof(c->mtrr_var));
	c->tsc_offset = in->tsc_offset;
	memcpy(c->fx, in->fxsave, sizeof(c->fx));
	c->fpu_live = 0;
	c->irq_shadow = in->sti_shadow;
	c->nmi_blocked = in->nmi_blocked;
	c->halted = false;
	set_event(c, in);
	memset(&c->held, 0, sizeof(c->held));
	c->exit_pending = false;
	c->mmio.ready = c->pio.ready = c->msr.ready = false;
	c->cpl = in->cr0 & CR0_PE ? (uint8_t)seg_dpl(&in->seg[HV_SS]) : 0;
	bt_tlb_flush_all(c);
	bt_cache_forget_all(c);
	bt_mode_update(c);
	return 0;
}
