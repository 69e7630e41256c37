/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/core/handoff.h - who runs a vCPU: one node's view of one vCPU, and the steps on it.
 *
 * What      Ownership of a vCPU is a token with a generation number.  It leaves the holder in one
 *           STATE message and comes back only in a RETURN of the same generation; nobody runs a vCPU
 *           without the token.
 *
 *             source                      target
 *             HERE
 *              | OFFER{gen} ------------>  |          still running; the target says whether it
 *              | <--- ACCEPT / REFUSE{why} |          would take it (and promises nothing)
 *             STOPPING                     |          effect STOP: the thread leaves the guest, captures
 *              | STATE{gen, snapshot} -->  |          the token is in this message
 *             SENT                        INSTALLING  effect INSTALL: its thread checks and installs
 *              | <------------ TAKEN{gen}  HERE       runs; or RETURN{gen, why}: the source goes on
 *             AWAY
 *
 *           Generations of one vCPU only grow; a try that was refused or returned burns its number.
 *           Each node remembers the highest one it has seen and, as a target, its last verdict: so
 *           doubled and late messages change nothing and are answered again.  A holder that hears
 *           nothing says it again at every tick.  docs/migration.md has the table and the argument.
 * Owns      Nothing; a plain struct that ho_init sets.
 * Threads   The caller guards the struct.  Pure: no clock, no I/O, no heap.
 * Limits    Loss of a peer is final (a node that comes back is another node): a vCPU whose STATE went
 *           to a lost peer and was not answered is given up with it, since it may have run there.
 *           2^32 - 1 tries of one vCPU; further orders are refused as HO_BUSY.
 *
 * What the caller does beside, all under the guard of the struct:
 *   - effects in their order, before the next step; to one peer, messages and what is passed on arrive
 *     in the order in which they were sent;
 *   - takes the bytes of a STATE only when its step asks for INSTALL: a doubled one must not overwrite
 *     what is being installed;
 *   - passes what comes for the vCPU (interrupts) on to `where` in AWAY and SENT, keeps it in
 *     INSTALLING, and gives it to the vCPU otherwise.  What is still kept when a step ends in AWAY or
 *     SENT goes to `where` after the effects of that step;
 *   - keeps the captured snapshot, and the vCPU as it was captured, until SENT ends.
 */
#ifndef VCPU_MIGRATE_CORE_HANDOFF_H
#define VCPU_MIGRATE_CORE_HANDOFF_H

#include "base/types.h"
#include "vcpu-migrate/migrate.h" /* enum ho_result */

enum ho_phase {
	HO_AWAY,       /* another node has it, or it is on its way there: where */
	HO_HERE,       /* this node runs it */
	HO_OFFERED,    /* this node runs it and waits for peer's answer */
	HO_STOPPING,   /* this node's thread is about to stop it for peer */
	HO_SENT,       /* stopped; the token went to peer, the snapshot is kept */
	HO_INSTALLING, /* the token is here; the thread installs the snapshot */
};

enum ho_msg_kind {
	HO_MSG_OFFER = 1,
	HO_MSG_ACCEPT,
	HO_MSG_REFUSE,
	HO_MSG_STATE,
	HO_MSG_TAKEN,
	HO_MSG_RETURN,
	HO_MSG_HOME,
	HO_MSG_KINDS
};

/* What travels; the snapshot rides with STATE as the message's data. */
struct ho_msg {
	enum ho_msg_kind kind;
	uint8_t vcpu;
	uint8_t why;  /* REFUSE, RETURN: enum ho_result, HO_FULL .. HO_STATE; else 0 */
	node_id node; /* HOME: who has it; else 0 */
	uint32_t gen; /* of the move; HOME: of the move that brought it there */
};

struct ho_vcpu {
	enum ho_phase phase;
	uint8_t vcpu;
	node_id self;
	node_id where; /* who has it, as far as known here; SENT: peer; INSTALLING: source */
	node_id peer;  /* OFFERED, STOPPING, SENT: target; INSTALLING: source, or NODE_NONE: lost */
	uint8_t verdict; /* as a target, on `tried`: HO_MOVED (TAKEN), or the reason of the RETURN */
	uint32_t tried;  /* as a target: highest generation that was answered; 0: none */
	uint32_t gen;    /* of the last move that this node knows of: done, tried, or under way */
	uint64_t order;  /* of the caller, for the move under way from here */
};

enum ho_effect_kind {
	HO_SEND, /* msg to node; STATE with the snapshot that was captured */
	HO_TELL, /* msg (HOME) to every other node */
	HO_STOP, /* the vCPU's thread: leave the guest, capture, then ho_captured */
	HO_INSTALL, /* the vCPU's thread: check and install the snapshot that came, then ho_installed */
	HO_RUN,     /* the vCPU's thread: go on with what it has (it may be running still) */
	HO_DONE, /* the move `order` has ended with result */
	HO_LOST, /* the vCPU went to node, or came from it, and is nowhere else that is known here */
};

struct ho_effect {
	enum ho_effect_kind kind;
	node_id node;
	enum ho_result result;
	uint64_t order;
	struct ho_msg msg;
};

#define HO_EFFECTS_MAX 4
struct ho_effects {
	unsigned count; /* 0 by the caller before each step */
	struct ho_effect list[HO_EFFECTS_MAX];
};

/*
 * `home` has it at generation 0.  A node that joins a running VM names another node than itself, and
 * learns from the first HOME of a later generation (ho_greet of the others).
 */
void ho_init(struct ho_vcpu *h, uint8_t vcpu, node_id self, node_id home);
/* This node's thread may run guest code of it.  In HO_STOPPING it is about to capture and need not. */
bool ho_may_run(const struct ho_vcpu *h);

/*
 * Move it to `to`, a node of the VM that is not lost (the caller looks).  Always ends in one HO_DONE for
 * `order`; at once: HO_BUSY, HO_THERE, HO_NOT_HERE.
 */
void ho_order(struct ho_vcpu *h, node_id to, uint64_t order, struct ho_effects *fx);
/*
 * A peer's message, untrusted but well formed.  OFFER: `willing` is HO_MOVED when this node would take
 * the vCPU, else the reason against it (HO_FULL .. HO_STATE); otherwise not looked at.  False: no peer
 * of a sound protocol sends that here; nothing changed.
 */
bool ho_on_msg(struct ho_vcpu *h, node_id from, const struct ho_msg *msg, enum ho_result willing,
	       struct ho_effects *fx);
/*
 * The thread has stopped and captured, and not run since (after HO_STOP).  Nothing happens when the
 * move was called off meanwhile (then HO_RUN has been said): the phase tells.
 */
void ho_captured(struct ho_vcpu *h, struct ho_effects *fx);
/* The thread has installed the snapshot (HO_MOVED), or not, why: HO_FULL .. HO_STATE (after HO_INSTALL). */
void ho_installed(struct ho_vcpu *h, enum ho_result how, struct ho_effects *fx);
/* Nothing was heard for a while: says it again. */
void ho_tick(struct ho_vcpu *h, struct ho_effects *fx);
/* `node` has joined: says where the vCPU is, if it is here. */
void ho_greet(const struct ho_vcpu *h, node_id node, struct ho_effects *fx);
/* `peer` is gone for good, and nothing of it will arrive any more. */
void ho_peer_lost(struct ho_vcpu *h, node_id peer, struct ho_effects *fx);

#endif
