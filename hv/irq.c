/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irq.c - interrupts on their way: from a LAPIC, an IOAPIC pin or a peer to the mailbox of a vCPU.
 *
 * What      The sender routes against its copy of every LAPIC's address; what is for another node goes there as one
 *           message with the set of its vCPUs.  A pin lives on node 0.
 * Threads   Any; nothing here blocks.
 */
#include "hv/slice_priv.h"

static bool set_empty(const struct hv_vcpu_set *set)
{
	return !(set->w[0] | set->w[1] | set->w[2] | set->w[3]);
}

/* Where its interrupts go: to the node that runs it, or that passes them on. */
static node_id node_of(struct hv_slice *s, unsigned vcpu)
{
	return s->mig ? mig_where(s->mig, vcpu) : s->spec->self;
}

/* Takes the vCPUs of `node` out of `all`. */
static struct hv_vcpu_set set_of_node(struct hv_slice *s, struct hv_vcpu_set *all, node_id node)
{
	struct hv_vcpu_set part = { 0 };

	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		if (!hv_vcpu_set_has(all, v) || node_of(s, v) != node)
			continue;
		hv_vcpu_set_add(&part, v);
		all->w[v / 64] &= ~(1ull << (v % 64));
	}
	return part;
}

static void post_local(struct hv_slice *s, const struct hv_msg *msg)
{
	for (unsigned v = 0; v < s->spec->vcpus; v++)
		if (hv_vcpu_set_has(&msg->ipi.to, v))
			hv_cpu_post(s->cpu[v], msg);
}

/* A vCPU that comes or goes meanwhile may be missed by the loop: then it is posted here, and passed on from here. */
static void send_remote(struct hv_slice *s, struct hv_msg *local, struct hv_vcpu_set to)
{
	struct hv_msg remote = *local;

	for (unsigned n = 0; n < s->spec->nodes && !set_empty(&to); n++) {
		if (n == s->spec->self)
			continue;
		remote.ipi.to = set_of_node(s, &to, (node_id)n);
		if (set_empty(&remote.ipi.to))
			continue;
		hv_link_send(s, (node_id)n, &remote);
		hv_count(&s->ipis_out);
	}
	for (unsigned w = 0; w < ARRAY_LEN(to.w); w++)
		local->ipi.to.w[w] |= to.w[w];
}

void hv_irq_send(struct hv_slice *s, const struct hv_intr *i)
{
	struct hv_msg msg = { .kind = HV_MSG_IPI };
	struct hv_vcpu_set to;

	pthread_mutex_lock(&s->addr_lock);
	to = hv_intr_route(i, s->addr, s->spec->vcpus);
	pthread_mutex_unlock(&s->addr_lock);
	msg.ipi.mode = i->mode;
	msg.ipi.vector = i->vector;
	msg.ipi.level = i->level;
	msg.ipi.to = set_of_node(s, &to, s->spec->self);
	/* Peers first: their part takes longer. */
	if (!set_empty(&to))
		send_remote(s, &msg, to);
	post_local(s, &msg);
}

void hv_irq_on_ipi(struct hv_slice *s, const struct hv_msg *msg)
{
	hv_count(&s->ipis_in);
	post_local(s, msg);
}

void hv_irq_addr_learn(struct hv_slice *s, unsigned vcpu, const struct hv_lapic_addr *addr, uint32_t seq)
{
	pthread_mutex_lock(&s->addr_lock);
	if ((int32_t)(seq - s->addr_seq[vcpu]) > 0) {
		s->addr[vcpu] = *addr;
		s->addr_seq[vcpu] = seq;
	}
	pthread_mutex_unlock(&s->addr_lock);
}

void hv_irq_addr_changed(struct hv_slice *s, unsigned vcpu, const struct hv_lapic_addr *addr, uint32_t seq)
{
	struct hv_msg msg = { .kind = HV_MSG_ADDR };

	hv_irq_addr_learn(s, vcpu, addr, seq);
	msg.addr.vcpu = (uint8_t)vcpu;
	msg.addr.seq = seq;
	msg.addr.addr = *addr;
	hv_link_send_all(s, &msg);
}

static void send_each(struct hv_slice *s, const struct hv_ioapic_effects *fx)
{
	for (unsigned i = 0; i < fx->count; i++)
		hv_irq_send(s, &fx->list[i]);
}

void hv_irq_pulse(struct hv_slice *s, unsigned gsi)
{
	struct hv_ioapic_effects fx = { 0 };

	if (s->spec->self != 0) {
		struct hv_msg msg = { .kind = HV_MSG_PULSE, .pulse = { .gsi = (uint8_t)gsi } };

		hv_link_send(s, 0, &msg);
		return;
	}
	pthread_mutex_lock(&s->board.ioapic_lock);
	hv_ioapic_set_line(&s->board.ioapic, gsi, true, &fx);
	hv_ioapic_set_line(&s->board.ioapic, gsi, false, &fx);
	pthread_mutex_unlock(&s->board.ioapic_lock);
	send_each(s, &fx);
}

void hv_irq_eoi(struct hv_slice *s, uint8_t vector)
{
	struct hv_ioapic_effects fx = { 0 };

	if (s->spec->self != 0) {
		struct hv_msg msg = { .kind = HV_MSG_EOI, .eoi = { .vector = vector } };

		hv_link_send(s, 0, &msg);
		return;
	}
	pthread_mutex_lock(&s->board.ioapic_lock);
	hv_ioapic_eoi(&s->board.ioapic, vector, &fx);
	pthread_mutex_unlock(&s->board.ioapic_lock);
	send_each(s, &fx);
}
