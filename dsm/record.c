/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/record.c - the last events of the protocol at this node, told when an assertion fails.
 *
 * What      A ring of RECORDS entries of 24 bytes: every event that the core was given, and every message and change of a
 *           right that came of it.  Writing one is a few stores; nobody reads it until the end.
 * Owns      The ring, inside struct dsm.
 * Threads   put: dsm.lock.  The dump: the thread that failed, without any lock: what another thread is just writing may
 *           come out wrong.
 * I/O       The dump goes to standard error, a line an entry, oldest first.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"

#include <stdio.h>
#include <unistd.h>

static const char *const event_names[] = {
	[PROTO_EV_REQUEST] = "request",	  [PROTO_EV_MESSAGE] = "message", [PROTO_EV_UNMAPPED] = "unmapped",
	[PROTO_EV_TIMER] = "timer",	  [PROTO_EV_HOLD] = "hold",	  [PROTO_EV_EVICT] = "evict",
	[PROTO_EV_PEER_LOST] = "peer lost",
};
static const char right_letters[4] = { '-', 'r', 'w', '?' };

static void put(struct dsm *d, struct record r)
{
	d->record.entry[d->record.next++ % RECORDS] = r;
}

void record_event(struct dsm *d, const struct proto_event *ev)
{
	bool message = ev->kind == PROTO_EV_MESSAGE;

	put(d, (struct record){ .ns = ev->now_ns,
				.page = message ? ev->msg.page : ev->page,
				.is_event = true,
				.kind = ev->kind,
				.msg = message ? ev->msg.kind : 0,
				.right = message ? ev->msg.right : ev->right,
				.peer = ev->from,
				.bytes = message ? ev->msg.bytes : 0,
				.acks = message ? ev->msg.acks : ev->retry });
}

void record_effect(struct dsm *d, uint64_t now_ns, const struct proto_effect *fx)
{
	bool send = fx->kind == PROTO_FX_SEND;

	if (!send && fx->kind != PROTO_FX_MAP && fx->kind != PROTO_FX_UNMAP && fx->kind != PROTO_FX_DROP &&
	    fx->kind != PROTO_FX_REFUSED)
		return;
	put(d, (struct record){ .ns = now_ns,
				.page = send ? fx->msg.page : fx->page,
				.kind = fx->kind,
				.msg = send ? fx->msg.kind : 0,
				.right = send ? fx->msg.right : fx->right,
				.peer = fx->to,
				.bytes = send ? fx->msg.bytes : 0,
				.acks = send ? fx->msg.acks : 0 });
}

static int entry_text(const struct record *r, char *line, size_t room)
{
	const char *kind = !r->is_event			       ? proto_effect_name(r->kind)
			   : r->kind < ARRAY_LEN(event_names) ? event_names[r->kind]
							       : "?";

	return snprintf(line, room, "%llu.%06llu %s%-9s page %u %s%s%c peer %u bytes %u acks %u\n",
			(unsigned long long)(r->ns / 1000000000u), (unsigned long long)(r->ns % 1000000000u / 1000),
			r->is_event ? "" : "  ", kind, r->page, r->msg ? proto_kind_name(r->msg) : "", r->msg ? " " : "",
			right_letters[r->right & 3], r->peer, r->bytes, r->acks);
}

void record_dump(void *dsm)
{
	const struct dsm *d = dsm;
	uint32_t next = d->record.next, count = next < RECORDS ? next : RECORDS;
	char line[160];
	int n = snprintf(line, sizeof(line), "dsm: node %u, its last %u protocol events:\n", d->self, count);

	for (uint32_t i = next - count; i != next && n > 0; i++) {
		if (write(STDERR_FILENO, line, (size_t)n) < 0)
			return;
		n = entry_text(&d->record.entry[i % RECORDS], line, sizeof(line));
	}
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}
