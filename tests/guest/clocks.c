/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/guest/clocks.c - sleeps that never end early, a clock that never runs backwards, a timer that drops no expiry.
 *
 * What      On every online CPU at once, a thread pinned there sleeps to absolute times of CLOCK_MONOTONIC and compares: when
 *           it woke with when it asked for, each reading with the last of its own and with the newest that any thread has
 *           told.  A periodic timerfd beside it must have expired exactly as often as its period fits into the time.
 * Use       clocks MS; prints RESULT lines; exit status 1 when anything was early, backwards or missing.
 * Limits    Linux guest; CPUs 0 .. online - 1.  How late a sleep ends is told, not judged.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CPUS_MAX 64
#define LATE_MAX 65536 /* of a histogram by microseconds */
#define PERIOD_NS 12000000ull /* ticks of the kernel without high resolution timers: 4 ms */

struct cpu {
	pthread_t thread;
	unsigned id;
	uint64_t last_ns, sleeps, early, backwards, expiries_wrong, late_max_us;
};

static _Atomic uint64_t newest_ns;
static _Atomic uint32_t late_us[LATE_MAX];
static uint64_t until_ns;

static uint64_t now_ns(struct cpu *c)
{
	uint64_t told = atomic_load(&newest_ns), now;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	if (now < told || now < c->last_ns)
		c->backwards++;
	c->last_ns = now;
	while (now > told && !atomic_compare_exchange_weak(&newest_ns, &told, now))
		;
	return now;
}

static void sleep_once(struct cpu *c, uint64_t ns)
{
	uint64_t due = now_ns(c) + ns, late;
	struct timespec ts = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };

	if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL))
		return;
	late = now_ns(c);
	c->sleeps++;
	if (late < due) {
		c->early++;
		return;
	}
	late = (late - due) / 1000;
	if (late > c->late_max_us)
		c->late_max_us = late;
	atomic_fetch_add(&late_us[late < LATE_MAX ? late : LATE_MAX - 1], 1);
}

static int timer_start(uint64_t first_ns)
{
	struct itimerspec its = { .it_interval = { 0, (long)PERIOD_NS },
				  .it_value = { (time_t)(first_ns / 1000000000u), (long)(first_ns % 1000000000u) } };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);

	if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL)) {
		perror("clocks: timerfd");
		exit(2);
	}
	return fd;
}

static void *cpu_main(void *arg)
{
	struct cpu *c = arg;
	uint64_t first, before, after, expired;
	cpu_set_t set;
	int fd;

	CPU_ZERO(&set);
	CPU_SET(c->id, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("clocks: sched_setaffinity");
		exit(2);
	}
	first = now_ns(c) + PERIOD_NS;
	fd = timer_start(first);
	for (unsigned k = 0; c->last_ns < until_ns; k++)
		sleep_once(c, 100000u << k % 6);
	if (c->last_ns < first) /* so that there is an expiry: read blocks without one */
		sleep_once(c, first - c->last_ns);
	before = now_ns(c);
	if (read(fd, &expired, sizeof(expired)) != sizeof(expired))
		expired = 0;
	after = now_ns(c);
	if (expired < (before - first) / PERIOD_NS + 1 || expired > (after - first) / PERIOD_NS + 1)
		c->expiries_wrong++;
	close(fd);
	return NULL;
}

static unsigned long percentile(uint64_t sleeps, double share)
{
	uint64_t below = 0;
	unsigned long us = 0;

	while (us < LATE_MAX - 1 && (below += late_us[us]) < share * (double)sleeps)
		us++;
	return us;
}

int main(int argc, char **argv)
{
	static struct cpu cpus[CPUS_MAX];
	unsigned ms = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	struct cpu sum = { 0 };

	if (online > CPUS_MAX)
		online = CPUS_MAX;
	until_ns = now_ns(&sum) + ms * 1000000ull;
	for (long k = 0; k < online; k++) {
		cpus[k].id = (unsigned)k;
		if (pthread_create(&cpus[k].thread, NULL, cpu_main, &cpus[k])) {
			perror("clocks: pthread_create");
			return 2;
		}
	}
	for (long k = 0; k < online; k++) {
		pthread_join(cpus[k].thread, NULL);
		sum.sleeps += cpus[k].sleeps;
		sum.early += cpus[k].early;
		sum.backwards += cpus[k].backwards;
		sum.expiries_wrong += cpus[k].expiries_wrong;
		if (cpus[k].late_max_us > sum.late_max_us)
			sum.late_max_us = cpus[k].late_max_us;
	}
	printf("RESULT clocks_sleeps=%llu\nRESULT clocks_early=%llu\nRESULT clocks_backwards=%llu\n"
	       "RESULT clocks_expiries_wrong=%llu\nRESULT clocks_late_p50_us=%lu\nRESULT clocks_late_p99_us=%lu\n"
	       "RESULT clocks_late_max_us=%llu\n",
	       (unsigned long long)sum.sleeps, (unsigned long long)sum.early, (unsigned long long)sum.backwards,
	       (unsigned long long)sum.expiries_wrong, percentile(sum.sleeps, 0.5), percentile(sum.sleeps, 0.99),
	       (unsigned long long)sum.late_max_us);
	return sum.early || sum.backwards || sum.expiries_wrong || sum.sleeps < (uint64_t)online;
}
