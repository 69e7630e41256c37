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

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define ROUNDS 5u

static struct dsm *dsm;

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
	cfg.fabric = fabric_open(backend, NULL);
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

static void node_run(const void *arg)
{
	const char *backend = arg;
	struct samples(*s)[BENCH_CASES] = calloc(4, sizeof(*s));

	ASSERT(s);
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
	int result = nodes_run(node_run, backend);

	if (result == BENCH_SKIP)
		fprintf(stderr, "dsm_bench: SKIP %s: no library or no device for it here\n", backend);
	return result == 1;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	int failed = 0;

	nodes_open();
	sigaction(SIGBUS, &sa, NULL);
	if (argc > 1)
		return backend_run(argv[1]);
	for (const char *const *name = ic_backend_names(); *name; name++)
		failed |= backend_run(*name);
	return failed;
}
