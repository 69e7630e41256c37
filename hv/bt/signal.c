/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/signal.c - host faults in translated code become guest exceptions.
 *
 * What      Division errors, unmasked x87 and SSE exceptions (SIGFPE), misaligned SSE operands (SIGSEGV without an
 *           address, from the host's #GP).  The rest is passed to whoever had the signal before.
 * Owns      The process's handlers for SIGFPE and SIGSEGV while a VM of this engine is open.
 * Threads   Any; only a vCPU thread has a current cpu.
 */
#include "hv/bt/tr.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#define VECTOR_GP 13

static __thread struct bt_cpu *current __attribute__((tls_model("initial-exec")));
static struct sigaction old_fpe, old_segv;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_error;

void tr_signals_current(struct bt_cpu *c)
{
	current = c;
}

static void pass_on(const struct sigaction *old, int sig, siginfo_t *info, void *uc)
{
	if (old->sa_flags & SA_SIGINFO) {
		old->sa_sigaction(sig, info, uc);
	} else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
		old->sa_handler(sig);
	} else { /* again, with the default action */
		struct sigaction dfl;

		memset(&dfl, 0, sizeof(dfl));
		dfl.sa_handler = SIG_DFL;
		sigaction(sig, &dfl, NULL);
	}
}

static const struct tr_mark *mark_at(const struct bt_translator *t, const struct bt_block *b, uint32_t at)
{
	const struct tr_mark *found = NULL;

	for (uint32_t k = 0; k < b->nmarks; k++)
		if (t->marks[b->marks + k].host <= at)
			found = &t->marks[b->marks + k];
	return found;
}

static void save_registers(struct bt_cpu *c, const mcontext_t *m)
{
	static const uint8_t from[16] = {
		REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_R15, REG_RBP, REG_RSI, REG_RDI,
		REG_R8, REG_R9, 0xff, 0xff, REG_R12, REG_R13, 0xff, 0xff,
	};

	for (unsigned k = 0; k < 16; k++)
		if (from[k] != 0xff)
			c->gpr[k] = (uint64_t)m->gregs[from[k]];
}

/* True when the fault was the guest's. */
static bool guest_fault(int sig, siginfo_t *info, ucontext_t *uc)
{
	struct bt_cpu *c = current;
	mcontext_t *m = &uc->uc_mcontext;
	const uint8_t *pc = (const uint8_t *)(uintptr_t)m->gregs[REG_RIP];
	const struct tr_mark *mark;
	struct bt_translator *t;
	struct bt_block *b;

	if (!c)
		return false;
	t = c->tr_state;
	if (pc < t->code_start || pc >= t->e.p || (uintptr_t)m->gregs[REG_RSP] != (uintptr_t)c)
		return false;
	if (sig == SIGSEGV && info->si_code != SI_KERNEL)
		return false; /* a real bad address: our bug */
	b = tr_block_at(t, pc);
	mark = mark_at(t, b, (uint32_t)(pc - t->buf));
	if (!mark)
		return false;
	save_registers(c, m);
	if (mark->flags)
		c->scratch[SLOT_FLAGS] = tr_flags_to_slot((uint64_t)m->gregs[REG_EFL]);
	c->rip = b->rip + mark->guest;
	if (sig == SIGSEGV)
		bt_exception_error(c, VECTOR_GP, 0);
	else
		bt_exception(c, (uint8_t)m->gregs[REG_TRAPNO]); /* #DE, #MF, #XM */
	c->exit_kind = TR_EXIT_AGAIN;
	m->gregs[REG_RIP] = (greg_t)(uintptr_t)t->st_unwind;
	return true;
}

static void on_fault(int sig, siginfo_t *info, void *arg)
{
	if (!guest_fault(sig, info, arg))
		pass_on(sig == SIGFPE ? &old_fpe : &old_segv, sig, info, arg);
}

static void init(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = on_fault;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGFPE, &sa, &old_fpe) || sigaction(SIGSEGV, &sa, &old_segv))
		init_error = -errno;
}

int tr_signals_init(void)
{
	pthread_once(&once, init);
	return init_error;
}
