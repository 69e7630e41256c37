/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/lapic.c - local APIC: reset, priorities, delivery, IPIs.
 *
 * The guest's view of it is in lapic_regs.c, the timer in lapic_timer.c.
 *
 * What      See lapic.h.  Section numbers are of Intel SDM vol 3, chapter 11 (APIC).
 * Threads   The caller guards each struct.  No I/O.
 */
#include "hv/core/lapic.h"
#include "hv/core/lapic_priv.h"
#include "hv/core/layout.h"

#define ESR_SEND_VECTOR (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)

#define ICR_ASSERT (1ull << 14)
#define ICR_LEVEL (1ull << 15)

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

bool hv_lapic_is_enabled(const struct hv_lapic *l)
{
	return l->apic_base & HV_APIC_BASE_EN;
}

bool hv_lapic_is_x2apic(const struct hv_lapic *l)
{
	return l->apic_base & HV_APIC_BASE_EXTD;
}

void hv_lapic_addr_changed(struct hv_lapic_effects *fx)
{
	hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_ADDR_CHANGED });
}

/* --- reset
 * ------------------------------------------------------------------------------------------- */

/* 11.12.10.2 */
uint32_t hv_lapic_x2apic_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

/* State after INIT (11.4.7.3): everything but id, base and mode. */
void hv_lapic_reset(struct hv_lapic *l)
{
	*l = (struct hv_lapic){
		.apic_base = l->apic_base,
		.id = l->id,
		.ldr = hv_lapic_is_x2apic(l) ? hv_lapic_x2apic_ldr(l->id) : 0,
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
		.apic_base =
			HV_LAPIC_BASE | HV_APIC_BASE_EN | (boot_processor ? HV_APIC_BASE_BSP : 0),
		.id = id,
	};
	hv_lapic_reset(l);
	l->wait_sipi = !boot_processor;
}

/* --- priorities (11.8.3, 11.8.4)
 * --------------------------------------------------------------------- */

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

uint32_t hv_lapic_ppr(const struct hv_lapic *l)
{
	int in_service = highest(l->isr);
	uint32_t isrv = in_service < 0 ? 0 : (uint32_t)in_service;

	return l->tpr >> 4 >= isrv >> 4 ? l->tpr : isrv & 0xf0;
}

int hv_lapic_pending(const struct hv_lapic *l)
{
	int v = highest(l->irr);

	if (v < 0 || !hv_lapic_is_enabled(l) || (uint32_t)v >> 4 <= hv_lapic_ppr(l) >> 4)
		return -1;
	return v;
}

void hv_lapic_ack(struct hv_lapic *l, uint8_t vector)
{
	ASSERT(bit_test(l->irr, vector));
	bit_clear(l->irr, vector);
	bit_set(l->isr, vector);
}

void hv_lapic_unack(struct hv_lapic *l, uint8_t vector)
{
	ASSERT(bit_test(l->isr, vector));
	bit_clear(l->isr, vector);
	bit_set(l->irr, vector);
}

/* 11.8.5 */
void hv_lapic_eoi(struct hv_lapic *l, struct hv_lapic_effects *fx)
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
	/* The low nibble has no meaning for priorities, but is kept when the class did not change.
	 * */
	if (cr8 != l->tpr >> 4)
		l->tpr = (uint32_t)(cr8 & 0xf) << 4;
}

/* --- delivery
 * ---------------------------------------------------------------------------------------- */

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
	if (!(l->svr & HV_APIC_SVR_ENABLE))
		return; /* 11.4.7.2 */
	if (vector < 16)
		error(l, ESR_RECEIVE_VECTOR, fx);
	else
		accept(l, vector, level, fx);
}

void hv_lapic_deliver(struct hv_lapic *l, const struct hv_intr *i, struct hv_lapic_effects *fx)
{
	if (!hv_lapic_is_enabled(l))
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
		hv_lapic_reset(l); /* clears init_pending */
		l->wait_sipi = !(l->apic_base & HV_APIC_BASE_BSP);
		hv_lapic_fx(fx, (struct hv_lapic_effect){ .kind = HV_LAPIC_SET_TIMER });
		hv_lapic_addr_changed(fx);
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
		.enabled = hv_lapic_is_enabled(l),
		.x2apic = hv_lapic_is_x2apic(l),
		.flat = l->dfr >> 28 == 0xf,
	};
}

/* --- IPIs (11.6.1)
 * ----------------------------------------------------------------------------------- */

void hv_lapic_self_ipi(struct hv_lapic *l, uint8_t vector, struct hv_lapic_effects *fx)
{
	if (vector < 16)
		error(l, ESR_SEND_VECTOR, fx);
	else
		hv_lapic_accept(l, vector, false, fx);
}

void hv_lapic_send_ipi(struct hv_lapic *l, struct hv_lapic_effects *fx)
{
	struct hv_intr i = {
		.dest = (uint32_t)(l->icr >> 32) >> (hv_lapic_is_x2apic(l) ? 0 : 24),
		.source = l->id,
		.shorthand = (l->icr >> 18) & 3,
		.mode = (l->icr >> 8) & 7,
		.vector = l->icr & 0xff,
		.logical = (l->icr >> 11) & 1,
		.wide = hv_lapic_is_x2apic(l),
	};

	/* Table 11-3: the trigger mode means something only for INIT, where level-deassert starts
	 * nothing. */
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
