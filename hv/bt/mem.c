/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/mem.c - emission of guest memory accesses, and of the flag saves that they make necessary.
 *
 * What      Linear address, the inline probe of the software TLB, the way out to the slow path; the state
 *           machine that says where the guest's arithmetic flags are.
 * Threads   The vCPU thread.
 */
#include "hv/bt/tr.h"

/* guest register -> host register */
static const uint8_t host_regs[16] = {
	RAX, RCX, RDX, RBX, GSP, RBP, RSI, RDI, R8, R9, NOREG, NOREG, R12, R13, NOREG, NOREG,
};

unsigned tr_host_reg(unsigned guest)
{
	return host_regs[guest & 15];
}

/* lahf and seto need al and ah; S1 keeps rax.  The slot holds SF ZF AF PF CF in bits 8..15, OF in bit 0. */
void tr_flags_save(struct bt_translator *t)
{
	struct emit *e = &t->e;

	if (t->fl != FL_HOST)
		return;
	e_mov(e, S1, RAX);
	e8(e, 0x9f);
	e8(e, 0x0f);
	e8(e, 0x90);
	e8(e, 0xc0);
	e_st32(e, CPU_SCRATCH(SLOT_FLAGS), RAX);
	e_mov(e, RAX, S1);
	t->fl = FL_BOTH;
}

void tr_flags_restore(struct bt_translator *t)
{
	struct emit *e = &t->e;

	if (t->fl != FL_MEM)
		return;
	e_mov(e, S1, RAX);
	e_ld32(e, RAX, CPU_SCRATCH(SLOT_FLAGS));
	e8(e, 0x04); /* add al, 0x7f: OF */
	e8(e, 0x7f);
	e8(e, 0x9e); /* sahf */
	e_mov(e, RAX, S1);
	t->fl = FL_BOTH;
}

void tr_clobber(struct bt_translator *t, const struct tr_insn *in)
{
	if (t->fl == FL_HOST && in->live_in)
		tr_flags_save(t);
	t->fl = t->fl == FL_BOTH || t->fl == FL_MEM ? FL_MEM : FL_NONE;
}

void tr_mark(struct bt_translator *t, const struct tr_insn *in)
{
	struct tr_mark *m = &t->marks[t->nmarks++];

	m->host = (uint32_t)(t->e.p - t->buf);
	m->guest = (uint8_t)(in->rip - t->cur->rip);
	m->flags = t->fl == FL_HOST || t->fl == FL_BOTH;
}

/* A guest register as host register: its own, or loaded into `tmp`. */
static unsigned load_reg(struct bt_translator *t, unsigned guest, unsigned tmp)
{
	if (!tr_spilled(guest))
		return tr_host_reg(guest);
	e_ld(&t->e, tmp, CPU_GPR(guest));
	return tmp;
}

/* The effective address when it is known now. */
static bool ea_constant(const struct tr_insn *in, uint64_t *out)
{
	const ZydisDecodedOperandMem *m = &in->mem->mem;
	uint64_t v = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;

	if (m->index != ZYDIS_REGISTER_NONE)
		return false;
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		v += in->next;
	else if (m->base != ZYDIS_REGISTER_NONE)
		return false;
	if (in->z.address_width == 32)
		v = (uint32_t)v;
	else if (in->z.address_width == 16)
		v = (uint16_t)v;
	*out = v;
	return true;
}

void tr_ea(struct bt_translator *t, const struct tr_insn *in, unsigned dst)
{
	const ZydisDecodedOperandMem *m = &in->mem->mem;
	struct mem a = {.base = NOREG, .index = NOREG, .scale = 1};
	uint64_t known;

	if (ea_constant(in, &known)) {
		e_movi(&t->e, dst, known);
		return;
	}
	/* pop computes its address with the stack pointer already moved */
	a.disp = m->disp.has_displacement ? (int32_t)m->disp.value : 0;
	if (m->base != ZYDIS_REGISTER_NONE) {
		unsigned n = (unsigned)zreg(m->base);

		a.base = (uint8_t)load_reg(t, n, S0);
		if (n == 4 && in->cls == TC_POP)
			a.disp += in->z.operand_width / 8;
	}
	if (m->index != ZYDIS_REGISTER_NONE) {
		a.index = (uint8_t)load_reg(t, (unsigned)zreg(m->index), S1);
		a.scale = m->scale ? m->scale : 1;
	}
	e_lea(&t->e, in->z.address_width == 64, dst, &a);
	if (in->z.address_width == 16)
		e_rr(&t->e, false, 0x0fb7, dst, dst);
}

/* Outside 64-bit mode only a flat segment is known to have no limit in the way; C looks at the others. */
void tr_add_segment(struct bt_translator *t, unsigned seg, unsigned size, unsigned access)
{
	if ((t->mode & BT_MODE_CODE) == BT_MODE_CODE64) {
		if (seg == HV_FS)
			e_alu_rm(&t->e, true, 0, S0, M_CPU(fs_base));
		else if (seg == HV_GS)
			e_alu_rm(&t->e, true, 0, S0, M_CPU(gs_base));
		return;
	}
	if ((t->mode & BT_MODE_FLAT) && seg != HV_FS && seg != HV_GS)
		return;
	e_movi(&t->e, S1, TR_META(size, access, t->at, 0) | seg << 25);
	e_call(&t->e, t->st_seg);
	e_ld(&t->e, S0, CPU_SCRATCH(SLOT_ADDR));
}

void tr_linear(struct bt_translator *t, const struct tr_insn *in, unsigned size, unsigned access)
{
	tr_ea(t, in, S0);
	tr_add_segment(t, (unsigned)zreg(in->mem->mem.segment), size, access);
}

struct tr_late *tr_late_add(struct bt_translator *t, int kind, uint8_t *from)
{
	struct tr_late *l = &t->late[t->nlate++];

	ASSERT(t->nlate <= ARRAY_LEN(t->late));
	*l = (struct tr_late){.kind = kind, .from = from};
	return l;
}

static void probe_bounce(struct bt_translator *t, uint32_t meta)
{
	e_movi(&t->e, S1, meta);
	e_call(&t->e, t->st_bounce);
}

void tr_probe(struct bt_translator *t, unsigned size, unsigned access)
{
	struct emit *e = &t->e;
	bool user = t->mode & BT_MODE_USER, write = access & TR_WRITE;
	size_t tlb = offsetof(struct bt_cpu, tlb) + user * sizeof(struct bt_tlb);
	uint32_t meta = TR_META(size, access, t->at, t->fl == FL_MEM);
	struct tr_late *l;
	uint8_t *miss;

	if ((t->mode & TR_MODE_BOUNCE) && write) {
		probe_bounce(t, meta);
		return;
	}
	e_mov32(e, S2, S0);
	if (size > 1)
		e_lea(e, true, S1, M_BASE(S0, size - 1));
	else
		e_mov(e, S1, S0);
	e_shift(e, false, 5, S2, 9);
	e_alu_ri(e, true, 4, S1, -(int32_t)PAGE_SIZE);
	e_alu_ri(e, false, 4, S2, (BT_TLB_SIZE - 1) << 3);
	e_alu_rm(e, true, 7, S1,
		 M_CPU_IDX(S2, tlb + (write ? offsetof(struct bt_tlb, tag_write) : offsetof(struct bt_tlb, tag_read))));
	miss = e_jcc(e, CC_NE, NULL);
	e_alu_rm(e, true, 0, S0, M_CPU_IDX(S2, tlb + offsetof(struct bt_tlb, addend)));
	l = tr_late_add(t, LATE_MEM, miss);
	l->back = e->p;
	l->meta = meta;
}

void tr_commit(struct bt_translator *t, unsigned access)
{
	if (!(t->mode & TR_MODE_BOUNCE) || !(access & TR_WRITE))
		return;
	tr_flags_save(t);
	if (t->fl == FL_BOTH)
		t->fl = FL_MEM;
	e_call(&t->e, t->st_commit);
}

void tr_late_emit(struct bt_translator *t)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < t->nlate; k++) {
		struct tr_late *l = &t->late[k];

		if (l->from)
			e_patch32(l->from, e->p);
		switch (l->kind) {
		case LATE_MEM:
			e_movi(e, S1, l->meta);
			e_call(e, t->st_mem);
			e_jmp(e, l->back);
			break;
		case LATE_FPU:
			e_call(e, t->st_fpu);
			e_jmp(e, l->back);
			break;
		case LATE_PAUSE:
			e_call(e, t->st_pause);
			e_jmp(e, l->back);
			break;
		case LATE_PACE:
			e_call(e, t->st_pace);
			e_jmp(e, l->back);
			break;
		case LATE_KICK:
			e_call(e, l->flags_host ? t->st_kick_f : t->st_kick_m);
			break;
		case LATE_CHAIN:
			l->exit->tramp = e->p;
			e_call(e, l->exit->flags_host ? t->st_chain_f : t->st_chain_m);
			break;
		}
	}
	t->nlate = 0;
}
