/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/ioapic.c - I/O APIC; see ioapic.h.  Pure; the caller guards the struct.
 */
#include "hv/core/ioapic.h"

#include "base/assert.h"

#define OFF_SELECT 0x00
#define OFF_WINDOW 0x10
#define OFF_EOI 0x40

#define REG_ID 0x00
#define REG_VERSION 0x01
#define REG_ARBITRATION 0x02
#define REG_REDIR 0x10

#define RTE_LOGICAL (1ull << 11)
#define RTE_STATUS (1ull << 12)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_WRITABLE 0xff0000000001afffull
#define RTE_READ_ONLY (RTE_STATUS | RTE_REMOTE_IRR)

STATIC_ASSERT(HV_IOAPIC_PINS <= 64, "lines is one word");

void hv_ioapic_init(struct hv_ioapic *io, uint8_t id)
{
	*io = (struct hv_ioapic){ .id = id };
	for (unsigned k = 0; k < HV_IOAPIC_PINS; k++)
		io->redir[k] = RTE_MASKED;
}

/* Sends what the pin has to say: an edge that just came, or a level that is high and not yet in
 * service. */
static void send(struct hv_ioapic *io, unsigned pin, struct hv_ioapic_effects *fx)
{
	uint64_t rte = io->redir[pin];

	if (rte & RTE_MASKED)
		return; /* an edge on a masked pin is lost, as in the 82093AA */
	if (rte & RTE_LEVEL) {
		if (rte & RTE_REMOTE_IRR)
			return;
		io->redir[pin] |= RTE_REMOTE_IRR;
	}
	ASSERT(fx->count < HV_IOAPIC_PINS);
	fx->list[fx->count++] = (struct hv_intr){
		.dest = (uint32_t)(rte >> 56),
		.shorthand = HV_INTR_DEST,
		.mode = (rte >> 8) & 7,
		.vector = rte & 0xff,
		.logical = rte & RTE_LOGICAL,
		.level = rte & RTE_LEVEL,
	};
}

static bool line_high(const struct hv_ioapic *io, unsigned pin)
{
	return (io->lines >> pin) & 1;
}

void hv_ioapic_set_line(struct hv_ioapic *io, unsigned pin, bool high, struct hv_ioapic_effects *fx)
{
	bool was;

	ASSERT(pin < HV_IOAPIC_PINS);
	was = line_high(io, pin);
	io->lines = (io->lines & ~(1ull << pin)) | (uint64_t)high << pin;
	if (high && (!was || (io->redir[pin] & RTE_LEVEL)))
		send(io, pin, fx);
}

void hv_ioapic_eoi(struct hv_ioapic *io, uint8_t vector, struct hv_ioapic_effects *fx)
{
	for (unsigned pin = 0; pin < HV_IOAPIC_PINS; pin++) {
		uint64_t rte = io->redir[pin];

		if ((rte & 0xff) != vector || !(rte & RTE_LEVEL))
			continue;
		io->redir[pin] &= ~RTE_REMOTE_IRR;
		if (line_high(io, pin))
			send(io, pin, fx);
	}
}

static uint32_t window_read(const struct hv_ioapic *io)
{
	unsigned pin = (io->select - REG_REDIR) / 2u;

	switch (io->select) {
	case REG_ID:
	case REG_ARBITRATION:
		return (uint32_t)io->id << 24;
	case REG_VERSION:
		return (HV_IOAPIC_PINS - 1u) << 16 | 0x20;
	default:
		if (io->select < REG_REDIR || pin >= HV_IOAPIC_PINS)
			return 0;
		return (uint32_t)(io->redir[pin] >> (io->select & 1 ? 32 : 0));
	}
}

static void redir_write(struct hv_ioapic *io, unsigned pin, bool high_half, uint32_t v,
			struct hv_ioapic_effects *fx)
{
	uint64_t old = io->redir[pin], rte;

	if (high_half)
		rte = (old & 0xffffffffull) | (uint64_t)v << 32;
	else
		rte = (old & ~0xffffffffull) | v;
	rte = (rte & RTE_WRITABLE) | (old & RTE_READ_ONLY);
	if (!(rte & RTE_LEVEL))
		rte &= ~RTE_REMOTE_IRR; /* so Linux ends a stuck level interrupt */
	io->redir[pin] = rte;
	if ((rte & RTE_LEVEL) && line_high(io, pin))
		send(io, pin, fx);
}

uint64_t hv_ioapic_mmio_read(const struct hv_ioapic *io, uint32_t offset, unsigned size)
{
	uint32_t v = 0;

	if ((offset & ~3u) == OFF_SELECT)
		v = io->select;
	else if ((offset & ~3u) == OFF_WINDOW)
		v = window_read(io);
	v >>= 8 * (offset & 3);
	return size >= 4 ? v : v & ((1u << (8 * size)) - 1);
}

void hv_ioapic_mmio_write(struct hv_ioapic *io, uint32_t offset, unsigned size, uint64_t value,
			  struct hv_ioapic_effects *fx)
{
	unsigned pin = (io->select - REG_REDIR) / 2u;

	switch (offset) {
	case OFF_SELECT:
		io->select = (uint8_t)value;
		break;
	case OFF_WINDOW:
		if (size < 4)
			break;
		if (io->select == REG_ID)
			io->id = (value >> 24) & 0xf;
		else if (io->select >= REG_REDIR && pin < HV_IOAPIC_PINS)
			redir_write(io, pin, io->select & 1, (uint32_t)value, fx);
		break;
	case OFF_EOI:
		hv_ioapic_eoi(io, (uint8_t)value, fx);
		break;
	default:
		break;
	}
}
