/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_report.c - what a host can do, in words for people and as JSON for programs; see host_facts.h.
 *
 * I/O       hv_host_json reads a kernel file when it is given one.
 */
#include "hv/host_facts.h"

#include "base/assert.h"
#include "hv/core/boot.h"
#include "hv/kernel_image.h"
#include "interconnect/fabric.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

/* --- findings ------------------------------------------------------------------------------------------------- */

struct findings {
	struct hv_finding *f;
	unsigned count;
};

static const char *const kind_texts[] = { "none", "Intel VMX", "AMD SVM", "a software back end" };

/* An option is a way round, for who started a VM; it mends nothing on this host. */
static bool mends(const char *fix)
{
	return *fix && *fix != '-';
}

__attribute__((format(printf, 5, 6))) static void add(struct findings *l, enum hv_level level, const char *topic,
						       const char *fix, const char *format, ...)
{
	struct hv_finding *f = &l->f[l->count++];
	va_list args;

	ASSERT(l->count <= HV_FINDINGS_MAX);
	f->level = level;
	f->topic = topic;
	snprintf(f->fix, sizeof(f->fix), "%s", mends(fix) ? fix : "");
	va_start(args, format);
	vsnprintf(f->text, sizeof(f->text), format, args);
	va_end(args);
}

/* What does not work and can be mended is a problem; what cannot be is a fact to know. */
static enum hv_level level_of(const struct kvm_verdict *v)
{
	return v->ok ? HV_LEVEL_OK : mends(v->fix) ? HV_LEVEL_PROBLEM : HV_LEVEL_NOTE;
}

static void add_tried(struct findings *l, const char *topic, const char *what, const char *good,
		      const struct kvm_verdict *v, enum hv_level level)
{
	add(l, v->ok ? HV_LEVEL_OK : level, topic, v->ok ? "" : v->fix, "%s: %s", what, v->ok ? good : v->why);
}

static void cpu_findings(const struct hv_host_facts *f, struct findings *l)
{
	add(l, f->cpu.ok ? HV_LEVEL_OK : HV_LEVEL_PROBLEM, "cpu", f->cpu.fix, "CPU: %s, %u online: %s", f->cpu_model,
	    f->cpus, f->cpu.ok ? "has x86-64-v2" : f->cpu.why);
	add(l, f->tsc_invariant ? HV_LEVEL_OK : HV_LEVEL_NOTE, "tsc", "", "TSC: %llu.%03llu MHz, %sinvariant, %s, clock source %s",
	    (unsigned long long)f->tsc_khz / 1000, (unsigned long long)f->tsc_khz % 1000,
	    f->tsc_invariant ? "" : "not told to be ",
	    f->kvm.tsc_scaling ? "scaled for guests by KVM" : "no scaling for guests", f->clocksource);
	add_tried(l, "bt", "engine bt", "works", &f->bt, HV_LEVEL_PROBLEM);
}

static void kvm_findings(const struct hv_host_facts *f, struct findings *l)
{
	const struct kvm_host *k = &f->kvm;
	bool some_path = k->inline_faults.ok || k->dispatch_faults.ok;
	char good[160];

	snprintf(good, sizeof(good), "%s%s, up to %u vCPUs", kind_texts[k->kind],
		 k->kind == KVM_KIND_SOFTWARE ? ""
		 : !k->two_dimensional	      ? ", shadow paging"
		 : k->kind == KVM_KIND_VMX    ? ", EPT"
					      : ", NPT",
		 k->vcpus_max);
	add_tried(l, "kvm", "KVM", good, &k->usable, level_of(&k->usable));
	if (k->usable.ok) {
		snprintf(good, sizeof(good), "nested page walks are reads%s",
			 k->eptad == 0 ? " (eptad is off)" : "");
		add_tried(l, "shared", "KVM over several nodes", good, &k->shared, level_of(&k->shared));
		snprintf(good, sizeof(good), "work, the address comes from %s",
			 k->address == KVM_ADDRESS_PERF ? "the tracepoint kvm_page_fault" : "KVM's exit");
		add_tried(l, "inline", "inline faults", good, &k->inline_faults,
			  some_path ? HV_LEVEL_NOTE : HV_LEVEL_PROBLEM);
		add_tried(l, "dispatch", "dispatched faults", "work", &k->dispatch_faults,
			  some_path ? HV_LEVEL_NOTE : HV_LEVEL_PROBLEM);
	}
	add_tried(l, "userfaultfd", "userfaultfd", f->cap_ptrace ? "allowed (CAP_SYS_PTRACE)" : "allowed", &f->userfaultfd,
		  k->usable.ok ? HV_LEVEL_PROBLEM : HV_LEVEL_NOTE);
	snprintf(good, sizeof(good), "the tracepoint kvm_page_fault can be opened (perf_event_paranoid %d%s)",
		 f->perf_paranoid, f->cap_perfmon ? ", CAP_PERFMON" : "");
	add_tried(l, "perf", "tracing", good, &f->perf,
		  k->two_dimensional && !k->inline_faults.ok ? HV_LEVEL_PROBLEM : HV_LEVEL_NOTE);
}

static void memory_findings(const struct hv_host_facts *f, struct findings *l)
{
	char limit[32] = "none";

	add(l, HV_LEVEL_OK, "memory", "", "memory: %llu MiB, %llu MiB free", (unsigned long long)f->memory_kib >> 10,
	    (unsigned long long)f->memory_free_kib >> 10);
	if (f->memlock_kib != UINT64_MAX)
		snprintf(limit, sizeof(limit), "%llu KiB", (unsigned long long)f->memlock_kib);
	add(l, HV_LEVEL_OK, "memlock", "", "memory lock limit: %s (a few KiB for each vCPU with inline faults count, no guest memory)", limit);
	add(l, HV_LEVEL_OK, "hugepages", "",
	    "huge pages: %llu of %llu KiB, %llu free; transparent ones: %s (unum's pages are of 4 KiB)",
	    (unsigned long long)f->huge_pages, (unsigned long long)f->huge_page_kib,
	    (unsigned long long)f->huge_pages_free, *f->thp ? f->thp : "none");
}

static void rdma_finding(const struct hv_rdma_port *p, struct findings *l)
{
	char mtu[32] = "";

	if (p->mtu)
		snprintf(mtu, sizeof(mtu), ", packets of %u", p->mtu);
	if (p->usable.ok)
		add(l, HV_LEVEL_OK, "rdma", "", "RDMA device %s port %u: %s%s%s, %s%s, address %s in %s", p->device, p->number,
		    p->ethernet ? "RoCE on " : "InfiniBand", p->interface, mtu, p->rate, *p->rate ? "" : "speed not told",
		    p->address, p->network);
	else
		add(l, level_of(&p->usable), "rdma", p->usable.fix, "RDMA device %s: %s", p->device, p->usable.why);
}

/* More than fit are left out: HV_FINDINGS_MAX bounds a host with a great many interfaces. */
static void fabric_findings(const struct hv_host_fabric *f, struct findings *l)
{
	unsigned up = 0;

	for (unsigned i = 0; i < f->nics; i++) {
		const struct hv_nic *nic = &f->nic[i];
		char speed[32] = "";

		up += nic->up;
		if (nic->speed_mbit > 0)
			snprintf(speed, sizeof(speed), ", %d Mbit/s", nic->speed_mbit);
		if (nic->up && l->count < HV_FINDINGS_MAX - 8)
			add(l, HV_LEVEL_OK, "fabric", "", "network %s: MTU %u%s, %s", nic->name, nic->mtu, speed,
			    *nic->addresses ? nic->addresses : "no address");
	}
	if (!up)
		add(l, HV_LEVEL_NOTE, "fabric", "", "network: no interface but loopback is up, so no other node is in reach");
	for (unsigned i = 0; i < f->rdmas && l->count < HV_FINDINGS_MAX - 2; i++)
		rdma_finding(&f->rdma[i], l);
}

static void clock_findings(const struct hv_host_facts *f, struct findings *l)
{
	if (f->clock_synchronized)
		add(l, HV_LEVEL_OK, "clock", "", "clock: synchronized, error at most %ld us, about %ld us", f->clock_error_us,
		    f->clock_estimate_us);
	else
		add(l, HV_LEVEL_NOTE, "clock", "apt-get install chrony",
		    "clock: not synchronized, so logs of several nodes cannot be laid side by side");
}

unsigned hv_host_findings(const struct hv_host_facts *f, struct hv_finding out[static HV_FINDINGS_MAX])
{
	struct findings l = { .f = out };

	cpu_findings(f, &l);
	kvm_findings(f, &l);
	memory_findings(f, &l);
	clock_findings(f, &l);
	fabric_findings(&f->fabric, &l);
	return l.count;
}

/* --- JSON ----------------------------------------------------------------------------------------------------- */

static json_t *tried_json(const struct kvm_verdict *v)
{
	return json_pack("{s:b, s:s, s:s}", "ok", v->ok, "why", v->ok ? "" : v->why, "fix", v->ok ? "" : v->fix);
}

static json_t *kvm_json(const struct hv_host_facts *f)
{
	static const char *const eptad_names[] = { "unknown", "off", "on" };
	const struct kvm_host *k = &f->kvm;

	return json_pack("{s:o, s:s, s:b, s:s, s:b, s:s, s:i, s:o, s:o, s:o}", "usable", tried_json(&k->usable), "kind",
			 kvm_kind_name(k->kind), "two_dimensional", k->two_dimensional, "eptad", eptad_names[k->eptad + 1],
			 "tsc_scaling", k->tsc_scaling, "address", kvm_address_name(k->address), "vcpus_max", (int)k->vcpus_max,
			 "shared", tried_json(&k->shared), "inline", tried_json(&k->inline_faults), "dispatch",
			 tried_json(&k->dispatch_faults));
}

static json_t *rights_json(const struct hv_host_facts *f)
{
	json_t *perf = tried_json(&f->perf), *uffd = tried_json(&f->userfaultfd);

	json_object_set_new(uffd, "cap_sys_ptrace", json_boolean(f->cap_ptrace));
	json_object_set_new(perf, "cap_perfmon", json_boolean(f->cap_perfmon));
	json_object_set_new(perf, "tracefs", json_boolean(f->tracefs));
	if (f->perf_paranoid != -99)
		json_object_set_new(perf, "paranoid", json_integer(f->perf_paranoid));
	return json_pack("{s:o, s:o}", "userfaultfd", uffd, "perf", perf);
}

static json_t *memory_json(const struct hv_host_facts *f)
{
	json_t *lock = f->memlock_kib == UINT64_MAX ? json_null() : json_integer((json_int_t)f->memlock_kib);

	return json_pack("{s:I, s:I, s:o, s:I, s:I, s:I, s:s}", "total_kib", (json_int_t)f->memory_kib, "free_kib",
			 (json_int_t)f->memory_free_kib, "memlock_kib", lock, "huge_pages", (json_int_t)f->huge_pages,
			 "huge_pages_free", (json_int_t)f->huge_pages_free, "huge_page_kib", (json_int_t)f->huge_page_kib,
			 "transparent_huge_pages", f->thp);
}

static json_t *split_json(const char *at, const char *separator)
{
	json_t *all = json_array();

	while (*at) {
		size_t len = strcspn(at, separator);

		json_array_append_new(all, json_stringn(at, len));
		at += len + !!at[len];
	}
	return all;
}

static json_t *rdma_json(const struct hv_rdma_port *p)
{
	return json_pack("{s:s, s:i, s:s, s:s, s:b, s:s, s:s, s:i, s:s, s:s, s:o}", "device", p->device, "port",
			 (int)p->number, "link", p->ethernet ? "ethernet" : "infiniband", "interface", p->interface, "active",
			 p->active, "state", p->state, "rate", p->rate, "mtu", (int)p->mtu, "address", p->address, "network",
			 p->network, "usable", tried_json(&p->usable));
}

static json_t *fabric_json(const struct hv_host_fabric *f)
{
	json_t *nics = json_array(), *rdma = json_array(), *ports = json_array(), *backends = json_array();

	for (unsigned i = 0; i < f->nics; i++)
		json_array_append_new(nics, json_pack("{s:s, s:i, s:i, s:b, s:o}", "name", f->nic[i].name, "mtu",
						      (int)f->nic[i].mtu, "speed_mbit", f->nic[i].speed_mbit, "up",
						      f->nic[i].up, "addresses", split_json(f->nic[i].addresses, " ")));
	for (unsigned i = 0; i < f->rdmas; i++) {
		if (!i || strcmp(f->rdma[i].device, f->rdma[i - 1].device))
			json_array_append_new(rdma, json_string(f->rdma[i].device));
		json_array_append_new(ports, rdma_json(&f->rdma[i]));
	}
	for (const char *const *b = ic_backend_names(); *b; b++)
		json_array_append_new(backends, json_string(*b));
	return json_pack("{s:s, s:o, s:o, s:o, s:o}", "host", f->host, "interfaces", nics, "rdma", rdma, "ports", ports,
			 "backends", backends);
}

static json_t *verdicts_json(const struct hv_host_facts *f)
{
	static const char *const span_names[HV_SPANS] = { "one", "several", "several_private" };
	struct hv_host_can can = hv_host_can(f);
	json_t *all = json_object();

	for (unsigned i = 0; i < HV_SPANS; i++) {
		struct hv_verdict v = hv_verdict_make(&can, (enum hv_span)i);

		json_object_set_new(all, span_names[i],
				    json_pack("{s:s, s:b, s:s, s:s, s:s, s:s}", "engine", hv_engine_kind_name(v.engine),
					      "kvm", v.kvm, "faults", hv_fault_path_name(v.faults), "refusal",
					      hv_refusal_name(v.refusal), "why", v.why, "fix", v.fix));
	}
	return all;
}

static json_t *findings_json(const struct hv_finding *finding, unsigned n)
{
	static const char *const level_names[] = { "ok", "note", "problem" };
	json_t *all = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s}", "level", level_names[finding[i].level],
						     "topic", finding[i].topic, "text", finding[i].text, "fix",
						     finding[i].fix));
	return all;
}

/* A kernel that cannot be read is told when it is loaded, with its reason: here it is one without marks. */
static json_t *kernel_json(const char *path)
{
	struct hv_bytes file = { 0 };
	bool marked = !hv_file_read(path, &file) && hv_boot_private_tables(file.data, file.len);

	hv_bytes_free(&file);
	return json_pack("{s:b}", "private_tables", marked);
}

static json_t *backend_json(const struct hv_backend *b)
{
	json_t *v = tried_json(&b->works);

	json_object_set_new(v, "name", json_string(b->name));
	json_object_set_new(v, "offers", split_json(b->offers, "\n"));
	return v;
}

json_t *hv_host_fabric_json(void)
{
	struct hv_backend *backend = calloc(HV_BACKENDS_MAX, sizeof(*backend));
	struct hv_host_fabric *f = calloc(1, sizeof(*f));
	struct hv_finding finding[HV_FINDINGS_MAX];
	struct findings l = { .f = finding };
	json_t *tried = json_array(), *all = NULL;
	struct utsname u = { 0 };

	if (backend && f && tried && !uname(&u)) {
		hv_host_fabric_take("/sys", f);
		fabric_findings(f, &l);
		for (unsigned i = 0, n = hv_host_backends_try(f, backend); i < n; i++)
			json_array_append_new(tried, backend_json(&backend[i]));
		all = json_pack("{s:i, s:s, s:s, s:o, s:O, s:o}", "version", HV_HOST_VERSION, "host", u.nodename, "release",
				u.release, "fabric", fabric_json(f), "tried", tried, "findings",
				findings_json(finding, l.count));
	}
	json_decref(tried);
	free(backend);
	free(f);
	return all;
}

json_t *hv_host_json(const struct hv_host_facts *f, const char *kernel)
{
	struct hv_finding finding[HV_FINDINGS_MAX];
	unsigned findings = hv_host_findings(f, finding);
	json_t *all = json_pack(
		"{s:i, s:s, s:s, s:{s:s, s:s, s:i, s:b, s:s, s:s}, s:o, s:{s:b, s:I, s:b, s:s}, s:o, s:o, s:{s:b, s:I, s:I}, "
		"s:o, s:o, s:o, s:o}",
		"version", HV_HOST_VERSION, "host", f->name, "release", f->release, "cpu", "vendor", f->cpu_vendor, "model",
		f->cpu_model, "online", (int)f->cpus, "x86_64_v2", f->cpu.ok, "why", f->cpu.why, "features",
		f->cpu_features, "bt", tried_json(&f->bt), "tsc", "invariant", f->tsc_invariant, "khz", (json_int_t)f->tsc_khz,
		"scaling", f->kvm.tsc_scaling, "clocksource", f->clocksource, "kvm", kvm_json(f), "memory", memory_json(f),
		"clock", "synchronized", f->clock_synchronized, "error_us", (json_int_t)f->clock_error_us, "estimate_us",
		(json_int_t)f->clock_estimate_us, "fabric", fabric_json(&f->fabric), "rights", rights_json(f), "verdict",
		verdicts_json(f), "findings", findings_json(finding, findings));

	if (all && kernel)
		json_object_set_new(all, "kernel", kernel_json(kernel));
	return all;
}
