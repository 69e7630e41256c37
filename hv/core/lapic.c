/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/lapic.c - local APIC: registers, priorities, IPIs, delivery.  The timer is in lapic_timer.c.
 *
 * What      See lapic.h.  Section numbers are of Intel SDM vol 3, chapter 11 (APIC).
 * Threads   The caller guards each struct.  No I/O.
 */
#include "hv/core/lapic.h"
#include "hv/core/lapic_priv.h"
#include "hv/core/cpuid.h"
#include "hv/core/layout.h"

#define BASE_BSP (1ull << 8)
#define BASE_EXTD (1ull << 10)
#define BASE_EN (1ull << 11)
#define BASE_ADDR (((1ull << HV_CPUID_PHYS_BITS) - 1) & PAGE_MASK)

#define SVR_ENABLE (1u << 8)
#define SVR_WRITABLE 0x3ffu /* no suppression of EOI broadcasts */

#define LVT_STATUS (1u << 12)
#define LVT_REMOTE_IRR (1u << 14)

#define VERSION 0x00050014u /* integrated APIC, six LVT entries */

#define ESR_SEND_VECTOR (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)

#define ICR_BUSY (1ull << 12)
#define ICR_ASSERT (1ull << 14)
#define ICR_LEVEL (1ull << 15)
#define ICR_RESERVED 0xfff32000ull
#define ICR_XAPIC_WRITABLE 0x000ccfffull

static const uint32_t lvt_writable[HV_LVTS] = {
	[HV_LVT_TIMER] = 0x000700ff, [HV_LVT_THERMAL] = 0x000107ff, [HV_LVT_PERF] = 0x000107ff,
	[HV_LVT_LINT0] = 0x0001a7ff, [HV_LVT_LINT1] = 0x0001a7ff,   [HV_LVT_ERROR] = 0x000100ff,
};

void hv_lapic_fx(struct hv_lapic_effects *fx, struct hv_lapic_effect e)
{
	ASSERT(fx->count < HV_LAPIC_EFFECTS_MAX);
	fx->list[fx->count++] = e;
}

static void wake(struct hv_lapic_effects *fx)
{
	for (unsigned k = 0; k < fx->count; k++)
		if (fx->list[k].kind == HV_LAPIC_WAKE)
			return;
	hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_WAKE });
}

static bool is_enabled(const struct hv_lapic *l)
{
	return l->apic_base & BASE_EN;
}

static bool is_x2apic(const struct hv_lapic *l)
{
	return l->apic_base & BASE_EXTD;
}

static void addr_changed(struct hv_lapic_effects *fx)
{
	hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_ADDR_CHANGED });
}

/* --- reset ------------------------------------------------------------------------------------------- */

/* 11.12.10.2 */
static uint32_t x2apic_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

/* State after INIT (11.4.7.3): everything but id, base and mode. */
static void reset_registers(struct hv_lapic *l)
{
	*l = (struct hv_lapic){
		.apic_base = l->apic_base,
		.id = l->id,
		.ldr = is_x2apic(l) ? x2apic_ldr(l->id) : 0,
		.dfr = ~0u,
		.svr = 0xff,
		.sipi_pending = l->sipi_pending,
		.sipi_vector = l->sipi_vector,
	};
	for (unsigned k = 0; k < HV_LVTS; k++)
		l->lvt[k] = HV_LVT_MASKED;
}

void hv_lapic_init(struct hv_lapic *l, uint32_t id, bool boot_processor)
{
	ASSERT(id < VCPUS_MAX);
	*l = (struct hv_lapic){
		.apic_base = HV_LAPIC_BASE | BASE_EN | (boot_processor ? BASE_BSP : 0),
		.id = id,
	};
	reset_registers(l);
	l->wait_sipi = !boot_processor;
}

/* --- priorities (11.8.3, 11.8.4) --------------------------------------------------------------------- */

static void bit_set(uint32_t r[8], uint8_t v)
{
	r[v / 32] |= 1u << (v % 32);
}

static void bit_clear(uint32_t r[8], uint8_t v)
{
	r[v / 32] &= ~(1u << (v % 32));
}

static bool bit_test(const uint32_t r[8], uint8_t v)
{
	return (r[v / 32] >> (v % 32)) & 1;
}

static int highest(const uint32_t r[8])
{
	for (int w = 7; w >= 0; w--)
		if (r[w])
			return w * 32 + 31 - __builtin_clz(r[w]);
	return -1;
}

static uint32_t ppr(const struct hv_lapic *l)
{
	int in_service = highest(l->isr);
	uint32_t isrv = in_service < 0 ? 0 : (uint32_t)in_service;

	return l->tpr >> 4 >= isrv >> 4 ? l->tpr : isrv & 0xf0;
}

int hv_lapic_pending(const struct hv_lapic *l)
{
	int v = highest(l->irr);

	if (v < 0 || !is_enabled(l) || (uint32_t)v >> 4 <= ppr(l) >> 4)
		return -1;
	return v;
}

void hv_lapic_ack(struct hv_lapic *l, uint8_t vector)
{
	ASSERT(bit_test(l->irr, vector));
	bit_clear(l->irr, vector);
	bit_set(l->isr, vector);
}

/* 11.8.5 */
static void eoi(struct hv_lapic *l, struct hv_lapic_effects *fx)
{
	int v = highest(l->isr);

	if (v < 0)
		return;
	bit_clear(l->isr, (uint8_t)v);
	if (bit_test(l->tmr, (uint8_t)v))
		hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_EOI_BROADCAST,
							  .vector = (uint8_t)v });
}

uint64_t hv_lapic_cr8(const struct hv_lapic *l)
{
	return l->tpr >> 4;
}

void hv_lapic_set_cr8(struct hv_lapic *l, uint64_t cr8)
{
	/* The low nibble has no meaning for priorities, but is kept when the class did not change. */
	if (cr8 != l->tpr >> 4)
		l->tpr = (uint32_t)(cr8 & 0xf) << 4;
}

/* --- delivery ---------------------------------------------------------------------------------------- */

static void accept(struct hv_lapic *l, uint8_t vector, bool level, struct hv_lapic_effects *fx)
{
	bit_set(l->irr, vector);
	if (level)
		bit_set(l->tmr, vector);
	else
		bit_clear(l->tmr, vector);
	wake(fx);
}

/* 11.5.3: collects the error, and raises the error interrupt (which cannot fail in turn). */
static void error(struct hv_lapic *l, uint32_t bit, struct hv_lapic_effects *fx)
{
	uint32_t lvt = l->lvt[HV_LVT_ERROR];

	l->esr_pending |= bit;
	if (!(lvt & HV_LVT_MASKED) && (lvt & 0xff) >= 16)
		accept(l, lvt & 0xff, false, fx);
}

void hv_lapic_accept(struct hv_lapic *l, uint8_t vector, bool level, struct hv_lapic_effects *fx)
{
	if (!(l->svr & SVR_ENABLE))
		return; /* 11.4.7.2 */
	if (vector < 16)
		error(l, ESR_RECEIVE_VECTOR, fx);
	else
		accept(l, vector, level, fx);
}

void hv_lapic_deliver(struct hv_lapic *l, const struct hv_intr *i, struct hv_lapic_effects *fx)
{
	if (!is_enabled(l))
		return;
	switch (i->mode) {
	case HV_INTR_FIXED:
	case HV_INTR_LOWEST:
	case HV_INTR_EXTINT:
		hv_lapic_accept(l, i->vector, i->level, fx);
		break;
	case HV_INTR_NMI:
		l->nmi_pending = true;
		wake(fx);
		break;
	case HV_INTR_INIT:
		l->init_pending = true;
		l->sipi_pending = false;
		wake(fx);
		break;
	case HV_INTR_SIPI: /* 9.4.4.1: ignored unless the processor waits for it, or is about to */
		if (!l->wait_sipi && !l->init_pending)
			break;
		l->sipi_pending = true;
		l->sipi_vector = i->vector;
		wake(fx);
		break;
	default:
		break;
	}
}

enum hv_lapic_event hv_lapic_take(struct hv_lapic *l, bool nmi_ready, uint8_t *sipi_vector,
				  struct hv_lapic_effects *fx)
{
	if (l->init_pending) {
		reset_registers(l); /* clears init_pending */
		l->wait_sipi = !(l->apic_base & BASE_BSP);
		hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_SET_TIMER });
		addr_changed(fx);
		return HV_LAPIC_TAKE_INIT;
	}
	if (l->sipi_pending && l->wait_sipi) {
		l->sipi_pending = false;
		l->wait_sipi = false;
		*sipi_vector = l->sipi_vector;
		return HV_LAPIC_TAKE_SIPI;
	}
	l->sipi_pending = false; /* the boot processor after INIT does not wait for one */
	if (l->nmi_pending && !l->wait_sipi && nmi_ready) {
		l->nmi_pending = false;
		return HV_LAPIC_TAKE_NMI;
	}
	return HV_LAPIC_NOTHING;
}

bool hv_lapic_wants_cpu(const struct hv_lapic *l, bool interrupts_on)
{
	if (l->init_pending)
		return true;
	if (l->wait_sipi)
		return l->sipi_pending;
	return l->nmi_pending || (interrupts_on && hv_lapic_pending(l) >= 0);
}

struct hv_lapic_addr hv_lapic_addr(const struct hv_lapic *l)
{
	return (struct hv_lapic_addr){
		.id = l->id,
		.ldr = l->ldr,
		.enabled = is_enabled(l),
		.x2apic = is_x2apic(l),
		.flat = l->dfr >> 28 == 0xf,
	};
}

/* --- IPIs (11.6.1) ----------------------------------------------------------------------------------- */

static void self_ipi(struct hv_lapic *l, uint8_t vector, struct hv_lapic_effects *fx)
{
	if (vector < 16)
		error(l, ESR_SEND_VECTOR, fx);
	else
		hv_lapic_accept(l, vector, false, fx);
}

static void send_ipi(struct hv_lapic *l, struct hv_lapic_effects *fx)
{
	struct hv_intr i = {
		.dest = (uint32_t)(l->icr >> 32) >> (is_x2apic(l) ? 0 : 24),
		.source = l->id,
		.shorthand = (l->icr >> 18) & 3,
		.mode = (l->icr >> 8) & 7,
		.vector = l->icr & 0xff,
		.logical = (l->icr >> 11) & 1,
		.wide = is_x2apic(l),
	};

	/* Table 11-3: the trigger mode means something only for INIT, where level-deassert starts nothing. */
	if (i.mode == HV_INTR_INIT && (l->icr & ICR_LEVEL) && !(l->icr & ICR_ASSERT))
		return;
	if (i.mode == 3 || i.mode == HV_INTR_EXTINT || i.mode == HV_INTR_SMI)
		return;
	if ((i.mode == HV_INTR_FIXED || i.mode == HV_INTR_LOWEST) && i.vector < 16) {
		error(l, ESR_SEND_VECTOR, fx);
		return;
	}
	if (i.shorthand == HV_INTR_SELF) {
		if (i.mode == HV_INTR_FIXED || i.mode == HV_INTR_NMI)
			hv_lapic_deliver(l, &i, fx);
		return;
	}
	hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_SEND, .intr = i });
}

/* --- registers, by number: MSR - 0x800, or page offset >> 4 (table 11-6) ------------------------------ */

enum {
	R_ID = 0x02, R_VERSION = 0x03, R_TPR = 0x08, R_PPR = 0x0a, R_EOI = 0x0b, R_LDR = 0x0d, R_DFR = 0x0e,
	R_SVR = 0x0f, R_ISR = 0x10, R_TMR = 0x18, R_IRR = 0x20, R_ESR = 0x28, R_ICR = 0x30, R_ICR_HIGH = 0x31,
	R_LVT = 0x32, R_INITIAL = 0x38, R_CURRENT = 0x39, R_DIVIDE = 0x3e, R_SELF = 0x3f,
};

/* The 32-bit registers that both modes have.  False: there is none to read. */
static bool reg_read(const struct hv_lapic *l, unsigned reg, uint64_t tsc, uint32_t *out)
{
	switch (reg) {
	case R_VERSION: *out = VERSION; return true;
	case R_TPR: *out = l->tpr; return true;
	case R_PPR: *out = ppr(l); return true;
	case R_LDR: *out = l->ldr; return true;
	case R_SVR: *out = l->svr; return true;
	case R_ISR ... R_ISR + 7: *out = l->isr[reg - R_ISR]; return true;
	case R_TMR ... R_TMR + 7: *out = l->tmr[reg - R_TMR]; return true;
	case R_IRR ... R_IRR + 7: *out = l->irr[reg - R_IRR]; return true;
	case R_ESR: *out = l->esr; return true;
	case R_LVT ... R_LVT + HV_LVTS - 1: *out = l->lvt[reg - R_LVT]; return true;
	case R_INITIAL: *out = l->timer_initial; return true;
	case R_CURRENT: *out = hv_lapic_timer_count(l, tsc); return true;
	case R_DIVIDE: *out = l->timer_divide; return true;
	default: return false;
	}
}

/* Bits that a write may set, for registers that both modes can write; 0: not one of them. */
static uint32_t reg_writable(unsigned reg)
{
	switch (reg) {
	case R_TPR: return 0xff;
	case R_SVR: return SVR_WRITABLE;
	case R_LVT ... R_LVT + HV_LVTS - 1: return lvt_writable[reg - R_LVT];
	case R_INITIAL: return ~0u;
	case R_DIVIDE: return 0xb;
	default: return 0;
	}
}

static void svr_write(struct hv_lapic *l, uint32_t v)
{
	l->svr = v;
	if (v & SVR_ENABLE)
		return;
	for (unsigned k = 0; k < HV_LVTS; k++) /* 11.4.7.2 */
		l->lvt[k] |= HV_LVT_MASKED;
}

/* `v` has only writable bits. */
static void reg_write(struct hv_lapic *l, unsigned reg, uint32_t v, uint64_t tsc, struct hv_lapic_effects *fx)
{
	switch (reg) {
	case R_TPR:
		l->tpr = v;
		break;
	case R_SVR:
		svr_write(l, v);
		break;
	case R_LVT ... R_LVT + HV_LVTS - 1:
		if (!(l->svr & SVR_ENABLE))
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

/* --- MSRs -------------------------------------------------------------------------------------------- */

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
	if (!is_x2apic(l) || msr < HV_MSR_X2APIC_FIRST || msr > HV_MSR_X2APIC_LAST)
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

	if (v & ~(BASE_ADDR | BASE_EN | BASE_EXTD | BASE_BSP))
		return false;
	if ((v & BASE_EXTD) && (!(v & BASE_EN) || !(old & BASE_EN)))
		return false;
	if ((old & BASE_EXTD) && (v & BASE_EN) && !(v & BASE_EXTD))
		return false;
	l->apic_base = v;
	if ((old & BASE_EN) && !(v & BASE_EN)) {
		bool wait = l->wait_sipi;

		reset_registers(l);
		l->wait_sipi = wait;
		hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_SET_TIMER });
	}
	if (!(old & BASE_EXTD) && (v & BASE_EXTD)) {
		l->ldr = x2apic_ldr(l->id);
		l->icr &= 0xffffffffull; /* the destination had another format */
	}
	if ((old ^ v) & (BASE_EN | BASE_EXTD))
		addr_changed(fx);
	return true;
}

static bool x2apic_write(struct hv_lapic *l, unsigned reg, uint64_t v, uint64_t tsc, struct hv_lapic_effects *fx)
{
	switch (reg) {
	case R_ICR:
		if (v & ICR_RESERVED)
			return false;
		l->icr = v & ~ICR_BUSY;
		send_ipi(l, fx);
		return true;
	case R_EOI:
		if (v)
			return false;
		eoi(l, fx);
		return true;
	case R_ESR:
		if (v)
			return false;
		esr_write(l);
		return true;
	case R_SELF:
		if (v > 0xff)
			return false;
		self_ipi(l, (uint8_t)v, fx);
		return true;
	default:
		break;
	}
	if (!reg_writable(reg))
		return false;
	if (reg >= R_LVT && reg < R_LVT + HV_LVTS) /* read-only bits may come back as they were read */
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
	if (!is_x2apic(l) || msr < HV_MSR_X2APIC_FIRST || msr > HV_MSR_X2APIC_LAST)
		return false;
	return x2apic_write(l, msr - HV_MSR_X2APIC_FIRST, value, tsc, fx);
}

/* --- xAPIC page (11.4.1) ----------------------------------------------------------------------------- */

bool hv_lapic_has_mmio(const struct hv_lapic *l, gpa_t gpa)
{
	return is_enabled(l) && !is_x2apic(l) && (gpa & PAGE_MASK) == (l->apic_base & BASE_ADDR);
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

void hv_lapic_mmio_write(struct hv_lapic *l, uint32_t offset, unsigned size, uint64_t value, uint64_t tsc,
			 struct hv_lapic_effects *fx)
{
	uint32_t v = (uint32_t)value;
	unsigned reg = offset >> 4;

	if (size < 4 || (offset & 15))
		return;
	switch (reg) {
	case R_EOI:
		eoi(l, fx);
		break;
	case R_LDR:
		l->ldr = v & 0xff000000;
		addr_changed(fx);
		break;
	case R_DFR:
		l->dfr = v | 0x0fffffff;
		addr_changed(fx);
		break;
	case R_ESR:
		esr_write(l);
		break;
	case R_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (v & ICR_XAPIC_WRITABLE & ~ICR_BUSY);
		send_ipi(l, fx);
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
