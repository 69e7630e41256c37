/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/tiny.h - a guest of a few instructions whose every page is missing at first: does a fault path work here?
 *
 * Threads   Any one; makes a second one for the vCPU.  Returns within TINY_DEADLINE_NS, and a moment for the end.
 */
#ifndef HV_KVM_TINY_H
#define HV_KVM_TINY_H

#include "dsm/dsm.h"
#include "hv/kvm/host.h"

struct kvm_tiny {
	struct kvm_verdict verdict;
	enum kvm_address
		address; /* DSM_FAULTS_INLINE: where it came from; KVM_ADDRESS_NONE: from nowhere */
	unsigned faults; /* resolved */
	bool walks_write; /* a walk of the guest's page tables wanted to write, with nothing to write there */
};

void kvm_tiny_run(int kvm, enum dsm_faults faults, struct kvm_tiny *out);

#endif
