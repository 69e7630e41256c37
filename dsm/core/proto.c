/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/proto.c - entry of the protocol: layout of the state, one step, dispatch of messages.
 *
 * Owns nothing but what proto.h describes; one thread at a time; no I/O.
 */
#include "dsm/core/proto_int.h"

#include <string.h>

STATIC_ASSERT(sizeof(struct proto_page) + sizeof(struct proto_home) + sizeof(struct nodeset) == 23,
	      "metadata per page at rest; a 24th byte is the shell's");

void proto_config_default(struct proto_config *cfg)
{
	cfg->requests = 64;
	cfg->hold_ns = 50000;
	cfg->hold_max_ns = 20000000;
	cfg->mig_evidence = 2;
	cfg->mig_probe = 16;
}

static size_t align16(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

static bool config_valid(const struct proto_config *c)
{
	return c->nodes >= 1 && c->nodes <= NODES_MAX && c->self < c->nodes && c->dir &&
	       c->dir->nodes == c->nodes && c->requests >= 1 && c->requests <= PROTO_REQUESTS_MAX &&
	       c->hold_ns <= c->hold_max_ns && c->hold_max_ns <= PROTO_HOLD_LIMIT_NS &&
	       c->mig_evidence + c->mig_probe <= PROTO_MIG_MAX;
}

/* I7: every request in flight anywhere in the VM has at most one wait record at its home and at most one
 * flight record at any node (the requester's own, or the revocation that serves it). */
static size_t pool_size(const struct proto_config *c)
{
	return (size_t)c->nodes * c->requests;
}

size_t proto_bytes(const struct proto_config *cfg)
{
	if (!config_valid(cfg))
		return 0;
	return align16(sizeof(struct proto_page) * cfg->dir->pages) +
	       align16(sizeof(struct proto_home) * cfg->dir->homed[cfg->self]) +
	       align16(sizeof(struct nodeset) * cfg->dir->homed[cfg->self]) +
	       align16(sizeof(struct proto_flight) * (pool_size(cfg) + 1)) +
	       align16(sizeof(struct proto_wait) * (pool_size(cfg) + 1));
}

static void *take(uint8_t **at, size_t bytes)
{
	void *mem = *at;

	*at += align16(bytes);
	return mem;
}

void proto_init(struct proto *p, const struct proto_config *cfg, void *mem)
{
	uint8_t *at = mem;
	unsigned pool = (unsigned)pool_size(cfg);

	ASSERT(config_valid(cfg));
	memset(p, 0, sizeof(*p));
	p->cfg = *cfg;
	p->page = take(&at, sizeof(struct proto_page) * cfg->dir->pages);
	p->home = take(&at, sizeof(struct proto_home) * cfg->dir->homed[cfg->self]);
	p->copyset = take(&at, sizeof(struct nodeset) * cfg->dir->homed[cfg->self]);
	p->flight = take(&at, sizeof(struct proto_flight) * (pool + 1));
	p->wait = take(&at, sizeof(struct proto_wait) * (pool + 1));
	p->flights = p->waits = pool;
	for (unsigned i = 1; i < pool; i++) {
		p->flight[i].next_free = (uint16_t)(i + 1);
		p->wait[i].next = (uint16_t)(i + 1);
	}
	p->flight_free = p->wait_free = 1;
}

node_id proto_owner(const struct proto *p, uint32_t home_index)
{
	const struct proto_home *h = &p->home[home_index];

	return h->written ? h->owner : p->cfg.self;
}

struct proto_effect *fx_put(struct step *s, uint8_t kind, uint32_t page)
{
	struct proto_effect *fx = &s->out->fx[s->out->count];

	ASSERT(s->out->count < PROTO_EFFECTS_MAX);
	s->out->count++;
	*fx = (struct proto_effect){ .kind = kind, .page = page };
	return fx;
}

void msg_send(struct step *s, node_id to, const struct proto_msg *m)
{
	struct proto_effect *fx;

	if (to == s->p->cfg.self) {
		ASSERT(s->in_tail - s->in_head < INBOX_MAX);
		s->inbox[s->in_tail++ % INBOX_MAX] = *m;
		return;
	}
	if (nodeset_has(&s->p->lost, to))
		return;
	fx = fx_put(s, PROTO_FX_SEND, m->page);
	fx->to = to;
	fx->msg = *m;
}

static bool (*const handlers[PROTO_KINDS])(struct step *, node_id, const struct proto_msg *) = {
	[PROTO_REQ_READ] = home_request,
	[PROTO_REQ_WRITE] = home_request,
	[PROTO_EVICT] = home_request,
	[PROTO_FWD_READ] = node_fwd,
	[PROTO_FWD_WRITE] = node_fwd,
	[PROTO_RECALL] = node_fwd,
	[PROTO_INV] = node_inv,
	[PROTO_GRANT] = node_grant,
	[PROTO_ACK] = node_ack,
	[PROTO_DONE] = home_done,
	[PROTO_RETURN] = home_return,
};

static void refuse(struct step *s, node_id from, uint32_t page)
{
	s->p->refused++;
	fx_put(s, PROTO_FX_REFUSED, page)->to = from;
}

static void message_receive(struct step *s, node_id from, const struct proto_msg *m)
{
	const struct proto *p = s->p;

	if (from >= p->cfg.nodes || from == p->cfg.self || nodeset_has(&p->lost, from) ||
	    m->kind == 0 || m->kind >= PROTO_KINDS || m->page >= p->cfg.dir->pages ||
	    m->node >= p->cfg.nodes || !handlers[m->kind](s, from, m))
		refuse(s, from, m->page);
}

/* What this node tells itself can be out of place only after a peer has lied. */
static void inbox_drain(struct step *s)
{
	while (s->in_head != s->in_tail) {
		struct proto_msg m = s->inbox[s->in_head++ % INBOX_MAX];

		if (!handlers[m.kind](s, s->p->cfg.self, &m))
			refuse(s, s->p->cfg.self, m.page);
	}
}

void proto_step(struct proto *p, const struct proto_event *ev, struct proto_effects *out)
{
	struct step s = { .p = p, .out = out, .now_ns = ev->now_ns };

	out->count = 0;
	ASSERT(ev->kind == PROTO_EV_MESSAGE || ev->kind == PROTO_EV_PEER_LOST ||
	       ev->page < p->cfg.dir->pages);
	switch (ev->kind) {
	case PROTO_EV_REQUEST:
		ASSERT(ev->right == PROTO_READ || ev->right == PROTO_WRITE);
		node_request(&s, ev->page, ev->right, ev->retry);
		break;
	case PROTO_EV_MESSAGE:
		message_receive(&s, ev->from, &ev->msg);
		break;
	case PROTO_EV_UNMAPPED:
		node_unmapped(&s, ev->page);
		break;
	case PROTO_EV_TIMER:
		node_timer(&s, ev->page);
		break;
	case PROTO_EV_HOLD:
		node_hold(&s, ev->page, ev->until_ns);
		break;
	case PROTO_EV_EVICT:
		node_evict(&s, ev->page);
		break;
	case PROTO_EV_PEER_LOST:
		ASSERT(ev->from < p->cfg.nodes && ev->from != p->cfg.self);
		nodeset_add(&p->lost, ev->from);
		break;
	default:
		ASSERT(!"known event");
	}
	inbox_drain(&s);
}

const char *proto_kind_name(uint8_t kind)
{
	static const char *const names[PROTO_KINDS] = {
		[PROTO_REQ_READ] = "REQ_READ",	 [PROTO_REQ_WRITE] = "REQ_WRITE",
		[PROTO_EVICT] = "EVICT",	 [PROTO_FWD_READ] = "FWD_READ",
		[PROTO_FWD_WRITE] = "FWD_WRITE", [PROTO_RECALL] = "RECALL",
		[PROTO_INV] = "INV",		 [PROTO_GRANT] = "GRANT",
		[PROTO_ACK] = "ACK",		 [PROTO_DONE] = "DONE",
		[PROTO_RETURN] = "RETURN",
	};

	return kind > 0 && kind < PROTO_KINDS ? names[kind] : "?";
}

const char *proto_effect_name(uint8_t kind)
{
	static const char *const names[] = {
		[PROTO_FX_SEND] = "SEND",   [PROTO_FX_FILL] = "FILL",	[PROTO_FX_ZERO] = "ZERO",
		[PROTO_FX_MAP] = "MAP",	    [PROTO_FX_UNMAP] = "UNMAP", [PROTO_FX_WAKE] = "WAKE",
		[PROTO_FX_TIMER] = "TIMER", [PROTO_FX_DROP] = "DROP",	[PROTO_FX_BUSY] = "BUSY",
		[PROTO_FX_ROOM] = "ROOM",   [PROTO_FX_REFUSED] = "REFUSED",
	};

	return kind < ARRAY_LEN(names) ? names[kind] : "?";
}
