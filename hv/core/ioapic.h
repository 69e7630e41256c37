/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/ioapic.h - the I/O APIC: pins to interrupt messages.
 *
 * What      A plain struct; lines, guest accesses and EOIs come in, messages (struct hv_intr) come
 *           out.
 * Threads   One at a time per struct; the caller guards it.
 * Limits    HV_IOAPIC_PINS pins, GSI = pin.  Version 0x20 with EOI register.
 * Spec      Intel 82093AA data sheet; EOI register as in Intel's chipset (PCH) data sheets.
 */
#ifndef HV_CORE_IOAPIC_H
#define HV_CORE_IOAPIC_H

#include "hv/core/intr.h"

#define HV_IOAPIC_PINS 48
#define HV_IOAPIC_SIZE 0x1000

struct hv_ioapic {
	uint8_t id, select;
	uint64_t lines;                 /* level of each pin now */
	uint64_t redir[HV_IOAPIC_PINS]; /* redirection entries, delivery status always 0 */
};

struct hv_ioapic_effects {
	unsigned count;                      /* set to 0 by the caller */
	struct hv_intr list[HV_IOAPIC_PINS]; /* deliver each, in order */
};

void hv_ioapic_init(struct hv_ioapic *io, uint8_t id);
/* offset within the page; size 1, 2, 4 or 8.  Unknown registers read 0 and ignore writes. */
uint64_t hv_ioapic_mmio_read(const struct hv_ioapic *io, uint32_t offset, unsigned size);
void hv_ioapic_mmio_write(struct hv_ioapic *io, uint32_t offset, unsigned size, uint64_t value,
			  struct hv_ioapic_effects *fx);
/* Sets the level of a pin.  An edge is high, then low.  pin < HV_IOAPIC_PINS. */
void hv_ioapic_set_line(struct hv_ioapic *io, unsigned pin, bool high,
			struct hv_ioapic_effects *fx);
/* EOI broadcast of a LAPIC: ends the level interrupts of this vector; a line still high delivers
 * again. */
void hv_ioapic_eoi(struct hv_ioapic *io, uint8_t vector, struct hv_ioapic_effects *fx);

#endif
