/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/msr.c - which MSRs leave KVM, and those of them that the engine answers itself.
 *
 * What      To the monitor: x2APIC (KVM knows none without its LAPIC), APIC_BASE and TSC_DEADLINE (by the filter).
 *           Answered here: registers of struct hv_cpu_state that this KVM does not know, and those that kernels touch
 *           without a CPUID bit.  KVM's own paravirtual registers do not exist: what they name KVM would write behind
 *           the back of the other nodes.
 * Threads   open: the one that opens the VM.  The rest: the vCPU's.
 */
#include "hv/kvm/kvm.h"

#include "hv/core/lapic.h"
#include "hv/core/msr.h"

#define RANGE_BYTES 32u
#define RANGE_MSRS (8 * RANGE_BYTES)

const uint32_t kvm_msr_index[KVM_MSRS] = {
	[KVM_MSR_STAR] = 0xc0000081,	      [KVM_MSR_LSTAR] = 0xc0000082,
	[KVM_MSR_CSTAR] = 0xc0000083,	      [KVM_MSR_SFMASK] = 0xc0000084,
	[KVM_MSR_KERNEL_GS] = 0xc0000102,     [KVM_MSR_SYSENTER_CS] = 0x174,
	[KVM_MSR_SYSENTER_ESP] = 0x175,	      [KVM_MSR_SYSENTER_EIP] = 0x176,
	[KVM_MSR_PAT] = 0x277,		      [KVM_MSR_TSC_AUX] = 0xc0000103,
	[KVM_MSR_MISC_ENABLE] = 0x1a0,	      [KVM_MSR_MTRR_DEF_TYPE] = 0x2ff,
#define FIXED(k) [KVM_MSR_MTRR_FIXED + (k)]
	FIXED(0) = 0x250,  FIXED(1) = 0x258,  FIXED(2) = 0x259,	 FIXED(3) = 0x268,
	FIXED(4) = 0x269,  FIXED(5) = 0x26a,  FIXED(6) = 0x26b,	 FIXED(7) = 0x26c,
	FIXED(8) = 0x26d,  FIXED(9) = 0x26e,  FIXED(10) = 0x26f,
#undef FIXED
#define VAR(k) [KVM_MSR_MTRR_VAR + (k)] = 0x200 + (k)
	VAR(0), VAR(1), VAR(2), VAR(3), VAR(4), VAR(5), VAR(6), VAR(7),
	VAR(8), VAR(9), VAR(10), VAR(11), VAR(12), VAR(13), VAR(14), VAR(15),
#undef VAR
};

int kvm_msr_open(struct hv_vm *vm)
{
	/* Clear bits: the access leaves to user space.  (x2APIC registers pass by every filter.) */
	static const struct {
		uint32_t first, count;
	} ours[] = {
		{ 0x11, 2 },		      /* clock of KVM's, the old numbers */
		{ HV_MSR_APIC_BASE, 1 },
		{ HV_MSR_TSC_DEADLINE, 1 },
		{ 0x40000000, RANGE_MSRS },   /* Hyper-V's, Xen's */
		{ 0x4b564d00, RANGE_MSRS },   /* KVM's */
	};
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
			  KVM_MSR_EXIT_REASON_FILTER },
	};
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	uint8_t none[RANGE_BYTES] = { 0 };
	int err = kvm_call(vm->fd, KVM_ENABLE_CAP, &cap);

	for (unsigned i = 0; i < ARRAY_LEN(ours); i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.base = ours[i].first,
			.nmsrs = ours[i].count,
			.bitmap = none,
		};
	return err ? err : kvm_call(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

static uint64_t *own_find(struct hv_vcpu *v, uint32_t index)
{
	for (unsigned k = 0; k < KVM_MSRS; k++)
		if (v->msr_own[k] && kvm_msr_index[k] == index)
			return &v->msr[k];
	return NULL;
}

bool kvm_msr_exit(struct hv_vcpu *v, struct kvm_run *run)
{
	bool write = run->exit_reason == KVM_EXIT_X86_WRMSR;
	uint64_t value = run->msr.data, fixed;
	uint64_t *own = own_find(v, run->msr.index);

	if (!own && !hv_msr_fixed(run->msr.index, &fixed))
		return false;
	run->msr.error = 0;
	if (!write)
		run->msr.data = own ? *own : fixed;
	else if (own && run->msr.index == kvm_msr_index[KVM_MSR_TSC_AUX] && value >> 32)
		run->msr.error = 1;
	else if (own)
		*own = value;
	return true;
}
