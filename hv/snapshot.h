/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/snapshot.h - one vCPU between two instructions, as bytes that another node's slice understands.
 *
 * What      Everything the guest could notice: the engine's state, the LAPIC, what the monitor knows beside it.
 * Format    Little-endian, no padding: u32 magic "uvcp", u16 version, u16 length of all, the fields in the order of
 *           `visit` in snapshot.c, u32 CRC-32 of all before it (zlib's, IEEE 802.3).  docs/migration.md.
 * Version   One number for the whole; another one is refused.  Whoever changes the fields raises it.
 * Threads   Any; no state.
 */
#ifndef HV_SNAPSHOT_H
#define HV_SNAPSHOT_H

#include "base/err.h"
#include "hv/core/lapic.h"
#include "hv/engine.h"

#define HV_SNAPSHOT_VERSION 1u
#define HV_SNAPSHOT_MAX 4096u

struct hv_snapshot {
	struct hv_cpu_state cpu; /* tsc_offset and irq_latched are of the node: left out */
	struct hv_lapic lapic;
	bool halted;
	uint64_t deadline_tsc; /* guest TSC of the LAPIC timer, 0: none */
	uint32_t addr_seq;     /* of the last HV_MSG_ADDR */
	uint64_t stopped_tsc;  /* guest TSC when it left the guest */
};

/* Bytes written. */
size_t hv_snapshot_encode(const struct hv_snapshot *s, uint8_t out[static HV_SNAPSHOT_MAX]);
/* Untrusted bytes.  -EBADMSG: not as it was sent; -EPROTO: another version. */
MUST_CHECK int hv_snapshot_decode(const uint8_t *bytes, size_t len, struct hv_snapshot *out);

#endif
