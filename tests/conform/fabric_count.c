/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_count.c - the data path allocates nothing and makes no system call of its own: counted.
 *
 * What      malloc and its kin are this program's own, in front of the C library's.  System calls of this thread are
 *           dispatched to a handler that counts and makes them (prctl(2), PR_SET_SYSCALL_USER_DISPATCH); the fake
 *           libibverbs lets its device's calls pass uncounted.  What the stream backend does is its transport's own.
 * Limits    Not under a sanitizer, which has its own malloc.
 */
#include "tests/conform/fabric_conform.h"

#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
enum { DISPATCH_OFF = 0, DISPATCH_ON = 1, GATE_OPEN = 0, GATE_SHUT = 1 };

static _Thread_local bool counting;
static unsigned long allocations;
static volatile unsigned char gate;
static volatile unsigned long calls;
static volatile long last_call;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_COUNT 1
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);

void *malloc(size_t bytes)
{
	allocations += counting;
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	allocations += counting;
	return __libc_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes)
{
	allocations += counting;
	return __libc_realloc(p, bytes);
}
#else
#define CAN_COUNT 0
#endif

static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	long ret = si->si_syscall;
	register long r10 __asm__("r10") = g[REG_R10];
	register long r8 __asm__("r8") = g[REG_R8];
	register long r9 __asm__("r9") = g[REG_R9];

	(void)sig;
	gate = GATE_OPEN;
	calls++;
	last_call = ret;
	__asm__ volatile("syscall"
			 : "+a"(ret)
			 : "D"(g[REG_RDI]), "S"(g[REG_RSI]), "d"(g[REG_RDX]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	g[REG_RAX] = ret;
	gate = GATE_SHUT;
}

/* False: this kernel cannot.  The return from the handler, which the C library makes, always passes. */
static bool dispatch_start(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} kernel;

	CHECK(!sigaction(SIGSYS, &sa, NULL));
	CHECK(!syscall(SYS_rt_sigaction, SIGSYS, NULL, &kernel, sizeof(kernel.mask)));
	return !prctl(PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_ON, kernel.restorer, 16, &gate);
}

static unsigned long polls, sends;

static void round_trips(struct end *e, unsigned count)
{
	static uint8_t body[64], page[IC_DATA_MAX];
	struct ic_msg msg = { .port = IC_PORT_TEST, .body_len = sizeof(body), .body = body, .data = page };

	for (unsigned i = 0; i < count; i++) {
		for (unsigned k = 0; k < 2; k++) {
			uint32_t want = e[!k].got[k] + 1;
			unsigned long before;
			int err;

			msg.data_len = k ? IC_DATA_MAX : 0;
			do {
				before = calls;
				err = ic_send(e[k].f, (node_id)!k, &msg);
				sends++;
				CHECK(calls == before || !strcmp(backend_name, "tcp"));
				polls += 2;
				ic_progress(e[0].f, 16);
				ic_progress(e[1].f, 16);
			} while (err == -EAGAIN);
			CHECK(!err);
			while (e[!k].got[k] != want) {
				polls += 2;
				ic_progress(e[0].f, 16);
				ic_progress(e[1].f, 16);
			}
		}
	}
}

static void count_one(struct end *e, node_id from, const struct ic_msg *msg)
{
	(void)msg;
	e->got[from]++;
}

#define LOOKS_EVERY 64u	   /* polls: the stream's epoll set is looked at (tcp.c) */
#define EVENTS_EVERY 1024u /* polls: a device's events are (verbs.c), two reads */

void data_path_counts(void)
{
	void *so = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD);
	void (*gate_of_mock)(volatile unsigned char *) =
		so ? (void (*)(volatile unsigned char *))dlsym(so, "mock_verbs_gate") : NULL;
	bool dispatched;
	struct end e[2];

	if (!CAN_COUNT)
		return;
	ends_open(e, 2);
	e[0].raw = e[1].raw = count_one;
	round_trips(e, 200);
	dispatched = dispatch_start();
	if (gate_of_mock)
		gate_of_mock(&gate);
	allocations = calls = polls = sends = 0;
	counting = true;
	gate = dispatched ? GATE_SHUT : GATE_OPEN;
	round_trips(e, 400);
	gate = GATE_OPEN;
	counting = false;
	if (gate_of_mock)
		gate_of_mock(NULL);
	if (dispatched)
		CHECK(!prctl(PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_OFF, 0, 0, 0));
	printf("  %s: %lu sends, %lu polls: %lu allocations, %lu system calls%s\n", backend_name, sends, polls, allocations,
	       calls, dispatched ? "" : " (this kernel cannot count them)");
	CHECK(!allocations);
	if (strcmp(backend_name, "tcp")) /* none in ic_send (above), and in ic_progress only these looks */
		CHECK(calls <= polls / LOOKS_EVERY + 2 * (polls / EVENTS_EVERY) + 6);
	ends_close(e, 2);
}
