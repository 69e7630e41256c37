/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - codec of vcpu-migrate/wire.h.  Pure. */
#include "vcpu-migrate/wire.h"

#include "base/assert.h"
#include "base/bytes.h"

STATIC_ASSERT(MIG_TEXT_MAX <= 256, "a length is one byte");
STATIC_ASSERT(MIG_BODY_MAX <= IC_BODY_MAX, "a body");

static void text_put(struct writer *w, const char *text)
{
	size_t len = strlen(text);

	writer_u8(w, (uint8_t)len);
	writer_bytes(w, text, len);
}

/* Printable only: it goes to people. */
static void text_get(struct reader *r, char out[static 256])
{
	uint8_t len = reader_u8(r);

	reader_bytes(r, out, len);
	out[r->bad ? 0 : len] = 0;
	for (const char *p = out; *p || p < out + (r->bad ? 0 : len); p++)
		if (*p < ' ' || *p > '~') {
			r->bad = true;
			*out = 0;
			return;
		}
}

static void handoff_put(struct writer *w, const struct mig_msg *m)
{
	writer_u8(w, m->ho.msg.vcpu);
	writer_u8(w, m->ho.msg.why);
	writer_u8(w, m->ho.msg.node);
	writer_u32(w, m->ho.msg.gen);
	writer_u32(w, m->ho.ns);
	text_put(w, m->ho.text);
}

static void handoff_get(struct reader *r, struct mig_msg *m)
{
	m->ho.msg.kind = m->kind;
	m->ho.msg.vcpu = reader_u8(r);
	m->ho.msg.why = reader_u8(r);
	m->ho.msg.node = reader_u8(r);
	m->ho.msg.gen = reader_u32(r);
	m->ho.ns = reader_u32(r);
	text_get(r, m->ho.text);
	if (m->ho.msg.why >= HO_RESULTS)
		r->bad = true;
}

unsigned mig_msg_encode(const struct mig_msg *m, uint8_t out[static MIG_BODY_MAX])
{
	struct writer w = { out, out + MIG_BODY_MAX, false };

	writer_u8(&w, m->kind);
	switch (m->kind) {
	case MIG_MSG_ORDER:
		writer_u64(&w, m->order.order);
		writer_u8(&w, m->order.vcpu);
		writer_u8(&w, m->order.hops);
		writer_u8(&w, m->order.origin);
		writer_u8(&w, m->order.to);
		break;
	case MIG_MSG_DONE:
		writer_u64(&w, m->done.order);
		writer_u8(&w, m->done.vcpu);
		writer_u8(&w, (uint8_t)m->done.result);
		writer_u8(&w, m->done.from);
		writer_u8(&w, m->done.to);
		writer_u32(&w, m->done.pause_ns);
		text_put(&w, m->done.text);
		break;
	default:
		handoff_put(&w, m);
		break;
	}
	ASSERT(!w.bad);
	return (unsigned)(w.p - out);
}

bool mig_msg_decode(const void *body, size_t len, struct mig_msg *m)
{
	const uint8_t *p = body;
	struct reader r = { p, p + len, false };

	*m = (struct mig_msg){ .kind = reader_u8(&r) };
	switch (m->kind) {
	case MIG_MSG_ORDER:
		m->order.order = reader_u64(&r);
		m->order.vcpu = reader_u8(&r);
		m->order.hops = reader_u8(&r);
		m->order.origin = reader_u8(&r);
		m->order.to = reader_u8(&r);
		break;
	case MIG_MSG_DONE:
		m->done.order = reader_u64(&r);
		m->done.vcpu = reader_u8(&r);
		m->done.result = reader_u8(&r);
		m->done.from = reader_u8(&r);
		m->done.to = reader_u8(&r);
		m->done.pause_ns = reader_u32(&r);
		text_get(&r, m->done.text);
		if (m->done.result >= HO_RESULTS)
			r.bad = true;
		break;
	default:
		if (m->kind == 0 || m->kind >= MIG_MSG_KINDS)
			return false;
		handoff_get(&r, m);
		break;
	}
	return !r.bad && r.p == r.end;
}
