/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/gen.c - see gen.h.  Random bytes that decode to something in scope, with their memory operands made to
 * point into the data area.
 *
 * Limits    FS is the host's TLS, so no FS; no branches, nothing privileged.
 */
#include "gen.h"

#include <string.h>

struct rng gen_rng;
ZydisDecoder gen_decoder;

void gen_init(uint64_t seed)
{
	gen_rng.state = seed;
	ZydisDecoderInit(&gen_decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

static uint64_t below(uint64_t n) { return rng_below(&gen_rng, n); }

static uint64_t interesting(void)
{
	static const uint64_t v[] = {0, 1, 2, ~0ull, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
				     0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0x100000000};

	switch (below(4)) {
	case 0: return v[below(ARRAY_LEN(v))];
	case 1: return below(256);
	default: return rng_next(&gen_rng);
	}
}

/* --- what is tested --- */
static bool ext_tested(const ZydisDecodedInstruction *z)
{
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4: return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	default: return false;
	}
}

static bool tested(const ZydisDecodedInstruction *z)
{
	if (!ext_tested(z) || (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
		return false;
	switch (z->meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_SEGOP: return false;
	default: break;
	}
	if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d)
		return false; /* without memory: nop or #UD, by vendor */
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_XLAT: /* memory at rbx + al: reached by the string-like tests of small guests */
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_CLI:
	case ZYDIS_MNEMONIC_STI:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_STD:
	case ZYDIS_MNEMONIC_FXRSTOR: /* random images have reserved MXCSR bits; the state of the test goes through it */
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FXSAVE: /* x87 instruction pointers differ */
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2: return false;
	default: return true;
	}
}

static bool segment_operand(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	for (unsigned k = 0; k < z->operand_count; k++)
		if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER)
			switch (ZydisRegisterGetClass(op[k].reg.value)) {
			case ZYDIS_REGCLASS_SEGMENT:
			case ZYDIS_REGCLASS_CONTROL:
			case ZYDIS_REGCLASS_DEBUG: return true;
			default: break;
			}
	return false;
}

/* --- generation --- */
static unsigned gen_bytes(uint8_t *b)
{
	unsigned n = 0, map = (unsigned)below(16);

	if (below(8) == 0)
		b[n++] = 0xf0;
	if (below(12) == 0)
		b[n++] = 0x67;
	if (below(24) == 0)
		b[n++] = 0x65;
	if (below(4) == 0)
		b[n++] = 0x66;
	if (below(5) == 0)
		b[n++] = (uint8_t)(0xf2 + below(2));
	if (below(2))
		b[n++] = (uint8_t)(0x40 + below(16));
	if (map >= 13) {
		b[n++] = 0x0f;
		b[n++] = map == 13 ? 0x3a : 0x38;
	} else if (map >= 5) {
		b[n++] = 0x0f;
	}
	b[n++] = map < 2 ? (uint8_t)(0xd8 + below(8)) : (uint8_t)rng_next(&gen_rng);
	while (n < 15)
		b[n++] = (uint8_t)rng_next(&gen_rng);
	return n;
}

static int gpr_of(ZydisRegister r)
{
	r = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(r) : -1;
}

static bool fix_register(struct test *t, int reg, uint64_t value)
{
	uint16_t bit = (uint16_t)(1u << reg);

	if ((t->written | t->fixed) & bit)
		return false;
	t->fixed |= bit;
	t->s.gpr[reg] = value;
	return true;
}

static uint64_t random_target(unsigned size)
{
	uint64_t at = DATA_LOW + below(DATA_HIGH - DATA_LOW);

	if (below(4))
		at &= ~15ull; /* most SSE operands want it */
	if (below(24) == 0) /* across a page */
		at = (at & PAGE_MASK) + PAGE_SIZE - 1 - below(size ? size : 1);
	return DATA_VA + at;
}

static bool patch_disp(uint8_t *b, const ZydisDecodedInstruction *z, uint64_t v)
{
	int32_t d = (int32_t)v;

	if (z->raw.disp.size != 32 || (uint64_t)(int64_t)d != v)
		return false;
	memcpy(b + z->raw.disp.offset, &d, 4);
	return true;
}

/* Makes the memory operand point into the data area; false when that cannot be. */
static bool place_memory(struct test *t, uint8_t *b, const ZydisDecodedInstruction *z,
			 const ZydisDecodedOperand *o, uint64_t rip)
{
	uint64_t target = random_target(o->size / 8), disp;
	int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);
	unsigned scale = o->mem.scale;

	if (o->mem.segment == ZYDIS_REGISTER_FS)
		return false;
	if (o->mem.segment == ZYDIS_REGISTER_GS)
		target -= t->s.gs_base;
	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
		return patch_disp(b, z, target - (rip + z->length));
	if (base < 0 && index < 0)
		return z->raw.disp.size == 32 && patch_disp(b, z, target);
	disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
	if (base < 0) {
		uint64_t v = (target & ~7ull) - (disp & ~7ull);

		return (disp & 7) == 0 && v % scale == 0 && z->address_width == 64 && fix_register(t, index, v / scale);
	}
	if (index == base)
		return false;
	if (index >= 0) {
		uint64_t v = interesting();

		if (!fix_register(t, index, v))
			return false;
		disp += v * scale;
	}
	target -= disp;
	if (z->address_width == 32)
		target = (uint32_t)target | (rng_next(&gen_rng) << 32);
	return fix_register(t, base, target);
}

static void note_writes(struct test *t, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	for (unsigned k = 0; k < z->operand_count; k++)
		if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && (op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			int r = gpr_of(op[k].reg.value);

			if (r >= 0)
				t->written |= (uint16_t)(1u << r);
		}
}

/* The bt family reaches memory by its index register. */
static bool place_bit_index(struct test *t, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC: break;
	default: return true;
	}
	if (op[0].type != ZYDIS_OPERAND_TYPE_MEMORY || op[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return true;
	return fix_register(t, gpr_of(op[1].reg.value), below(2 * 8 * PAGE_SIZE) - 8 * PAGE_SIZE);
}

static bool uses_stack(const ZydisDecodedInstruction *z)
{
	return z->meta.category == ZYDIS_CATEGORY_PUSH || z->meta.category == ZYDIS_CATEGORY_POP ||
	       z->mnemonic == ZYDIS_MNEMONIC_LEAVE;
}

static bool place_stack(struct test *t, const ZydisDecodedInstruction *z)
{
	int reg = z->mnemonic == ZYDIS_MNEMONIC_LEAVE ? HV_RBP : HV_RSP;

	return !uses_stack(z) || fix_register(t, reg, random_target(8));
}

static uint64_t string_pointer(void)
{
	return DATA_VA + DATA_LOW + below(DATA_HIGH - DATA_LOW);
}

static bool place_string(struct test *t, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	if (z->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || z->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU)
		return z->address_width == 64 && !(z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT) &&
		       fix_register(t, HV_RDI, string_pointer());
	if (z->meta.category != ZYDIS_CATEGORY_STRINGOP)
		return true;
	if (z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT)
		return false;
	if (!fix_register(t, HV_RSI, string_pointer()) || !fix_register(t, HV_RDI, string_pointer()))
		return false;
	t->written |= 1u << HV_RSI | 1u << HV_RDI;
	(void)op;
	if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
		if (!fix_register(t, HV_RCX, below(200)))
			return false;
		t->written |= 1u << HV_RCX;
	}
	return true;
}

static bool flags_fit(struct test *t, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	const ZydisAccessedFlags *f = z->cpu_flags;
	uint32_t defined;
	bool certain = true;

	if (!f)
		return true;
	if (f->tested & t->undefined & ARITH)
		return false;
	defined = (f->modified | f->set_0 | f->set_1) & ~f->undefined & ARITH;
	if (z->meta.category == ZYDIS_CATEGORY_SHIFT || z->meta.category == ZYDIS_CATEGORY_ROTATE ||
	    z->meta.category == ZYDIS_CATEGORY_STRINGOP)
		certain = false;
	(void)op;
	if (certain)
		t->undefined &= ~defined;
	t->undefined |= f->undefined & ARITH;
	return true;
}

/* Appends one random instruction. */
static bool add_insn(struct test *t, uint64_t va)
{
	struct test undo = *t;
	uint8_t *b = t->bytes + t->len;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	if (t->len + 15 + 16 > SLOT_BYTES)
		return false;
	gen_bytes(b);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&gen_decoder, b, 15, &z, op)) || !tested(&z) ||
	    segment_operand(&z, op))
		goto reject;
	if (z.mnemonic == ZYDIS_MNEMONIC_TZCNT || z.mnemonic == ZYDIS_MNEMONIC_LZCNT)
		goto reject;
	if (!place_stack(t, &z) || !place_string(t, &z, op) || !place_bit_index(t, &z, op))
		goto reject;
	for (unsigned k = 0; k < z.operand_count_visible; k++)
		if (op[k].type == ZYDIS_OPERAND_TYPE_MEMORY && op[k].mem.type == ZYDIS_MEMOP_TYPE_MEM &&
		    z.meta.category != ZYDIS_CATEGORY_STRINGOP && z.mnemonic != ZYDIS_MNEMONIC_NOP) {
			if (op[k].encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM && op[k].encoding != ZYDIS_OPERAND_ENCODING_NONE)
				goto reject;
			if (op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && uses_stack(&z) &&
			    gpr_of(op[k].mem.base) == HV_RSP)
				goto reject;
			if ((z.attributes & ZYDIS_ATTRIB_HAS_SIB) && z.raw.modrm.mod == 0 && z.raw.sib.base == 5) {
				op[k].mem.base = ZYDIS_REGISTER_NONE; /* Zydis 4.0 takes r13 with REX.B */
				op[k].mem.disp.has_displacement = ZYAN_TRUE;
				op[k].mem.disp.value = z.raw.disp.value;
			}
			if (op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
			    !place_memory(t, b, &z, &op[k], va + t->len))
				goto reject;
		}
	if (!flags_fit(t, &z, op))
		goto reject;
	note_writes(t, &z, op);
	t->len += z.length;
	t->count++;
	return true;
reject:
	*t = undo;
	return false;
}

static void random_state(struct test *t)
{
	for (unsigned k = 0; k < 16; k++)
		t->s.gpr[k] = interesting();
	t->s.rflags = 2 | (rng_next(&gen_rng) & ARITH);
	t->s.gs_base = DATA_VA + 0x1000;
	for (unsigned k = 0; k < sizeof(t->s.fx); k++)
		t->s.fx[k] = (uint8_t)rng_next(&gen_rng);
	for (unsigned k = 0; k < 16; k++) { /* floats that mean something */
		static const uint32_t f[] = {0x3f800000, 0xbf800000, 0x40490fdb, 0x7f800000, 0x7fc00000, 0x00000001,
					     0x4b800000, 0xcf000000, 0, 0x80000000};

		if (below(2))
			for (unsigned j = 0; j < 4; j++)
				memcpy(t->s.fx + 160 + 16 * k + 4 * j, &f[below(ARRAY_LEN(f))], 4);
	}
	/* control words: everything masked but for now and then */
	memcpy(t->s.fx, &(uint16_t){(uint16_t)(below(16) ? 0x037f | below(16) << 8 : 0x0340 | below(64))}, 2);
	memcpy(t->s.fx + 2, &(uint16_t){(uint16_t)(below(8) << 11)}, 2);
	t->s.fx[4] = (uint8_t)rng_next(&gen_rng);
	t->s.fx[5] = 0;
	memset(t->s.fx + 6, 0, 18);
	memcpy(t->s.fx + 24, &(uint32_t){(uint32_t)(below(16) ? 0x1f80 | below(4) << 13 : (below(64) << 7))}, 4);
	memset(t->s.fx + 28, 0, 4);
	for (unsigned k = 0; k < 8; k++)
		memset(t->s.fx + 32 + 16 * k + 10, 0, 6);
	memset(t->s.fx + 416, 0, 96);
}

void gen_test(struct test *t, uint64_t va)
{
	unsigned want = 1 + (unsigned)below(SEQ_MAX);

	memset(t, 0, sizeof(*t));
	random_state(t);
	for (unsigned tries = 0; t->count < want && (tries < 40 || t->count == 0); tries++)
		add_insn(t, va);
}
