/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/dsdt.asl - what of the machine does not change from VM to VM.  Run through the C preprocessor, then
 * compiled by iasl at build time; acpi.c writes the number of virtio devices over VCNT's value.
 */
#include "hv/core/layout.h"

/*
 * Slot i of the virtio-mmio window; present while i < VCNT (ACPI 6.4, 6.3.7: bits of _STA).  Address and GSI are
 * literals because iasl miscounts lengths when it folds arithmetic in resources; a unit test holds them against layout.h.
 */
#define VIRTIO_SLOT(name, i, base, gsi) \
	Device (name) { \
		Name (_HID, "LNRO0005") \
		Name (_UID, i) \
		Name (_CCA, One) \
		Method (_STA, 0, NotSerialized) { If (LLess (i, VCNT)) { Return (0x0F) } Return (Zero) } \
		Name (_CRS, ResourceTemplate () { \
			Memory32Fixed (ReadWrite, base, HV_VIRTIO_STRIDE) \
			Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { gsi } \
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

		VIRTIO_SLOT (V000, 0, 0xD0000000, 16)
		VIRTIO_SLOT (V001, 1, 0xD0001000, 17)
		VIRTIO_SLOT (V002, 2, 0xD0002000, 18)
		VIRTIO_SLOT (V003, 3, 0xD0003000, 19)
		VIRTIO_SLOT (V004, 4, 0xD0004000, 20)
		VIRTIO_SLOT (V005, 5, 0xD0005000, 21)
		VIRTIO_SLOT (V006, 6, 0xD0006000, 22)
		VIRTIO_SLOT (V007, 7, 0xD0007000, 23)
		VIRTIO_SLOT (V008, 8, 0xD0008000, 24)
		VIRTIO_SLOT (V009, 9, 0xD0009000, 25)
		VIRTIO_SLOT (V010, 10, 0xD000A000, 26)
		VIRTIO_SLOT (V011, 11, 0xD000B000, 27)
		VIRTIO_SLOT (V012, 12, 0xD000C000, 28)
		VIRTIO_SLOT (V013, 13, 0xD000D000, 29)
		VIRTIO_SLOT (V014, 14, 0xD000E000, 30)
		VIRTIO_SLOT (V015, 15, 0xD000F000, 31)
		VIRTIO_SLOT (V016, 16, 0xD0010000, 32)
		VIRTIO_SLOT (V017, 17, 0xD0011000, 33)
		VIRTIO_SLOT (V018, 18, 0xD0012000, 34)
		VIRTIO_SLOT (V019, 19, 0xD0013000, 35)
		VIRTIO_SLOT (V020, 20, 0xD0014000, 36)
		VIRTIO_SLOT (V021, 21, 0xD0015000, 37)
		VIRTIO_SLOT (V022, 22, 0xD0016000, 38)
		VIRTIO_SLOT (V023, 23, 0xD0017000, 39)
		VIRTIO_SLOT (V024, 24, 0xD0018000, 40)
		VIRTIO_SLOT (V025, 25, 0xD0019000, 41)
		VIRTIO_SLOT (V026, 26, 0xD001A000, 42)
		VIRTIO_SLOT (V027, 27, 0xD001B000, 43)
		VIRTIO_SLOT (V028, 28, 0xD001C000, 44)
		VIRTIO_SLOT (V029, 29, 0xD001D000, 45)
		VIRTIO_SLOT (V030, 30, 0xD001E000, 46)
		VIRTIO_SLOT (V031, 31, 0xD001F000, 47)
	}
}
