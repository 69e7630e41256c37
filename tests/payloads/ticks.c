/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ticks.c - long series of local timer ticks on all processors at once: none lost, none doubled, none early; and time that
 * never runs backwards, on one processor or between them.
 *
 * What      One-shot series (TSC deadline, then the count): a tick may come only while one is armed, and the next is armed only
 *           by the last, in its handler or by what it wakes, so a lost one stops the series and a doubled one finds nothing
 *           armed.  Processors wait in hlt, in a loop, and with interrupts off.  Then periodic: never more ticks than periods;
 *           fewer only as far as ticks merge while a processor does not run; the long period must keep its grid.
 * Options   seconds=N for all (3); ticks=N, how many one-shot ticks there must be in all (100); period=CYCLES, the shortest
 *           periodic one (200000).
 *           ontime=1: the long periodic series keeps its grid, too; for a machine that has its CPUs for itself.
 * Limits    The timer's clock is compared with the TSC only where CPUID tells its rate (leaf 0x40000010).
 */
#include "rt/rt.h"

const char payload_name[] = "ticks";

#define VECTOR_TIMER 0x60
#define LVT_DEADLINE (2u << 17)
#define LVT_PERIODIC (1u << 17)
#define LVT_MASKED (1u << 16)
#define MSR_TSC_DEADLINE 0x6e0

static struct cpu {
	uint64_t due, seen_tsc, paused, tick_tsc, ticks_deadline, ticks_count, ticks_periodic, merged;
	uint64_t period, began, ticks, index, smooth, on_grid, unexplained;
	uint32_t armed, chain, seed;
	uint8_t fill[4096 - 15 * 8 - 3 * 4];
} cpus[CPUS_MAX] __attribute__((aligned(4096)));
_Static_assert(sizeof(struct cpu) == 4096, "a page of its own for each processor");
static struct barrier meet;
static uint64_t newest;
static bool deadline, exact, on_time;
static uint64_t phase_cycles, patience;
static uint64_t phase_end;

static uint32_t random_of(struct cpu *c)
{
	c->seed = c->seed * 1664525u + 1013904223u;
	return c->seed >> 8;
}

/* Time as this processor has it: not behind what it has seen before, nor behind what any has told. */
static uint64_t time_now(unsigned cpu, bool tell)
{
	struct cpu *c = &cpus[cpu];
	uint64_t told = load(&newest), now = rdtsc();

	CHECK(now >= told, "cpu %u: time is %lu cycles behind what another has told", cpu, told - now);
	CHECK(now >= c->seen_tsc, "cpu %u: time went back by %lu cycles", cpu, c->seen_tsc - now);
	if (now - c->seen_tsc > c->paused)
		c->paused = now - c->seen_tsc;
	c->seen_tsc = now;
	while (tell && now > told && !__atomic_compare_exchange_n(&newest, &told, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return now;
}

/* --- one-shot -------------------------------------------------------------------------------------------------------- */
/* Interrupts are off. */
static void arm(struct cpu *c)
{
	uint32_t cycles = (4000u << random_of(c) % 6) + random_of(c) % 4096;

	CHECK(!load(&c->armed), "armed twice");
	store(&c->due, rdtsc() + cycles);
	store(&c->armed, 1);
	if (deadline)
		wrmsr(MSR_TSC_DEADLINE, c->due);
	else
		apic_write(APIC_TIMER_INIT, cycles);
}

static void on_one_shot(unsigned cpu, uint64_t now)
{
	struct cpu *c = &cpus[cpu];

	CHECK(load(&c->armed), "cpu %u: a tick that nobody armed, behind tick %lu", cpu, c->ticks);
	CHECK(!exact || now >= c->due, "cpu %u: tick %lu came %lu cycles early", cpu, c->ticks, c->due - now);
	store(&c->armed, 0);
	add(&c->ticks, 1);
	if (c->chain && now < load(&phase_end)) {
		c->chain--;
		arm(c);
	}
}

/* What a register says of a timer that is armed. */
static void look(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint64_t a, b;

	irq_off();
	if (load(&c->armed) && deadline) {
		a = rdmsr(MSR_TSC_DEADLINE);
		CHECK(a == c->due || a == 0, "cpu %u: the deadline reads %lx, not %lx", cpu, a, c->due);
	} else if (load(&c->armed)) {
		a = apic_read(APIC_TIMER_NOW);
		b = apic_read(APIC_TIMER_NOW);
		CHECK(b <= a, "cpu %u: a one-shot count goes from %lu to %lu", cpu, a, b);
	}
	irq_on();
}

static void watch(uint64_t now)
{
	for (unsigned other = 0; other < platform.cpus; other++) {
		uint64_t due = load(&cpus[other].due);

		CHECK(!load(&cpus[other].armed) || now < due + patience || due != load(&cpus[other].due),
		      "cpu %u: the tick behind tick %lu is lost", other, load(&cpus[other].ticks));
	}
}

static void wait_tick(unsigned cpu, unsigned how)
{
	struct cpu *c = &cpus[cpu];

	if (how == 0) {
		irq_off();
		while (load(&c->armed))
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		irq_on();
		return;
	}
	for (unsigned turns = 0; load(&c->armed); turns++) {
		if (how == 1)
			irq_off();
		for (unsigned i = 0; i < 50; i++)
			pause();
		irq_on();
		if (turns % 8 == 0)
			look(cpu);
		if (turns % 16 == 15)
			watch(time_now(cpu, turns % 64 == 63));
	}
}

static void one_shots(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint64_t waits = 0;

	c->ticks = 0;
	c->seed = cpu + 1;
	apic_write(APIC_TIMER_DIV, 0xb); /* by 1 */
	apic_write(APIC_LVT_TIMER, (deadline ? LVT_DEADLINE : 0) | VECTOR_TIMER);
	__asm__ volatile("mfence" : : : "memory"); /* SDM vol 3, 11.5.4.1: LVT before the deadline */
	if (cpu == 0)
		store(&phase_end, rdtsc() + phase_cycles);
	barrier_wait(&meet);
	while (time_now(cpu, waits % 16 == 0) < load(&phase_end)) {
		irq_off();
		c->chain = random_of(c) % 6;
		arm(c);
		irq_on();
		wait_tick(cpu, (unsigned)(waits++ % 3));
	}
	/* No tick is armed any more: none may come. */
	for (uint64_t until = rdtsc() + 2000000; rdtsc() < until;)
		pause();
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	barrier_wait(&meet);
	if (deadline)
		c->ticks_deadline += c->ticks;
	else
		c->ticks_count += c->ticks;
}

/* --- periodic --------------------------------------------------------------------------------------------------------- */
static void on_period(unsigned cpu, uint64_t now)
{
	struct cpu *c = &cpus[cpu];
	uint64_t since = now - c->began, index = since / c->period;

	c->ticks++;
	if (!exact)
		return;
	CHECK(c->ticks <= index, "cpu %u: %lu ticks in %lu cycles, period %lu", cpu, c->ticks, since, c->period);
	if (c->paused < c->period / 8) { /* it ran all the time */
		c->smooth++;
		c->on_grid += since % c->period < c->period / 4;
	}
	/* A period without a tick is no wonder when the processor did not run. */
	if (index > c->index + 1 && c->paused < c->period / 2)
		c->unexplained++;
	c->index = index;
	c->paused = 0;
}

static void periodic(unsigned cpu, uint64_t period, uint64_t cycles, bool long_one)
{
	struct cpu *c = &cpus[cpu];
	uint64_t ticks, expected;

	irq_off();
	c->ticks = c->index = c->smooth = c->on_grid = c->unexplained = c->paused = 0;
	c->period = period;
	apic_write(APIC_TIMER_DIV, 0x0); /* by 2 */
	apic_write(APIC_LVT_TIMER, LVT_PERIODIC | VECTOR_TIMER);
	c->began = rdtsc();
	apic_write(APIC_TIMER_INIT, (uint32_t)(period / 2));
	irq_on();
	/* At least one: a processor that a busy host does not run takes its ticks late. */
	for (uint64_t now = c->began; now < c->began + cycles || !load(&c->ticks); now = time_now(cpu, false)) {
		CHECK(now < c->began + patience, "cpu %u: no tick in %lu periods", cpu, (now - c->began) / period);
		for (unsigned i = 0; i < 20; i++)
			pause();
	}
	irq_off();
	apic_write(APIC_TIMER_INIT, 0);
	expected = (rdtsc() - c->began) / period;
	irq_on();
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	for (uint64_t until = rdtsc() + 1000000; rdtsc() < until;)
		pause();
	ticks = load(&c->ticks);
	for (uint64_t until = rdtsc() + 1000000; rdtsc() < until;)
		pause();
	CHECK(load(&c->ticks) == ticks, "cpu %u: a stopped timer ticks", cpu);
	c->ticks_periodic += ticks;
	if (!exact)
		return;
	CHECK(ticks <= expected, "cpu %u: %lu ticks in %lu periods", cpu, ticks, expected);
	c->merged += expected - ticks;
	if (!long_one || !on_time)
		return;
	CHECK(c->unexplained <= 3 + expected / 50, "cpu %u: %lu of %lu periods without a tick though the processor ran", cpu,
	      c->unexplained, expected);
	CHECK(c->smooth < 10 || c->on_grid * 2 >= c->smooth, "cpu %u: %lu of %lu ticks within a quarter of their period: the grid is lost",
	      cpu, c->on_grid, c->smooth);
}

static void periods(unsigned cpu)
{
	uint64_t shortest = option("period", 200000);

	barrier_wait(&meet);
	for (unsigned k = 0; k < 4; k++)
		periodic(cpu, shortest << k, phase_cycles / 8, false);
	periodic(cpu, phase_cycles / 2 / 50, phase_cycles / 2, true);
	barrier_wait(&meet);
}

static void (*on_tick)(unsigned cpu, uint64_t now);

static void on_timer(struct trap_frame *f)
{
	unsigned cpu = cpu_id();
	struct cpu *c = &cpus[cpu];
	uint64_t now = rdtsc();

	(void)f;
	CHECK(now >= c->tick_tsc, "cpu %u: time went back by %lu cycles between two ticks", cpu, c->tick_tsc - now);
	c->tick_tsc = now;
	on_tick(cpu, now);
	apic_eoi();
}

void payload_main(void)
{
	uint64_t by_deadline = 0, by_count = 0, periodic_ticks = 0, merged = 0;
	uint32_t r[4];

	cpuid(1, 0, r);
	deadline = r[2] >> 24 & 1;
	on_time = option("ontime", 0);
	phase_cycles = tsc_hz(&exact) * option("seconds", 3) / 3;
	patience = PATIENCE_CYCLES / 2;
	trap_set(VECTOR_TIMER, on_timer);
	on_tick = on_one_shot;
	cpus_start();
	print("ticks: running\n");
	if (deadline)
		cpus_run(one_shots);
	deadline = false;
	cpus_run(one_shots);
	on_tick = on_period;
	cpus_run(periods);
	for (unsigned cpu = 0; cpu < platform.cpus; cpu++) {
		by_deadline += cpus[cpu].ticks_deadline;
		by_count += cpus[cpu].ticks_count;
		periodic_ticks += cpus[cpu].ticks_periodic;
		merged += cpus[cpu].merged;
	}
	CHECK(by_deadline + by_count >= option("ticks", 100), "%lu one-shot ticks only", by_deadline + by_count);
	print("ticks: %u processors, %lu ticks by deadline, %lu by count, %lu periodic (%lu more merged): none lost, doubled or early\n",
	      platform.cpus, by_deadline, by_count, periodic_ticks, merged);
}
