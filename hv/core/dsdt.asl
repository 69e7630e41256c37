/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/dsdt.asl - what of the machine does not change from VM to VM.  Run through the C preprocessor, then
 * compiled by iasl at build time; acpi.c writes the number of virtio devices over VCNT's value.
 */
#include "hv/core/layout.h"

/* Slot i of the virtio-mmio window; present while i < VCNT (ACPI 6.4, 6.3.7: bits of _STA). */
#define VIRTIO_SLOT(name, i) \
	Device (name) { \
		Name (_HID, "LNRO0005") \
		Name (_UID, i) \
		Name (_CCA, One) \
		Method (_STA, 0, NotSerialized) { If (LLess (i, VCNT)) { Return (0x0F) } Return (Zero) } \
		Name (_CRS, ResourceTemplate () { \
			Memory32Fixed (ReadWrite, HV_VIRTIO_BASE + (i) * HV_VIRTIO_STRIDE, HV_VIRTIO_STRIDE) \
			Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { HV_VIRTIO_GSI_BASE + i } \
		}) \
	}

DefinitionBlock ("", "DSDT", 2, "UNUM", "UNUMVM", 1)
{
	Name (\_S5, Package () { HV_S5_SLP_TYP, Zero, Zero, Zero })

	Scope (\_SB)
	{
		Name (VCNT, 0x55AA1234)

		Device (COM1) {
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, One)
			Name (_CRS, ResourceTemplate () {
				IO (Decode16, HV_PORT_COM1, HV_PORT_COM1, 1, 8)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { HV_GSI_COM1 }
			})
		}

		VIRTIO_SLOT (V000, 0)
		VIRTIO_SLOT (V001, 1)
		VIRTIO_SLOT (V002, 2)
		VIRTIO_SLOT (V003, 3)
		VIRTIO_SLOT (V004, 4)
		VIRTIO_SLOT (V005, 5)
		VIRTIO_SLOT (V006, 6)
		VIRTIO_SLOT (V007, 7)
		VIRTIO_SLOT (V008, 8)
		VIRTIO_SLOT (V009, 9)
		VIRTIO_SLOT (V010, 10)
		VIRTIO_SLOT (V011, 11)
		VIRTIO_SLOT (V012, 12)
		VIRTIO_SLOT (V013, 13)
		VIRTIO_SLOT (V014, 14)
		VIRTIO_SLOT (V015, 15)
		VIRTIO_SLOT (V016, 16)
		VIRTIO_SLOT (V017, 17)
		VIRTIO_SLOT (V018, 18)
		VIRTIO_SLOT (V019, 19)
		VIRTIO_SLOT (V020, 20)
		VIRTIO_SLOT (V021, 21)
		VIRTIO_SLOT (V022, 22)
		VIRTIO_SLOT (V023, 23)
		VIRTIO_SLOT (V024, 24)
		VIRTIO_SLOT (V025, 25)
		VIRTIO_SLOT (V026, 26)
		VIRTIO_SLOT (V027, 27)
		VIRTIO_SLOT (V028, 28)
		VIRTIO_SLOT (V029, 29)
		VIRTIO_SLOT (V030, 30)
		VIRTIO_SLOT (V031, 31)
	}
}
