/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/bare.h - a VM with one vCPU in 64-bit mode and nothing else, for trying and measuring what a KVM does.
 *
 * Threads   open and close: any one; the vCPU: whoever runs it.
 */
#ifndef HV_KVM_BARE_H
#define HV_KVM_BARE_H

#include "base/err.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_bare_config {
	int kvm;
	void *memory; /* of gpa 0 and up; its pages need not be there */
	size_t bytes;
	uint64_t rip, cr3; /* the caller's code and page tables */
};

struct kvm_bare {
	int vm, vcpu;
	struct kvm_run *run;
	size_t run_bytes;
};
#define KVM_BARE_NONE ((struct kvm_bare){ .vm = -1, .vcpu = -1 })

/* There is no IDT: any exception is a triple fault.  *what: the call that failed. */
MUST_CHECK int kvm_bare_open(const struct kvm_bare_config *cfg, struct kvm_bare *out,
			     const char **what);
void kvm_bare_close(struct kvm_bare *b);

#endif
