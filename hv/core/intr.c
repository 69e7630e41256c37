/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/intr.c - destinations of interrupt messages.
 *
 * Pure functions on values; no state, threads or I/O.
 */
#include "hv/core/intr.h"

#define BROADCAST_8 0xffu
#define BROADCAST_32 0xffffffffu

/* SDM vol 3, 11.6.2.2 and 11.12.10. */
static bool logical_matches(const struct hv_intr *i, const struct hv_lapic_addr *a)
{
	uint32_t mine = a->ldr >> 24;

	if (a->x2apic)
		return i->dest >> 16 == a->ldr >> 16 && (i->dest & a->ldr & 0xffff) != 0;
	if (i->dest > 0xff)
		return false;
	if (a->flat)
		return (mine & i->dest) != 0;
	return mine >> 4 == i->dest >> 4 && (mine & i->dest & 0xf) != 0;
}

bool hv_intr_matches(const struct hv_intr *i, const struct hv_lapic_addr *a)
{
	if (!a->enabled)
		return false;
	switch (i->shorthand) {
	case HV_INTR_SELF:
		return a->id == i->source;
	case HV_INTR_ALL:
		return true;
	case HV_INTR_OTHERS:
		return a->id != i->source;
	default:
		break;
	}
	if (i->dest == (i->wide ? BROADCAST_32 : BROADCAST_8))
		return true;
	return i->logical ? logical_matches(i, a) : i->dest == a->id;
}

/* Keeps one member, so that different vectors go to different vCPUs. */
static void keep_one(struct hv_vcpu_set *s, unsigned vcpus, uint8_t vector)
{
	unsigned members = 0, skip;

	for (unsigned k = 0; k < vcpus; k++)
		members += hv_vcpu_set_has(s, k);
	if (members < 2)
		return;
	skip = vector % members;
	for (unsigned k = 0; k < vcpus; k++) {
		if (!hv_vcpu_set_has(s, k) || skip-- > 0)
			continue;
		*s = (struct hv_vcpu_set){ 0 };
		hv_vcpu_set_add(s, k);
		return;
	}
}

struct hv_vcpu_set hv_intr_route(const struct hv_intr *i, const struct hv_lapic_addr *addrs,
				 unsigned vcpus)
{
	struct hv_vcpu_set set = { 0 };

	for (unsigned k = 0; k < vcpus; k++)
		if (hv_intr_matches(i, &addrs[k]))
			hv_vcpu_set_add(&set, k);
	if (i->mode == HV_INTR_LOWEST)
		keep_one(&set, vcpus, i->vector);
	return set;
}

/* SDM vol 3, 11.11.1 and 11.11.2. */
struct hv_intr hv_intr_from_msi(uint64_t address, uint32_t data)
{
	return (struct hv_intr){
		.dest = (uint32_t)(address >> 12) & 0xff,
		.shorthand = HV_INTR_DEST,
		.mode = (data >> 8) & 7,
		.vector = data & 0xff,
		.logical = (address >> 2) & 1,
		.level = (data >> 15) & 1,
	};
}
