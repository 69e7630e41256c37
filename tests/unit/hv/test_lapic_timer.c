/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC timer: one-shot, periodic and TSC-deadline mode. */
#include "lapic_help.h"

Test(lapic, one_shot)
{
	struct hv_lapic l = ready(0);

	wr(&l, DIVIDE, 3); /* by 16 */
	wr(&l, LVT_TIMER, 0x40);
	wr_at(&l, INITIAL, 1000, 5000);
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 5000 + 16000);
	cr_assert_eq(rd_at(&l, CURRENT, 5000), 1000);
	cr_assert_eq(rd_at(&l, CURRENT, 5000 + 160), 990);
	cr_assert_eq(rd_at(&l, CURRENT, 5000 + 16000), 0);
	fx.count = 0;
	hv_lapic_timer(&l, 20999, &fx);
	cr_assert_eq(hv_lapic_pending(&l), -1, "early");
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 21000);
	fx.count = 0;
	hv_lapic_timer(&l, 21000, &fx);
	cr_assert_eq(hv_lapic_pending(&l), 0x40);
	cr_assert(effect(HV_LAPIC_WAKE));
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 0);
	hv_lapic_ack(&l, 0x40);
	fx.count = 0;
	hv_lapic_timer(&l, 90000, &fx);
	cr_assert_eq(fx.count, 0, "once only");
}

Test(lapic, divide_values)
{
	static const struct {
		uint32_t code, by;
	} t[] = { { 0, 2 },  { 1, 4 },  { 2, 8 },    { 3, 16 },
		  { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 } };
	struct hv_lapic l = ready(0);

	for (unsigned k = 0; k < ARRAY_LEN(t); k++) {
		wr(&l, DIVIDE, t[k].code);
		wr_at(&l, INITIAL, 100, 0);
		cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 100ull * t[k].by, "code %u",
			     t[k].code);
	}
}

Test(lapic, periodic_keeps_its_phase)
{
	struct hv_lapic l = ready(0);

	wr(&l, DIVIDE, DIVIDE_BY_1);
	wr(&l, LVT_TIMER, 1u << 17 | 0x41);
	wr_at(&l, INITIAL, 1000000, 0);
	fx.count = 0;
	hv_lapic_timer(&l, 1000300, &fx); /* 300 late */
	cr_assert_eq(hv_lapic_pending(&l), 0x41);
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 2000000);
	cr_assert_eq(rd_at(&l, CURRENT, 1000300), 1000000 - 300);
	fx.count = 0;
	hv_lapic_timer(&l, 5500000, &fx); /* periods were missed: one interrupt, phase kept */
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 6000000);
	wr_at(&l, INITIAL, 0, 5600000);
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 0, "count 0 stops it");
	cr_assert_eq(rd_at(&l, CURRENT, 9000000), 0);
}

Test(lapic, tiny_period_cannot_spin)
{
	struct hv_lapic l = ready(0);
	uint64_t tsc = 0;
	unsigned fired = 0;

	wr(&l, DIVIDE, DIVIDE_BY_1);
	wr(&l, LVT_TIMER, 1u << 17 | 0x41);
	wr_at(&l, INITIAL, 1, 0);
	while (tsc < 1000000) {
		tsc = l.timer_deadline;
		fx.count = 0;
		hv_lapic_timer(&l, tsc, &fx);
		fired++;
	}
	cr_assert_lt(fired, 30);
}

Test(lapic, divide_change_keeps_the_count)
{
	struct hv_lapic l = ready(0);

	wr(&l, DIVIDE, DIVIDE_BY_1);
	wr(&l, LVT_TIMER, 0x41);
	wr_at(&l, INITIAL, 1000, 0);
	wr_at(&l, DIVIDE, 0, 400); /* by 2; 600 ticks left */
	cr_assert_eq(rd_at(&l, CURRENT, 400), 600);
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 400 + 1200);
}

Test(lapic, tsc_deadline)
{
	struct hv_lapic l = ready(0);

	cr_assert(wr(&l, HV_MSR_TSC_DEADLINE, 5000));
	cr_assert_eq(rd(&l, HV_MSR_TSC_DEADLINE), 0, "ignored in the other modes");
	wr(&l, LVT_TIMER, 2u << 17 | 0xec);
	wr(&l, INITIAL, 77);
	cr_assert_eq(rd(&l, INITIAL), 0, "ignored in deadline mode");
	cr_assert(wr_at(&l, HV_MSR_TSC_DEADLINE, 5000, 1000));
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 5000);
	cr_assert_eq(rd(&l, HV_MSR_TSC_DEADLINE), 5000);
	cr_assert_eq(rd_at(&l, CURRENT, 2000), 0);
	fx.count = 0;
	hv_lapic_timer(&l, 5000, &fx);
	cr_assert_eq(hv_lapic_pending(&l), 0xec);
	cr_assert_eq(rd(&l, HV_MSR_TSC_DEADLINE), 0);
	hv_lapic_ack(&l, 0xec);
	wr(&l, EOI, 0);
	cr_assert(wr_at(&l, HV_MSR_TSC_DEADLINE, 5999, 6000));
	cr_assert_eq(hv_lapic_pending(&l), 0xec, "a deadline in the past fires at once");
	hv_lapic_ack(&l, 0xec);
	wr(&l, EOI, 0);
	wr_at(&l, HV_MSR_TSC_DEADLINE, 9000, 6000);
	wr_at(&l, HV_MSR_TSC_DEADLINE, 0, 6000);
	fx.count = 0;
	hv_lapic_timer(&l, 9999, &fx);
	cr_assert_eq(hv_lapic_pending(&l), -1, "disarmed by 0");
	wr_at(&l, HV_MSR_TSC_DEADLINE, 9000, 6000);
	wr(&l, LVT_TIMER, 0xec);
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 0, "leaving the mode disarms");
}

Test(lapic, masked_timer_expires_silently)
{
	struct hv_lapic l = ready(0);

	wr(&l, LVT_TIMER, 2u << 17 | 1u << 16 | 0xec);
	wr_at(&l, HV_MSR_TSC_DEADLINE, 50, 10);
	fx.count = 0;
	hv_lapic_timer(&l, 60, &fx);
	cr_assert_eq(hv_lapic_pending(&l), -1);
	cr_assert_eq(rd(&l, HV_MSR_TSC_DEADLINE), 0);
}
