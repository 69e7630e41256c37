/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/intr.h - one interrupt message on its way to local APICs, and who it is for.
 *
 * What      struct hv_intr is what an ICR write, an IOAPIC pin or an MSI becomes; it is a plain
 *           value that may cross nodes.  hv_intr_route turns it into the set of vCPUs that must get
 *           hv_lapic_deliver.
 * Limits    VCPUS_MAX vCPUs; vCPU k has APIC id k.
 * Spec      Intel SDM vol 3, 11.6.2 (destinations), 11.11 (MSI), 11.12.10 (x2APIC logical ids).
 */
#ifndef HV_CORE_INTR_H
#define HV_CORE_INTR_H

#include "base/types.h"

enum hv_intr_mode {
	HV_INTR_FIXED = 0,
	HV_INTR_LOWEST = 1,
	HV_INTR_SMI = 2, /* accepted and dropped: there is no SMM */
	HV_INTR_NMI = 4,
	HV_INTR_INIT = 5,
	HV_INTR_SIPI = 6,
	HV_INTR_EXTINT = 7, /* taken as fixed: there is no PIC */
};

enum hv_intr_shorthand { HV_INTR_DEST, HV_INTR_SELF, HV_INTR_ALL, HV_INTR_OTHERS };

struct hv_intr {
	uint32_t dest;     /* destination field; only for HV_INTR_DEST */
	uint32_t source;   /* APIC id of the sender; only for shorthands */
	uint8_t shorthand; /* enum hv_intr_shorthand */
	uint8_t mode;      /* enum hv_intr_mode */
	uint8_t vector;
	bool logical;
	bool level; /* trigger mode */
	bool wide;  /* dest has 32 bits (x2APIC ICR); otherwise 8 (xAPIC ICR, IOAPIC, MSI) */
};

/* What routing must know of a local APIC; small, so that each node can keep it of every vCPU.
 * HV_LAPIC_ADDR_CHANGED tells when it changed. */
struct hv_lapic_addr {
	uint32_t id;
	uint32_t ldr; /* x2APIC: derived from the id; xAPIC: bits 24-31 */
	bool enabled; /* globally, IA32_APIC_BASE.EN */
	bool x2apic;
	bool flat; /* xAPIC: destination format register says flat model */
};

struct hv_vcpu_set {
	uint64_t w[4];
};

static inline bool hv_vcpu_set_has(const struct hv_vcpu_set *s, unsigned vcpu)
{
	return (s->w[vcpu / 64] >> (vcpu % 64)) & 1;
}

static inline void hv_vcpu_set_add(struct hv_vcpu_set *s, unsigned vcpu)
{
	s->w[vcpu / 64] |= 1ull << (vcpu % 64);
}

/* True when a local APIC at `a` is addressed by `i` (shorthands too). */
bool hv_intr_matches(const struct hv_intr *i, const struct hv_lapic_addr *a);
/* addrs[k] is of vCPU k.  Lowest priority picks one of the addressed vCPUs, spread by vector. */
struct hv_vcpu_set hv_intr_route(const struct hv_intr *i, const struct hv_lapic_addr *addrs,
				 unsigned vcpus);
/* The message that an MSI (address and data as written by a device) stands for. */
struct hv_intr hv_intr_from_msi(uint64_t address, uint32_t data);

#endif
