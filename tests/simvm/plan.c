/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/plan.c - what a seed stands for: which payload on how many nodes, and everything that goes wrong.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "tests/simvm/simvm.h"

#include <stdio.h>

#define LIMIT_NS (2 * NS_PER_S) /* the slowest takes one */

/* Small counts: on nodes that take turns every access to a shared page is a journey. */
static const struct {
	const char *name, *options;
} guests[] = {
	{ "lock", "rounds=20" },  { "ipi", "rounds=2" },	 { "irq", "rounds=2" },	  { "mmio", "rounds=2" },
	{ "cross", "rounds=2" }, { "pagetables", "rounds=2" }, { "smc", "rounds=4" },  { "timer", "rounds=3" },
	{ "tsc", "rounds=6" },	  { "hello", "" },		 { "absent", "" },
};

void simvm_plan_draw(struct simvm_plan *p, uint64_t seed)
{
	struct rng r = { .state = seed };
	unsigned guest;

	rng_next(&r);
	guest = (unsigned)(seed % ARRAY_LEN(guests));
	p->seed = seed;
	if (!p->payload) {
		p->payload = guests[guest].name;
		p->options = guests[guest].options;
	}
	if (!p->options)
		p->options = "";
	if (!p->nodes)
		p->nodes = 2 + (unsigned)rng_below(&r, 2);
	if (!p->vcpus)
		p->vcpus = 1 + (unsigned)rng_below(&r, 2);
	/* An instruction may need eight pages at once: a cache below that cannot make progress. */
	p->cache_pages = rng_below(&r, 3) ? 16 + rng_below(&r, 48) : 0;
	p->delay_min_ns = NS_PER_US + rng_below(&r, 4 * NS_PER_US);
	p->delay_max_ns = p->delay_min_ns + (NS_PER_US << rng_below(&r, 6));
	p->stall_every = rng_below(&r, 3) ? 20 + (unsigned)rng_below(&r, 200) : 0;
	p->stall_ns = NS_PER_US << rng_below(&r, 10);
	p->pauses = rng_below(&r, 2) ? (unsigned)rng_below(&r, 12) : 0;
	p->crash = rng_below(&r, 8) == 0;
	p->skew = rng_below(&r, 2);
	if (!p->limit_ns)
		p->limit_ns = LIMIT_NS;
	p->calls_mean = 1u << rng_below(&r, 8);
	p->blocks_mean = 1u << (2 + rng_below(&r, 9));
}

void simvm_plan_print(const struct simvm_plan *p)
{
	printf("  %s %s: %u nodes x %u vCPUs, cache %llu pages, delay %llu to %llu ns, stalls 1/%u to %llu us, "
	       "%u pauses%s%s, a switch every %u calls and %u blocks\n",
	       p->payload, p->options, p->nodes, p->vcpus, (unsigned long long)p->cache_pages,
	       (unsigned long long)p->delay_min_ns, (unsigned long long)p->delay_max_ns, p->stall_every,
	       (unsigned long long)p->stall_ns / 1000, p->pauses, p->crash ? ", a crash" : "",
	       p->skew ? ", TSCs that differ" : "", p->calls_mean, p->blocks_mean);
}
