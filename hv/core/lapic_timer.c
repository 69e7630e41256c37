/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/lapic_timer.c - the local APIC's timer: one-shot, periodic, TSC-deadline.
 *
 * What      Counts are never stepped: they follow from the guest TSC and from when the count was
 *           loaded.
 * Threads   The caller guards each struct.  No I/O.
 * Limits    A period shorter than MIN_PERIOD ticks fires only that often, so that a guest cannot
 *           make its node spin.
 * Spec      Intel SDM vol 3, 11.5.4.
 */
#include "hv/core/lapic_priv.h"

#define MODE_SHIFT 17
#define MODE_ONE_SHOT 0u
#define MODE_PERIODIC 1u
#define MODE_DEADLINE 2u

#define MIN_PERIOD 50000u

static unsigned mode(const struct hv_lapic *l)
{
	return (l->lvt[HV_LVT_TIMER] >> MODE_SHIFT) & 3;
}

bool hv_lapic_timer_is_deadline(const struct hv_lapic *l)
{
	return mode(l) == MODE_DEADLINE;
}

/* Figure 11-10: bits 0, 1 and 3; 0 is 2, 6 is 128, 7 is 1. */
static uint64_t divisor(const struct hv_lapic *l)
{
	unsigned code = (l->timer_divide & 3) | (l->timer_divide & 8) >> 1;

	return 1u << ((code + 1) & 7);
}

static void arm(struct hv_lapic *l, uint64_t deadline, struct hv_lapic_effects *fx)
{
	l->timer_deadline = deadline;
	hv_lapic_fx(fx,
		    (struct hv_lapic_effect){ .kind = HV_LAPIC_SET_TIMER, .deadline = deadline });
}

uint32_t hv_lapic_timer_count(const struct hv_lapic *l, uint64_t tsc)
{
	uint64_t since = tsc - l->timer_start, ticks; /* timer_start may lie before TSC 0 */

	if (!l->timer_initial || mode(l) > MODE_PERIODIC)
		return 0;
	ticks = (int64_t)since > 0 ? since / divisor(l) : 0;
	if (mode(l) == MODE_PERIODIC)
		return l->timer_initial - (uint32_t)(ticks % l->timer_initial);
	return ticks >= l->timer_initial ? 0 : l->timer_initial - (uint32_t)ticks;
}

/* Starts so that the count is `count` now. */
static void count_from(struct hv_lapic *l, uint32_t count, uint64_t tsc,
		       struct hv_lapic_effects *fx)
{
	if (!count) {
		arm(l, 0, fx);
		return;
	}
	l->timer_start = tsc - (uint64_t)(l->timer_initial - count) * divisor(l);
	arm(l, tsc + count * divisor(l), fx);
}

void hv_lapic_timer_set_initial(struct hv_lapic *l, uint32_t v, uint64_t tsc,
				struct hv_lapic_effects *fx)
{
	if (mode(l) > MODE_PERIODIC)
		return; /* 11.5.4.1: ignored in TSC-deadline mode */
	l->timer_initial = v;
	count_from(l, v, tsc, fx);
}

void hv_lapic_timer_set_divide(struct hv_lapic *l, uint32_t v, uint64_t tsc,
			       struct hv_lapic_effects *fx)
{
	uint32_t count = hv_lapic_timer_count(l, tsc);
	bool armed = l->timer_deadline != 0;

	l->timer_divide = v;
	if (armed && mode(l) <= MODE_PERIODIC)
		count_from(l, count, tsc, fx);
}

void hv_lapic_timer_set_lvt(struct hv_lapic *l, uint32_t v, uint64_t tsc,
			    struct hv_lapic_effects *fx)
{
	unsigned before = mode(l);
	uint32_t count = hv_lapic_timer_count(l, tsc);

	l->lvt[HV_LVT_TIMER] = v;
	if (mode(l) == before)
		return;
	if (before > MODE_PERIODIC || mode(l) > MODE_PERIODIC) { /* 11.5.4.1: disarmed */
		l->timer_initial = 0;
		arm(l, 0, fx);
	} else if (count) {
		count_from(l, count, tsc, fx);
	}
}

void hv_lapic_timer_set_deadline(struct hv_lapic *l, uint64_t v, uint64_t tsc,
				 struct hv_lapic_effects *fx)
{
	if (mode(l) != MODE_DEADLINE)
		return;
	l->timer_deadline = v;
	if (v && tsc >= v)
		hv_lapic_timer(l, tsc, fx);
	else
		arm(l, v, fx);
}

static uint64_t next_period(struct hv_lapic *l, uint64_t tsc)
{
	uint64_t period = l->timer_initial * divisor(l);
	uint64_t earliest = period < MIN_PERIOD ? tsc + MIN_PERIOD - period : tsc;

	l->timer_start += (earliest - l->timer_start) / period * period;
	return l->timer_start + period;
}

void hv_lapic_timer(struct hv_lapic *l, uint64_t tsc, struct hv_lapic_effects *fx)
{
	uint32_t lvt = l->lvt[HV_LVT_TIMER];

	if (!l->timer_deadline)
		return;
	if (tsc < l->timer_deadline) {
		arm(l, l->timer_deadline, fx);
		return;
	}
	if (!(lvt & HV_LVT_MASKED))
		hv_lapic_accept(l, lvt & 0xff, false, fx);
	arm(l, mode(l) == MODE_PERIODIC ? next_period(l, tsc) : 0, fx);
}
