/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/core/verdict.c - what ended the VM; see verdict.h. */
#include "cluster-config/core/verdict.h"

#include <string.h>

static bool is_firm(node_id from, const struct cc_ended *e)
{
	if (e->reason == CC_END_PEER_LOST)
		return from == e->node;
	return e->reason != CC_END_ERROR;
}

static void text_copy(char *out, size_t size, const char *in)
{
	size_t len = in ? strnlen(in, size - 1) : 0;

	if (len)
		memcpy(out, in, len);
	out[len] = 0;
}

static void take(struct cc_verdict *v, const struct cc_ended *e)
{
	v->reason = e->reason;
	v->node = e->node;
	text_copy(v->text, sizeof(v->text), e->text);
	text_copy(v->dump, sizeof(v->dump), e->dump);
}

void cc_verdict_report(struct cc_verdict *v, node_id from, const struct cc_ended *e,
		       uint64_t now_ns)
{
	if (v->settled)
		return;
	if (is_firm(from, e)) {
		take(v, e);
		v->settled = true;
	} else if (!v->waiting) {
		take(v, e);
		v->waiting = true;
		v->settle_ns = now_ns + CC_VERDICT_GRACE_NS;
	} else if (v->reason == CC_END_ERROR && e->reason == CC_END_PEER_LOST) {
		take(v, e); /* names a cause; the time goes on running */
	}
}

void cc_verdict_tick(struct cc_verdict *v, uint64_t now_ns)
{
	if (v->waiting && now_ns >= v->settle_ns)
		v->settled = true;
}
