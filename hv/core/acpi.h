/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/acpi.h - ACPI tables of the machine: hardware-reduced, no SCI, no PM timer.
 *
 * What      RSDP, XSDT, FADT, DSDT, MADT and, with numa, SRAT and SLIT, as one blob for one guest
 *           address. The DSDT is dsdt.asl compiled at build time; the number of virtio slots in use
 *           is patched in.
 * Limits    ids < 255, HV_VIRTIO_SLOTS virtio devices (slots 0 .. n-1 of layout.h), NODES_MAX
 *           nodes.
 * Spec      ACPI 6.4: 4.1 (hardware-reduced), 4.8.3.7 (sleep registers), 5.2.
 */
#ifndef HV_CORE_ACPI_H
#define HV_CORE_ACPI_H

#include "base/types.h"
#include "hv/core/layout.h"

struct hv_acpi_mem {
	gpa_t start;
	uint64_t len;
	node_id node;
};

struct hv_acpi_config {
	unsigned vcpus;
	unsigned nodes;
	const node_id *node_of;        /* [vcpus]; only with numa */
	const struct hv_acpi_mem *mem; /* RAM ranges of each node; only with numa */
	unsigned mem_count;
	unsigned virtio_slots; /* devices present: slots 0 .. virtio_slots - 1 */
	bool numa;             /* expose: SRAT and SLIT */
};

/* Writes the tables for address `at` (RSDP first, so the RSDP is at `at`); 16-byte aligned.
 * Bytes used, or 0 when `cap` is too small (HV_ACPI_SIZE is enough for every legal config). */
size_t hv_acpi_build(const struct hv_acpi_config *cfg, gpa_t at, uint8_t *buf, size_t cap);

#endif
