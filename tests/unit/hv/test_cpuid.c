/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID model: level and absences, and that topology never puts two nodes into one package. */
#include <criterion/criterion.h>
#include <string.h>

#include "hv/core/cpuid.h"

static struct hv_cpuid_entry table[HV_CPUID_MAX];
static unsigned count;

static void build(unsigned vcpus, const node_id *node_of)
{
	struct hv_cpuid_config cfg = { .vcpus = vcpus, .node_of = node_of, .tsc_khz = 2100000 };

	count = hv_cpuid_build(&cfg, table);
}

static struct hv_cpuid_regs get(uint32_t id, uint32_t leaf, uint32_t sub)
{
	return hv_cpuid_lookup(table, count, id, leaf, sub);
}

static bool bit(uint32_t v, unsigned n)
{
	return (v >> n) & 1;
}

Test(cpuid, level_is_v2_and_not_more)
{
	static const uint8_t have_ecx[] = { 0, 9, 13, 19, 20, 21, 23, 24, 31 };
	static const uint8_t lack_ecx[] = { 1, 3, 12, 17, 26, 27, 28, 29, 30 };
	static const uint8_t have_edx[] = { 0, 4, 5, 6, 8, 9, 11, 13, 15, 16, 19, 23, 24, 25, 26 };
	struct hv_cpuid_regs r, e;

	build(4, NULL);
	r = get(0, 1, 0);
	for (unsigned k = 0; k < sizeof(have_ecx); k++)
		cr_assert(bit(r.ecx, have_ecx[k]), "ecx %u", have_ecx[k]);
	for (unsigned k = 0; k < sizeof(lack_ecx); k++)
		cr_assert_not(bit(r.ecx, lack_ecx[k]), "ecx %u", lack_ecx[k]);
	for (unsigned k = 0; k < sizeof(have_edx); k++)
		cr_assert(bit(r.edx, have_edx[k]), "edx %u", have_edx[k]);
	e = get(0, 0x80000001, 0);
	cr_assert(bit(e.ecx, 0) && bit(e.edx, 11) && bit(e.edx, 20) && bit(e.edx, 27) &&
		  bit(e.edx, 29));
	cr_assert_not(bit(e.edx, 26), "no 1 GiB pages");
	cr_assert_not(bit(e.ecx, 22), "no TOPOEXT");
	cr_assert_eq(get(0, 7, 0).ebx & ~(1u << 9), 0);
	cr_assert(bit(get(0, 0x80000007, 0).edx, 8));
	cr_assert_eq(get(0, 0x80000008, 0).eax & 0xffff, 48 << 8 | HV_CPUID_PHYS_BITS);
}

Test(cpuid, names)
{
	struct hv_cpuid_regs r;
	char s[13] = "";

	build(1, NULL);
	r = get(0, 0, 0);
	memcpy(s, &r.ebx, 4);
	memcpy(s + 4, &r.edx, 4);
	memcpy(s + 8, &r.ecx, 4);
	cr_assert_str_eq(s, "AuthenticAMD");
	r = get(0, 0x40000000, 0);
	memcpy(s, &r.ebx, 12);
	cr_assert_eq(memcmp(s, "KVMKVMKVM\0\0\0", 12), 0);
	cr_assert_eq(get(0, 0x40000001, 0).eax, 0);
	cr_assert_eq(get(0, 0x40000010, 0).eax, 2100000);
}

Test(cpuid, unknown_leaves_are_zero)
{
	static const uint32_t leaves[] = { 2,          4,          0xd,        0x15,
					   0x40000002, 0x80000009, 0x8000001e, 0xc0000000 };

	build(2, NULL);
	for (unsigned k = 0; k < sizeof(leaves) / sizeof(leaves[0]); k++) {
		struct hv_cpuid_regs r = get(0, leaves[k], 0);

		cr_assert_eq(r.eax | r.ebx | r.ecx | r.edx, 0, "%#x", leaves[k]);
	}
	cr_assert_eq(get(0, 7, 1).ebx, 0, "subleaf");
}

Test(cpuid, apic_ids)
{
	build(4, NULL);
	cr_assert_eq(get(3, 1, 0).ebx >> 24, 3);
	cr_assert_eq((get(3, 1, 0).ebx >> 16) & 0xff, 4);
	cr_assert_eq(get(3, 0xb, 0).edx, 3);
	cr_assert_eq(get(3, 0xb, 1).eax, 2);
	cr_assert_eq(get(3, 0xb, 1).ecx, 0x201);
	cr_assert_eq(get(3, 0xb, 5).edx, 3);
	cr_assert_eq(get(3, 0xb, 5).ecx, 5);
}

/* Every layout of 1 to 3 nodes: ids of one package are of one node; all three leaves say the same.
 * */
Test(cpuid, packages_stay_on_nodes)
{
	for (unsigned a = 1; a <= 6; a++)
		for (unsigned b = 0; b <= 6; b++)
			for (unsigned c = 0; c <= (b ? 6 : 0); c++) {
				node_id of[18];
				unsigned n = a + b + c, shift;
				struct hv_cpuid_config cfg = { .vcpus = n, .node_of = of };

				for (unsigned k = 0; k < n; k++)
					of[k] = k < a ? 0 : k < a + b ? 1 : 2;
				shift = hv_cpuid_package_shift(&cfg);
				for (unsigned k = 0; k < n; k++)
					for (unsigned j = 0; j < n; j++)
						cr_assert(k >> shift != j >> shift ||
								  of[k] == of[j],
							  "%u+%u+%u: %u and %u", a, b, c, k, j);
				build(n, of);
				cr_assert_eq((get(0, 1, 0).ebx >> 16) & 0xff, 1u << shift);
				cr_assert_eq(get(0, 0xb, 1).eax, shift);
				cr_assert_eq(get(0, 0x80000008, 0).ecx >> 12, shift);
			}
}

Test(cpuid, even_nodes_are_one_package_each)
{
	static const node_id of[4] = { 0, 0, 1, 1 };
	struct hv_cpuid_config cfg = { .vcpus = 4, .node_of = of };

	cr_assert_eq(hv_cpuid_package_shift(&cfg), 1);
}
