/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/paths/verbs.c - the path of the backend "verbs": reliable connections of InfiniBand and RoCE by libibverbs.
 *
 * What      A queue pair for each peer, all on one completion queue.  The control stream has proven the peer and
 *           carries what a connection manager would: queue pair number, address, packet number (OFFER), so
 *           librdmacm is not needed.  Small messages are sent inline.
 * Owns      Everything of libibverbs.  Each peer has a protection domain of its own, which holds nothing but the
 *           bounce slots for that peer, and no key ever leaves this node: nobody can read or write our memory.
 * Threads   slots.h.  ibv_* are safe for several threads; a queue pair is used under its link's lock.
 * I/O       The device's.  Completions are polled; who sleeps asks for an event first (sleep).  Events are read after a
 *           sleep, and now and then.
 * Sources   InfiniBand Architecture Specification 1.4, vol 1, chapters 9 to 11; ibv_modify_qp(3), ibv_req_notify_cq(3).
 * Limits    One port of one device.  A cable may be out for ACK_TIMEOUT times RETRIES, some 7 s, before the link is lost;
 *           the death of a process is seen by the control stream at once.
 */
#include "interconnect/paths/slots.h"

#include "base/bytes.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ACK_TIMEOUT 18	  /* 4.096 us * 2^18, about 1 s */
#define RETRIES 7	  /* the most */
#define RNR_TIMER 12	  /* 0.64 ms; credits keep it from ever counting */
#define INLINE_BYTES 128u /* asked for; a device may give less */
#define EVENTS_EVERY 1024u /* polls between looks for events that nobody waits for */
#define OFFER_BYTES 30u

struct port {
	struct ic_path *slots;
	uint8_t *block;
	struct ibv_context *ctx;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_port_attr attr;
	uint8_t port, gid_index;
	union ibv_gid gid;
	struct port_link *links[NODES_MAX];
	int event_fd; /* epoll: the channel, and what happens to the device */
	_Atomic bool armed, sleeper, woken;
	uint32_t generation; /* of links */
	unsigned polls;
};

struct port_link {
	struct port *p;
	struct ic_path_link *slots;
	node_id peer;
	uint32_t generation; /* in wr_id: completions of a queue pair that is gone may still come */
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_qp *qp;
	uint32_t psn, inline_max;
};

/* --- device ------------------------------------------------------------------------------------------------------- */

static int failed(const char *what, int err)
{
	log_error("verbs: %s: %s", what, strerror(err));
	return err ? -err : -EIO;
}

/* RoCE: version 2 before 1, an IPv4 address before a link-local one.  InfiniBand: the first. */
static int gid_rank(const struct ibv_gid_entry *e)
{
	static const uint8_t v4[12] = { [10] = 0xff, [11] = 0xff };
	int rank = e->gid_type == IBV_GID_TYPE_ROCE_V2 ? 4 : e->gid_type == IBV_GID_TYPE_IB ? 4 : 1;

	if (!memcmp(e->gid.raw, v4, sizeof(v4)))
		rank += 2;
	else if (e->gid.raw[0] == 0xfe && e->gid.raw[1] == 0x80)
		rank += 0;
	else
		rank += 1;
	return rank;
}

static bool gid_choose(struct port *p)
{
	struct ibv_gid_entry table[64];
	ssize_t n = ibv_query_gid_table(p->ctx, table, ARRAY_LEN(table), 0);
	int best = -1;

	for (ssize_t i = 0; i < n; i++) {
		if (table[i].port_num != p->port || gid_rank(&table[i]) <= best)
			continue;
		best = gid_rank(&table[i]);
		p->gid = table[i].gid;
		p->gid_index = (uint8_t)table[i].gid_index;
	}
	return best >= 0;
}

/* The first port that is up.  False: none, or none with an address where it needs one. */
static bool port_choose(struct port *p)
{
	struct ibv_device_attr dev;

	if (ibv_query_device(p->ctx, &dev))
		return false;
	for (p->port = 1; p->port <= dev.phys_port_cnt; p->port++) {
		if (ibv_query_port(p->ctx, p->port, &p->attr) || p->attr.state != IBV_PORT_ACTIVE)
			continue;
		if (gid_choose(p) || p->attr.link_layer != IBV_LINK_LAYER_ETHERNET)
			return true;
	}
	return false;
}

static int device_open(struct port *p, const char *device)
{
	struct ibv_device **list;
	int count = 0, seen = 0;

	list = ibv_get_device_list(&count);
	for (int i = 0; list && i < count && !p->ctx; i++) {
		if (*device && strcmp(device, ibv_get_device_name(list[i])))
			continue;
		seen++;
		p->ctx = ibv_open_device(list[i]);
		if (p->ctx && port_choose(p))
			break;
		if (p->ctx && ibv_close_device(p->ctx))
			log_debug("verbs: close");
		p->ctx = NULL;
	}
	if (p->ctx)
		log_info("verbs: device %s port %u", ibv_get_device_name(p->ctx->device), p->port);
	else if (!seen)
		log_error("verbs: no RDMA device%s%s (rdma link shows them)", *device ? " " : "", device);
	else
		log_error("verbs: no port of %s is active with an address", *device ? device : "any device");
	if (list)
		ibv_free_device_list(list);
	return p->ctx ? 0 : -ENODEV;
}

static void verbs_close(struct port *p)
{
	if (p->cq && ibv_destroy_cq(p->cq))
		log_debug("verbs: completion queue in use");
	if (p->channel && ibv_destroy_comp_channel(p->channel))
		log_debug("verbs: channel in use");
	if (p->event_fd >= 0)
		close(p->event_fd);
	if (p->ctx && ibv_close_device(p->ctx))
		log_debug("verbs: close");
	free(p);
}

/* Neither fd may block its reader; both wake a sleeper. */
static int events_open(struct port *p)
{
	const int fds[] = { p->channel->fd, p->ctx->async_fd };
	struct epoll_event ev = { .events = EPOLLIN };

	p->event_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->event_fd < 0)
		return failed("events", errno);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		if (fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK) ||
		    epoll_ctl(p->event_fd, EPOLL_CTL_ADD, fds[i], &ev))
			return failed("events", errno);
	return 0;
}

static int verbs_open(const char *device, struct ic_path *slots, void *block, size_t bytes, struct port **out)
{
	struct port *p = calloc(1, sizeof(*p));
	int entries = (int)(bytes / SLOT_BYTES), err;

	if (!p)
		return -ENOMEM;
	p->slots = slots;
	p->block = block;
	p->event_fd = -1;
	err = device_open(p, device);
	if (!err) {
		p->channel = ibv_create_comp_channel(p->ctx);
		p->cq = p->channel ? ibv_create_cq(p->ctx, entries, NULL, p->channel, 0) : NULL;
		if (!p->cq)
			err = failed("completion queue", errno);
		else
			err = events_open(p);
	}
	if (err) {
		verbs_close(p);
		return err;
	}
	*out = p;
	return 0;
}

/* --- links -------------------------------------------------------------------------------------------------------- */

static void verbs_link_close(struct port_link *l)
{
	if (l->p->links[l->peer] == l)
		l->p->links[l->peer] = NULL;
	if (l->qp && ibv_destroy_qp(l->qp))
		log_debug("verbs: queue pair stays");
	if (l->mr && ibv_dereg_mr(l->mr))
		log_debug("verbs: memory stays registered");
	if (l->pd && ibv_dealloc_pd(l->pd))
		log_debug("verbs: protection domain stays");
	free(l);
}

static int qp_make(struct port_link *l)
{
	struct ibv_qp_init_attr init = { .send_cq = l->p->cq,
					 .recv_cq = l->p->cq,
					 .qp_type = IBV_QPT_RC,
					 .sq_sig_all = 1,
					 .cap = { .max_send_wr = SLOTS_TX,
						  .max_recv_wr = IC_CREDIT_SLOTS,
						  .max_send_sge = 1,
						  .max_recv_sge = 1,
						  .max_inline_data = INLINE_BYTES } };
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = l->p->port };
	int err;

	l->qp = ibv_create_qp(l->pd, &init);
	if (!l->qp) { /* a device may offer no inline at all */
		init.cap.max_inline_data = 0;
		l->qp = ibv_create_qp(l->pd, &init);
	}
	if (!l->qp)
		return failed("queue pair", errno);
	l->inline_max = init.cap.max_inline_data;
	err = ibv_modify_qp(l->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	return err ? failed("queue pair to INIT", err) : 0;
}

static int verbs_link_open(struct port *p, struct ic_path_link *slots, node_id peer, struct port_link **out,
			   uint8_t *offer, uint16_t *len, uint16_t room)
{
	struct port_link *l = calloc(1, sizeof(*l));
	struct writer w = { offer, offer + room, false };
	int err = 0;

	if (!l)
		return -ENOMEM;
	l->p = p;
	l->slots = slots;
	l->peer = peer;
	l->generation = ++p->generation;
	l->pd = ibv_alloc_pd(p->ctx);
	if (l->pd)
		l->mr = ibv_reg_mr(l->pd, p->block + peer * SLOTS_PEER_BYTES, SLOTS_PEER_BYTES,
				   IBV_ACCESS_LOCAL_WRITE);
	if (!l->mr)
		err = failed("cannot register memory (ulimit -l?)", errno);
	if (!err && RAND_bytes((uint8_t *)&l->psn, sizeof(l->psn)) != 1)
		err = -EIO;
	if (!err)
		err = qp_make(l);
	if (err) {
		verbs_link_close(l);
		return err;
	}
	l->psn &= 0xffffff;
	p->links[peer] = l;
	writer_u32(&w, l->qp->qp_num);
	writer_u32(&w, l->psn);
	writer_u16(&w, p->attr.lid);
	writer_u8(&w, (uint8_t)p->attr.active_mtu);
	writer_u8(&w, p->attr.link_layer);
	writer_bytes(&w, &p->gid, sizeof(p->gid));
	writer_u16(&w, 0);
	*len = OFFER_BYTES;
	*out = l;
	return 0;
}

static int verbs_link_connect(struct port_link *l, const uint8_t *offer, uint16_t len)
{
	struct port *p = l->p;
	struct reader r = { offer, offer + len, false };
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR };
	uint8_t mtu, layer;
	int err;

	attr.dest_qp_num = reader_u32(&r);
	attr.rq_psn = reader_u32(&r);
	attr.ah_attr.dlid = reader_u16(&r);
	mtu = reader_u8(&r);
	layer = reader_u8(&r);
	reader_bytes(&r, &attr.ah_attr.grh.dgid, sizeof(attr.ah_attr.grh.dgid));
	if (r.bad || len != OFFER_BYTES || layer != p->attr.link_layer || mtu < IBV_MTU_256 || mtu > IBV_MTU_4096 ||
	    attr.dest_qp_num > 0xffffff || attr.rq_psn > 0xffffff)
		return -EPROTO;
	attr.path_mtu = mtu < p->attr.active_mtu ? mtu : p->attr.active_mtu;
	attr.min_rnr_timer = RNR_TIMER;
	attr.ah_attr.port_num = p->port;
	if (layer == IBV_LINK_LAYER_ETHERNET) {
		attr.ah_attr.is_global = 1;
		attr.ah_attr.grh.sgid_index = p->gid_index;
		attr.ah_attr.grh.hop_limit = 64;
	}
	err = ibv_modify_qp(l->qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (err)
		return failed("queue pair to RTR", err);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS,
				     .sq_psn = l->psn,
				     .timeout = ACK_TIMEOUT,
				     .retry_cnt = RETRIES,
				     .rnr_retry = 7 };
	err = ibv_modify_qp(l->qp, &attr,
			    IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				    IBV_QP_MAX_QP_RD_ATOMIC);
	return err ? failed("queue pair to RTS", err) : 0;
}

/* --- data --------------------------------------------------------------------------------------------------------- */

/* wr_id: generation of the link (32 bits), index of the slot, 1 for one that receives. */
static uint64_t wr_id(const struct port_link *l, uint32_t index, bool rx)
{
	return (uint64_t)l->generation << 32 | index << 1 | rx;
}

static int verbs_post_send(struct port_link *l, struct slots_tx *slot, size_t len)
{
	struct ibv_sge sge = { (uintptr_t)slot->bytes, (uint32_t)len, l->mr->lkey };
	struct ibv_send_wr wr = { .wr_id = wr_id(l, slot->index, false),
				  .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = IBV_WR_SEND };
	struct ibv_send_wr *bad;
	int err;

	if (len <= l->inline_max)
		wr.send_flags = IBV_SEND_INLINE;
	err = ibv_post_send(l->qp, &wr, &bad);
	return !err ? 0 : err == ENOMEM ? -EAGAIN : -EPROTO;
}

static int verbs_post_recv(struct port *p, struct slots_rx *slot)
{
	struct port_link *l = p->links[slot->peer];
	struct ibv_sge sge = { (uintptr_t)slot->bytes, SLOT_BYTES, 0 };
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;
	int err;

	if (!l)
		return 0;
	sge.lkey = l->mr->lkey;
	wr.wr_id = wr_id(l, slot->index, true);
	err = ibv_post_recv(l->qp, &wr, &bad);
	return err ? failed("receive", err) : 0;
}

static struct port_link *link_of(const struct port *p, node_id peer, uint64_t id)
{
	struct port_link *l = p->links[peer];

	return l && l->generation == id >> 32 ? l : NULL;
}

static void completion(struct port *p, const struct ibv_wc *wc)
{
	uint32_t index = (uint32_t)wc->wr_id >> 1;

	if (wc->wr_id & 1) {
		struct slots_rx *slot = slots_rx_at(p->slots, index);
		struct port_link *l = link_of(p, slot->peer, wc->wr_id);

		if (l && wc->status == IBV_WC_SUCCESS)
			slots_received(p->slots, slot, wc->byte_len);
		else if (l) /* flushed: the queue pair is in error, whether something is being sent or not */
			slots_broken(l->slots);
	} else {
		struct slots_tx *slot = slots_tx_at(p->slots, index);

		if (!link_of(p, slot->peer, wc->wr_id))
			return; /* the slot was taken back, and may be in use again */
		if (wc->status == IBV_WC_SUCCESS) {
			slots_sent(slot);
			return;
		}
		log_debug("verbs: send: %s", ibv_wc_status_str(wc->status));
		slots_failed(p->slots, slot);
	}
}

/*
 * Takes the event that ended a sleep, so that the next one can be asked for.  Somebody who has gone to sleep on the one
 * that is taken here (sleeper is set before armed is looked at) gets another; the queue is polled after this.
 */
static void event_take(struct port *p)
{
	struct ibv_cq *cq;
	void *arg;

	if (ibv_get_cq_event(p->channel, &cq, &arg))
		return; /* not there yet */
	ibv_ack_cq_events(cq, 1);
	atomic_store(&p->armed, false);
	if (atomic_load(&p->sleeper) && !atomic_exchange(&p->armed, true) && ibv_req_notify_cq(p->cq, 0))
		atomic_store(&p->armed, false);
}

/* What happens to the device and its queues.  A port that goes down is not the end: see Limits. */
static int async_take(struct port *p)
{
	struct ibv_async_event e;
	int err = 0;

	while (!ibv_get_async_event(p->ctx, &e)) {
		log_debug("verbs: event: %s", ibv_event_type_str(e.event_type));
		switch (e.event_type) {
		case IBV_EVENT_DEVICE_FATAL:
		case IBV_EVENT_CQ_ERR:
			err = failed(ibv_event_type_str(e.event_type), EIO);
			break;
		case IBV_EVENT_QP_FATAL:
		case IBV_EVENT_QP_REQ_ERR:
		case IBV_EVENT_QP_ACCESS_ERR:
			for (unsigned i = 0; i < NODES_MAX; i++)
				if (p->links[i] && p->links[i]->qp == e.element.qp)
					slots_broken(p->links[i]->slots);
			break;
		default:
			break;
		}
		ibv_ack_async_event(&e);
	}
	return err;
}

static int verbs_poll(struct port *p, unsigned budget)
{
	struct ibv_wc wc[SLOTS_BATCH];
	int n, err = 0;

	if (p->woken || ++p->polls % EVENTS_EVERY == 0) {
		p->woken = false;
		if (p->armed)
			event_take(p);
		err = async_take(p);
	}
	n = err ? err : ibv_poll_cq(p->cq, (int)budget, wc);
	if (n < 0)
		return err ? err : failed("completions", EIO);
	for (int i = 0; i < n; i++)
		completion(p, &wc[i]);
	return n;
}

/* An event is asked for first and the queue polled after, so that what came in between is not missed. */
static bool verbs_sleep(struct port *p, bool on)
{
	atomic_store(&p->sleeper, on);
	if (!on)
		p->woken = true;
	if (!on || atomic_exchange(&p->armed, true))
		return false;
	if (ibv_req_notify_cq(p->cq, 0))
		p->armed = false;
	return true;
}

static int verbs_fd(struct port *p)
{
	return p->event_fd;
}

static const struct port_ops verbs_ops = {
	.per_link = true,
	.open = verbs_open,
	.close = verbs_close,
	.link_open = verbs_link_open,
	.link_connect = verbs_link_connect,
	.link_close = verbs_link_close,
	.post_send = verbs_post_send,
	.post_recv = verbs_post_recv,
	.poll = verbs_poll,
	.sleep = verbs_sleep,
	.fd = verbs_fd,
};

static int path_open(const char *device, const struct ic_path_host *host, unsigned nodes, struct ic_path **out)
{
	return slots_open(&verbs_ops, device, host, nodes, out);
}

const struct ic_path_ops ic_path_verbs = SLOTS_PATH_OPS(path_open);
