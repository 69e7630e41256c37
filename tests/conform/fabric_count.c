/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_count.c - the data path allocates nothing and makes no system call of its own: counted.
 *
 * What      malloc and its kin are this program's own, in front of the C library's.  System calls of this thread are
 *           dispatched to a handler that counts and makes them (prctl(2), PR_SET_SYSCALL_USER_DISPATCH); the fake
 *           libibverbs lets its device's calls pass uncounted.  What a library below does on its own account (ofi, ucx:
 *           found by looking who has called) is told, not limited.  "tcp" is its own transport: one send for a message,
 *           one receive for a look at a link.
 * Limits    Not under a sanitizer, which has its own malloc.
 */
#include "tests/conform/fabric_conform.h"

#include <dlfcn.h>
#include <execinfo.h>
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
static unsigned long allocations, library_allocations;
static volatile unsigned char gate;
static volatile unsigned long calls, library_calls;

/* Below our own code: whose first frame outside the C library is the caller's. */
static bool library_calls_this(void *const *frames, int count)
{
	static const char *const libraries[] = { "libuc", "libfabric", "libefa", "libpsm", "librdmacm", "libibverbs" };

	for (int i = 0; i < count; i++) {
		const char *slash;
		Dl_info info;

		if (!dladdr(frames[i], &info) || !info.dli_fname)
			continue;
		slash = strrchr(info.dli_fname, '/');
		slash = slash ? slash + 1 : info.dli_fname;
		for (size_t k = 0; k < ARRAY_LEN(libraries); k++)
			if (!strncmp(slash, libraries[k], strlen(libraries[k])))
				return true;
		if (strncmp(slash, "libc.", 5) && strncmp(slash, "ld-", 3) && strncmp(slash, "linux-vdso", 10))
			return false;
	}
	return false;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_COUNT 1
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);

/* Not inlined: frame 0 is this one, 1 malloc, 2 who called it. */
static __attribute__((noinline)) void allocation(void)
{
	void *frames[16];
	int count;

	if (!counting)
		return;
	counting = false;
	count = backtrace(frames, ARRAY_LEN(frames));
	*(library_calls_this(frames + 2, count - 2) ? &library_allocations : &allocations) += 1;
	counting = true;
}

void *malloc(size_t bytes)
{
	allocation();
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	allocation();
	return __libc_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes)
{
	allocation();
	return __libc_realloc(p, bytes);
}
#else
#define CAN_COUNT 0
#endif

/* The frames of the handler and of the signal come first, then the C library's that made the call. */
static bool library_made(const void *call)
{
	void *frames[24];
	int count = backtrace(frames, ARRAY_LEN(frames)), first = 0;

	while (first < count && frames[first] != call)
		first++;
	return library_calls_this(frames + first, count - first);
}

/* A function of its own: nothing may be called while the registers are held. */
static __attribute__((noinline)) void make_call(greg_t *g)
{
	long ret = g[REG_RAX];
	register long r10 __asm__("r10") = g[REG_R10];
	register long r8 __asm__("r8") = g[REG_R8];
	register long r9 __asm__("r9") = g[REG_R9];

	__asm__ volatile("syscall"
			 : "+a"(ret)
			 : "D"(g[REG_RDI]), "S"(g[REG_RSI]), "d"(g[REG_RDX]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	g[REG_RAX] = ret;
}

static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool was = counting;

	(void)sig;
	gate = GATE_OPEN;
	counting = false;
	if (library_made(si->si_call_addr))
		library_calls++;
	else
		calls++;
	counting = was;
	g[REG_RAX] = si->si_syscall;
	make_call(g);
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
				CHECK(calls - before <= !strcmp(backend_name, "tcp"));
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
	bool dispatched, tcp = !strcmp(backend_name, "tcp");
	void *frames[4];
	struct end e[2];

	if (!CAN_COUNT)
		return;
	ends_open(e, 2);
	e[0].raw = e[1].raw = count_one;
	round_trips(e, 200);
	CHECK(backtrace(frames, ARRAY_LEN(frames)) > 0); /* loads what it needs */
	dispatched = dispatch_start();
	if (gate_of_mock)
		gate_of_mock(&gate);
	allocations = library_allocations = calls = library_calls = polls = sends = 0;
	counting = true;
	gate = dispatched ? GATE_SHUT : GATE_OPEN;
	round_trips(e, 400);
	gate = GATE_OPEN;
	counting = false;
	if (gate_of_mock)
		gate_of_mock(NULL);
	if (dispatched)
		CHECK(!prctl(PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_OFF, 0, 0, 0));
	printf("  %s: %lu sends, %lu polls: %lu allocations, %lu system calls%s; of the library %lu and %lu\n", backend_name,
	       sends, polls, allocations, calls, dispatched ? "" : " (this kernel cannot count them)", library_allocations,
	       library_calls);
	CHECK(!allocations);
	/* None in ic_send (above; tcp: one), and in ic_progress only these looks (tcp: and one receive). */
	CHECK(calls <= (tcp ? sends + polls : 0) + polls / LOOKS_EVERY + 2 * (polls / EVENTS_EVERY) + 6);
	ends_close(e, 2);
}
