/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/cpuid.c - CPUID between the monitor's table and KVM.
 *
 * Threads   Any.
 * I/O       Opens /dev/kvm for what the host offers (trial.c is asked about the timer).
 */
#include "hv/kvm/kvm.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define LEAF_FEATURES 1u
#define ECX_DEADLINE (1u << 24)

/* A table of KVM's, malloc'd. */
static struct kvm_cpuid2 *table_new(unsigned entries)
{
	struct kvm_cpuid2 *t = calloc(1, sizeof(*t) + entries * sizeof(t->entries[0]));

	if (t)
		t->nent = entries;
	return t;
}

static unsigned host_take(const struct kvm_cpuid2 *t, bool deadline,
			  struct hv_cpuid_entry out[static HV_CPUID_HOST_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nent && n < HV_CPUID_HOST_MAX; i++) {
		const struct kvm_cpuid_entry2 *e = &t->entries[i];

		out[n] = (struct hv_cpuid_entry){
			.leaf = e->function,
			.subleaf = e->index,
			.by_subleaf = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
		if (e->function == LEAF_FEATURES)
			out[n].ecx = (e->ecx & ~ECX_DEADLINE) | (deadline ? ECX_DEADLINE : 0);
		n++;
	}
	return n;
}

unsigned kvm_cpuid_host(struct hv_cpuid_entry out[static HV_CPUID_HOST_MAX])
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct kvm_cpuid2 *t = table_new(HV_CPUID_HOST_MAX);
	unsigned n = 0;

	if (fd >= 0 && t && !kvm_call(fd, KVM_GET_SUPPORTED_CPUID, t))
		n = host_take(t, kvm_trial_deadline(fd), out);
	free(t);
	if (fd >= 0)
		close(fd);
	return n;
}

int kvm_cpuid_set(struct hv_vcpu *v)
{
	const struct hv_vm *vm = v->vm;
	struct kvm_cpuid2 *t = table_new(vm->cpuid_count);
	int err;

	if (!t)
		return -ENOMEM;
	for (unsigned i = 0; i < vm->cpuid_count; i++) {
		const struct hv_cpuid_entry *e = &vm->cpuid[i];
		struct hv_cpuid_regs r =
			hv_cpuid_lookup(vm->cpuid, vm->cpuid_count, v->id, e->leaf, e->subleaf);

		t->entries[i] = (struct kvm_cpuid_entry2){
			.function = e->leaf,
			.index = e->subleaf,
			.flags = e->by_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = r.eax,
			.ebx = r.ebx,
			.ecx = r.ecx,
			.edx = r.edx,
		};
	}
	err = kvm_call(v->fd, KVM_SET_CPUID2, t);
	free(t);
	return err;
}
