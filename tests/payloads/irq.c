/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irq.c - a device's interrupt, by the IOAPIC, on every processor in turn, whichever node each is on.
 *
 * What      The serial port's transmitter-empty interrupt (GSI 4), edge, physical destination. Every write to the port
 *           gives one interrupt on the processor that the redirection entry names and on no other.
 * Options   rounds=N per processor.
 * Source    82093AA 3.2 (registers); 16550D, interrupt identification.
 */
#include "rt/rt.h"

const char payload_name[] = "irq";

#define COM1 0x3f8
#define GSI_COM1 4
#define VECTOR_COM 0x70
#define IOAPIC_MASKED (1u << 16)

static uint32_t got[CPUS_MAX];
static unsigned rounds;

static uint32_t ioapic(unsigned reg, uint32_t value, bool write)
{
	*(volatile uint32_t *)platform.ioapic = reg;
	if (write)
		*(volatile uint32_t *)(platform.ioapic + 0x10) = value;
	return *(volatile uint32_t *)(platform.ioapic + 0x10);
}

static void on_com(struct trap_frame *f)
{
	(void)f;
	if ((inb(COM1 + 2) & 0xf) == 2) /* transmitter empty; reading it acknowledges */
		add(&got[cpu_id()], 1);
	apic_eoi();
}

static void route(unsigned cpu)
{
	ioapic(0x10 + 2 * GSI_COM1, IOAPIC_MASKED | VECTOR_COM, true);
	ioapic(0x11 + 2 * GSI_COM1, cpu << 24, true);
	ioapic(0x10 + 2 * GSI_COM1, VECTOR_COM, true);
}

void payload_main(void)
{
	uint32_t want[CPUS_MAX] = { 0 };

	rounds = (unsigned)option("rounds", 5);
	CHECK(platform.ioapic, "no IOAPIC in the MADT");
	print("irq: ioapic at %lx, %u inputs\n", platform.ioapic, (ioapic(1, 0, false) >> 16 & 0xff) + 1);
	trap_set(VECTOR_COM, on_com);
	cpus_start();
	outb(COM1 + 4, 0x0b); /* OUT2 lets the interrupt through on a PC */
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned cpu = 0; cpu < platform.cpus; cpu++) {
			route(cpu);
			(void)inb(COM1 + 2);
			outb(COM1 + 1, 2); /* an empty transmitter interrupts as soon as it may */
			want[cpu]++;
			WAIT_FOR(load(&got[cpu]) >= want[cpu], "interrupt for cpu %u lost", cpu);
			outb(COM1, '.');
			want[cpu]++;
			WAIT_FOR(load(&got[cpu]) >= want[cpu], "interrupt for cpu %u after a byte lost", cpu);
			outb(COM1 + 1, 0);
			for (unsigned other = 0; other < platform.cpus; other++)
				CHECK(load(&got[other]) == want[other], "cpu %u got %u interrupts of %u", other,
				      got[other], want[other]);
		}
	ioapic(0x10 + 2 * GSI_COM1, IOAPIC_MASKED, true);
	print("\nirq: %u interrupts on each of %u processors: ok\n", rounds * 2, platform.cpus);
}
