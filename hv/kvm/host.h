/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/host.h - what /dev/kvm of this host can do, found by trying.
 *
 * What      Opens KVM, reads what kind it is, and runs a tiny guest over a userfaultfd mapping in each fault path.
 * Threads   Any one; takes some milliseconds, a few hundred in an emulated host; bounded (seconds).
 * Sources   Documentation/virt/kvm/api.rst; parameters of kvm_intel and kvm_amd in /sys/module; docs/limits.md on why
 *           nested walks must be reads.
 */
#ifndef HV_KVM_HOST_H
#define HV_KVM_HOST_H

#include <stdbool.h>
#include <stdint.h>

#define KVM_HOST_TEXT 256u

enum kvm_kind { KVM_KIND_NONE, KVM_KIND_VMX, KVM_KIND_SVM, KVM_KIND_SOFTWARE };

/* Where the address of a fault comes from when KVM_RUN returns EFAULT. */
enum kvm_address { KVM_ADDRESS_NONE, KVM_ADDRESS_EXIT, KVM_ADDRESS_PERF };

/* One thing tried: works, or why not and what mends it (a command where there is one; "" when nothing does). */
struct kvm_verdict {
	bool ok;
	char why[KVM_HOST_TEXT], fix[KVM_HOST_TEXT];
};

struct kvm_host {
	int err;                   /* of `usable`: 0, -ENOENT, -EACCES, -EBUSY, -ENOTSUP */
	struct kvm_verdict usable; /* device, rights, version, capabilities that the engine needs */
	struct kvm_verdict inline_faults, dispatch_faults;
	struct kvm_verdict
		shared; /* guests that share page tables between nodes: nested walks are reads */
	enum kvm_kind kind;
	bool two_dimensional; /* EPT or NPT in use */
	int eptad;            /* 1 on, 0 off, -1 not known or not VMX */
	bool walks_write; /* seen: a walk of the tiny guest's page tables wanted to write them */
	bool tsc_scaling; /* KVM_CAP_TSC_CONTROL */
	enum kvm_address address; /* for inline faults */
	unsigned vcpus_max;
};

void kvm_host_probe(struct kvm_host *out);

/* The same on other files, for tests. */
struct kvm_host_paths {
	const char *device, *modules, *cpuinfo; /* /dev/kvm, /sys/module, /proc/cpuinfo */
};
void kvm_host_probe_at(const struct kvm_host_paths *paths, struct kvm_host *out);
/* "none", "vmx", "svm", "software"; "none", "exit", "perf". */
const char *kvm_kind_name(enum kvm_kind kind);
const char *kvm_address_name(enum kvm_address address);

#endif
