/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/native.c - see native.h.
 *
 * Owns      SIGSEGV, SIGFPE, SIGILL, SIGBUS handlers that chain to those of before, and an alternate stack.
 * Threads   One; the state lives in globals because the code under test owns every register.
 */
#include "native.h"

#include "base/assert.h"

#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

struct native_state native_now;
uint64_t native_rsp, native_target, native_flag_stack[8];
static bool running;
static int vector;
static uint64_t fault_rip;
static struct sigaction before[32];

void native_enter(void);
extern uint8_t native_exit[];

__asm__(".text\n"
	".globl native_enter\n"
	"native_enter:\n"
	" push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	" mov %rsp, native_rsp(%rip)\n"
	" lea native_now(%rip), %rax\n"
	" fxrstor64 144(%rax)\n"
	" push 128(%rax)\n"
	" popfq\n"
	" mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx\n"
	" mov 32(%rax), %rsp; mov 40(%rax), %rbp; mov 48(%rax), %rsi; mov 56(%rax), %rdi\n"
	" mov 64(%rax), %r8; mov 72(%rax), %r9; mov 80(%rax), %r10; mov 88(%rax), %r11\n"
	" mov 96(%rax), %r12; mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
	" mov 0(%rax), %rax\n"
	" jmp *native_target(%rip)\n"
	".globl native_exit\n"
	"native_exit:\n"
	" mov %rax, native_now(%rip)\n"
	" lea native_now(%rip), %rax\n"
	" mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax)\n"
	" mov %rsp, 32(%rax); mov %rbp, 40(%rax); mov %rsi, 48(%rax); mov %rdi, 56(%rax)\n"
	" mov %r8, 64(%rax); mov %r9, 72(%rax); mov %r10, 80(%rax); mov %r11, 88(%rax)\n"
	" mov %r12, 96(%rax); mov %r13, 104(%rax); mov %r14, 112(%rax); mov %r15, 120(%rax)\n"
	" lea native_flag_stack+64(%rip), %rsp\n"
	" pushfq\n"
	" pop 128(%rax)\n"
	" fxsave64 144(%rax)\n"
	" mov native_rsp(%rip), %rsp\n"
	" push $2; popfq\n"
	" fninit\n"
	" pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	" ret\n");

static void on_signal(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *uc = arg;
	mcontext_t *m = &uc->uc_mcontext;

	if (!running) {
		if (before[sig].sa_flags & SA_SIGINFO)
			before[sig].sa_sigaction(sig, info, arg);
		else
			signal(sig, SIG_DFL);
		return;
	}
	fault_rip = (uint64_t)m->gregs[REG_RIP];
	switch (sig) {
	case SIGILL: vector = 6; break;
	case SIGSEGV: vector = info->si_code == SI_KERNEL ? 13 : 14; break;
	case SIGFPE: vector = m->gregs[REG_TRAPNO] & 31; break;
	default: vector = 17; break;
	}
	m->gregs[REG_RIP] = (greg_t)(uintptr_t)native_exit;
}

void native_init(void)
{
	static const int sigs[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS};
	static uint8_t alt[65536];
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof(alt)};
	struct sigaction sa;
	int r = sigaltstack(&ss, NULL);

	ASSERT(r == 0);
	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = on_signal;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	for (unsigned k = 0; k < ARRAY_LEN(sigs); k++)
		sigaction(sigs[k], &sa, &before[sigs[k]]);
}

void *native_exit_address(void)
{
	return native_exit;
}

int native_run(struct native_state *s, void *code, uint64_t *rip)
{
	static const uint32_t mxcsr = 0x1f80;

	native_now = *s;
	native_target = (uint64_t)(uintptr_t)code;
	syscall(SYS_arch_prctl, ARCH_SET_GS, s->gs_base);
	vector = -1;
	running = true;
	native_enter();
	running = false;
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	*s = native_now;
	*rip = fault_rip;
	return vector;
}
