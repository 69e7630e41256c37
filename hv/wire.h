/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/wire.h - bodies of the messages that slices of one VM exchange on IC_PORT_HV.
 *
 * What      Encode never fails; decode rejects untrusted bytes: unknown kind, wrong length, values out of range.
 * Threads   Any; no state.
 * Format    u8 kind, then the fields of that kind in the order below, little-endian, no padding, nothing after.
 */
#ifndef HV_WIRE_H
#define HV_WIRE_H

#include "base/types.h"
#include "hv/core/intr.h"

enum hv_msg_kind {
	HV_MSG_IPI = 1, /* interrupt for vCPUs of the receiving node */
	HV_MSG_ADDR,    /* a vCPU has a new APIC address, for routing */
	HV_MSG_PULSE,   /* an edge on an interrupt line; to the IOAPIC's node */
	HV_MSG_EOI,     /* level-triggered vector ended; to the IOAPIC's node */
	HV_MSG_IO,      /* device access; answered by HV_MSG_IO_DONE with the same id */
	HV_MSG_IO_DONE,
	HV_MSG_PROBE, /* clock: asks node 0; answered by HV_MSG_CLOCK */
	HV_MSG_CLOCK,
	HV_MSG_BALANCE, /* from node 0: tell it how vCPUs fare, or no more */
	HV_MSG_LOAD,	/* to node 0: what a vCPU did since the last one, and waited for one node */
	HV_MSG_NODE,	/* to node 0: how a node fares */
	HV_MSG_LEAVE,	/* from node 0: you are being drained and take no vCPU, or no more so */
	HV_MSG_KINDS
};

enum hv_io_space { HV_IO_MMIO, HV_IO_PORT, HV_IO_SPACES };

struct hv_msg {
	enum hv_msg_kind kind;
	union {
		struct {
			uint8_t mode; /* enum hv_intr_mode */
			uint8_t vector;
			bool level;
			struct hv_vcpu_set to; /* already routed */
		} ipi;
		struct {
			uint8_t vcpu;
			uint32_t seq; /* counts the changes: an older one that comes later is dropped */
			struct hv_lapic_addr addr;
		} addr;
		struct {
			uint8_t gsi;
		} pulse;
		struct {
			uint8_t vector;
		} eoi;
		struct {
			uint64_t id;
			enum hv_io_space space;
			bool write;
			uint8_t size; /* 1 2 4 8 */
			uint64_t addr, data;
		} io;
		struct {
			uint64_t id, data;
		} io_done;
		struct {
			uint32_t seq;
		} probe;
		struct {
			uint32_t seq;
			uint64_t tsc_khz;
			uint64_t guest_tsc;  /* at node 0 while it handled the probe */
			uint64_t offset;     /* guest TSC - host TSC there */
			uint8_t boot_id[16]; /* of that host's kernel */
		} clock;
		struct {
			bool on;
		} balance, leave;
		struct {
			uint8_t vcpu;
			node_id from; /* who sent the pages; the sender itself: nobody */
			uint32_t busy_us, waits, reads, bounced, us;
		} load;
		struct {
			bool leaving;
			uint16_t cpus, load; /* as in struct place_node; cpus >= 1 */
			uint64_t host;	     /* the same on the same host */
		} node;
	};
};

#define HV_MSG_BYTES_MAX 64u

/* Bytes written to out. */
unsigned hv_msg_encode(const struct hv_msg *msg, uint8_t out[static HV_MSG_BYTES_MAX]);
/* False: not one of ours; *out is then unspecified. */
bool hv_msg_decode(const void *body, size_t len, struct hv_msg *out);

#endif
