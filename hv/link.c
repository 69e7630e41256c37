/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - messages of this slice to its peers, and the handler of theirs.
 *
 * What      ic_send with a queue behind it: back-pressure (-EAGAIN) must never make a vCPU drop an interrupt.  Order to
 *           one peer is kept, across ports: while something is queued, everything queues.
 * Threads   Any sends; the handler runs inside ic_progress and never blocks; the io thread flushes.
 * I/O       The fabric's.
 */
#include "hv/slice_priv.h"

#include <stdlib.h>
#include <string.h>

struct hv_link_queued {
	struct hv_link_queued *next;
	struct ic_msg msg; /* body and data in bytes */
	uint8_t bytes[];
};

void hv_link_init(struct hv_slice *s)
{
	pthread_mutex_init(&s->link.lock, NULL);
	for (unsigned n = 0; n < NODES_MAX; n++)
		s->link.tail[n] = &s->link.head[n];
}

void hv_link_fini(struct hv_slice *s)
{
	for (unsigned n = 0; n < NODES_MAX; n++) {
		struct hv_link_queued *q = s->link.head[n];

		while (q) {
			struct hv_link_queued *next = q->next;

			free(q);
			q = next;
		}
	}
	pthread_mutex_destroy(&s->link.lock);
}

static void enqueue(struct hv_slice *s, node_id to, const struct ic_msg *m)
{
	struct hv_link_queued *q = malloc(sizeof(*q) + m->body_len + m->data_len);

	if (!q) {
		hv_slice_end(s, CC_END_ERROR, s->spec->self, NULL, "out of memory");
		return;
	}
	q->next = NULL;
	q->msg = *m;
	q->msg.body = memcpy(q->bytes, m->body, m->body_len);
	q->msg.data = m->data_len ? memcpy(q->bytes + m->body_len, m->data, m->data_len) : NULL;
	*s->link.tail[to] = q;
	s->link.tail[to] = &q->next;
	atomic_fetch_add(&s->link.queued, 1);
}

void hv_link_send_raw(struct hv_slice *s, node_id to, const struct ic_msg *msg)
{
	bool queued = false;

	pthread_mutex_lock(&s->link.lock);
	if (s->link.head[to] || ic_send(s->fabric, to, msg) == -EAGAIN) {
		enqueue(s, to, msg);
		queued = true;
	}
	pthread_mutex_unlock(&s->link.lock);
	if (queued)
		hv_io_wake(s);
}

void hv_link_send(struct hv_slice *s, node_id to, const struct hv_msg *msg)
{
	uint8_t body[HV_MSG_BYTES_MAX];
	struct ic_msg m = { .port = IC_PORT_HV, .body = body };

	m.body_len = (uint16_t)hv_msg_encode(msg, body);
	hv_link_send_raw(s, to, &m);
}

void hv_link_send_all(struct hv_slice *s, const struct hv_msg *msg)
{
	for (unsigned n = 0; n < s->spec->nodes; n++)
		if (n != s->spec->self)
			hv_link_send(s, (node_id)n, msg);
}

bool hv_link_flush(struct hv_slice *s)
{
	if (!atomic_load_explicit(&s->link.queued, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&s->link.lock);
	for (unsigned n = 0; n < s->spec->nodes; n++) {
		struct hv_link_queued *q;

		while ((q = s->link.head[n]) && ic_send(s->fabric, (node_id)n, &q->msg) != -EAGAIN) {
			s->link.head[n] = q->next;
			if (!q->next)
				s->link.tail[n] = &s->link.head[n];
			free(q);
			atomic_fetch_sub(&s->link.queued, 1);
		}
	}
	pthread_mutex_unlock(&s->link.lock);
	return atomic_load(&s->link.queued) != 0;
}

static void on_pulse(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	(void)from;
	if (s->spec->self == 0)
		hv_irq_pulse(s, msg->pulse.gsi);
}

static void on_eoi(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	(void)from;
	if (s->spec->self == 0)
		hv_irq_eoi(s, msg->eoi.vector);
}

static void on_ipi(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	(void)from;
	hv_irq_on_ipi(s, msg);
}

static void on_addr(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	unsigned v = msg->addr.vcpu;

	(void)from; /* any node may have the vCPU by now */
	if (v >= s->spec->vcpus)
		hv_count(&s->refused);
	else
		hv_irq_addr_learn(s, v, &msg->addr.addr, msg->addr.seq);
}

static void (*const handlers[HV_MSG_KINDS])(struct hv_slice *s, node_id from,
					    const struct hv_msg *msg) = {
	[HV_MSG_IPI] = on_ipi,
	[HV_MSG_ADDR] = on_addr,
	[HV_MSG_PULSE] = on_pulse,
	[HV_MSG_EOI] = on_eoi,
	[HV_MSG_IO] = hv_bus_on_message,
	[HV_MSG_IO_DONE] = hv_bus_on_message,
	[HV_MSG_PROBE] = hv_clock_on_message,
	[HV_MSG_CLOCK] = hv_clock_on_message,
	[HV_MSG_BALANCE] = hv_balance_on_message,
	[HV_MSG_LOAD] = hv_balance_on_message,
	[HV_MSG_NODE] = hv_balance_on_message,
	[HV_MSG_LEAVE] = hv_drain_on_message,
};

void hv_link_on_message(void *slice, node_id from, const struct ic_msg *msg)
{
	struct hv_slice *s = slice;
	struct hv_msg m;

	if (msg->data_len || from >= s->spec->nodes ||
	    !hv_msg_decode(msg->body, msg->body_len, &m)) {
		hv_count(&s->refused);
		return;
	}
	pthread_mutex_lock(&s->gate);
	if (!s->deaf)
		handlers[m.kind](s, from, &m);
	pthread_mutex_unlock(&s->gate);
}
