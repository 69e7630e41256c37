/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/engine.c - the kvm engine's ops table: choosing, opening and closing.
 *
 * Owns      The VM's file descriptors and memory slots; per vCPU its descriptor and shared page.
 * Threads   As hv/engine.h says.
 * Limits    No in-kernel interrupt controller: LAPIC, IOAPIC and timers are the monitor's.  Nothing of KVM's that writes
 *           guest memory on its own account (clock, steal time, async page faults, EOI) is enabled.
 */
#include "hv/kvm/kvm.h"

#include "base/assert.h"
#include "base/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KICK_SIGNAL SIGUSR2
/* Four pages below 4 GiB that VMX without unrestricted guests needs, in the hole (hv/core/layout.h). */
#define IDENTITY_MAP 0xfffbc000ull
#define TSS_ADDRESS 0xfffbd000ul

int kvm_call(int fd, unsigned long request, void *arg)
{
	int r;

	do
		r = ioctl(fd, request, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

void kvm_error(struct hv_vcpu *v, struct hv_exit *exit, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
	*exit = (struct hv_exit){ .reason = HV_EXIT_ERROR, .text = v->text };
}

/* --- choosing ------------------------------------------------------------------------------------------------- */

static int engine_probe(const char **why)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), err = fd < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	if (err)
		*why = err == -ENOENT	? "no /dev/kvm"
		       : err == -EACCES ? "/dev/kvm may not be opened"
					: "/dev/kvm cannot be opened";
	return err;
}

static int refuse(struct hv_engine_terms *t, int err, const char *why, const char *fix)
{
	snprintf(t->why, sizeof(t->why), "%s%s%s", why, *fix ? "; to mend it: " : "", fix);
	return err;
}

/* A software back end may know few instructions; what runs on it was made for it.  Any other host must have them all. */
static int agree_cpu(const struct hv_engine_need *need, bool lenient, struct hv_engine_terms *t)
{
	struct hv_cpuid_entry host[HV_CPUID_HOST_MAX];
	char words[HV_CPUID_WORDS_MAX], missing[HV_CPUID_WORDS_MAX];
	unsigned count = kvm_cpuid_host(host);

	hv_cpuid_lacking(host, count, missing);
	if (missing[0] && lenient) {
		log_info("kvm: the guest's CPU has no %s", missing);
		strcpy(t->without, missing);
	} else if (missing[0]) {
		snprintf(t->why, sizeof(t->why), "KVM cannot show a guest: %.400s", missing);
		return -ENOTSUP;
	}
	hv_cpuid_offered(host, count, words);
	hv_cpuid_words_missing(need->cpu_features, words, missing);
	if (missing[0]) {
		snprintf(t->why, sizeof(t->why), "this host has no %.400s", missing);
		return -ENOTSUP;
	}
	return 0;
}

static int agree_faults(const struct hv_engine_need *need, const struct kvm_host *h,
			struct hv_engine_terms *t)
{
	const struct kvm_verdict *v = &h->dispatch_faults;

	t->faults = need->faults;
	if (need->choose_faults && !need->several) { /* the memory of one node has no faults: dsm/map_uffd.c */
		t->faults = DSM_FAULTS_DISPATCH;
		return 0;
	}
	if (need->choose_faults) { /* as hv/core/verdict.c tells it */
		bool first = need->private_tables ? h->inline_faults.ok : !h->dispatch_faults.ok;

		t->faults = first ? DSM_FAULTS_INLINE : DSM_FAULTS_DISPATCH;
	}
	if (t->faults == DSM_FAULTS_INLINE)
		v = &h->inline_faults;
	t->fault_address = h->address;
	return v->ok ? 0 : refuse(t, -ENOTSUP, v->why, v->fix);
}

static bool tsc_shifts(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	bool shifts = fd >= 0 && kvm_trial_tsc(fd);

	if (fd >= 0)
		close(fd);
	return shifts;
}

static int engine_agree(const struct hv_engine_need *need, struct hv_engine_terms *t)
{
	struct kvm_host h;
	int err;

	kvm_host_probe(&h);
	if (h.err || !h.usable.ok)
		return refuse(t, h.err ? h.err : -ENOTSUP, h.usable.why, h.usable.fix);
	if (!need->named && h.kind == KVM_KIND_SOFTWARE)
		return refuse(t, -ENOTSUP, "this KVM is a software back end, slower than bt",
			      "name the engine: --engine kvm");
	if (need->several && !h.shared.ok && !need->private_tables)
		return refuse(t, -ENOTSUP, h.shared.why, h.shared.fix);
	t->tsc_fixed = !tsc_shifts();
	err = agree_faults(need, &h, t);
	return err ? err : agree_cpu(need, h.kind == KVM_KIND_SOFTWARE, t);
}

/* --- VM ------------------------------------------------------------------------------------------------------- */

static void on_kick(int sig)
{
	(void)sig; /* its arrival ends KVM_RUN */
}

static int signal_open(void)
{
	struct sigaction sa = { .sa_handler = on_kick };

	return sigaction(KICK_SIGNAL, &sa, NULL) ? -errno : 0;
}

static int cap_enable(int fd, uint32_t cap, uint64_t value)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { value } };

	return kvm_call(fd, KVM_ENABLE_CAP, &c);
}

static int slot_add(struct hv_vm *vm, gfn_t first, uint64_t pages)
{
	struct kvm_userspace_memory_region r = {
		.slot = vm->slots,
		.guest_phys_addr = first << PAGE_SHIFT,
		.memory_size = pages << PAGE_SHIFT,
		.userspace_addr = (uintptr_t)dsm_view(vm->dsm) + (first << PAGE_SHIFT),
	};

	vm->slots++;
	return kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

/* One slot for each piece without a hole; ranges come in any order. */
static int slots_add(struct hv_vm *vm, const struct hv_vm_config *cfg)
{
	for (unsigned i = 0; i < cfg->ram_count; i++) {
		gfn_t first = cfg->ram[i].first, end = first + cfg->ram[i].count;
		int err;

		if (first && dsm_is_ram(vm->dsm, first - 1))
			continue; /* part of the piece that begins below */
		for (unsigned k = 0; k < cfg->ram_count; k++) {
			if (cfg->ram[k].first != end)
				continue;
			end += cfg->ram[k].count;
			k = UINT32_MAX; /* from the start again */
		}
		err = slot_add(vm, first, end - first);
		if (err)
			return err;
	}
	return 0;
}

static int vm_setup(struct hv_vm *vm, const struct hv_vm_config *cfg)
{
	uint64_t identity = IDENTITY_MAP;
	int err = 0;

	if (kvm_call(vm->kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
		err = kvm_call(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (!err && kvm_call(vm->kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_SET_TSS_ADDR) > 0)
		err = kvm_call(vm->fd, KVM_SET_TSS_ADDR, (void *)TSS_ADDRESS);
	/* Without it KVM queues #UD before it tells, and the instruction could not be tried again. */
	if (!err)
		err = cap_enable(vm->fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	if (!err)
		err = kvm_msr_open(vm);
	return err ? err : slots_add(vm, cfg);
}

static void vm_free(struct hv_vm *vm)
{
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm >= 0)
		close(vm->kvm);
	free(vm);
}

static int vm_make(struct hv_vm *vm)
{
	int r;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return -errno;
	r = kvm_call(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < 0)
		return r;
	vm->run_len = (size_t)r;
	vm->has_xcrs = kvm_call(vm->kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_XCRS) > 0;
	vm->fd = kvm_call(vm->kvm, KVM_CREATE_VM, NULL);
	return vm->fd < 0 ? vm->fd : 0;
}

static int engine_vm_open(const struct hv_vm_config *cfg, struct hv_vm **out)
{
	struct hv_vm *vm = calloc(1, sizeof(*vm));
	int err;

	if (!vm)
		return -ENOMEM;
	vm->kvm = vm->fd = -1;
	vm->dsm = cfg->dsm;
	vm->cpuid = cfg->cpuid;
	vm->cpuid_count = cfg->cpuid_count;
	if (cfg->terms) {
		vm->faults = cfg->terms->faults;
		vm->address = (enum kvm_address)cfg->terms->fault_address;
	}
	err = signal_open();
	if (!err)
		err = vm_make(vm);
	if (!err)
		err = vm_setup(vm, cfg);
	if (err) {
		log_error("kvm: VM: %s", strerror(-err));
		vm_free(vm);
		return err;
	}
	*out = vm;
	return 0;
}

/* --- vCPU ----------------------------------------------------------------------------------------------------- */

static void engine_vcpu_close(struct hv_vcpu *v)
{
	kvm_faults_close(v->faults);
	if (v->run)
		munmap(v->run, v->vm->run_len);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static int vcpu_make(struct hv_vcpu *v)
{
	void *run;
	int err = 0;

	v->fd = kvm_call(v->vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)v->id);
	if (v->fd < 0)
		return v->fd;
	run = mmap(NULL, v->vm->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	v->run = run;
	if (kvm_call(v->vm->kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_ENFORCE_PV_FEATURE_CPUID) > 0)
		err = cap_enable(v->fd, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
	if (!err)
		err = kvm_cpuid_set(v);
	return err ? err : kvm_state_open(v);
}

static int engine_vcpu_open(struct hv_vm *vm, unsigned id, struct hv_vcpu **out)
{
	struct hv_vcpu *v = calloc(1, sizeof(*v));
	int err;

	if (!v)
		return -ENOMEM;
	v->vm = vm;
	v->id = id;
	v->fd = -1;
	err = vcpu_make(v);
	if (err) {
		log_error("kvm: vCPU %u: %s", id, strerror(-err));
		engine_vcpu_close(v);
		return err;
	}
	*out = v;
	return 0;
}

/* --- interrupts ----------------------------------------------------------------------------------------------- */

static bool engine_irq_ready(struct hv_vcpu *v)
{
	return kvm_run_finish(v) && v->run->ready_for_interrupt_injection;
}

static void engine_inject_irq(struct hv_vcpu *v, uint8_t vector)
{
	struct kvm_interrupt irq = { .irq = vector };
	int err = kvm_call(v->fd, KVM_INTERRUPT, &irq);

	ASSERT(!err); /* no in-kernel controller, and it was ready */
	v->run->ready_for_interrupt_injection = 0;
}

/* KVM latches one NMI behind the one in service and merges more, as a CPU does. */
static bool engine_nmi_ready(struct hv_vcpu *v)
{
	(void)v;
	return true;
}

static void engine_inject_nmi(struct hv_vcpu *v)
{
	int err = kvm_call(v->fd, KVM_NMI, NULL);

	ASSERT(!err);
	v->nmi_sent = true;
}

/* Without an in-kernel LAPIC, KVM takes CR8 from the shared page when it enters the guest and leaves it there. */
static uint64_t engine_get_tpr(struct hv_vcpu *v)
{
	return v->run->cr8;
}

static void engine_set_tpr(struct hv_vcpu *v, uint64_t cr8)
{
	v->run->cr8 = cr8;
}

static bool engine_settle(struct hv_vcpu *v)
{
	return kvm_run_finish(v);
}

static void engine_get_state(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	kvm_run_finish(v);
	kvm_state_get(v, out);
}

static int engine_set_state(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	kvm_run_abandon(v);
	return kvm_state_set(v, in);
}

const struct hv_engine hv_engine_kvm = {
	.name = "kvm",
	.mapping = DSM_MAP_UFFD,
	.probe = engine_probe,
	.agree = engine_agree,
	.host_cpuid = kvm_cpuid_host,
	.vm_open = engine_vm_open,
	.vm_close = vm_free,
	.vcpu_open = engine_vcpu_open,
	.vcpu_close = engine_vcpu_close,
	.settle = engine_settle,
	.get_state = engine_get_state,
	.set_state = engine_set_state,
	.run = kvm_run_guest,
	.irq_ready = engine_irq_ready,
	.inject_irq = engine_inject_irq,
	.nmi_ready = engine_nmi_ready,
	.inject_nmi = engine_inject_nmi,
	.get_tpr = engine_get_tpr,
	.set_tpr = engine_set_tpr,
	.kick = kvm_run_kick,
};
