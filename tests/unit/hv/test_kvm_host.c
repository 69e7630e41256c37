/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/hv/test_kvm_host.c - what is said of a host's KVM: made-up devices, modules and rights, and the real one.
 */
#include "hv/kvm/host.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/unum-kvm-host-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (char *slash = path + sizeof(dir); (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = 0;
		mkdir(path, 0755);
	}
	f = fopen(path, "w");
	cr_assert(f, "%s", path);
	fputs(text, f);
	fclose(f);
}

static void setup(void)
{
	cr_assert(mkdtemp(dir));
	put("cpuinfo", "processor\t: 0\nflags\t\t: fpu vme vmx sse2\n");
}

static void teardown(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(kvm_host, .init = setup, .fini = teardown, .timeout = 60);

static struct kvm_host probe(const char *device)
{
	char cpuinfo[64];
	struct kvm_host_paths paths = { device, dir, cpuinfo };
	struct kvm_host h;

	snprintf(cpuinfo, sizeof(cpuinfo), "%s/cpuinfo", dir);
	kvm_host_probe_at(&paths, &h);
	return h;
}

/* Without a usable KVM every verdict is the same no, with its reason. */
static void all_refused(const struct kvm_host *h, int err, const char *why, const char *fix)
{
	const struct kvm_verdict *all[] = { &h->usable, &h->inline_faults, &h->dispatch_faults,
					    &h->shared };

	cr_assert_eq(h->err, err, "%d", h->err);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_not(all[i]->ok);
		cr_assert(strstr(all[i]->why, why), "%s", all[i]->why);
		cr_assert(strstr(all[i]->fix, fix), "%s", all[i]->fix);
	}
	cr_assert_eq(h->address, KVM_ADDRESS_NONE);
}

Test(kvm_host, no_device)
{
	struct kvm_host h = probe("/nowhere/kvm");

	all_refused(&h, -ENOENT, "not there", "modprobe kvm_intel");
	put("cpuinfo", "flags\t\t: fpu svm\n");
	h = probe("/nowhere/kvm");
	all_refused(&h, -ENOENT, "not there", "modprobe kvm_amd");
	put("cpuinfo", "flags\t\t: fpu avmx vmxx\n");
	h = probe("/nowhere/kvm");
	all_refused(&h, -ENOENT, "neither vmx nor svm", "firmware");
	put("cpuinfo", "");
	h = probe("/nowhere/kvm");
	all_refused(&h, -ENOENT, "neither vmx nor svm", "firmware");
}

Test(kvm_host, no_permission)
{
	char path[64];
	struct kvm_host h;

	put("kvm", "");
	snprintf(path, sizeof(path), "%s/kvm", dir);
	cr_assert_eq(chmod(path, 0), 0);
	if (!geteuid())
		cr_assert_eq(seteuid(65534), 0);
	h = probe(path);
	if (!getuid())
		cr_assert_eq(seteuid(0), 0);
	all_refused(&h, -EACCES, "permission", "usermod -aG kvm");
}

Test(kvm_host, another_device_is_not_kvm)
{
	struct kvm_host h = probe("/dev/null");

	all_refused(&h, -ENOENT, "not KVM", "");
}

/* What the files of a module say decides before anything is tried; the device is the real one. */
static bool real(void)
{
	return !access("/dev/kvm", R_OK | W_OK);
}

Test(kvm_host, kinds)
{
	struct kvm_host h;

	if (!real())
		cr_skip_test("no /dev/kvm here");
	h = probe("/dev/kvm");
	cr_assert_eq(h.kind, KVM_KIND_SOFTWARE);
	cr_assert_not(h.two_dimensional);
	cr_assert(strstr(h.shared.why, "software"), "%s", h.shared.why);
	cr_assert(strstr(h.shared.fix, "--engine bt"));

	put("kvm_amd/parameters/npt", "1\n");
	h = probe("/dev/kvm");
	cr_assert_eq(h.kind, KVM_KIND_SVM);
	cr_assert(h.two_dimensional);
	cr_assert_not(h.shared.ok);
	cr_assert(strstr(h.shared.why, "AMD"));
	put("kvm_amd/parameters/npt", "N\n");
	h = probe("/dev/kvm");
	cr_assert_not(h.two_dimensional);
	cr_assert(strstr(h.shared.why, "shadow"));

	put("kvm_intel/parameters/ept", "Y\n"); /* both are there: built in; the CPU is Intel's */
	put("kvm_intel/parameters/eptad", "Y\n");
	h = probe("/dev/kvm");
	cr_assert_eq(h.kind, KVM_KIND_VMX);
	cr_assert_eq(h.eptad, 1);
	cr_assert_not(h.shared.ok);
	cr_assert(strstr(h.shared.fix, "options kvm_intel eptad=0"), "%s", h.shared.fix);
	put("kvm_intel/parameters/ept", "N\n");
	h = probe("/dev/kvm");
	cr_assert_not(h.two_dimensional);
	cr_assert(strstr(h.shared.fix, "ept=1 eptad=0"), "%s", h.shared.fix);
	put("kvm_intel/parameters/ept", "Y\n");
	put("kvm_intel/parameters/eptad", "N\n");
	h = probe("/dev/kvm");
	cr_assert_eq(h.eptad, 0);
	/* What was seen goes before what is said: on a real AMD host that claims to be this, walks still write. */
	cr_assert_eq(h.shared.ok, !h.walks_write && (h.inline_faults.ok || h.dispatch_faults.ok), "%s",
		     h.shared.why);
}

Test(kvm_host, the_real_one)
{
	struct kvm_host h;

	kvm_host_probe(&h);
	cr_assert_eq(h.usable.ok, !h.err);
	cr_assert_eq(h.inline_faults.ok, h.address != KVM_ADDRESS_NONE);
	if (!h.usable.ok)
		cr_assert(h.usable.why[0]);
	if (!h.inline_faults.ok)
		cr_assert(h.inline_faults.why[0]);
	if (!h.dispatch_faults.ok)
		cr_assert(h.dispatch_faults.why[0]);
	if (!h.shared.ok)
		cr_assert(h.shared.why[0]);
	if (!h.usable.ok)
		return;
	cr_assert_geq(h.vcpus_max, 1);
	/* Shadow paging: the guest sees a page fault of KVM's making; and that is seen. */
	if (!h.two_dimensional)
		cr_assert(strstr(h.inline_faults.why, "page fault of KVM's making"), "%s",
			  h.inline_faults.why);
	if (!geteuid())
		cr_assert(h.dispatch_faults.ok, "root may have faults of the kernel parked: %s",
			  h.dispatch_faults.why);
	cr_assert(!h.shared.ok || (h.kind == KVM_KIND_VMX && h.eptad == 0));
}

/* Without rights to anything but the device: no dispatch, and words for it. */
Test(kvm_host, rights_of_a_user)
{
	char path[64], sysctl[8] = "";
	struct kvm_host h;
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "%s/kvm", dir);
	if (!real() || geteuid() || stat("/dev/kvm", &st) ||
	    mknod(path, S_IFCHR | 0600, st.st_rdev) || chmod(path, 0666))
		cr_skip_test("needs root and /dev/kvm");
	cr_assert_eq(chmod(dir, 0755), 0);
	cr_assert_eq(seteuid(65534), 0); /* takes the effective capabilities, too */
	h = probe(path);
	cr_assert_eq(seteuid(0), 0);
	cr_assert(h.usable.ok, "%s", h.usable.why);
	f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
	if (!f || !fgets(sysctl, sizeof(sysctl), f) || sysctl[0] != '0')
		return;
	fclose(f);
	cr_assert_not(h.dispatch_faults.ok);
	cr_assert(strstr(h.dispatch_faults.fix, "unprivileged_userfaultfd=1"), "%s",
		  h.dispatch_faults.fix);
	cr_assert_not(h.inline_faults.ok && h.address == KVM_ADDRESS_PERF);
	cr_assert(h.inline_faults.ok || h.inline_faults.why[0]);
}
