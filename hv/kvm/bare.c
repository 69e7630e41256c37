/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/bare.c - a VM with one vCPU in 64-bit mode and nothing else.
 *
 * Owns      What a struct kvm_bare holds.
 * Threads   Any one.
 * I/O       KVM.
 */
#include "hv/kvm/bare.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUID_ROOM 256u
/* Intel CPUs of old need both to run real mode; nobody minds. */
#define IDENTITY_MAP 0xfffbc000ull
#define TSS_ADDRESS 0xfffbd000ul

static int vm_make(const struct kvm_bare_config *cfg, struct kvm_bare *b, const char **what)
{
	struct kvm_userspace_memory_region slot = { .memory_size = cfg->bytes,
						    .userspace_addr = (uintptr_t)cfg->memory };
	uint64_t identity = IDENTITY_MAP;

	*what = "KVM_CREATE_VM";
	b->vm = ioctl(cfg->kvm, KVM_CREATE_VM, 0);
	if (b->vm < 0)
		return -errno;
	*what = "KVM_SET_TSS_ADDR";
	if (ioctl(b->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) ||
	    ioctl(b->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS))
		return -errno;
	*what = "KVM_SET_USER_MEMORY_REGION";
	return ioctl(b->vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

static int vcpu_make(const struct kvm_bare_config *cfg, struct kvm_bare *b, const char **what)
{
	int size = ioctl(cfg->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *p;

	*what = "KVM_CREATE_VCPU";
	b->vcpu = ioctl(b->vm, KVM_CREATE_VCPU, 0);
	if (b->vcpu < 0)
		return -errno;
	if (size < (int)sizeof(*b->run))
		return -EPROTO;
	*what = "mmap of a vCPU's shared page";
	p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, b->vcpu, 0);
	if (p == MAP_FAILED)
		return -errno;
	b->run = p;
	b->run_bytes = (size_t)size;
	return 0;
}

static int cpuid_set(const struct kvm_bare_config *cfg, struct kvm_bare *b, const char **what)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPUID_ROOM * sizeof(c->entries[0]));
	int err;

	*what = "KVM_SET_CPUID2";
	if (!c)
		return -ENOMEM;
	c->nent = CPUID_ROOM;
	err = ioctl(cfg->kvm, KVM_GET_SUPPORTED_CPUID, c) || ioctl(b->vcpu, KVM_SET_CPUID2, c)
		      ? -errno
		      : 0;
	free(c);
	return err;
}

/* 64-bit mode; SDM vol 3, 9.8.5 (the state that its steps lead to) and 3.4.5.1 (types of segments). */
static int registers_set(const struct kvm_bare_config *cfg, struct kvm_bare *b, const char **what)
{
	struct kvm_segment cs = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment ds = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = cfg->rip, .rflags = 2 };
	struct kvm_sregs sregs;

	*what = "KVM_SET_SREGS";
	if (ioctl(b->vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = cs;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = ds;
	sregs.cr0 = 0x80000031; /* PG NE ET PE */
	sregs.cr3 = cfg->cr3;
	sregs.cr4 = 0x20;   /* PAE */
	sregs.efer = 0x500; /* LME LMA */
	sregs.idt.limit = 0;
	sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 11, .present = 1 };
	return ioctl(b->vcpu, KVM_SET_SREGS, &sregs) || ioctl(b->vcpu, KVM_SET_REGS, &regs) ? -errno
											    : 0;
}

int kvm_bare_open(const struct kvm_bare_config *cfg, struct kvm_bare *out, const char **what)
{
	struct kvm_bare b = KVM_BARE_NONE;
	int err = vm_make(cfg, &b, what);

	if (!err)
		err = vcpu_make(cfg, &b, what);
	if (!err)
		err = cpuid_set(cfg, &b, what);
	if (!err)
		err = registers_set(cfg, &b, what);
	if (err) {
		kvm_bare_close(&b);
		return err;
	}
	*out = b;
	return 0;
}

void kvm_bare_close(struct kvm_bare *b)
{
	if (b->run)
		munmap(b->run, b->run_bytes);
	if (b->vcpu >= 0)
		close(b->vcpu);
	if (b->vm >= 0)
		close(b->vm);
	*b = KVM_BARE_NONE;
}
