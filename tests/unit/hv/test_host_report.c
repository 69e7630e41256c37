/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hv/test_host_report.c - hosts of every kind, in words and as JSON. */
#include "hv/host_facts.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct kvm_verdict yes = { .ok = true };

static struct kvm_verdict no(const char *why, const char *fix)
{
	struct kvm_verdict v = { .ok = false };

	snprintf(v.why, sizeof(v.why), "%s", why);
	snprintf(v.fix, sizeof(v.fix), "%s", fix);
	return v;
}

/* An Intel host as it should be. */
static struct hv_host_facts *good_host(void)
{
	struct hv_host_facts *f = calloc(1, sizeof(*f));

	strcpy(f->name, "alpha");
	strcpy(f->release, "6.1.0");
	strcpy(f->cpu_features, "avx avx2");
	f->cpu = f->bt = f->userfaultfd = f->perf = yes;
	f->kvm = (struct kvm_host){ .usable = yes,
				    .inline_faults = yes,
				    .dispatch_faults = yes,
				    .shared = yes,
				    .kind = KVM_KIND_VMX,
				    .two_dimensional = true,
				    .address = KVM_ADDRESS_PERF,
				    .vcpus_max = 1024 };
	f->tsc_invariant = f->clock_synchronized = true;
	f->tsc_khz = 2400000;
	f->memlock_kib = UINT64_MAX;
	f->fabric.nics = f->fabric.rdmas = 1;
	f->fabric.nic[0] = (struct hv_nic){ "ens1", 9000, 100000, true, "10.77.0.1/24 fd00::1/64" };
	f->fabric.rdma[0] = (struct hv_rdma_port){ .device = "mlx5_0", .interface = "ens1", .number = 1, .mtu = 4096,
						   .ethernet = true, .active = true, .state = "ACTIVE",
						   .rate = "100 Gb/sec (4X EDR)", .address = "10.77.0.1",
						   .network = "10.77.0.0/24", .usable = yes };
	return f;
}

static const struct hv_finding *finding_of(const struct hv_finding *all, unsigned n, const char *topic)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(all[i].topic, topic))
			return &all[i];
	cr_assert(false, "nothing is told of %s", topic);
	return NULL;
}

static void level_is(const struct hv_host_facts *f, const char *topic, enum hv_level level, const char *fix)
{
	struct hv_finding all[HV_FINDINGS_MAX];
	unsigned n = hv_host_findings(f, all);
	const struct hv_finding *found = finding_of(all, n, topic);

	cr_expect_eq(found->level, level, "%s: %s", topic, found->text);
	cr_expect_str_eq(found->fix, fix, "%s", topic);
}

Test(host_report, a_good_host_has_no_trouble)
{
	struct hv_host_facts *f = good_host();
	struct hv_finding all[HV_FINDINGS_MAX];
	unsigned n = hv_host_findings(f, all);

	cr_expect_geq(n, 12);
	for (unsigned i = 0; i < n; i++)
		cr_expect(all[i].level == HV_LEVEL_OK && !*all[i].fix, "%s", all[i].text);
	free(f);
}

Test(host_report, what_can_be_mended_is_a_problem_with_its_command)
{
	struct hv_host_facts *f = good_host();

	f->kvm.eptad = 1;
	f->kvm.shared = no("eptad is on", "modprobe it again");
	level_is(f, "shared", HV_LEVEL_PROBLEM, "modprobe it again");
	f->kvm.shared = no("AMD", "--engine bt"); /* a way round for a VM, no cure for the host */
	level_is(f, "shared", HV_LEVEL_NOTE, "");
	f->kvm.inline_faults = no("no tracing", "setcap");
	level_is(f, "inline", HV_LEVEL_NOTE, "setcap"); /* dispatch does */
	f->kvm.dispatch_faults = no("no userfaultfd", "sysctl");
	level_is(f, "inline", HV_LEVEL_PROBLEM, "setcap");
	level_is(f, "dispatch", HV_LEVEL_PROBLEM, "sysctl");
	f->kvm.usable = no("no /dev/kvm", "");
	level_is(f, "kvm", HV_LEVEL_NOTE, "");
	f->kvm.usable = no("no permission", "usermod");
	level_is(f, "kvm", HV_LEVEL_PROBLEM, "usermod");
	f->cpu = no("no popcnt", "");
	level_is(f, "cpu", HV_LEVEL_PROBLEM, "");
	f->fabric.rdma[0].usable = no("port 1 has no address", "ip address add");
	level_is(f, "rdma", HV_LEVEL_PROBLEM, "ip address add");
	f->fabric.rdma[0].usable = no("another port comes first", "");
	level_is(f, "rdma", HV_LEVEL_NOTE, "");
	free(f);
}

/* More interfaces and devices than there is room for, and the longest texts. */
Test(host_report, never_more_findings_than_there_is_room)
{
	struct hv_host_facts *f = good_host();
	struct hv_finding all[HV_FINDINGS_MAX];

	_Static_assert(HV_RDMA_MAX == HV_NICS_MAX, "filled together");
	f->fabric.nics = f->fabric.rdmas = HV_NICS_MAX;
	for (unsigned i = 0; i < HV_NICS_MAX; i++) {
		f->fabric.rdma[i] = f->fabric.rdma[0];
		f->fabric.rdma[i].usable = no("", "");
		memset(f->fabric.rdma[i].usable.why, 'w', KVM_HOST_TEXT - 1);
		memset(f->fabric.rdma[i].usable.fix, 'f', KVM_HOST_TEXT - 1);
		f->fabric.nic[i] = f->fabric.nic[0];
		memset(f->fabric.nic[i].name, 'n', sizeof(f->fabric.nic[i].name) - 1);
	}
	memset(f->kvm.inline_faults.why, 'w', KVM_HOST_TEXT - 1);
	memset(f->kvm.inline_faults.fix, 'f', KVM_HOST_TEXT - 1);
	f->kvm.inline_faults.ok = false;
	cr_expect_leq(hv_host_findings(f, all), HV_FINDINGS_MAX);
	free(f);
}

static const char *text_at(const json_t *json, const char *a, const char *b, const char *c)
{
	const json_t *v = json_object_get(json_object_get(json, a), b);
	const char *s = json_string_value(c ? json_object_get(v, c) : v);

	return s ? s : "?";
}

Test(host_report, json)
{
	struct hv_host_facts *f = good_host();
	json_t *j = hv_host_json(f, NULL);

	cr_assert_not_null(j);
	cr_expect_str_eq(text_at(j, "verdict", "several", "engine"), "kvm");
	cr_expect_str_eq(text_at(j, "verdict", "several", "faults"), "dispatch");
	cr_expect_str_eq(text_at(j, "kvm", "kind", NULL), "vmx");
	cr_expect_str_eq(text_at(j, "kvm", "eptad", NULL), "off");
	cr_expect_str_eq(text_at(j, "cpu", "features", NULL), "avx avx2");
	cr_expect(json_is_null(json_object_get(json_object_get(j, "memory"), "memlock_kib")));
	cr_expect_null(json_object_get(j, "kernel"));
	cr_expect_str_eq(json_string_value(json_array_get(json_object_get(json_object_get(j, "fabric"), "rdma"), 0)), "mlx5_0");
	cr_expect_eq(json_array_size(json_object_get(
			     json_array_get(json_object_get(json_object_get(j, "fabric"), "interfaces"), 0), "addresses")),
		     2);
	json_decref(j);
	f->kvm.kind = KVM_KIND_SOFTWARE;
	f->kvm.shared = no("shadow", "");
	f->kvm.err = -EBUSY; /* only counts when KVM is not usable */
	j = hv_host_json(f, "/nowhere/kernel");
	cr_expect_str_eq(text_at(j, "verdict", "one", "refusal"), "slow");
	cr_expect_str_eq(text_at(j, "verdict", "several", "refusal"), "unsound");
	cr_expect(json_is_false(json_object_get(json_object_get(j, "kernel"), "private_tables")));
	json_decref(j);
	free(f);
}

Test(host_report, errors_of_kvm_have_their_words)
{
	static const struct {
		int err;
		const char *word;
	} words[] = { { -ENOENT, "no-kvm" }, { -EACCES, "no-permission" }, { -EBUSY, "busy" }, { -ENOTSUP, "too-old" } };
	struct hv_host_facts *f = good_host();

	f->kvm.usable = no("it is not", "");
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		json_t *j;

		f->kvm.err = words[i].err;
		j = hv_host_json(f, NULL);
		cr_expect_str_eq(text_at(j, "verdict", "one", "refusal"), words[i].word);
		cr_expect_str_eq(text_at(j, "verdict", "one", "engine"), "bt");
		json_decref(j);
	}
	free(f);
}
