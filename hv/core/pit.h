/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/pit.h - 8254 timer, ports 0x40-0x43, and port 0x61 that gates channel 2.
 *
 * What      Counters computed from the time that is passed as a value; nothing ever fires.
 * Threads   One at a time per struct; the caller guards it.
 * Limits    No interrupts (hardware-reduced machine); BCD counting is done as binary.
 * Spec      Intel 8254 data sheet.
 */
#ifndef HV_CORE_PIT_H
#define HV_CORE_PIT_H

#include "base/types.h"

#define HV_PIT_HZ 1193182u

struct hv_pit_channel {
	uint64_t start_ns; /* when the count was loaded, or gated on again */
	uint32_t reload;   /* 1 .. 65536 */
	uint16_t latch;
	uint8_t mode, access; /* mode 0-5; access 1 lsb, 2 msb, 3 both */
	uint8_t write_lsb, status;
	bool write_high, read_high; /* next byte is the high one */
	bool latched, status_latched;
	bool counting; /* a count has been loaded */
	bool gate;
	uint32_t held; /* count while the gate is low */
};

struct hv_pit {
	struct hv_pit_channel ch[3];
	bool speaker;
};

/* Guest time, ns, of any origin; must not step back.  All calls take it. */
void hv_pit_init(struct hv_pit *p);
bool hv_pit_has_port(uint16_t port);
uint8_t hv_pit_read(struct hv_pit *p, uint16_t port, uint64_t now_ns);
void hv_pit_write(struct hv_pit *p, uint16_t port, uint8_t value, uint64_t now_ns);

#endif
