/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/dsm_bench.c - what a remote page costs native threads, and what it would cost at least.
 *
 * What      usage: dsm_bench [BACKEND]     (default: every built one)
 *           Two processes, one CPU each where there are two.  Rounds alternate between
 *             floor  the bare transport and, in the same places, the same mapping calls that map_uffd makes:
 *                    no directory, no states, no other thread (bench_floor.c)
 *             uffd   the real thing, map_uffd, inline faults
 *             dispatch  the same, the kernel parks the thread
 *             tlb    the real thing, map_tlb: dsm_acquire alone, no mapping calls
 *           so that all figures come from one run.
 * Cases     raw         64 B request, 4 KiB answer
 *           read        first touch for reading of a page that the other node has written
 *           write       first touch for writing of such a page
 *           invalidate  write to a page that both hold readable
 *           fresh, ping floor only: raw into a frame that has no memory yet; raw without the page.  They are
 *                       what tlb is compared with
 * Output    A line of JSON per figure: p50 and p99 of all samples, ratio of the p50 to the floor's.
 */
#include "tests/bench/dsm_bench.h"

#include "base/assert.h"
#include "base/log.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define ROUNDS 5u

struct control *ctl;
node_id self;
static struct dsm *dsm;

/* --- samples ---------------------------------------------------------------------------------------- */

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

static double percentile_us(struct samples *s, unsigned percent)
{
	qsort(s->ns, s->count, sizeof(s->ns[0]), by_value);
	return s->count ? s->ns[(size_t)s->count * percent / 100] / 1000.0 : 0;
}

static void report(const char *backend, const char *who, enum bench_case c, struct samples *s,
		   struct samples *floor)
{
	static const char *const names[] = {
		"raw", "read", "write", "invalidate", "fresh", "ping"
	};
	double p50 = percentile_us(s, 50), base = percentile_us(floor, 50);

	printf("{\"bench\":\"dsm\",\"transport\":\"%s\",\"what\":\"%s\",\"case\":\"%s\","
	       "\"samples\":%u,"
	       "\"p50_us\":%.2f,\"p99_us\":%.2f,\"floor_p50_us\":%.2f,\"ratio\":%.2f}\n",
	       backend, who, names[c], s->count, p50, percentile_us(s, 99), base,
	       base > 0 ? p50 / base : 0);
	fflush(stdout);
}

/* --- two processes ---------------------------------------------------------------------------------- */

/* Both processes come here `ctl->met` times; sleeping, so that the one CPU of the other stays free. */
void meet(void)
{
	unsigned mine = atomic_fetch_add(&ctl->meet, 1), round = mine / 2;

	while (atomic_load(&ctl->meet) < 2 * round + 2) {
		ASSERT(!atomic_load(&ctl->failed));
		usleep(200);
	}
}

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	(void)peer;
	if (event == IC_PEER_UP)
		atomic_store((_Atomic bool *)arg, true);
}

static _Atomic bool linked;

struct ic_fabric *fabric_open(const char *backend)
{
	struct ic_config cfg = { .self = self,
				 .nodes = 2,
				 .backend = backend,
				 .listen = "127.0.0.1:0",
				 .vm_id = 1,
				 .on_peer = on_peer,
				 .arg = &linked };
	struct ic_fabric *f;

	linked = false;
	memset(cfg.key, 9, sizeof(cfg.key));
	if (ic_open(&cfg, &f))
		abort();
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

/* --- the real thing --------------------------------------------------------------------------------- */

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	bool write = ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_ERR] & 2;

	(void)sig;
	if (dsm ? dsm_view_fault(dsm, si->si_addr, write, clock_now_ns() + 10 * NS_PER_S)
		: floor_fault(si->si_addr, write))
		abort();
}

/* One access with the right, timed. */
static void touch(gfn_t gfn, bool write, bool tlb, struct samples *s)
{
	uint64_t start = clock_now_ns();

	if (tlb) {
		if (dsm_acquire(dsm, gfn, write ? DSM_WRITE : DSM_READ, start + 10 * NS_PER_S))
			abort();
	} else if (write) {
		dsm_view(dsm)[gfn * PAGE_SIZE] = 2;
	} else {
		ASSERT(*(volatile uint8_t *)(dsm_view(dsm) + gfn * PAGE_SIZE) == 1);
	}
	if (s)
		sample_add(s, clock_now_ns() - start);
}

static void dsm_round(const char *backend, enum dsm_mapping mapping, enum dsm_faults faults,
		      struct samples s[BENCH_CASES])
{
	bool tlb = mapping == DSM_MAP_TLB;
	struct dsm_range range = { 0, 2 * PAGES, 1 };
	struct dsm_config cfg = { .self = self, .nodes = 2, .ranges = &range, .ranges_count = 1 };

	cfg.mapping = mapping;
	cfg.faults = faults;
	cfg.fabric = fabric_open(backend);
	if (dsm_open(&cfg, &dsm))
		abort();
	fabric_link(cfg.fabric, false);
	for (gfn_t g = 0; self == 1 && g < 2 * PAGES; g++) {
		touch(g, true, tlb, NULL);
		dsm_alias(dsm)[g * PAGE_SIZE] = 1;
	}
	meet();
	usleep(2000); /* hold times end */
	for (gfn_t g = 0; self == 0 && g < PAGES; g++)
		touch(g, false, tlb, &s[BENCH_READ]);
	for (gfn_t g = PAGES; self == 0 && g < 2 * PAGES; g++)
		touch(g, true, tlb, &s[BENCH_WRITE]);
	usleep(2000);
	for (gfn_t g = 0; self == 0 && g < PAGES; g++)
		touch(g, true, tlb, &s[BENCH_INVALIDATE]);
	meet();
	dsm_stop(dsm);
	dsm_close(dsm);
	dsm = NULL;
	ic_close(cfg.fabric);
	meet();
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

static void node_run(const char *backend)
{
	struct samples(*s)[BENCH_CASES] = calloc(4, sizeof(*s));

	ASSERT(s);
	pin();
	for (unsigned r = 0; r < ROUNDS; r++) {
		floor_round(backend, s[0]);
		dsm_round(backend, DSM_MAP_UFFD, DSM_FAULTS_INLINE, s[1]);
		dsm_round(backend, DSM_MAP_TLB, DSM_FAULTS_INLINE, s[2]);
		dsm_round(backend, DSM_MAP_UFFD, DSM_FAULTS_DISPATCH, s[3]);
	}
	if (self == 0) {
		for (unsigned c = 0; c < BENCH_CASES; c++)
			report(backend, "floor", c, &s[0][c], &s[0][c]);
		for (unsigned c = BENCH_READ; c <= BENCH_INVALIDATE; c++)
			report(backend, "uffd", c, &s[1][c], &s[0][c]);
		for (unsigned c = BENCH_READ; c <= BENCH_INVALIDATE; c++)
			report(backend, "dispatch", c, &s[3][c], &s[0][c]);
		for (unsigned c = BENCH_READ; c <= BENCH_INVALIDATE; c++)
			report(backend, "tlb", c, &s[2][c],
			       &s[0][c == BENCH_INVALIDATE ? BENCH_PING : BENCH_FRESH]);
	}
	free(s);
}

static int backend_run(const char *backend)
{
	int status[2] = { 0 };

	memset(ctl, 0, sizeof(*ctl));
	fflush(stdout);
	for (unsigned i = 0; i < 2; i++)
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			self = (node_id)i;
			node_run(backend);
			exit(0);
		}
	for (unsigned i = 0; i < 2; i++) {
		wait(&status[i]);
		if (status[i])
			ctl->failed = 1;
	}
	return status[0] || status[1];
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	int failed = 0;

	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(ctl != MAP_FAILED);
	sigaction(SIGBUS, &sa, NULL);
	if (argc > 1)
		return backend_run(argv[1]);
	for (const char *const *name = ic_backend_names(); *name; name++)
		failed |= backend_run(*name);
	return failed;
}
