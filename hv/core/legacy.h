/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/legacy.h - the small ports: CMOS clock, power, reset, and what is not there.
 *
 * What      RTC/CMOS 0x70-0x71; ACPI sleep registers; 8042 reset (0x64), 0x92, 0xcf9; PCI
 *           configuration ports that say there is no PCI.
 * Threads   One at a time per struct; the caller guards it.
 * Limits    The clock is read-only: a guest that sets it is ignored.  No RTC interrupts.
 * Spec      Motorola MC146818; ACPI 6.4, 4.8.3.7; PCI Local Bus 3.0, 3.2.2.3.2.
 */
#ifndef HV_CORE_LEGACY_H
#define HV_CORE_LEGACY_H

#include "base/types.h"
#include "hv/core/layout.h"

struct hv_legacy {
	uint8_t cmos_index;
	uint8_t cmos[128];
	uint8_t port92;
};

enum hv_legacy_effect { HV_LEGACY_NONE, HV_LEGACY_POWEROFF, HV_LEGACY_RESET };

void hv_legacy_init(struct hv_legacy *l);
bool hv_legacy_has_port(uint16_t port);
/* size 1, 2, 4; unix_s: wall clock, seconds since 1970. */
uint32_t hv_legacy_read(struct hv_legacy *l, uint16_t port, unsigned size, uint64_t unix_s);
enum hv_legacy_effect hv_legacy_write(struct hv_legacy *l, uint16_t port, unsigned size,
				      uint32_t value);

#endif
