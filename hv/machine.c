/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - what a slice is made of below its devices: the CPU engine that suits this host and this VM, guest memory,
 *           the CPU model.
 *
 * Threads   The one that starts the slice.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* "" for what nobody has set: a slice without agents. */
static const char *cpu_features(const struct hv_slice *s)
{
	return s->spec->cpu_features ? s->spec->cpu_features : "";
}

static int engine_suits(struct hv_slice *s, const struct hv_engine *e, bool named)
{
	const struct cc_vm_spec *spec = s->spec;
	struct hv_engine_need need = {
		.named = named,
		.several = s->multi,
		.private_tables = spec->private_tables,
		.choose_faults = spec->faults == CC_FAULTS_AUTO,
		.faults = spec->faults == CC_FAULTS_DISPATCH ? DSM_FAULTS_DISPATCH : DSM_FAULTS_INLINE,
		.cpu_features = cpu_features(s),
	};
	const char *why = "";
	int err = e->probe(&why);

	s->terms = (struct hv_engine_terms){ 0 };
	if (!err && e->plain_only && need.cpu_features[0]) {
		err = -ENOTSUP;
		why = "it has the plain CPU model only";
	}
	if (err)
		snprintf(s->terms.why, sizeof(s->terms.why), "%s", why);
	else if (e->agree)
		err = e->agree(&need, &s->terms);
	return err;
}

int hv_machine_choose(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	static const char *const names[] = { [CC_ENGINE_BT] = "bt", [CC_ENGINE_KVM] = "kvm" };
	const char *wanted = s->spec->engine == CC_ENGINE_AUTO ? NULL : names[s->spec->engine];
	const char *bad, *why;

	if (!hv_cpuid_features_check(cpu_features(s), &bad, &why)) {
		snprintf(text, HV_TEXT_MAX, "CPU feature %.*s: %s", (int)strcspn(bad, " "), bad, why);
		return -EINVAL;
	}
	snprintf(s->terms.why, sizeof(s->terms.why), "not built in");
	for (unsigned i = 0; hv_engines[i]; i++) {
		if (wanted && strcmp(hv_engines[i]->name, wanted))
			continue;
		if (!engine_suits(s, hv_engines[i], wanted)) {
			s->engine = hv_engines[i];
			if (s->terms.tsc_fixed)
				hv_clock_fix(&s->clock);
			return 0;
		}
		log_info("slice: engine %s: %s", hv_engines[i]->name, s->terms.why);
	}
	snprintf(text, HV_TEXT_MAX, "CPU engine %s: %s", wanted ? wanted : "(any)", s->terms.why);
	return -ENOTSUP;
}

uint64_t hv_machine_share(const struct hv_slice *s)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < s->spec->ranges; i++)
		if (s->spec->range[i].node == s->spec->self)
			pages += s->spec->range[i].count;
	return pages << PAGE_SHIFT;
}

static void ranges_of_spec(const struct hv_slice *s, struct dsm_range ranges[static DSM_RANGES_MAX])
{
	STATIC_ASSERT(DSM_RANGES_MAX >= CC_RANGES_MAX, "every range");
	for (unsigned i = 0; i < s->spec->ranges; i++)
		ranges[i] = (struct dsm_range){ s->spec->range[i].first, s->spec->range[i].count,
						s->spec->range[i].node };
}

static void on_damage(void *arg, node_id from, gfn_t gfn)
{
	struct hv_slice *s = arg;

	hv_slice_end(s, CC_END_ERROR, from, NULL, "a page from node %s came damaged (about %#llx): memory cannot be trusted",
		     s->spec->node_name[from], (unsigned long long)gfn << PAGE_SHIFT);
}

int hv_machine_memory(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	struct dsm_range ranges[DSM_RANGES_MAX];
	struct dsm_config cfg = {
		.self = s->spec->self,
		.nodes = s->spec->nodes,
		.ranges = ranges,
		.ranges_count = s->spec->ranges,
		.cache_pages = s->spec->cache_pages,
		.spare_pages = s->spec->spare_pages,
		.mapping = s->engine->mapping,
		.faults = s->terms.faults,
		.checksums = s->spec->checksums,
		.on_damage = on_damage,
		.arg = s,
		.fabric = s->fabric,
	};
	int err;

	ranges_of_spec(s, ranges);
	err = dsm_open(&cfg, &s->dsm);
	if (err)
		snprintf(text, HV_TEXT_MAX, "guest memory: %s", strerror(-err));
	else
		hv_slice_progress(s, "memory ready, %llu MiB here",
				  (unsigned long long)hv_machine_share(s) >> 20);
	return err;
}

/* The frequency is the VM's: known for good when the nodes have joined. */
void hv_machine_cpuid(struct hv_slice *s)
{
	char without[2 * HV_CPUID_WORDS_MAX];
	struct hv_cpuid_config cpuid = {
		.vcpus = s->spec->vcpus,
		.node_of = s->spec->numa == CC_NUMA_EXPOSE ? s->spec->vcpu_node : NULL,
		.tsc_khz = (unsigned)s->clock.tsc_khz,
		.features = cpu_features(s),
		.without = without,
		.deadline_by_word = !s->engine->plain_only,
	};

	snprintf(without, sizeof(without), "%s %s", s->terms.without,
		 s->spec->cpu_without ? s->spec->cpu_without : "");
	s->cpuid_count = hv_cpuid_build(&cpuid, s->cpuid);
}

int hv_machine_open(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	struct dsm_range ram[DSM_RANGES_MAX];
	struct hv_vm_config cfg = {
		.dsm = s->dsm,
		.cpuid = s->cpuid,
		.vcpus = s->spec->vcpus,
		.ram = ram,
		.ram_count = s->spec->ranges,
		.terms = &s->terms,
	};
	int err;

	hv_machine_cpuid(s);
	cfg.cpuid_count = s->cpuid_count;
	ranges_of_spec(s, ram);
	err = s->engine->vm_open(&cfg, &s->vm);
	if (err)
		snprintf(text, HV_TEXT_MAX, "CPU engine %s: %s", s->engine->name, strerror(-err));
	return err;
}
