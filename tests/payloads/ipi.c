/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipi.c - interprocessor interrupts of every kind, between all pairs; every one arrives exactly once.
 *
 * What      Interrupts with the same vector merge while pending (SDM vol 3, 11.8.4), so a sender waits for each
 *           before the next; counts are per receiver and per sender's own vector.
 * Options   rounds=N of each kind.
 */
#include "rt/rt.h"

const char payload_name[] = "ipi";

#define VECTOR_FIRST 0x40 /* + sender */
#define NMI 2

static uint32_t got[CPUS_MAX][CPUS_MAX]; /* [receiver][sender] */
static uint32_t got_nmi[CPUS_MAX];
static struct barrier meet;
static unsigned rounds;
static bool x2_self;

static void on_ipi(struct trap_frame *f)
{
	add(&got[cpu_id()][f->vector - VECTOR_FIRST], 1);
	apic_eoi();
}

static void on_nmi(struct trap_frame *f)
{
	(void)f;
	add(&got_nmi[cpu_id()], 1);
}

static void wait_got(unsigned to, unsigned from, uint32_t count, const char *kind)
{
	WAIT_FOR(load(&got[to][from]) >= count, "%s ipi from %u to %u lost: %u of %u", kind, from, to,
		 load(&got[to][from]), count);
	CHECK(load(&got[to][from]) == count, "%s ipi from %u to %u doubled: %u of %u", kind, from, to,
	      load(&got[to][from]), count);
}

/* All processors at once, each to each other one and to itself, physical and logical. */
static void each_to_each(unsigned cpu)
{
	uint32_t sent[CPUS_MAX];

	for (unsigned to = 0; to < platform.cpus; to++)
		sent[to] = load(&got[to][cpu]);
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds; i++)
		for (unsigned to = 0; to < platform.cpus; to++) {
			if (i % 2 == 0)
				apic_ipi(to, ICR_FIXED | (VECTOR_FIRST + cpu));
			else
				apic_ipi(apic_logical(to), ICR_LOGICAL | (VECTOR_FIRST + cpu));
			wait_got(to, cpu, ++sent[to], i % 2 ? "logical" : "fixed");
		}
	barrier_wait(&meet);
}

static void shorthands(unsigned cpu)
{
	static const struct {
		uint32_t icr;
		bool self, others;
		const char *name;
	} kinds[] = { { ICR_SELF, true, false, "self" },
		      { ICR_ALL, true, true, "all" },
		      { ICR_OTHERS, false, true, "others" } };
	uint32_t sent[CPUS_MAX];

	for (unsigned to = 0; to < platform.cpus; to++)
		sent[to] = load(&got[to][cpu]);
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds * 3; i++) {
		unsigned k = (i + cpu) % 3;

		apic_ipi(0, kinds[k].icr | (VECTOR_FIRST + cpu));
		for (unsigned to = 0; to < platform.cpus; to++) {
			sent[to] += to == cpu ? kinds[k].self : kinds[k].others;
			wait_got(to, cpu, sent[to], kinds[k].name);
		}
	}
	if (x2_self) {
		wrmsr(0x83f, VECTOR_FIRST + cpu); /* SELF IPI register */
		wait_got(cpu, cpu, sent[cpu] + 1, "self register");
	}
	barrier_wait(&meet);
}

/* One logical destination that names several processors at once. */
static void logical_groups(unsigned cpu)
{
	uint32_t before[CPUS_MAX], dest = 0;

	for (unsigned turn = 0; turn < platform.cpus; turn++) {
		barrier_wait(&meet);
		if (turn != cpu)
			continue;
		for (unsigned to = 0; to < platform.cpus; to++)
			before[to] = load(&got[to][cpu]);
		for (unsigned to = 0; to < platform.cpus && to < 8; to++)
			dest |= to != cpu ? apic_logical(to) : 0;
		if (!dest)
			continue;
		apic_ipi(dest, ICR_LOGICAL | (VECTOR_FIRST + cpu));
		for (unsigned to = 0; to < platform.cpus && to < 8; to++)
			wait_got(to, cpu, before[to] + (to != cpu), "logical group");
	}
	barrier_wait(&meet);
}

static uint32_t got_from(unsigned cpu)
{
	uint32_t sum = 0;

	for (unsigned to = 0; to < platform.cpus; to++)
		sum += load(&got[to][cpu]);
	return sum;
}

/* Lowest priority among several: exactly one of them gets it. */
static void lowest(unsigned cpu)
{
	uint32_t dest = 0, sent = got_from(cpu);

	for (unsigned to = 0; to < platform.cpus && to < 8; to++)
		dest |= apic_logical(to);
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds; i++) {
		apic_ipi(dest, ICR_LOGICAL | ICR_LOWEST | (VECTOR_FIRST + cpu));
		sent++;
		WAIT_FOR(got_from(cpu) >= sent, "lowest priority ipi from %u lost: %u of %u", cpu, got_from(cpu), sent);
	}
	barrier_wait(&meet);
	CHECK(got_from(cpu) == sent, "lowest priority ipi from %u: %u arrived of %u", cpu, got_from(cpu), sent);
	barrier_wait(&meet);
}

/* The destination that names everybody, the sender too, physical and logical. */
static void broadcasts(unsigned cpu)
{
	uint32_t sent[CPUS_MAX], everybody = apic_x2 ? 0xffffffff : 0xff;

	for (unsigned to = 0; to < platform.cpus; to++)
		sent[to] = load(&got[to][cpu]);
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds; i++) {
		apic_ipi(everybody, (i % 2 ? ICR_LOGICAL : ICR_FIXED) | (VECTOR_FIRST + cpu));
		for (unsigned to = 0; to < platform.cpus; to++)
			wait_got(to, cpu, ++sent[to], i % 2 ? "logical broadcast" : "broadcast");
	}
	barrier_wait(&meet);
}

static void nmis(unsigned cpu)
{
	for (unsigned turn = 0; turn < platform.cpus; turn++) {
		barrier_wait(&meet);
		if (turn != cpu)
			continue;
		for (unsigned i = 0; i < rounds; i++)
			for (unsigned to = 0; to < platform.cpus; to++) {
				uint32_t want = load(&got_nmi[to]) + 1;

				apic_ipi(to, ICR_NMI);
				WAIT_FOR(load(&got_nmi[to]) >= want, "nmi from %u to %u lost", cpu, to);
				CHECK(load(&got_nmi[to]) == want, "nmi from %u to %u doubled", cpu, to);
			}
	}
	barrier_wait(&meet);
	if (cpu == 0)
		for (unsigned to = 0; to < platform.cpus; to++)
			CHECK(got_nmi[to] == rounds * platform.cpus, "cpu %u got %u nmis", to, got_nmi[to]);
}

/* With interrupts off nothing is delivered; with them on again it is, once, highest vector first. */
static void held_back(unsigned cpu)
{
	uint32_t before;

	if (cpu != 0)
		return;
	before = load(&got[0][0]);
	irq_off();
	apic_ipi(0, ICR_SELF | VECTOR_FIRST);
	apic_ipi(0, ICR_SELF | VECTOR_FIRST);
	for (unsigned i = 0; i < 1000; i++)
		pause();
	CHECK(load(&got[0][0]) == before, "an interrupt came through cli");
	irq_on();
	wait_got(0, 0, before + 1, "held back");
	apic_write(APIC_TPR, VECTOR_FIRST & 0xf0);
	apic_ipi(0, ICR_SELF | VECTOR_FIRST);
	for (unsigned i = 0; i < 1000; i++)
		pause();
	CHECK(load(&got[0][0]) == before + 1, "an interrupt came through the task priority");
	apic_write(APIC_TPR, 0);
	wait_got(0, 0, before + 2, "behind the task priority");
}

static void restarts(void)
{
	for (unsigned i = 0; i < 3; i++)
		for (unsigned cpu = 1; cpu < platform.cpus; cpu++) {
			uint32_t before = load(&got[cpu][0]);

			cpus_init_only(cpu);
			/* waits for SIPI now: a fixed interrupt must do nothing (and is lost) */
			apic_ipi(cpu, ICR_FIXED | VECTOR_FIRST);
			for (unsigned j = 0; j < 1000; j++)
				pause();
			CHECK(load(&got[cpu][0]) == before, "cpu %u runs after INIT", cpu);
			CHECK(cpu_restart(cpu), "cpu %u does not come up again", cpu);
		}
}

void payload_main(void)
{
	static void (*const kinds[])(unsigned) = { each_to_each, shorthands, logical_groups, lowest,
						    broadcasts,	  nmis,	      held_back };
	static const char *const names[] = { "each to each", "shorthands", "logical groups", "lowest priority",
					     "broadcasts",   "nmi",	   "held back" };

	rounds = (unsigned)option("rounds", 50);
	for (unsigned i = 0; i < CPUS_MAX; i++)
		trap_set(VECTOR_FIRST + i, on_ipi);
	trap_set(NMI, on_nmi);
	cpus_start();
	x2_self = apic_x2;
	for (unsigned again = 0; again < 2; again++) {
		for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
			cpus_run(kinds[i]);
			print("ipi: %s: ok\n", names[i]);
		}
		if (again)
			break;
		restarts();
		print("ipi: INIT and SIPI again: ok\n");
		memset(got_nmi, 0, sizeof(got_nmi));
	}
}
