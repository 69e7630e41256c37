/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/migrate.h - vCPUs that go from node to node: who runs which, and the moves under way.
 *
 * What      One object per slice.  It knows where every vCPU of the VM is, takes orders, and carries snapshots as opaque
 *           bytes; capturing and installing them is the user's, in the vCPU's own thread, which asks with mig_task
 *           what it has to do.  Exactly one node runs a vCPU at any time: vcpu-migrate/core/handoff.h.
 * Threads   Any; one lock inside.  Callbacks run under it: they must not block and not call back.
 * Limits    VCPUS_MAX vCPUs, MIG_SNAPSHOT_MAX bytes.  Messages of peers are untrusted: refused and counted.
 */
#ifndef VCPU_MIGRATE_MIGRATE_H
#define VCPU_MIGRATE_MIGRATE_H

#include "base/err.h"
#include "base/types.h"
#include "interconnect/fabric.h"

#define MIG_SNAPSHOT_MAX IC_DATA_MAX
#define MIG_FEATURES_MAX 1024u /* bytes, NUL included */
#define MIG_TEXT_MAX 256u

/* Why a move did not happen; also the result of one that did. */
enum ho_result {
	HO_MOVED,
	HO_BUSY,      /* another move of this vCPU is under way */
	HO_THERE,     /* it is there already */
	HO_NOT_HERE,  /* this node does not have it, and does not know who has */
	HO_FULL,      /* the target has no room */
	HO_LEAVING,   /* the target is being drained */
	HO_FEATURES,  /* the guest would see another CPU there: features more or less */
	HO_CORRUPT,   /* the snapshot did not arrive as it was sent */
	HO_VERSION,   /* of the snapshot: another one than the target's */
	HO_STATE,     /* the target's engine refuses the state */
	HO_PEER_LOST, /* before the token left: the vCPU goes on */
	HO_GONE,      /* the peer was lost with the vCPU */
	HO_RESULTS
};
const char *ho_result_text(enum ho_result r);

/* The parts of a move, nanoseconds.  pause: from the last guest instruction here to the first one there. */
enum mig_part {
	MIG_STOP,    /* asked to leave the guest, until it has; it still runs for most of that */
	MIG_CAPTURE, /* registers and LAPIC to bytes */
	MIG_SEND,    /* until the target's fabric has them */
	MIG_RESTORE, /* until they are installed */
	MIG_RESUME,  /* until the guest runs */
	MIG_PAUSE,   /* all but MIG_STOP */
	MIG_PARTS
};

struct mig_outcome {
	uint64_t order;
	uint8_t vcpu;
	enum ho_result result;
	node_id from, to;
	uint32_t pause_ns;       /* HO_MOVED: to the end of restore */
	char text[MIG_TEXT_MAX]; /* more about a refusal; "" */
};

struct mig_ops {
	/* One message on IC_PORT_MIGRATE, in order with the interrupts that this slice sends to that peer. */
	void (*send)(void *arg, node_id to, const struct ic_msg *msg);
	/* Would this node take one more vCPU?  HO_MOVED, HO_FULL or HO_LEAVING. */
	enum ho_result (*willing)(void *arg, unsigned vcpu);
	void (*attend)(void *arg, unsigned vcpu);             /* its thread must look at mig_task */
	void (*done)(void *arg, const struct mig_outcome *o); /* of an order that was given here */
	void (*lost)(void *arg, unsigned vcpu, node_id with);
};

struct mig_config {
	node_id self;
	unsigned nodes, vcpus;
	const node_id *home; /* [vcpus] where each starts; copied */
	const char *
		features; /* what the guest was shown, words with a space between; < MIG_FEATURES_MAX bytes; copied */
	const struct mig_ops *ops;
	void *arg;
};

struct mig;
MUST_CHECK int mig_open(const struct mig_config *cfg, struct mig **out);
void mig_close(struct mig *m);

enum mig_task {
	MIG_RUN,     /* it is here: go on */
	MIG_TAKE,    /* capture, then mig_captured */
	MIG_INSTALL, /* mig_incoming, then mig_installed */
	MIG_PASS,    /* it is elsewhere: pass on what comes for it, to mig_where */
};
enum mig_task mig_task(const struct mig *m, unsigned vcpu); /* cheap */
node_id mig_where(const struct mig *m, unsigned vcpu);      /* cheap; as far as this node knows */

/* After MIG_TAKE.  stopped_ns, captured_ns: clock_now_ns when it had left the guest, and now. */
void mig_captured(struct mig *m, unsigned vcpu, const void *snapshot, size_t len,
		  uint64_t stopped_ns, uint64_t captured_ns);
struct mig_incoming {
	size_t len;
	uint32_t capture_ns; /* as the source measured */
	uint64_t arrived_ns; /* clock_now_ns */
	uint8_t snapshot[MIG_SNAPSHOT_MAX];
};
/* After MIG_INSTALL. */
void mig_incoming(struct mig *m, unsigned vcpu, struct mig_incoming *out);
/* how: HO_MOVED, or why not; then it goes on where it was.  pause_ns: so far. */
void mig_installed(struct mig *m, unsigned vcpu, enum ho_result how, uint32_t pause_ns);
/* The guest runs again after an install; ns of each part. */
void mig_measured(struct mig *m, const uint32_t part[static MIG_PARTS]);

/* Move it to `to`; ends in one ops.done with `order` (below 2^56), at once if refused here. */
void mig_order(struct mig *m, unsigned vcpu, node_id to, uint64_t order);
/* Handler of IC_PORT_MIGRATE. */
void mig_on_message(struct mig *m, node_id from, const struct ic_msg *msg);
/* Every some ten milliseconds while true: says again what was not answered. */
bool mig_tick(struct mig *m);
bool mig_waiting(const struct mig *m); /* cheap: as mig_tick would say */
void mig_peer_lost(struct mig *m, node_id peer);

struct mig_stats {
	uint64_t moved_in, moved_out, returned, refused; /* refused: orders, here */
	uint64_t garbage;                                /* of peers */
	uint32_t snapshot_bytes;                         /* the largest */
	uint64_t part_p50_ns[MIG_PARTS],
		part_p99_ns[MIG_PARTS]; /* of moves to here; stop: of those from here */
};
void mig_stats(struct mig *m, struct mig_stats *out);

#endif
