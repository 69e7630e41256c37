/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/simvm_main.c - runs seeds of whole machines and says how to replay one that fails.
 *
 *   simvm DIR [--seeds N] [--from S] [--jobs J]                    seeds from S on, with the payloads in DIR
 *         [--check-replay]                                         each twice, and the two compared
 *         [--first]                                                until one fails
 *   simvm DIR --seed S [--trace]                                   one seed, with every switch, exit and message
 *   ... [--payload NAME --options TEXT --nodes N --vcpus N --limit MS]  instead of what the seed says
 *
 * What      Each run is a process of its own, made by fork from one without address randomization.
 * Threads   One.   I/O  stdout.
 * Limits    CPU_SECONDS for a run.
 */
#include "base/clock.h"
#include "base/log.h"
#include "tests/simvm/simvm.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CPU_SECONDS 60
#define JOBS_MAX 16u

static struct args {
	const char *dir;
	uint64_t from, seeds, seed;
	bool one, trace, twice, first;
	unsigned jobs;
	struct simvm_plan plan; /* what is not left to the seed */
} args = { .from = 1, .seeds = 20, .jobs = 2 };

static int result_fd;

static _Noreturn void done(const struct simvm_result *r)
{
	const char *p = (const char *)r;
	size_t left = sizeof(*r);

	fflush(stdout);
	while (left) {
		ssize_t n = write(result_fd, p, left);

		if (n <= 0)
			_exit(3);
		p += n;
		left -= (size_t)n;
	}
	_exit(0);
}

struct job {
	pid_t pid;
	int fd;
	uint64_t seed;
};

static void plan_of(uint64_t seed, struct simvm_plan *p)
{
	*p = args.plan;
	simvm_plan_draw(p, seed);
}

static void job_start(struct job *j, uint64_t seed, bool trace)
{
	struct rlimit cpu = { CPU_SECONDS, CPU_SECONDS };
	struct simvm_plan plan;
	int fds[2];

	if (pipe(fds)) {
		perror("pipe");
		exit(2);
	}
	fflush(stdout);
	j->seed = seed;
	j->pid = fork();
	if (j->pid < 0) {
		perror("fork");
		exit(2);
	}
	if (!j->pid) {
		close(fds[0]);
		result_fd = fds[1];
		setrlimit(RLIMIT_CPU, &cpu);
		plan_of(seed, &plan);
		simvm_run(&plan, args.dir, trace, done);
	}
	close(fds[1]);
	j->fd = fds[0];
}

static void job_end(struct job *j, struct simvm_result *r)
{
	size_t have = 0;
	int status;

	while (have < sizeof(*r)) {
		ssize_t n = read(j->fd, (char *)r + have, sizeof(*r) - have);

		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(j->fd);
	waitpid(j->pid, &status, 0);
	j->pid = 0;
	if (have == sizeof(*r))
		return;
	memset(r, 0, sizeof(*r));
	snprintf(r->text, sizeof(r->text), "the run ended by %s %d", WIFSIGNALED(status) ? "signal" : "status",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void failure_print(uint64_t seed, const char *why)
{
	struct simvm_plan p;

	plan_of(seed, &p);
	printf("seed %llu: FAILED: %s\n", (unsigned long long)seed, why);
	simvm_plan_print(&p);
	printf("  replay: %s/tests/simvm/simvm %s --seed %llu --trace\n", getenv("B") ? getenv("B") : "build",
	       args.dir, (unsigned long long)seed);
}

static void result_print(const struct job *j, const struct simvm_result *r)
{
	struct simvm_plan p;

	plan_of(j->seed, &p);
	simvm_plan_print(&p);
	printf("  %s: %llu us, %llu switches, %llu exits, %llu messages, %llu pages, digest %016llx\n",
	       r->good ? "passed" : r->text, (unsigned long long)r->virtual_ns / 1000,
	       (unsigned long long)r->switches, (unsigned long long)r->exits, (unsigned long long)r->messages,
	       (unsigned long long)r->pages, (unsigned long long)r->digest);
}

/* Runs of all seeds; with args.twice each is two, of which the second is compared. */
static unsigned seeds_run(uint64_t *virtual_ns, uint64_t *exits)
{
	unsigned per = args.twice ? 2 : 1, failed = 0;
	uint64_t runs = args.seeds * per, next = 0;
	struct job jobs[JOBS_MAX] = { 0 };
	struct simvm_result *first = calloc(args.seeds, sizeof(*first)), r;

	for (uint64_t ended = 0; ended < runs; ended++) {
		struct job *j;

		if (failed && args.first)
			next = runs;
		while (next < runs && next < ended + args.jobs) {
			job_start(&jobs[next % args.jobs], args.from + next / per, false);
			next++;
		}
		j = &jobs[ended % args.jobs];
		if (!j->pid)
			continue; /* not started any more */
		job_end(j, &r);
		if (ended % per) {
			struct simvm_result *a = &first[ended / per];

			if (a->good && (!r.good || r.digest != a->digest || r.virtual_ns != a->virtual_ns ||
					r.switches != a->switches)) {
				failure_print(j->seed, "the second run was another one");
				failed++;
			}
			continue;
		}
		first[ended / per] = r;
		*virtual_ns += r.virtual_ns;
		*exits += r.exits;
		if (!r.good) {
			failure_print(j->seed, r.text);
			failed++;
		}
	}
	free(first);
	return failed;
}

enum { SEEDS = 1, FROM, SEED, TRACE, TWICE, JOBS, FIRST, LIMIT, PAYLOAD, OPTIONS, NODES, VCPUS };
static const struct option options[] = {
	{ "seeds", 1, NULL, SEEDS },	   { "from", 1, NULL, FROM },	  { "seed", 1, NULL, SEED },
	{ "trace", 0, NULL, TRACE },	   { "check-replay", 0, NULL, TWICE }, { "jobs", 1, NULL, JOBS },
	{ "payload", 1, NULL, PAYLOAD },   { "options", 1, NULL, OPTIONS },    { "nodes", 1, NULL, NODES },
	{ "first", 0, NULL, FIRST },	   { "vcpus", 1, NULL, VCPUS },	   { "limit", 1, NULL, LIMIT },     	   { 0 },
};

static bool parse(int argc, char **argv)
{
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case SEEDS: args.seeds = strtoull(optarg, NULL, 10); break;
		case FROM: args.from = strtoull(optarg, NULL, 10); break;
		case SEED: args.seed = strtoull(optarg, NULL, 10); args.one = true; break;
		case TRACE: args.trace = true; break;
		case TWICE: args.twice = true; break;
		case JOBS: args.jobs = (unsigned)strtoul(optarg, NULL, 10); break;
		case FIRST: args.first = true; break;
		case LIMIT: args.plan.limit_ns = strtoull(optarg, NULL, 10) * NS_PER_MS; break;
		case PAYLOAD: args.plan.payload = optarg; break;
		case OPTIONS: args.plan.options = optarg; break;
		case NODES: args.plan.nodes = (unsigned)strtoul(optarg, NULL, 10); break;
		case VCPUS: args.plan.vcpus = (unsigned)strtoul(optarg, NULL, 10); break;
		default: return false;
		}
	}
	if (optind != argc - 1 || !args.seeds || !args.jobs || args.jobs > JOBS_MAX ||
	    args.plan.nodes > SIMVM_NODES_MAX)
		return false;
	args.dir = argv[optind];
	return true;
}

int main(int argc, char **argv)
{
	uint64_t virtual_ns = 0, exits = 0;
	struct simvm_result r;
	unsigned failed;

	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
		personality(personality(0xffffffff) | ADDR_NO_RANDOMIZE);
		execv("/proc/self/exe", argv);
	}
	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: see the head of tests/simvm/simvm_main.c\n");
		return 2;
	}
	if (!getenv("UNUM_LOG"))
		log_set_level(-1); /* what goes wrong is told by the verdict */
	if (args.one) {
		struct job j = { 0 };

		job_start(&j, args.seed, args.trace);
		job_end(&j, &r);
		result_print(&j, &r);
		return r.good ? 0 : 1;
	}
	failed = seeds_run(&virtual_ns, &exits);
	printf("%llu seeds%s, %llu ms of virtual time, %llu exits\n", (unsigned long long)args.seeds,
	       args.twice ? " twice" : "", (unsigned long long)virtual_ns / 1000000, (unsigned long long)exits);
	printf("%llu passed, %u failed, 0 skipped\n", (unsigned long long)args.seeds - failed, failed);
	return failed != 0;
}
