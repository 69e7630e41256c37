/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/run.c - KVM_RUN, and what it came back for.
 *
 * What      One exit of KVM becomes one or more of the monitor's: string input and output element by element, MMIO of odd
 *           lengths in parts.  The answer goes to the shared page; KVM completes the instruction at the next KVM_RUN,
 *           or at once (kvm_run_finish) where the monitor wants the vCPU between instructions.
 * Kick      immediate_exit is set first, then a signal if the thread is inside KVM_RUN.  Either KVM sees the byte before it
 *           enters the guest, or the signal finds it there: no kick is lost.
 * Threads   The vCPU's own; kick: any, async-signal-safe.
 */
#include "hv/kvm/kvm.h"

#include "base/assert.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FINISH_MAX 16u /* fragments of one instruction's accesses: more than any has */

/* Linux 6.1's headers have them all; names for what is told. */
static const char *const internal_names[] = {
	[KVM_INTERNAL_ERROR_EMULATION] = "emulation failed",
	[KVM_INTERNAL_ERROR_SIMUL_EX] = "an exception while another was delivered",
	[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while an event was delivered",
	[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit of an unknown kind",
};

/* --- elements ------------------------------------------------------------------------------------------------- */

static uint64_t load(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size); /* little-endian */
	return v;
}

void kvm_io_element(struct kvm_io *io, struct hv_exit *exit)
{
	unsigned left = io->len - io->done;

	*exit = (struct hv_exit){ .write = io->write, .addr = io->addr };
	if (io->kind == KVM_IO_MMIO) {
		exit->reason = HV_EXIT_MMIO;
		exit->addr += io->done;
		io->size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
	} else {
		exit->reason = io->kind == KVM_IO_PIO ? HV_EXIT_PIO : HV_EXIT_MSR;
	}
	exit->size = (uint8_t)io->size;
	if (io->write)
		exit->data = load(io->data + io->done, io->size);
}

bool kvm_io_answer(struct kvm_io *io, const struct hv_exit *exit)
{
	if (!io->write)
		memcpy(io->data + io->done, &exit->data, io->size);
	io->done += io->size;
	return io->done >= io->len;
}

/* The answer of the element that is out.  True: KVM has all it waits for. */
static bool take_answer(struct hv_vcpu *v)
{
	struct hv_exit *exit = v->answer;

	if (!exit)
		return v->io.kind == KVM_IO_NONE;
	v->answer = NULL;
	if (v->io.kind == KVM_IO_MSR)
		v->run->msr.error = exit->fault;
	if (!kvm_io_answer(&v->io, exit))
		return false;
	v->io.kind = KVM_IO_NONE;
	return true;
}

static bool give(struct hv_vcpu *v, struct hv_exit *exit)
{
	kvm_io_element(&v->io, exit);
	v->answer = exit;
	return true;
}

/* --- in and out ----------------------------------------------------------------------------------------------- */

void kvm_run_kick(struct hv_vcpu *v)
{
	_Atomic uint8_t *leave = (_Atomic uint8_t *)&v->run->immediate_exit;

	atomic_store(&v->kicked, true);
	atomic_store(leave, 1);
	/* Orders against enter: it sees the byte, or this sees that it is inside. */
	if (atomic_load(&v->inside))
		syscall(SYS_tgkill, getpid(), atomic_load(&v->tid), SIGUSR2);
}

/* The byte as a kick wants it: after it was used for something else. */
static void leave_restore(struct hv_vcpu *v)
{
	_Atomic uint8_t *leave = (_Atomic uint8_t *)&v->run->immediate_exit;

	atomic_store(leave, 0);
	if (atomic_load(&v->kicked))
		atomic_store(leave, 1);
}

/* One KVM_RUN: 0 with an exit reason, or -errno. */
static int enter(struct hv_vcpu *v)
{
	int r;

	if (v->faults)
		kvm_faults_clear(v->faults);
	atomic_store(&v->inside, true);
	r = ioctl(v->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	atomic_store(&v->inside, false);
	v->unfinished = false;
	return r;
}

/* KVM_RUN that only completes the instruction under way.  True: done; false: it came to another exit. */
static bool complete(struct hv_vcpu *v)
{
	int r;

	atomic_store((_Atomic uint8_t *)&v->run->immediate_exit, 1);
	r = enter(v);
	leave_restore(v);
	return r != 0; /* -EINTR; anything else comes again at the next entry */
}

bool kvm_run_finish(struct hv_vcpu *v)
{
	if (!take_answer(v))
		return false;
	if (v->unfinished && !v->ahead)
		v->ahead = !complete(v);
	return !v->ahead;
}

void kvm_run_abandon(struct hv_vcpu *v)
{
	if (kvm_run_finish(v))
		return;
	v->answer = NULL;
	v->io.kind = KVM_IO_NONE;
	v->ahead = false;
	for (unsigned i = 0; i < FINISH_MAX && !complete(v); i++)
		;
}

/* --- exits ---------------------------------------------------------------------------------------------------- */

typedef bool (*exit_fn)(struct hv_vcpu *v, struct hv_exit *exit);

/* Each: true when *exit is for the monitor, false to go on. */

static bool plain(struct hv_exit *exit, enum hv_exit_reason reason)
{
	*exit = (struct hv_exit){ .reason = reason };
	return true;
}

static bool on_io(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct kvm_run *r = v->run;

	v->unfinished = true;
	v->io = (struct kvm_io){
		.kind = KVM_IO_PIO,
		.write = r->io.direction == KVM_EXIT_IO_OUT,
		.data = (uint8_t *)r + r->io.data_offset,
		.addr = r->io.port,
		.len = r->io.size * r->io.count,
		.size = r->io.size,
	};
	return give(v, exit);
}

static bool on_mmio(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct kvm_run *r = v->run;

	v->unfinished = true;
	if (dsm_is_ram(v->vm->dsm, r->mmio.phys_addr >> PAGE_SHIFT))
		return !kvm_memory_access(v, exit);
	v->io = (struct kvm_io){
		.kind = KVM_IO_MMIO,
		.write = r->mmio.is_write,
		.data = r->mmio.data,
		.addr = r->mmio.phys_addr,
		.len = r->mmio.len,
	};
	return give(v, exit);
}

static bool on_msr(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct kvm_run *r = v->run;

	v->unfinished = true;
	if (kvm_msr_exit(v, r))
		return false;
	v->io = (struct kvm_io){
		.kind = KVM_IO_MSR,
		.write = r->exit_reason == KVM_EXIT_X86_WRMSR,
		.data = (uint8_t *)&r->msr.data,
		.addr = r->msr.index,
		.len = 8,
		.size = 8,
	};
	return give(v, exit);
}

/* An NMI that KVM has taken and not yet delivered (after sti, say) ends the halt. */
static bool on_hlt(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct kvm_vcpu_events e;
	bool wakes = false;

	if (v->nmi_sent) {
		if (!kvm_call(v->fd, KVM_GET_VCPU_EVENTS, &e))
			wakes = (e.nmi.pending || e.nmi.injected) && !e.nmi.masked;
		v->nmi_sent = wakes;
	}
	return !wakes && plain(exit, HV_EXIT_HLT);
}

static bool on_window(struct hv_vcpu *v, struct hv_exit *exit)
{
	(void)v;
	return plain(exit, HV_EXIT_IRQ_WINDOW);
}

static bool on_look(struct hv_vcpu *v, struct hv_exit *exit)
{
	(void)v;
	return plain(exit, HV_EXIT_KICKED); /* CR8 went down, or a signal: the monitor looks */
}

static bool on_shutdown(struct hv_vcpu *v, struct hv_exit *exit)
{
	(void)v;
	return plain(exit, HV_EXIT_SHUTDOWN);
}

static bool on_fail_entry(struct hv_vcpu *v, struct hv_exit *exit)
{
	kvm_error(v, exit, "KVM: the processor refuses to enter the guest, reason 0x%llx",
		  v->run->fail_entry.hardware_entry_failure_reason);
	return true;
}

static bool on_internal(struct hv_vcpu *v, struct hv_exit *exit)
{
	const struct kvm_run *r = v->run;
	unsigned n = r->internal.ndata < 4 ? r->internal.ndata : 4, at;
	char data[96] = "";

	if (r->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
		*exit = (struct hv_exit){ .reason = HV_EXIT_ERROR };
		if (kvm_memory_failed(v, exit))
			return false;
		if (exit->reason != HV_EXIT_ERROR)
			return true;
	}
	at = 0;
	for (unsigned i = 0; i < n; i++)
		at += (unsigned)snprintf(data + at, sizeof(data) - at, " %llx", r->internal.data[i]);
	kvm_error(v, exit, "KVM: internal error %u (%s), data%s", r->internal.suberror,
		  r->internal.suberror < ARRAY_LEN(internal_names) &&
				  internal_names[r->internal.suberror]
			  ? internal_names[r->internal.suberror]
			  : "unknown",
		  n ? data : " none");
	return true;
}

static const exit_fn exits[] = {
	[KVM_EXIT_IO] = on_io,
	[KVM_EXIT_MMIO] = on_mmio,
	[KVM_EXIT_X86_RDMSR] = on_msr,
	[KVM_EXIT_X86_WRMSR] = on_msr,
	[KVM_EXIT_HLT] = on_hlt,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = on_window,
	[KVM_EXIT_SET_TPR] = on_look,
	[KVM_EXIT_INTR] = on_look,
	[KVM_EXIT_SHUTDOWN] = on_shutdown,
	[KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
	[KVM_EXIT_INTERNAL_ERROR] = on_internal,
};

static bool decode(struct hv_vcpu *v, struct hv_exit *exit)
{
	uint32_t reason = v->run->exit_reason;

	if (reason < ARRAY_LEN(exits) && exits[reason])
		return exits[reason](v, exit);
	kvm_error(v, exit, "KVM: exit %u, which this monitor does not know", reason);
	return true;
}

/* KVM_RUN failed. */
static bool failed(struct hv_vcpu *v, int err, struct hv_exit *exit)
{
	switch (err) {
	case -EINTR:
		/* What was wanted before this is looked at now; what comes after sets both again. */
		atomic_store(&v->kicked, false);
		leave_restore(v);
		return plain(exit, HV_EXIT_KICKED);
	case -EAGAIN:
		return false;
	case -EFAULT:
		return !kvm_memory_fault(v, exit);
	default:
		kvm_error(v, exit, "KVM_RUN: %s", strerror(-err));
		return true;
	}
}

static void first_run(struct hv_vcpu *v, struct hv_exit *exit, bool *done)
{
	int err = 0;

	v->ran = true;
	atomic_store(&v->tid, (int)syscall(SYS_gettid));
	if (v->vm->faults == DSM_FAULTS_INLINE)
		err = kvm_faults_open(v->vm->address, v->run, &v->faults);
	*done = err != 0;
	if (err)
		kvm_error(v, exit, "KVM: faults cannot be traced: %s", strerror(-err));
}

void kvm_run_guest(struct hv_vcpu *v, struct hv_exit *exit, bool irq_window)
{
	bool done = false;

	if (!take_answer(v)) {
		give(v, exit);
		return;
	}
	if (!v->ran)
		first_run(v, exit, &done);
	v->run->request_interrupt_window = irq_window;
	while (!done) {
		int err = 0;

		if (v->ahead)
			v->ahead = false;
		else
			err = enter(v);
		if (err != -EFAULT)
			v->blind = 0;
		if (err || v->run->exit_reason != KVM_EXIT_INTERNAL_ERROR)
			v->attempts = 0;
		done = err ? failed(v, err, exit) : decode(v, exit);
	}
}
