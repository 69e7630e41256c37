/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hv/test_bt_translate.c - what the bt translator makes of instructions before it emits any code. */
#include "hv/bt/tr.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct bt_translator *t;

static void setup(void)
{
	t = calloc(1, sizeof(*t));
	cr_assert(t);
	ZydisDecoderInit(&t->decoder[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	t->mode = BT_MODE_CODE64 | BT_MODE_FLAT;
}

static void teardown(void)
{
	free(t);
}

TestSuite(bt_translate, .init = setup, .fini = teardown);

static struct tr_insn *decode(const char *bytes, size_t len)
{
	struct tr_insn *in = &t->insn[t->count++];

	memset(in, 0, sizeof(*in));
	memcpy(in->bytes, bytes, len);
	cr_assert(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&t->decoder[0], in->bytes, len, &in->z, in->op)));
	tr_classify(t, in);
	return in;
}
#define DECODE(bytes) decode(bytes, sizeof(bytes) - 1)

Test(bt_translate, what_cpuid_does_not_show_is_not_run)
{
	/* vaddps, movbe, andn, rdrand, sha1nexte, aesenc, adcx, xsave */
	static const struct {
		const char *bytes;
		size_t len;
	} hidden[] = {
		{"\xc5\xf8\x58\xc1", 4},	 {"\x0f\x38\xf0\x03", 4},	 {"\xc4\xe2\x70\xf2\xc2", 5},
		{"\x0f\xc7\xf0", 3},		 {"\x0f\x38\xc8\xc1", 4},	 {"\x66\x0f\x38\xdc\xc1", 5},
		{"\x66\x0f\x38\xf6\xc1", 5}, {"\x0f\xae\x23", 3},
	};

	for (unsigned k = 0; k < ARRAY_LEN(hidden); k++) {
		struct tr_insn *in = decode(hidden[k].bytes, hidden[k].len);

		cr_expect(in->cls == TC_SYS && in->ends, "case %u has class %d", k, in->cls);
	}
}

Test(bt_translate, ordinary_instructions_are_the_hosts)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum tr_class cls;
		bool fpu;
	} c[] = {
		{"\x48\x01\xd8", 3, TC_PLAIN, false},	      /* add rax, rbx */
		{"\xf0\x48\x0f\xb1\x0b", 5, TC_PLAIN, false}, /* lock cmpxchg [rbx], rcx */
		{"\xf3\x0f\xbc\xc1", 4, TC_PLAIN, false},     /* tzcnt: bsf without BMI1 */
		{"\x0f\x58\xc1", 3, TC_PLAIN, true},	      /* addps */
		{"\xf2\x0f\x2c\x03", 4, TC_PLAIN, true},      /* cvttsd2si eax, [rbx]: no xmm operand at all */
		{"\xd9\xe8", 2, TC_PLAIN, true},	      /* fld1 */
		{"\xf2\x0f\x38\xf0\xc1", 5, TC_PLAIN, false}, /* crc32 */
		{"\x48\x0f\xa3\x03", 4, TC_BITMEM, false},    /* bt [rbx], rax */
		{"\x0f\x1f\x40\x00", 4, TC_NOP, false},
		{"\x0f\x0b", 2, TC_SYS, false}, /* ud2 */
		{"\x0f\xa2", 2, TC_SYS, false}, /* cpuid */
		{"\xf3\xa4", 2, TC_SYS, false}, /* rep movsb */
		{"\xc3", 1, TC_RET, false},
		{"\xcb", 1, TC_SYS, false},	  /* far ret */
		{"\x0f\xa0", 2, TC_SYS, false}, /* push fs */
		{"\x53", 1, TC_PUSH, false},
	};

	for (unsigned k = 0; k < ARRAY_LEN(c); k++) {
		struct tr_insn *in = decode(c[k].bytes, c[k].len);

		cr_expect(in->cls == c[k].cls && in->fpu == c[k].fpu, "case %u: class %d", k, in->cls);
	}
}

Test(bt_translate, x87_and_sse_trap_with_ts_set)
{
	t->mode |= BT_MODE_TS;
	cr_expect(DECODE("\x0f\x58\xc1")->cls == TC_SYS);
	cr_expect(DECODE("\xd9\xe8")->cls == TC_SYS);
	cr_expect(DECODE("\x9b")->cls == TC_SYS);
	cr_expect(DECODE("\xf2\x0f\x38\xf0\xc1")->cls == TC_PLAIN, "crc32 has no FPU state");
}

Test(bt_translate, flags_live_until_they_are_overwritten)
{
	struct tr_insn *cmp = DECODE("\x39\xd8"), *load = DECODE("\x48\x8b\x03"), *jcc;
	struct tr_insn *add = DECODE("\x01\xd8"), *inc = DECODE("\xff\xc0");

	jcc = DECODE("\x74\x00");
	tr_flags_analyse(t); /* cmp; load; add; inc; je */
	cr_expect_eq(cmp->live, 0, "the add overwrites all");
	cr_expect_eq(load->live_in, 0);
	cr_expect_eq(add->live, RFLAGS_CF, "inc keeps the carry");
	cr_expect_eq(inc->live, RFLAGS_ARITH, "the successors are not known");
	cr_expect(jcc->reads & RFLAGS_ZF);
	cr_expect_eq(cmp->live_in, 0);
}

Test(bt_translate, a_shift_by_zero_changes_no_flags)
{
	cr_expect_eq(DECODE("\xd3\xe0")->kills, 0, "shl eax, cl");
	cr_expect_eq(DECODE("\xc1\xe0\x20")->kills, 0, "shl eax, 32 is by 0");
	cr_expect(DECODE("\xc1\xe0\x01")->kills & RFLAGS_CF);
	cr_expect_eq(DECODE("\x48\xc1\xe0\x40")->kills, 0, "shl rax, 64 is by 0");
	cr_expect(DECODE("\x48\xc1\xe0\x20")->kills & RFLAGS_CF);
}

Test(bt_translate, system_instructions_get_their_operands)
{
	struct bt_insn s;

	tr_sysinsn_fill(&s, DECODE("\x65\x0f\x01\x5c\xcb\x10")); /* lidt gs:[rbx + rcx * 8 + 16] */
	cr_expect(s.has_mem && s.base == HV_RBX && s.index == HV_RCX && s.scale == 8 && s.disp == 16);
	cr_expect_eq(s.seg, HV_GS);
	tr_sysinsn_fill(&s, DECODE("\x41\x0f\x22\xd8")); /* mov cr3, r8 */
	cr_expect(s.op[0].kind == 5 && s.op[0].reg == 3 && s.op[1].kind == 1 && s.op[1].reg == HV_R8);
	tr_sysinsn_fill(&s, DECODE("\xf3\x48\xa5")); /* rep movsq */
	cr_expect(s.rep == 0xf3 && s.opsize == 8 && s.seg == HV_DS);
}
