/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer.c - local timers of all processors: none early, none lost, none doubled, none after it was switched off.
 *
 * What      TSC-deadline where CPUID has it, else the one-shot count (which then can only be checked for arrival); then
 *           the count, one-shot and periodic.
 * Options   rounds=N timers of each processor; period=COUNTS of the periodic timer (200000): a processor that needs longer
 *           for a tick does nothing else.
 */
#include "rt/rt.h"

const char payload_name[] = "timer";

#define VECTOR_TIMER 0x60
#define LVT_DEADLINE (2u << 17)
#define LVT_PERIODIC (1u << 17)
#define LVT_MASKED (1u << 16)
#define MSR_TSC_DEADLINE 0x6e0

static struct {
	uint32_t ticks;
	uint64_t at;
} timer[CPUS_MAX];
static bool deadline;
static unsigned rounds;

static void on_timer(struct trap_frame *f)
{
	unsigned cpu = cpu_id();

	(void)f;
	timer[cpu].at = rdtsc();
	add(&timer[cpu].ticks, 1);
	apic_eoi();
}

static void arm(uint64_t cycles)
{
	if (deadline)
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + cycles);
	else
		apic_write(APIC_TIMER_INIT, (uint32_t)(cycles / 4) + 1);
}

static void disarm(void)
{
	if (deadline)
		wrmsr(MSR_TSC_DEADLINE, 0);
	else
		apic_write(APIC_TIMER_INIT, 0);
}

/* Sleeps in hlt until a tick: only the timer wakes this processor. */
static void sleep_until_tick(unsigned cpu, uint32_t ticks)
{
	irq_off();
	while (load(&timer[cpu].ticks) < ticks)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	irq_on();
}

/* A timer that is switched off before it is due never ticks. A host that stops us in between proves nothing: again. */
static void switch_off(unsigned cpu)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		uint64_t due = rdtsc() + (3000000ull << tries % 6);
		uint32_t ticks;

		arm(due - rdtsc());
		disarm();
		if (rdtsc() >= due)
			continue;
		ticks = load(&timer[cpu].ticks);
		while (rdtsc() < due + 3000000)
			pause();
		CHECK(load(&timer[cpu].ticks) == ticks, "cpu %u: a timer that was switched off ticks", cpu);
		return;
	}
	print("timer: cpu %u is stopped too often to switch one off in time\n", cpu);
}

/* One-shot: one tick and the count is 0. Periodic: ticks until it is switched off. */
static void counts(unsigned cpu)
{
	uint32_t ticks = load(&timer[cpu].ticks);

	apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
	apic_write(APIC_TIMER_INIT, 50000);
	sleep_until_tick(cpu, ++ticks);
	CHECK(apic_read(APIC_TIMER_NOW) == 0, "cpu %u: a one-shot timer goes on", cpu);
	apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
	apic_write(APIC_TIMER_INIT, (uint32_t)option("period", 200000));
	sleep_until_tick(cpu, ticks + 5);
	apic_write(APIC_TIMER_INIT, 0);
	CHECK(apic_read(APIC_TIMER_NOW) == 0, "cpu %u: a stopped timer counts", cpu);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	ticks = load(&timer[cpu].ticks);
	for (uint64_t until = rdtsc() + 3000000; rdtsc() < until;)
		pause();
	CHECK(load(&timer[cpu].ticks) - ticks <= 1, "cpu %u: a stopped timer ticks on", cpu); /* 1: was pending */
}

static void timers(unsigned cpu)
{
	apic_write(APIC_TIMER_DIV, 0xb); /* by 1 */
	apic_write(APIC_LVT_TIMER, (deadline ? LVT_DEADLINE : 0) | VECTOR_TIMER);
	__asm__ volatile("mfence" : : : "memory"); /* SDM vol 3, 11.5.4.1: LVT before the deadline */
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t cycles = 20000ull << i % 8, start = rdtsc();

		arm(cycles);
		sleep_until_tick(cpu, i + 1);
		CHECK(load(&timer[cpu].ticks) == i + 1, "cpu %u: %u ticks of %u timers", cpu, timer[cpu].ticks, i + 1);
		CHECK(!deadline || timer[cpu].at >= start + cycles, "cpu %u: a timer came %lu cycles early", cpu,
		      start + cycles - timer[cpu].at);
	}
	if (deadline) {
		wrmsr(MSR_TSC_DEADLINE, 1); /* long past */
		sleep_until_tick(cpu, rounds + 1);
		CHECK(rdmsr(MSR_TSC_DEADLINE) == 0, "a deadline that has passed still reads %lx",
		      rdmsr(MSR_TSC_DEADLINE));
	}
	switch_off(cpu);
	counts(cpu);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
}

void payload_main(void)
{
	uint32_t r[4];

	rounds = (unsigned)option("rounds", 24);
	cpuid(1, 0, r);
	deadline = r[2] >> 24 & 1;
	trap_set(VECTOR_TIMER, on_timer);
	cpus_start();
	cpus_run(timers);
	print("timer: %s on %u processors: ok\n", deadline ? "tsc deadline" : "one shot", platform.cpus);
}
