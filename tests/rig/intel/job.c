/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/rig/intel/job.c - process 1 of the guest in the emulated Intel host: one checked sum over memory that all CPUs write.
 *
 * What      A thread on every CPU. Memory: PAGES pages, the first touch of each by the CPUs in turn, so that they lie on all
 *           nodes. In each round every CPU writes its share of the words of every page (the shares are interleaved, so pages are
 *           written by all), waits for the others, then sums up all words and adds 1 to a common counter under an atomic
 *           instruction ADDS times. All sums must be the one that arithmetic says, and the counter exact.
 * Output    "JOB key=value" lines on the console, the last one "JOB verdict=pass" or "fail"; then power-off.
 * Use       As /init; command line job.rounds=N job.pages=N.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PAGE_WORDS 512u
#define ADDS 200u
#define CPUS_MAX 16

struct job {
	unsigned cpus, rounds, pages;
	uint64_t *words;
	pthread_barrier_t barrier;
	_Atomic uint64_t counter;
};

struct worker {
	struct job *job;
	pthread_t thread;
	unsigned index, cpu, node;
	uint64_t sum, bad;
	int err;
};

/* What word `at` holds after round `round`: any function that mixes both will do. */
static uint64_t value(uint64_t at, uint64_t round)
{
	uint64_t x = at * 0x9e3779b97f4a7c15u + round * 0xbf58476d1ce4e5b9u;

	x ^= x >> 29;
	return x * 0x94d049bb133111ebu;
}

static uint64_t sum_of(const uint64_t *words, size_t count)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum = (sum << 1 | sum >> 63) + words[i];
	return sum;
}

static uint64_t sum_expected(size_t count, uint64_t round)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum = (sum << 1 | sum >> 63) + value(i, round);
	return sum;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct job *job = w->job;
	size_t count = (size_t)job->pages * PAGE_WORDS;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(w->index, &set);
	w->err = sched_setaffinity(0, sizeof(set), &set);
	if (getcpu(&w->cpu, &w->node))
		w->err = -1;
	for (size_t page = w->index; page < job->pages; page += job->cpus)
		job->words[page * PAGE_WORDS] = 0;
	pthread_barrier_wait(&job->barrier);
	for (unsigned round = 1; round <= job->rounds; round++) {
		for (size_t i = w->index; i < count; i += job->cpus)
			job->words[i] = value(i, round);
		pthread_barrier_wait(&job->barrier);
		w->sum = sum_of(job->words, count);
		w->bad += w->sum != sum_expected(count, round);
		for (unsigned i = 0; i < ADDS; i++)
			atomic_fetch_add(&job->counter, 1);
		pthread_barrier_wait(&job->barrier);
	}
	return NULL;
}

static int job_run(struct job *job)
{
	struct worker workers[CPUS_MAX] = { 0 };
	uint64_t bad = 0, wanted = (uint64_t)job->cpus * job->rounds * ADDS;

	for (unsigned i = 0; i < job->cpus; i++) {
		workers[i].job = job;
		workers[i].index = i;
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			return -1;
	}
	for (unsigned i = 0; i < job->cpus; i++) {
		struct worker *w = &workers[i];

		pthread_join(w->thread, NULL);
		printf("JOB worker=%u cpu=%u node=%u sum=%016llx wrong_rounds=%llu\n", i, w->cpu, w->node, (unsigned long long)w->sum,
		       (unsigned long long)w->bad);
		bad += w->bad + (w->cpu != i) + (w->err != 0);
	}
	printf("JOB sum_expected=%016llx\n",
	       (unsigned long long)sum_expected((size_t)job->pages * PAGE_WORDS, job->rounds));
	printf("JOB counter=%llu counter_expected=%llu\n", (unsigned long long)job->counter, (unsigned long long)wanted);
	return bad || job->counter != wanted;
}

static unsigned option(const char *cmdline, const char *name, unsigned otherwise)
{
	const char *at = strstr(cmdline, name);

	return at ? (unsigned)strtoul(at + strlen(name), NULL, 10) : otherwise;
}

int main(void)
{
	struct job job = { .cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) };
	struct utsname un;
	char cmdline[2048] = "";
	int fd, verdict = -1;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL) || mount("sys", "/sys", "sysfs", 0, NULL))
		printf("JOB no /proc or /sys\n");
	job.cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN); /* from /sys */
	fd = open("/proc/cmdline", O_RDONLY);
	if (fd < 0 || read(fd, cmdline, sizeof(cmdline) - 1) < 0)
		printf("JOB no command line\n");
	uname(&un);
	job.rounds = option(cmdline, "job.rounds=", 3);
	job.pages = option(cmdline, "job.pages=", 64);
	printf("JOB kernel=%s cpus=%u pages=%u rounds=%u\n", un.release, job.cpus, job.pages, job.rounds);
	job.words = mmap(NULL, (size_t)job.pages * PAGE_WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (job.words != MAP_FAILED && job.cpus <= CPUS_MAX && !pthread_barrier_init(&job.barrier, NULL, job.cpus))
		verdict = job_run(&job);
	printf("JOB verdict=%s\n", verdict ? "fail" : "pass");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
