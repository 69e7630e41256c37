/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/run.c - the loop between translated code and everything that it cannot do.
 *
 * What      Completes what the monitor answered, delivers events, finds the next block, enters it, and acts on
 *           the way it was left.
 * Threads   The vCPU thread.
 */
#include "hv/bt/tr.h"

static bool shadowed(struct bt_cpu *c)
{
	if (c->irq_shadow && c->rip != c->tr_state->shadow_rip)
		c->irq_shadow = false;
	return c->irq_shadow;
}

/* A restarted MMIO, port or MSR instruction changes neither IF nor the NMI mask: events may queue behind it. */
static bool irq_takes(struct bt_cpu *c)
{
	return (c->rflags & RFLAGS_IF) && !shadowed(c) && !c->exc.pending;
}

bool tr_irq_ready(struct bt_cpu *c)
{
	return irq_takes(c) && !c->tr_state->inject;
}

static bool nmi_takes(struct bt_cpu *c)
{
	return !c->nmi_blocked && !shadowed(c) && !c->exc.pending;
}

/* There is no NMI window in the engine's promise: whoever was refused is called again when it opens. */
bool tr_nmi_ready(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;

	t->nmi_wanted = !nmi_takes(c) || t->inject;
	return !t->nmi_wanted;
}

/* What the monitor answered goes where the restarted instruction looks for it; true when there is one. */
static bool complete(struct bt_cpu *c, const struct hv_exit *exit)
{
	struct bt_translator *t = c->tr_state;
	bool restarts = t->restarts;

	c->exit_pending = false;
	t->restarts = false;
	if (t->write_done) {
		t->write_done = false;
		c->mmio.ready = false;
		c->held.valid = false;
		return false;
	}
	if (!restarts)
		return false;
	switch (t->last_reason) {
	case HV_EXIT_MMIO:
		c->mmio.data = exit->data;
		c->mmio.ready = true;
		break;
	case HV_EXIT_PIO:
		c->pio.data = exit->data;
		c->pio.ready = true;
		break;
	case HV_EXIT_MSR:
		c->msr.data = exit->data;
		c->msr.fault = exit->fault;
		c->msr.ready = true;
		break;
	default:
		break;
	}
	return true;
}

/* The kick: posted work, the DSM's and other vCPUs', or the monitor wants run() to end. */
static bool kicked(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;

	if (c->cfg->pace && !c->pace_left)
		c->pace_left = c->cfg->pace(c->id, c->rip, c->gpr);
	if (!atomic_exchange_explicit(&c->kick, 0, memory_order_acq_rel))
		return false;
	bt_fpu_park(c);
	if (t->nposted)
		tr_posted(t);
	dsm_reader_poll(c->reader, bt_tlb_drop, c);
	return atomic_exchange(&t->kick_wanted, false);
}

/* Events before the next instruction; true when run() has to return. */
static bool events(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;

	if (c->exit_pending)
		return true;
	if (c->exc.pending) {
		bt_event_deliver(c);
		return c->exit_pending;
	}
	if (t->inject && (t->inject & TR_INJECT_NMI ? nmi_takes(c) : irq_takes(c))) {
		uint32_t what = t->inject;

		t->inject = 0;
		c->irq_shadow = false;
		c->halted = false;
		bt_event_interrupt(c, (uint8_t)what, what & TR_INJECT_NMI);
		return c->exit_pending;
	}
	if (c->irq_window && tr_irq_ready(c)) {
		c->exit->reason = HV_EXIT_IRQ_WINDOW;
		return true;
	}
	if (t->nmi_wanted && nmi_takes(c) && !t->inject) {
		t->nmi_wanted = false;
		c->exit->reason = HV_EXIT_KICKED;
		return true;
	}
	return false;
}

/* Code for cpu->rip from the jump cache, or the block. */
static void *find_code(struct bt_cpu *c, uint32_t extra)
{
	struct bt_translator *t = c->tr_state;
	struct bt_jc *j = &c->jc[(c->rip ^ c->rip >> 8) & (BT_JC_SIZE - 1)];
	struct bt_block *b;

	tr_salt_update(c);
	if (!extra && j->key == (c->rip ^ c->jc_salt)) {
		t->running = NULL;
		return j->code;
	}
	b = tr_translate(t, c->mode | extra);
	if (!b)
		return NULL;
	t->running = b;
	tr_jc_add(t, b);
	return b->entry_m;
}

/* A direct exit that is not chained yet. */
static void chain(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;
	const uint8_t *pc = (const uint8_t *)(uintptr_t)c->exit_pc;
	struct bt_block *from = tr_block_at(t, pc - 1), *to;
	struct tr_exit *x = &from->exits[from->exits[0].tramp + 5 != pc];
	uint64_t flushes = t->flushes;

	ASSERT(x->tramp + 5 == pc);
	c->rip = x->target;
	to = tr_translate(t, c->mode);
	if (to && t->flushes == flushes)
		tr_link(t, x, to);
}

/* Acts on how translated code was left; answers mode bits for the next block. */
static uint32_t left(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;

	switch ((enum tr_exit_kind)c->exit_kind) {
	case TR_EXIT_CHAIN:
		chain(c);
		break;
	case TR_EXIT_KICK:
		c->rip = tr_block_at(t, (const uint8_t *)(uintptr_t)c->exit_pc - 1)->rip;
		break;
	case TR_EXIT_INDIRECT:
		if (t->running && (t->running->mode & BT_MODE_SINGLE))
			bt_debug_step(c);
		break;
	case TR_EXIT_AGAIN:
		break;
	case TR_EXIT_ONE:
		return TR_MODE_ONE;
	case TR_EXIT_BOUNCE:
		return TR_MODE_BOUNCE;
	}
	return 0;
}

void tr_run(struct bt_cpu *c, struct hv_exit *exit, bool irq_window)
{
	struct bt_translator *t = c->tr_state;
	uint32_t extra = 0;
	void *code;

	c->exit = exit;
	c->irq_window = irq_window;
	if (complete(c, exit))
		extra = TR_MODE_ONE; /* before any interrupt: the answer is for this instruction */
	tr_signals_current(c);
	bt_cpu_enter(c);
	for (;;) {
		/* An exit that is on its way goes first: an MMIO write has been taken from the guest already. */
		if (!extra && !c->exit_pending && kicked(c)) {
			exit->reason = HV_EXIT_KICKED;
			break;
		}
		if (!extra && events(c))
			break;
		if (c->exc.pending)
			continue;
		if (!extra && (irq_window || t->inject || t->nmi_wanted) && shadowed(c))
			extra = TR_MODE_ONE; /* the shadow ends after one instruction */
		code = find_code(c, extra);
		extra = 0;
		if (!code)
			continue;
		c->scratch[SLOT_FLAGS] = tr_flags_to_slot(c->rflags);
		t->enter(c, code);
		tr_flags_in(c);
		extra = left(c);
	}
	bt_fpu_park(c);
	if (c->active)
		bt_cpu_leave(c);
	t->last_reason = exit->reason;
	t->restarts = c->exit_pending && !t->write_done &&
		      (exit->reason == HV_EXIT_MMIO || exit->reason == HV_EXIT_PIO || exit->reason == HV_EXIT_MSR);
}
