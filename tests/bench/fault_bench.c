/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/fault_bench.c - what a page fault of the guest view costs before any network: both paths, in one run.
 *
 * What      usage: fault_bench [PAGES [copy]]     copy: readable pages as on Linux before 6.4
 *           A toucher reads PAGES absent pages and then writes each; a driver takes the right back in two steps.
 *           Toucher: a native thread, or a guest of a few instructions under /dev/kvm.
 *           Path: inline; dispatch, with a reader that sleeps in poll; dispatch-poll, with one that never sleeps.
 * Cases     absent   read of a page that is not mapped
 *           upgrade  write to one that is write-protected
 *           protect, zap  the two kinds of revocation, while the toucher runs on its CPU
 * Parts     inline: exit (touch to KVM_RUN's return, or to the signal handler), address (which page?), resolve (the
 *           mapping call), reentry.  dispatch: wake (touch to the reader's having the event), serve (until the toucher
 *           goes on).  A KVM that emulates the access tells of an absent page by an MMIO exit, which names it.
 * Output    A line of JSON per toucher, path and case: p50 and p99 in us, p50 of each part.
 * Threads   The toucher on one CPU, the driver on another where there are two.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "dsm/uffd.h"
#include "hv/kvm/bare.h"
#include "hv/kvm/faults.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGES_DEFAULT 500u
#define PAGES_MAX 5000u
#define FIRST \
	16u /* page of the first that is touched; before it: the guest's tables, its code, its flag */
enum { PAGE_PML4 = 1, PAGE_PDPT, PAGE_PD, PAGE_CODE, PAGE_FLAG };
enum { PORT_READ = 0x10, PORT_WRITTEN };
enum bench_case { ABSENT, UPGRADE, PROTECT, ZAP, CASES };
enum path { INLINE, DISPATCH, DISPATCH_POLL, PATHS };
enum part { EXIT, ADDRESS, RESOLVE, REENTRY, TOTAL, PARTS };

struct bench {
	enum path path;
	bool kvm, copy;
	unsigned pages;
	double cycles_per_us;
	int memfd;
	uint8_t *alias;
	struct dsm_uffd u;
	struct kvm_bare vm;
	struct kvm_faults *address;
	int64_t guest_offset; /* guest TSC - host TSC */
	/* The toucher writes `step`, the driver answers with `flag`: both count up together. */
	_Atomic unsigned step;
	_Atomic bool ended;
	/* Of the access under way.  Written by the toucher's thread; in dispatch mode by the driver, while that is parked. */
	uint64_t stamp[3];
	int64_t *sample[CASES][PARTS]; /* cycles */
	unsigned count[CASES];
};

static struct bench *bench; /* of the signal handler */

/* --- samples ---------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double percentile(const struct bench *b, enum bench_case c, enum part part, unsigned percent)
{
	int64_t *s = b->sample[c][part];

	qsort(s, b->count[c], sizeof(s[0]), by_value);
	return b->count[c] ? (double)s[(size_t)b->count[c] * percent / 100] / b->cycles_per_us : 0;
}

/* From the clock of the access itself, start and end, and what was stamped on the way. */
static void sample_access(struct bench *b, enum bench_case c, uint64_t start, uint64_t end)
{
	unsigned i = b->count[c]++;

	b->sample[c][EXIT][i] = (int64_t)(b->stamp[0] - start);
	b->sample[c][ADDRESS][i] = (int64_t)(b->stamp[1] - b->stamp[0]);
	b->sample[c][RESOLVE][i] = (int64_t)(b->stamp[2] - b->stamp[1]);
	b->sample[c][REENTRY][i] = (int64_t)(end - b->stamp[2]);
	b->sample[c][TOTAL][i] = (int64_t)(end - start);
}

static void report(const struct bench *b)
{
	static const char *const cases[] = { "absent", "upgrade", "protect", "zap" };
	static const char *const paths[] = { "inline", "dispatch", "dispatch-poll" };

	for (unsigned c = 0; c < CASES; c++) {
		printf("{\"bench\":\"fault\",\"toucher\":\"%s\",\"path\":\"%s\",\"map\":\"%s\","
		       "\"case\":\"%s\","
		       "\"samples\":%u,\"p50_us\":%.2f,\"p99_us\":%.2f",
		       b->kvm ? "kvm" : "native", paths[b->path], b->copy ? "copy" : "continue",
		       cases[c], b->count[c], percentile(b, c, TOTAL, 50),
		       percentile(b, c, TOTAL, 99));
		if (c < PROTECT && b->path == INLINE)
			printf(",\"exit_us\":%.2f,\"address_us\":%.2f,\"resolve_us\":%.2f,"
			       "\"reentry_us\":%.2f",
			       percentile(b, c, EXIT, 50), percentile(b, c, ADDRESS, 50),
			       percentile(b, c, RESOLVE, 50), percentile(b, c, REENTRY, 50));
		else if (c < PROTECT)
			printf(",\"wake_us\":%.2f,\"serve_us\":%.2f", percentile(b, c, EXIT, 50),
			       percentile(b, c, REENTRY, 50));
		printf("}\n");
	}
	fflush(stdout);
}

/* --- memory ----------------------------------------------------------------------------------------- */

static void memory_open(struct bench *b)
{
	size_t bytes = (FIRST + b->pages) * (size_t)PAGE_SIZE;
	struct dsm_uffd_config cfg = { .alias = NULL,
				       .bytes = bytes,
				       .faults = b->path == INLINE ? DSM_FAULTS_INLINE
								   : DSM_FAULTS_DISPATCH,
				       .copy = b->copy };
	struct dsm_uffd_why why;
	void *p;

	cfg.memfd = b->memfd = memfd_create("fault-bench", MFD_CLOEXEC);
	ASSERT(b->memfd >= 0 && !ftruncate(b->memfd, (off_t)bytes));
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->memfd, 0);
	ASSERT(p != MAP_FAILED);
	cfg.alias = b->alias = p;
	memset(b->alias, 0, bytes); /* frames are there: that is the transport's part */
	if (dsm_uffd_open(&b->u, &cfg, &why)) {
		fprintf(stderr, "fault_bench: %s; %s\n", why.why, why.fix);
		exit(1);
	}
	b->copy = b->u.copy;
	for (unsigned i = 0; i < FIRST; i++)
		dsm_uffd_map(&b->u, i * PAGE_SIZE, true);
}

static void memory_close(struct bench *b)
{
	dsm_uffd_close(&b->u);
	munmap(b->alias, (FIRST + b->pages) * (size_t)PAGE_SIZE);
	close(b->memfd);
}

/* What both paths do once they know the page. */
static void resolve(struct bench *b, uint64_t offset, bool write)
{
	if (write)
		dsm_uffd_protect(&b->u, offset, false);
	else
		dsm_uffd_map(&b->u, offset, false);
}

static void go_on(struct bench *b, unsigned step)
{
	__atomic_store_n((uint64_t *)(b->alias + PAGE_FLAG * PAGE_SIZE), step, __ATOMIC_RELEASE);
}

/* --- toucher: a native thread ------------------------------------------------------------------------- */

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	uint64_t now = __rdtsc();
	uint64_t offset = (uintptr_t)si->si_addr - (uintptr_t)bench->u.view;

	(void)sig;
	bench->stamp[0] = bench->stamp[1] = now;
	resolve(bench, offset & PAGE_MASK, ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_ERR] & 2);
	bench->stamp[2] = __rdtsc();
}

static void touch_native(struct bench *b)
{
	volatile uint64_t *flag = (uint64_t *)(b->u.view + PAGE_FLAG * PAGE_SIZE);

	for (unsigned i = 0; i < b->pages; i++) {
		volatile uint8_t *at = b->u.view + (FIRST + i) * (size_t)PAGE_SIZE;
		uint64_t start = __rdtsc();

		(void)*at;
		sample_access(b, ABSENT, start, __rdtsc());
		start = __rdtsc();
		*at = 1;
		sample_access(b, UPGRADE, start, __rdtsc());
		atomic_store(&b->step, i + 1);
		while (*flag <= i)
			__builtin_ia32_pause();
	}
}

/* --- toucher: a guest --------------------------------------------------------------------------------- */

/* rsi: page, r8: pages left, r11: steps done, rdi: the flag.  r9 and r10: when the last access began and ended. */
__asm__(".pushsection .rodata\n"
	".macro stamp reg\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	mov %rax, \\reg\n"
	".endm\n"
	"guest_code:\n"
	"1:	stamp %r9\n"
	"	mov (%rsi), %bl\n"
	"	stamp %r10\n"
	"	out %al, $0x10\n"
	"	stamp %r9\n"
	"	movb $1, (%rsi)\n"
	"	stamp %r10\n"
	"	out %al, $0x11\n"
	"	inc %r11\n"
	"2:	pause\n"
	"	cmp %r11, (%rdi)\n"
	"	jb 2b\n"
	"	add $4096, %rsi\n"
	"	dec %r8\n"
	"	jnz 1b\n"
	"	hlt\n"
	"guest_code_end:\n"
	".popsection\n");
extern const uint8_t guest_code[], guest_code_end[];

/* 2 MiB pages, accessed and dirty: nothing of the tables is ever missing. */
static void guest_fill(struct bench *b)
{
	uint64_t *pd = (uint64_t *)(b->alias + PAGE_PD * PAGE_SIZE);

	*(uint64_t *)(b->alias + PAGE_PML4 * PAGE_SIZE) = PAGE_PDPT * PAGE_SIZE | 0x63;
	*(uint64_t *)(b->alias + PAGE_PDPT * PAGE_SIZE) = PAGE_PD * PAGE_SIZE | 0x63;
	for (uint64_t i = 0; i <= (FIRST + PAGES_MAX) / 512; i++)
		pd[i] = i << 21 | 0xe3;
	memcpy(b->alias + PAGE_CODE * PAGE_SIZE, guest_code, (size_t)(guest_code_end - guest_code));
}

/* The narrowest of many looks from both sides. */
static int64_t offset_measure(const struct bench *b)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry tsc;
	} m = { .head.nmsrs = 1, .tsc.index = 0x10 };
	uint64_t narrow = UINT64_MAX;
	int64_t offset = 0;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t before = __rdtsc(), after;

		if (ioctl(b->vm.vcpu, KVM_GET_MSRS, &m) != 1)
			return 0;
		after = __rdtsc();
		if (after - before < narrow) {
			narrow = after - before;
			offset = (int64_t)(m.tsc.data - before - narrow / 2);
		}
	}
	return offset;
}

static bool guest_open(struct bench *b, int kvm)
{
	const struct kvm_bare_config cfg = { .kvm = kvm,
					     .memory = b->u.view,
					     .bytes = (FIRST + b->pages) * (size_t)PAGE_SIZE,
					     .rip = PAGE_CODE * PAGE_SIZE,
					     .cr3 = PAGE_PML4 * PAGE_SIZE };
	struct kvm_regs regs;
	const char *what;

	guest_fill(b);
	if (kvm_bare_open(&cfg, &b->vm, &what) || ioctl(b->vm.vcpu, KVM_GET_REGS, &regs)) {
		fprintf(stderr, "fault_bench: %s failed\n", what);
		return false;
	}
	regs.rsi = FIRST * PAGE_SIZE;
	regs.r8 = b->pages;
	regs.rdi = PAGE_FLAG * PAGE_SIZE;
	ASSERT(!ioctl(b->vm.vcpu, KVM_SET_REGS, &regs));
	b->guest_offset = offset_measure(b);
	return true;
}

static void guest_fault(struct bench *b)
{
	gpa_t gpa;
	bool write;

	b->stamp[0] = __rdtsc();
	if (kvm_faults_take(b->address, &gpa, &write)) {
		fprintf(stderr, "fault_bench: nothing names the page\n");
		exit(1);
	}
	b->stamp[1] = __rdtsc();
	resolve(b, gpa, write);
	b->stamp[2] = __rdtsc();
}

/* KVM's own emulation met the page: it is told what it wanted to know, and goes on with that. */
static void guest_mmio(struct bench *b)
{
	struct kvm_run *r = b->vm.run;

	b->stamp[0] = b->stamp[1] = __rdtsc();
	ASSERT(r->mmio.phys_addr < (FIRST + b->pages) * (uint64_t)PAGE_SIZE);
	resolve(b, r->mmio.phys_addr & PAGE_MASK, r->mmio.is_write);
	if (r->mmio.is_write)
		memcpy(b->alias + r->mmio.phys_addr, r->mmio.data, r->mmio.len);
	else
		memcpy(r->mmio.data, b->alias + r->mmio.phys_addr, r->mmio.len);
	b->stamp[2] = __rdtsc();
}

static void touch_guest(struct bench *b)
{
	unsigned step = 0;

	if (b->path == INLINE && kvm_faults_open(KVM_ADDRESS_PERF, b->vm.run, &b->address)) {
		fprintf(stderr, "fault_bench: no perf events\n");
		return;
	}
	for (;;) {
		struct kvm_regs regs;

		if (b->address)
			kvm_faults_clear(b->address);
		if (ioctl(b->vm.vcpu, KVM_RUN, 0)) {
			if (errno == EFAULT && b->address)
				guest_fault(b);
			else if (errno != EINTR)
				break;
			continue;
		}
		if (b->vm.run->exit_reason == KVM_EXIT_MMIO && b->path == INLINE) {
			guest_mmio(b);
			continue;
		}
		if (b->vm.run->exit_reason != KVM_EXIT_IO)
			break;
		ASSERT(!ioctl(b->vm.vcpu, KVM_GET_REGS, &regs));
		sample_access(b, b->vm.run->io.port == PORT_READ ? ABSENT : UPGRADE,
			      regs.r9 - (uint64_t)b->guest_offset,
			      regs.r10 - (uint64_t)b->guest_offset);
		if (b->vm.run->io.port == PORT_WRITTEN)
			atomic_store(&b->step, ++step);
	}
	if (b->vm.run->exit_reason != KVM_EXIT_HLT)
		fprintf(stderr, "fault_bench: the guest ended with exit %u, errno %d\n",
			b->vm.run->exit_reason, errno);
	kvm_faults_close(b->address);
	b->address = NULL;
}

/* --- driver ------------------------------------------------------------------------------------------- */

static void pin(unsigned which)
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		return;
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && !which--)
			CPU_SET(i, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void *toucher(void *arg)
{
	struct bench *b = arg;

	pin(0);
	if (b->kvm)
		touch_guest(b);
	else
		touch_native(b);
	atomic_store(&b->ended, true);
	return NULL;
}

/* The toucher is in its loop, or on the way there; its CPU runs this memory. */
static void take_back(struct bench *b, unsigned page)
{
	uint64_t offset = (FIRST + page) * (uint64_t)PAGE_SIZE, start, mid;

	usleep(50);
	start = __rdtsc();
	dsm_uffd_protect(&b->u, offset, true);
	mid = __rdtsc();
	dsm_uffd_zap(&b->u, offset);
	b->sample[ZAP][TOTAL][b->count[ZAP]++] = (int64_t)(__rdtsc() - mid);
	b->sample[PROTECT][TOTAL][b->count[PROTECT]++] = (int64_t)(mid - start);
}

static void drive(struct bench *b)
{
	struct pollfd p = { .fd = b->u.fd, .events = POLLIN };
	struct dsm_uffd_event ev;
	unsigned done = 0;

	while (!atomic_load(&b->ended)) {
		if (atomic_load(&b->step) > done) {
			take_back(b, done++);
			go_on(b, done);
		}
		if (b->path == INLINE) {
			sched_yield();
			continue;
		}
		if (!dsm_uffd_events(&b->u, &ev, 1)) {
			if (b->path == DISPATCH)
				poll(&p, 1, 1);
			continue;
		}
		b->stamp[0] = b->stamp[1] = b->stamp[2] = __rdtsc();
		resolve(b, ev.offset, ev.write);
	}
}

static bool one_cpu(void)
{
	cpu_set_t all;

	return !sched_getaffinity(0, sizeof(all), &all) && CPU_COUNT(&all) == 1;
}

static void run(enum path path, int kvm, unsigned pages, bool copy, double cycles_per_us)
{
	struct bench b = { .path = path,
			   .kvm = kvm >= 0,
			   .copy = copy,
			   .pages = pages,
			   .cycles_per_us = cycles_per_us,
			   .vm = KVM_BARE_NONE };
	pthread_t tid;

	for (unsigned c = 0; c < CASES; c++)
		for (unsigned part = 0; part < PARTS; part++) {
			b.sample[c][part] = calloc(pages + 1, sizeof(int64_t));
			ASSERT(b.sample[c][part]);
		}
	bench = &b;
	memory_open(&b);
	if (kvm < 0 || guest_open(&b, kvm)) {
		ASSERT(!pthread_create(&tid, NULL, toucher, &b));
		pin(1);
		drive(&b);
		pthread_join(tid, NULL);
		report(&b);
	}
	kvm_bare_close(&b.vm);
	memory_close(&b);
	for (unsigned c = 0; c < CASES; c++)
		for (unsigned part = 0; part < PARTS; part++)
			free(b.sample[c][part]);
}

static double cycles_measure(void)
{
	uint64_t ns = clock_now_ns(), cycles = __rdtsc();

	usleep(50000);
	return (double)(__rdtsc() - cycles) * 1000.0 / (double)(clock_now_ns() - ns);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	unsigned pages = argc > 1 ? (unsigned)atoi(argv[1]) : PAGES_DEFAULT;
	bool copy = argc > 2 && !strcmp(argv[2], "copy");
	double cycles_per_us = cycles_measure();
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	unsigned paths;

	if (!pages || pages > PAGES_MAX)
		return 2;
	sigaction(SIGBUS, &sa, NULL);
	paths = one_cpu() ? DISPATCH_POLL
			  : PATHS; /* a reader that never sleeps needs a CPU of its own */
	for (unsigned path = 0; path < paths; path++)
		run(path, -1, pages, copy, cycles_per_us);
	for (unsigned path = 0; path < paths && kvm >= 0; path++)
		run(path, kvm, pages, copy, cycles_per_us);
	return 0;
}
