/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/lapic.h - the local APIC of one vCPU, in xAPIC and x2APIC mode.
 *
 * What      A plain struct and the steps on it: guest reads and writes, delivery of a message, the
 *           timer, and taking an interrupt.  What must happen outside comes back as effects, to be
 *           performed in order.
 * Owns      Nothing: the struct is moved with its vCPU by copying it.
 * Threads   One at a time per struct: the caller guards it (a message may come from any thread).
 * Time      The guest TSC is passed as a value; deadlines are guest TSC values.  The timer's input
 *           clock is the TSC itself, divided as the divide configuration says.
 * Limits    No focus processor, no arbitration priority, no SMM; LINT0/1 are only registers (no
 *           PIC).
 * Spec      Intel SDM vol 3, chapter 11; sections cited in lapic.c.
 */
#ifndef HV_CORE_LAPIC_H
#define HV_CORE_LAPIC_H

#include "hv/core/intr.h"

#define HV_MSR_APIC_BASE 0x1bu
#define HV_MSR_TSC_DEADLINE 0x6e0u
#define HV_MSR_X2APIC_FIRST 0x800u
#define HV_MSR_X2APIC_LAST 0x8ffu

enum hv_lapic_lvt {
	HV_LVT_TIMER,
	HV_LVT_THERMAL,
	HV_LVT_PERF,
	HV_LVT_LINT0,
	HV_LVT_LINT1,
	HV_LVT_ERROR,
	HV_LVTS, /* six: no CMCI */
};

struct hv_lapic {
	uint64_t apic_base; /* IA32_APIC_BASE */
	uint32_t id;        /* full APIC id, read-only to the guest */
	uint32_t tpr, ldr, dfr, svr;
	uint32_t esr, esr_pending; /* as last latched by a write; collected since */
	uint64_t icr;
	uint32_t lvt[HV_LVTS];
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t timer_initial, timer_divide; /* divide: register value */
	uint64_t timer_start;                 /* guest TSC when the initial count was loaded */
	uint64_t timer_deadline; /* guest TSC of the next expiry, 0: not armed (all modes) */
	bool nmi_pending, init_pending, sipi_pending;
	bool wait_sipi; /* the vCPU must not run */
	uint8_t sipi_vector;
};

enum hv_lapic_effect_kind {
	/* route .intr (hv_intr_route), deliver it to the set; this vCPU may be in it */
	HV_LAPIC_SEND,
	HV_LAPIC_EOI_BROADCAST, /* tell the IOAPIC (hv_ioapic_eoi) that .vector is done */
	HV_LAPIC_SET_TIMER,     /* call hv_lapic_timer at guest TSC .deadline; 0: stop */
	HV_LAPIC_WAKE, /* the vCPU has something to look at: end its hlt, kick it if it runs */
	HV_LAPIC_ADDR_CHANGED, /* hv_lapic_addr has a new value */
};

struct hv_lapic_effect {
	enum hv_lapic_effect_kind kind;
	union {
		struct hv_intr intr;
		uint8_t vector;
		uint64_t deadline;
	};
};

#define HV_LAPIC_EFFECTS_MAX 4
struct hv_lapic_effects {
	unsigned count; /* set to 0 by the caller before each step; a step appends */
	struct hv_lapic_effect list[HV_LAPIC_EFFECTS_MAX];
};

/* Power-up state: xAPIC mode; the boot processor runs, the others wait for SIPI.  `id` < VCPUS_MAX.
 * */
void hv_lapic_init(struct hv_lapic *l, uint32_t id, bool boot_processor);

/* --- what the guest does; tsc is the guest TSC now --- */

/* True for the MSRs that belong to the LAPIC. */
bool hv_lapic_has_msr(uint32_t msr);
/* False: #GP(0), nothing changed. */
bool hv_lapic_msr_read(const struct hv_lapic *l, uint32_t msr, uint64_t tsc, uint64_t *out);
bool hv_lapic_msr_write(struct hv_lapic *l, uint32_t msr, uint64_t value, uint64_t tsc,
			struct hv_lapic_effects *fx);
/* True when gpa hits this LAPIC's register page (xAPIC mode only). */
bool hv_lapic_has_mmio(const struct hv_lapic *l, gpa_t gpa);
/* offset: 0 .. 0xfff within the page.  Accesses other than 32 bits at 16-byte boundaries are
 * undefined by the manual: here reads give the addressed bytes of the register, other writes are
 * dropped. */
uint64_t hv_lapic_mmio_read(const struct hv_lapic *l, uint32_t offset, unsigned size, uint64_t tsc);
void hv_lapic_mmio_write(struct hv_lapic *l, uint32_t offset, unsigned size, uint64_t value,
			 uint64_t tsc, struct hv_lapic_effects *fx);
/* CR8 and TPR are one: CR8 = TPR bits 4-7 (SDM vol 3, 11.8.6). */
uint64_t hv_lapic_cr8(const struct hv_lapic *l);
void hv_lapic_set_cr8(struct hv_lapic *l, uint64_t cr8);

/* --- what comes from outside --- */

/* A message that was routed here.  WAKE when the vCPU must look. */
void hv_lapic_deliver(struct hv_lapic *l, const struct hv_intr *i, struct hv_lapic_effects *fx);
/* The deadline may have passed: fires if so, and says the next one.  Early or doubled calls do no
 * harm. */
void hv_lapic_timer(struct hv_lapic *l, uint64_t tsc, struct hv_lapic_effects *fx);

/* --- what the vCPU thread asks before it runs the guest --- */

/* Vector of the interrupt to inject now (above the processor priority), or -1. */
int hv_lapic_pending(const struct hv_lapic *l);
/* The vector from hv_lapic_pending was injected: IRR to ISR. */
void hv_lapic_ack(struct hv_lapic *l, uint8_t vector);
/* It was not, after all: the engine hands it back before the guest has seen it. */
void hv_lapic_unack(struct hv_lapic *l, uint8_t vector);

enum hv_lapic_event {
	HV_LAPIC_NOTHING,
	/* put the vCPU (not the LAPIC) into INIT state; it runs or waits for SIPI */
	HV_LAPIC_TAKE_INIT,
	HV_LAPIC_TAKE_SIPI, /* start at cs base = vector << 12, selector vector << 8, rip 0 */
	/* inject an NMI when it can be taken: the caller keeps it from here on */
	HV_LAPIC_TAKE_NMI,
};
/* Takes one event, INIT first.  NMI is given only when nmi_ready.  INIT stops the timer (effect).
 * */
enum hv_lapic_event hv_lapic_take(struct hv_lapic *l, bool nmi_ready, uint8_t *sipi_vector,
				  struct hv_lapic_effects *fx);
/* True when a vCPU in hlt has to go on (interrupts_on: RFLAGS.IF). */
bool hv_lapic_wants_cpu(const struct hv_lapic *l, bool interrupts_on);

struct hv_lapic_addr hv_lapic_addr(const struct hv_lapic *l);

#endif
