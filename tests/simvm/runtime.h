/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/runtime.h - the threads of several slices as green threads of one OS thread, in virtual time.
 *
 * What      The program is linked so that what the slices call to make threads, to lock, to sleep and to tell the time
 *           comes here (-Wl,--wrap, build.mk).  Each such call may switch to another thread: which one and when is drawn
 *           from the seed, so one seed is one run.  Time passes by what threads do, and jumps when all sleep.
 * Threads   One OS thread.  A program has one runtime.
 * Limits    Calls that block anywhere else block everything.  A run that waits for nothing that will ever happen, or goes
 *           on beyond limit_ns, ends in `fail`.
 */
#ifndef TESTS_SIMVM_RUNTIME_H
#define TESTS_SIMVM_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#define RT_NODES_MAX 8u
#define RT_TSC_PER_NS 2u

struct rt_config {
	uint64_t seed;
	unsigned calls_mean;	/* wrapped calls between two switches, on average */
	unsigned blocks_mean;	/* guest blocks between two switches */
	bool skew;		/* nodes are different hosts, whose TSCs differ */
	uint64_t limit_ns;	/* virtual */
	void (*fail)(const char *text) __attribute__((noreturn));
	/* May be NULL.  One line for each switch of threads. */
	void (*trace)(const char *line);
};

void rt_init(const struct rt_config *cfg);
/* Runs fn(arg) as a thread of each of the nodes, and all that they start, until these have ended. */
void rt_run(unsigned nodes, void (*fn)(unsigned node));

/* --- for the threads --- */
uint64_t rt_now_ns(void);
uint64_t rt_random(void);
unsigned rt_node(void); /* of the calling thread */
/* Sleeps until *word is not `value`; rt_wake(word) after changing it. */
void rt_wait(const uint32_t *word, uint32_t value);
void rt_wake(const uint32_t *word);
/* No thread of the node runs until then; one that holds a mutex goes on until it does not. */
void rt_pause(unsigned node, uint64_t until_ns);
/* No thread of the node runs any more, in the same way. */
void rt_kill(unsigned node);
/* Guest code of the calling thread has run `blocks` blocks: time passes, others may run; answers how many are next. */
uint32_t rt_pace(uint32_t blocks);
/* Something that must be the same in each run of the seed. */
void rt_digest(uint64_t value);
uint64_t rt_digest_now(void);
uint64_t rt_switches(void);

#endif
