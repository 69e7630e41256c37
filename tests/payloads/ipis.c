/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipis.c - long series of interprocessor and device interrupts, each with a number: every one arrives exactly once.
 *
 * What      A sender writes the next number, sends, and waits until the receiver has taken that number.  A receiver that meets
 *           a number that is not its last one plus 1 has got an interrupt twice, or missed one.  Fixed (physical, logical, to
 *           itself, to all, to all others), lowest priority and NMI, to processors that run, that are in hlt, and that have
 *           interrupts off; the serial port's interrupt by the IOAPIC, edge and level; INIT and SIPI.
 * Options   seconds=N for all (3); ipis=N, how many there must be at least (100); x2apic=0: through the memory-mapped APIC.
 * Limits    Logical destinations name the first eight processors.
 */
#include "rt/rt.h"

const char payload_name[] = "ipis";

#define VECTOR_FIXED 0x40  /* + sender */
#define VECTOR_LOWEST 0x80 /* + sender */
#define VECTOR_COM 0x70
#define NMI 2
#define COM1 0x3f8
#define GSI_COM1 4
#define IOAPIC_REMOTE_IRR (1u << 14)
#define IOAPIC_LEVEL (1u << 15)
#define IOAPIC_MASKED (1u << 16)

/* A page for each processor: numbers of what it has sent, and of what it has taken. */
static struct cpu {
	uint32_t sent[CPUS_MAX], taken[CPUS_MAX]; /* to, from */
	uint32_t lowest_sent, lowest_taken;	  /* its own, taken by anybody */
	uint32_t nmi_sent, nmi_taken;		  /* to it, under nmi_lock */
	uint32_t com_sent, com_taken;		  /* to it, by the one whose turn it is */
	uint64_t ipis;
	uint8_t fill[4096 - 8 * CPUS_MAX - 4 * 6 - 8];
} cpus[CPUS_MAX] __attribute__((aligned(4096)));
_Static_assert(sizeof(struct cpu) == 4096, "a page of its own for each processor");
static struct barrier meet;
static uint32_t nmi_lock, senders_left, stop, phase;
static uint64_t patience, phase_cycles, phase_end;

/* --- receivers -------------------------------------------------------------------------------------------------------- */
static void take(uint32_t *taken, uint32_t number, const char *kind, unsigned from)
{
	CHECK(number == load(taken) + 1, "%s interrupt from %u to %u %s: number %u behind %u", kind, from, cpu_id(),
	      number == load(taken) ? "doubled" : "out of order", number, load(taken));
	store(taken, number);
}

static void on_fixed(struct trap_frame *f)
{
	unsigned from = (unsigned)f->vector - VECTOR_FIXED, to = cpu_id();

	take(&cpus[to].taken[from], load(&cpus[from].sent[to]), "fixed", from);
	apic_eoi();
}

static void on_lowest(struct trap_frame *f)
{
	unsigned from = (unsigned)f->vector - VECTOR_LOWEST;

	take(&cpus[from].lowest_taken, load(&cpus[from].lowest_sent), "lowest priority", from);
	apic_eoi();
}

static void on_nmi(struct trap_frame *f)
{
	struct cpu *c = &cpus[cpu_id()];

	(void)f;
	take(&c->nmi_taken, load(&c->nmi_sent), "nmi", 0);
}

static void on_com(struct trap_frame *f)
{
	struct cpu *c = &cpus[cpu_id()];

	(void)f;
	if ((inb(COM1 + 2) & 0xf) == 2) /* transmitter empty; reading it acknowledges */
		take(&c->com_taken, load(&c->com_sent), "serial", 0);
	apic_eoi();
}

/* --- senders ------------------------------------------------------------------------------------------------------------ */
static void await(const uint32_t *taken, uint32_t number, const char *kind, unsigned from, unsigned to)
{
	uint64_t until = rdtsc() + patience;
	uint32_t now;

	while ((now = load(taken)) != number) {
		CHECK(now + 1 == number, "%s interrupt from %u to %u doubled: %u of %u", kind, from, to, now, number);
		CHECK(rdtsc() < until, "%s interrupt from %u to %u lost: %u of %u", kind, from, to, now, number);
		pause();
	}
}

static void send_one(unsigned cpu, unsigned to, bool logical)
{
	struct cpu *c = &cpus[cpu];
	uint32_t number = add(&c->sent[to], 1);

	if (logical && to < 8)
		apic_ipi(apic_logical(to), ICR_LOGICAL | (VECTOR_FIXED + cpu));
	else
		apic_ipi(to, ICR_FIXED | (VECTOR_FIXED + cpu));
	await(&cpus[to].taken[cpu], number, logical ? "logical" : "fixed", cpu, to);
	c->ipis++;
}

static void send_many(unsigned cpu, uint32_t shorthand)
{
	struct cpu *c = &cpus[cpu];
	bool self = shorthand != ICR_OTHERS, others = shorthand != ICR_SELF;

	for (unsigned to = 0; to < platform.cpus; to++)
		if (to == cpu ? self : others)
			add(&c->sent[to], 1);
	apic_ipi(0, shorthand | (VECTOR_FIXED + cpu));
	for (unsigned to = 0; to < platform.cpus; to++)
		if (to == cpu ? self : others) {
			await(&cpus[to].taken[cpu], load(&c->sent[to]), "shorthand", cpu, to);
			c->ipis++;
		}
}

static void send_lowest(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	uint32_t dest = 0, number = add(&c->lowest_sent, 1);

	for (unsigned to = 0; to < platform.cpus && to < 8; to++)
		dest |= apic_logical(to);
	apic_ipi(dest, ICR_LOGICAL | ICR_LOWEST | (VECTOR_LOWEST + cpu));
	await(&c->lowest_taken, number, "lowest priority", cpu, CPUS_MAX);
	c->ipis++;
}

static void send_nmi(unsigned cpu, unsigned to)
{
	uint64_t until = rdtsc() + patience;

	while (__atomic_exchange_n(&nmi_lock, 1, __ATOMIC_ACQUIRE)) {
		CHECK(rdtsc() < until, "cpu %u never gets the lock", cpu);
		pause();
	}
	add(&cpus[to].nmi_sent, 1);
	apic_ipi(to, ICR_NMI);
	await(&cpus[to].nmi_taken, load(&cpus[to].nmi_sent), "nmi", cpu, to);
	__atomic_store_n(&nmi_lock, 0, __ATOMIC_RELEASE);
	cpus[cpu].ipis++;
}

static void send_self_register(unsigned cpu)
{
	uint32_t number = add(&cpus[cpu].sent[cpu], 1);

	wrmsr(0x83f, VECTOR_FIXED + cpu);
	await(&cpus[cpu].taken[cpu], number, "self", cpu, cpu);
	cpus[cpu].ipis++;
}

static void send_all_kinds(unsigned cpu, unsigned turn)
{
	for (unsigned to = 0; to < platform.cpus; to++)
		send_one(cpu, to, (turn + to) % 2);
	send_nmi(cpu, (turn + cpu) % platform.cpus);
	send_lowest(cpu);
	send_many(cpu, turn % 3 == 0 ? ICR_SELF : turn % 3 == 1 ? ICR_OTHERS : ICR_ALL);
	if (apic_x2)
		send_self_register(cpu);
}

/* --- phases: who sends and how the others wait ---------------------------------------------------------------------------- */
enum { RUN, HALT, OFF, WAITS };

static void receive(unsigned how)
{
	while (!load(&stop)) {
		irq_off();
		if (how == HALT && !load(&stop))
			__asm__ volatile("sti; hlt" : : : "memory");
		if (how == OFF)
			for (unsigned i = 0; i < 300; i++)
				pause();
		irq_on();
		pause();
	}
}

static void ipis(unsigned cpu)
{
	bool sends = load(&phase) == RUN || platform.cpus == 1 || (cpu + load(&phase)) % 2 == 0;

	if (cpu == 0)
		store(&phase_end, rdtsc() + phase_cycles);
	if (sends)
		add(&senders_left, 1);
	barrier_wait(&meet);
	if (sends) {
		for (unsigned turn = 0; rdtsc() < load(&phase_end); turn++)
			send_all_kinds(cpu, turn);
		if (add(&senders_left, -1u) == 0) {
			store(&stop, 1);
			apic_ipi(0, ICR_OTHERS | VECTOR_WAKE);
		}
	} else {
		receive(load(&phase) / 2 % 2 ? OFF : HALT);
	}
	barrier_wait(&meet);
}

static void ioapic(unsigned reg, uint32_t value)
{
	*(volatile uint32_t *)platform.ioapic = reg;
	*(volatile uint32_t *)(platform.ioapic + 0x10) = value;
}

/* The receiver's EOI has come back to the IOAPIC: the next level interrupt may be sent. */
static void await_eoi(unsigned cpu, unsigned to)
{
	uint64_t until = rdtsc() + patience;

	*(volatile uint32_t *)platform.ioapic = 0x10 + 2 * GSI_COM1;
	while (*(volatile uint32_t *)(platform.ioapic + 0x10) & IOAPIC_REMOTE_IRR)
		CHECK(rdtsc() < until, "end of a level interrupt from %u to %u lost", cpu, to);
}

/* Each processor in turn makes the serial port interrupt another; the others are in hlt or run. */
static void device(unsigned cpu)
{
	for (unsigned turn = 0; turn < 2 * platform.cpus; turn++) {
		uint32_t level = turn % 2 ? IOAPIC_LEVEL : 0;
		unsigned to = turn;

		if (turn / 2 != cpu) {
			barrier_wait(&meet);
			receive(turn % 2 ? HALT : RUN);
			barrier_wait(&meet);
			continue;
		}
		store(&stop, 0);
		store(&phase_end, rdtsc() + phase_cycles / (2 * platform.cpus));
		barrier_wait(&meet);
		while (rdtsc() < load(&phase_end)) {
			struct cpu *c = &cpus[to++ % platform.cpus];

			ioapic(0x10 + 2 * GSI_COM1, IOAPIC_MASKED | VECTOR_COM);
			ioapic(0x11 + 2 * GSI_COM1, (uint32_t)(c - cpus) << 24);
			ioapic(0x10 + 2 * GSI_COM1, VECTOR_COM | level);
			for (unsigned i = 0; i < 4; i++) {
				add(&c->com_sent, 1);
				outb(COM1 + 1, 2); /* an empty transmitter interrupts as soon as it may */
				await(&c->com_taken, load(&c->com_sent), level ? "serial level" : "serial edge", cpu,
				      (unsigned)(c - cpus));
				outb(COM1 + 1, 0);
				if (level)
					await_eoi(cpu, (unsigned)(c - cpus));
			}
		}
		ioapic(0x10 + 2 * GSI_COM1, IOAPIC_MASKED);
		store(&stop, 1);
		apic_ipi(0, ICR_OTHERS | VECTOR_WAKE);
		barrier_wait(&meet);
	}
}

/* A processor that waits for SIPI takes no interrupt, for a while in which it may be moved, and comes up again. */
static void restarts(void)
{
	for (unsigned cpu = 1; cpu < platform.cpus; cpu++) {
		uint32_t before = load(&cpus[cpu].taken[0]);

		cpus_init_only(cpu);
		apic_ipi(cpu, ICR_FIXED | VECTOR_FIXED);
		for (uint64_t until = rdtsc() + phase_cycles / 20; rdtsc() < until;)
			pause();
		CHECK(load(&cpus[cpu].taken[0]) == before, "cpu %u runs after INIT", cpu);
		CHECK(cpu_restart(cpu), "cpu %u does not come up again", cpu);
	}
}

void payload_main(void)
{
	uint64_t all = 0, coms = 0;

	patience = PATIENCE_CYCLES;
	phase_cycles = tsc_hz(NULL) * option("seconds", 3) / 6;
	for (unsigned i = 0; i < CPUS_MAX; i++) {
		trap_set(VECTOR_FIXED + i, i < 0x20 ? on_fixed : NULL);
		trap_set(VECTOR_LOWEST + i, on_lowest);
	}
	trap_set(VECTOR_COM, on_com);
	trap_set(NMI, on_nmi);
	CHECK(platform.ioapic, "no IOAPIC in the MADT");
	outb(COM1 + 4, 0x0b); /* OUT2 lets the interrupt through on a PC */
	cpus_start();
	print("ipis: running\n");
	for (unsigned k = 0; k < 5; k++) {
		store(&phase, k);
		store(&stop, 0);
		cpus_run(ipis);
	}
	cpus_run(device);
	restarts();
	store(&phase, RUN);
	phase_cycles /= 8;
	cpus_run(ipis);
	for (unsigned cpu = 0; cpu < platform.cpus; cpu++) {
		all += cpus[cpu].ipis;
		coms += cpus[cpu].com_taken;
		CHECK(cpus[cpu].lowest_sent == cpus[cpu].lowest_taken, "lowest priority from %u: %u of %u", cpu, cpus[cpu].lowest_taken,
		      cpus[cpu].lowest_sent);
		CHECK(cpus[cpu].nmi_sent == cpus[cpu].nmi_taken, "nmi to %u: %u of %u", cpu, cpus[cpu].nmi_taken, cpus[cpu].nmi_sent);
		CHECK(cpus[cpu].com_sent == cpus[cpu].com_taken, "serial to %u: %u of %u", cpu, cpus[cpu].com_taken, cpus[cpu].com_sent);
		for (unsigned to = 0; to < platform.cpus; to++)
			CHECK(cpus[cpu].sent[to] == cpus[to].taken[cpu], "from %u to %u: %u of %u", cpu, to, cpus[to].taken[cpu],
			      cpus[cpu].sent[to]);
	}
	CHECK(all >= option("ipis", 100), "%lu interprocessor interrupts only", all);
	CHECK(coms >= platform.cpus, "%lu interrupts of the serial port only", coms);
	print("ipis: %u processors, %s: %lu ipis, %lu interrupts of a device: none lost, none doubled\n", platform.cpus,
	      apic_x2 ? "x2apic" : "xapic", all, coms);
}
