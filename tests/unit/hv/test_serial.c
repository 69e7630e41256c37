/* SPDX-License-Identifier: Apache-2.0 */
/* 16550A: identification as drivers do it, transmit and receive interrupts, FIFO, loopback. */
#include <criterion/criterion.h>

#include "hv/core/serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct hv_serial s;
static struct hv_serial_effects fx;

static void start(void)
{
	hv_serial_init(&s);
}

static uint8_t rd(unsigned reg)
{
	return hv_serial_read(&s, reg, &fx);
}

static void wr(unsigned reg, uint8_t v)
{
	hv_serial_write(&s, reg, v, &fx);
}

Test(serial, is_a_16550a, .init = start)
{
	wr(SCR, 0xa5);
	cr_assert_eq(rd(SCR), 0xa5);
	wr(IER, 0xff);
	cr_assert_eq(rd(IER), 0x0f);
	wr(IER, 0);
	cr_assert_eq(rd(IIR) & 0xc1, 0x01, "no FIFO yet, nothing pending");
	wr(IIR, 0x01);
	cr_assert_eq(rd(IIR) & 0xc0, 0xc0);
	wr(LCR, 0x80);
	wr(DATA, 0x0c);
	wr(IER, 0x01);
	cr_assert_eq(rd(DATA), 0x0c);
	cr_assert_eq(rd(IER), 0x01);
	wr(LCR, 0x03);
	cr_assert_eq(rd(IER), 0, "the divisor latch is apart");
	cr_assert_eq(rd(LSR), 0x60);
	cr_assert_eq(rd(MSR), 0xb0);
}

Test(serial, transmit_interrupts, .init = start)
{
	wr(MCR, 0x08);
	wr(DATA, 'x');
	cr_assert(fx.sent);
	cr_assert_eq(fx.byte, 'x');
	cr_assert_not(fx.irq_edge, "not enabled");
	wr(IER, 0x02);
	cr_assert(fx.irq_edge, "enabling it with an empty register interrupts");
	cr_assert_eq(rd(IIR) & 0x0f, 0x02);
	cr_assert_eq(rd(IIR) & 0x0f, 0x01, "reading IIR takes it back");
	wr(DATA, 'y');
	cr_assert(fx.irq_edge);
	wr(DATA, 'z');
	cr_assert(fx.irq_edge, "each byte makes its own edge, though nobody read IIR");
	wr(MCR, 0);
	wr(DATA, 'w');
	cr_assert(fx.sent);
	cr_assert_not(fx.irq_edge, "OUT2 gates the pin");
}

Test(serial, receive, .init = start)
{
	wr(MCR, 0x08);
	wr(IIR, 0x81); /* FIFO, trigger 8 */
	wr(IER, 0x01);
	for (unsigned k = 0; k < HV_SERIAL_FIFO; k++) {
		cr_assert(hv_serial_can_receive(&s));
		hv_serial_receive(&s, (uint8_t)('a' + k), &fx);
		cr_assert(fx.irq_edge);
	}
	cr_assert_eq(rd(IIR) & 0x0f, 0x04);
	cr_assert_not(hv_serial_can_receive(&s));
	hv_serial_receive(&s, '!', &fx);
	cr_assert_eq(rd(LSR), 0x63, "overrun, data");
	cr_assert_eq(rd(LSR), 0x61, "overrun is told once");
	for (unsigned k = 0; k < HV_SERIAL_FIFO; k++) {
		cr_assert_eq(rd(DATA), 'a' + k);
		cr_assert(fx.rx_room);
	}
	cr_assert_eq(rd(IIR) & 0x0f, 0x01);
	cr_assert_eq(rd(LSR), 0x60);
	cr_assert_eq(rd(DATA), 0);
}

Test(serial, single_byte_times_out_in_fifo_mode, .init = start)
{
	wr(MCR, 0x08);
	wr(IIR, 0xc1); /* trigger 14 */
	wr(IER, 0x01);
	hv_serial_receive(&s, 'q', &fx);
	cr_assert(fx.irq_edge);
	cr_assert_eq(rd(IIR) & 0x0f, 0x0c);
	cr_assert_eq(rd(DATA), 'q');
	hv_serial_receive(&s, 'r', &fx);
	wr(IIR, 0x03); /* clears the FIFO */
	cr_assert(fx.rx_room);
	cr_assert_eq(rd(LSR), 0x60);
}

Test(serial, priorities, .init = start)
{
	wr(MCR, 0x08);
	wr(IER, 0x07);
	hv_serial_receive(&s, 'a', &fx);
	hv_serial_receive(&s, 'b', &fx); /* no FIFO: overrun */
	cr_assert_eq(rd(IIR) & 0x0f, 0x06);
	rd(LSR);
	cr_assert_eq(rd(IIR) & 0x0f, 0x04);
	cr_assert_eq(rd(DATA), 'a');
	cr_assert_eq(rd(IIR) & 0x0f, 0x02);
}

Test(serial, loopback, .init = start)
{
	wr(MCR, 0x1a); /* loop, OUT2, RTS: what drivers use to find the chip */
	cr_assert_eq(rd(MSR) & 0xf0, 0x90);
	wr(DATA, 'L');
	cr_assert_not(fx.sent);
	cr_assert_eq(rd(DATA), 'L');
	cr_assert_not(hv_serial_can_receive(&s));
	hv_serial_receive(&s, 'n', &fx);
	cr_assert_eq(rd(LSR) & 1, 0);
}
