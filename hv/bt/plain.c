/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/plain.c - ordinary instructions: the guest's own bytes with other registers and another operand address.
 *
 * What      Keeps opcode and immediates, maps the register fields, replaces a memory operand by [S0], which the
 *           probe made a host address.  So the host CPU supplies the semantics, lock prefix included.
 * Threads   The vCPU thread.
 */
#include "hv/bt/tr.h"

struct field {
	bool gpr;	/* a general register, to be mapped */
	bool high;	/* ah ch dh bh */
	bool wrote;
	bool byte;
	uint8_t guest;	/* number with REX */
	uint8_t host;
};

struct shape {
	struct field reg, rm; /* rm: also the register in the opcode byte */
	bool in_opcode;	      /* rm is in the opcode byte */
	bool has_modrm;
	bool rm_mem;
};

static const ZydisDecodedOperand *operand_of(const struct tr_insn *in, ZydisOperandEncoding enc)
{
	for (unsigned k = 0; k < in->z.operand_count; k++)
		if (in->op[k].encoding == enc && in->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER)
			return &in->op[k];
	return NULL;
}

static struct field field_of(const ZydisDecodedOperand *o, unsigned number)
{
	struct field f = {.guest = (uint8_t)number, .host = (uint8_t)number};

	if (!o)
		return f;
	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
		f.byte = true;
		f.high = o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH;
		/* fall through */
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		f.gpr = true;
		f.wrote = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		if (!f.high)
			f.host = (uint8_t)tr_host_reg(number);
		break;
	default:
		break;
	}
	return f;
}

static struct shape shape_of(const struct tr_insn *in)
{
	const ZydisDecodedInstruction *z = &in->z;
	const ZydisDecodedOperand *inop = operand_of(in, ZYDIS_OPERAND_ENCODING_OPCODE);
	bool rex = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	unsigned b = rex ? z->raw.rex.B << 3u : 0, r = rex ? z->raw.rex.R << 3u : 0;
	struct shape s = {.has_modrm = (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0};

	if (s.has_modrm) {
		s.rm_mem = z->raw.modrm.mod != 3;
		s.reg = field_of(operand_of(in, ZYDIS_OPERAND_ENCODING_MODRM_REG), z->raw.modrm.reg | r);
		if (s.rm_mem)
			s.rm = (struct field){.host = S0};
		else
			s.rm = field_of(operand_of(in, ZYDIS_OPERAND_ENCODING_MODRM_RM), z->raw.modrm.rm | b);
	} else if (inop) {
		s.in_opcode = true;
		s.rm = field_of(inop, (z->opcode & 7u) | b);
	}
	return s;
}

/* Spilled registers travel through S1 and S2. */
static void load_spilled(struct bt_translator *t, struct shape *s)
{
	if (s->reg.gpr && s->reg.host == NOREG) {
		s->reg.host = S1;
		e_ld(&t->e, S1, CPU_GPR(s->reg.guest));
	}
	if (s->rm.gpr && s->rm.host == NOREG) {
		if (s->reg.gpr && s->reg.guest == s->rm.guest && !s->reg.high) {
			s->rm.host = s->reg.host;
			return;
		}
		s->rm.host = S2;
		e_ld(&t->e, S2, CPU_GPR(s->rm.guest));
	}
}

static void store_spilled(struct bt_translator *t, const struct shape *s)
{
	if (s->reg.gpr && s->reg.wrote && tr_spilled(s->reg.guest) && !s->reg.high)
		e_st(&t->e, CPU_GPR(s->reg.guest), s->reg.host);
	if (s->rm.gpr && s->rm.wrote && tr_spilled(s->rm.guest) && !s->rm.high)
		e_st(&t->e, CPU_GPR(s->rm.guest), s->rm.host);
}

/* Bytes of operand size that 64-bit mode needs for the width that the guest's mode meant. */
static bool wants_66(const struct bt_translator *t, const struct tr_insn *in)
{
	const ZydisDecodedInstruction *z = &in->z;
	bool has = false;

	for (unsigned k = 0; k < z->raw.prefix_count; k++) {
		if (z->raw.prefixes[k].value != 0x66)
			continue;
		if (z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			return true;
		if (z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_EFFECTIVE)
			has = true;
	}
	if ((t->mode & BT_MODE_CODE) != BT_MODE_CODE16)
		return has;
	switch (z->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
		return z->operand_width == 16;
	case ZYDIS_ISA_EXT_SSE4: /* crc32 and popcnt have word forms */
		return z->operand_width == 16 &&
		       (z->mnemonic == ZYDIS_MNEMONIC_CRC32 || z->mnemonic == ZYDIS_MNEMONIC_POPCNT);
	case ZYDIS_ISA_EXT_X87:
		return z->operand_width == 16 &&
		       (z->mnemonic == ZYDIS_MNEMONIC_FLDENV || z->mnemonic == ZYDIS_MNEMONIC_FNSTENV ||
			z->mnemonic == ZYDIS_MNEMONIC_FNSAVE || z->mnemonic == ZYDIS_MNEMONIC_FRSTOR);
	default:
		return false;
	}
}

static void emit_prefixes(struct bt_translator *t, const struct tr_insn *in)
{
	const ZydisDecodedInstruction *z = &in->z;
	bool as_bsf = z->mnemonic == ZYDIS_MNEMONIC_TZCNT || z->mnemonic == ZYDIS_MNEMONIC_LZCNT;

	if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		e8(&t->e, 0xf0);
	if (wants_66(t, in))
		e8(&t->e, 0x66);
	for (unsigned k = 0; k < z->raw.prefix_count && !as_bsf; k++)
		if ((z->raw.prefixes[k].value == 0xf2 || z->raw.prefixes[k].value == 0xf3) &&
		    z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			e8(&t->e, z->raw.prefixes[k].value);
}

static void emit_opcode_map(struct emit *e, ZydisOpcodeMap map)
{
	if (map == ZYDIS_OPCODE_MAP_DEFAULT)
		return;
	e8(e, 0x0f);
	if (map == ZYDIS_OPCODE_MAP_0F38)
		e8(e, 0x38);
	else if (map == ZYDIS_OPCODE_MAP_0F3A)
		e8(e, 0x3a);
}

static void emit_bytes(struct bt_translator *t, const struct tr_insn *in, const struct shape *s)
{
	const ZydisDecodedInstruction *z = &in->z;
	struct emit *e = &t->e;
	bool guest_rex = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	unsigned rex, opcode = z->opcode;
	bool incdec = false;

	emit_prefixes(t, in);
	rex = (guest_rex && z->raw.rex.W ? 8u : 0u) | (s->has_modrm && s->reg.host >= 8 ? 4u : 0u) |
	      ((s->has_modrm || s->in_opcode) && s->rm.host >= 8 ? 1u : 0u);
	if (rex || (guest_rex && (s->reg.byte || s->rm.byte)))
		e8(e, 0x40 | rex);
	emit_opcode_map(e, z->opcode_map);
	if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (t->mode & BT_MODE_CODE) != BT_MODE_CODE64) {
		incdec = opcode >= 0x40 && opcode <= 0x4f; /* they are REX in 64-bit mode */
		if (opcode == 0x82)
			opcode = 0x80;
	}
	if (incdec) {
		e8(e, 0xff);
		e8(e, 0xc0 | (opcode & 8) | (s->rm.host & 7));
	} else if (s->in_opcode) {
		e8(e, (opcode & 0xf8) | (s->rm.host & 7));
	} else {
		e8(e, opcode);
	}
	if (s->has_modrm)
		e8(e, (s->rm_mem ? 0u : 0xc0u) | (s->reg.host & 7u) << 3 | (s->rm.host & 7u));
	if (z->raw.imm[0].size)
		for (unsigned k = z->raw.imm[0].offset; k < z->length; k++)
			e8(e, in->bytes[k]);
}

/* ah..bh cannot be named together with REX: borrow rsi for the operand that needs one. */
static void emit_high_byte(struct bt_translator *t, struct tr_insn *in, struct shape *s)
{
	struct field *other = s->rm_mem || s->reg.high ? &s->rm : &s->reg;
	unsigned from = s->rm_mem ? S0 : other->host;
	bool back = !s->rm_mem && other->wrote;

	e_mov(&t->e, S1, RSI);
	e_mov(&t->e, RSI, from);
	other->host = RSI;
	emit_bytes(t, in, s);
	if (back)
		e_mov(&t->e, from, RSI);
	e_mov(&t->e, RSI, S1);
}

static unsigned memory_access(const struct tr_insn *in)
{
	unsigned a = 0;

	if (in->mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		a |= TR_READ;
	if (in->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		a |= TR_WRITE;
	/* a conditional write always is a write cycle, and may leave the old bytes */
	if (in->mem->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
		a |= TR_READ;
	if (in->mem->mem.base == ZYDIS_REGISTER_RSP || in->mem->mem.base == ZYDIS_REGISTER_RBP)
		a |= TR_STACK;
	return a ? a : TR_READ;
}

static void flags_before(struct bt_translator *t, const struct tr_insn *in)
{
	if (in->reads || (in->may && (in->live & ~in->kills)))
		tr_flags_restore(t);
}

void tr_emit_plain(struct bt_translator *t, struct tr_insn *in)
{
	struct shape s = shape_of(in);
	unsigned access = 0;
	bool high = s.reg.high || s.rm.high;

	if (in->mem) {
		access = memory_access(in);
		tr_clobber(t, in);
		tr_linear(t, in, in->mem->size / 8, access);
		tr_probe(t, in->mem->size / 8, access);
	}
	flags_before(t, in);
	if (high && (s.rm_mem || s.reg.host >= 8 || s.rm.host >= 8)) {
		emit_high_byte(t, in, &s);
	} else {
		load_spilled(t, &s);
		tr_mark(t, in);
		emit_bytes(t, in, &s);
		store_spilled(t, &s);
	}
	if (in->may)
		t->fl = FL_HOST;
	if (access)
		tr_commit(t, access);
}

/* maskmovq, maskmovdqu: the operand is [rdi]; all its bytes must be writable, which no program notices. */
void tr_emit_maskmov(struct bt_translator *t, struct tr_insn *in)
{
	struct shape s = shape_of(in);
	const ZydisDecodedOperand *m = NULL;
	unsigned access = TR_READ | TR_WRITE;

	for (unsigned k = 0; k < in->z.operand_count; k++)
		if (in->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			m = &in->op[k];
	ASSERT(m != NULL);
	in->mem = m;
	tr_clobber(t, in);
	tr_linear(t, in, m->size / 8, access);
	tr_probe(t, m->size / 8, access);
	if (in->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ) { /* a pending x87 exception: before rdi is borrowed */
		tr_mark(t, in);
		e8(&t->e, 0x9b); /* fwait */
	}
	e_mov(&t->e, S1, RDI);
	e_mov(&t->e, RDI, S0);
	emit_bytes(t, in, &s);
	e_mov(&t->e, RDI, S1);
	tr_commit(t, access);
}

/*
 * bt, bts, btr, btc with a register index reach memory beyond the operand: the address moves by whole operands
 * (arithmetic shift of the index), the rest of the index stays.
 */
void tr_emit_bitmem(struct bt_translator *t, struct tr_insn *in)
{
	struct shape s = shape_of(in);
	unsigned bits = in->mem->size, log = bits == 64 ? 6 : bits == 32 ? 5 : 4;
	unsigned access = TR_READ | (in->z.mnemonic == ZYDIS_MNEMONIC_BT ? 0 : TR_WRITE);
	struct emit *e = &t->e;
	unsigned idx = s.reg.host;

	tr_clobber(t, in);
	tr_ea(t, in, S0);
	if (idx == NOREG) {
		e_ld(e, S1, CPU_GPR(s.reg.guest));
		idx = S1;
	}
	if (bits == 64)
		e_mov(e, S1, idx);
	else if (bits == 32)
		e_rr(e, true, 0x63, S1, idx); /* movsxd */
	else
		e_rr(e, true, 0x0fbf, S1, idx);
	e_shift(e, true, 7, S1, log);
	e_lea(e, in->z.address_width == 64, S0,
	      &(struct mem){.base = S0, .index = S1, .scale = (uint8_t)(bits / 8)});
	if (in->z.address_width == 16)
		e_rr(e, false, 0x0fb7, S0, S0);
	tr_add_segment(t, (unsigned)zreg(in->mem->mem.segment), bits / 8, access);
	tr_probe(t, bits / 8, access);
	if (s.reg.host == NOREG)
		e_ld(e, S2, CPU_GPR(s.reg.guest));
	else
		e_mov(e, S2, s.reg.host);
	e_alu_ri(e, false, 4, S2, (int32_t)bits - 1);
	flags_before(t, in);
	s.reg.host = S2;
	tr_mark(t, in);
	emit_bytes(t, in, &s);
	t->fl = FL_HOST;
	tr_commit(t, access);
}
