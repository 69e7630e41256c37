/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/host.c - what /dev/kvm of this host can do.
 *
 * What      Device, rights and capabilities first, each failure with its own words; then what the module says of itself;
 *           then the tiny guest, once per fault path, since versions and parameters do not tell what works.
 * Owns      Nothing that outlives a call.
 * Threads   Any one.
 * I/O       /dev/kvm, /sys/module, /proc/cpuinfo, a VM.
 */
#include "hv/kvm/host.h"

#include "base/err.h"
#include "base/types.h"
#include "hv/kvm/tiny.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define API_VERSION 12 /* the only one since Linux 2.6.22; Documentation/virt/kvm/api.rst, 4.1 */

/* What the engine calls, beside what KVM has had since its first year. */
static const struct capability {
	int number;
	const char *name;
} capabilities[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR" },
	{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER" },
	{ KVM_CAP_EXIT_ON_EMULATION_FAILURE, "KVM_CAP_EXIT_ON_EMULATION_FAILURE" },
};

static void refuse(struct kvm_verdict *v, const char *why, const char *fix)
{
	v->ok = false;
	snprintf(v->why, sizeof(v->why), "%s", why);
	snprintf(v->fix, sizeof(v->fix), "%s", fix);
}

/* --- what files say --------------------------------------------------------------------------------- */

static bool file_read(const char *path, char *buf, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, room - 1);

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	return n >= 0;
}

/* 1 Y, 0 N, -1 no such parameter.  Boolean parameters read as Y or N, older integer ones as a number. */
static int parameter(const struct kvm_host_paths *paths, const char *module, const char *name)
{
	char path[256], value[16];

	snprintf(path, sizeof(path), "%s/%s/parameters/%s", paths->modules, module, name);
	if (!file_read(path, value, sizeof(value)) || !value[0])
		return -1;
	return value[0] == 'Y' || value[0] == '1';
}

static bool module_there(const struct kvm_host_paths *paths, const char *module)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", paths->modules, module);
	return !access(path, F_OK);
}

/* A word of the first CPU's line of flags, or its vendor. */
static bool cpu_says(const struct kvm_host_paths *paths, const char *word)
{
	char buf[8192], want[32];

	if (!file_read(paths->cpuinfo, buf, sizeof(buf)))
		return false;
	for (char *p = buf; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
	snprintf(want, sizeof(want), " %s ", word);
	return strstr(buf, want);
}

static void kind_read(const struct kvm_host_paths *paths, struct kvm_host *h)
{
	bool vmx = module_there(paths, "kvm_intel"), svm = module_there(paths, "kvm_amd");

	if (vmx && svm) { /* built in */
		vmx = cpu_says(paths, "vmx");
		svm = !vmx && cpu_says(paths, "svm");
	}
	h->kind = vmx ? KVM_KIND_VMX : svm ? KVM_KIND_SVM : KVM_KIND_SOFTWARE;
	h->eptad = -1;
	if (vmx) {
		h->two_dimensional = parameter(paths, "kvm_intel", "ept") == 1;
		h->eptad = parameter(paths, "kvm_intel", "eptad");
	} else if (svm) {
		h->two_dimensional = parameter(paths, "kvm_amd", "npt") == 1;
	}
}

/* --- the device ------------------------------------------------------------------------------------- */

static void explain_missing(const struct kvm_host_paths *paths, struct kvm_verdict *v)
{
	bool intel = cpu_says(paths, "vmx"), amd = cpu_says(paths, "svm");

	if (intel || amd)
		refuse(v,
		       "/dev/kvm is not there: the module is not loaded, or virtualization is off "
		       "in the firmware",
		       intel ? "modprobe kvm_intel" : "modprobe kvm_amd");
	else
		refuse(v, "/dev/kvm is not there, and the CPU shows neither vmx nor svm",
		       "turn virtualization on in the firmware (in a virtual host: nested "
		       "virtualization)");
}

static int device_open(const struct kvm_host_paths *paths, struct kvm_host *h)
{
	int fd = open(paths->device, O_RDWR | O_CLOEXEC);
	char text[KVM_HOST_TEXT];

	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		h->err = -ENOENT;
		explain_missing(paths, &h->usable);
		break;
	case EACCES:
	case EPERM:
		h->err = -EACCES;
		refuse(&h->usable, "/dev/kvm: no permission for this user",
		       "usermod -aG kvm USER, then log in again");
		break;
	case EBUSY:
		h->err = -EBUSY;
		refuse(&h->usable, "/dev/kvm is busy", "");
		break;
	default:
		h->err = -ENOTSUP;
		snprintf(text, sizeof(text), "%.100s: %s", paths->device, strerror(errno));
		refuse(&h->usable, text, "");
	}
	return -1;
}

static bool version_check(int fd, struct kvm_host *h)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	char text[KVM_HOST_TEXT];
	size_t at;

	if (version < 0) {
		h->err = -ENOENT;
		refuse(&h->usable, "/dev/kvm is something else, not KVM", "");
		return false;
	}
	h->err = -ENOTSUP;
	if (version != API_VERSION) {
		snprintf(text, sizeof(text), "/dev/kvm speaks API version %d, not %d", version,
			 API_VERSION);
		refuse(&h->usable, text, "");
		return false;
	}
	at = (size_t)snprintf(text, sizeof(text), "KVM is too old, it lacks");
	h->err = 0;
	for (unsigned i = 0; i < ARRAY_LEN(capabilities); i++) {
		if (ioctl(fd, KVM_CHECK_EXTENSION, capabilities[i].number) > 0)
			continue;
		h->err = -ENOTSUP;
		if (at < sizeof(text))
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %s",
					       capabilities[i].name);
	}
	if (h->err)
		refuse(&h->usable, text, "Linux 6.1 or newer");
	return !h->err;
}

/* The CPU's virtualization may be taken although the device opens. */
static bool vm_check(int fd, struct kvm_host *h)
{
	int vm = ioctl(fd, KVM_CREATE_VM, 0);
	char text[KVM_HOST_TEXT];

	if (vm >= 0) {
		close(vm);
		return true;
	}
	if (errno == EBUSY) {
		h->err = -EBUSY;
		refuse(&h->usable, "KVM is busy: another hypervisor holds the CPUs' virtualization",
		       "stop it (modprobe -r vboxdrv, or the VMware modules)");
		return false;
	}
	h->err = -ENOTSUP;
	snprintf(text, sizeof(text), "KVM makes no VM: %s", strerror(errno));
	refuse(&h->usable, text, "");
	return false;
}

/* --- verdicts --------------------------------------------------------------------------------------- */

static void paths_try(int fd, struct kvm_host *h)
{
	struct kvm_tiny tiny;

	kvm_tiny_run(fd, DSM_FAULTS_INLINE, &tiny);
	h->inline_faults = tiny.verdict;
	h->address = tiny.address;
	h->walks_write = tiny.verdict.ok && tiny.walks_write;
	kvm_tiny_run(fd, DSM_FAULTS_DISPATCH, &tiny);
	h->dispatch_faults = tiny.verdict;
	h->walks_write |= tiny.verdict.ok && tiny.walks_write;
	if (!h->inline_faults.ok && !h->two_dimensional && !h->inline_faults.fix[0] &&
	    h->dispatch_faults.ok)
		snprintf(h->inline_faults.fix, sizeof(h->inline_faults.fix), "--faults dispatch");
}

static void shared_judge(struct kvm_host *h)
{
	struct kvm_verdict *v = &h->shared;

	if (!h->two_dimensional)
		refuse(v,
		       h->kind == KVM_KIND_SOFTWARE
			       ? "this KVM works in software with shadow page tables, which miss "
				 "what another node writes to a page table"
			       : "shadow page tables (ept or npt is off) miss what another node "
				 "writes to a page table",
		       h->kind == KVM_KIND_VMX ? "echo \"options kvm_intel ept=1 eptad=0\" > "
						 "/etc/modprobe.d/unum.conf; modprobe -r "
						 "kvm_intel; modprobe kvm_intel"
					       : "--engine bt");
	else if (h->kind == KVM_KIND_SVM)
		refuse(v,
		       "on AMD every walk of a guest's page tables counts as a write, so nodes "
		       "would only take turns",
		       "--engine bt");
	else if (h->eptad)
		refuse(v,
		       "EPT accessed/dirty bits are on: every walk of a guest's page tables counts "
		       "as a write",
		       "echo \"options kvm_intel eptad=0\" > /etc/modprobe.d/unum.conf; modprobe "
		       "-r kvm_intel; modprobe kvm_intel");
	else if (h->walks_write)
		refuse(v, "eptad is off, and yet a walk of a guest's page tables was seen to write",
		       "--engine bt");
	else if (!h->inline_faults.ok && !h->dispatch_faults.ok)
		refuse(v, "neither fault path works here", "");
	else
		v->ok = true;
}

void kvm_host_probe_at(const struct kvm_host_paths *paths, struct kvm_host *out)
{
	struct kvm_host h = { .eptad = -1 };
	int fd = device_open(paths, &h);

	if (fd >= 0) {
		kind_read(paths, &h);
		h.usable.ok = version_check(fd, &h) && vm_check(fd, &h);
	}
	if (h.usable.ok) {
		h.tsc_scaling = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
		h.vcpus_max = (unsigned)ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
		paths_try(fd, &h);
		shared_judge(&h);
	} else {
		h.inline_faults = h.dispatch_faults = h.shared = h.usable;
	}
	if (fd >= 0)
		close(fd);
	*out = h;
}

void kvm_host_probe(struct kvm_host *out)
{
	static const struct kvm_host_paths real = { "/dev/kvm", "/sys/module", "/proc/cpuinfo" };

	kvm_host_probe_at(&real, out);
}

const char *kvm_kind_name(enum kvm_kind kind)
{
	static const char *const names[] = { "none", "vmx", "svm", "software" };

	return names[kind];
}

const char *kvm_address_name(enum kvm_address address)
{
	static const char *const names[] = { "none", "exit", "perf" };

	return names[address];
}
