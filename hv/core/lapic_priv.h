/* SPDX-License-Identifier: Apache-2.0 */
/* hv/core/lapic_priv.h - what lapic.c, lapic_regs.c and lapic_timer.c share. */
#ifndef HV_CORE_LAPIC_PRIV_H
#define HV_CORE_LAPIC_PRIV_H

#include "base/assert.h"
#include "hv/core/lapic.h"

#define HV_APIC_BASE_BSP (1ull << 8)
#define HV_APIC_BASE_EXTD (1ull << 10)
#define HV_APIC_BASE_EN (1ull << 11)
#define HV_APIC_SVR_ENABLE (1u << 8)
#define HV_LVT_MASKED (1u << 16)

bool hv_lapic_is_enabled(const struct hv_lapic *l); /* globally */
bool hv_lapic_is_x2apic(const struct hv_lapic *l);
uint32_t hv_lapic_x2apic_ldr(uint32_t id);
/* State after INIT: everything but id, base and mode. */
void hv_lapic_reset(struct hv_lapic *l);
uint32_t hv_lapic_ppr(const struct hv_lapic *l);

void hv_lapic_fx(struct hv_lapic_effects *fx, struct hv_lapic_effect e);
/* An interrupt from inside or outside: into IRR, unless the APIC is software-disabled. */
void hv_lapic_accept(struct hv_lapic *l, uint8_t vector, bool level, struct hv_lapic_effects *fx);

void hv_lapic_addr_changed(struct hv_lapic_effects *fx);
void hv_lapic_eoi(struct hv_lapic *l, struct hv_lapic_effects *fx);
void hv_lapic_self_ipi(struct hv_lapic *l, uint8_t vector, struct hv_lapic_effects *fx);
/* What the ICR now says. */
void hv_lapic_send_ipi(struct hv_lapic *l, struct hv_lapic_effects *fx);

bool hv_lapic_timer_is_deadline(const struct hv_lapic *l);
/* Current count register. */
uint32_t hv_lapic_timer_count(const struct hv_lapic *l, uint64_t tsc);
void hv_lapic_timer_set_lvt(struct hv_lapic *l, uint32_t v, uint64_t tsc,
			    struct hv_lapic_effects *fx);
void hv_lapic_timer_set_initial(struct hv_lapic *l, uint32_t v, uint64_t tsc,
				struct hv_lapic_effects *fx);
void hv_lapic_timer_set_divide(struct hv_lapic *l, uint32_t v, uint64_t tsc,
			       struct hv_lapic_effects *fx);
void hv_lapic_timer_set_deadline(struct hv_lapic *l, uint64_t v, uint64_t tsc,
				 struct hv_lapic_effects *fx);

#endif
