/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.c - locked instructions of all processors on one contended page, then on two: no update is lost.
 *
 * Options   rounds=N, how often each processor does each operation; wide=0: without cmpxchg16b (software KVM lacks it).
 */
#include "rt/rt.h"

const char payload_name[] = "lock";

struct page {
	uint64_t add64, xadd64, cas64, spin, plain, bits, sub32_and_16[2];
	uint64_t pair[2] __attribute__((aligned(16)));
	uint8_t add8;
	uint8_t fill[4096 - 88 - 1];
} __attribute__((aligned(4096)));

static struct page pages[2];
static struct barrier meet;
static bool wide;
static unsigned rounds, spread; /* spread 1: one page, 2: both */

static void spin_lock(uint64_t *l)
{
	uint64_t until = rdtsc() + PATIENCE_CYCLES;

	while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE)) {
		while (__atomic_load_n(l, __ATOMIC_RELAXED)) {
			pause();
			CHECK(rdtsc() < until, "cpu %u never gets the spin lock", cpu_id());
		}
	}
}

static void add_pair(uint64_t pair[2])
{
	uint64_t lo = pair[0], hi = pair[1];
	uint8_t done;

	do {
		__asm__ volatile("lock cmpxchg16b %0; setz %3"
				 : "+m"(*(__uint128_t *)pair), "+a"(lo), "+d"(hi), "=q"(done)
				 : "b"(lo + 1), "c"(hi + 3)
				 : "cc", "memory");
	} while (!done);
}

static void hammer(unsigned cpu)
{
	barrier_wait(&meet);
	for (unsigned i = 0; i < rounds; i++) {
		struct page *p = &pages[i % spread];
		uint64_t one = 1, old;

		__asm__ volatile("lock addq $1, %0" : "+m"(p->add64) : : "cc", "memory");
		__asm__ volatile("lock xaddq %1, %0" : "+m"(p->xadd64), "+r"(one) : : "cc", "memory");
		__asm__ volatile("lock addb $1, %0" : "+m"(p->add8) : : "cc", "memory");
		__asm__ volatile("lock subl $1, %0" : "+m"(p->sub32_and_16[0]) : : "cc", "memory");
		__asm__ volatile("lock incw %0" : "+m"(p->sub32_and_16[1]) : : "cc", "memory");
		__asm__ volatile("lock btcq %1, %0" : "+m"(p->bits) : "r"((uint64_t)cpu) : "cc", "memory");
		old = load(&p->cas64);
		while (!__atomic_compare_exchange_n(&p->cas64, &old, old + 1, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
		if (wide)
			add_pair(p->pair);
		spin_lock(&p->spin);
		p->plain++;
		__atomic_store_n(&p->spin, 0, __ATOMIC_RELEASE);
	}
	barrier_wait(&meet);
}

static void verify(void)
{
	uint64_t all = (uint64_t)rounds * platform.cpus;
	struct page sum = { 0 };

	for (unsigned i = 0; i < spread; i++) {
		struct page *p = &pages[i];

		sum.add64 += p->add64;
		sum.xadd64 += p->xadd64;
		sum.cas64 += p->cas64;
		sum.plain += p->plain;
		sum.add8 = (uint8_t)(sum.add8 + p->add8);
		sum.sub32_and_16[0] += (uint32_t)-p->sub32_and_16[0];
		sum.sub32_and_16[1] += p->sub32_and_16[1];
		sum.bits ^= p->bits;
		sum.pair[0] += p->pair[0];
		sum.pair[1] += p->pair[1];
	}
	CHECK(sum.add64 == all, "lock add lost updates: %lu of %lu", sum.add64, all);
	CHECK(sum.xadd64 == all, "lock xadd lost updates: %lu of %lu", sum.xadd64, all);
	CHECK(sum.cas64 == all, "lock cmpxchg lost updates: %lu of %lu", sum.cas64, all);
	CHECK(sum.plain == all, "updates under a spin lock were lost: %lu of %lu", sum.plain, all);
	CHECK(sum.add8 == (uint8_t)all, "lock add of a byte lost updates: %u of %u", sum.add8, (uint8_t)all);
	CHECK(sum.sub32_and_16[0] == all, "lock sub lost updates: %lu of %lu", sum.sub32_and_16[0], all);
	CHECK((uint16_t)sum.sub32_and_16[1] == (uint16_t)all, "lock inc lost updates");
	CHECK(sum.bits == (rounds % 2 ? (1ull << platform.cpus) - 1 : 0), "lock btc lost updates: %lx", sum.bits);
	CHECK(!wide || (sum.pair[0] == all && sum.pair[1] == 3 * all), "lock cmpxchg16b lost updates: %lu %lu of %lu",
	      sum.pair[0], sum.pair[1], all);
}

void payload_main(void)
{
	rounds = (unsigned)option("rounds", 2000);
	wide = option("wide", 1);
	cpus_start();
	for (spread = 1; spread <= 2; spread++) {
		memset(pages, 0, sizeof(pages));
		cpus_run(hammer);
		verify();
		print("lock: %u cpus, %u page%s, %u rounds\n", platform.cpus, spread, spread == 1 ? "" : "s", rounds);
	}
}
