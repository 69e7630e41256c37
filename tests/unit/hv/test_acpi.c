/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI tables: found by walking from the RSDP as a guest does; checksums; contents; disassembly by
 * iasl. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hv/core/acpi.h"

#define AT 0xe0000u

static uint8_t buf[HV_ACPI_SIZE];
static size_t used;
static const node_id node_of[] = { 0, 0, 1, 1, 2 };
static const struct hv_acpi_mem mem[] = {
	{ 0, 0x40000000, 0 },
	{ 0x40000000, 0x40000000, 1 },
	{ 0x100000000, 0x80000000, 2 },
};

static struct hv_acpi_config config(void)
{
	return (struct hv_acpi_config){ .vcpus = 5,
					.nodes = 3,
					.node_of = node_of,
					.mem = mem,
					.mem_count = 3,
					.virtio_slots = 3,
					.numa = true };
}

static void build(const struct hv_acpi_config *cfg)
{
	memset(buf, 0xee, sizeof(buf));
	used = hv_acpi_build(cfg, AT, buf, sizeof(buf));
	cr_assert_gt(used, 0);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint8_t *at(uint64_t gpa)
{
	cr_assert(gpa >= AT && gpa < AT + used, "address %#llx is outside",
		  (unsigned long long)gpa);
	cr_assert_eq(gpa % 16, 0);
	return buf + (gpa - AT);
}

static uint8_t *table(const char *signature)
{
	uint8_t *xsdt = at(get_le64(buf + 24));

	cr_assert_eq(memcmp(xsdt, "XSDT", 4), 0);
	cr_assert_eq(sum(xsdt, get_le32(xsdt + 4)), 0);
	for (unsigned k = 36; k < get_le32(xsdt + 4); k += 8) {
		uint8_t *t = at(get_le64(xsdt + k));

		cr_assert_eq(sum(t, get_le32(t + 4)), 0, "checksum of %.4s", t);
		if (memcmp(t, signature, 4) == 0)
			return t;
	}
	return NULL;
}

static uint8_t *dsdt(void)
{
	uint8_t *d = at(get_le64(table("FACP") + 140));

	cr_assert_eq(memcmp(d, "DSDT", 4), 0);
	cr_assert_eq(sum(d, get_le32(d + 4)), 0);
	return d;
}

Test(acpi, rsdp)
{
	struct hv_acpi_config cfg = config();

	build(&cfg);
	cr_assert_eq(memcmp(buf, "RSD PTR ", 8), 0);
	cr_assert_eq(buf[15], 2);
	cr_assert_eq(sum(buf, 20), 0);
	cr_assert_eq(sum(buf, 36), 0);
}

Test(acpi, fadt_is_hardware_reduced)
{
	struct hv_acpi_config cfg = config();
	uint8_t *f;

	build(&cfg);
	f = table("FACP");
	cr_assert_eq(get_le32(f + 4), 276);
	cr_assert(get_le32(f + 112) & (1u << 20));
	cr_assert(get_le32(f + 112) & (1u << 10), "reset register");
	cr_assert_eq(f[116], 1);
	cr_assert_eq(get_le64(f + 120), HV_PORT_RESET);
	cr_assert_eq(f[128], HV_RESET_VALUE);
	cr_assert_eq(get_le64(f + 248), HV_PORT_SLEEP_CONTROL);
	cr_assert_eq(get_le64(f + 260), HV_PORT_SLEEP_STATUS);
	cr_assert_eq(get_le32(f + 40), get_le64(f + 140));
	dsdt();
}

Test(acpi, madt)
{
	struct hv_acpi_config cfg = config();
	unsigned cpus = 0, ioapics = 0;
	uint8_t *m, *p;

	build(&cfg);
	m = table("APIC");
	cr_assert_eq(get_le32(m + 36), HV_LAPIC_BASE);
	for (p = m + 44; p < m + get_le32(m + 4); p += p[1]) {
		cr_assert_geq(p[1], 2);
		if (p[0] == 0) {
			cr_assert_eq(p[3], cpus);
			cr_assert_eq(get_le32(p + 4), 1);
			cpus++;
		} else if (p[0] == 1) {
			cr_assert_eq(get_le32(p + 4), HV_IOAPIC_BASE);
			ioapics++;
		}
	}
	cr_assert_eq(cpus, 5);
	cr_assert_eq(ioapics, 1);
}

Test(acpi, srat_and_slit)
{
	struct hv_acpi_config cfg = config();
	unsigned cpus = 0, ranges = 0;
	uint8_t *s, *p;

	build(&cfg);
	s = table("SRAT");
	for (p = s + 48; p < s + get_le32(s + 4); p += p[1]) {
		if (p[0] == 0) {
			cr_assert_eq(p[2], node_of[p[3]]);
			cpus++;
		} else {
			cr_assert_eq(p[0], 1);
			cr_assert_eq(get_le32(p + 2), mem[ranges].node);
			cr_assert_eq(get_le64(p + 8), mem[ranges].start);
			cr_assert_eq(get_le64(p + 16), mem[ranges].len);
			ranges++;
		}
	}
	cr_assert_eq(cpus, 5);
	cr_assert_eq(ranges, 3);
	s = table("SLIT");
	cr_assert_eq(get_le64(s + 36), 3);
	for (unsigned k = 0; k < 9; k++)
		cr_assert_eq(s[44 + k], k % 4 ? 20 : 10);
}

Test(acpi, flat_has_no_numa_tables)
{
	struct hv_acpi_config cfg = { .vcpus = 2 };

	build(&cfg);
	cr_assert_not(table("SRAT"));
	cr_assert_not(table("SLIT"));
	cr_assert(table("APIC"));
}

Test(acpi, largest_fits_and_small_buffer_is_refused)
{
	static node_id many[VCPUS_MAX];
	static struct hv_acpi_mem ranges[2 * NODES_MAX];
	struct hv_acpi_config cfg = { .vcpus = VCPUS_MAX,
				      .nodes = NODES_MAX,
				      .node_of = many,
				      .mem = ranges,
				      .mem_count = 2 * NODES_MAX,
				      .virtio_slots = HV_VIRTIO_SLOTS,
				      .numa = true };

	build(&cfg);
	cr_assert(table("SLIT"));
	for (size_t cap = 0; cap < used; cap += 61) {
		buf[cap] = 0xee;
		cr_assert_eq(hv_acpi_build(&cfg, AT, buf, cap), 0);
		cr_assert_eq(buf[cap], 0xee, "nothing is written beyond cap");
	}
}

/* The n-th device has the n-th register window and GSI; literals in the ASL, constants everywhere
 * else. */
static void slots_are_as_in_layout(const char *text)
{
	char want[32];

	for (unsigned k = 0; k < HV_VIRTIO_SLOTS; k++) {
		text = strstr(text, "LNRO0005");
		cr_assert(text, "slot %u is missing", k);
		snprintf(want, sizeof(want), "0x%08X,", HV_VIRTIO_BASE + k * HV_VIRTIO_STRIDE);
		text = strstr(text, want);
		cr_assert(text, "slot %u: no %s", k, want);
		snprintf(want, sizeof(want), "0x%08X,", HV_VIRTIO_GSI_BASE + k);
		text = strstr(text, want);
		cr_assert(text, "slot %u: no GSI %s", k, want);
	}
	cr_assert_not(strstr(text, "LNRO0005"));
}

/* The disassembler must read the patched DSDT back, with the devices of layout.h in it. */
Test(acpi, iasl_reads_the_dsdt)
{
	struct hv_acpi_config cfg = config();
	char dir[] = "/tmp/unum-acpi-XXXXXX", cmd[512];
	static char text[1 << 18];
	uint8_t *d;
	size_t n;
	FILE *f;

	build(&cfg);
	d = dsdt();
	cr_assert(mkdtemp(dir));
	snprintf(cmd, sizeof(cmd), "%s/dsdt.aml", dir);
	f = fopen(cmd, "wb");
	cr_assert(f);
	cr_assert_eq(fwrite(d, 1, get_le32(d + 4), f), get_le32(d + 4));
	fclose(f);
	snprintf(cmd, sizeof(cmd), "cd %s && iasl -d dsdt.aml >log 2>&1 && cat dsdt.dsl", dir);
	f = popen(cmd, "r");
	cr_assert(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = 0;
	cr_assert_eq(pclose(f), 0, "iasl -d failed");
	cr_assert(strstr(text, "Name (VCNT, 0x03)") || strstr(text, "Name (VCNT, 0x00000003)"));
	cr_assert(strstr(text, "PNP0501"));
	cr_assert(strstr(text, "LNRO0005"));
	slots_are_as_in_layout(text);
	cr_assert(strstr(text, "Name (_S5, Package"));
	snprintf(cmd, sizeof(cmd), "cd %s && iasl -p again dsdt.dsl >log 2>&1 && rm -r %s", dir,
		 dir);
	cr_assert_eq(system(cmd), 0, "iasl does not accept its own text");
}
