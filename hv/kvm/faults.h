/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/faults.h - which page was it?  Inline faults: KVM_RUN returned EFAULT.
 *
 * What      The address comes from KVM_EXIT_MEMORY_FAULT where the kernel fills it, else from the tracepoint
 *           kvm:kvm_page_fault in a perf ring of the vCPU's thread.
 * Threads   open, take, close: the vCPU's own thread.
 */
#ifndef HV_KVM_FAULTS_H
#define HV_KVM_FAULTS_H

#include "base/err.h"
#include "base/types.h"
#include "hv/kvm/host.h"

#include <linux/kvm.h>

struct kvm_faults;

/* Does not log: on failure kvm_faults_explain has static texts of what is missing and what mends it. */
MUST_CHECK int kvm_faults_open(enum kvm_address from, const struct kvm_run *run,
			       struct kvm_faults **out);
void kvm_faults_explain(int err, const char **why, const char **fix);
void kvm_faults_close(struct kvm_faults *f);
/* Before KVM_RUN: what older entries left behind is forgotten. */
void kvm_faults_clear(struct kvm_faults *f);
/*
 * After EFAULT: the page that was missing.  Where the direction is not told (KVM_ADDRESS_EXIT) `write` is set when the
 * same page is missing again in the next run.  With shadow paging and guest paging on, gpa is a linear address.
 * -ENODATA: nothing tells (a real EFAULT).
 */
MUST_CHECK int kvm_faults_take(struct kvm_faults *f, gpa_t *gpa, bool *write);

#endif
