/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/layout.h - where things are in the guest's physical address space, its ports and its
 * GSIs.
 *
 * Constants only (the DSDT is preprocessed with this file, so no C here).  RAM is [0,
 * HV_HOLE_START) and, what is more, from HV_HIGH_START on.
 */
#ifndef HV_CORE_LAYOUT_H
#define HV_CORE_LAYOUT_H

#define HV_HOLE_START 0xC0000000  /* end of low RAM at most */
#define HV_HIGH_START 0x100000000 /* RAM that does not fit below goes on here */

#define HV_IOAPIC_BASE 0xFEC00000
#define HV_LAPIC_BASE 0xFEE00000 /* reset value; a guest may move it (IA32_APIC_BASE) */
#define HV_LAPIC_SIZE 0x1000

/* virtio-mmio slot i: registers at BASE + i * STRIDE, GSI_BASE + i. */
#define HV_VIRTIO_BASE 0xD0000000
#define HV_VIRTIO_STRIDE 0x1000
#define HV_VIRTIO_SLOTS 32
#define HV_VIRTIO_GSI_BASE 16
#define HV_GSI_COM1 4

/* Firmware area in RAM, told to the guest as not usable (or as ACPI). */
#define HV_LOW_RAM_END 0x9F000 /* usable RAM of the first megabyte ends here */
#define HV_ACPI_START 0xE0000
#define HV_ACPI_SIZE 0x1FFF0 /* up to the reset vector */
#define HV_RESET_VECTOR 0xFFFF0
#define HV_HIGH_RAM_START 0x100000

/* Ports. */
#define HV_PORT_COM1 0x3F8
#define HV_PORT_SLEEP_CONTROL 0x600 /* ACPI 6.4, 4.8.3.7 */
#define HV_PORT_SLEEP_STATUS 0x601
#define HV_PORT_RESET 0xCF9
#define HV_RESET_VALUE 0x06
#define HV_S5_SLP_TYP 5

#endif
