/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/serial.c - 16550A; see serial.h.  Pure; register tables are of the PC16550D data sheet.
 */
#include "hv/core/serial.h"

#define IER_RX 0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08

#define IIR_NONE 0x01
#define IIR_THRE 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04

#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DATA 0x01
#define LSR_OVERRUN 0x02
#define LSR_THRE 0x20
#define LSR_IDLE 0x40

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

enum { R_DATA, R_IER, R_IIR_FCR, R_LCR, R_MCR, R_LSR, R_MSR, R_SCRATCH };

void hv_serial_init(struct hv_serial *s)
{
	*s = (struct hv_serial){ .dll = 1 };
}

static unsigned rx_trigger(const struct hv_serial *s)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* Highest pending interrupt condition (table IV of the data sheet). */
static uint8_t iir(const struct hv_serial *s)
{
	if ((s->ier & IER_LINE) && s->overrun)
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->rx_count >= rx_trigger(s))
		return IIR_RX;
	/* A byte below the trigger level: the character timeout is taken to be over at once. */
	if ((s->ier & IER_RX) && s->rx_count)
		return IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->thre_pending)
		return IIR_THRE;
	return IIR_NONE;
}

/* OUT2 gates the interrupt pin on PCs.  The line must fall and rise again for each THRE
 * (edge-triggered pin): `again` says that a new condition came up although the line may have stayed
 * high. */
static void update_line(struct hv_serial *s, bool again, struct hv_serial_effects *fx)
{
	bool high = iir(s) != IIR_NONE && (s->mcr & MCR_OUT2) && !(s->mcr & MCR_LOOP);

	fx->irq_edge = high && (!s->line || again);
	s->line = high;
}

static void push(struct hv_serial *s, uint8_t byte)
{
	unsigned room = s->fcr & FCR_ENABLE ? HV_SERIAL_FIFO : 1;

	if (s->rx_count >= room) {
		s->overrun = true;
		return;
	}
	s->rx[(s->rx_head + s->rx_count++) % HV_SERIAL_FIFO] = byte;
}

static uint8_t pop(struct hv_serial *s)
{
	uint8_t byte;

	if (!s->rx_count)
		return 0;
	byte = s->rx[s->rx_head];
	s->rx_head = (s->rx_head + 1) % HV_SERIAL_FIFO;
	s->rx_count--;
	return byte;
}

static uint8_t lsr_read(struct hv_serial *s)
{
	uint8_t v = LSR_THRE | LSR_IDLE;

	if (s->rx_count)
		v |= LSR_DATA;
	if (s->overrun)
		v |= LSR_OVERRUN;
	s->overrun = false;
	return v;
}

/* In loopback the modem outputs are the modem inputs; otherwise the line is up. */
static uint8_t msr_read(const struct hv_serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static uint8_t iir_read(struct hv_serial *s)
{
	uint8_t v = iir(s);

	if (v == IIR_THRE)
		s->thre_pending = false;
	return v | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

uint8_t hv_serial_read(struct hv_serial *s, unsigned reg, struct hv_serial_effects *fx)
{
	bool dlab = s->lcr & LCR_DLAB;
	uint8_t v;

	*fx = (struct hv_serial_effects){ 0 };
	switch (reg) {
	case R_DATA:
		if (dlab)
			return s->dll;
		fx->rx_room = s->rx_count != 0;
		v = pop(s);
		break;
	case R_IER:
		return dlab ? s->dlm : s->ier;
	case R_IIR_FCR:
		v = iir_read(s);
		break;
	case R_LCR:
		return s->lcr;
	case R_MCR:
		return s->mcr;
	case R_LSR:
		v = lsr_read(s);
		break;
	case R_MSR:
		return msr_read(s);
	default:
		return s->scratch;
	}
	update_line(s, false, fx);
	return v;
}

static void transmit(struct hv_serial *s, uint8_t byte, struct hv_serial_effects *fx)
{
	if (s->mcr & MCR_LOOP) {
		push(s, byte);
	} else {
		fx->sent = true;
		fx->byte = byte;
	}
	s->thre_pending = true;
	update_line(s, s->ier & IER_THRE, fx);
}

static void fcr_write(struct hv_serial *s, uint8_t v, struct hv_serial_effects *fx)
{
	if ((v & FCR_CLEAR_RX) || ((s->fcr ^ v) & FCR_ENABLE)) {
		s->rx_count = 0;
		fx->rx_room = true;
	}
	if (v & FCR_CLEAR_TX)
		s->thre_pending = true;
	s->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
}

void hv_serial_write(struct hv_serial *s, unsigned reg, uint8_t value, struct hv_serial_effects *fx)
{
	bool dlab = s->lcr & LCR_DLAB, again = false;

	*fx = (struct hv_serial_effects){ 0 };
	switch (reg) {
	case R_DATA:
		if (dlab)
			s->dll = value;
		else
			transmit(s, value, fx);
		return;
	case R_IER:
		if (dlab) {
			s->dlm = value;
			return;
		}
		if ((value & ~s->ier) &
		    IER_THRE) { /* enabling it with an empty holding register is a cause */
			s->thre_pending = true;
			again = true;
		}
		s->ier = value & 0x0f;
		break;
	case R_IIR_FCR:
		fcr_write(s, value, fx);
		break;
	case R_LCR:
		s->lcr = value;
		return;
	case R_MCR:
		s->mcr = value & 0x1f;
		break;
	case R_SCRATCH:
		s->scratch = value;
		return;
	default: /* LSR and MSR: read-only */
		return;
	}
	update_line(s, again, fx);
}

bool hv_serial_can_receive(const struct hv_serial *s)
{
	return s->rx_count < (s->fcr & FCR_ENABLE ? HV_SERIAL_FIFO : 1) && !(s->mcr & MCR_LOOP);
}

void hv_serial_receive(struct hv_serial *s, uint8_t byte, struct hv_serial_effects *fx)
{
	*fx = (struct hv_serial_effects){ 0 };
	if (s->mcr & MCR_LOOP)
		return; /* the input pin is disconnected */
	push(s, byte);
	update_line(s, s->ier & IER_RX, fx);
}
