/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/cpus.c - APIC, start of the other processors, running one function on all of them.
 *
 * Threads   The boot processor commands; the others sleep in hlt until a wake interrupt and a new work number.
 */
#include "rt/rt.h"

#define MSR_APIC_BASE 0x1b
#define APIC_BASE_X2 (3u << 10)
#define MSR_X2APIC 0x800
#define APIC_MMIO 0xfee00000ull

bool apic_x2;

static uint32_t cpu_up[CPUS_MAX]; /* times a processor has come up */
static void (*work)(unsigned cpu);
static uint32_t work_number, work_done;

void ap_main(unsigned cpu);

/* --- APIC ------------------------------------------------------------------------------------------- */
uint32_t apic_read(unsigned reg)
{
	if (apic_x2)
		return (uint32_t)rdmsr(MSR_X2APIC + reg);
	return *(volatile uint32_t *)(APIC_MMIO + reg * 16);
}

void apic_write(unsigned reg, uint32_t value)
{
	if (apic_x2)
		wrmsr(MSR_X2APIC + reg, value);
	else
		*(volatile uint32_t *)(APIC_MMIO + reg * 16) = value;
}

void apic_ipi(uint32_t dest, uint32_t icr)
{
	uint64_t flags;

	icr |= ICR_ASSERT;
	if (apic_x2) {
		/* x2APIC writes do not serialise (SDM vol 3, 11.12.3): earlier stores must be seen first */
		__asm__ volatile("mfence; lfence" : : : "memory");
		wrmsr(MSR_X2APIC + 0x30, (uint64_t)dest << 32 | icr);
		return;
	}
	__asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
	while (apic_read(0x30) & 1u << 12)
		pause();
	apic_write(0x31, dest << 24);
	apic_write(0x30, icr);
	if (flags & 0x200)
		irq_on();
}

uint32_t apic_logical(unsigned cpu)
{
	return apic_x2 ? (cpu >> 4) << 16 | 1u << (cpu & 15) : 1u << (cpu & 7);
}

void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

void apic_init(void)
{
	uint32_t r[4];

	cpuid(1, 0, r);
	apic_x2 = (r[2] >> 21 & 1) && option("x2apic", 1);
	if (apic_x2)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
	if (!apic_x2) {
		apic_write(APIC_DFR, 0xffffffff); /* flat */
		apic_write(APIC_LDR, apic_logical(cpu_id()) << 24);
	}
	/* Firmware may have left a PIC ticking: it would come in as vector 8. */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_SVR, 0x100 | VECTOR_SPURIOUS);
}

/* --- processors --------------------------------------------------------------------------------------- */
unsigned cpu_id(void)
{
	uint64_t sp;

	__asm__ volatile("mov %%rsp, %0" : "=r"(sp));
	return (unsigned)((sp - (uint64_t)cpu_stacks) >> STACK_SHIFT);
}

static void on_wake(struct trap_frame *f)
{
	(void)f;
	apic_eoi();
}

void ap_main(unsigned cpu)
{
	uint32_t seen;

	trap_load();
	apic_init();
	seen = load(&work_number);
	add(&cpu_up[cpu], 1);
	for (;;) {
		irq_off();
		while (load(&work_number) == seen)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		irq_on();
		seen = load(&work_number);
		work(cpu);
		add(&work_done, 1);
	}
}

static void delay_cycles(uint64_t cycles)
{
	uint64_t until = rdtsc() + cycles;

	while (rdtsc() < until)
		pause();
}

void cpus_init_only(unsigned cpu)
{
	apic_ipi(cpu, ICR_INIT);
	delay_cycles(3000000); /* at least a millisecond */
}

bool cpu_restart(unsigned cpu)
{
	uint32_t before = load(&cpu_up[cpu]);

	memcpy((void *)AP_BASE, ap_start, (size_t)(ap_end - ap_start));
	trap_set(VECTOR_WAKE, on_wake);
	trap_set(VECTOR_SPURIOUS, on_wake);
	cpus_init_only(cpu);
	for (unsigned tries = 0; tries < 2; tries++) {
		uint64_t until = rdtsc() + PATIENCE_CYCLES / 2;

		apic_ipi(cpu, ICR_SIPI | AP_BASE >> 12);
		while (rdtsc() < until) {
			if (load(&cpu_up[cpu]) != before)
				return true;
			pause();
		}
	}
	return false;
}

void cpus_start(void)
{
	CHECK(cpu_id() == 0, "cpus_start on cpu %u", cpu_id());
	for (unsigned cpu = 1; cpu < platform.cpus; cpu++)
		CHECK(cpu_restart(cpu), "cpu %u does not come up", cpu);
}

void cpus_run(void (*fn)(unsigned cpu))
{
	store(&work_done, 0);
	store(&work, fn);
	add(&work_number, 1);
	apic_ipi(0, ICR_OTHERS | VECTOR_WAKE);
	fn(0);
	WAIT_FOR(load(&work_done) == platform.cpus - 1, "%u of %u processors came back", load(&work_done),
		 platform.cpus - 1);
}

void barrier_wait(struct barrier *b)
{
	uint32_t round = load(&b->round);

	if (add(&b->arrived, 1) == platform.cpus) {
		store(&b->arrived, 0);
		add(&b->round, 1);
		return;
	}
	WAIT_FOR(load(&b->round) != round, "cpu %u alone at a barrier, %u arrived", cpu_id(), load(&b->arrived));
}
