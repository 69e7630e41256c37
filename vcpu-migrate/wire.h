/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/wire.h - bodies of the messages on IC_PORT_MIGRATE.
 *
 * What      Encode never fails; decode rejects untrusted bytes: unknown kind, wrong length, values out of range.
 * Threads   Any; no state.
 * Format    u8 kind, then the fields of that kind in the order below, little-endian, nothing after; a text is a u8 length
 *           and its bytes.  The message's data: of STATE the snapshot, of OFFER the features.  docs/wire.md.
 */
#ifndef VCPU_MIGRATE_WIRE_H
#define VCPU_MIGRATE_WIRE_H

#include "vcpu-migrate/core/handoff.h"

enum mig_msg_kind {
	/* 1 .. HO_MSG_KINDS - 1: of the handoff */
	MIG_MSG_ORDER =
		HO_MSG_KINDS, /* to the node that has the vCPU, as far as the sender knows */
	MIG_MSG_DONE,         /* to the node that gave the order */
	MIG_MSG_KINDS
};

struct mig_msg {
	uint8_t kind; /* enum ho_msg_kind, enum mig_msg_kind */
	union {
		struct {
			struct ho_msg msg;
			uint32_t ns;             /* STATE: of the capture; TAKEN: of the pause */
			char text[MIG_TEXT_MAX]; /* REFUSE: more about it */
		} ho;
		struct {
			uint64_t order; /* < 2^56 */
			uint8_t vcpu, hops;
			node_id origin, to;
		} order;
		struct mig_outcome done;
	};
};

#define MIG_BODY_MAX 384u

unsigned mig_msg_encode(const struct mig_msg *msg, uint8_t out[static MIG_BODY_MAX]);
bool mig_msg_decode(const void *body, size_t len, struct mig_msg *out);

#endif
