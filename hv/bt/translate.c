/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/translate.c - one basic block: fetch, decode, emit, register.
 *
 * What      Chooses where the block expects the guest's flags, writes its entries with the poll of the kick,
 *           its instructions, its exits and the code that is out of line.
 * Threads   The vCPU thread, between blocks, x87/SSE state parked.
 * Limits    Arithmetic flags that the rest of a block overwrites unread are not exact in the frame of a fault or
 *           interrupt before that.  The x87 instruction and data pointers are host addresses.  A locked access
 *           across two pages is not atomic.
 */
#include "hv/bt/tr.h"

enum block_kind {
	BLOCK_KILLS,  /* does not need the flags it is entered with */
	BLOCK_MEMORY, /* destroys host flags first: wants them in the slot */
	BLOCK_HOST,   /* uses them first: wants them in host flags */
};

static bool block_uses_fpu(const struct bt_translator *t)
{
	for (unsigned k = 0; k < t->count; k++)
		if (t->insn[k].fpu)
			return true;
	return false;
}

static enum block_kind block_kind(const struct bt_translator *t, bool fpu)
{
	if (t->insn[0].live_in == 0)
		return BLOCK_KILLS;
	if (fpu)
		return BLOCK_MEMORY;
	for (unsigned k = 0; k < t->count; k++) {
		const struct tr_insn *in = &t->insn[k];

		if (in->clobbers)
			return BLOCK_MEMORY;
		if (in->reads || (in->may && (in->live & ~in->kills)))
			return BLOCK_HOST;
	}
	return BLOCK_HOST;
}

static void poll(struct bt_translator *t)
{
	if (t->mode & (BT_MODE_SINGLE | TR_MODE_ONE | TR_MODE_BOUNCE))
		return; /* entered from C only, and must make progress */
	e_alu_mi(&t->e, false, 7, M_CPU(kick), 0);
	tr_late_add(t, LATE_KICK, e_jcc(&t->e, CC_NE, NULL));
	if (t->cpu->cfg->pace) { /* as if it lost the CPU in the block: a kick meanwhile is seen after it */
		struct tr_late *l;

		e_alu_mi(&t->e, false, 5, M_CPU(pace_left), 1);
		l = tr_late_add(t, LATE_PACE, e_jcc(&t->e, CC_E, NULL));
		l->back = t->e.p;
	}
}

/* The same without touching flags. */
static void poll_keeping_flags(struct bt_translator *t)
{
	struct emit *e = &t->e;

	if (t->mode & (BT_MODE_SINGLE | TR_MODE_ONE | TR_MODE_BOUNCE))
		return;
	e_mov(e, S0, RCX);
	if (t->cpu->cfg->pace) {
		e_ld32(e, RCX, M_CPU(pace_left));
		e_lea(e, false, RCX, M_BASE(RCX, -1));
		e_st32(e, M_CPU(pace_left), RCX);
		e8(e, 0xe3); /* jrcxz to the way out */
		e8(e, 2);
		e8(e, 0xeb); /* jmp over it: 3 + 5 bytes */
		e8(e, 8);
		e_mov(e, RCX, S0);
		tr_late_add(t, LATE_KICK, e_jmp(e, NULL))->flags_host = true;
	}
	e_ld32(e, RCX, M_CPU(kick));
	e8(e, 0xe3); /* jrcxz over the way out: 3 + 5 bytes */
	e8(e, 8);
	e_mov(e, RCX, S0);
	tr_late_add(t, LATE_KICK, e_jmp(e, NULL))->flags_host = true;
	e_mov(e, RCX, S0);
}

static void prologue(struct bt_translator *t, struct bt_block *b)
{
	bool fpu = block_uses_fpu(t);
	struct tr_late *l;

	switch (block_kind(t, fpu)) {
	case BLOCK_KILLS:
		b->entry_f = b->entry_m = t->e.p;
		poll(t);
		b->inner_f = b->inner_m = t->e.p;
		t->fl = FL_NONE;
		break;
	case BLOCK_MEMORY:
		b->entry_f = b->inner_f = t->e.p;
		t->fl = FL_HOST;
		tr_flags_save(t);
		b->entry_m = t->e.p;
		poll(t);
		b->inner_m = t->e.p;
		t->fl = FL_MEM;
		break;
	case BLOCK_HOST:
		b->entry_m = b->inner_m = t->e.p;
		t->fl = FL_MEM;
		tr_flags_restore(t);
		b->entry_f = t->e.p;
		poll_keeping_flags(t);
		b->inner_f = t->e.p;
		t->fl = FL_HOST;
		break;
	}
	if (!fpu)
		return;
	e_alu_mi(&t->e, false, 7, M_CPU(fpu_live), 0);
	l = tr_late_add(t, LATE_FPU, e_jcc(&t->e, CC_E, NULL));
	l->back = t->e.p;
}

static void emit_block(struct bt_translator *t, struct bt_block *b)
{
	b->code = (uint32_t)(t->e.p - t->buf);
	b->marks = t->nmarks;
	b->starts = t->nstarts;
	for (unsigned k = 0; k < t->count; k++)
		t->starts[t->nstarts++] = (uint8_t)(t->insn[k].rip - b->rip);
	t->nlate = 0;
	t->at = 0;
	prologue(t, b);
	for (t->at = 0; t->at < t->count; t->at++)
		tr_emit_insn(t, &t->insn[t->at]);
	t->at = t->count - 1;
	if (!t->insn[t->at].ends)
		tr_exit_direct(t, 0, t->insn[t->at].next);
	tr_late_emit(t);
	b->nmarks = t->nmarks - b->marks;
	b->end = (uint32_t)(t->e.p - t->buf);
}

/* Room for one more block, or a fresh start. */
static void make_room(struct bt_translator *t)
{
	if (t->buf_end - t->e.p < (ptrdiff_t)TR_BLOCK_ROOM || t->nblocks == TR_BLOCKS ||
	    t->nmarks + TR_BLOCK_INSNS > TR_MARKS || t->nstarts + TR_BLOCK_INSNS > TR_MARKS)
		tr_flush(t);
}

/* The block at cpu->rip, made if need be; NULL with an exception queued or an exit pending. */
struct bt_block *tr_translate(struct bt_translator *t, uint32_t mode)
{
	struct bt_cpu *c = t->cpu;
	uint64_t cs_base = mode & BT_MODE_FLAT ? 0 : c->seg[HV_CS].base;
	struct bt_block *b;
	gva_t va = cs_base + c->rip;
	gpa_t gpa;

	if ((mode & BT_MODE_CODE) != BT_MODE_CODE64)
		va = (uint32_t)va;
	for (;;) {
		uint64_t quiesced;

		switch (bt_mmu_fetch(c, va, &gpa)) {
		case BT_OK:
			break;
		case BT_MMIO:
			c->exit->text = "the guest runs code outside its memory";
			bt_exit(c, HV_EXIT_ERROR);
			return NULL;
		default:
			return NULL;
		}
		b = tr_lookup(t, gpa, c->rip, mode);
		if (b)
			return b;
		bt_fpu_park(c);
		quiesced = c->quiesced;
		if (!tr_claim(t, gpa >> PAGE_SHIFT) || quiesced != c->quiesced)
			continue;
		make_room(t);
		b = &t->blocks[t->nblocks];
		*b = (struct bt_block){.rip = c->rip, .cs_base = cs_base, .gpa = gpa, .mode = mode};
		t->cur = b;
		t->mode = mode;
		t->cs_base = cs_base;
		if (tr_decode(t, b) != BT_OK)
			return NULL;
		if (quiesced != c->quiesced)
			continue;
		if (b->gfn2 == ~0ull || (tr_claim(t, b->gfn2) && quiesced == c->quiesced))
			break;
	}
	t->nblocks++;
	emit_block(t, b);
	tr_insert(t, b);
	t->translated++;
	return b;
}
