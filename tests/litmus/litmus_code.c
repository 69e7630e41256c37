/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus_code.c - a thread of a litmus test as machine code.
 *
 * What      A function long f(struct l_args *): loads the variables' addresses into r8 .. r11, clears the four registers,
 *           then exactly the test's instructions, one of the processor's for each, then stores the registers.
 * Source    Intel SDM vol 2, the pages of MOV, XCHG, XADD, CMPXCHG, MFENCE; 2.1.5 ModR/M, 2.2.1 REX.
 */
#include "tests/litmus/litmus.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

struct code {
	uint8_t *at, *end;
};

static void put(struct code *c, const void *bytes, size_t len)
{
	ASSERT(len <= (size_t)(c->end - c->at));
	memcpy(c->at, bytes, len);
	c->at += len;
}

#define PUT(c, ...) \
	put(c, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* ModR/M for [r8 + var], no displacement; with REX.B. */
static uint8_t modrm(const struct l_instr *in, unsigned reg)
{
	return (uint8_t)(reg << 3 | in->var);
}

static void instr_put(struct code *c, const struct l_instr *in)
{
	switch ((enum l_op)in->op) {
	case L_STORE:
		PUT(c, 0x41, 0xc7, modrm(in, 0), in->value, 0, 0, 0);
		break;
	case L_STORE_REG:
		PUT(c, 0x41, 0x89, modrm(in, in->reg));
		break;
	case L_LOAD:
		PUT(c, 0x41, 0x8b, modrm(in, in->reg));
		break;
	case L_SET:
		PUT(c, 0xb8 + in->reg, in->value, 0, 0, 0);
		break;
	case L_MFENCE:
		PUT(c, 0x0f, 0xae, 0xf0);
		break;
	case L_XCHG:
		PUT(c, 0x41, 0x87, modrm(in, in->reg));
		break;
	case L_XADD:
		PUT(c, 0xf0, 0x41, 0x0f, 0xc1, modrm(in, in->reg));
		break;
	case L_CMPXCHG:
		PUT(c, 0xf0, 0x41, 0x0f, 0xb1, modrm(in, in->reg));
		break;
	}
}

unsigned l_code(const struct l_test *t, unsigned thread, uint8_t out[static L_CODE])
{
	struct code c = { out, out + L_CODE };

	PUT(&c, 0x53);                                           /* push rbx */
	PUT(&c, 0x4c, 0x8b, 0x07, 0x4c, 0x8b, 0x4f, 8);          /* mov r8,[rdi]; r9 */
	PUT(&c, 0x4c, 0x8b, 0x57, 16, 0x4c, 0x8b, 0x5f, 24);     /* r10; r11 */
	PUT(&c, 0x31, 0xc0, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xdb); /* xor eax,eax; ... */
	for (unsigned i = 0; i < t->length[thread]; i++)
		instr_put(&c, &t->instr[thread][i]);
	for (unsigned r = 0; r < L_REGS; r++) /* mov [rdi+32+4r],reg */
		PUT(&c, 0x89, (uint8_t)(0x47 | r << 3),
		    (uint8_t)(offsetof(struct l_args, reg) + 4 * r));
	PUT(&c, 0x5b, 0xc3); /* pop rbx; ret */
	return (unsigned)(c.at - out);
}

void l_code_emit(const struct l_test *tests, unsigned count)
{
	uint8_t code[L_CODE];

	printf("/* SPDX-License-Identifier: Apache-2.0 */\n"
	       "/* Made from tests/litmus/tests.txt by the litmus tool. */\n"
	       "static const struct guest_test guest_tests[] = {\n");
	for (unsigned i = 0; i < count; i++) {
		printf("\t{ \"%s\", %u, %u, { ", tests[i].name, tests[i].threads, tests[i].vars);
		for (unsigned r = 0; r < L_THREADS; r++)
			printf("%u, ", tests[i].loaded[r]);
		printf("}, {\n");
		for (unsigned t = 0; t < tests[i].threads; t++) {
			unsigned len = l_code(&tests[i], t, code);

			printf("\t\t{ ");
			for (unsigned b = 0; b < len; b++)
				printf("0x%02x,%s", code[b], b % 20 == 19 ? "\n\t\t  " : " ");
			printf("},\n");
		}
		printf("\t} },\n");
	}
	printf("};\n");
}
