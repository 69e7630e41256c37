/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/lapic_regs.c - the local APIC as the guest reads and writes it: MSRs and the xAPIC page.
 *
 * Threads   The caller guards each struct.  No I/O.
 * Spec      Intel SDM vol 3, chapter 11; sections at each function.
 */
#include "hv/core/cpuid.h"
#include "hv/core/lapic.h"
#include "hv/core/lapic_priv.h"

#define BASE_ADDR (((1ull << HV_CPUID_PHYS_BITS) - 1) & PAGE_MASK)
#define SVR_WRITABLE 0x3ffu /* no suppression of EOI broadcasts */
#define LVT_STATUS (1u << 12)
#define LVT_REMOTE_IRR (1u << 14)
#define VERSION 0x00050014u /* integrated APIC, six LVT entries */
#define ICR_BUSY (1ull << 12)
#define ICR_RESERVED 0xfff32000ull
#define ICR_XAPIC_WRITABLE 0x000ccfffull

static const uint32_t lvt_writable[HV_LVTS] = {
	[HV_LVT_TIMER] = 0x000700ff, [HV_LVT_THERMAL] = 0x000107ff, [HV_LVT_PERF] = 0x000107ff,
	[HV_LVT_LINT0] = 0x0001a7ff, [HV_LVT_LINT1] = 0x0001a7ff,   [HV_LVT_ERROR] = 0x000100ff,
};

/* --- registers, by number: MSR - 0x800, or page offset >> 4 (table 11-6)
 * ------------------------------ */

enum {
	R_ID = 0x02,
	R_VERSION = 0x03,
	R_TPR = 0x08,
	R_PPR = 0x0a,
	R_EOI = 0x0b,
	R_LDR = 0x0d,
	R_DFR = 0x0e,
	R_SVR = 0x0f,
	R_ISR = 0x10,
	R_TMR = 0x18,
	R_IRR = 0x20,
	R_ESR = 0x28,
	R_ICR = 0x30,
	R_ICR_HIGH = 0x31,
	R_LVT = 0x32,
	R_INITIAL = 0x38,
	R_CURRENT = 0x39,
	R_DIVIDE = 0x3e,
	R_SELF = 0x3f,
};

/* The 32-bit registers that both modes have.  False: there is none to read. */
static bool reg_read(const struct hv_lapic *l, unsigned reg, uint64_t tsc, uint32_t *out)
{
	switch (reg) {
	case R_VERSION:
		*out = VERSION;
		return true;
	case R_TPR:
		*out = l->tpr;
		return true;
	case R_PPR:
		*out = hv_lapic_ppr(l);
		return true;
	case R_LDR:
		*out = l->ldr;
		return true;
	case R_SVR:
		*out = l->svr;
		return true;
	case R_ISR ... R_ISR + 7:
		*out = l->isr[reg - R_ISR];
		return true;
	case R_TMR ... R_TMR + 7:
		*out = l->tmr[reg - R_TMR];
		return true;
	case R_IRR ... R_IRR + 7:
		*out = l->irr[reg - R_IRR];
		return true;
	case R_ESR:
		*out = l->esr;
		return true;
	case R_LVT ... R_LVT + HV_LVTS - 1:
		*out = l->lvt[reg - R_LVT];
		return true;
	case R_INITIAL:
		*out = l->timer_initial;
		return true;
	case R_CURRENT:
		*out = hv_lapic_timer_count(l, tsc);
		return true;
	case R_DIVIDE:
		*out = l->timer_divide;
		return true;
	default:
		return false;
	}
}

/* Bits that a write may set, for registers that both modes can write; 0: not one of them. */
static uint32_t reg_writable(unsigned reg)
{
	switch (reg) {
	case R_TPR:
		return 0xff;
	case R_SVR:
		return SVR_WRITABLE;
	case R_LVT ... R_LVT + HV_LVTS - 1:
		return lvt_writable[reg - R_LVT];
	case R_INITIAL:
		return ~0u;
	case R_DIVIDE:
		return 0xb;
	default:
		return 0;
	}
}

static void svr_write(struct hv_lapic *l, uint32_t v)
{
	l->svr = v;
	if (v & HV_APIC_SVR_ENABLE)
		return;
	for (unsigned k = 0; k < HV_LVTS; k++) /* 11.4.7.2 */
		l->lvt[k] |= HV_LVT_MASKED;
}

/* `v` has only writable bits. */
static void reg_write(struct hv_lapic *l, unsigned reg, uint32_t v, uint64_t tsc,
		      struct hv_lapic_effects *fx)
{
	switch (reg) {
	case R_TPR:
		l->tpr = v;
		break;
	case R_SVR:
		svr_write(l, v);
		break;
	case R_LVT ... R_LVT + HV_LVTS - 1:
		if (!(l->svr & HV_APIC_SVR_ENABLE))
			v |= HV_LVT_MASKED;
		if (reg == R_LVT + HV_LVT_TIMER)
			hv_lapic_timer_set_lvt(l, v, tsc, fx);
		else
			l->lvt[reg - R_LVT] = v;
		break;
	case R_INITIAL:
		hv_lapic_timer_set_initial(l, v, tsc, fx);
		break;
	default:
		hv_lapic_timer_set_divide(l, v, tsc, fx);
		break;
	}
}

static void esr_write(struct hv_lapic *l)
{
	l->esr = l->esr_pending;
	l->esr_pending = 0;
}

/* --- MSRs
 * -------------------------------------------------------------------------------------------- */

bool hv_lapic_has_msr(uint32_t msr)
{
	return msr == HV_MSR_APIC_BASE || msr == HV_MSR_TSC_DEADLINE ||
	       (msr >= HV_MSR_X2APIC_FIRST && msr <= HV_MSR_X2APIC_LAST);
}

bool hv_lapic_msr_read(const struct hv_lapic *l, uint32_t msr, uint64_t tsc, uint64_t *out)
{
	uint32_t v;

	if (msr == HV_MSR_APIC_BASE) {
		*out = l->apic_base;
		return true;
	}
	if (msr == HV_MSR_TSC_DEADLINE) {
		*out = hv_lapic_timer_is_deadline(l) ? l->timer_deadline : 0;
		return true;
	}
	if (!hv_lapic_is_x2apic(l) || msr < HV_MSR_X2APIC_FIRST || msr > HV_MSR_X2APIC_LAST)
		return false;
	switch (msr - HV_MSR_X2APIC_FIRST) {
	case R_ID:
		*out = l->id;
		return true;
	case R_ICR:
		*out = l->icr;
		return true;
	default:
		if (!reg_read(l, msr - HV_MSR_X2APIC_FIRST, tsc, &v))
			return false;
		*out = v;
		return true;
	}
}

/* 11.12.5: legal are disabled <-> xAPIC -> x2APIC -> disabled. */
static bool base_write(struct hv_lapic *l, uint64_t v, struct hv_lapic_effects *fx)
{
	uint64_t old = l->apic_base;

	if (v & ~(BASE_ADDR | HV_APIC_BASE_EN | HV_APIC_BASE_EXTD | HV_APIC_BASE_BSP))
		return false;
	if ((v & HV_APIC_BASE_EXTD) && (!(v & HV_APIC_BASE_EN) || !(old & HV_APIC_BASE_EN)))
		return false;
	if ((old & HV_APIC_BASE_EXTD) && (v & HV_APIC_BASE_EN) && !(v & HV_APIC_BASE_EXTD))
		return false;
	l->apic_base = v;
	if ((old & HV_APIC_BASE_EN) && !(v & HV_APIC_BASE_EN)) {
		bool wait = l->wait_sipi;

		hv_lapic_reset(l);
		l->wait_sipi = wait;
		hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_SET_TIMER });
	}
	if (!(old & HV_APIC_BASE_EXTD) && (v & HV_APIC_BASE_EXTD)) {
		l->ldr = hv_lapic_x2apic_ldr(l->id);
		l->icr &= 0xffffffffull; /* the destination had another format */
	}
	if ((old ^ v) & (HV_APIC_BASE_EN | HV_APIC_BASE_EXTD))
		hv_lapic_addr_changed(fx);
	return true;
}

static bool x2apic_write(struct hv_lapic *l, unsigned reg, uint64_t v, uint64_t tsc,
			 struct hv_lapic_effects *fx)
{
	switch (reg) {
	case R_ICR:
		if (v & ICR_RESERVED)
			return false;
		l->icr = v & ~ICR_BUSY;
		hv_lapic_send_ipi(l, fx);
		return true;
	case R_EOI:
		if (v)
			return false;
		hv_lapic_eoi(l, fx);
		return true;
	case R_ESR:
		if (v)
			return false;
		esr_write(l);
		return true;
	case R_SELF:
		if (v > 0xff)
			return false;
		hv_lapic_self_ipi(l, (uint8_t)v, fx);
		return true;
	default:
		break;
	}
	if (!reg_writable(reg))
		return false;
	if (reg >= R_LVT &&
	    reg < R_LVT + HV_LVTS) /* read-only bits may come back as they were read */
		v &= ~(uint64_t)(LVT_STATUS | LVT_REMOTE_IRR);
	if (v & ~(uint64_t)reg_writable(reg))
		return false;
	reg_write(l, reg, (uint32_t)v, tsc, fx);
	return true;
}

bool hv_lapic_msr_write(struct hv_lapic *l, uint32_t msr, uint64_t value, uint64_t tsc,
			struct hv_lapic_effects *fx)
{
	if (msr == HV_MSR_APIC_BASE)
		return base_write(l, value, fx);
	if (msr == HV_MSR_TSC_DEADLINE) {
		hv_lapic_timer_set_deadline(l, value, tsc, fx);
		return true;
	}
	if (!hv_lapic_is_x2apic(l) || msr < HV_MSR_X2APIC_FIRST || msr > HV_MSR_X2APIC_LAST)
		return false;
	return x2apic_write(l, msr - HV_MSR_X2APIC_FIRST, value, tsc, fx);
}

/* --- xAPIC page (11.4.1)
 * ----------------------------------------------------------------------------- */

bool hv_lapic_has_mmio(const struct hv_lapic *l, gpa_t gpa)
{
	return hv_lapic_is_enabled(l) && !hv_lapic_is_x2apic(l) &&
	       (gpa & PAGE_MASK) == (l->apic_base & BASE_ADDR);
}

uint64_t hv_lapic_mmio_read(const struct hv_lapic *l, uint32_t offset, unsigned size, uint64_t tsc)
{
	uint32_t v = 0;

	switch (offset >> 4) {
	case R_ID:
		v = l->id << 24;
		break;
	case R_DFR:
		v = l->dfr;
		break;
	case R_ICR:
		v = (uint32_t)l->icr;
		break;
	case R_ICR_HIGH:
		v = (uint32_t)(l->icr >> 32);
		break;
	default:
		if (!reg_read(l, offset >> 4, tsc, &v))
			v = 0;
		break;
	}
	if ((offset & 15) >= 4)
		return 0;
	v >>= 8 * (offset & 3);
	return size >= 4 ? v : v & ((1u << (8 * size)) - 1);
}

void hv_lapic_mmio_write(struct hv_lapic *l, uint32_t offset, unsigned size, uint64_t value,
			 uint64_t tsc, struct hv_lapic_effects *fx)
{
	uint32_t v = (uint32_t)value;
	unsigned reg = offset >> 4;

	if (size < 4 || (offset & 15))
		return;
	switch (reg) {
	case R_EOI:
		hv_lapic_eoi(l, fx);
		break;
	case R_LDR:
		l->ldr = v & 0xff000000;
		hv_lapic_addr_changed(fx);
		break;
	case R_DFR:
		l->dfr = v | 0x0fffffff;
		hv_lapic_addr_changed(fx);
		break;
	case R_ESR:
		esr_write(l);
		break;
	case R_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (v & ICR_XAPIC_WRITABLE & ~ICR_BUSY);
		hv_lapic_send_ipi(l, fx);
		break;
	case R_ICR_HIGH:
		l->icr = (l->icr & 0xffffffffull) | (uint64_t)(v & 0xff000000) << 32;
		break;
	default:
		if (reg_writable(reg))
			reg_write(l, reg, v & reg_writable(reg), tsc, fx);
		break;
	}
}
