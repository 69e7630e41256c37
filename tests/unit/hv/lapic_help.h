/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hv/lapic_help.h - a local APIC under test: short names for its registers, and the last
 * effects. */
#ifndef TESTS_UNIT_HV_LAPIC_HELP_H
#define TESTS_UNIT_HV_LAPIC_HELP_H

#include <criterion/criterion.h>

#include "hv/core/lapic.h"
#include "hv/core/layout.h"

#define MSR(offset) (0x800u + (offset))
#define ID MSR(0x02)
#define TPR MSR(0x08)
#define PPR MSR(0x0a)
#define EOI MSR(0x0b)
#define LDR MSR(0x0d)
#define SVR MSR(0x0f)
#define ESR MSR(0x28)
#define ICR MSR(0x30)
#define LVT_TIMER MSR(0x32)
#define LVT_LINT0 MSR(0x35)
#define LVT_ERROR MSR(0x37)
#define INITIAL MSR(0x38)
#define CURRENT MSR(0x39)
#define DIVIDE MSR(0x3e)
#define SELF MSR(0x3f)

#define BASE_X2APIC (HV_LAPIC_BASE | 0xd00ull)
#define DIVIDE_BY_1 0xbu

static struct hv_lapic_effects fx;

static inline bool wr_at(struct hv_lapic *l, uint32_t msr, uint64_t v, uint64_t tsc)
{
	fx.count = 0;
	return hv_lapic_msr_write(l, msr, v, tsc, &fx);
}

static inline bool wr(struct hv_lapic *l, uint32_t msr, uint64_t v)
{
	return wr_at(l, msr, v, 0);
}

static inline uint64_t rd_at(struct hv_lapic *l, uint32_t msr, uint64_t tsc)
{
	uint64_t v = 0;

	cr_assert(hv_lapic_msr_read(l, msr, tsc, &v), "read of msr %#x faults", msr);
	return v;
}

static inline uint64_t rd(struct hv_lapic *l, uint32_t msr)
{
	return rd_at(l, msr, 0);
}

static inline bool rd_faults(struct hv_lapic *l, uint32_t msr)
{
	uint64_t v;

	return !hv_lapic_msr_read(l, msr, 0, &v);
}

/* First effect of a kind, NULL when there is none. */
static inline const struct hv_lapic_effect *effect(enum hv_lapic_effect_kind kind)
{
	for (unsigned k = 0; k < fx.count; k++)
		if (fx.list[k].kind == kind)
			return &fx.list[k];
	return NULL;
}

static inline void deliver(struct hv_lapic *l, uint8_t mode, uint8_t vector, bool level)
{
	struct hv_intr i = { .mode = mode, .vector = vector, .level = level };

	fx.count = 0;
	hv_lapic_deliver(l, &i, &fx);
}

/* x2APIC mode, software-enabled, running. */
static inline struct hv_lapic ready(uint32_t id)
{
	struct hv_lapic l;

	hv_lapic_init(&l, id, true);
	cr_assert(wr(&l, HV_MSR_APIC_BASE, BASE_X2APIC));
	cr_assert(wr(&l, SVR, 0x1ff));
	return l;
}

#endif
