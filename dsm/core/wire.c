/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/wire.c - see wire.h.
 *
 * Owns nothing; any thread; no I/O.
 */
#include "dsm/core/wire.h"

#include "base/bytes.h"

/* Which fields a kind uses; all others must be 0 on the wire. */
enum { HAS_RIGHT = 1, HAS_BYTES = 2, HAS_NODE = 4, HAS_ACKS = 8, HAS_COPY = 16 };

static const uint8_t fields[PROTO_KINDS] = {
	[PROTO_REQ_READ] = 0,
	[PROTO_REQ_WRITE] = HAS_COPY,
	[PROTO_EVICT] = 0,
	[PROTO_FWD_READ] = HAS_NODE,
	[PROTO_FWD_WRITE] = HAS_NODE | HAS_ACKS,
	[PROTO_RECALL] = 0,
	[PROTO_INV] = HAS_NODE,
	[PROTO_GRANT] = HAS_RIGHT | HAS_BYTES | HAS_ACKS,
	[PROTO_ACK] = 0,
	[PROTO_DONE] = 0,
	[PROTO_RETURN] = HAS_BYTES,
};

void wire_encode(const struct proto_msg *m, uint8_t out[static WIRE_MSG_BYTES])
{
	const uint8_t has = fields[m->kind];

	out[0] = WIRE_VERSION;
	out[1] = m->kind;
	out[2] = has & HAS_RIGHT ? m->right : 0;
	out[3] = has & HAS_BYTES ? m->bytes : 0;
	out[4] = has & HAS_NODE ? m->node : 0;
	out[5] = has & HAS_ACKS ? m->acks : 0;
	out[6] = has & HAS_COPY ? m->copy : 0;
	out[7] = 0;
	put_le64(out + 8, m->page);
}

static bool fields_valid(const struct proto_msg *m, uint8_t has)
{
	if (!(has & HAS_RIGHT) ? m->right != 0
			       : m->right != PROTO_READ && m->right != PROTO_WRITE)
		return false;
	if (!(has & HAS_BYTES) ? m->bytes != 0
			       : m->bytes < PROTO_BYTES_KEEP || m->bytes > PROTO_BYTES_PAGE)
		return false;
	if (m->kind == PROTO_RETURN && m->bytes != PROTO_BYTES_PAGE)
		return false;
	if (m->node >= (has & HAS_NODE ? NODES_MAX : 1))
		return false;
	if (m->acks >= (has & HAS_ACKS ? NODES_MAX : 1))
		return false;
	if (m->kind == PROTO_GRANT && m->right == PROTO_READ && m->acks != 0)
		return false;
	return m->copy <= (has & HAS_COPY ? 1 : 0);
}

bool wire_decode(const void *body, size_t body_len, size_t data_len, struct proto_msg *out)
{
	const uint8_t *b = body;
	struct proto_msg m;
	uint64_t page;

	if (body_len != WIRE_MSG_BYTES || b[0] != WIRE_VERSION || b[1] == 0 || b[1] >= PROTO_KINDS)
		return false;
	m = (struct proto_msg){ .kind = b[1], .right = b[2], .bytes = b[3], .node = b[4],
				.acks = b[5], .copy = b[6] };
	page = get_le64(b + 8);
	if (b[7] != 0 || page >= DIR_PAGE_NONE || !fields_valid(&m, fields[m.kind]))
		return false;
	if (data_len != (m.bytes == PROTO_BYTES_PAGE ? PAGE_SIZE : 0))
		return false;
	m.page = (uint32_t)page;
	*out = m;
	return true;
}
