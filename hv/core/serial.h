/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/serial.h - a 16550A UART.
 *
 * What      Registers, FIFOs and interrupt conditions.  A written byte is sent at once.
 * Threads   One at a time per struct; the caller guards it.
 * Limits    Baud rate and line format are registers without effect.
 * Spec      National Semiconductor PC16550D data sheet.
 */
#ifndef HV_CORE_SERIAL_H
#define HV_CORE_SERIAL_H

#include "base/types.h"

#define HV_SERIAL_FIFO 16
#define HV_SERIAL_PORTS 8

struct hv_serial {
	uint8_t ier, fcr, lcr, mcr, scratch, dll, dlm;
	uint8_t rx[HV_SERIAL_FIFO];
	uint8_t rx_head, rx_count;
	bool thre_pending; /* THRE interrupt condition, cleared by reading IIR */
	bool overrun;
	bool line; /* interrupt output now, gated by OUT2 */
};

struct hv_serial_effects {
	bool sent; /* byte left the UART */
	uint8_t byte;
	bool irq_edge; /* the interrupt line rose: pulse HV_GSI_COM1 */
	bool rx_room;  /* the guest read a byte, or reset the FIFO: more input may be given */
};

void hv_serial_init(struct hv_serial *s);
/* reg: port - base, 0 .. 7.  Effects are overwritten. */
uint8_t hv_serial_read(struct hv_serial *s, unsigned reg, struct hv_serial_effects *fx);
void hv_serial_write(struct hv_serial *s, unsigned reg, uint8_t value,
		     struct hv_serial_effects *fx);
/* True when hv_serial_receive will take a byte. */
bool hv_serial_can_receive(const struct hv_serial *s);
/* A byte from outside; dropped with an overrun when there is no room. */
void hv_serial_receive(struct hv_serial *s, uint8_t byte, struct hv_serial_effects *fx);

#endif
