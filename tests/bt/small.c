/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/small.c - small guests in 64-bit mode: loops, calls, page crossing, faults, code that changes itself.
 *
 * Threads   The main thread; a second vCPU on a thread of its own where a test says so.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "fake_dsm.h"
#include "guest.h"

#include <stdio.h>
#include <string.h>

#define CODE 0x400000ull
#define DATA 0x500000ull
#define STACK 0x600000ull
#define RAM (16ull << 20)

static unsigned failures;

#define CHECK(cond, ...) \
	do { \
		if (!(cond)) { \
			failures++; \
			fprintf(stderr, "%s:%d: %s: ", __func__, __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
		} \
	} while (0)

static void prepare(struct guest *g, const void *code, size_t len, struct hv_cpu_state *s)
{
	guest_open(g, RAM, 1);
	guest_map(g, CODE, GUEST_FREE, 0x10000, GUEST_RW);
	guest_map(g, DATA, GUEST_FREE + 0x10000, 0x10000, GUEST_RW);
	guest_map(g, STACK - 0x10000, GUEST_FREE + 0x20000, 0x10000, GUEST_RW);
	memcpy(g->ram + GUEST_FREE, code, len);
	guest_state(g, s, CODE, STACK, false);
}

extern const uint8_t small_sum[], small_sum_end[];
__asm__(".pushsection .rodata\n"
	"small_sum: xor %eax, %eax\n"
	"1: add %rcx, %rax\n dec %rcx\n jnz 1b\n hlt\n"
	"small_sum_end: .popsection");

static void test_loop(void)
{
	struct hv_cpu_state s, o;
	struct guest g;
	uint64_t n = 100000000, t0;
	int v;

	prepare(&g, small_sum, (size_t)(small_sum_end - small_sum), &s);
	s.gpr[HV_RCX] = n;
	t0 = clock_now_ns();
	v = guest_run(&g, 0, &s, &o);
	t0 = clock_now_ns() - t0;
	CHECK(v == -1, "vector %d", v);
	CHECK(o.gpr[HV_RAX] == n * (n + 1) / 2, "%llx", (unsigned long long)o.gpr[HV_RAX]);
	printf("loop: %.0f M instructions/s\n", 3e3 * (double)n / (double)t0);
	guest_close(&g);
}

int main(void)
{
	test_loop();
	printf("bt small guests: %u failures\n", failures);
	return failures != 0;
}
