/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/acpi.c - reads just enough ACPI to know the processors, the virtio-mmio windows and how to power off.
 *
 * Limits    Tables below 4 GiB. The DSDT is searched for byte patterns, not interpreted: _S5_ packages of small
 *           integers, and Memory32Fixed descriptors that follow the name of a virtio-mmio device.
 * Source    ACPI 6.4: 5.2.5 RSDP, 5.2.9 FADT, 5.2.12 MADT, 5.2.16 SRAT, 4.8.3 sleep registers, 6.4.3.4.
 */
#include "rt/rt.h"

struct header {
	char sig[4];
	uint32_t len;
	uint8_t rest[28];
} __attribute__((packed));

struct platform platform = { .cpus = 1, .numa_nodes = 1 };

static const struct header *fadt, *dsdt;

static uint32_t u32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static uint64_t u64(const void *p)
{
	return u32(p) | (uint64_t)u32((const char *)p + 4) << 32;
}

static uint64_t rsdp_find(void)
{
	static const struct {
		uint32_t from, to;
	} places[] = { { 0x9fc00, 0xa0000 }, { 0xe0000, 0x100000 } };

	for (unsigned i = 0; i < ARRAY_LEN(places); i++)
		for (uint64_t a = places[i].from; a < places[i].to; a += 16)
			if (memcmp((const void *)a, "RSD PTR ", 8) == 0)
				return a;
	return 0;
}

static void cpu_add(uint32_t id, uint32_t flags)
{
	if ((flags & 1) && id < CPUS_MAX && id >= platform.cpus)
		platform.cpus = id + 1;
}

static void madt_read(const uint8_t *t, uint32_t len)
{
	for (uint32_t i = 44; i + 2 <= len && t[i + 1] >= 2; i += t[i + 1]) {
		if (t[i] == 0)
			cpu_add(t[i + 3], u32(t + i + 4));
		else if (t[i] == 9)
			cpu_add(u32(t + i + 4), u32(t + i + 8));
		else if (t[i] == 1)
			platform.ioapic = u32(t + i + 4);
	}
}

static void srat_read(const uint8_t *t, uint32_t len)
{
	for (uint32_t i = 48; i + 2 <= len && t[i + 1] >= 2; i += t[i + 1]) {
		uint32_t node = 0, cpu = CPUS_MAX;

		if (t[i] == 0 && (u32(t + i + 4) & 1)) {
			node = t[i + 2];
			cpu = t[i + 3];
		} else if (t[i] == 2 && (u32(t + i + 12) & 1)) {
			node = u32(t + i + 4);
			cpu = u32(t + i + 8);
		} else if (t[i] == 1 && (u32(t + i + 28) & 1)) {
			node = u32(t + i + 2);
		}
		if (cpu < CPUS_MAX)
			platform.cpu_node[cpu] = (uint8_t)node;
		if (node >= platform.numa_nodes)
			platform.numa_nodes = node + 1;
	}
}

/* Memory32Fixed (0x86, 9 bytes) that follows the _HID of a virtio-mmio device. */
static void slots_read(const uint8_t *t, uint32_t len)
{
	for (uint32_t i = 36; i + 8 <= len; i++) {
		if (memcmp(t + i, "LNRO0005", 8) != 0)
			continue;
		for (uint32_t j = i; j + 12 <= len && j < i + 200; j++)
			if (t[j] == 0x86 && t[j + 1] == 9 && t[j + 2] == 0) {
				if (platform.mmio_slots < MMIO_SLOTS_MAX)
					platform.mmio_slot[platform.mmio_slots++] = u32(t + j + 4);
				break;
			}
	}
}

void platform_read(void)
{
	const uint8_t *rsdp = (const uint8_t *)(boot.rsdp ? boot.rsdp : rsdp_find());
	const struct header *root;
	unsigned wide;

	if (!rsdp)
		fail("no ACPI root pointer");
	wide = rsdp[15] >= 2 && u64(rsdp + 24) ? 8 : 4;
	root = (const struct header *)(wide == 8 ? u64(rsdp + 24) : u32(rsdp + 16));
	for (uint32_t i = 36; i + wide <= root->len; i += wide) {
		const uint8_t *entry = (const uint8_t *)root + i;
		const struct header *t = (const struct header *)(wide == 8 ? u64(entry) : u32(entry));

		if (memcmp(t->sig, "APIC", 4) == 0)
			madt_read((const uint8_t *)t, t->len);
		else if (memcmp(t->sig, "SRAT", 4) == 0)
			srat_read((const uint8_t *)t, t->len);
		else if (memcmp(t->sig, "FACP", 4) == 0)
			fadt = t;
	}
	if (!fadt)
		return;
	dsdt = (const struct header *)(uint64_t)u32((const uint8_t *)fadt + 40);
	if (fadt->len >= 148 && u64((const uint8_t *)fadt + 140))
		dsdt = (const struct header *)u64((const uint8_t *)fadt + 140);
	slots_read((const uint8_t *)dsdt, dsdt->len);
}

/* SLP_TYP of S5: the first element of the _S5_ package. */
static uint8_t sleep_type(void)
{
	const uint8_t *t = (const uint8_t *)dsdt;

	for (uint32_t i = 36; i + 12 <= dsdt->len; i++) {
		const uint8_t *p = t + i;

		if (memcmp(p, "_S5_", 4) != 0 || p[4] != 0x12)
			continue;
		p += 5;
		p += (*p >> 6) + 2; /* package length, element count */
		return *p == 0x0a ? p[1] : *p <= 1 ? *p : 0;
	}
	return 0;
}

void power_off(void)
{
	const uint8_t *f = (const uint8_t *)fadt;

	irq_off();
	if (fadt && dsdt && fadt->len >= 256 && (u32(f + 112) & 1u << 20)) {
		/* hardware-reduced: SLEEP_CONTROL_REG, a generic address: space, width, offset, size, address */
		uint8_t v = (uint8_t)(sleep_type() << 2 | 0x20);

		if (f[244] == 1)
			outb((uint16_t)u64(f + 248), v);
		else
			*(volatile uint8_t *)u64(f + 248) = v;
	} else if (fadt && dsdt) {
		outw((uint16_t)u32(f + 64), (uint16_t)(sleep_type() << 10 | 1 << 13));
	}
	for (;;)
		__asm__ volatile("hlt");
}
