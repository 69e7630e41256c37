/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_dsm_peer.c - one node's protocol core among peers that say anything at any time.
 *
 * Input     u8: nodes 1 .. 8 and this node; then events of 1 byte kind and its arguments: what a peer sends is
 *           wire bytes, what the own shell does is honest (UNMAPPED exactly once per UNMAP).
 * Checks    No assertion fails, a message goes to a peer that is there, nothing is given up before it is unmapped (I3),
 *           UNMAP and MAP keep their order (I6), and what is in flight stays within the pools (I7).
 */
#include "dsm/core/wire.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#define PAGES 6u
#define NODES 8u
#define REQUESTS 4u
#define EVENTS_MAX 400u

struct world {
	struct dir dir;
	struct proto p;
	void *mem;
	uint8_t right[PAGES];
	bool unmapping[PAGES];
	uint64_t now_ns;
};

static void world_open(struct world *w, unsigned nodes, unsigned self)
{
	struct dir_range r[PAGES];
	struct proto_config cfg = { .self = (node_id)self, .nodes = nodes, .dir = &w->dir,
				    .requests = REQUESTS, .hold_ns = 50000, .hold_max_ns = 1000000,
				    .mig_evidence = 2, .mig_probe = 3 };

	for (unsigned i = 0; i < PAGES; i++)
		r[i] = (struct dir_range){ .first = 10 * i, .count = 1, .node = (node_id)(i % nodes) };
	ASSERT(dir_init(&w->dir, nodes, r, PAGES));
	ASSERT(proto_bytes(&cfg) > 0);
	w->mem = calloc(1, proto_bytes(&cfg));
	ASSERT(w->mem);
	proto_init(&w->p, &cfg, w->mem);
}

static bool gives_up(const struct proto_msg *m)
{
	return m->kind == PROTO_ACK || m->kind == PROTO_RETURN ||
	       (m->kind == PROTO_GRANT && m->bytes == PROTO_BYTES_PAGE);
}

static void effects_check(struct world *w, const struct proto_effects *fx)
{
	for (unsigned i = 0; i < fx->count; i++) {
		const struct proto_effect *e = &fx->fx[i];
		uint8_t out[WIRE_MSG_BYTES];
		struct proto_msg m;

		switch (e->kind) {
		case PROTO_FX_SEND:
			ASSERT(e->to < w->p.cfg.nodes && e->to != w->p.cfg.self);
			ASSERT(!w->unmapping[e->page] || !gives_up(&e->msg));
			wire_encode(&e->msg, out);
			ASSERT(wire_decode(out, sizeof(out), e->msg.bytes == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, &m));
			break;
		case PROTO_FX_MAP:
			ASSERT(!w->unmapping[e->page] && e->right > w->right[e->page]);
			w->right[e->page] = e->right;
			break;
		case PROTO_FX_UNMAP:
			ASSERT(!w->unmapping[e->page] && e->right < w->right[e->page]);
			w->unmapping[e->page] = true;
			w->right[e->page] = e->right;
			break;
		case PROTO_FX_FILL:
		case PROTO_FX_ZERO:
			ASSERT(!w->unmapping[e->page] && w->right[e->page] == PROTO_NONE);
			break;
		case PROTO_FX_WAKE:
			ASSERT(w->right[e->page] >= e->right);
			break;
		}
	}
}

/* False at the end of the input, or when the event cannot happen. */
static bool event_read(struct world *w, struct reader *r, struct proto_event *ev)
{
	uint8_t kind = reader_u8(r), arg = reader_u8(r);
	uint8_t body[WIRE_MSG_BYTES] = { 0 };

	w->now_ns += (uint64_t)(kind >> 4) * 20000;
	*ev = (struct proto_event){ .now_ns = w->now_ns, .page = (arg & 0x7f) % PAGES };
	switch (kind & 7) {
	case 0:
		ev->kind = PROTO_EV_REQUEST;
		ev->right = arg & 0x80 ? PROTO_WRITE : PROTO_READ;
		ev->retry = kind >> 3 & 1;
		return true;
	case 1:
		ev->kind = PROTO_EV_UNMAPPED;
		if (!w->unmapping[ev->page])
			return false;
		w->unmapping[ev->page] = false;
		return true;
	case 2:
		ev->kind = PROTO_EV_TIMER;
		return true;
	case 3:
		ev->kind = PROTO_EV_EVICT;
		return true;
	case 4:
		ev->kind = PROTO_EV_PEER_LOST;
		ev->from = arg % w->p.cfg.nodes;
		return ev->from != w->p.cfg.self;
	default:
		/* kind, right, bytes, node, acks, copy in four bytes: most of them are messages */
		ev->kind = PROTO_EV_MESSAGE;
		ev->from = arg >> 3;
		body[0] = WIRE_VERSION;
		body[1] = reader_u8(r);
		body[2] = body[1] >> 4 & 3;
		body[3] = body[1] >> 6;
		body[1] &= 15;
		body[4] = reader_u8(r);
		body[5] = body[4] >> 4;
		body[4] &= 15;
		body[6] = kind >> 3 & 1;
		put_le64(body + 8, arg & 7);
		return wire_decode(body, sizeof(body), body[3] == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, &ev->msg);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct proto_effects fx;
	struct reader r = fuzz_reader(data, len);
	struct world w = { .now_ns = 1000000000 };
	uint8_t shape = reader_u8(&r);
	unsigned nodes = 1 + shape % NODES;

	world_open(&w, nodes, (shape >> 4) % nodes);
	for (unsigned n = 0; n < EVENTS_MAX && r.p < r.end; n++) {
		struct proto_event ev;

		if (!event_read(&w, &r, &ev))
			continue;
		proto_step(&w.p, &ev, &fx);
		effects_check(&w, &fx);
		ASSERT(w.p.mine <= REQUESTS);
	}
	free(w.mem);
	return 0;
}
