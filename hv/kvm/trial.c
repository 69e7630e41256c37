/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/trial.c - what this KVM does with a guest's timer and TSC, found by running a guest of three instructions.
 *
 * What      Deadline: KVM has a short cut for writes to TSC_DEADLINE that passes by the MSR filter.  Where it is taken (Intel with
 *           the preemption timer, and everywhere from about Linux 6.17 on) a guest without an in-kernel LAPIC sets a
 *           timer that nobody hears of.  Such a host does not offer the deadline mode; the count mode always comes out.
 *           TSC: software back ends let the guest read the host's.
 * Owns      A VM of its own, while it runs.
 * Threads   Any.
 */
#include "hv/kvm/kvm.h"

#include "hv/core/lapic.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

/* One slot from 0 on: code, then tables that map the first 2 MiB (SDM vol 3, 4.5). */
enum { PAGE_CODE, PAGE_PML4, PAGE_PDPT, PAGE_PD, PAGES };
#define TABLE 0x63ull /* present, writable, accessed, dirty */
#define LARGE 0xe3ull

static const uint8_t deadline_code[] = {
	0xb9, 0xe0, 0x06, 0x00, 0x00, /* mov ecx, TSC_DEADLINE */
	0x0f, 0x30,		      /* wrmsr */
	0xf4,			      /* hlt */
};
static const uint8_t tsc_code[] = {
	0x0f, 0x31, /* rdtsc */
	0xf4,	    /* hlt */
};

struct trial {
	struct hv_vm vm;
	struct hv_vcpu vcpu;
	struct hv_cpuid_entry cpuid[HV_CPUID_MAX];
	uint8_t *memory;
};

static int memory_open(struct trial *t, const uint8_t *code, size_t len)
{
	struct kvm_userspace_memory_region r = { .memory_size = PAGES * PAGE_SIZE };
	const uint64_t entry[PAGES] = { [PAGE_PML4] = PAGE_PDPT * PAGE_SIZE | TABLE,
					[PAGE_PDPT] = PAGE_PD * PAGE_SIZE | TABLE,
					[PAGE_PD] = LARGE };
	void *p = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	t->memory = p;
	for (unsigned k = PAGE_PML4; k < PAGES; k++)
		memcpy(t->memory + k * PAGE_SIZE, &entry[k], sizeof(entry[k]));
	memcpy(t->memory, code, len);
	r.userspace_addr = (uintptr_t)p;
	return kvm_call(t->vm.fd, KVM_SET_USER_MEMORY_REGION, &r);
}

/* 64-bit mode at address 0 (SDM vol 3, 9.8.5); no descriptor table is ever looked at. */
static int vcpu_start(struct trial *t)
{
	struct kvm_segment code = { .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs s;
	int err = kvm_call(t->vcpu.fd, KVM_GET_SREGS, &s);

	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80000031; /* PG, NE, ET, PE */
	s.cr3 = PAGE_PML4 * PAGE_SIZE;
	s.cr4 = 0x20;	/* PAE */
	s.efer = 0x500; /* LME, LMA */
	if (!err)
		err = kvm_call(t->vcpu.fd, KVM_SET_SREGS, &s);
	return err ? err : kvm_call(t->vcpu.fd, KVM_SET_REGS, &regs);
}

static int vcpu_open(struct trial *t)
{
	struct hv_cpuid_config model = { .vcpus = 1 };
	void *run;
	int err;

	t->vm.cpuid = t->cpuid;
	t->vm.cpuid_count = hv_cpuid_build(&model, t->cpuid);
	t->vcpu.vm = &t->vm;
	t->vcpu.fd = kvm_call(t->vm.fd, KVM_CREATE_VCPU, NULL);
	if (t->vcpu.fd < 0)
		return t->vcpu.fd;
	run = mmap(NULL, t->vm.run_len, PROT_READ | PROT_WRITE, MAP_SHARED, t->vcpu.fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	t->vcpu.run = run;
	err = kvm_cpuid_set(&t->vcpu); /* no 64-bit mode without */
	return err ? err : vcpu_start(t);
}

static int trial_open(struct trial *t, int kvm, const uint8_t *code, size_t len)
{
	int r = kvm_call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);

	*t = (struct trial){ .vm = { .kvm = kvm, .fd = -1 }, .vcpu = { .fd = -1 } };
	if (r < 0)
		return r;
	t->vm.run_len = (size_t)r;
	t->vm.fd = kvm_call(kvm, KVM_CREATE_VM, NULL);
	if (t->vm.fd < 0)
		return t->vm.fd;
	r = kvm_msr_open(&t->vm);
	if (!r)
		r = memory_open(t, code, len);
	return r ? r : vcpu_open(t);
}

static void trial_close(struct trial *t)
{
	if (t->vcpu.run)
		munmap(t->vcpu.run, t->vm.run_len);
	if (t->vcpu.fd >= 0)
		close(t->vcpu.fd);
	if (t->vm.fd >= 0)
		close(t->vm.fd);
	if (t->memory)
		munmap(t->memory, PAGES * PAGE_SIZE);
}

bool kvm_trial_deadline(int kvm)
{
	struct trial t;
	bool out = !trial_open(&t, kvm, deadline_code, sizeof(deadline_code)) &&
		   !kvm_call(t.vcpu.fd, KVM_RUN, NULL) && t.vcpu.run->exit_reason == KVM_EXIT_X86_WRMSR &&
		   t.vcpu.run->msr.index == HV_MSR_TSC_DEADLINE;

	trial_close(&t);
	return out;
}

bool kvm_trial_tsc(int kvm)
{
	struct kvm_regs regs;
	struct trial t;
	uint64_t wanted = __rdtsc() / 2, seen;
	bool good = !trial_open(&t, kvm, tsc_code, sizeof(tsc_code));

	good = good && !kvm_tsc_set(&t.vcpu, -wanted) && !kvm_call(t.vcpu.fd, KVM_RUN, NULL) &&
	       t.vcpu.run->exit_reason == KVM_EXIT_HLT && !kvm_call(t.vcpu.fd, KVM_GET_REGS, &regs);
	if (good) {
		/* The guest read about `wanted`, a KVM without offsets about twice as much. */
		seen = regs.rdx << 32 | (uint32_t)regs.rax;
		good = seen < __rdtsc() - wanted / 2;
	}
	trial_close(&t);
	return good;
}
