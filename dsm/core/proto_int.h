/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto_int.h - what the halves of the protocol (node, home) share; private to dsm/core.
 *
 * What      The context of one step and the helpers that both halves use.
 * Threads   As proto.h.   I/O  None.
 */
#ifndef DSM_CORE_PROTO_INT_H
#define DSM_CORE_PROTO_INT_H

#include "base/assert.h"
#include "dsm/core/proto.h"

/* Messages of this node to itself within a step: at most INV and GRANT of one start, and a DONE or two. */
#define INBOX_MAX 8u

struct step {
	struct proto *p;
	struct proto_effects *out;
	uint64_t now_ns;
	unsigned in_head, in_tail;
	struct proto_msg inbox[INBOX_MAX];
};

/* proto.c */
struct proto_effect *fx_put(struct step *s, uint8_t kind, uint32_t page);
void msg_send(struct step *s, node_id to, const struct proto_msg *m);

/* proto_node.c: the holder of rights.  Message handlers: false when the message is not legal now. */
void node_request(struct step *s, uint32_t page, uint8_t right, uint8_t retry);
void node_evict(struct step *s, uint32_t page);
void node_unmapped(struct step *s, uint32_t page);
void node_timer(struct step *s, uint32_t page);
void node_hold(struct step *s, uint32_t page, uint64_t until_ns);
bool node_fwd(struct step *s, node_id from, const struct proto_msg *m);
bool node_inv(struct step *s, node_id from, const struct proto_msg *m);
bool node_grant(struct step *s, node_id from, const struct proto_msg *m);
bool node_ack(struct step *s, node_id from, const struct proto_msg *m);

/* proto_home.c: the directory. */
bool home_request(struct step *s, node_id from, const struct proto_msg *m);
bool home_done(struct step *s, node_id from, const struct proto_msg *m);
bool home_return(struct step *s, node_id from, const struct proto_msg *m);
/* The active transaction of a page homed here is over; serves the next. */
void home_end(struct step *s, uint32_t page);

#endif
