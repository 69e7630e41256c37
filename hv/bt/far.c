/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/far.c - control transfers that change CS: far jmp, call, ret, iret, int n.
 *
 * What      SDM vol 2 (JMP, CALL, RET, IRET, INT n) and vol 3, 5.8; TSS stacks for inner
 * privileges. Threads   The vCPU thread, active as a DSM reader. I/O       Guest memory only.
 * Limits    No task switches (HV_EXIT_ERROR).  iret to VM86 raises #GP(0).
 */
#include "hv/bt/sysint.h"

static enum bt_res no_task_switch(struct bt_cpu *c)
{
	c->exit->text = "task switches are not supported";
	bt_exit(c, HV_EXIT_ERROR);
	return BT_EXIT;
}

static enum bt_next ends(enum bt_res r)
{
	return r == BT_OK ? BT_BRANCH : BT_AGAIN;
}

/* --- stacks in the TSS --- */
enum bt_res bt_tss_ist(struct bt_cpu *c, unsigned ist, unsigned ext, uint64_t *sp)
{
	unsigned off = 0x24 + (ist - 1) * 8;

	if (!(c->tr.attr & ATTR_P) || off + 7 > c->tr.limit)
		return res_fault(c, EXC_TS, (c->tr.sel & ~3u) | ext);
	return bt_mem_read_as(c, c->tr.base + off, sp, 8, AS_SYSTEM);
}

enum bt_res bt_tss_stack(struct bt_cpu *c, unsigned cpl, unsigned ext, struct hv_seg *ss,
			 uint64_t *sp)
{
	bool wide = (seg_type(&c->tr) & ~2u) == SYS_TSS;
	unsigned off = cpu_lma(c) || wide ? 4 + cpl * 8 : 2 + cpl * 4;
	unsigned size = cpu_lma(c) ? 8 : wide ? 4 : 2;
	uint16_t sel;
	enum bt_res r;

	if (!(c->tr.attr & ATTR_P) || off + size + (cpu_lma(c) ? 0 : 2) - 1 > c->tr.limit)
		return res_fault(c, EXC_TS, (c->tr.sel & ~3u) | ext);
	*sp = 0;
	r = bt_mem_read_as(c, c->tr.base + off, sp, size, AS_SYSTEM);
	if (r || cpu_lma(c))
		return r;
	r = bt_mem_read_as(c, c->tr.base + off + size, &sel, 2, AS_SYSTEM);
	return r ? r : bt_seg_check_ss(c, sel, cpl, EXC_TS, ext, ss);
}

/* --- far jmp and call --- */
/* rip as the new code segment may have it. */
static enum bt_res check_rip(struct bt_cpu *c, const struct desc *d, uint64_t *rip)
{
	if (cpu_lma(c) && desc_l(d)) {
		if (!va_canonical(*rip))
			return res_fault(c, EXC_GP, 0);
		return BT_OK;
	}
	*rip &= 0xffffffffu;
	if (*rip > desc_limit(d))
		return res_fault(c, EXC_GP, 0);
	return BT_OK;
}

static void enter_code(struct bt_cpu *c, uint16_t sel, unsigned cpl, const struct desc *d,
		       uint64_t rip)
{
	struct hv_seg cs;

	bt_seg_from_desc(&cs, (uint16_t)((sel & ~3u) | cpl), d);
	c->cpl = (uint8_t)cpl;
	bt_seg_set(c, HV_CS, &cs);
	c->rip = rip;
}

static enum bt_res push_return(struct bt_cpu *c, struct stack *s, const struct bt_insn *i,
			       unsigned size)
{
	enum bt_res r;

	stack_push(s, c->seg[HV_CS].sel);
	stack_push(s, i->next_rip);
	r = bt_stack_commit(c, s, size);
	return r;
}

static enum bt_res far_real(struct bt_cpu *c, const struct bt_insn *i, uint16_t sel, uint64_t off,
			    bool call)
{
	struct hv_seg cs = c->seg[HV_CS];
	struct stack s;
	enum bt_res r;

	off &= size_mask(i->opsize);
	if (off > cs.limit)
		return res_fault(c, EXC_GP, 0);
	if (call) {
		bt_stack_current(c, &s);
		r = push_return(c, &s, i, i->opsize);
		if (r)
			return r;
		bt_stack_store_sp(c, &s);
	}
	cs.sel = sel;
	cs.base = (uint32_t)sel << 4;
	bt_seg_set(c, HV_CS, &cs);
	c->rip = off;
	return BT_OK;
}

/* To a code segment of the same privilege. */
static enum bt_res far_code(struct bt_cpu *c, const struct bt_insn *i, uint16_t sel, struct desc *d,
			    uint64_t off, bool call)
{
	struct stack s;
	enum bt_res r;
	bool ok;

	ok = desc_conforming(d) ? desc_dpl(d) <= c->cpl
				: (sel & 3u) <= c->cpl && desc_dpl(d) == c->cpl;
	if (!ok || (cpu_lma(c) && desc_l(d) && desc_db(d)))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (!desc_p(d))
		return res_fault(c, EXC_NP, sel & ~3u);
	off &= size_mask(i->opsize);
	r = check_rip(c, d, &off);
	if (!r)
		r = bt_desc_mark_accessed(c, d);
	if (r)
		return r;
	if (call) {
		bt_stack_current(c, &s);
		r = push_return(c, &s, i, i->opsize);
		if (r)
			return r;
		bt_stack_store_sp(c, &s);
	}
	enter_code(c, sel, c->cpl, d, off);
	return BT_OK;
}

/* call through a gate to an inner privilege: a new stack, with the parameters of the old one. */
static enum bt_res gate_call_inner(struct bt_cpu *c, const struct bt_insn *i, uint16_t sel,
				   struct desc *d, uint64_t off, unsigned size, unsigned params)
{
	unsigned cpl = desc_dpl(d);
	struct stack old, s;
	uint64_t v[32];
	enum bt_res r;

	bt_stack_current(c, &old);
	s = old;
	r = bt_tss_stack(c, cpl, 0, &s.ss, &s.sp);
	if (r)
		return r;
	s.flat = cpu_lma(c);
	s.mask = s.flat ? ~0ull : s.ss.attr & ATTR_DB ? 0xffffffffull : 0xffffull;
	s.sp &= s.mask;
	s.as = AS_SILENT | AS_STACK;
	s.ss_error = s.flat ? 0 : s.ss.sel & ~3u;
	stack_push(&s, c->seg[HV_SS].sel);
	stack_push(&s, c->gpr[HV_RSP]);
	r = bt_stack_pop(c, &old, size, v, params);
	if (r)
		return r;
	while (params)
		stack_push(&s, v[--params]);
	r = push_return(c, &s, i, size);
	if (r)
		return r;
	enter_code(c, sel, cpl, d, off);
	if (s.flat)
		bt_seg_null(c, HV_SS, (uint16_t)cpl);
	else
		bt_seg_set(c, HV_SS, &s.ss);
	bt_stack_store_sp(c, &s);
	return BT_OK;
}

static enum bt_res far_gate(struct bt_cpu *c, const struct bt_insn *i, uint16_t gate_sel,
			    struct desc *g, bool call)
{
	uint16_t sel = (uint16_t)(g->raw >> 16);
	uint64_t off = (g->raw & 0xffff) | ((g->raw >> 32) & 0xffff0000u);
	unsigned size = desc_type(g) == SYS_CALL16 ? 2 : 4, params = (g->raw >> 32) & 0x1f;
	struct desc d;
	struct stack s;
	enum bt_res r;

	if (desc_dpl(g) < c->cpl || (gate_sel & 3u) > desc_dpl(g))
		return res_fault(c, EXC_GP, gate_sel & ~3u);
	if (!desc_p(g))
		return res_fault(c, EXC_NP, gate_sel & ~3u);
	if (cpu_lma(c)) {
		r = bt_desc_read_high(c, gate_sel, EXC_GP, g);
		if (r)
			return r;
		if (g->high >> 40 & 0x1f)
			return res_fault(c, EXC_GP, gate_sel & ~3u);
		off |= g->high << 32;
		size = 8;
		params = 0;
	} else if (size == 2) {
		off &= 0xffff;
	}
	if (!(sel & ~3u))
		return res_fault(c, EXC_GP, 0);
	r = bt_desc_read(c, sel, EXC_GP, 0, &d);
	if (r)
		return r;
	if (!desc_code(&d) || desc_dpl(&d) > c->cpl ||
	    (!call && !desc_conforming(&d) && desc_dpl(&d) != c->cpl) ||
	    (cpu_lma(c) && (!desc_l(&d) || desc_db(&d))))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (!desc_p(&d))
		return res_fault(c, EXC_NP, sel & ~3u);
	r = check_rip(c, &d, &off);
	if (!r)
		r = bt_desc_mark_accessed(c, &d);
	if (r)
		return r;
	if (call && !desc_conforming(&d) && desc_dpl(&d) < c->cpl)
		return gate_call_inner(c, i, sel, &d, off, size, params);
	if (call) {
		bt_stack_current(c, &s);
		if (cpu_lma(c)) {
			s.flat = true;
			s.mask = ~0ull;
			s.sp = c->gpr[HV_RSP];
		}
		r = push_return(c, &s, i, size);
		if (r)
			return r;
		bt_stack_store_sp(c, &s);
	}
	enter_code(c, sel, c->cpl, &d, off);
	return BT_OK;
}

static enum bt_res far_transfer(struct bt_cpu *c, const struct bt_insn *i, uint16_t sel,
				uint64_t off, bool call)
{
	struct desc d;
	unsigned type;
	enum bt_res r;

	if (cpu_real(c))
		return far_real(c, i, sel, off, call);
	if (!(sel & ~3u))
		return res_fault(c, EXC_GP, 0);
	r = bt_desc_read(c, sel, EXC_GP, 0, &d);
	if (r)
		return r;
	if (desc_code(&d))
		return far_code(c, i, sel, &d, off, call);
	type = desc_type(&d);
	if (desc_s(&d))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (type == SYS_CALL || (type == SYS_CALL16 && !cpu_lma(c)))
		return far_gate(c, i, sel, &d, call);
	if (!cpu_lma(c) && (type == SYS_TASK || type == SYS_TSS || type == SYS_TSS16))
		return no_task_switch(c);
	return res_fault(c, EXC_GP, sel & ~3u);
}

static enum bt_next far_branch(struct bt_cpu *c, const struct bt_insn *i, bool call)
{
	uint64_t off = 0, sel = 0;
	enum bt_res r;
	gva_t va;

	if (i->op[0].kind == 7) {
		off = i->op[0].imm & 0xffffffffu;
		sel = i->op[0].imm >> 32;
	} else {
		r = bt_insn_mem(c, i, 0, i->opsize + 2u, BT_READ, &va);
		if (!r)
			r = bt_mem_read(c, va, &off, i->opsize);
		if (!r)
			r = bt_mem_read(c, va + i->opsize, &sel, 2);
		if (r)
			return BT_AGAIN;
	}
	r = far_transfer(c, i, (uint16_t)sel, off, call);
	if (r == BT_OK)
		bt_mode_update(c);
	return ends(r);
}

SYS_FN(bt_sys_far_jmp)
{
	return far_branch(c, i, false);
}
SYS_FN(bt_sys_far_call)
{
	return far_branch(c, i, true);
}

/* --- far ret and iret --- */
/* The code segment that is returned to; its privilege is the selector's RPL. */
static enum bt_res return_code(struct bt_cpu *c, uint16_t sel, struct desc *d, uint64_t *rip)
{
	unsigned rpl = sel & 3u;
	enum bt_res r;

	if (!(sel & ~3u))
		return res_fault(c, EXC_GP, 0);
	r = bt_desc_read(c, sel, EXC_GP, 0, d);
	if (r)
		return r;
	if (!desc_code(d) || rpl < c->cpl ||
	    (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl) ||
	    (cpu_lma(c) && desc_l(d) && desc_db(d)))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (!desc_p(d))
		return res_fault(c, EXC_NP, sel & ~3u);
	r = check_rip(c, d, rip);
	return r ? r : bt_desc_mark_accessed(c, d);
}

static enum bt_res return_ss(struct bt_cpu *c, uint16_t sel, unsigned cpl, bool code64,
			     struct hv_seg *ss)
{
	if (!(sel & ~3u) && code64 && cpl != 3 && (sel & 3u) == cpl) {
		*ss = (struct hv_seg){ .sel = sel, .attr = (uint16_t)(cpl << ATTR_DPL_SHIFT) };
		return BT_OK;
	}
	return bt_seg_check_ss(c, sel, cpl, EXC_GP, 0, ss);
}

/* Data segments that the outer privilege may not keep. */
static void drop_inner_segments(struct bt_cpu *c)
{
	static const uint8_t which[] = { HV_ES, HV_DS, HV_FS, HV_GS };

	for (unsigned k = 0; k < sizeof(which); k++) {
		const struct hv_seg *s = &c->seg[which[k]];
		bool conforming = (s->attr & TYPE_CODE) && (s->attr & TYPE_CE);

		if ((s->attr & ATTR_P) && !conforming && seg_dpl(s) < c->cpl)
			bt_seg_null(c, which[k], 0);
	}
}

/* Everything is checked: go there.  ss NULL: the stack segment stays. */
static void return_to(struct bt_cpu *c, uint16_t sel, const struct desc *d, uint64_t rip,
		      const struct hv_seg *ss, uint64_t sp)
{
	unsigned old = c->cpl;

	enter_code(c, sel, sel & 3u, d, rip);
	if (ss) {
		bt_seg_set(c, HV_SS, ss);
		if (cpu_lma(c) && desc_l(d))
			c->gpr[HV_RSP] = sp;
		else if (ss->attr & ATTR_DB)
			c->gpr[HV_RSP] = (uint32_t)sp;
		else
			c->gpr[HV_RSP] = (c->gpr[HV_RSP] & ~0xffffull) | (sp & 0xffff);
	}
	if (c->cpl > old)
		drop_inner_segments(c);
}

SYS_FN(bt_sys_far_ret)
{
	uint64_t v[2], w[2], bytes = i->nops && i->op[0].kind == 3 ? i->op[0].imm & 0xffff : 0;
	struct hv_seg ss;
	struct stack s;
	struct desc d;
	enum bt_res r;
	bool outer;

	bt_stack_current(c, &s);
	r = bt_stack_pop(c, &s, i->opsize, v, 2);
	if (r)
		return BT_AGAIN;
	s.sp = (s.sp + bytes) & s.mask;
	if (cpu_real(c)) {
		if (v[0] > c->seg[HV_CS].limit)
			return fault_gp0(c);
		c->seg[HV_CS].sel = (uint16_t)v[1];
		c->seg[HV_CS].base = (v[1] & 0xffff) << 4;
		c->rip = v[0];
		bt_stack_store_sp(c, &s);
		bt_mode_update(c);
		return BT_BRANCH;
	}
	r = return_code(c, (uint16_t)v[1], &d, &v[0]);
	if (r)
		return BT_AGAIN;
	outer = (v[1] & 3) > c->cpl;
	if (outer) {
		r = bt_stack_pop(c, &s, i->opsize, w, 2);
		if (!r)
			r = return_ss(c, (uint16_t)w[1], v[1] & 3, cpu_lma(c) && desc_l(&d), &ss);
		if (r)
			return BT_AGAIN;
		return_to(c, (uint16_t)v[1], &d, v[0], &ss, w[0] + bytes);
	} else {
		return_to(c, (uint16_t)v[1], &d, v[0], NULL, 0);
		bt_stack_store_sp(c, &s);
	}
	bt_mode_update(c);
	return BT_BRANCH;
}

static void iret_flags(struct bt_cpu *c, unsigned cpl, uint64_t v, unsigned size)
{
	uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

	if (size > 2)
		mask |= RFLAGS_AC | RFLAGS_ID | (cpl == 0 ? RFLAGS_VIF | RFLAGS_VIP : 0);
	if (cpl == 0)
		mask |= RFLAGS_IOPL;
	if (cpl <= cpu_iopl(c))
		mask |= RFLAGS_IF;
	c->rflags = ((c->rflags & ~mask) | (v & mask) | RFLAGS_FIXED) & ~(uint64_t)RFLAGS_RF;
}

static enum bt_res iret_protected(struct bt_cpu *c, unsigned size)
{
	uint64_t v[5];
	struct hv_seg ss;
	struct stack s;
	struct desc d;
	unsigned cpl = c->cpl;
	bool with_ss;
	enum bt_res r;

	if (c->rflags & RFLAGS_NT)
		return cpu_lma(c) ? res_fault(c, EXC_GP, 0) : no_task_switch(c);
	bt_stack_current(c, &s);
	r = bt_stack_pop(c, &s, size, v, 3);
	if (r)
		return r;
	if (!cpu_lma(c) && size == 4 && (v[2] & RFLAGS_VM) && cpl == 0)
		return res_fault(c, EXC_GP, 0);
	r = return_code(c, (uint16_t)v[1], &d, &v[0]);
	if (r)
		return r;
	with_ss = cpu_code64(c) || (v[1] & 3) > cpl;
	if (with_ss) {
		r = bt_stack_pop(c, &s, size, &v[3], 2);
		if (!r)
			r = return_ss(c, (uint16_t)v[4], v[1] & 3, cpu_lma(c) && desc_l(&d), &ss);
		if (r)
			return r;
		return_to(c, (uint16_t)v[1], &d, v[0], &ss, v[3]);
	} else {
		return_to(c, (uint16_t)v[1], &d, v[0], NULL, 0);
		bt_stack_store_sp(c, &s);
	}
	iret_flags(c, cpl, v[2], size);
	return BT_OK;
}

static enum bt_res iret_real(struct bt_cpu *c, unsigned size)
{
	struct stack s;
	uint64_t v[3];
	enum bt_res r;

	bt_stack_current(c, &s);
	r = bt_stack_pop(c, &s, size, v, 3);
	if (r)
		return r;
	if (v[0] > c->seg[HV_CS].limit)
		return res_fault(c, EXC_GP, 0);
	c->seg[HV_CS].sel = (uint16_t)v[1];
	c->seg[HV_CS].base = (v[1] & 0xffff) << 4;
	c->rip = v[0];
	bt_stack_store_sp(c, &s);
	iret_flags(c, 0, v[2], size);
	return BT_OK;
}

SYS_FN(bt_sys_iret)
{
	enum bt_res r = cpu_real(c) ? iret_real(c, i->opsize) : iret_protected(c, i->opsize);

	if (r == BT_EXIT)
		return BT_AGAIN;
	c->nmi_blocked = false; /* also when it faults (SDM vol 3, 6.7.1) */
	bt_mode_update(c);
	return ends(r);
}

/* --- software interrupts --- */
SYS_FN(bt_sys_int)
{
	return ends(bt_event_soft(c, (uint8_t)i->op[0].imm, i->next_rip, true));
}
SYS_FN(bt_sys_int3)
{
	return ends(bt_event_soft(c, EXC_BP, i->next_rip, true));
}
SYS_FN(bt_sys_int1)
{
	return ends(bt_event_soft(c, EXC_DB, i->next_rip, false));
}

SYS_FN(bt_sys_into)
{
	if (!(c->rflags & RFLAGS_OF))
		return next_insn(c, i);
	return ends(bt_event_soft(c, EXC_OF, i->next_rip, true));
}
