/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/stack.c - pushes and pops of the system half, several at once or not at all.
 *
 * What      Frames are collected first; when every byte of them is writable in one active period,
 * they are written.  So an instruction or event that needs a stack page from another node simply
 * restarts. Threads   The vCPU thread, active as a DSM reader. I/O       Guest memory only.
 */
#include "hv/bt/sysint.h"

void bt_stack_current(const struct bt_cpu *c, struct stack *s)
{
	s->ss = c->seg[HV_SS];
	s->flat = cpu_code64(c);
	s->mask = s->flat ? ~0ull : c->mode & BT_MODE_SS32 ? 0xffffffffull : 0xffffull;
	s->sp = c->gpr[HV_RSP] & s->mask;
	s->as = as_current(c) | AS_SILENT | AS_STACK;
	s->ss_error = 0;
	s->n = 0;
}

void bt_stack_store_sp(struct bt_cpu *c, const struct stack *s)
{
	if (s->mask == 0xffff)
		c->gpr[HV_RSP] = (c->gpr[HV_RSP] & ~0xffffull) | (s->sp & 0xffff);
	else
		c->gpr[HV_RSP] = s->sp & s->mask;
}

static enum bt_res stack_address(struct bt_cpu *c, const struct stack *s, uint64_t sp,
				 unsigned size, gva_t *va)
{
	bool down = (s->ss.attr & TYPE_CE) && (s->ss.attr & ATTR_S);

	if (s->flat) {
		*va = sp;
		if (!va_canonical(sp) || !va_canonical(sp + size - 1))
			return res_fault(c, EXC_SS, s->ss_error);
		return BT_OK;
	}
	if (down ? sp <= s->ss.limit || sp + size - 1 > s->mask : sp + size - 1 > s->ss.limit)
		return res_fault(c, EXC_SS, s->ss_error);
	*va = (s->ss.base + sp) & 0xffffffffu;
	return BT_OK;
}

enum bt_res bt_stack_commit(struct bt_cpu *c, struct stack *s, unsigned size)
{
	uint64_t sp, q;
	enum bt_res r;
	gva_t va;

	do {
		q = c->quiesced;
		sp = s->sp;
		for (unsigned k = 0; k < s->n; k++) {
			sp = (sp - size) & s->mask;
			r = stack_address(c, s, sp, size, &va);
			if (!r)
				r = bt_mem_probe_as(c, va, size, BT_WRITE, s->as);
			if (r)
				return r;
		}
	} while (q != c->quiesced);

	sp = s->sp;
	for (unsigned k = 0; k < s->n; k++) {
		sp = (sp - size) & s->mask;
		r = stack_address(c, s, sp, size, &va);
		if (!r)
			r = bt_mem_write_as(c, va, &s->val[k], size, s->as);
		if (r) /* the probe said it cannot be, save for the end of the VM */
			return r;
	}
	s->sp = sp;
	s->n = 0;
	return BT_OK;
}

enum bt_res bt_stack_pop(struct bt_cpu *c, struct stack *s, unsigned size, uint64_t *v, unsigned n)
{
	enum bt_res r;
	gva_t va;

	for (unsigned k = 0; k < n; k++) {
		r = stack_address(c, s, s->sp, size, &va);
		if (r)
			return r;
		v[k] = 0;
		r = bt_mem_read_as(c, va, &v[k], size, s->as);
		if (r)
			return r;
		s->sp = (s->sp + size) & s->mask;
	}
	return BT_OK;
}
