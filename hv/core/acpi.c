/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/acpi.c - ACPI tables; see acpi.h.  Pure; field offsets are of ACPI 6.4, sections named at
 * each table.
 */
#include "hv/core/acpi.h"

#include "base/assert.h"
#include "base/bytes.h"

#include "hv/core/dsdt.h"

#define ALIGN 16u
#define HEADER_LEN 36u
#define TABLES_MAX 4u /* in the XSDT: FADT, MADT, SRAT, SLIT */

#define FADT_LEN 276u
#define FADT_PROC_C1 (1u << 2)
#define FADT_NO_POWER_BUTTON (1u << 4)
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_RESET_REG (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define BOOT_ARCH_NO_VGA (1u << 2)

#define SLIT_LOCAL 10
#define SLIT_REMOTE 20

struct build {
	uint8_t *buf;
	size_t cap, used;
	gpa_t at;
	bool full;
};

/* Zeroed room for one table; NULL once the buffer is full. */
static uint8_t *take(struct build *b, size_t len)
{
	size_t start = (b->used + ALIGN - 1) & ~(size_t)(ALIGN - 1);

	if (b->full || start > b->cap || b->cap - start < len) {
		b->full = true;
		return NULL;
	}
	memset(b->buf + b->used, 0, start + len - b->used);
	b->used = start + len;
	return b->buf + start;
}

static gpa_t address_of(const struct build *b, const uint8_t *table)
{
	return b->at + (gpa_t)(table - b->buf);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

/* 5.2.6 */
static void header(uint8_t *t, const char *signature, size_t len, uint8_t revision)
{
	memcpy(t, signature, 4);
	put_le32(t + 4, (uint32_t)len);
	t[8] = revision;
	memcpy(t + 10, "UNUM  ", 6);
	memcpy(t + 16, "UNUMVM  ", 8);
	put_le32(t + 24, 1);
	memcpy(t + 28, "UNUM", 4);
	put_le32(t + 32, 1);
}

static void seal(uint8_t *t)
{
	t[9] = 0;
	t[9] = checksum(t, get_le32(t + 4));
}

/* The value of Name (VCNT, 0x55AA1234): NameOp, the name, DWordPrefix, four bytes (20.2.5.1). */
static void dsdt_set_slots(uint8_t *aml, size_t len, uint32_t slots)
{
	static const uint8_t pattern[] = { 0x08, 'V', 'C', 'N', 'T', 0x0c, 0x34, 0x12, 0xaa, 0x55 };
	size_t k = 0;

	while (k + sizeof(pattern) <= len && memcmp(aml + k, pattern, sizeof(pattern)) != 0)
		k++;
	ASSERT(k + sizeof(pattern) <= len);
	put_le32(aml + k + 6, slots);
}

static gpa_t put_dsdt(struct build *b, unsigned slots)
{
	uint8_t *t = take(b, sizeof(dsdt_aml));

	if (!t)
		return 0;
	memcpy(t, dsdt_aml, sizeof(dsdt_aml));
	dsdt_set_slots(t, sizeof(dsdt_aml), slots);
	seal(t);
	return address_of(b, t);
}

/* Generic address, system I/O, one byte wide (5.2.3.2). */
static void gas_port8(uint8_t *p, uint16_t port)
{
	p[0] = 1;
	p[1] = 8;
	p[3] = 1;
	put_le64(p + 4, port);
}

/* 5.2.9 */
static gpa_t put_fadt(struct build *b, gpa_t dsdt)
{
	uint8_t *t = take(b, FADT_LEN);

	if (!t)
		return 0;
	header(t, "FACP", FADT_LEN, 6);
	put_le32(t + 40, (uint32_t)dsdt);
	put_le16(t + 109, BOOT_ARCH_NO_VGA);
	put_le32(t + 112, FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
				  FADT_RESET_REG | FADT_HW_REDUCED);
	gas_port8(t + 116, HV_PORT_RESET);
	t[128] = HV_RESET_VALUE;
	t[131] = 4; /* 6.4 */
	put_le64(t + 140, dsdt);
	gas_port8(t + 244, HV_PORT_SLEEP_CONTROL);
	gas_port8(t + 256, HV_PORT_SLEEP_STATUS);
	memcpy(t + 268, "UNUM", 4);
	seal(t);
	return address_of(b, t);
}

/* 5.2.12 */
static gpa_t put_madt(struct build *b, const struct hv_acpi_config *cfg)
{
	size_t len = HEADER_LEN + 8 + 8 * (size_t)cfg->vcpus + 12;
	uint8_t *t = take(b, len), *p;

	if (!t)
		return 0;
	header(t, "APIC", len, 5);
	put_le32(t + HEADER_LEN, HV_LAPIC_BASE);
	p = t + HEADER_LEN + 8;
	for (unsigned k = 0; k < cfg->vcpus; k++, p += 8) {
		p[1] = 8;                 /* type 0: local APIC */
		p[2] = p[3] = (uint8_t)k; /* processor uid, APIC id */
		put_le32(p + 4, 1);
	}
	p[0] = 1; /* I/O APIC */
	p[1] = 12;
	put_le32(p + 4, HV_IOAPIC_BASE);
	seal(t);
	return address_of(b, t);
}

/* 5.2.16 */
static gpa_t put_srat(struct build *b, const struct hv_acpi_config *cfg)
{
	size_t len = HEADER_LEN + 12 + 16 * (size_t)cfg->vcpus + 40 * (size_t)cfg->mem_count;
	uint8_t *t = take(b, len), *p;

	if (!t)
		return 0;
	header(t, "SRAT", len, 3);
	put_le32(t + HEADER_LEN, 1);
	p = t + HEADER_LEN + 12;
	for (unsigned k = 0; k < cfg->vcpus; k++, p += 16) {
		p[1] = 16; /* type 0: processor local APIC affinity */
		p[2] = cfg->node_of[k];
		p[3] = (uint8_t)k;
		put_le32(p + 4, 1);
	}
	for (unsigned k = 0; k < cfg->mem_count; k++, p += 40) {
		p[0] = 1; /* memory affinity */
		p[1] = 40;
		put_le32(p + 2, cfg->mem[k].node);
		put_le64(p + 8, cfg->mem[k].start);
		put_le64(p + 16, cfg->mem[k].len);
		put_le32(p + 28, 1);
	}
	seal(t);
	return address_of(b, t);
}

/* 5.2.17 */
static gpa_t put_slit(struct build *b, unsigned nodes)
{
	size_t len = HEADER_LEN + 8 + (size_t)nodes * nodes;
	uint8_t *t = take(b, len);

	if (!t)
		return 0;
	header(t, "SLIT", len, 1);
	put_le64(t + HEADER_LEN, nodes);
	memset(t + HEADER_LEN + 8, SLIT_REMOTE, (size_t)nodes * nodes);
	for (unsigned k = 0; k < nodes; k++)
		t[HEADER_LEN + 8 + k * nodes + k] = SLIT_LOCAL;
	seal(t);
	return address_of(b, t);
}

/* 5.2.5.3 */
static void put_rsdp(uint8_t *r, gpa_t xsdt)
{
	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "UNUM  ", 6);
	r[15] = 2;
	put_le32(r + 20, 36);
	put_le64(r + 24, xsdt);
	r[8] = checksum(r, 20);
	r[32] = checksum(r, 36);
}

size_t hv_acpi_build(const struct hv_acpi_config *cfg, gpa_t at, uint8_t *buf, size_t cap)
{
	struct build b = { .buf = buf, .cap = cap, .at = at };
	gpa_t list[TABLES_MAX];
	unsigned count = 0;
	uint8_t *rsdp, *xsdt;

	ASSERT(at % ALIGN == 0 && cfg->vcpus <= VCPUS_MAX && cfg->virtio_slots <= HV_VIRTIO_SLOTS);
	ASSERT(!cfg->numa || (cfg->nodes >= 1 && cfg->nodes <= NODES_MAX));
	rsdp = take(&b, 36);
	xsdt = take(&b, HEADER_LEN + 8 * TABLES_MAX);
	list[count++] = put_fadt(&b, put_dsdt(&b, cfg->virtio_slots));
	list[count++] = put_madt(&b, cfg);
	if (cfg->numa) {
		list[count++] = put_srat(&b, cfg);
		list[count++] = put_slit(&b, cfg->nodes);
	}
	if (b.full)
		return 0;
	header(xsdt, "XSDT", HEADER_LEN + 8 * count, 1);
	for (unsigned k = 0; k < count; k++)
		put_le64(xsdt + HEADER_LEN + 8 * k, list[k]);
	seal(xsdt);
	put_rsdp(rsdp, address_of(&b, xsdt));
	return b.used;
}
