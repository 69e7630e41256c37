/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/ops.c - emission of what the translator does itself: control flow, stack, lea and a few others.
 *
 * Threads   The vCPU thread.
 */
#include "hv/bt/tr.h"

static bool alone(const struct bt_translator *t)
{
	return t->mode & (BT_MODE_SINGLE | TR_MODE_ONE | TR_MODE_BOUNCE);
}

static bool code64(const struct bt_translator *t)
{
	return (t->mode & BT_MODE_CODE) == BT_MODE_CODE64;
}

/* --- leaving the block --- */
static bool chainable(const struct bt_translator *t, uint64_t target)
{
	return !alone(t) && ((t->cs_base + target) ^ (t->cs_base + t->cur->rip)) < PAGE_SIZE;
}

static size_t jc_offset(uint64_t rip)
{
	return offsetof(struct bt_cpu, jc) + ((rip ^ rip >> 8) & (BT_JC_SIZE - 1)) * sizeof(struct bt_jc);
}

static bool jump_cached(const struct bt_translator *t)
{
	return !alone(t) && (t->mode & BT_MODE_FLAT) && (t->mode & BT_MODE_CODE) != BT_MODE_CODE16;
}

/* S0: where to.  Flags are in the slot. */
static void exit_indirect(struct bt_translator *t)
{
	struct emit *e = &t->e;

	ASSERT(t->fl == FL_MEM || t->fl == FL_BOTH);
	if (!jump_cached(t)) {
		e_jmp(e, t->st_indirect);
		return;
	}
	e_mov32(e, S1, S0);
	e_ld(e, S2, M_CPU(jc_salt));
	e_shift(e, false, 5, S1, 8);
	e_alu_rr(e, true, 6, S2, S0);
	e_alu_rr(e, false, 6, S1, S0);
	e_alu_ri(e, false, 4, S1, BT_JC_SIZE - 1);
	e_shift(e, false, 4, S1, 4);
	e_alu_rm(e, true, 7, S2, M_CPU_IDX(S1, offsetof(struct bt_cpu, jc) + offsetof(struct bt_jc, key)));
	e_jcc(e, CC_NE, t->st_indirect);
	e_rm(e, false, 0xff, 4, M_CPU_IDX(S1, offsetof(struct bt_cpu, jc) + offsetof(struct bt_jc, code)));
}

static void exit_known(struct bt_translator *t, uint64_t target)
{
	struct emit *e = &t->e;
	size_t at = jc_offset(target);

	tr_flags_save(t);
	e_movi(e, S0, target);
	if (!jump_cached(t)) {
		e_jmp(e, t->st_indirect);
		return;
	}
	e_ld(e, S1, M_CPU(jc_salt));
	e_alu_rr(e, true, 6, S1, S0);
	e_alu_rm(e, true, 7, S1, M_CPU_AT(at + offsetof(struct bt_jc, key)));
	e_jcc(e, CC_NE, t->st_indirect);
	e_rm(e, false, 0xff, 4, M_CPU_AT(at + offsetof(struct bt_jc, code)));
}

static void chain_from(struct bt_translator *t, unsigned slot, uint64_t target, uint8_t *patch)
{
	struct tr_exit *x = &t->cur->exits[slot];

	x->patch = patch;
	x->target = target;
	x->flags_host = t->fl == FL_HOST || t->fl == FL_BOTH;
	/* after a system instruction too: it may have waited for what the kick brings (cross-modified code) */
	x->back = target <= t->insn[t->at].rip || t->insn[t->at].cls == TC_SYS;
	tr_late_add(t, LATE_CHAIN, patch)->exit = x;
}

void tr_exit_direct(struct bt_translator *t, unsigned slot, uint64_t target)
{
	if (chainable(t, target))
		chain_from(t, slot, target, e_jmp(&t->e, NULL));
	else
		exit_known(t, target);
}

static uint64_t branch_target(const struct bt_translator *t, const struct tr_insn *in)
{
	uint64_t target = in->next + (uint64_t)in->op[0].imm.value.s;

	if (code64(t))
		return target;
	return in->z.operand_width == 16 ? (uint16_t)target : (uint32_t)target;
}

static void emit_jcc(struct bt_translator *t, struct tr_insn *in)
{
	uint64_t target = branch_target(t, in);
	enum tr_flstate fl;
	uint8_t *taken;

	tr_flags_restore(t);
	taken = e_jcc(&t->e, in->z.opcode & 0xf, NULL);
	fl = t->fl;
	if (chainable(t, target)) {
		chain_from(t, 0, target, taken);
		tr_exit_direct(t, 1, in->next);
		return;
	}
	tr_exit_direct(t, 1, in->next);
	e_patch32(taken, t->e.p);
	t->fl = fl;
	exit_known(t, target);
}

/* cx as counter: rcx carries the zero-extended count just for the test; S0 keeps rcx. */
static void loop16(struct bt_translator *t, struct tr_insn *in, uint64_t target)
{
	struct emit *e = &t->e;
	bool jcxz = in->z.opcode == 0xe3;
	uint8_t *zero, *other = NULL, *out;
	enum tr_flstate fl = t->fl;

	if (!jcxz) {
		e_lea(e, false, S1, M_BASE(RCX, -1));
		e8(e, 0x66);
		e_rr(e, false, 0x89, S1, RCX);
	}
	e_mov(e, S0, RCX);
	e_rr(e, false, 0x0fb7, RCX, RCX);
	e8(e, 0xe3);
	zero = e->p;
	e8(e, 0);
	e_mov(e, RCX, S0);
	if (in->z.opcode == 0xe0)
		other = e_jcc(e, CC_E, NULL);
	else if (in->z.opcode == 0xe1)
		other = e_jcc(e, CC_NE, NULL);
	out = e_jmp(e, NULL);
	*zero = (uint8_t)(e->p - (zero + 1));
	e_mov(e, RCX, S0);
	if (other)
		e_patch32(other, e->p);
	tr_exit_direct(t, jcxz ? 0 : 1, jcxz ? target : in->next);
	e_patch32(out, e->p);
	t->fl = fl;
	tr_exit_direct(t, jcxz ? 1 : 0, jcxz ? in->next : target);
}

static void emit_loop(struct bt_translator *t, struct tr_insn *in)
{
	struct emit *e = &t->e;
	uint64_t target = branch_target(t, in);
	uint8_t *not_taken;
	enum tr_flstate fl;

	if (in->reads)
		tr_flags_restore(t);
	if (in->z.address_width == 16) {
		loop16(t, in, target);
		return;
	}
	fl = t->fl;
	if (in->z.address_width == 32)
		e8(e, 0x67);
	e8(e, in->z.opcode);
	e8(e, 5);
	not_taken = e_jmp(e, NULL);
	tr_exit_direct(t, 0, target);
	e_patch32(not_taken, e->p);
	t->fl = fl;
	tr_exit_direct(t, 1, in->next);
}

/* --- stack --- */
static void stack_address(struct bt_translator *t, int delta, unsigned width, unsigned access)
{
	if (code64(t)) {
		e_lea(&t->e, true, S0, M_BASE(GSP, delta));
		return;
	}
	e_lea(&t->e, false, S0, M_BASE(GSP, delta));
	if (!(t->mode & BT_MODE_SS32))
		e_rr(&t->e, false, 0x0fb7, S0, S0);
	tr_add_segment(t, HV_SS, width, access);
}

/* Uses S1 when the stack is 16 bits wide. */
static void stack_adjust(struct bt_translator *t, int delta)
{
	if (code64(t)) {
		e_lea(&t->e, true, GSP, M_BASE(GSP, delta));
	} else if (t->mode & BT_MODE_SS32) {
		e_lea(&t->e, false, GSP, M_BASE(GSP, delta));
	} else {
		e_lea(&t->e, false, S1, M_BASE(GSP, delta));
		e8(&t->e, 0x66);
		e_rr(&t->e, false, 0x89, S1, GSP);
	}
}

static void store_width(struct bt_translator *t, unsigned width, unsigned reg)
{
	if (width == 2)
		e8(&t->e, 0x66);
	e_rm(&t->e, width == 8, 0x89, reg, M_BASE(S0, 0));
}

static void store_imm(struct bt_translator *t, unsigned width, uint64_t v)
{
	if (width == 8 && !fits32(v)) {
		e_movi(&t->e, S1, v);
		store_width(t, width, S1);
		return;
	}
	if (width == 2)
		e8(&t->e, 0x66);
	e_rm(&t->e, width == 8, 0xc7, 0, M_BASE(S0, 0));
	if (width == 2)
		e16(&t->e, (unsigned)v);
	else
		e32(&t->e, (uint32_t)v);
}

/* Zero-extending load from [S0]. */
static void load_width(struct bt_translator *t, unsigned width, unsigned reg)
{
	e_rm(&t->e, width == 8, width == 2 ? 0x0fb7 : 0x8b, reg, M_BASE(S0, 0));
}

static void push_probe(struct bt_translator *t, unsigned width)
{
	stack_address(t, -(int)width, width, TR_WRITE | TR_STACK);
	tr_probe(t, width, TR_WRITE | TR_STACK);
}

static void push_done(struct bt_translator *t, unsigned width)
{
	stack_adjust(t, -(int)width);
	tr_commit(t, TR_WRITE);
}

static unsigned operand_gpr(const ZydisDecodedOperand *o)
{
	return (unsigned)zreg(o->reg.value);
}

static void emit_push(struct bt_translator *t, struct tr_insn *in)
{
	unsigned width = in->z.operand_width / 8, n, reg;

	tr_clobber(t, in);
	if (in->mem) {
		tr_linear(t, in, width, TR_READ);
		tr_probe(t, width, TR_READ);
		load_width(t, width, S1);
		e_st(&t->e, CPU_SCRATCH(SLOT_VALUE), S1);
	}
	push_probe(t, width);
	if (in->mem) {
		e_ld(&t->e, S1, CPU_SCRATCH(SLOT_VALUE));
		store_width(t, width, S1);
	} else if (in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		store_imm(t, width, in->op[0].imm.value.u);
	} else {
		n = operand_gpr(&in->op[0]);
		reg = tr_host_reg(n);
		if (reg == NOREG) {
			e_ld(&t->e, S1, CPU_GPR(n));
			reg = S1;
		}
		store_width(t, width, reg);
	}
	push_done(t, width);
}

/* Writes S2 to a guest register as an operand of this width. */
static void write_gpr(struct bt_translator *t, unsigned n, unsigned width, unsigned from)
{
	if (width == 2)
		e8(&t->e, 0x66);
	if (tr_spilled(n)) /* a 32-bit write clears the upper half: from is zero-extended */
		e_rm(&t->e, width != 2, 0x89, from, CPU_GPR(n));
	else
		e_rr(&t->e, width == 8, 0x89, from, tr_host_reg(n));
}

static void emit_pop(struct bt_translator *t, struct tr_insn *in)
{
	unsigned width = in->z.operand_width / 8, n;

	tr_clobber(t, in);
	stack_address(t, 0, width, TR_READ | TR_STACK);
	tr_probe(t, width, TR_READ | TR_STACK);
	if (in->mem) {
		load_width(t, width, S1);
		e_st(&t->e, CPU_SCRATCH(SLOT_VALUE), S1);
		tr_linear(t, in, width, TR_WRITE);
		tr_probe(t, width, TR_WRITE);
		e_ld(&t->e, S1, CPU_SCRATCH(SLOT_VALUE));
		store_width(t, width, S1);
		stack_adjust(t, (int)width);
		tr_commit(t, TR_WRITE);
		return;
	}
	n = operand_gpr(&in->op[0]);
	if (width == 8 && n != 4 && !tr_spilled(n)) {
		load_width(t, width, tr_host_reg(n));
		stack_adjust(t, (int)width);
		return;
	}
	load_width(t, width, S2);
	stack_adjust(t, (int)width);
	write_gpr(t, n, width, S2);
}

static void emit_leave(struct bt_translator *t, struct tr_insn *in)
{
	tr_clobber(t, in);
	e_mov(&t->e, S0, RBP);
	tr_probe(t, 8, TR_READ | TR_STACK);
	e_lea(&t->e, true, GSP, M_BASE(RBP, 8));
	load_width(t, 8, RBP);
}

/* --- jumps --- */
/* Target of an indirect jump or call into S0. */
static void indirect_target(struct bt_translator *t, struct tr_insn *in, unsigned width)
{
	unsigned n, reg;

	if (in->mem) {
		tr_linear(t, in, width, TR_READ);
		tr_probe(t, width, TR_READ);
		load_width(t, width, S0);
		return;
	}
	n = operand_gpr(&in->op[0]);
	reg = tr_host_reg(n);
	if (reg == NOREG) {
		e_ld(&t->e, S0, CPU_GPR(n));
		reg = S0;
	}
	if (width == 8) {
		if (reg != S0)
			e_mov(&t->e, S0, reg);
	} else {
		e_rr(&t->e, false, width == 2 ? 0x0fb7 : 0x8b, S0, reg);
	}
}

static void emit_jmp(struct bt_translator *t, struct tr_insn *in)
{
	if (in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		tr_exit_direct(t, 0, branch_target(t, in));
		return;
	}
	tr_clobber(t, in);
	indirect_target(t, in, in->z.operand_width / 8);
	exit_indirect(t);
}

static void emit_call(struct bt_translator *t, struct tr_insn *in)
{
	unsigned width = in->z.operand_width / 8;
	bool direct = in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	tr_clobber(t, in);
	if (!direct) {
		indirect_target(t, in, width);
		e_st(&t->e, CPU_SCRATCH(SLOT_VALUE), S0);
	}
	push_probe(t, width);
	store_imm(t, width, in->next);
	push_done(t, width);
	if (direct) {
		tr_exit_direct(t, 0, branch_target(t, in));
		return;
	}
	e_ld(&t->e, S0, CPU_SCRATCH(SLOT_VALUE));
	exit_indirect(t);
}

static void emit_ret(struct bt_translator *t, struct tr_insn *in)
{
	unsigned width = in->z.operand_width / 8;
	int extra = 0;

	if (in->z.opcode == 0xc2)
		extra = (uint16_t)in->z.raw.imm[0].value.u;
	tr_clobber(t, in);
	stack_address(t, 0, width, TR_READ | TR_STACK);
	tr_probe(t, width, TR_READ | TR_STACK);
	load_width(t, width, S0);
	stack_adjust(t, (int)width + extra);
	exit_indirect(t);
}

/* --- the rest --- */
static void emit_lea(struct bt_translator *t, struct tr_insn *in)
{
	unsigned n = operand_gpr(&in->op[0]), width = in->z.operand_width / 8;
	unsigned dst = tr_host_reg(n);

	if (width == 4 && in->z.address_width == 64)
		in->z.address_width = 32; /* the upper half is cleared anyway */
	if (width == 2 || dst == NOREG) {
		tr_ea(t, in, S0);
		write_gpr(t, n, width, S0);
	} else {
		tr_ea(t, in, dst);
	}
}

static void emit_moffs(struct bt_translator *t, struct tr_insn *in)
{
	bool store = in->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	unsigned size = in->mem->size / 8, access = store ? TR_WRITE : TR_READ;

	tr_clobber(t, in);
	tr_linear(t, in, size, access);
	tr_probe(t, size, access);
	if (size == 2)
		e8(&t->e, 0x66);
	e_rm(&t->e, size == 8, (store ? 0x88 : 0x8a) | (size != 1), RAX, M_BASE(S0, 0));
	tr_commit(t, access);
}

static void emit_sys(struct bt_translator *t, struct tr_insn *in)
{
	struct bt_insn *s = &t->sysinsn[t->nsysinsn++];

	tr_clobber(t, in);
	tr_sysinsn_fill(s, in);
	e_movi(&t->e, S0, (uint64_t)(uintptr_t)s);
	e_movi(&t->e, S1, (uint64_t)(uintptr_t)in->sys);
	e_call(&t->e, t->st_sys);
	tr_exit_direct(t, 0, in->next);
}

static void emit_pause(struct bt_translator *t, struct tr_insn *in)
{
	struct tr_late *l;

	tr_clobber(t, in);
	e_alu_mi(&t->e, false, 5, M_CPU(pause_left), 1);
	l = tr_late_add(t, LATE_PAUSE, e_jcc(&t->e, CC_S, NULL));
	l->back = t->e.p;
}

static void emit_rdtsc(struct bt_translator *t, struct tr_insn *in)
{
	struct emit *e = &t->e;

	tr_clobber(t, in);
	e8(e, 0x0f);
	e8(e, 0x31);
	e_shift(e, true, 4, RDX, 32);
	e_alu_rr(e, true, 1, RAX, RDX);
	e_alu_rm(e, true, 0, RAX, M_CPU(tsc_offset));
	e_mov(e, RDX, RAX);
	e_shift(e, true, 5, RDX, 32);
	e_mov32(e, RAX, RAX);
}

void tr_emit_insn(struct bt_translator *t, struct tr_insn *in)
{
	switch (in->cls) {
	case TC_PLAIN: tr_emit_plain(t, in); break;
	case TC_NOP: break;
	case TC_SYS: emit_sys(t, in); break;
	case TC_LEA: emit_lea(t, in); break;
	case TC_MOFFS: emit_moffs(t, in); break;
	case TC_JMP: emit_jmp(t, in); break;
	case TC_JCC: emit_jcc(t, in); break;
	case TC_CALL: emit_call(t, in); break;
	case TC_RET: emit_ret(t, in); break;
	case TC_LOOP: emit_loop(t, in); break;
	case TC_PUSH: emit_push(t, in); break;
	case TC_POP: emit_pop(t, in); break;
	case TC_LEAVE: emit_leave(t, in); break;
	case TC_PAUSE: emit_pause(t, in); break;
	case TC_RDTSC: emit_rdtsc(t, in); break;
	case TC_CLI:
		tr_clobber(t, in);
		e_alu_mi(&t->e, false, 4, M_CPU(rflags), (int32_t)~RFLAGS_IF);
		break;
	case TC_CLD:
		tr_clobber(t, in);
		if (in->z.mnemonic == ZYDIS_MNEMONIC_CLD)
			e_alu_mi(&t->e, false, 4, M_CPU(rflags), (int32_t)~RFLAGS_DF);
		else
			e_alu_mi(&t->e, false, 1, M_CPU(rflags), RFLAGS_DF);
		break;
	case TC_BITMEM: tr_emit_bitmem(t, in); break;
	case TC_MASKMOV: tr_emit_maskmov(t, in); break;
	}
}
