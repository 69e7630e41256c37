/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/sim/sim_main.c - runs seeds of the simulator and says how to replay one that fails.
 *
 *   sim [--seeds N] [--from S]     N seeds from S on (default 200 from 1), and those that failed once
 *   sim --seed S [--trace]         one seed, with every event
 *   sim --growth                   messages and hops per request as nodes grow from 2 to 128
 *
 * Threads  One.   I/O  stdout.
 */
#include "base/clock.h"
#include "tests/sim/sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static void config_print(const struct sim_config *c)
{
	printf("  %u nodes x %u threads, %u pages, %u instructions each, %u requests, cache %u, delay %u us, "
	       "writes %u %%, span %u, drains %u%s%s%s%s\n",
	       c->nodes, c->threads, c->pages, c->ops, c->requests, c->cache, c->delay_us, c->write_percent,
	       c->span_max, c->drains, c->faults & SIM_PAUSES ? ", pauses" : "", c->faults & SIM_STALLS ? ", stalls" : "",
	       c->faults & SIM_DOUBLES ? ", doubled frames" : "", c->faults & SIM_CRASHES ? ", a crash" : "");
}

static int seed_run(uint64_t seed, bool trace, struct sim_result *total)
{
	struct sim_config cfg = { .trace = trace };
	struct sim_result r;

	sim_config_draw(&cfg, seed);
	sim_run(&cfg, &r);
	total->steps += r.steps;
	total->instructions += r.instructions;
	total->requests += r.requests;
	total->messages += r.messages;
	total->drops += r.drops;
	total->stalls += r.stalls;
	total->doubles += r.doubles;
	total->crashes += r.crashes;
	total->links_lost += r.links_lost;
	total->drains += r.drains;
	total->entries += r.entries;
	if (total->retries_max < r.retries_max)
		total->retries_max = r.retries_max;
	if (total->wait_max_ns < r.wait_max_ns)
		total->wait_max_ns = r.wait_max_ns;
	if (!r.broken)
		return 0;
	printf("seed %llu: VIOLATION %s, after %llu steps\n", (unsigned long long)seed, r.broken,
	       (unsigned long long)r.steps);
	config_print(&cfg);
	printf("  replay: tests/sim/sim --seed %llu --trace   (in the build directory)\n",
	       (unsigned long long)seed);
	return 1;
}

/* What a grant costs where pages are plenty for the nodes, and where all want the same few. */
static int growth_row(unsigned nodes, unsigned pages)
{
	struct sim_config c = { .seed = nodes, .nodes = nodes, .pages = pages, .threads = 1, .ops = 20000 / nodes,
				.requests = 16, .delay_us = 16, .write_percent = 30, .span_max = 1 };
	struct sim_result r;

	sim_run(&c, &r);
	printf(" | %9llu %8.2f %8.2f", (unsigned long long)r.requests,
	       (double)r.messages / (double)r.requests, (double)r.hops / (double)r.grants);
	return r.broken != NULL;
}

static int growth(void)
{
	int violations = 0;

	printf("      | %-27s | %-27s\n", "64 pages for each node", "8 pages in all");
	printf("nodes | %9s %8s %8s | %9s %8s %8s\n", "requests", "messages", "hops", "requests", "messages", "hops");
	for (unsigned n = 2; n <= NODES_MAX; n *= 2) {
		printf("%5u", n);
		violations += growth_row(n, 64 * n);
		violations += growth_row(n, 8);
		printf("\n");
	}
	return violations;
}

/* Seeds that once failed. */
static const uint64_t old_seeds[] = {
	3080, /* 64 threads of 16 nodes want up to 8 of 27 pages: nobody got on before threads collected in order */
	343,  /* a right that was being lowered could not be pinned */
	265,  /* threads collected where requests could be turned away */
};

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "seeds", required_argument, NULL, 'n' }, { "from", required_argument, NULL, 'f' },
		{ "seed", required_argument, NULL, 's' },  { "trace", no_argument, NULL, 't' },
		{ "growth", no_argument, NULL, 'g' },	   { NULL, 0, NULL, 0 },
	};
	unsigned long long seeds = 200, from = 1;
	uint64_t began_ns = clock_now_ns();
	struct sim_result total = { 0 };
	bool trace = false;
	int opt, violations = 0;

	while ((opt = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (opt) {
		case 'n': seeds = strtoull(optarg, NULL, 0); break;
		case 'f': from = strtoull(optarg, NULL, 0); break;
		case 's': from = strtoull(optarg, NULL, 0); seeds = 1; break;
		case 't': trace = true; break;
		case 'g': return growth() != 0;
		default: return 2;
		}
	}
	for (size_t i = 0; seeds > 1 && i < ARRAY_LEN(old_seeds); i++)
		violations += seed_run(old_seeds[i], false, &total);
	for (unsigned long long i = 0; i < seeds && violations < 10; i++)
		violations += seed_run(from + i, trace, &total);
	printf("sim: %llu seeds, %llu steps, %llu instructions, %llu requests, %llu messages, %llu drops, "
	       "%llu stalls, %llu doubled frames, %llu crashes, %llu links lost, %llu nodes left or came back with %llu entries, at most %llu retries and %.0f ms of virtual time for an instruction, %.1f s\n",
	       seeds, (unsigned long long)total.steps, (unsigned long long)total.instructions,
	       (unsigned long long)total.requests, (unsigned long long)total.messages,
	       (unsigned long long)total.drops, (unsigned long long)total.stalls,
	       (unsigned long long)total.doubles, (unsigned long long)total.crashes,
	       (unsigned long long)total.links_lost, (unsigned long long)total.drains,
	       (unsigned long long)total.entries, (unsigned long long)total.retries_max,
	       (double)total.wait_max_ns / 1e6,
	       (double)(clock_now_ns() - began_ns) / 1e9);
	printf("%d passed, %d failed, 0 skipped\n", !violations, !!violations);
	return violations != 0;
}
