/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_facts.c - finds out what this host can do for a VM.
 *
 * I/O       Reads /proc and /sys; opens /dev/kvm (hv/kvm/host.c), a userfaultfd and a tracepoint, and closes them again.
 *           Nothing is changed on the host.
 * Limits    Of network interfaces and RDMA devices the first HV_NICS_MAX.
 */
#include "hv/host_facts.h"

#include "base/assert.h"
#include "hv/engine.h"
#include "hv/kvm/faults.h"
#include "hv/slice_priv.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

/* --- small files ---------------------------------------------------------------------------------------------- */

int hv_host_line(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	ssize_t len = 0;

	out[0] = 0;
	if (fd < 0)
		return -errno;
	len = read(fd, out, size - 1);
	if (len < 0)
		err = -errno;
	out[len > 0 ? len : 0] = 0;
	out[strcspn(out, "\n")] = 0;
	close(fd);
	return err;
}

static long long number_read(const char *path, long long otherwise)
{
	char text[64], *end;
	long long n;

	if (hv_host_line(path, text, sizeof(text)) || !*text)
		return otherwise;
	n = strtoll(text, &end, 10);
	return end == text ? otherwise : n;
}

/* "Name:   123 kB" lines, as in /proc/meminfo and /proc/self/status. */
static bool field_read(const char *path, const char *name, int base, uint64_t *out)
{
	FILE *f = fopen(path, "re");
	char line[512];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		size_t len = strlen(name);

		if (strncmp(line, name, len) || line[len] != ':')
			continue;
		*out = strtoull(line + len + 1, NULL, base);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

static bool has_capability(unsigned number)
{
	uint64_t effective = 0;

	return field_read("/proc/self/status", "CapEff", 16, &effective) && effective >> number & 1;
}

/* --- CPU ------------------------------------------------------------------------------------------------------ */

/* What the guest's model has (hv/core/cpuid.c) and a 64-bit CPU need not.  Leaf 1 ECX, or 0x80000001 ECX. */
static const struct {
	const char *name;
	uint32_t leaf;
	uint8_t bit;
} v2[] = {
	{ "sse3", 1, 0 },   { "ssse3", 1, 9 },	 { "cx16", 1, 13 },   { "sse4_1", 1, 19 },
	{ "sse4_2", 1, 20 }, { "popcnt", 1, 23 }, { "lahf_lm", 0x80000001, 0 },
};

static void cpu_take(struct hv_host_facts *f)
{
	uint32_t r[4], brand[12] = { 0 };
	char missing[80] = "";

	__cpuid(0, r[0], r[1], r[2], r[3]);
	memcpy(f->cpu_vendor, &r[1], 4);
	memcpy(f->cpu_vendor + 4, &r[3], 4);
	memcpy(f->cpu_vendor + 8, &r[2], 4);
	for (unsigned i = 0; i < 3; i++)
		__get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2],
			    &brand[4 * i + 3]);
	memcpy(f->cpu_model, brand, sizeof(brand));
	f->cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	for (unsigned i = 0; i < ARRAY_LEN(v2); i++) {
		r[2] = 0;
		if (__get_cpuid(v2[i].leaf, &r[0], &r[1], &r[2], &r[3]) && r[2] >> v2[i].bit & 1)
			continue;
		strncat(missing, " ", sizeof(missing) - strlen(missing) - 1);
		strncat(missing, v2[i].name, sizeof(missing) - strlen(missing) - 1);
	}
	f->cpu.ok = !*missing;
	if (*missing)
		snprintf(f->cpu.why, sizeof(f->cpu.why), "the CPU lacks%s of x86-64-v2", missing);
	r[3] = 0;
	__get_cpuid(0x80000007, &r[0], &r[1], &r[2], &r[3]);
	f->tsc_invariant = r[3] >> 8 & 1;
}

static void features_take(struct hv_host_facts *f)
{
	struct hv_cpuid_entry entry[HV_CPUID_HOST_MAX];

	STATIC_ASSERT(sizeof(f->cpu_features) >= HV_CPUID_WORDS_MAX, "all names");
	if (f->kvm.usable.ok)
		hv_cpuid_offered(entry, hv_engine_kvm.host_cpuid(entry), f->cpu_features);
}

static void tsc_take(struct hv_host_facts *f)
{
	struct hv_clock clock = { 0 };

	if (!hv_clock_init(&clock, 0))
		f->tsc_khz = clock.tsc_khz;
	hv_host_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", f->clocksource,
		  sizeof(f->clocksource));
}

/* --- rights --------------------------------------------------------------------------------------------------- */

/* The ways that dsm/uffd.c goes for faults of KVM's own accesses; those of user mode alone need no right. */
static void userfaultfd_take(struct hv_host_facts *f)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), err = errno, dev;

	f->cap_ptrace = has_capability(CAP_SYS_PTRACE);
	if (fd < 0) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev >= 0) {
			fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
			close(dev);
		}
	}
	f->userfaultfd.ok = fd >= 0;
	if (fd >= 0) {
		close(fd);
		return;
	}
	snprintf(f->userfaultfd.why, KVM_HOST_TEXT, "not allowed for faults of the kernel: %s", strerror(err));
	if (err == EPERM)
		snprintf(f->userfaultfd.fix, KVM_HOST_TEXT,
			 "setfacl -m g:kvm:rw /dev/userfaultfd, or sysctl -w vm.unprivileged_userfaultfd=1");
}

static void perf_take(struct hv_host_facts *f)
{
	struct kvm_faults *ring;
	const char *why, *fix;
	int err = kvm_faults_open(KVM_ADDRESS_PERF, NULL, &ring);

	f->cap_perfmon = has_capability(CAP_PERFMON) || has_capability(CAP_SYS_ADMIN);
	f->perf_paranoid = (int)number_read("/proc/sys/kernel/perf_event_paranoid", -99);
	f->tracefs = !access("/sys/kernel/tracing/events", R_OK | X_OK) ||
		     !access("/sys/kernel/debug/tracing/events", R_OK | X_OK);
	f->perf.ok = !err;
	if (!err) {
		kvm_faults_close(ring);
		return;
	}
	kvm_faults_explain(err, &why, &fix);
	snprintf(f->perf.why, KVM_HOST_TEXT, "%s", why);
	snprintf(f->perf.fix, KVM_HOST_TEXT, "%s", fix);
}

/* --- memory, time ------------------------------------------------------------------------------------ */

static void memory_take(struct hv_host_facts *f)
{
	static const char file[] = "/proc/meminfo";
	struct rlimit lock;
	char thp[64], *word;

	field_read(file, "MemTotal", 10, &f->memory_kib);
	field_read(file, "MemAvailable", 10, &f->memory_free_kib);
	field_read(file, "HugePages_Total", 10, &f->huge_pages);
	field_read(file, "HugePages_Free", 10, &f->huge_pages_free);
	field_read(file, "Hugepagesize", 10, &f->huge_page_kib);
	f->memlock_kib = UINT64_MAX;
	if (!getrlimit(RLIMIT_MEMLOCK, &lock) && lock.rlim_cur != RLIM_INFINITY)
		f->memlock_kib = lock.rlim_cur >> 10;
	/* "always [madvise] never": what holds is in brackets */
	hv_host_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp));
	word = strchr(thp, '[');
	if (word)
		snprintf(f->thp, sizeof(f->thp), "%.*s", (int)strcspn(word + 1, "]"), word + 1);
}

static void clock_take(struct hv_host_facts *f)
{
	struct timex t = { 0 };
	int state = adjtimex(&t);

	f->clock_synchronized = state >= 0 && state != TIME_ERROR && !(t.status & STA_UNSYNC);
	f->clock_error_us = t.maxerror;
	f->clock_estimate_us = t.esterror;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

static void bt_take(struct hv_host_facts *f)
{
	const char *why = "";

	f->bt.ok = !hv_engine_bt.probe(&why);
	if (!f->bt.ok)
		snprintf(f->bt.why, KVM_HOST_TEXT, "%s", why);
}

void hv_host_facts_take(struct hv_host_facts *f)
{
	struct utsname u;

	*f = (struct hv_host_facts){ 0 };
	if (!uname(&u)) {
		snprintf(f->name, sizeof(f->name), "%s", u.nodename);
		snprintf(f->release, sizeof(f->release), "%s", u.release);
	}
	cpu_take(f);
	tsc_take(f);
	bt_take(f);
	kvm_host_probe(&f->kvm);
	features_take(f);
	userfaultfd_take(f);
	perf_take(f);
	memory_take(f);
	clock_take(f);
	hv_host_fabric_take("/sys", &f->fabric);
}

static struct hv_tried tried(const struct kvm_verdict *v)
{
	return (struct hv_tried){ v->ok, v->why, v->fix };
}

struct hv_host_can hv_host_can(const struct hv_host_facts *f)
{
	struct hv_host_can can = {
		.cpu = tried(&f->cpu),
		.bt = tried(&f->bt),
		.kvm = tried(&f->kvm.usable),
		.kvm_slow = f->kvm.kind == KVM_KIND_SOFTWARE,
		.shared = tried(&f->kvm.shared),
		.inline_faults = tried(&f->kvm.inline_faults),
		.dispatch_faults = tried(&f->kvm.dispatch_faults),
	};

	switch (f->kvm.err) {
	case -ENOENT:
		can.kvm_refusal = HV_REFUSAL_NO_DEVICE;
		break;
	case -EACCES:
		can.kvm_refusal = HV_REFUSAL_NO_PERMISSION;
		break;
	case -EBUSY:
		can.kvm_refusal = HV_REFUSAL_BUSY;
		break;
	default:
		can.kvm_refusal = HV_REFUSAL_TOO_OLD;
	}
	return can;
}
