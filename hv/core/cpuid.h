/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/cpuid.h - what CPU the guest sees.
 *
 * What      Builds the CPUID table of the bt engine's model: x86-64-v2, vendor AMD (so that a guest
 *           skips the Meltdown class of workarounds), KVM signature without paravirtual features.
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
#define HV_CPUID_PHYS_BITS 40

struct hv_cpuid_config {
	unsigned vcpus;
	const node_id *node_of; /* [vcpus]: packages never span nodes; NULL: all on one */
	unsigned tsc_khz;       /* told in leaf 0x40000010 */
};

struct hv_cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

/* Bits of an APIC id within one package: the largest s such that no aligned block of 2^s ids spans
 * nodes. */
unsigned hv_cpuid_package_shift(const struct hv_cpuid_config *cfg);
/* Entries written (at most HV_CPUID_MAX). */
unsigned hv_cpuid_build(const struct hv_cpuid_config *cfg,
			struct hv_cpuid_entry out[static HV_CPUID_MAX]);
/* What CPUID gives on the vCPU with this APIC id: unknown leaves are zeros (AMD's rule), APIC ids
 * are filled in. */
struct hv_cpuid_regs hv_cpuid_lookup(const struct hv_cpuid_entry *table, unsigned count,
				     uint32_t apic_id, uint32_t leaf, uint32_t subleaf);

#endif
