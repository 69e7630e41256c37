/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/small.c - small guests in 64-bit mode: loops, calls, faults in the middle of a block, MMIO, ports, code that
 * changes itself and others, interrupts, single step, kicks.
 *
 * Threads   The main thread; a second one where a test needs another vCPU or a kick.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "fake_dsm.h"
#include "guest.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CODE 0x400000ull
#define DATA 0x500000ull
#define STACK 0x600000ull
#define RAM (16ull << 20)
#define DATA_GPA (GUEST_FREE + 0x10000)
#define MMIO_VA 0x700000ull
#define MMIO_GPA 0x80000000ull

static unsigned failures, checks;

#define CHECK(cond, ...) \
	do { \
		checks++; \
		if (!(cond)) { \
			failures++; \
			fprintf(stderr, "%s:%d: %s: ", __func__, __LINE__, #cond); \
			fprintf(stderr, __VA_ARGS__); \
			fputc('\n', stderr); \
		} \
	} while (0)

#define LL(v) ((unsigned long long)(v))

/* Code for the guest: position independent, ends in hlt. */
#define BLOB(name, text) \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n" #name ":\n" text "\nhlt\n" #name "_end: .popsection")

static void prepare(struct guest *g, const uint8_t *code, const uint8_t *end, struct hv_cpu_state *s, unsigned vcpus)
{
	guest_open(g, RAM, vcpus);
	guest_map(g, CODE, GUEST_FREE, 0x10000, GUEST_RW);
	guest_map(g, DATA, DATA_GPA, 0x10000, GUEST_RW);
	guest_map(g, STACK - 0x10000, GUEST_FREE + 0x20000, 0x10000, GUEST_RW);
	guest_map(g, MMIO_VA, MMIO_GPA, 0x1000, GUEST_RW);
	memcpy(g->ram + GUEST_FREE, code, (size_t)(end - code));
	guest_state(g, s, CODE, STACK, false);
}
#define PREPARE(g, blob, s) prepare(g, blob, blob##_end, s, 1)

BLOB(code_sum, "xor %eax, %eax\n 1: add %rcx, %rax\n dec %rcx\n jnz 1b");

static void test_loop(void)
{
	struct hv_cpu_state s, o;
	struct guest g;
	uint64_t n = 20000000, t0;
	int v;

	PREPARE(&g, code_sum, &s);
	s.gpr[HV_RCX] = n;
	t0 = clock_now_ns();
	v = guest_run(&g, 0, &s, &o);
	t0 = clock_now_ns() - t0;
	CHECK(v == -1, "vector %d", v);
	CHECK(o.gpr[HV_RAX] == n * (n + 1) / 2, "%llx", LL(o.gpr[HV_RAX]));
	printf("loop: %.0f M instructions/s\n", 3e3 * (double)n / (double)t0);
	guest_close(&g);
}

/* fib(n) by recursion, through r10 and r14, which are not in registers, and an indirect call. */
BLOB(code_fib, "lea 1f(%rip), %r14\n call *%r14\n hlt\n"
	       "1: cmp $2, %rdi\n jb 2f\n push %rdi\n dec %rdi\n call 1b\n pop %rdi\n push %rax\n"
	       "sub $2, %rdi\n call *%r14\n pop %r10\n add %r10, %rax\n ret\n"
	       "2: mov %rdi, %rax\n ret");

static void test_calls(void)
{
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_fib, &s);
	s.gpr[HV_RDI] = 22;
	v = guest_run(&g, 0, &s, &o);
	CHECK(v == -1 && o.gpr[HV_RAX] == 17711, "vector %d, %llu", v, LL(o.gpr[HV_RAX]));
	CHECK(o.gpr[HV_RSP] == STACK, "stack at %llx", LL(o.gpr[HV_RSP]));
	guest_close(&g);
}

/* Copies with a stride that makes words cross pages; counts set bits of flags that live across the accesses. */
BLOB(code_copy, "1: stc\n mov (%rsi), %rax\n mov %rax, (%rdi)\n adc $0, %r11\n add $8, %rsi\n add $8, %rdi\n"
		"dec %rcx\n jnz 1b");

static void test_copy(void)
{
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_copy, &s);
	for (unsigned k = 0; k < 0x4000; k++)
		g.ram[DATA_GPA + k] = (uint8_t)(k * 7 + (k >> 8));
	s.gpr[HV_RSI] = DATA + 3;
	s.gpr[HV_RDI] = DATA + 0x8005;
	s.gpr[HV_RCX] = 0x600;
	v = guest_run(&g, 0, &s, &o);
	CHECK(v == -1, "vector %d", v);
	CHECK(!memcmp(g.ram + DATA_GPA + 3, g.ram + DATA_GPA + 0x8005, 0x600 * 8), "bytes differ");
	CHECK(o.gpr[HV_R11] == 0x600, "carry counted %llx", LL(o.gpr[HV_R11]));
	guest_close(&g);
}

/* The fault is in the middle of a block: what is before it is done, what is after is not. */
BLOB(code_div, "mov $5, %ebx\n xor %edx, %edx\n mov $7, %r10d\n .globl code_div_at\ncode_div_at: div %rcx\n"
	       "mov $6, %ebx");
extern const uint8_t code_div_at[];
BLOB(code_pf, "mov $5, %ebx\n mov $7, %r15\n .globl code_pf_at\ncode_pf_at: addq $1, (%rdi)\n mov $6, %ebx");
extern const uint8_t code_pf_at[];

static void test_faults(void)
{
	static const struct {
		uint64_t rdi;
		int vector;
		uint64_t error;
	} cases[] = {{0x900000, 14, 2}, {0x0000900000000000, 13, 0}, {MMIO_VA + PAGE_SIZE - 4, 14, 2}};
	uint64_t rip, flags, rsp, error;
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_div, &s);
	s.gpr[HV_RAX] = 9;
	v = guest_run(&g, 0, &s, &o);
	guest_frame(&g, v, &rip, &flags, &rsp, &error);
	CHECK(v == 0, "vector %d", v);
	CHECK(rip == CODE + (uint64_t)(code_div_at - code_div), "rip %llx", LL(rip));
	CHECK(o.gpr[HV_RBX] == 5 && o.gpr[HV_R10] == 7 && o.gpr[HV_RAX] == 9 && rsp == STACK, "registers");
	guest_close(&g);
	for (unsigned k = 0; k < ARRAY_LEN(cases); k++) {
		PREPARE(&g, code_pf, &s);
		s.gpr[HV_RDI] = cases[k].rdi;
		v = guest_run(&g, 0, &s, &o);
		CHECK(v == cases[k].vector, "case %u: vector %d", k, v);
		guest_frame(&g, cases[k].vector, &rip, &flags, &rsp, &error);
		CHECK(rip == CODE + (uint64_t)(code_pf_at - code_pf), "rip %llx", LL(rip));
		CHECK(error == cases[k].error, "error %llx", LL(error));
		CHECK(o.gpr[HV_RBX] == 5 && o.gpr[HV_R15] == 7, "registers");
		guest_close(&g);
	}
}

/* The store changes the immediate of the instruction after it, in the same block, each time round. */
BLOB(code_smc, "xor %eax, %eax\n 1: movl %ecx, 2f+1(%rip)\n 2: mov $0, %edx\n add %rdx, %rax\n dec %ecx\n jnz 1b");

static void test_smc(void)
{
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_smc, &s);
	s.gpr[HV_RCX] = 1000;
	v = guest_run(&g, 0, &s, &o);
	CHECK(v == -1 && o.gpr[HV_RAX] == 500500, "vector %d, %llu", v, LL(o.gpr[HV_RAX]));
	guest_close(&g);
}

/* Two vCPUs: one patches the function that the other one calls, which must see each value in the end. */
BLOB(code_cross, "1: mov %rdi, %rax\n cpuid\n call 3f\n cmp %edi, %eax\n jne 1b\n mov %edi, (%rsi)\n"
		 "inc %edi\n cmp $200, %edi\n jne 1b\n hlt\n"
		 ".balign 4096\n 3: mov $0, %eax\n ret");
BLOB(code_patch, "1: mov %edi, (%rbx)\n 2: cmp %edi, (%rsi)\n jne 2b\n inc %edi\n cmp $200, %edi\n jne 1b");

struct other {
	struct guest *g;
	struct hv_cpu_state s, o;
	int v;
};

static void *other_main(void *arg)
{
	struct other *t = arg;

	t->v = guest_run(t->g, 1, &t->s, &t->o);
	return NULL;
}

static void test_cross_smc(void)
{
	struct hv_cpu_state s, o;
	struct other t = {0};
	struct guest g;
	pthread_t th;
	int v;

	prepare(&g, code_cross, code_cross_end, &s, 2);
	memcpy(g.ram + GUEST_FREE + 0x8000, code_patch, (size_t)(code_patch_end - code_patch));
	s.gpr[HV_RSI] = DATA;
	s.gpr[HV_RDI] = 1;
	t.g = &g;
	t.s = s;
	t.s.rip = CODE + 0x8000;
	t.s.gpr[HV_RSP] = STACK - 0x8000;
	for (const uint8_t *at = code_cross; at < code_cross_end; at++)
		if (!memcmp(at, "\xb8\0\0\0\0\xc3", 6))
			t.s.gpr[HV_RBX] = CODE + (uint64_t)(at - code_cross) + 1;
	CHECK(t.s.gpr[HV_RBX], "no function");
	pthread_create(&th, NULL, other_main, &t);
	v = guest_run(&g, 0, &s, &o);
	pthread_join(th, NULL);
	CHECK(v == -1 && t.v == -1, "vectors %d %d", v, t.v);
	CHECK(o.gpr[HV_RDI] == 200 && t.o.gpr[HV_RDI] == 200, "ends at %llu", LL(o.gpr[HV_RDI]));
	guest_close(&g);
}

/* Reads, writes and read-modify-writes of a device register, with registers and flags as results. */
BLOB(code_mmio, "mov 8(%rdi), %eax\n mov %eax, 16(%rdi)\n stc\n adc %eax, 24(%rdi)\n xadd %ecx, 32(%rdi)\n"
		"in $0x60, %al\n out %al, $0x61");

static void test_mmio(void)
{
	struct hv_exit x = {0};
	struct hv_cpu_state s, o;
	uint64_t reg[16] = {[1] = 0x1234, [3] = 10, [4] = 100}, writes = 0, reads = 0;
	unsigned ports = 0;
	struct guest g;

	PREPARE(&g, code_mmio, &s);
	s.gpr[HV_RDI] = MMIO_VA;
	s.gpr[HV_RCX] = 5;
	CHECK(!hv_engine_bt.set_state(g.vcpu[0], &s), "state");
	for (unsigned k = 0; k < 100; k++) {
		hv_engine_bt.run(g.vcpu[0], &x, false);
		if (x.reason == HV_EXIT_MMIO) {
			uint64_t *r = &reg[(x.addr - MMIO_GPA) / 8];

			CHECK(x.addr >= MMIO_GPA && x.addr < MMIO_GPA + 128 && x.size == 4, "at %llx", LL(x.addr));
			if (x.write)
				writes++, *r = x.data;
			else
				reads++, x.data = *r;
		} else if (x.reason == HV_EXIT_PIO) {
			ports++;
			if (x.write)
				CHECK(x.addr == 0x61 && (x.data & 0xff) == 0x77, "out %llx", LL(x.data));
			else
				x.data = 0x77;
		} else {
			break;
		}
	}
	hv_engine_bt.get_state(g.vcpu[0], &o);
	CHECK(x.reason == HV_EXIT_HLT, "exit %d", x.reason);
	CHECK(reg[2] == 0x1234 && reg[3] == 10 + 0x1234 + 1 && reg[4] == 105, "registers %llx %llx %llx", LL(reg[2]),
	      LL(reg[3]), LL(reg[4]));
	CHECK(o.gpr[HV_RCX] == 100, "xadd %llx", LL(o.gpr[HV_RCX]));
	CHECK(reads == 3 && writes == 3 && ports == 2, "%llu reads, %llu writes, %u ports", LL(reads), LL(writes), ports);
	guest_close(&g);
}

/* With TF set each instruction ends in #DB. */
BLOB(code_step, "nop\n add $1, %rax\n mov %rax, (%rsi)\n jmp 1f\n nop\n 1: nop");

static void test_single_step(void)
{
	static const unsigned ends[] = {1, 5, 8, 11};
	uint64_t rip = CODE, flags, rsp, error;
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_step, &s);
	s.gpr[HV_RSI] = DATA;
	for (unsigned k = 0; k < ARRAY_LEN(ends); k++) {
		s.rip = rip;
		s.rflags |= 0x100;
		v = guest_run(&g, 0, &s, &o);
		guest_frame(&g, v, &rip, &flags, &rsp, &error);
		CHECK(v == 1 && rip == CODE + ends[k], "step %u: vector %d at %llx", k, v, LL(rip));
		CHECK(flags & 0x100, "TF not saved");
		memcpy(s.gpr, o.gpr, sizeof(s.gpr));
		s.gpr[HV_RSP] = rsp;
	}
	CHECK(o.gpr[HV_RAX] == 1 && g.ram[DATA_GPA] == 1, "work not done");
	guest_close(&g);
}

/* An interrupt waits for sti and its shadow: the instruction after sti runs first. */
BLOB(code_irq, "xor %eax, %eax\n sti\n inc %eax\n inc %eax\n cli");

static void test_irq_window(void)
{
	uint64_t rip, flags, rsp, error;
	struct hv_exit x = {0};
	struct hv_cpu_state s, o;
	struct guest g;

	PREPARE(&g, code_irq, &s);
	CHECK(!hv_engine_bt.set_state(g.vcpu[0], &s), "state");
	CHECK(!hv_engine_bt.irq_ready(g.vcpu[0]), "ready with IF clear");
	hv_engine_bt.run(g.vcpu[0], &x, true);
	CHECK(x.reason == HV_EXIT_IRQ_WINDOW && hv_engine_bt.irq_ready(g.vcpu[0]), "exit %d", x.reason);
	hv_engine_bt.get_state(g.vcpu[0], &o);
	CHECK(o.gpr[HV_RAX] == 1, "eax is %llu at the window", LL(o.gpr[HV_RAX]));
	hv_engine_bt.inject_irq(g.vcpu[0], 0x40);
	hv_engine_bt.run(g.vcpu[0], &x, false);
	hv_engine_bt.get_state(g.vcpu[0], &o);
	CHECK(x.reason == HV_EXIT_HLT && o.rip == GUEST_HANDLERS + 16 * 0x40 + 1, "exit %d at %llx", x.reason, LL(o.rip));
	guest_close(&g);
	(void)rip, (void)flags, (void)rsp, (void)error;
}

/* A loop without end is left when it is kicked; and so is a block that chains to itself. */
BLOB(code_spin, "1: inc %rax\n jmp 1b");

static void *kick_main(void *arg)
{
	usleep(20000);
	hv_engine_bt.kick(arg);
	return NULL;
}

static void test_kick(void)
{
	struct hv_exit x = {0};
	struct hv_cpu_state s;
	struct guest g;
	pthread_t th;

	PREPARE(&g, code_spin, &s);
	CHECK(!hv_engine_bt.set_state(g.vcpu[0], &s), "state");
	for (unsigned k = 0; k < 3; k++) {
		pthread_create(&th, NULL, kick_main, g.vcpu[0]);
		hv_engine_bt.run(g.vcpu[0], &x, false);
		pthread_join(th, NULL);
		CHECK(x.reason == HV_EXIT_KICKED, "exit %d", x.reason);
	}
	guest_close(&g);
}

/* The same linear page of code mapped elsewhere: what was chained and cached must not survive invlpg. */
BLOB(code_remap, "call *%rbx\n mov %eax, %r12d\n mov %r8, (%r9)\n invlpg (%rbx)\n call *%rbx");

static void test_remap(void)
{
	static const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};
	uint64_t *t, entry = 0x1003; /* PML4 */
	const gva_t va = 0x40000000;
	struct hv_cpu_state s, o;
	struct guest g;
	int v;

	PREPARE(&g, code_remap, &s);
	memcpy(g.ram + GUEST_FREE + 0x40000, one, sizeof(one));
	memcpy(g.ram + GUEST_FREE + 0x41000, two, sizeof(two));
	guest_map(&g, va, GUEST_FREE + 0x40000, PAGE_SIZE, GUEST_RW);
	for (unsigned shift = 39; shift >= 12; shift -= 9) {
		t = (uint64_t *)(void *)(g.ram + (entry & PAGE_MASK)) + (va >> shift & 511);
		entry = *t;
	}
	s.gpr[HV_RBX] = va;
	s.gpr[HV_R8] = (GUEST_FREE + 0x41000) | GUEST_RW;
	s.gpr[HV_R9] = (uint64_t)((uint8_t *)t - g.ram); /* tables are mapped one to one */
	v = guest_run(&g, 0, &s, &o);
	CHECK(v == -1 && o.gpr[HV_R12] == 1 && o.gpr[HV_RAX] == 2, "vector %d, %llu then %llu", v, LL(o.gpr[HV_R12]),
	      LL(o.gpr[HV_RAX]));
	guest_close(&g);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{"loop", test_loop},
		{"calls", test_calls},
		{"copy", test_copy},
		{"faults", test_faults},
		{"smc", test_smc},
		{"cross_smc", test_cross_smc},
		{"mmio", test_mmio},
		{"single_step", test_single_step},
		{"irq_window", test_irq_window},
		{"kick", test_kick},
		{"remap", test_remap},
	};
	unsigned failed = 0;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		failures = checks = 0;
		cases[i].run();
		failed += failures > 0;
		printf("  %-5s %s (%u checks)\n", failures ? "FAIL" : "ok", cases[i].name, checks);
	}
	printf("%zu passed, %u failed, 0 skipped\n", ARRAY_LEN(cases) - failed, failed);
	return failed != 0;
}
