/* SPDX-License-Identifier: Apache-2.0 */
/* CMOS clock, power and reset ports. */
#include <criterion/criterion.h>
#include <time.h>

#include "hv/core/legacy.h"

static struct hv_legacy l;

static void start(void)
{
	hv_legacy_init(&l);
}

static unsigned cmos(uint8_t index, uint64_t unix_s)
{
	hv_legacy_write(&l, 0x70, 1, index | 0x80); /* NMI bit is not part of the index */
	return hv_legacy_read(&l, 0x71, 1, unix_s);
}

static int from_bcd(unsigned v)
{
	return (int)(v >> 4) * 10 + (int)(v & 15);
}

/* Against the C library, over dates with every kind of leap year. */
Test(legacy, clock_agrees_with_gmtime, .init = start)
{
	for (uint64_t t = 0; t < 4200000000ull; t += 86400ull * 13 + 12345) {
		time_t tt = (time_t)t;
		struct tm tm;

		gmtime_r(&tt, &tm);
		cr_assert_eq(from_bcd(cmos(0, t)), tm.tm_sec);
		cr_assert_eq(from_bcd(cmos(2, t)), tm.tm_min);
		cr_assert_eq(from_bcd(cmos(4, t)), tm.tm_hour);
		cr_assert_eq(from_bcd(cmos(6, t)), tm.tm_wday + 1);
		cr_assert_eq(from_bcd(cmos(7, t)), tm.tm_mday);
		cr_assert_eq(from_bcd(cmos(8, t)), tm.tm_mon + 1);
		cr_assert_eq(from_bcd(cmos(9, t)) + 100 * from_bcd(cmos(0x32, t)),
			     tm.tm_year + 1900);
	}
	cr_assert_not(cmos(0x0a, 0) & 0x80, "never updating");
	cr_assert_eq(cmos(0x0b, 0) & 0x06, 0x02, "BCD, 24 hours");
	cr_assert_eq(cmos(0x0d, 0), 0x80);
}

Test(legacy, cmos_memory_but_not_the_clock, .init = start)
{
	cmos(0x40, 0);
	hv_legacy_write(&l, 0x71, 1, 0x5a);
	cr_assert_eq(cmos(0x40, 0), 0x5a);
	cmos(7, 0);
	hv_legacy_write(&l, 0x71, 1, 0x15);
	cr_assert_eq(cmos(7, 0), 0x01);
	cmos(0x0b, 0);
	hv_legacy_write(&l, 0x71, 1, 0x86);
	cr_assert_eq(cmos(0x0b, 0), 0x82);
}

Test(legacy, poweroff_needs_type_and_enable, .init = start)
{
	cr_assert_eq(hv_legacy_write(&l, HV_PORT_SLEEP_CONTROL, 1, HV_S5_SLP_TYP << 2),
		     HV_LEGACY_NONE);
	cr_assert_eq(hv_legacy_write(&l, HV_PORT_SLEEP_CONTROL, 1, 0x20 | 1 << 2), HV_LEGACY_NONE);
	cr_assert_eq(hv_legacy_write(&l, HV_PORT_SLEEP_CONTROL, 1, 0x20 | HV_S5_SLP_TYP << 2),
		     HV_LEGACY_POWEROFF);
	cr_assert_eq(hv_legacy_read(&l, HV_PORT_SLEEP_STATUS, 1, 0), 0);
}

Test(legacy, resets, .init = start)
{
	cr_assert_eq(hv_legacy_write(&l, 0x64, 1, 0xfe), HV_LEGACY_RESET);
	cr_assert_eq(hv_legacy_write(&l, 0x64, 1, 0xd1), HV_LEGACY_NONE);
	cr_assert_eq(hv_legacy_write(&l, 0x92, 1, 0x02), HV_LEGACY_NONE);
	cr_assert_eq(hv_legacy_read(&l, 0x92, 1, 0), 0x02);
	cr_assert_eq(hv_legacy_write(&l, 0x92, 1, 0x03), HV_LEGACY_RESET);
	cr_assert_eq(hv_legacy_write(&l, 0xcf9, 1, 0x02), HV_LEGACY_NONE);
	cr_assert_eq(hv_legacy_write(&l, HV_PORT_RESET, 1, HV_RESET_VALUE), HV_LEGACY_RESET);
	cr_assert_eq(hv_legacy_write(&l, 0xcf8, 4, 0x80000600), HV_LEGACY_NONE,
		     "PCI address, not a reset");
}

Test(legacy, no_pci, .init = start)
{
	hv_legacy_write(&l, 0xcf8, 4, 0x80000000);
	cr_assert_eq(hv_legacy_read(&l, 0xcf8, 4, 0), ~0u);
	cr_assert_eq(hv_legacy_read(&l, 0xcfc, 4, 0), ~0u);
	cr_assert_eq(hv_legacy_read(&l, 0xcfe, 2, 0), 0xffff);
	cr_assert(hv_legacy_has_port(0xcf9) && hv_legacy_has_port(0xcff));
	cr_assert_not(hv_legacy_has_port(0xd00));
}
