/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/cpuid.h - what CPU the guest sees.
 *
 * What      Builds the CPUID table of the model: x86-64-v2, vendor AMD (so that a guest skips the
 *           Meltdown class of workarounds), KVM signature without paravirtual features.  What a
 *           VM has beyond that model is given by name, as in /proc/cpuinfo.
 * Limits    Per-vCPU fields (APIC id in leaf 1 and 0xb, OSXSAVE) are filled in by hv_cpuid_lookup.
 */
#ifndef HV_CORE_CPUID_H
#define HV_CORE_CPUID_H

#include "base/types.h"

struct hv_cpuid_entry {
	uint32_t leaf, subleaf; /* subleaf is compared only when by_subleaf */
	bool by_subleaf;
	uint32_t eax, ebx, ecx, edx;
};

#define HV_CPUID_MAX 40
#define HV_CPUID_HOST_MAX 128 /* entries of a host */
#define HV_CPUID_WORDS_MAX 1024 /* text of all names, with the NUL */
#define HV_CPUID_PHYS_BITS 40

struct hv_cpuid_config {
	unsigned vcpus;
	const node_id *node_of; /* [vcpus]: packages never span nodes; NULL: all on one */
	unsigned tsc_khz;       /* told in leaf 0x40000010 */
	const char *features;   /* words beyond the plain model; NULL or "": none */
	const char *without;    /* words of the plain model to leave out; NULL or "": none */
	bool deadline_by_word;  /* tsc_deadline_timer is not part of the plain model: it takes the word */
};

struct hv_cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

/* Bits of an APIC id within one package: the largest s such that no aligned block of 2^s ids spans
 * nodes. */
unsigned hv_cpuid_package_shift(const struct hv_cpuid_config *cfg);
/* Every word of `features` is known and what it needs is among them.  False: *bad is the word (borrowed,
 * ends at a space or NUL) and *why a static text. */
bool hv_cpuid_features_check(const char *features, const char **bad, const char **why);
/* Words beyond the plain model that a host with these entries can show; `out` may be "". */
void hv_cpuid_offered(const struct hv_cpuid_entry *host, unsigned count,
		      char out[static HV_CPUID_WORDS_MAX]);
/* What the plain model has and the host lacks: words, "" when nothing.  The bits that a monitor makes true
 * itself (x2apic, the timer, topology, hypervisor) are not asked of a host. */
void hv_cpuid_lacking(const struct hv_cpuid_entry *host, unsigned count,
		      char out[static HV_CPUID_WORDS_MAX]);
/* All named features in a guest's table. */
void hv_cpuid_shown(const struct hv_cpuid_entry *table, unsigned count, char out[static HV_CPUID_WORDS_MAX]);
/* Words of `wanted` that are not in `offered`. */
void hv_cpuid_words_missing(const char *wanted, const char *offered,
			    char out[static HV_CPUID_WORDS_MAX]);

/* Entries written (at most HV_CPUID_MAX).  The features have passed hv_cpuid_features_check. */
unsigned hv_cpuid_build(const struct hv_cpuid_config *cfg,
			struct hv_cpuid_entry out[static HV_CPUID_MAX]);
/* What CPUID gives on the vCPU with this APIC id: unknown leaves are zeros (AMD's rule), APIC ids
 * are filled in. */
struct hv_cpuid_regs hv_cpuid_lookup(const struct hv_cpuid_entry *table, unsigned count,
				     uint32_t apic_id, uint32_t leaf, uint32_t subleaf);

#endif
