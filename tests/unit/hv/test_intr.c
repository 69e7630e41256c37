/* SPDX-License-Identifier: Apache-2.0 */
/* Routing of interrupt messages: shorthands, physical and logical destinations in both modes,
 * lowest priority. */
#include <criterion/criterion.h>

#include "hv/core/intr.h"

#define VCPUS 20

static struct hv_lapic_addr addrs[VCPUS];

static void x2apic_all(void)
{
	for (uint32_t k = 0; k < VCPUS; k++)
		addrs[k] = (struct hv_lapic_addr){ .id = k,
						   .ldr = (k >> 4) << 16 | 1u << (k & 15),
						   .enabled = true,
						   .x2apic = true };
}

/* Members as a bitmap; VCPUS < 64. */
static uint64_t route(struct hv_intr i)
{
	return hv_intr_route(&i, addrs, VCPUS).w[0];
}

Test(intr, shorthands)
{
	x2apic_all();
	cr_assert_eq(route((struct hv_intr){ .shorthand = HV_INTR_SELF, .source = 4 }), 1u << 4);
	cr_assert_eq(route((struct hv_intr){ .shorthand = HV_INTR_ALL, .source = 4 }), 0xfffff);
	cr_assert_eq(route((struct hv_intr){ .shorthand = HV_INTR_OTHERS, .source = 4 }),
		     0xfffff & ~(1u << 4));
}

Test(intr, physical)
{
	x2apic_all();
	cr_assert_eq(route((struct hv_intr){ .dest = 17, .wide = true }), 1u << 17);
	cr_assert_eq(route((struct hv_intr){ .dest = 0xff, .wide = true }), 0,
		     "255 is an id for 32-bit destinations");
	cr_assert_eq(route((struct hv_intr){ .dest = 0xff }), 0xfffff,
		     "and broadcast for 8-bit ones");
	cr_assert_eq(route((struct hv_intr){ .dest = ~0u, .wide = true }), 0xfffff);
	cr_assert_eq(route((struct hv_intr){ .dest = 0x100 + 3, .wide = true }), 0);
	addrs[3].enabled = false;
	cr_assert_eq(route((struct hv_intr){ .dest = 3, .wide = true }), 0);
	cr_assert_eq(route((struct hv_intr){ .shorthand = HV_INTR_ALL }), 0xfffff & ~(1u << 3));
}

Test(intr, logical_x2apic_clusters)
{
	x2apic_all();
	cr_assert_eq(route((struct hv_intr){ .dest = 0x0000000a, .logical = true, .wide = true }),
		     0xa);
	cr_assert_eq(route((struct hv_intr){ .dest = 0x0001000a, .logical = true, .wide = true }),
		     0xa0000);
	cr_assert_eq(route((struct hv_intr){ .dest = 0x0002000a, .logical = true, .wide = true }),
		     0);
	cr_assert_eq(route((struct hv_intr){ .dest = 0x80, .logical = true }), 1u << 7,
		     "IOAPIC: cluster 0");
}

Test(intr, logical_xapic_flat_and_cluster)
{
	x2apic_all();
	for (uint32_t k = 0; k < 8; k++)
		addrs[k] = (struct hv_lapic_addr){
			.id = k, .ldr = 1u << (24 + k), .enabled = true, .flat = true
		};
	cr_assert_eq(route((struct hv_intr){ .dest = 0x81, .logical = true }) & 0xff, 0x81);
	for (uint32_t k = 0; k < 8; k++) /* two clusters of four */
		addrs[k] = (struct hv_lapic_addr){ .id = k,
						   .ldr = ((k / 4) << 4 | 1u << (k % 4)) << 24,
						   .enabled = true };
	cr_assert_eq(route((struct hv_intr){ .dest = 0x03, .logical = true }) & 0xff, 0x03);
	cr_assert_eq(route((struct hv_intr){ .dest = 0x16, .logical = true }) & 0xff, 0x60);
}

Test(intr, mixed_modes_while_processors_come_up)
{
	x2apic_all();
	addrs[9] = (struct hv_lapic_addr){ .id = 9, .enabled = true, .flat = true };
	cr_assert_eq(route((struct hv_intr){ .dest = 9, .wide = true, .mode = HV_INTR_INIT }),
		     1u << 9);
}

Test(intr, lowest_priority_picks_one_and_spreads)
{
	uint64_t seen = 0;

	x2apic_all();
	for (unsigned v = 0x20; v < 0x40; v++) {
		uint64_t one = route((struct hv_intr){ .dest = 0xf,
						       .logical = true,
						       .wide = true,
						       .mode = HV_INTR_LOWEST,
						       .vector = (uint8_t)v });

		cr_assert_eq(__builtin_popcountll(one), 1);
		cr_assert_eq(one & ~0xfull, 0);
		seen |= one;
	}
	cr_assert_eq(seen, 0xf);
	cr_assert_eq(
		route((struct hv_intr){
			.dest = 0x20000, .logical = true, .wide = true, .mode = HV_INTR_LOWEST }),
		0, "nobody");
}

Test(intr, msi)
{
	struct hv_intr i =
		hv_intr_from_msi(0xfee00000 | 0x12 << 12 | 1 << 2, 0x8000 | 1 << 8 | 0x45);

	cr_assert_eq(i.dest, 0x12);
	cr_assert(i.logical);
	cr_assert(i.level);
	cr_assert_eq(i.mode, HV_INTR_LOWEST);
	cr_assert_eq(i.vector, 0x45);
}
