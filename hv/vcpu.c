/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu.c - one vCPU: its thread, its mailbox, its sleep.
 *
 * What      The thread owns the engine's vCPU and the LAPIC; nobody else touches them.  Others post into the mailbox and
 *           kick: one futex wake for a vCPU that sleeps, one flag for one that runs.  While the vCPU is on another node its
 *           thread here is parked (move.c).
 * Threads   hv_cpu_post, hv_cpu_kick: any.  effects: the vCPU's.  The rest: the thread that starts the slice.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A halted vCPU polls this long before it sleeps: waking an idle CPU costs an order of magnitude more, but
 * a longer poll steals from the other vCPUs. */
#define POLL_NS (30 * NS_PER_US)

static void word_wait(_Atomic uint32_t *word, uint32_t value, uint64_t until_ns)
{
	struct timespec ts = { (time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S) };

	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
		until_ns == HV_NEVER ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* --- from other threads ---------------------------------------------------------------------------------------- */

void hv_cpu_kick(struct hv_cpu *c)
{
	uint32_t old = atomic_fetch_or(&c->mail.word, WORD_POSTED);
	struct hv_vcpu *v;

	if (old & WORD_POSTED)
		return; /* somebody else's kick is under way, and it has not looked yet */
	if (old & WORD_ASLEEP)
		syscall(SYS_futex, &c->mail.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	else if ((v = c->engine_vcpu) && (!c->runs || !pthread_equal(pthread_self(), c->thread) || c->in_engine))
		c->slice->engine->kick(v);
}

static void post_flag(struct hv_mailbox *m, uint32_t clear, uint32_t set)
{
	uint32_t old = atomic_load(&m->flags);

	while (!atomic_compare_exchange_weak(&m->flags, &old, (old & ~clear) | set))
		;
}

void hv_cpu_post(struct hv_cpu *c, const struct hv_msg *msg)
{
	struct hv_mailbox *m = &c->mail;
	unsigned v = msg->ipi.vector;

	switch (msg->ipi.mode) {
	case HV_INTR_FIXED:
	case HV_INTR_LOWEST:
	case HV_INTR_EXTINT:
		atomic_fetch_or(msg->ipi.level ? &m->level[v / 64] : &m->edge[v / 64],
				1ull << (v % 64));
		break;
	case HV_INTR_NMI:
		post_flag(m, 0, MAIL_NMI);
		break;
	case HV_INTR_INIT: /* cancels a SIPI before it */
		post_flag(m, MAIL_SIPI | 0xff, MAIL_INIT);
		break;
	case HV_INTR_SIPI:
		post_flag(m, 0xff, MAIL_SIPI | v);
		break;
	default:
		return; /* SMI */
	}
	hv_cpu_kick(c);
}

/* --- its own thread -------------------------------------------------------------------------------------------- */

void hv_cpu_effects(struct hv_cpu *c, const struct hv_lapic_effects *fx)
{
	for (unsigned i = 0; i < fx->count; i++) {
		const struct hv_lapic_effect *e = &fx->list[i];
		struct hv_lapic_addr addr;

		switch (e->kind) {
		case HV_LAPIC_SEND:
			hv_irq_send(c->slice, &e->intr);
			break;
		case HV_LAPIC_EOI_BROADCAST:
			hv_irq_eoi(c->slice, e->vector);
			break;
		case HV_LAPIC_SET_TIMER:
			c->deadline_tsc = e->deadline;
			break;
		case HV_LAPIC_WAKE:
			break; /* the loop is about to look */
		case HV_LAPIC_ADDR_CHANGED:
			addr = hv_lapic_addr(&c->lapic);
			hv_irq_addr_changed(c->slice, c->id, &addr, ++c->addr_seq);
			break;
		}
	}
}

static void deliver(struct hv_cpu *c, enum hv_intr_mode mode, uint8_t vector, bool level)
{
	struct hv_intr i = { .mode = mode, .vector = vector, .level = level };
	struct hv_lapic_effects fx = { 0 };

	hv_lapic_deliver(&c->lapic, &i, &fx);
	hv_cpu_effects(c, &fx);
}

static void deliver_vectors(struct hv_cpu *c, const uint64_t words[4], bool level)
{
	for (unsigned w = 0; w < 4; w++)
		for (uint64_t bits = words[w]; bits; bits &= bits - 1)
			deliver(c, HV_INTR_FIXED,
				(uint8_t)(w * 64 + (unsigned)__builtin_ctzll(bits)), level);
}

static uint64_t take_word(_Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed) ? atomic_exchange(word, 0) : 0;
}

bool hv_cpu_mail_take(struct hv_cpu *c, struct hv_mail *out)
{
	struct hv_mailbox *m = &c->mail;

	if (!(atomic_load(&m->word) & WORD_POSTED))
		return false;
	/* Before looking: what is posted from here on kicks again. */
	atomic_fetch_and(&m->word, ~WORD_POSTED);
	for (unsigned w = 0; w < 4; w++) {
		out->edge[w] = take_word(&m->edge[w]);
		out->level[w] = take_word(&m->level[w]);
	}
	out->flags = atomic_exchange(&m->flags, 0);
	return true;
}

/* Mailbox to LAPIC. */
static void drain(struct hv_cpu *c)
{
	struct hv_mail mail;

	if (!hv_cpu_mail_take(c, &mail))
		return;
	deliver_vectors(c, mail.edge, false);
	deliver_vectors(c, mail.level, true);
	if (mail.flags & MAIL_INIT)
		deliver(c, HV_INTR_INIT, 0, false);
	if (mail.flags & MAIL_SIPI)
		deliver(c, HV_INTR_SIPI, mail.flags & 0xff, false);
	if (mail.flags & MAIL_NMI)
		deliver(c, HV_INTR_NMI, 0, false);
}

/* State after INIT; after SIPI at `vector` when started (SDM vol 3, 9.1.4 and 9.4.4). */
static bool reset(struct hv_cpu *c, bool started, uint8_t vector)
{
	struct hv_cpu_state st = c->reset;

	if (started) {
		st.seg[HV_CS].sel = (uint16_t)(vector << 8);
		st.seg[HV_CS].base = (uint64_t)vector << 12;
		st.rip = 0;
	}
	c->halted = false;
	if (!c->slice->engine->set_state(c->engine_vcpu, &st))
		return true;
	hv_slice_end(c->slice, CC_END_ERROR, c->slice->spec->self, NULL,
		     "vCPU %u: engine refuses the reset state", c->id);
	return false;
}

/* INIT, SIPI, NMI, timer.  False: the vCPU ends. */
static bool take_events(struct hv_cpu *c)
{
	const struct hv_engine *e = c->slice->engine;
	struct hv_lapic_effects fx = { 0 };
	uint8_t vector = 0;

	if (c->deadline_tsc) {
		uint64_t now = hv_clock_guest_tsc(&c->slice->clock);

		if (now >= c->deadline_tsc)
			hv_lapic_timer(&c->lapic, now, &fx);
		hv_cpu_effects(c, &fx);
	}
	for (;;) {
		enum hv_lapic_event ev;

		fx.count = 0;
		/* Asked only when there is one: an engine that refuses remembers it, and exits when it can. */
		ev = hv_lapic_take(&c->lapic, c->lapic.nmi_pending && e->nmi_ready(c->engine_vcpu),
				   &vector, &fx);
		hv_cpu_effects(c, &fx);
		switch (ev) {
		case HV_LAPIC_NOTHING:
			return true;
		case HV_LAPIC_TAKE_INIT:
			if (!reset(c, false, 0))
				return false;
			break;
		case HV_LAPIC_TAKE_SIPI:
			if (!reset(c, true, vector))
				return false;
			break;
		case HV_LAPIC_TAKE_NMI:
			e->inject_nmi(c->engine_vcpu);
			c->halted = false;
			break;
		}
	}
}

/* True: leave the guest as soon as it takes interrupts, one waits. */
static bool inject(struct hv_cpu *c)
{
	const struct hv_engine *e = c->slice->engine;
	int v;

	hv_lapic_set_cr8(&c->lapic, e->get_tpr(c->engine_vcpu));
	v = hv_lapic_pending(&c->lapic);
	if (v < 0 || !e->irq_ready(c->engine_vcpu))
		return v >= 0;
	e->inject_irq(c->engine_vcpu, (uint8_t)v);
	hv_lapic_ack(&c->lapic, (uint8_t)v);
	c->halted = false;
	atomic_fetch_add_explicit(&c->injected, 1, memory_order_relaxed);
	return hv_lapic_pending(&c->lapic) >= 0; /* a higher one may nest */
}

void hv_cpu_wait(struct hv_cpu *c, uint64_t until_ns)
{
	atomic_fetch_or(&c->mail.word, WORD_ASLEEP);
	while (atomic_load(&c->mail.word) == WORD_ASLEEP && clock_now_ns() < until_ns)
		word_wait(&c->mail.word, WORD_ASLEEP, until_ns);
	atomic_fetch_and(&c->mail.word, ~WORD_ASLEEP);
}

/* Until something is posted, or the timer is due. */
static void sleep_until_event(struct hv_cpu *c)
{
	uint64_t until = HV_NEVER, start = clock_now_ns(), now = start;

	if (c->deadline_tsc)
		until = hv_clock_ns_of(&c->slice->clock, c->deadline_tsc);
	do {
		if ((atomic_load(&c->mail.word) & WORD_POSTED) || now >= until)
			return;
		sched_yield();
		now = clock_now_ns();
	} while (now - start < POLL_NS);
	hv_count(&c->sleeps);
	hv_cpu_wait(c, until);
}

/* Tells the timer thread while the guest runs. */
static void run_guest(struct hv_cpu *c, struct hv_exit *exit, bool window)
{
	uint64_t at = HV_NEVER;

	if (c->deadline_tsc)
		at = hv_clock_ns_of(&c->slice->clock, c->deadline_tsc);
	atomic_store(&c->deadline_ns, at);
	if (at != HV_NEVER)
		hv_timer_armed(c->slice, at);
	c->in_engine = true;
	c->slice->engine->run(c->engine_vcpu, exit, window);
	c->in_engine = false;
	atomic_store_explicit(&c->deadline_ns, HV_NEVER, memory_order_relaxed);
}

static void *cpu_thread(void *arg)
{
	struct hv_cpu *c = arg;
	struct hv_slice *s = c->slice;
	struct hv_exit exit = { 0 };

	log_set_thread(c->name);
	dsm_stalls_bind(s->dsm, &c->stalls);
	while (atomic_load(&s->phase) == HV_PREPARED)
		word_wait(&s->phase, HV_PREPARED, HV_NEVER);
	while (!hv_slice_ending(s)) {
		bool window;

		if (hv_move_due(c) && !hv_move_attend(c))
			continue;
		drain(c);
		if (!take_events(c))
			break;
		if (c->lapic.wait_sipi) {
			c->arrival.fresh = false;
			sleep_until_event(c);
			continue;
		}
		window = inject(c);
		if (c->arrival.fresh)
			hv_move_resumed(c);
		if (c->halted) {
			sleep_until_event(c);
			continue;
		}
		run_guest(c, &exit, window);
		hv_count(&c->exits[exit.reason]);
		if (!hv_exit_handle(c, &exit))
			break;
	}
	dsm_stalls_unbind(s->dsm, &c->stalls);
	return NULL;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

int hv_cpu_engine_open(struct hv_cpu *c)
{
	struct hv_slice *s = c->slice;
	struct hv_vcpu *v;
	int err;

	if (c->engine_vcpu)
		return 0;
	err = s->engine->vcpu_open(s->vm, c->id, &v);
	if (err)
		return err;
	s->engine->get_state(v, &c->reset);
	c->reset.tsc_offset = s->clock.offset;
	atomic_store(&c->engine_vcpu, v);
	return 0;
}

int hv_cpu_open(struct hv_slice *s, unsigned id, struct hv_cpu **out)
{
	struct hv_cpu *c = calloc(1, sizeof(*c));
	int err = 0;

	if (!c)
		return -ENOMEM;
	c->slice = s;
	c->id = id;
	snprintf(c->name, sizeof(c->name), "vcpu/%u", id);
	atomic_store(&c->deadline_ns, HV_NEVER);
	hv_lapic_init(&c->lapic, id, id == 0);
	if (s->spec->vcpu_node[id] == s->spec->self)
		err = hv_cpu_engine_open(c);
	if (err) {
		free(c);
		return err;
	}
	*out = c;
	return 0;
}

static void boot_state(struct hv_cpu_state *st, const struct hv_boot_regs *r)
{
	const uint16_t code =
		r->long_mode ? 0xa09b : 0xc09b; /* present, code, accessed; G, L or D */

	st->gpr[HV_RSP] = r->rsp;
	st->gpr[HV_RAX] = r->rax;
	st->gpr[HV_RBX] = r->rbx;
	st->gpr[HV_RSI] = r->rsi;
	st->gpr[HV_RDX] = 0;
	st->rip = r->rip;
	st->rflags = 2;
	st->cr0 = r->cr0;
	st->cr3 = r->cr3;
	st->cr4 = r->cr4;
	st->efer = r->efer;
	for (unsigned i = 0; i < 6; i++)
		st->seg[i] = (struct hv_seg){ .limit = 0xffffffff, .sel = r->ds, .attr = 0xc093 };
	st->seg[HV_CS] = (struct hv_seg){ .limit = 0xffffffff, .sel = r->cs, .attr = code };
	st->tr = (struct hv_seg){ .limit = 0x67, .attr = 0x8b };
	st->gdt_base = r->gdt_base;
	st->gdt_limit = r->gdt_limit;
}

int hv_cpu_start(struct hv_cpu *c, const struct hv_boot_regs *regs)
{
	struct hv_cpu_state st;
	int err = 0;

	c->reset.tsc_offset =
		c->slice->clock.offset; /* known only now; later resets carry it too */
	st = c->reset;
	if (regs)
		boot_state(&st, regs);
	if (c->engine_vcpu)
		err = c->slice->engine->set_state(c->engine_vcpu, &st);
	if (err)
		return err;
	err = pthread_create(&c->thread, NULL, cpu_thread, c);
	c->runs = !err;
	return -err;
}

void hv_cpu_close(struct hv_cpu *c)
{
	if (c->runs) {
		ASSERT(hv_slice_ending(c->slice));
		pthread_join(c->thread, NULL);
	}
	if (c->engine_vcpu)
		c->slice->engine->vcpu_close(c->engine_vcpu);
	free(c);
}
