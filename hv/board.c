/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board.c - the devices that every machine has, all on node 0: IOAPIC, serial port, timer chip, and the small ports.
 *
 * What      Glue between the bus and the pure cores.
 * Threads   Device calls as hv/slice_priv.h; hv_board_input: the io thread.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"

#include <time.h>

#define BOARD_NODE 0

/* --- IOAPIC: a lock of its own, since pins move from anywhere ---------------------------------------------------- */

static uint64_t ioapic_read(struct hv_device *d, uint64_t addr, unsigned size)
{
	struct hv_board *b = &d->slice->board;
	uint64_t v;

	pthread_mutex_lock(&b->ioapic_lock);
	v = hv_ioapic_mmio_read(&b->ioapic, (uint32_t)(addr - HV_IOAPIC_BASE), size);
	pthread_mutex_unlock(&b->ioapic_lock);
	return v;
}

static void ioapic_write(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value)
{
	struct hv_board *b = &d->slice->board;
	struct hv_ioapic_effects fx = { 0 };

	pthread_mutex_lock(&b->ioapic_lock);
	hv_ioapic_mmio_write(&b->ioapic, (uint32_t)(addr - HV_IOAPIC_BASE), size, value, &fx);
	pthread_mutex_unlock(&b->ioapic_lock);
	for (unsigned i = 0; i < fx.count; i++)
		hv_irq_send(d->slice, &fx.list[i]);
}

static const struct hv_device_ops ioapic_ops = { .name = "ioapic",
						 .read = ioapic_read,
						 .write = ioapic_write };

/* --- serial port -------------------------------------------------------------------------------------------------- */

static void serial_effects(struct hv_slice *s, const struct hv_serial_effects *fx)
{
	if (fx->sent) {
		atomic_store(&s->console.serial_spoke, true);
		hv_console_put(s, &fx->byte, 1);
	}
	if (fx->irq_edge)
		hv_irq_pulse(s, HV_GSI_COM1);
	if (fx->rx_room)
		hv_io_wake(s);
}

static uint64_t serial_read(struct hv_device *d, uint64_t addr, unsigned size)
{
	struct hv_serial_effects fx;
	uint8_t v;

	(void)size; /* one register answers, as on an 8-bit bus */
	v = hv_serial_read(&d->slice->board.serial, (unsigned)(addr - HV_PORT_COM1), &fx);
	serial_effects(d->slice, &fx);
	return v;
}

static void serial_write(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value)
{
	struct hv_serial_effects fx;

	(void)size;
	hv_serial_write(&d->slice->board.serial, (unsigned)(addr - HV_PORT_COM1), (uint8_t)value,
			&fx);
	serial_effects(d->slice, &fx);
}

static const struct hv_device_ops serial_ops = { .name = "serial",
						 .read = serial_read,
						 .write = serial_write };

void hv_board_input(struct hv_slice *s)
{
	struct hv_board *b = &s->board;
	uint8_t byte;

	if (!b->serial_here || (!atomic_load(&s->console.serial_spoke) && hv_virtio_console_up(s)))
		return;
	pthread_mutex_lock(&b->serial_dev.lock);
	while (hv_serial_can_receive(&b->serial) && hv_console_peek(s, &byte, 1)) {
		struct hv_serial_effects fx;

		hv_console_taken(s, 1);
		hv_serial_receive(&b->serial, byte, &fx);
		serial_effects(s, &fx);
	}
	pthread_mutex_unlock(&b->serial_dev.lock);
}

/* --- timer chip ----------------------------------------------------------------------------------------------------- */

static uint64_t guest_ns(struct hv_slice *s)
{
	return (uint64_t)((unsigned __int128)hv_clock_guest_tsc(&s->clock) * 1000000 /
			  s->clock.tsc_khz);
}

static uint64_t pit_read(struct hv_device *d, uint64_t addr, unsigned size)
{
	(void)size;
	return hv_pit_read(&d->slice->board.pit, (uint16_t)addr, guest_ns(d->slice));
}

static void pit_write(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value)
{
	(void)size;
	hv_pit_write(&d->slice->board.pit, (uint16_t)addr, (uint8_t)value, guest_ns(d->slice));
}

static const struct hv_device_ops pit_ops = { .name = "pit", .read = pit_read, .write = pit_write };

/* --- clock, power, reset -------------------------------------------------------------------------------------------- */

static uint64_t legacy_read(struct hv_device *d, uint64_t addr, unsigned size)
{
	return hv_legacy_read(&d->slice->board.legacy, (uint16_t)addr, size, (uint64_t)time(NULL));
}

static void legacy_write(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value)
{
	struct hv_slice *s = d->slice;

	switch (hv_legacy_write(&s->board.legacy, (uint16_t)addr, size, (uint32_t)value)) {
	case HV_LEGACY_NONE:
		break;
	case HV_LEGACY_POWEROFF:
		hv_slice_end(s, CC_END_POWEROFF, s->spec->self, NULL, "the guest powered off");
		break;
	case HV_LEGACY_RESET:
		hv_slice_end(s, CC_END_POWEROFF, s->spec->self, NULL,
			     "the guest asked for a reset");
		break;
	}
}

static const struct hv_device_ops legacy_ops = { .name = "legacy",
						 .read = legacy_read,
						 .write = legacy_write };

/* -------------------------------------------------------------------------------------------------------------------- */

/* The ports a core answers, each run of them as one region. */
static void add_ports(struct hv_slice *s, bool (*has)(uint16_t port), struct hv_device *device)
{
	for (unsigned port = 0; port < 0x10000; port++) {
		unsigned first = port;

		while (port < 0x10000 && has((uint16_t)port))
			port++;
		if (port > first)
			hv_bus_add(s, HV_IO_PORT, first, port - first, BOARD_NODE, device);
	}
}

void hv_board_init(struct hv_slice *s)
{
	struct hv_board *b = &s->board;
	bool here = s->spec->self == BOARD_NODE;
	node_id serial_node = NODE_NONE;

	pthread_mutex_init(&b->ioapic_lock, NULL);
	hv_ioapic_init(&b->ioapic, 0);
	hv_serial_init(&b->serial);
	hv_pit_init(&b->pit);
	hv_legacy_init(&b->legacy);
	hv_device_init(&b->ioapic_dev, s, &ioapic_ops);
	hv_device_init(&b->serial_dev, s, &serial_ops);
	hv_device_init(&b->pit_dev, s, &pit_ops);
	hv_device_init(&b->legacy_dev, s, &legacy_ops);
	hv_bus_add(s, HV_IO_MMIO, HV_IOAPIC_BASE, HV_IOAPIC_SIZE, BOARD_NODE,
		   here ? &b->ioapic_dev : NULL);
	add_ports(s, hv_pit_has_port, here ? &b->pit_dev : NULL);
	add_ports(s, hv_legacy_has_port, here ? &b->legacy_dev : NULL);
	for (unsigned i = 0; i < s->spec->devices; i++)
		if (s->spec->device[i].kind == CC_DEV_SERIAL)
			serial_node = s->spec->device[i].node;
	if (serial_node == NODE_NONE)
		return;
	b->serial_here = serial_node == s->spec->self;
	hv_bus_add(s, HV_IO_PORT, HV_PORT_COM1, HV_SERIAL_PORTS, serial_node,
		   b->serial_here ? &b->serial_dev : NULL);
}
