/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/tiny.c - runs a guest of a few instructions over pages that are missing, to see what this KVM makes of it.
 *
 * What      One vCPU in 64-bit mode.  Its page tables, its code and its data are in the memory file and none is mapped
 *           in the view: each comes by a fault.  It reads a page, writes it (an upgrade), reads it again after it was
 *           taken away and changed, writes another, and says what it read through ports.  It has no IDT: any exception,
 *           like a page fault that KVM makes up because it could not read a page table, is a triple fault.
 * Owns      Everything it opens, until it returns.
 * Threads   The vCPU's thread runs the guest and resolves inline faults; the caller's resolves dispatched ones and
 *           watches the clock.  `lock` guards the pages' rights and the verdict.
 * I/O       KVM, userfaultfd, perf.
 */
#include "hv/kvm/tiny.h"

#include "base/clock.h"
#include "dsm/uffd.h"
#include "hv/kvm/bare.h"
#include "hv/kvm/faults.h"

#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define TINY_DEADLINE_NS (10 * NS_PER_S)
#define KICK_MS 20
#define FAULTS_MAX 100u /* a dozen are needed */
/* Blocked but while the guest runs.  Ignored by default, so harmless should it ever arrive late. */
#define KICK_SIGNAL SIGURG

enum { PAGE_PML4 = 1, PAGE_PDPT, PAGE_PD, PAGE_PT, PAGE_CODE, PAGE_A, PAGE_B, PAGES };
enum { PORT_FIRST = 0x10, PORT_WRITTEN, PORT_CHANGED };
enum { BYTE_FIRST = 0x41, BYTE_CHANGED = 0x61, BYTE_B = 0x20 };

#define LE32(page) 0, (page) << 4, 0, 0 /* address of a page as an instruction's displacement */
static const uint8_t code[] = {
	0x8a, 0x04,         0x25, LE32(PAGE_A), /* mov al, [A] */
	0xe6, PORT_FIRST,                       /* out PORT_FIRST, al */
	0xfe, 0x04,         0x25, LE32(PAGE_A), /* inc byte [A] */
	0x8a, 0x04,         0x25, LE32(PAGE_A), /* mov al, [A] */
	0xe6, PORT_WRITTEN, /* out PORT_WRITTEN, al; here A is taken away and changed */
	0x8a, 0x04,         0x25, LE32(PAGE_A), /* mov al, [A] */
	0xe6, PORT_CHANGED,                     /* out PORT_CHANGED, al */
	0xfe, 0x04,         0x25, LE32(PAGE_B), /* inc byte [B] */
	0xf4,                                   /* hlt */
};

struct tiny {
	struct kvm_tiny *out;
	enum dsm_faults faults;
	int kvm, memfd, done; /* done: eventfd */
	struct kvm_bare vm;
	uint8_t *alias;
	struct dsm_uffd uffd;
	struct kvm_faults *address;
	pthread_mutex_t lock;
	enum dsm_right right[PAGES];
	_Atomic bool give_up;
};

/* The first reason counts. */
static int refuse(struct tiny *t, const char *why, int err, const char *fix)
{
	struct kvm_verdict *v = &t->out->verdict;

	pthread_mutex_lock(&t->lock);
	if (!v->why[0]) {
		snprintf(v->why, sizeof(v->why), "%s%s%s", why, err ? ": " : "",
			 err ? strerror(err) : "");
		snprintf(v->fix, sizeof(v->fix), "%s", fix);
	}
	pthread_mutex_unlock(&t->lock);
	return err ? -err : -EPROTO;
}

/* --- memory ----------------------------------------------------------------------------------------- */

/* Accessed and dirty bits are set, so a walk has nothing to write. */
static void memory_fill(struct tiny *t)
{
	uint64_t *table;

	for (unsigned level = PAGE_PML4; level < PAGE_PT; level++) {
		table = (uint64_t *)(t->alias + level * PAGE_SIZE);
		table[0] = (level + 1) * PAGE_SIZE | 0x63;
	}
	table = (uint64_t *)(t->alias + PAGE_PT * PAGE_SIZE);
	for (unsigned page = 0; page < PAGES; page++)
		table[page] = page * PAGE_SIZE | 0x63;
	memcpy(t->alias + PAGE_CODE * PAGE_SIZE, code, sizeof(code));
	t->alias[PAGE_A * PAGE_SIZE] = BYTE_FIRST;
	t->alias[PAGE_B * PAGE_SIZE] = BYTE_B;
}

static int memory_open(struct tiny *t)
{
	struct dsm_uffd_config cfg = { .bytes = PAGES * PAGE_SIZE, .faults = t->faults };
	struct dsm_uffd_why why;
	void *p;
	int err;

	t->memfd = memfd_create("unum-tiny", MFD_CLOEXEC);
	if (t->memfd < 0 || ftruncate(t->memfd, PAGES * PAGE_SIZE))
		return refuse(t, "memory for a tiny guest", errno, "");
	p = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->memfd, 0);
	if (p == MAP_FAILED)
		return refuse(t, "memory for a tiny guest", errno, "");
	t->alias = p;
	memory_fill(t);
	cfg.memfd = t->memfd;
	cfg.alias = t->alias;
	err = dsm_uffd_open(&t->uffd, &cfg, &why);
	if (err || (t->faults == DSM_FAULTS_DISPATCH && !t->uffd.kernel_faults))
		return refuse(t, why.why, 0, why.fix);
	return 0;
}

static int fault_resolve(struct tiny *t, uint64_t offset, bool write)
{
	unsigned page = (unsigned)(offset >> PAGE_SHIFT);

	if (offset >= PAGES * PAGE_SIZE)
		return refuse(t, "a fault on a page that the guest does not have", 0, "");
	if (t->out->faults++ >= FAULTS_MAX)
		return refuse(t, "the same pages are missing again and again", 0, "");
	pthread_mutex_lock(&t->lock);
	if (write && page >= PAGE_PML4 && page <= PAGE_PT)
		t->out->walks_write = true;
	if (write && t->right[page] == DSM_READ)
		dsm_uffd_protect(&t->uffd, offset, false);
	else
		dsm_uffd_map(&t->uffd, offset, write || t->right[page] == DSM_WRITE);
	if (write)
		t->right[page] = DSM_WRITE;
	else if (t->right[page] == DSM_NONE)
		t->right[page] = DSM_READ;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static void take_away(struct tiny *t)
{
	pthread_mutex_lock(&t->lock);
	dsm_uffd_zap(&t->uffd, PAGE_A * PAGE_SIZE);
	t->right[PAGE_A] = DSM_NONE;
	t->alias[PAGE_A * PAGE_SIZE] = BYTE_CHANGED;
	pthread_mutex_unlock(&t->lock);
}

/* --- the vCPU --------------------------------------------------------------------------------------- */

/* The kick signal gets through while the guest runs, and only then: KVM_RUN ends with EINTR, no handler is called. */
static int signals_set(struct tiny *t)
{
	union {
		struct kvm_signal_mask mask;
		uint8_t room[sizeof(struct kvm_signal_mask) + 8];
	} u = { .mask.len = 8 };
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	sigdelset(&set, KICK_SIGNAL);
	memcpy(u.mask.sigset, &set, 8);
	return ioctl(t->vm.vcpu, KVM_SET_SIGNAL_MASK, &u)
		       ? refuse(t, "signals of a tiny guest", errno, "")
		       : 0;
}

static int vm_open(struct tiny *t)
{
	const struct kvm_bare_config cfg = { .kvm = t->kvm,
					     .memory = t->uffd.view,
					     .bytes = PAGES * PAGE_SIZE,
					     .rip = PAGE_CODE * PAGE_SIZE,
					     .cr3 = PAGE_PML4 * PAGE_SIZE };
	const char *what;
	int err = kvm_bare_open(&cfg, &t->vm, &what);

	return err ? refuse(t, what, -err, "") : 0;
}

/* --- the run ---------------------------------------------------------------------------------------- */

/* 1: go on. */
static int port_check(struct tiny *t)
{
	static const uint8_t want[] = { BYTE_FIRST, BYTE_FIRST + 1, BYTE_CHANGED };
	unsigned which = t->vm.run->io.port - PORT_FIRST;
	char text[96];
	uint8_t got = *((uint8_t *)t->vm.run + t->vm.run->io.data_offset);

	if (which >= ARRAY_LEN(want) || got != want[which]) {
		snprintf(text, sizeof(text), "the tiny guest read %#x from port %#x's page", got,
			 t->vm.run->io.port);
		return refuse(t, text, 0, "");
	}
	if (which == PORT_WRITTEN - PORT_FIRST)
		take_away(t);
	return 1;
}

static int end_check(struct tiny *t)
{
	if (t->alias[PAGE_A * PAGE_SIZE] != BYTE_CHANGED ||
	    t->alias[PAGE_B * PAGE_SIZE] != BYTE_B + 1)
		return refuse(t, "what the tiny guest wrote is not in its memory", 0, "");
	return 0;
}

/* KVM_RUN said EFAULT.  1: go on. */
static int efault(struct tiny *t)
{
	const char *why, *fix;
	gpa_t gpa;
	bool write;
	int err;

	if (t->faults == DSM_FAULTS_DISPATCH)
		return refuse(t, "KVM's faults are not parked", 0, "");
	if (!kvm_faults_take(t->address, &gpa, &write)) {
		err = fault_resolve(t, gpa, write);
		return err ? err : 1;
	}
	if (t->out->address != KVM_ADDRESS_EXIT)
		return refuse(t, "neither the exit nor the tracepoint names the missing page", 0,
			      "");
	/* The exit does not say; the tracepoint will, when this is tried again. */
	kvm_faults_close(t->address);
	t->address = NULL;
	t->out->address = KVM_ADDRESS_PERF;
	err = kvm_faults_open(KVM_ADDRESS_PERF, t->vm.run, &t->address);
	if (!err)
		return 1;
	kvm_faults_explain(err, &why, &fix);
	return refuse(t, why, 0, fix);
}

/* 0: the guest is through; 1: go on. */
static int run_once(struct tiny *t)
{
	char text[64];

	if (t->address)
		kvm_faults_clear(t->address);
	if (ioctl(t->vm.vcpu, KVM_RUN, 0)) {
		if (errno == EFAULT && !atomic_load(&t->give_up))
			return efault(t);
		if ((errno == EINTR || errno == EAGAIN) && !atomic_load(&t->give_up))
			return 1;
		return refuse(t, atomic_load(&t->give_up) ? "no end within 10 seconds" : "KVM_RUN",
			      errno, "");
	}
	switch (t->vm.run->exit_reason) {
	case KVM_EXIT_IO:
		return port_check(t);
	case KVM_EXIT_HLT:
		return end_check(t);
	case KVM_EXIT_SHUTDOWN:
		return refuse(t,
			      "the guest saw a page fault of KVM's making: a page table was "
			      "missing when KVM read it "
			      "(shadow paging)",
			      0, "");
	default:
		snprintf(text, sizeof(text), "unexpected exit %u of KVM_RUN",
			 t->vm.run->exit_reason);
		return refuse(t, text, 0, "");
	}
}

static void *vcpu_thread(void *arg)
{
	struct tiny *t = arg;
	uint64_t one = 1;
	int err;

	err = signals_set(t);
	if (!err && t->faults == DSM_FAULTS_INLINE) {
		t->out->address = KVM_ADDRESS_EXIT;
		err = kvm_faults_open(KVM_ADDRESS_EXIT, t->vm.run, &t->address);
	}
	if (!err)
		do
			err = run_once(t);
		while (err == 1);
	t->out->verdict.ok = !err;
	kvm_faults_close(t->address);
	if (write(t->done, &one, sizeof(one)) < 0)
		t->out->verdict.ok = false;
	return NULL;
}

/* Until the vCPU's thread is through; past the deadline it is made to be. */
static void watch(struct tiny *t, pthread_t vcpu)
{
	uint64_t deadline = clock_now_ns() + TINY_DEADLINE_NS;
	struct pollfd fds[2] = { { .fd = t->done, .events = POLLIN },
				 { .fd = t->uffd.fd, .events = POLLIN } };
	unsigned n = t->faults == DSM_FAULTS_DISPATCH ? 2 : 1;
	struct dsm_uffd_event ev;

	while (poll(fds, n, KICK_MS) < 1 || !(fds[0].revents & POLLIN)) {
		while (n == 2 && dsm_uffd_events(&t->uffd, &ev, 1))
			if (fault_resolve(t, ev.offset, ev.write))
				deadline = 0;
		if (clock_now_ns() < deadline)
			continue;
		if (!atomic_exchange(&t->give_up, true))
			dsm_uffd_shut(&t->uffd);
		n = 1;
		t->vm.run->immediate_exit = 1;
		pthread_kill(vcpu, KICK_SIGNAL);
	}
	pthread_join(vcpu, NULL);
}

static void tiny_close(struct tiny *t)
{
	kvm_bare_close(&t->vm);
	dsm_uffd_close(&t->uffd);
	if (t->alias)
		munmap(t->alias, PAGES * PAGE_SIZE);
	if (t->memfd >= 0)
		close(t->memfd);
	if (t->done >= 0)
		close(t->done);
	pthread_mutex_destroy(&t->lock);
}

void kvm_tiny_run(int kvm, enum dsm_faults faults, struct kvm_tiny *out)
{
	struct tiny t = {
		.out = out, .faults = faults, .kvm = kvm, .memfd = -1, .vm = KVM_BARE_NONE
	};
	pthread_t vcpu;
	int err;

	*out = (struct kvm_tiny){ 0 };
	t.uffd.fd = -1;
	t.done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&t.lock, NULL);
	err = t.done < 0 ? refuse(&t, "eventfd", errno, "") : memory_open(&t);
	if (!err)
		err = vm_open(&t);
	if (!err) {
		err = pthread_create(&vcpu, NULL, vcpu_thread, &t);
		if (err)
			refuse(&t, "a thread", err, "");
		else
			watch(&t, vcpu);
	}
	if (!out->verdict.ok)
		out->address = KVM_ADDRESS_NONE;
	tiny_close(&t);
}
