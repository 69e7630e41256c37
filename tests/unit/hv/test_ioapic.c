/* SPDX-License-Identifier: Apache-2.0 */
/* I/O APIC: register access, edge and level delivery, remote IRR, EOI by broadcast and by register.
 * */
#include <criterion/criterion.h>

#include "hv/core/ioapic.h"

#define MASKED (1u << 16)
#define LEVEL (1u << 15)
#define REMOTE_IRR (1u << 14)

static struct hv_ioapic io;
static struct hv_ioapic_effects fx;

static void wr(uint8_t reg, uint32_t v)
{
	fx.count = 0;
	hv_ioapic_mmio_write(&io, 0, 4, reg, &fx);
	hv_ioapic_mmio_write(&io, 0x10, 4, v, &fx);
}

static uint32_t rd(uint8_t reg)
{
	hv_ioapic_mmio_write(&io, 0, 4, reg, &fx);
	return (uint32_t)hv_ioapic_mmio_read(&io, 0x10, 4);
}

static void line(unsigned pin, bool high)
{
	fx.count = 0;
	hv_ioapic_set_line(&io, pin, high, &fx);
}

static void set_pin(unsigned pin, uint32_t low, uint32_t high)
{
	wr((uint8_t)(0x11 + 2 * pin), high);
	wr((uint8_t)(0x10 + 2 * pin), low);
}

static void start(void)
{
	hv_ioapic_init(&io, 2);
	fx.count = 0;
}

Test(ioapic, registers, .init = start)
{
	cr_assert_eq(rd(0), 2u << 24);
	cr_assert_eq(rd(1), (HV_IOAPIC_PINS - 1) << 16 | 0x20);
	wr(0, 0x0f000000);
	cr_assert_eq(rd(0), 0x0f000000);
	for (unsigned pin = 0; pin < HV_IOAPIC_PINS; pin++)
		cr_assert_eq(rd((uint8_t)(0x10 + 2 * pin)), MASKED);
	wr(0x12, 0xffffffff);
	cr_assert_eq(rd(0x12), 0x1afff, "status and remote IRR are read-only");
	wr(0x13, 0xffffffff);
	cr_assert_eq(rd(0x13), 0xff000000);
	wr((uint8_t)(0x10 + 2 * HV_IOAPIC_PINS), 0);
	cr_assert_eq(rd((uint8_t)(0x10 + 2 * HV_IOAPIC_PINS)), 0);
	cr_assert_eq(hv_ioapic_mmio_read(&io, 0x20, 4), 0);
}

Test(ioapic, edge, .init = start)
{
	set_pin(5, 0x0800 | 0x35, 0x03000000);
	line(5, true);
	cr_assert_eq(fx.count, 1);
	cr_assert_eq(fx.list[0].vector, 0x35);
	cr_assert_eq(fx.list[0].dest, 3);
	cr_assert(fx.list[0].logical);
	cr_assert_not(fx.list[0].level);
	cr_assert_not(fx.list[0].wide);
	line(5, true);
	cr_assert_eq(fx.count, 0, "still high is no edge");
	line(5, false);
	cr_assert_eq(fx.count, 0);
	line(5, true);
	cr_assert_eq(fx.count, 1);
}

Test(ioapic, masked_edge_is_lost_masked_level_waits, .init = start)
{
	set_pin(6, MASKED | 0x40, 0);
	line(6, true);
	set_pin(6, 0x40, 0);
	cr_assert_eq(fx.count, 0);
	set_pin(7, MASKED | LEVEL | 0x41, 0);
	line(7, true);
	cr_assert_eq(fx.count, 0);
	set_pin(7, LEVEL | 0x41, 0);
	cr_assert_eq(fx.count, 1);
	cr_assert(fx.list[0].level);
}

Test(ioapic, level_waits_for_eoi, .init = start)
{
	set_pin(9, LEVEL | 0x51, 0);
	line(9, true);
	cr_assert_eq(fx.count, 1);
	cr_assert(rd(0x10 + 18) & REMOTE_IRR);
	line(9, false);
	line(9, true);
	cr_assert_eq(fx.count, 0, "in service");
	fx.count = 0;
	hv_ioapic_eoi(&io, 0x52, &fx);
	cr_assert_eq(fx.count, 0, "EOI of another vector");
	cr_assert(rd(0x10 + 18) & REMOTE_IRR);
	hv_ioapic_eoi(&io, 0x51, &fx);
	cr_assert_eq(fx.count, 1, "line still high: again");
	line(9, false);
	hv_ioapic_mmio_write(&io, 0x40, 4, 0x51, &fx);
	cr_assert_eq(fx.count, 0);
	cr_assert_not(rd(0x10 + 18) & REMOTE_IRR, "EOI register works too");
}

Test(ioapic, shared_vector_ends_all_pins, .init = start)
{
	set_pin(10, LEVEL | 0x60, 0);
	set_pin(11, LEVEL | 0x60, 0);
	line(10, true);
	line(11, true);
	fx.count = 0;
	hv_ioapic_eoi(&io, 0x60, &fx);
	cr_assert_eq(fx.count, 2);
}

Test(ioapic, edge_mode_clears_remote_irr, .init = start)
{
	set_pin(12, LEVEL | 0x61, 0);
	line(12, true);
	line(12, false);
	set_pin(12, MASKED | 0x61, 0);
	set_pin(12, MASKED | LEVEL | 0x61, 0);
	cr_assert_not(rd(0x10 + 24) & REMOTE_IRR);
}

Test(ioapic, every_pin_can_deliver, .init = start)
{
	for (unsigned pin = 0; pin < HV_IOAPIC_PINS; pin++) {
		set_pin(pin, 0x20 + pin, 0);
		line(pin, true);
		cr_assert_eq(fx.count, 1);
		cr_assert_eq(fx.list[0].vector, 0x20 + pin);
	}
}
