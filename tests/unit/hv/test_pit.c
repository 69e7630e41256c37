/* SPDX-License-Identifier: Apache-2.0 */
/* 8254: counting against time, byte order of accesses, latch and read-back, the gate of channel 2.
 * */
#include <criterion/criterion.h>

#include "hv/core/pit.h"

#define TICKS(n) (((n)*1000000000ull + HV_PIT_HZ - 1) / HV_PIT_HZ)

static struct hv_pit p;

static void start(void)
{
	hv_pit_init(&p);
}

static uint16_t rd16(uint16_t port, uint64_t ns)
{
	uint8_t low = hv_pit_read(&p, port, ns);

	return (uint16_t)(low | hv_pit_read(&p, port, ns) << 8);
}

static void wr16(uint16_t port, uint16_t v, uint64_t ns)
{
	hv_pit_write(&p, port, (uint8_t)v, ns);
	hv_pit_write(&p, port, (uint8_t)(v >> 8), ns);
}

/* What Linux does to calibrate the TSC: mode 0 on channel 2, all ones, watch the high byte fall. */
Test(pit, quick_calibration, .init = start)
{
	hv_pit_write(&p, 0x61, 1, 0);
	hv_pit_write(&p, 0x43, 0xb0, 0);
	wr16(0x42, 0xffff, 0);
	for (unsigned k = 0; k < 200; k++)
		cr_assert_eq(rd16(0x42, TICKS(k * 256ull) + 500) >> 8, 0xff - k, "step %u", k);
}

/* The slow way: a count that ends after 10 ms, seen in bit 5 of port 0x61. */
Test(pit, out2_rises_at_terminal_count, .init = start)
{
	uint16_t count = HV_PIT_HZ / 100;

	hv_pit_write(&p, 0x61, 1, 1000);
	hv_pit_write(&p, 0x43, 0xb0, 1000);
	wr16(0x42, count, 1000);
	cr_assert_eq(hv_pit_read(&p, 0x61, 1000) & 0x21, 0x01);
	cr_assert_eq(hv_pit_read(&p, 0x61, 1000 + TICKS(count - 1)) & 0x20, 0);
	cr_assert_eq(hv_pit_read(&p, 0x61, 1000 + TICKS(count)) & 0x20, 0x20);
	cr_assert_eq(hv_pit_read(&p, 0x61, 1000 + TICKS(5 * count)) & 0x20, 0x20);
}

/* Differences of rounded times are off by one tick at most. */
static bool near(unsigned count, unsigned want)
{
	return count + 1 >= want && count <= want + 1;
}

Test(pit, gate_holds_the_count, .init = start)
{
	hv_pit_write(&p, 0x43, 0xb0, 0);
	wr16(0x42, 1000, 0);
	cr_assert_eq(rd16(0x42, TICKS(500)), 1000, "gate is low at first");
	hv_pit_write(&p, 0x61, 1, TICKS(500));
	cr_assert(near(rd16(0x42, TICKS(700)), 800));
	hv_pit_write(&p, 0x61, 0, TICKS(700));
	cr_assert(near(rd16(0x42, TICKS(9000)), 800));
	hv_pit_write(&p, 0x61, 1, TICKS(9000));
	cr_assert(near(rd16(0x42, TICKS(9100)), 700));
}

Test(pit, rate_generator_repeats, .init = start)
{
	hv_pit_write(&p, 0x43, 0x34, 0);
	wr16(0x40, 1000, 0);
	cr_assert_eq(rd16(0x40, TICKS(10)), 990);
	cr_assert_eq(rd16(0x40, TICKS(1010)), 990);
	cr_assert_eq(rd16(0x40, TICKS(1000000010ull)), 990, "still exact after 14 minutes");
	wr16(0x40, 0, 0);
	cr_assert_eq(rd16(0x40, TICKS(1)), 0xffff, "0 is 65536");
}

Test(pit, square_wave, .init = start)
{
	hv_pit_write(&p, 0x61, 1, 0);
	hv_pit_write(&p, 0x43, 0xb6, 0);
	wr16(0x42, 1000, 0);
	cr_assert_eq(rd16(0x42, TICKS(100)), 800, "by two");
	cr_assert_eq(hv_pit_read(&p, 0x61, TICKS(400)) & 0x20, 0x20);
	cr_assert_eq(hv_pit_read(&p, 0x61, TICKS(600)) & 0x20, 0);
	cr_assert_eq(hv_pit_read(&p, 0x61, TICKS(1100)) & 0x20, 0x20);
}

Test(pit, latch_keeps_a_count, .init = start)
{
	hv_pit_write(&p, 0x43, 0x34, 0);
	wr16(0x40, 10000, 0);
	hv_pit_write(&p, 0x43, 0x00, TICKS(100));
	hv_pit_write(&p, 0x43, 0x00, TICKS(300)); /* a second latch is ignored */
	cr_assert_eq(rd16(0x40, TICKS(500)), 9900);
	cr_assert_eq(rd16(0x40, TICKS(500)), 9500);
}

Test(pit, access_modes, .init = start)
{
	hv_pit_write(&p, 0x43, 0x14, 0);
	hv_pit_write(&p, 0x40, 200, 0);
	cr_assert_eq(hv_pit_read(&p, 0x40, TICKS(50)), 150);
	cr_assert_eq(hv_pit_read(&p, 0x40, TICKS(60)), 140, "low byte each time");
	hv_pit_write(&p, 0x43, 0x24, 0);
	hv_pit_write(&p, 0x40, 2, 0);
	cr_assert_eq(hv_pit_read(&p, 0x40, TICKS(1)), 1, "high byte of 511");
}

Test(pit, read_back_status, .init = start)
{
	hv_pit_write(&p, 0x43, 0x34, 0);
	hv_pit_write(&p, 0x43, 0xe2, 0);
	cr_assert_eq(hv_pit_read(&p, 0x40, 0) & 0x7f, 0x74, "no count yet, both bytes, mode 2");
	wr16(0x40, 1000, 0);
	hv_pit_write(&p, 0x43, 0xc2, TICKS(10)); /* count and status */
	cr_assert_eq(hv_pit_read(&p, 0x40, TICKS(20)), 0xb4);
	cr_assert_eq(rd16(0x40, TICKS(30)), 990);
}

Test(pit, ports)
{
	cr_assert(hv_pit_has_port(0x40) && hv_pit_has_port(0x43) && hv_pit_has_port(0x61));
	cr_assert_not(hv_pit_has_port(0x44) || hv_pit_has_port(0x60));
}
