/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/decode.c - guest bytes to classified instructions, and which arithmetic flags each of them needs.
 *
 * What      Finds out for every instruction who runs it: the host itself (plain), code of ours (control flow,
 *           stack) or a C function (system instructions).  What the CPUID model does not show is #UD.
 * Threads   The vCPU thread; x87/SSE state is parked (Zydis uses the host's).
 * Limits    A block never leaves its page: an instruction across two pages is a block of its own.
 */
#include "hv/bt/tr.h"

#define FLAGS_ARITH RFLAGS_ARITH
#define VECTOR_UD 6
#define VECTOR_NM 7
#define CR0_MP_BIT 0x2u
#define CR0_EM_BIT 0x4u
#define CR0_TS_BIT 0x8u

static enum bt_next sys_ud(struct bt_cpu *c, const struct bt_insn *i)
{
	(void)i;
	bt_exception(c, VECTOR_UD);
	return BT_AGAIN;
}

static enum bt_next sys_too_long(struct bt_cpu *c, const struct bt_insn *i)
{
	(void)i;
	bt_exception_error(c, 13, 0);
	return BT_AGAIN;
}

static enum bt_next sys_trap_x87(struct bt_cpu *c, const struct bt_insn *i)
{
	(void)i;
	bt_exception(c, VECTOR_NM);
	return BT_AGAIN;
}

/* SDM vol 3 table 2-2: SSE and MMX with EM set are #UD, with TS set #NM. */
static enum bt_next sys_trap_sse(struct bt_cpu *c, const struct bt_insn *i)
{
	(void)i;
	bt_exception(c, c->cr0 & CR0_EM_BIT ? VECTOR_UD : VECTOR_NM);
	return BT_AGAIN;
}

/* fwait traps only when both MP and TS are set (SDM vol 3, 2.5). */
static enum bt_next sys_trap_fwait(struct bt_cpu *c, const struct bt_insn *i)
{
	if ((c->cr0 & (CR0_MP_BIT | CR0_TS_BIT)) == (CR0_MP_BIT | CR0_TS_BIT)) {
		bt_exception(c, VECTOR_NM);
		return BT_AGAIN;
	}
	c->rip = i->next_rip;
	return BT_NEXT;
}

static bool reg_plain(ZydisRegister r, bool hidden)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: {
		int n = zreg(r);

		if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR8)
			return true;
		return !hidden || (n != 4 && !tr_spilled((unsigned)n));
	}
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_FLAGS:
		return true;
	default:
		return r == ZYDIS_REGISTER_X87CONTROL || r == ZYDIS_REGISTER_X87STATUS ||
		       r == ZYDIS_REGISTER_X87TAG || r == ZYDIS_REGISTER_MXCSR;
	}
}

static bool operands_plain(const struct tr_insn *in)
{
	for (unsigned k = 0; k < in->z.operand_count; k++) {
		const ZydisDecodedOperand *o = &in->op[k];

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    !reg_plain(o->reg.value, o->encoding == ZYDIS_OPERAND_ENCODING_NONE))
			return false;
	}
	return true;
}

static bool ext_allowed(const ZydisDecodedInstruction *z)
{
	if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_PAUSE:
	case ZYDIS_ISA_EXT_CLFSH:
		return true;
	default:
		return false;
	}
}

/* Touches no memory and no register; on a CPU without the feature the encoding is a nop too. */
static bool is_nop(const struct tr_insn *in)
{
	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1:
	case ZYDIS_MNEMONIC_CLDEMOTE:
	case ZYDIS_MNEMONIC_CLFLUSH:
		return true;
	default:
		return false;
	}
}

/* MMX, x87 and all of SSE but for what works on general registers only. */
static bool uses_fpu(const struct tr_insn *in)
{
	switch (in->z.meta.isa_ext) {
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_MMX:
		return true;
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
		break;
	default:
		return false;
	}
	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return false;
	default:
		return true;
	}
}

static bool is_string(const struct tr_insn *in)
{
	return in->z.meta.category == ZYDIS_CATEGORY_STRINGOP || in->z.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static bool has_system_reg(const struct tr_insn *in)
{
	for (unsigned k = 0; k < in->z.operand_count_visible; k++) {
		if (in->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(in->op[k].reg.value)) {
		case ZYDIS_REGCLASS_SEGMENT:
		case ZYDIS_REGCLASS_CONTROL:
		case ZYDIS_REGCLASS_DEBUG:
		case ZYDIS_REGCLASS_TEST:
			return true;
		default:
			break;
		}
	}
	return false;
}

static void classify_sys(struct tr_insn *in)
{
	in->cls = TC_SYS;
	in->sys = bt_sys_lookup((uint16_t)in->z.mnemonic);
	if (!in->sys)
		in->sys = sys_ud;
}

/* Control flow and stack; false when it is neither. */
static bool classify_flow(struct tr_insn *in)
{
	bool far = in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_JMP: in->cls = TC_JMP; break;
	case ZYDIS_MNEMONIC_CALL: in->cls = TC_CALL; break;
	case ZYDIS_MNEMONIC_RET: in->cls = TC_RET; break;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: in->cls = TC_LOOP; break;
	case ZYDIS_MNEMONIC_PUSH: in->cls = TC_PUSH; break;
	case ZYDIS_MNEMONIC_POP: in->cls = TC_POP; break;
	case ZYDIS_MNEMONIC_LEAVE:
		in->cls = in->z.operand_width == 64 ? TC_LEAVE : TC_SYS;
		break;
	default:
		if (in->z.meta.category == ZYDIS_CATEGORY_COND_BR && in->z.meta.isa_ext == ZYDIS_ISA_EXT_BASE) {
			in->cls = TC_JCC;
			break;
		}
		return false;
	}
	/* far ret has no branch type in some Zydis versions: go by opcode (C3, C2 are near) */
	if (in->z.mnemonic == ZYDIS_MNEMONIC_RET && in->z.opcode != 0xc3 && in->z.opcode != 0xc2)
		far = true;
	if (far || in->cls == TC_SYS ||
	    ((in->cls == TC_PUSH || in->cls == TC_POP) && has_system_reg(in)))
		classify_sys(in);
	return true;
}

static void classify_special(struct bt_translator *t, struct tr_insn *in)
{
	bool user = t->mode & BT_MODE_USER;

	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_LEA: in->cls = TC_LEA; return;
	case ZYDIS_MNEMONIC_PAUSE: in->cls = TC_PAUSE; return;
	case ZYDIS_MNEMONIC_CLD:
	case ZYDIS_MNEMONIC_STD: in->cls = TC_CLD; return;
	case ZYDIS_MNEMONIC_RDTSC:
		if (!user && !t->cpu->cfg->pace) {
			in->cls = TC_RDTSC;
			return;
		}
		break;
	case ZYDIS_MNEMONIC_CLI:
		if (!user) {
			in->cls = TC_CLI;
			return;
		}
		break;
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU: in->cls = TC_MASKMOV; return;
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_RSM:
		in->cls = TC_SYS;
		in->sys = sys_ud;
		return;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (in->mem && in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			in->cls = TC_BITMEM;
			return;
		}
		break;
	case ZYDIS_MNEMONIC_TZCNT: /* BMI1 and LZCNT are not shown: these run as bsf and bsr */
	case ZYDIS_MNEMONIC_LZCNT:
		in->cls = TC_PLAIN;
		return;
	case ZYDIS_MNEMONIC_MOV:
		if (has_system_reg(in)) {
			classify_sys(in);
			return;
		}
		if (in->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && in->z.opcode >= 0xa0 && in->z.opcode <= 0xa3) {
			in->cls = TC_MOFFS;
			return;
		}
		in->cls = TC_PLAIN;
		return;
	case ZYDIS_MNEMONIC_LAHF:
	case ZYDIS_MNEMONIC_SAHF: in->cls = TC_PLAIN; return;
	default: break;
	}
	if (is_string(in) || (ext_allowed(&in->z) && !operands_plain(in))) {
		classify_sys(in);
		return;
	}
	in->cls = TC_PLAIN;
	if (in->z.mnemonic == ZYDIS_MNEMONIC_MOVSD || in->z.mnemonic == ZYDIS_MNEMONIC_CMPSD)
		return; /* the SSE2 ones */
	in->sys = bt_sys_lookup((uint16_t)in->z.mnemonic);
	if (in->sys)
		in->cls = TC_SYS;
	else if (!ext_allowed(&in->z) || (in->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
		classify_sys(in);
}

static void flags_of(struct tr_insn *in)
{
	const ZydisAccessedFlags *f = in->z.cpu_flags;

	if (f) {
		in->reads = f->tested & FLAGS_ARITH;
		in->may = (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITH;
	}
	in->kills = in->may;
	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD: { /* a count of zero changes nothing */
		const ZydisDecodedOperand *n = &in->op[in->z.operand_count_visible - 1];
		unsigned mask = in->z.operand_width == 64 ? 63 : 31;

		if (n->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || (n->imm.value.u & mask) == 0)
			in->kills = 0;
		break;
	}
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_LZCNT:
		in->may = in->kills = FLAGS_ARITH;
		in->reads = 0;
		break;
	default:
		break;
	}
}

static bool class_clobbers(const struct tr_insn *in)
{
	switch (in->cls) {
	case TC_PLAIN: return in->mem != NULL;
	case TC_MOFFS:
	case TC_CALL:
	case TC_RET:
	case TC_PUSH:
	case TC_POP:
	case TC_LEAVE:
	case TC_PAUSE:
	case TC_RDTSC:
	case TC_CLI:
	case TC_CLD:
	case TC_BITMEM:
	case TC_MASKMOV:
	case TC_SYS: return true;
	case TC_JMP: return in->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
	default: return false;
	}
}

/* SIB base 101 with mod 00 is no base, whatever REX.B says (SDM vol 2, 2.2.1.2); Zydis 4.0 takes r13. */
static void no_base(const struct tr_insn *in, ZydisDecodedOperand *o)
{
	if ((in->z.attributes & ZYDIS_ATTRIB_HAS_SIB) && in->z.raw.modrm.mod == 0 && in->z.raw.sib.base == 5 &&
	    o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
		o->mem.base = ZYDIS_REGISTER_NONE;
		o->mem.disp.has_displacement = ZYAN_TRUE;
		o->mem.disp.value = in->z.raw.disp.value;
	}
}

void tr_classify(struct bt_translator *t, struct tr_insn *in)
{
	in->sys = NULL;
	in->fpu = false;
	in->reads = in->may = in->kills = 0;
	in->mem = NULL;
	for (unsigned k = 0; k < in->z.operand_count_visible; k++)
		if (in->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			in->mem = &in->op[k];
			no_base(in, &in->op[k]);
		}
	if (is_nop(in))
		in->cls = TC_NOP;
	else if (!classify_flow(in))
		classify_special(t, in);
	if (in->cls == TC_PLAIN || in->cls == TC_MASKMOV)
		in->fpu = uses_fpu(in);
	if (in->fpu && (t->mode & BT_MODE_TS)) {
		in->cls = TC_SYS;
		in->fpu = false;
		in->sys = in->z.mnemonic == ZYDIS_MNEMONIC_FWAIT	   ? sys_trap_fwait
			  : in->z.meta.isa_ext == ZYDIS_ISA_EXT_X87 ? sys_trap_x87
								    : sys_trap_sse;
	}
	if (in->cls != TC_NOP)
		flags_of(in);
	if (in->cls == TC_SYS) {
		in->reads = in->may = FLAGS_ARITH;
		in->kills = 0;
	}
	in->clobbers = class_clobbers(in);
	in->ends = in->cls == TC_SYS || in->cls == TC_JMP || in->cls == TC_JCC || in->cls == TC_CALL ||
		   in->cls == TC_RET || in->cls == TC_LOOP;
}

void tr_flags_analyse(struct bt_translator *t)
{
	uint16_t live = FLAGS_ARITH;

	for (unsigned k = t->count; k-- > 0;) {
		struct tr_insn *in = &t->insn[k];

		in->live = live;
		live = (uint16_t)((live & ~in->kills) | in->reads);
		in->live_in = live;
	}
}

/* Second page of an instruction that crosses; *moved when what was fetched before may be void. */
static enum bt_res fetch_second(struct bt_translator *t, struct bt_block *b, gva_t va, uint8_t *buf, unsigned have)
{
	gpa_t gpa2;
	enum bt_res r = bt_mmu_fetch(t->cpu, (va & PAGE_MASK) + PAGE_SIZE, &gpa2);

	if (r != BT_OK)
		return r;
	b->gfn2 = gpa2 >> PAGE_SHIFT;
	for (unsigned k = have; k < 15; k++)
		buf[k] = t->cpu->alias[(gpa2 & PAGE_MASK) + k - have];
	return BT_OK;
}

static void invalid_insn(struct tr_insn *in, bool too_long)
{
	in->z = (ZydisDecodedInstruction){.length = 1};
	in->mem = NULL;
	in->cls = TC_SYS;
	in->sys = too_long ? sys_too_long : sys_ud;
	in->reads = in->may = FLAGS_ARITH;
	in->kills = 0;
	in->fpu = false;
	in->clobbers = in->ends = true;
}

static unsigned decoder_of(uint32_t mode)
{
	switch (mode & BT_MODE_CODE) {
	case BT_MODE_CODE64: return 0;
	case BT_MODE_CODE32: return mode & BT_MODE_REAL ? 3 : 1;
	default: return mode & BT_MODE_REAL ? 4 : 2;
	}
}

static uint64_t ip_mask(uint32_t mode)
{
	switch (mode & BT_MODE_CODE) {
	case BT_MODE_CODE64: return ~0ull;
	case BT_MODE_CODE32: return 0xffffffffu;
	default: return mode & BT_MODE_REAL ? 0xffffu : 0xffffffffu;
	}
}

enum bt_res tr_decode(struct bt_translator *t, struct bt_block *b)
{
	const ZydisDecoder *d = &t->decoder[decoder_of(b->mode)];
	unsigned max = b->mode & (BT_MODE_SINGLE | TR_MODE_ONE | TR_MODE_BOUNCE) ? 1 : TR_BLOCK_INSNS;
	unsigned off = b->gpa & (PAGE_SIZE - 1), start = off;

	b->gfn2 = ~0ull;
	t->count = 0;
	while (t->count < max && off < PAGE_SIZE && off - start < 220) {
		struct tr_insn *in = &t->insn[t->count];
		unsigned have = PAGE_SIZE - off < 15 ? PAGE_SIZE - off : 15;
		ZyanStatus s;

		for (unsigned k = 0; k < have; k++)
			in->bytes[k] = t->cpu->alias[(b->gpa & PAGE_MASK) + off + k];
		in->rip = (b->rip + off - start) & ip_mask(b->mode);
		s = ZydisDecoderDecodeFull(d, in->bytes, have, &in->z, in->op);
		if (s == ZYDIS_STATUS_NO_MORE_DATA && have < 15) {
			enum bt_res r;

			if (t->count)
				break;
			r = fetch_second(t, b, b->cs_base + b->rip, in->bytes, have);
			if (r != BT_OK)
				return r;
			s = ZydisDecoderDecodeFull(d, in->bytes, 15, &in->z, in->op);
		}
		if (ZYAN_SUCCESS(s))
			tr_classify(t, in);
		else
			invalid_insn(in, s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG);
		in->next = (in->rip + in->z.length) & ip_mask(b->mode);
		off += in->z.length;
		t->count++;
		if (in->ends || b->gfn2 != ~0ull)
			break;
	}
	b->size = (uint16_t)(off - start);
	tr_flags_analyse(t);
	return BT_OK;
}

static uint8_t gpr_number(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (uint8_t)(0x10 | (r - ZYDIS_REGISTER_AH));
	return (uint8_t)zreg(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

static void sys_operand(struct bt_insn *s, unsigned k, const ZydisDecodedOperand *o)
{
	s->op[k].size = (uint8_t)(o->size / 8);
	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		switch (ZydisRegisterGetClass(o->reg.value)) {
		case ZYDIS_REGCLASS_SEGMENT: s->op[k].kind = 4; break;
		case ZYDIS_REGCLASS_CONTROL: s->op[k].kind = 5; break;
		case ZYDIS_REGCLASS_DEBUG: s->op[k].kind = 6; break;
		default: s->op[k].kind = 1; break;
		}
		s->op[k].reg = s->op[k].kind == 1 ? gpr_number(o->reg.value) : (uint8_t)zreg(o->reg.value);
		break;
	case ZYDIS_OPERAND_TYPE_MEMORY: s->op[k].kind = 2; break;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		s->op[k].kind = 3;
		s->op[k].imm = o->imm.value.u;
		break;
	case ZYDIS_OPERAND_TYPE_POINTER:
		s->op[k].kind = 7;
		s->op[k].imm = (uint64_t)o->ptr.segment << 32 | o->ptr.offset;
		break;
	default: break;
	}
}

static void sys_memory(struct bt_insn *s, const struct tr_insn *in)
{
	const ZydisDecodedOperand *o = in->mem;

	s->base = s->index = 0xff;
	s->seg = HV_DS;
	for (unsigned k = 0; k < in->z.operand_count; k++) {
		const ZydisDecodedOperand *m = &in->op[k];

		if (m->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		/* string source: the operand that an override applies to */
		if (m == o || m->mem.base == ZYDIS_REGISTER_RSI || m->mem.base == ZYDIS_REGISTER_ESI ||
		    m->mem.base == ZYDIS_REGISTER_SI)
			s->seg = (uint8_t)zreg(m->mem.segment);
	}
	if (!o || is_string(in))
		return;
	s->has_mem = true;
	s->memsize = (uint8_t)(o->size / 8 > 255 ? 255 : o->size / 8);
	s->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
		s->disp += (int64_t)in->next;
	else if (o->mem.base != ZYDIS_REGISTER_NONE)
		s->base = (uint8_t)zreg(o->mem.base);
	if (o->mem.index != ZYDIS_REGISTER_NONE) {
		s->index = (uint8_t)zreg(o->mem.index);
		s->scale = o->mem.scale;
	}
}

void tr_sysinsn_fill(struct bt_insn *s, const struct tr_insn *in)
{
	*s = (struct bt_insn){
		.rip = in->rip,
		.next_rip = in->next,
		.mnemonic = (uint16_t)in->z.mnemonic,
		.length = in->z.length,
		.opsize = in->z.operand_width / 8,
		.addrsize = in->z.address_width / 8,
		.lock = (in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0,
	};
	if (in->z.attributes & ZYDIS_ATTRIB_HAS_REPNE)
		s->rep = 0xf2;
	else if (in->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		s->rep = 0xf3;
	sys_memory(s, in);
	for (unsigned k = 0; k < in->z.operand_count_visible && k < ARRAY_LEN(s->op); k++)
		sys_operand(s, s->nops++, &in->op[k]);
}
