/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/kvm.h - what the files of the kvm engine share.
 *
 * Reading order  engine.c (ops table, opening), run.c (the loop and the exits), memory.c (pages that are not here),
 *           state.c (the snapshot), msr.c (registers KVM hands out), cpuid.c, trial.c; host.c and
 *           faults.c stand alone.
 * Threads   Everything of one vCPU: its own thread, but kick.
 * Sources   Linux Documentation/virt/kvm/api.rst; what it leaves open is cited from arch/x86/kvm.
 */
#ifndef HV_KVM_KVM_H
#define HV_KVM_KVM_H

#include "hv/engine.h"
#include "hv/kvm/faults.h"
#include "hv/kvm/host.h"

#include <linux/kvm.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

struct hv_vm {
	int kvm, fd;
	struct dsm *dsm;
	const struct hv_cpuid_entry *cpuid; /* the monitor's */
	unsigned cpuid_count;
	enum dsm_faults faults;
	enum kvm_address address;
	size_t run_len;
	bool has_xcrs;
	unsigned slots;
};

/* An access that left KVM and is answered element by element: the monitor wants 1, 2, 4 or 8 bytes. */
enum kvm_io_kind { KVM_IO_NONE, KVM_IO_MMIO, KVM_IO_PIO, KVM_IO_MSR };
struct kvm_io {
	enum kvm_io_kind kind;
	bool write;
	uint8_t *data; /* in struct kvm_run */
	uint64_t addr;
	unsigned len, done; /* bytes */
	unsigned size;	    /* PIO: of one element; the element that is out otherwise */
};

/* Registers of struct hv_cpu_state that are MSRs. */
enum kvm_msr { KVM_MSR_STAR, KVM_MSR_LSTAR, KVM_MSR_CSTAR, KVM_MSR_SFMASK, KVM_MSR_KERNEL_GS,
	       KVM_MSR_SYSENTER_CS, KVM_MSR_SYSENTER_ESP, KVM_MSR_SYSENTER_EIP, KVM_MSR_PAT, KVM_MSR_TSC_AUX,
	       KVM_MSR_MISC_ENABLE, KVM_MSR_MTRR_DEF_TYPE, KVM_MSR_MTRR_FIXED,
	       KVM_MSR_MTRR_VAR = KVM_MSR_MTRR_FIXED + 11, KVM_MSRS = KVM_MSR_MTRR_VAR + 16 };

struct hv_vcpu {
	struct hv_vm *vm;
	unsigned id;
	int fd;
	struct kvm_run *run;
	struct kvm_faults *faults; /* inline; made by the first run, for its thread */
	bool ran;

	struct kvm_io io;
	struct hv_exit *answer; /* of the element that is out */
	bool unfinished;	/* KVM waits for the answer: the instruction is not complete */
	bool ahead;		/* finishing came to another exit, which run has not told yet */
	bool nmi_sent;		/* may still wait in KVM */

	/* MSRs of the state that this KVM does not know: the engine is their place */
	bool msr_own[KVM_MSRS];
	uint64_t msr[KVM_MSRS];

	/* memory.c */
	unsigned blind;	   /* faults without an address in a row */
	unsigned attempts; /* at the instruction that KVM could not emulate */
	uint64_t attempt_rip;
	char text[256]; /* of HV_EXIT_ERROR */

	/* any thread */
	_Atomic bool kicked, inside; /* inside: KVM_RUN is about to be called, or runs */
	_Atomic int tid;
};

/* engine.c: one ioctl that KVM restarts; -errno. */
int kvm_call(int fd, unsigned long request, void *arg);
/* Text for HV_EXIT_ERROR. */
void kvm_error(struct hv_vcpu *v, struct hv_exit *exit, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* run.c */
void kvm_run_guest(struct hv_vcpu *v, struct hv_exit *exit, bool irq_window);
/* Completes the instruction whose answer is there.  False: more of it is to come. */
bool kvm_run_finish(struct hv_vcpu *v);
/* The same for a vCPU that gets another state: what is not answered reads as anything. */
void kvm_run_abandon(struct hv_vcpu *v);
void kvm_run_kick(struct hv_vcpu *v);
/* The next element of v->io: what the monitor is to do. */
void kvm_io_element(struct kvm_io *io, struct hv_exit *exit);
/* Takes its answer; true when that was the last. */
bool kvm_io_answer(struct kvm_io *io, const struct hv_exit *exit);

/* memory.c: true: go on; false: *exit is filled. */
bool kvm_memory_fault(struct hv_vcpu *v, struct hv_exit *exit);
bool kvm_memory_access(struct hv_vcpu *v, struct hv_exit *exit); /* KVM_EXIT_MMIO on RAM */
bool kvm_memory_failed(struct hv_vcpu *v, struct hv_exit *exit); /* emulation failure; false without *exit: hopeless */

/* state.c */
void kvm_state_get(struct hv_vcpu *v, struct hv_cpu_state *out);
MUST_CHECK int kvm_state_set(struct hv_vcpu *v, const struct hv_cpu_state *in);
MUST_CHECK int kvm_tsc_set(struct hv_vcpu *v, uint64_t offset); /* guest TSC = host TSC + offset */
MUST_CHECK int kvm_state_open(struct hv_vcpu *v); /* finds out what this KVM keeps; reset state */

/* msr.c */
MUST_CHECK int kvm_msr_open(struct hv_vm *vm); /* what leaves to user space */
extern const uint32_t kvm_msr_index[KVM_MSRS];
/* An MSR exit that is not the monitor's: true when it was answered here. */
bool kvm_msr_exit(struct hv_vcpu *v, struct kvm_run *run);

/* cpuid.c */
unsigned kvm_cpuid_host(struct hv_cpuid_entry out[static HV_CPUID_HOST_MAX]);
MUST_CHECK int kvm_cpuid_set(struct hv_vcpu *v);

/* trial.c: by running a guest of three instructions; kvm: /dev/kvm.  Any thread, some milliseconds. */
bool kvm_trial_deadline(int kvm); /* its write to TSC_DEADLINE leaves to user space */
bool kvm_trial_tsc(int kvm);	  /* its TSC is shifted as asked */

#endif
