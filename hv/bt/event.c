/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/event.c - delivers exceptions and interrupts through the IVT or the IDT.
 *
 * What      SDM vol 3 chapter 6 and 6.14 (64-bit), 6.15 (#DF rules).  A frame is written only when
 * all of it can be, after every check, so a delivery that has to fetch a page restarts without a
 * trace. Threads   The vCPU thread, active as a DSM reader. I/O       Guest memory only. Limits No
 * task gates (HV_EXIT_ERROR), no VM86.  rflags.RF is never set while the guest runs: there are no
 * instruction breakpoints it could suppress; it is pushed as the SDM has it.
 */
#include "hv/bt/sysint.h"

struct event {
	uint8_t vector;
	uint8_t kind; /* enum bt_event_kind */
	bool check_dpl;
	bool has_error;
	uint32_t error;
	uint32_t ext; /* EXT bit of error codes that the delivery itself raises */
	uint64_t rip; /* to save */
	uint64_t cr2;
};

struct gate {
	uint16_t sel;
	unsigned type, ist;
	uint64_t offset;
	unsigned size; /* of one push */
};

void bt_exception(struct bt_cpu *c, uint8_t vector)
{
	c->exc.pending = true;
	c->exc.vector = vector;
	c->exc.kind = BT_EVENT_FAULT;
	c->exc.has_error = false;
	c->exc.error = 0;
	/* the instruction starts anew after the handler: what was answered so far is void */
	c->held.valid = false;
	c->mmio.ready = c->pio.ready = c->msr.ready = false;
}

void bt_exception_error(struct bt_cpu *c, uint8_t vector, uint32_t error)
{
	bt_exception(c, vector);
	c->exc.has_error = true;
	c->exc.error = error;
}

void bt_page_fault(struct bt_cpu *c, gva_t va, uint32_t error)
{
	bt_exception_error(c, EXC_PF, error);
	c->exc.cr2 = va;
}

void bt_debug_step(struct bt_cpu *c)
{
	c->dr[6] |= 1u << 14;
	bt_exception(c, EXC_DB);
}

static enum bt_res deliver_real(struct bt_cpu *c, const struct event *e)
{
	struct stack s;
	uint32_t entry;
	enum bt_res r;

	if (e->vector * 4u + 3 > c->idt_limit)
		return res_fault(c, EXC_GP, e->vector * 8u + 2);
	r = bt_mem_read_as(c, c->idt_base + e->vector * 4u, &entry, 4, AS_SYSTEM);
	if (r)
		return r;
	bt_stack_current(c, &s);
	stack_push(&s, c->rflags);
	stack_push(&s, c->seg[HV_CS].sel);
	stack_push(&s, e->rip);
	r = bt_stack_commit(c, &s, 2);
	if (r)
		return r;
	bt_stack_store_sp(c, &s);
	c->rflags &= ~(uint64_t)(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
	c->seg[HV_CS].sel = (uint16_t)(entry >> 16);
	c->seg[HV_CS].base = entry >> 16 << 4;
	c->rip = entry & 0xffff;
	return BT_OK;
}

static enum bt_res read_gate(struct bt_cpu *c, const struct event *e, struct gate *g)
{
	unsigned size = cpu_lma(c) ? 16 : 8;
	uint32_t error = e->vector * 8u + 2 + e->ext;
	uint64_t raw, high = 0;
	enum bt_res r;
	bool ok;

	if (e->vector * size + size - 1 > c->idt_limit)
		return res_fault(c, EXC_GP, error);
	r = bt_mem_read_as(c, c->idt_base + e->vector * size, &raw, 8, AS_SYSTEM);
	if (r == BT_OK && size == 16)
		r = bt_mem_read_as(c, c->idt_base + e->vector * size + 8, &high, 8, AS_SYSTEM);
	if (r)
		return r;
	g->type = (raw >> 40) & 0x1f; /* with S, which must be 0 */
	ok = g->type == SYS_INT || g->type == SYS_TRAP;
	if (!cpu_lma(c))
		ok |= g->type == SYS_INT16 || g->type == SYS_TRAP16 || g->type == SYS_TASK;
	if (!ok || (e->check_dpl && (raw >> 45 & 3) < c->cpl))
		return res_fault(c, EXC_GP, error);
	if (!(raw >> 47 & 1))
		return res_fault(c, EXC_NP, error);
	if (g->type == SYS_TASK) {
		c->exit->text = "task gate in the IDT: task switches are not supported";
		bt_exit(c, HV_EXIT_ERROR);
		return BT_EXIT;
	}
	g->sel = (uint16_t)(raw >> 16);
	g->offset = (raw & 0xffff) | ((raw >> 32) & 0xffff0000u) | high << 32;
	g->ist = size == 16 ? (raw >> 32) & 7 : 0;
	g->size = size == 16 ? 8 : g->type >= SYS_INT ? 4 : 2;
	if (g->size == 2)
		g->offset &= 0xffff;
	return BT_OK;
}

/* The handler's code segment and privilege. */
static enum bt_res gate_code(struct bt_cpu *c, const struct event *e, const struct gate *g,
			     struct desc *d, unsigned *cpl)
{
	uint32_t error = (g->sel & ~3u) | e->ext;
	enum bt_res r;

	if (!(g->sel & ~3u))
		return res_fault(c, EXC_GP, e->ext);
	r = bt_desc_read(c, g->sel, EXC_GP, e->ext, d);
	if (r)
		return r;
	if (!desc_code(d) || desc_dpl(d) > c->cpl)
		return res_fault(c, EXC_GP, error);
	if (cpu_lma(c) && (!desc_l(d) || desc_db(d)))
		return res_fault(c, EXC_GP, error);
	if (!desc_p(d))
		return res_fault(c, EXC_NP, error);
	if (cpu_lma(c) ? !va_canonical(g->offset) : g->offset > desc_limit(d))
		return res_fault(c, EXC_GP, e->ext);
	*cpl = desc_conforming(d) ? c->cpl : desc_dpl(d);
	return BT_OK;
}

/* The stack that the frame goes to. */
static enum bt_res gate_stack(struct bt_cpu *c, const struct event *e, const struct gate *g,
			      unsigned cpl, struct stack *s)
{
	enum bt_res r = BT_OK;

	bt_stack_current(c, s);
	if (cpu_lma(c)) {
		s->flat = true;
		s->mask = ~0ull;
		s->sp = c->gpr[HV_RSP];
		if (g->ist)
			r = bt_tss_ist(c, g->ist, e->ext, &s->sp);
		else if (cpl < c->cpl)
			r = bt_tss_stack(c, cpl, e->ext, &s->ss, &s->sp);
		s->sp &= ~0xfull;
	} else if (cpl < c->cpl) {
		r = bt_tss_stack(c, cpl, e->ext, &s->ss, &s->sp);
		s->mask = s->ss.attr & ATTR_DB ? 0xffffffffull : 0xffffull;
		s->sp &= s->mask;
	}
	s->as = (cpl == 3 ? AS_USER : 0) | AS_SILENT | AS_STACK;
	s->ss_error = cpl < c->cpl && !cpu_lma(c) ? (s->ss.sel & ~3u) | e->ext : e->ext;
	return r;
}

static bool pushes_rf(const struct event *e)
{
	return e->kind == BT_EVENT_FAULT && e->vector != EXC_DB && e->vector != EXC_BP &&
	       e->vector != EXC_OF && e->vector != EXC_DF && e->vector != EXC_MC;
}

static enum bt_res deliver_protected(struct bt_cpu *c, const struct event *e)
{
	struct hv_seg cs;
	struct stack s;
	struct gate g;
	struct desc d;
	unsigned cpl;
	bool inner;
	enum bt_res r;

	r = read_gate(c, e, &g);
	if (!r)
		r = gate_code(c, e, &g, &d, &cpl);
	if (!r)
		r = gate_stack(c, e, &g, cpl, &s);
	if (!r)
		r = bt_desc_mark_accessed(c, &d);
	if (r)
		return r;
	inner = cpl < c->cpl;
	if (inner || cpu_lma(c)) {
		stack_push(&s, c->seg[HV_SS].sel);
		stack_push(&s, c->gpr[HV_RSP]);
	}
	stack_push(&s, c->rflags | (pushes_rf(e) ? RFLAGS_RF : 0));
	stack_push(&s, c->seg[HV_CS].sel);
	stack_push(&s, e->rip);
	if (e->has_error)
		stack_push(&s, e->error);
	r = bt_stack_commit(c, &s, g.size);
	if (r)
		return r;

	bt_seg_from_desc(&cs, (uint16_t)((g.sel & ~3u) | cpl), &d);
	c->cpl = (uint8_t)cpl;
	bt_seg_set(c, HV_CS, &cs);
	if (inner && cpu_lma(c))
		bt_seg_null(c, HV_SS, (uint16_t)cpl);
	else if (inner)
		bt_seg_set(c, HV_SS, &s.ss);
	bt_stack_store_sp(c, &s);
	c->rip = g.offset;
	c->rflags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
	if (g.type == SYS_INT || g.type == SYS_INT16)
		c->rflags &= ~(uint64_t)RFLAGS_IF;
	return BT_OK;
}

static enum bt_res deliver_one(struct bt_cpu *c, const struct event *e)
{
	enum bt_res r;

	if (e->kind == BT_EVENT_FAULT && e->vector == EXC_PF)
		c->cr2 = e->cr2;
	r = cpu_real(c) ? deliver_real(c, e) : deliver_protected(c, e);
	if (r)
		return r;
	if (e->kind == BT_EVENT_FAULT && e->vector == EXC_DB)
		c->dr[7] &= ~(1ull << 13); /* GD */
	c->irq_shadow = false;
	c->halted = false;
	bt_mode_update(c);
	return BT_OK;
}

/* --- SDM vol 3, table 6-5 --- */
enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum fault_class class_of(uint8_t kind, uint8_t vector)
{
	if (kind != BT_EVENT_FAULT)
		return BENIGN;
	if (vector == EXC_PF)
		return PAGE_FAULT;
	return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP) ? CONTRIBUTORY : BENIGN;
}

/* The exception c->exc came up while e was delivered: what is delivered next.  False: triple fault.
 */
static bool combine(const struct bt_cpu *c, struct event *e)
{
	enum fault_class first = class_of(e->kind, e->vector),
			 second = class_of(c->exc.kind, c->exc.vector);

	if (e->kind == BT_EVENT_FAULT && e->vector == EXC_DF && second != BENIGN)
		return false;
	if ((first == CONTRIBUTORY && second == CONTRIBUTORY) ||
	    (first == PAGE_FAULT && second != BENIGN)) {
		e->vector = EXC_DF;
		e->has_error = true;
		e->error = 0;
	} else {
		e->vector = c->exc.vector;
		e->has_error = c->exc.has_error;
		e->error = c->exc.error;
		e->cr2 = c->exc.cr2;
	}
	e->kind = BT_EVENT_FAULT;
	e->check_dpl = false;
	e->ext = 1;
	return true;
}

static enum bt_res event_run(struct bt_cpu *c, struct event *e)
{
	enum bt_res r;

	for (;;) {
		c->exc.pending = false;
		r = deliver_one(c, e);
		if (r == BT_OK)
			return BT_OK;
		if (r ==
		    BT_EXIT) { /* the VM cannot go on; keep the event for a look at the state */
			c->exc.pending = true;
			c->exc.vector = e->vector;
			c->exc.kind = e->kind;
			c->exc.has_error = e->has_error;
			c->exc.error = e->error;
			c->exc.cr2 = e->cr2;
			return BT_EXIT;
		}
		if (c->exc.vector == EXC_PF)
			c->cr2 = c->exc.cr2;
		if (!combine(c, e)) {
			c->exc.pending = false;
			bt_exit(c, HV_EXIT_SHUTDOWN);
			return BT_EXIT;
		}
	}
}

enum bt_res bt_event_deliver(struct bt_cpu *c)
{
	struct event e = {
		.vector = c->exc.vector,
		.kind = c->exc.kind,
		.has_error = c->exc.has_error,
		.error = c->exc.error,
		.ext = 1,
		.rip = c->rip,
		.cr2 = c->exc.cr2,
	};

	if (e.kind == BT_EVENT_NMI)
		c->nmi_blocked = true;
	/* real mode pushes no error codes: deliver_real does not look at them */
	return event_run(c, &e);
}

enum bt_res bt_event_interrupt(struct bt_cpu *c, uint8_t vector, bool nmi)
{
	struct event e = {
		.vector = nmi ? EXC_NMI : vector,
		.kind = nmi ? BT_EVENT_NMI : BT_EVENT_EXTERNAL,
		.ext = 1,
		.rip = c->rip,
	};

	if (nmi)
		c->nmi_blocked = true;
	return event_run(c, &e);
}

enum bt_res bt_event_soft(struct bt_cpu *c, uint8_t vector, uint64_t next, bool check_dpl)
{
	struct event e = {
		.vector = vector,
		.kind = BT_EVENT_SOFT,
		.check_dpl = check_dpl,
		.ext = !check_dpl,
		.rip = next,
	};

	return deliver_one(c, &e);
}
