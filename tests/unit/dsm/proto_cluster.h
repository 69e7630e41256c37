/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/proto_cluster.h - nodes around the protocol core whose links and unmappings take
 * no time, and that log what happens as text.
 */
#ifndef TESTS_UNIT_DSM_PROTO_CLUSTER_H
#define TESTS_UNIT_DSM_PROTO_CLUSTER_H

#include "dsm/core/collect.h"
#include "dsm/core/proto.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 4 /* page k is homed on node k modulo the nodes */
#define US 1000ull

struct post {
	node_id from, to;
	struct proto_msg msg;
};

struct cluster {
	unsigned nodes;
	uint64_t now_ns;
	struct dir dir;
	struct proto node[NODES_MAX];
	void *mem[NODES_MAX];
	struct post post[1024];
	unsigned sent, received; /* messages since the start */
	unsigned effects_max;
	bool no_unmap; /* UNMAPPED is left to the test */
	uint64_t timer_ns;
	char log[4096];
};

static inline struct cluster *cluster_open(unsigned nodes, void (*change)(struct proto_config *))
{
	struct cluster *c = calloc(1, sizeof(*c));
	struct dir_range r[PAGES];

	c->nodes = nodes;
	for (unsigned i = 0; i < PAGES; i++)
		r[i] = (struct dir_range){ .first = i, .count = 1, .node = (node_id)(i % nodes) };
	cr_assert(dir_init(&c->dir, nodes, r, PAGES));
	for (unsigned n = 0; n < nodes; n++) {
		struct proto_config pc = { .self = (node_id)n, .nodes = nodes, .dir = &c->dir };

		proto_config_default(&pc);
		pc.hold_ns = pc.hold_max_ns = 0;
		if (change)
			change(&pc);
		c->mem[n] = calloc(1, proto_bytes(&pc));
		proto_init(&c->node[n], &pc, c->mem[n]);
	}
	return c;
}

static inline void cluster_close(struct cluster *c)
{
	for (unsigned n = 0; n < c->nodes; n++)
		free(c->mem[n]);
	free(c);
}

static inline void note(struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void note(struct cluster *c, const char *fmt, ...)
{
	size_t used = strlen(c->log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->log + used, sizeof(c->log) - used, fmt, ap);
	va_end(ap);
}

static inline void note_send(struct cluster *c, unsigned n, const struct proto_effect *e)
{
	static const char *const bytes[] = { "", " keep", " zero", " page" };

	note(c, "%u>%u %s", n, e->to, proto_kind_name(e->msg.kind));
	if (e->msg.kind == PROTO_GRANT)
		note(c, " %c%s %u", "-rw"[e->msg.right], bytes[e->msg.bytes], e->msg.acks);
	note(c, "\n");
}

static inline void step(struct cluster *c, unsigned n, struct proto_event ev)
{
	struct proto_effects *fx = malloc(sizeof(*fx));

	ev.now_ns = c->now_ns;
	proto_step(&c->node[n], &ev, fx);
	if (c->effects_max < fx->count)
		c->effects_max = fx->count;
	for (unsigned i = 0; i < fx->count; i++) {
		const struct proto_effect *e = &fx->fx[i];

		switch (e->kind) {
		case PROTO_FX_SEND:
			note_send(c, n, e);
			cr_assert_lt(c->sent - c->received, ARRAY_LEN(c->post));
			c->post[c->sent++ % ARRAY_LEN(c->post)] =
				(struct post){ (node_id)n, e->to, e->msg };
			break;
		case PROTO_FX_TIMER:
			c->timer_ns = e->at_ns;
			note(c, "%u TIMER\n", n);
			break;
		case PROTO_FX_MAP:
		case PROTO_FX_UNMAP:
			note(c, "%u %s %c\n", n, proto_effect_name(e->kind), "-rw"[e->right]);
			break;
		case PROTO_FX_WAKE:
			break;
		default:
			note(c, "%u %s\n", n, proto_effect_name(e->kind));
		}
	}
	for (unsigned i = 0; i < fx->count && !c->no_unmap; i++)
		if (fx->fx[i].kind == PROTO_FX_UNMAP)
			step(c, n, (struct proto_event){ .kind = PROTO_EV_UNMAPPED, .page = fx->fx[i].page });
	free(fx);
}

static inline void deliver_all(struct cluster *c)
{
	while (c->received != c->sent) {
		struct post p = c->post[c->received++ % ARRAY_LEN(c->post)];

		step(c, p.to, (struct proto_event){ .kind = PROTO_EV_MESSAGE, .from = p.from, .msg = p.msg });
	}
}

static inline void ask(struct cluster *c, unsigned n, uint32_t page, uint8_t right, uint8_t retry)
{
	step(c, n, (struct proto_event){ .kind = PROTO_EV_REQUEST, .page = page, .right = right,
					 .retry = retry });
	deliver_all(c);
}

static inline void evict(struct cluster *c, unsigned n, uint32_t page)
{
	step(c, n, (struct proto_event){ .kind = PROTO_EV_EVICT, .page = page });
	deliver_all(c);
}

/* The log since the last look. */
#define EXPECT(c, text) \
	do { \
		cr_assert_str_eq((c)->log, text); \
		(c)->log[0] = 0; \
	} while (0)

#endif
