/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/guest/tscpass.c - does the TSC ever run backwards between two CPUs?
 *
 * What      For every pair of online CPUs, two threads pinned to them pass a TSC value back and forth through
 *           one shared word. The receiver reads its own TSC after it saw the value (rdtscp-free: lfence, as
 *           SDM vol 2 RDTSC asks) and counts a step backwards when its own is lower.
 * Use       tscpass MS-PER-PAIR; prints RESULT lines; exit status 1 when any value ran backwards, or when a
 *           pair passed fewer than PASSES_MIN values, for which it gets up to PATIENCE times as long.
 * Limits    Linux guest; CPUs 0 .. online - 1.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PASSES_MIN 16
#define PATIENCE 50

struct pair {
	_Atomic uint64_t ball; /* bits 63..1: TSC >> 1 << 1; bit 0: whose turn it is */
	_Atomic int stop;
	uint64_t until_ns, give_up_ns;
};

struct side {
	struct pair *pair;
	unsigned cpu, turn;
	uint64_t passes, backwards, worst;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t tsc_read(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static void *side_main(void *arg)
{
	struct side *s = arg;
	struct pair *p = s->pair;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(s->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("tscpass: sched_setaffinity");
		exit(2);
	}
	while (!atomic_load(&p->stop)) {
		uint64_t ball = 0, mine;
		unsigned spins = 0;

		while (((ball = atomic_load(&p->ball)) & 1) != s->turn && !atomic_load(&p->stop))
			if (__builtin_ia32_pause(), ++spins % 1024 == 0 && now_ns() > p->give_up_ns)
				atomic_store(&p->stop, 1);
		if ((ball & 1) != s->turn)
			break;
		mine = tsc_read() & ~1ull;
		if (mine < (ball & ~1ull)) {
			uint64_t by = (ball & ~1ull) - mine;

			s->backwards++;
			s->worst = by > s->worst ? by : s->worst;
		}
		s->passes++;
		if (s->passes >= PASSES_MIN && s->passes % 16 == 0 && now_ns() > p->until_ns)
			atomic_store(&p->stop, 1);
		atomic_store(&p->ball, (tsc_read() & ~1ull) | !s->turn);
	}
	return NULL;
}

static void pair_run(unsigned a, unsigned b, unsigned ms, struct side out[2])
{
	uint64_t span_ns = ms * 1000000ull, now = now_ns();
	struct pair p = { .until_ns = now + span_ns, .give_up_ns = now + PATIENCE * span_ns };
	pthread_t thread[2];

	for (unsigned i = 0; i < 2; i++) {
		out[i] = (struct side){ .pair = &p, .cpu = i ? b : a, .turn = i };
		if (pthread_create(&thread[i], NULL, side_main, &out[i])) {
			perror("tscpass: pthread_create");
			exit(2);
		}
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
	unsigned ms = argc > 1 ? (unsigned)atoi(argv[1]) : 200;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t passes = 0, least = UINT64_MAX, backwards = 0, worst = 0;

	for (long a = 0; a < cpus; a++)
		for (long b = a + 1; b < cpus; b++) {
			struct side s[2];
			uint64_t n;

			pair_run((unsigned)a, (unsigned)b, ms, s);
			n = s[0].passes + s[1].passes;
			passes += n;
			least = n < least ? n : least;
			for (unsigned i = 0; i < 2; i++) {
				backwards += s[i].backwards;
				worst = s[i].worst > worst ? s[i].worst : worst;
			}
		}
	printf("RESULT tsc_passes=%llu\nRESULT tsc_least_passes_of_a_pair=%llu\n"
	       "RESULT tsc_backwards=%llu\nRESULT tsc_worst_cycles=%llu\n",
	       (unsigned long long)passes, (unsigned long long)(cpus > 1 ? least : 0),
	       (unsigned long long)backwards, (unsigned long long)worst);
	return backwards != 0 || (cpus > 1 && least < PASSES_MIN);
}
