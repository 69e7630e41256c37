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
#include "hv/kvm/bare.h"

#include <string.h>
#include <sys/mman.h>
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
	struct kvm_bare bare;
	struct hv_vm vm;     /* what the engine's functions want of one */
	struct hv_vcpu vcpu;
	uint8_t *memory;
};

static int memory_open(struct trial *t, const uint8_t *code, size_t len)
{
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
	return 0;
}

static int trial_open(struct trial *t, int kvm, const uint8_t *code, size_t len)
{
	struct kvm_bare_config cfg = { .kvm = kvm, .bytes = PAGES * PAGE_SIZE, .cr3 = PAGE_PML4 * PAGE_SIZE };
	const char *what;
	int err;

	*t = (struct trial){ .bare = KVM_BARE_NONE };
	err = memory_open(t, code, len);
	if (err)
		return err;
	cfg.memory = t->memory;
	err = kvm_bare_open(&cfg, &t->bare, &what);
	t->vm.fd = t->bare.vm;
	t->vcpu.fd = t->bare.vcpu;
	return err ? err : kvm_msr_open(&t->vm);
}

static void trial_close(struct trial *t)
{
	kvm_bare_close(&t->bare);
	if (t->memory)
		munmap(t->memory, PAGES * PAGE_SIZE);
}

bool kvm_trial_deadline(int kvm)
{
	struct trial t;
	bool out = !trial_open(&t, kvm, deadline_code, sizeof(deadline_code)) &&
		   !kvm_call(t.vcpu.fd, KVM_RUN, NULL) && t.bare.run->exit_reason == KVM_EXIT_X86_WRMSR &&
		   t.bare.run->msr.index == HV_MSR_TSC_DEADLINE;

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
	       t.bare.run->exit_reason == KVM_EXIT_HLT && !kvm_call(t.vcpu.fd, KVM_GET_REGS, &regs);
	if (good) {
		/* The guest read about `wanted`, a KVM without offsets about twice as much. */
		seen = regs.rdx << 32 | (uint32_t)regs.rax;
		good = seen < __rdtsc() - wanted / 2;
	}
	trial_close(&t);
	return good;
}
