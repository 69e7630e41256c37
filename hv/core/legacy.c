/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/legacy.c - small ports; see legacy.h.  Pure.
 */
#include "hv/core/legacy.h"

#define PORT_8042_DATA 0x60
#define PORT_8042 0x64
#define PORT_CMOS_INDEX 0x70
#define PORT_CMOS_DATA 0x71
#define PORT_92 0x92
#define PORT_PCI_ADDRESS 0xcf8
#define PORT_PCI_DATA 0xcfc

#define CMD_8042_RESET 0xfe
#define PORT92_RESET 0x01
#define PORT92_A20 0x02
#define CF9_RESET 0x04

/* ACPI 6.4, table 4.20: SLP_TYPx in bits 2-4, SLP_EN bit 5. */
#define SLEEP_ENABLE 0x20
#define SLEEP_TYPE(v) (((v) >> 2) & 7)

enum {
	RTC_SECONDS = 0,
	RTC_MINUTES = 2,
	RTC_HOURS = 4,
	RTC_WEEKDAY = 6,
	RTC_DAY,
	RTC_MONTH,
	RTC_YEAR,
	RTC_A,
	RTC_B,
	RTC_C,
	RTC_D,
	RTC_CENTURY = 0x32
};
#define RTC_A_32768 0x26 /* divider on, no update in progress */
#define RTC_B_24H 0x02
#define RTC_D_VALID 0x80

#define DAY_S 86400u

void hv_legacy_init(struct hv_legacy *l)
{
	*l = (struct hv_legacy){ .port92 = PORT92_A20 };
	l->cmos[RTC_A] = RTC_A_32768;
	l->cmos[RTC_B] = RTC_B_24H;
}

bool hv_legacy_has_port(uint16_t port)
{
	switch (port) {
	case PORT_8042_DATA:
	case PORT_8042:
	case PORT_CMOS_INDEX:
	case PORT_CMOS_DATA:
	case PORT_92:
	case HV_PORT_SLEEP_CONTROL:
	case HV_PORT_SLEEP_STATUS:
	case PORT_PCI_ADDRESS ... PORT_PCI_DATA + 3: /* 0xcf9, the reset register, is among them */
		return true;
	default:
		return false;
	}
}

static uint8_t bcd(unsigned v)
{
	return (uint8_t)(v / 10 << 4 | v % 10);
}

static bool is_leap(unsigned y)
{
	return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static unsigned days_in(unsigned year, unsigned month)
{
	static const uint8_t days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days since 1970-01-01 to a date; a loop over years is cheap and plainly right. */
static void date_of(uint64_t days, unsigned *year, unsigned *month, unsigned *day)
{
	unsigned y = 1970, m = 1;

	while (y < 9999 && days >= 365u + is_leap(y))
		days -= 365u + is_leap(y++);
	while (m < 12 && days >= days_in(y, m))
		days -= days_in(y, m++);
	*year = y;
	*month = m;
	*day = (unsigned)days + 1;
}

static uint8_t cmos_read(const struct hv_legacy *l, uint64_t unix_s)
{
	unsigned year, month, day, s = (unsigned)(unix_s % DAY_S);
	unsigned index = l->cmos_index & 0x7f;

	date_of(unix_s / DAY_S, &year, &month, &day);
	switch (index) {
	case RTC_SECONDS:
		return bcd(s % 60);
	case RTC_MINUTES:
		return bcd(s / 60 % 60);
	case RTC_HOURS:
		return bcd(s / 3600);
	case RTC_WEEKDAY:
		return bcd((unsigned)((unix_s / DAY_S + 4) % 7) + 1); /* 1 is Sunday */
	case RTC_DAY:
		return bcd(day);
	case RTC_MONTH:
		return bcd(month);
	case RTC_YEAR:
		return bcd(year % 100);
	case RTC_CENTURY:
		return bcd(year / 100);
	case RTC_C:
		return 0;
	case RTC_D:
		return RTC_D_VALID;
	default:
		return l->cmos[index];
	}
}

static uint32_t all_ones(unsigned size)
{
	return size >= 4 ? ~0u : (1u << (8 * size)) - 1;
}

uint32_t hv_legacy_read(struct hv_legacy *l, uint16_t port, unsigned size, uint64_t unix_s)
{
	switch (port) {
	case PORT_CMOS_DATA:
		return cmos_read(l, unix_s);
	case PORT_92:
		return l->port92;
	case HV_PORT_SLEEP_CONTROL:
	case HV_PORT_SLEEP_STATUS: /* never woken */
		return 0;
	case HV_PORT_RESET:
		return size == 1 ? 0 : all_ones(size);
	default: /* no 8042, no PCI */
		return all_ones(size);
	}
}

static void cmos_write(struct hv_legacy *l, uint8_t v)
{
	unsigned index = l->cmos_index & 0x7f;

	/* Plain memory, except for the clock, which is the host's, and its format, which stays BCD
	 * and 24 hours. */
	if (index > RTC_D && index != RTC_CENTURY)
		l->cmos[index] = v;
	else if (index == RTC_B)
		l->cmos[index] = (v & 0x80) | RTC_B_24H;
}

enum hv_legacy_effect hv_legacy_write(struct hv_legacy *l, uint16_t port, unsigned size,
				      uint32_t value)
{
	switch (port) {
	case PORT_8042:
		return (uint8_t)value == CMD_8042_RESET ? HV_LEGACY_RESET : HV_LEGACY_NONE;
	case PORT_CMOS_INDEX:
		l->cmos_index = (uint8_t)value;
		if (size >= 2) /* index and data at once */
			cmos_write(l, (uint8_t)(value >> 8));
		return HV_LEGACY_NONE;
	case PORT_CMOS_DATA:
		cmos_write(l, (uint8_t)value);
		return HV_LEGACY_NONE;
	case PORT_92:
		l->port92 = (uint8_t)value & ~PORT92_RESET;
		return value & PORT92_RESET ? HV_LEGACY_RESET : HV_LEGACY_NONE;
	case HV_PORT_RESET:
		return size == 1 && (value & CF9_RESET) ? HV_LEGACY_RESET : HV_LEGACY_NONE;
	case HV_PORT_SLEEP_CONTROL:
		if ((value & SLEEP_ENABLE) && SLEEP_TYPE(value) == HV_S5_SLP_TYP)
			return HV_LEGACY_POWEROFF;
		return HV_LEGACY_NONE;
	default:
		return HV_LEGACY_NONE;
	}
}
