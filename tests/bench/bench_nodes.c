/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bench_nodes.c - two processes that measure each other, and their samples.
 *
 * Owns      The mapping that the two share.
 * Threads   One in each process.
 */
#include "tests/bench/bench_nodes.h"

#include "base/assert.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct control *ctl;
node_id self;

/* --- samples ------------------------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void sample_add(struct samples *s, uint64_t ns)
{
	ASSERT(s->count < SAMPLES_MAX);
	s->ns[s->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

double percentile_us(struct samples *s, unsigned percent)
{
	qsort(s->ns, s->count, sizeof(s->ns[0]), by_value);
	return s->count ? s->ns[(size_t)s->count * percent / 100] / 1000.0 : 0;
}

/* --- two processes ------------------------------------------------------------------------------------------------ */

void nodes_open(void)
{
	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(ctl != MAP_FAILED);
}

void meet(void)
{
	unsigned mine = atomic_fetch_add(&ctl->meet, 1), round = mine / 2;

	while (atomic_load(&ctl->meet) < 2 * round + 2)
		usleep(200);
}

static void pin(void)
{
	cpu_set_t all, one;
	int cpus[2] = { -1, -1 }, n = 0;

	sched_getaffinity(0, sizeof(all), &all);
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &all))
			cpus[n++] = i;
	if (n < 2)
		return;
	CPU_ZERO(&one);
	CPU_SET(cpus[self], &one);
	sched_setaffinity(0, sizeof(one), &one);
}

int nodes_run(void (*node)(const void *arg), const void *arg)
{
	int result = 0;
	pid_t pid[2];

	memset(ctl, 0, sizeof(*ctl));
	fflush(stdout);
	for (unsigned i = 0; i < 2; i++) {
		pid[i] = fork();
		ASSERT(pid[i] >= 0);
		if (pid[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		self = (node_id)i;
		pin();
		node(arg);
		exit(0);
	}
	for (unsigned i = 0; i < 2; i++) {
		int status;
		pid_t ended = wait(&status);

		if (result || !status)
			continue;
		result = WIFEXITED(status) && WEXITSTATUS(status) == BENCH_SKIP ? BENCH_SKIP : 1;
		kill(ended == pid[0] ? pid[1] : pid[0], SIGKILL); /* it would wait for ever */
	}
	return result;
}

/* --- a fabric ----------------------------------------------------------------------------------------------------- */

static _Atomic bool linked;

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	(void)arg;
	(void)peer;
	if (event == IC_PEER_UP)
		linked = true;
}

struct ic_fabric *fabric_open(const char *backend, const char *device)
{
	struct ic_config cfg = { .self = self,
				 .nodes = 2,
				 .backend = backend,
				 .device = device,
				 .listen = "127.0.0.1:0",
				 .vm_id = 1,
				 .on_peer = on_peer };
	struct ic_fabric *f;
	int err;

	linked = false;
	memset(cfg.key, 9, sizeof(cfg.key));
	err = ic_open(&cfg, &f);
	if (err == -ENODEV || err == -ELIBACC)
		exit(BENCH_SKIP);
	ASSERT(!err);
	ic_address(f, ctl->address[self]);
	return f;
}

void fabric_link(struct ic_fabric *f, bool progress)
{
	meet();
	if (ic_join(f, !self, ctl->address[!self]))
		abort();
	while (!linked) {
		if (progress)
			ic_progress(f, 8);
		usleep(100);
	}
	meet();
}
