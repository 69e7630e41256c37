/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/diff.c - random instructions in random states: on the host CPU and through the bt engine.
 *
 * What      Generates short sequences (1 to 4) of valid user instructions, runs the same bytes at the same virtual
 *           address natively and as a guest in 64-bit mode, and compares registers, flags (where defined), x87 and
 *           SSE state, memory and the exception, if any.
 * Usage     diff [count of instructions] [seed]
 * Limits    FS is the host's TLS, so no FS; one sequence is one block.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "fake_dsm.h"
#include "gen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint8_t *native_data, *native_code;
static struct guest guest;
static uint64_t faults, done;

/* --- comparison --- */
static void dump(const struct test *t)
{
	unsigned at = 0;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisFormatter fm;
	char text[128];

	ZydisFormatterInit(&fm, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned k = 0; k < t->count; k++) {
		ZydisDecoderDecodeFull(&gen_decoder, t->bytes + at, t->len - at, &z, op);
		ZydisFormatterFormatInstruction(&fm, &z, op, z.operand_count_visible, text, sizeof(text), 0, NULL);
		printf("    %-40s", text);
		for (unsigned j = 0; j < z.length; j++)
			printf(" %02x", t->bytes[at + j]);
		printf("\n");
		at += z.length;
	}
}

static unsigned differ(const struct test *t, const char *what, uint64_t native, uint64_t translated)
{
	printf("  %s: native %016llx translated %016llx\n", what, (unsigned long long)native,
	       (unsigned long long)translated);
	(void)t;
	return 1;
}

static unsigned compare_fx(const struct test *t, const uint8_t *n, const uint8_t *g)
{
	unsigned bad = 0;

	for (unsigned k = 0; k < 416; k++) {
		if ((k >= 6 && k < 24) || (k >= 28 && k < 32)) /* last x87 opcode and addresses; MXCSR mask */
			continue;
		if (n[k] != g[k]) {
			char what[16];

			snprintf(what, sizeof(what), "fx[%u]", k);
			bad += differ(t, what, n[k], g[k]);
		}
	}
	return bad;
}

static unsigned compare(const struct test *t, const struct native_state *n, const struct hv_cpu_state *g,
			uint64_t guest_flags, uint64_t guest_rsp)
{
	unsigned bad = 0;
	uint32_t mask = ARITH & ~t->undefined;

	for (unsigned k = 0; k < 16; k++) {
		uint64_t v = k == HV_RSP ? guest_rsp : g->gpr[k];
		char what[16];

		snprintf(what, sizeof(what), "gpr %u", k);
		if (n->gpr[k] != v)
			bad += differ(t, what, n->gpr[k], v);
	}
	if ((n->rflags ^ guest_flags) & mask)
		bad += differ(t, "flags", n->rflags & mask, guest_flags & mask);
	bad += compare_fx(t, n->fx, g->fxsave);
	return bad;
}

static void to_guest(struct hv_cpu_state *s, const struct native_state *n)
{
	memcpy(s->gpr, n->gpr, sizeof(s->gpr));
	s->rflags = n->rflags;
	s->seg[HV_GS].base = n->gs_base;
	memcpy(s->fxsave, n->fx, 512);
}

/* One sequence both ways; 0 when they agree. */
static unsigned run_one(struct test *t, unsigned slot, struct hv_cpu_state *base)
{
	uint64_t va = CODE_VA + slot * SLOT_BYTES, nrip, grip, gflags, grsp, gerr;
	struct native_state n = t->s;
	struct hv_cpu_state out;
	int nv, gv;
	unsigned bad = 0;

	to_guest(base, &t->s);
	base->rip = va;
	nv = native_run(&n, (void *)(uintptr_t)va, &nrip);
	gv = guest_run(&guest, 0, base, &out);
	gflags = out.rflags;
	grsp = out.gpr[HV_RSP];
	if (gv >= 0) {
		guest_frame(&guest, gv, &grip, &gflags, &grsp, &gerr);
		faults++;
		if (nrip != grip)
			bad += differ(t, "rip of exception", nrip, grip);
	}
	if (nv != gv)
		bad += differ(t, "exception", (uint64_t)nv, (uint64_t)gv);
	else {
		if (gv >= 0)
			t->undefined = ARITH; /* instructions before it may have left some undefined */
		bad += compare(t, &n, &out, gflags, grsp);
	}
	if (memcmp(native_data, guest.ram + DATA_GPA, DATA_BYTES)) {
		unsigned k = 0;

		while (native_data[k] == guest.ram[DATA_GPA + k])
			k++;
		bad += differ(t, "memory", native_data[k], guest.ram[DATA_GPA + k]);
		printf("    at %x\n", k);
		memcpy(guest.ram + DATA_GPA, native_data, DATA_BYTES);
	}
	return bad;
}

static void emit_slot(const struct test *t, unsigned slot)
{
	uint8_t *n = native_code + slot * SLOT_BYTES, *g = guest.ram + CODE_GPA + slot * SLOT_BYTES;
	uint64_t out = (uint64_t)(uintptr_t)native_exit_address();

	memcpy(n, t->bytes, t->len);
	memcpy(g, t->bytes, t->len);
	g[t->len] = 0xf4;
	n += t->len;
	memcpy(n, "\xff\x25\0\0\0\0", 6); /* jmp [rip] */
	memcpy(n + 6, &out, 8);
}

static void new_code(void)
{
	for (unsigned k = 0; k < CODE_BYTES / PAGE_SIZE; k++)
		fake_dsm_drop(guest.dsm, (CODE_GPA >> PAGE_SHIFT) + k, DSM_NONE);
}

static void setup(void)
{
	const int prot = PROT_READ | PROT_WRITE | PROT_EXEC, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	guest_open(&guest, 16u << 20, 1);
	native_init();
	native_code = mmap((void *)CODE_VA, CODE_BYTES, prot, flags, -1, 0);
	native_data = mmap((void *)DATA_VA, DATA_BYTES, prot, flags, -1, 0);
	ASSERT(native_code != MAP_FAILED && native_data != MAP_FAILED);
	guest_map(&guest, CODE_VA, CODE_GPA, CODE_BYTES, GUEST_RWU);
	guest_map(&guest, DATA_VA, DATA_GPA, DATA_BYTES, GUEST_RWU);
	for (unsigned k = 0; k < DATA_BYTES; k++)
		native_data[k] = (uint8_t)rng_next(&gen_rng);
	memcpy(guest.ram + DATA_GPA, native_data, DATA_BYTES);
}

int main(int argc, char **argv)
{
	uint64_t want = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000, t0 = clock_now_ns();
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, bad = 0;
	struct hv_cpu_state base;
	struct test t;
	unsigned slot = SLOTS;

	gen_init(seed);
	setup();
	guest_state(&guest, &base, CODE_VA, 0, false);
	while (done < want && bad < 20) {
		if (slot == SLOTS) {
			slot = 0;
			new_code();
		}
		gen_test(&t, CODE_VA + slot * SLOT_BYTES);
		emit_slot(&t, slot);
		if (run_one(&t, slot, &base)) {
			dump(&t);
			bad++;
		}
		done += t.count;
		slot++;
	}
	printf("bt diff: %llu instructions, seed %llu, %llu exceptions, %llu sequences differ, %.1f s\n",
	       (unsigned long long)done, (unsigned long long)seed, (unsigned long long)faults,
	       (unsigned long long)bad, (double)(clock_now_ns() - t0) / 1e9);
	printf("%d passed, %d failed, 0 skipped\n", !bad, !!bad);
	guest_close(&guest);
	return bad != 0;
}
