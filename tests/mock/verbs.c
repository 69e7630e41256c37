/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mock/verbs.c - a fake libibverbs: what the verbs path needs of it, for machines with no RDMA.
 *
 * What      Put first in LD_LIBRARY_PATH, it stands in for the true library; the path is not changed.  One device "mock0"
 *           with one active Ethernet port.  Objects, their checks, the queues; verbs_wire.c moves the messages.  Stricter
 *           than a driver where a mistake would pass unseen there: an object that is destroyed while it is in use, or
 *           an event that was never acknowledged, is refused; a slot that is not registered fails.
 *           A test sets and reads mock_verbs(NAME, VALUE); the names are in key_names.
 * Sources   ibv_*(3) of rdma-core; InfiniBand Architecture Specification 1.4, vol 1, chapters 10 and 11.
 * Limits    Reliable connections with sends only; MOCK_* of verbs.h.
 */
#include "tests/mock/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_query_port

_Atomic long mock_state[MOCK_KEYS];
static const char *const key_names[MOCK_KEYS] = {
	[MOCK_SEND_STATUS] = "send-status", [MOCK_RECV_STATUS] = "recv-status", [MOCK_MR_FAIL] = "mr-fail",
	[MOCK_QP_MAX] = "qp-max",	    [MOCK_DEVICE_FATAL] = "device-fatal", [MOCK_CQ_OVERRUN] = "cq-overrun",
	[MOCK_STALE] = "stale",		    [MOCK_REUSE] = "reuse",		  [MOCK_DELAY_US] = "delay-us",
	[MOCK_OBJECTS] = "objects",	    [MOCK_MESSAGES] = "messages",
};

/* While the device's own work is done in a caller's thread, *gate is 0: a test that counts system calls looks away. */
static volatile unsigned char no_gate, *gate = &no_gate;

long mock_verbs(const char *key, long value);
void mock_verbs_gate(volatile unsigned char *at);

/* The value before; a negative one only asks. */
long mock_verbs(const char *key, long value)
{
	for (unsigned i = 0; i < MOCK_KEYS; i++)
		if (!strcmp(key, key_names[i]))
			return value < 0 ? mock_state[i] : atomic_exchange(&mock_state[i], value);
	return -1;
}

void mock_verbs_gate(volatile unsigned char *at)
{
	gate = at ? at : &no_gate;
}

static void *object_new(size_t bytes)
{
	void *p = calloc(1, bytes);

	mock_state[MOCK_OBJECTS] += p != NULL;
	return p;
}

static void object_free(void *p)
{
	mock_state[MOCK_OBJECTS]--;
	free(p);
}

/* --- devices ------------------------------------------------------------------------------------------------------ */

static struct ibv_device device = { .node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB, .name = "mock0" };
static const union ibv_gid device_gid = { .raw = { [10] = 0xff, 0xff, 127, 0, 0, 2 } };

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = calloc(2, sizeof(struct ibv_device *));

	if (list)
		list[0] = &device;
	if (count)
		*count = list ? 1 : 0;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *d)
{
	return d->name;
}

static int poll_cq(struct ibv_cq *ibv, int count, struct ibv_wc *wc);
static int req_notify_cq(struct ibv_cq *ibv, int solicited_only);
static int post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
static int post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

struct ibv_context *ibv_open_device(struct ibv_device *d)
{
	struct mock_context *ctx = object_new(sizeof(*ctx));
	struct epoll_event ev = { .events = EPOLLIN };
	int async[2];

	if (!ctx || pipe2(async, O_CLOEXEC))
		return NULL;
	ctx->ibv.device = d;
	ctx->ibv.ops.poll_cq = poll_cq;
	ctx->ibv.ops.req_notify_cq = req_notify_cq;
	ctx->ibv.ops.post_send = post_send;
	ctx->ibv.ops.post_recv = post_recv;
	ctx->ibv.async_fd = async[0];
	ctx->async_write_fd = async[1];
	ctx->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ctx->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&ctx->lock, NULL);
	if (epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, ctx->kick_fd, &ev) ||
	    pthread_create(&ctx->thread, NULL, mock_device_run, ctx))
		abort();
	return &ctx->ibv;
}

int ibv_close_device(struct ibv_context *ibv)
{
	struct mock_context *ctx = (struct mock_context *)ibv;

	for (unsigned i = 0; i < MOCK_QPS; i++)
		if (ctx->qps[i] || ctx->cqs[i] || ctx->mrs[i])
			return EBUSY;
	pthread_mutex_lock(&ctx->lock);
	ctx->stop = true;
	pthread_mutex_unlock(&ctx->lock);
	mock_device_kick(ctx);
	pthread_join(ctx->thread, NULL);
	close(ctx->epoll_fd);
	close(ctx->kick_fd);
	close(ctx->ibv.async_fd);
	close(ctx->async_write_fd);
	pthread_mutex_destroy(&ctx->lock);
	object_free(ctx);
	return 0;
}

int ibv_query_device(struct ibv_context *ibv, struct ibv_device_attr *attr)
{
	(void)ibv;
	*attr = (struct ibv_device_attr){ .phys_port_cnt = 1, .max_qp = MOCK_QPS, .max_qp_wr = MOCK_QUEUE };
	return 0;
}

/* The caller's struct is the longer one, zeroed; only what the old one has is written. */
int ibv_query_port(struct ibv_context *ibv, uint8_t port, struct _compat_ibv_port_attr *out)
{
	struct ibv_port_attr *attr = (struct ibv_port_attr *)out;

	(void)ibv;
	if (port != 1)
		return EINVAL;
	attr->state = IBV_PORT_ACTIVE;
	attr->max_mtu = attr->active_mtu = IBV_MTU_4096;
	attr->gid_tbl_len = 1;
	attr->link_layer = IBV_LINK_LAYER_ETHERNET;
	return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *ibv, struct ibv_gid_entry *entries, size_t max, uint32_t flags,
			     size_t entry_size)
{
	(void)ibv;
	if (flags || entry_size != sizeof(*entries) || !max)
		return -EINVAL;
	entries[0] = (struct ibv_gid_entry){ .gid = device_gid, .port_num = 1, .gid_type = IBV_GID_TYPE_ROCE_V2 };
	return 1;
}

int ibv_get_async_event(struct ibv_context *ibv, struct ibv_async_event *e)
{
	return read(ibv->async_fd, e, sizeof(*e)) == sizeof(*e) ? 0 : -1;
}

void ibv_ack_async_event(struct ibv_async_event *e)
{
	(void)e; /* who destroys an object here does not wait for that */
}

const char *ibv_event_type_str(enum ibv_event_type type)
{
	return type == IBV_EVENT_DEVICE_FATAL ? "device fatal" : type == IBV_EVENT_CQ_ERR ? "CQ error" : "event";
}

const char *ibv_wc_status_str(enum ibv_wc_status status)
{
	return status == IBV_WC_SUCCESS ? "success" : status == IBV_WC_WR_FLUSH_ERR ? "flushed" : "failed";
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *ibv)
{
	struct ibv_pd *pd = object_new(sizeof(*pd));

	if (pd)
		pd->context = ibv;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	struct mock_context *ctx = (struct mock_context *)pd->context;
	bool used = false;

	pthread_mutex_lock(&ctx->lock);
	for (unsigned i = 0; i < MOCK_QPS; i++)
		used |= (ctx->qps[i] && ctx->qps[i]->ibv.pd == pd) || (ctx->mrs[i] && ctx->mrs[i]->pd == pd);
	pthread_mutex_unlock(&ctx->lock);
	if (used)
		return EBUSY;
	object_free(pd);
	return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	static _Atomic uint32_t next = 0x1000;
	struct mock_context *ctx = (struct mock_context *)pd->context;
	struct ibv_mr *mr = mock_take(MOCK_MR_FAIL) ? NULL : object_new(sizeof(*mr));
	unsigned i = 0;

	if (!mr || access != IBV_ACCESS_LOCAL_WRITE) { /* nothing remote is ever asked for */
		errno = mr ? EINVAL : ENOMEM;
		return NULL;
	}
	*mr = (struct ibv_mr){ .context = &ctx->ibv, .pd = pd, .addr = addr, .length = length };
	mr->lkey = atomic_fetch_add(&next, 0x101);
	pthread_mutex_lock(&ctx->lock);
	while (i < MOCK_MRS - 1 && ctx->mrs[i])
		i++;
	ctx->mrs[i] = mr;
	pthread_mutex_unlock(&ctx->lock);
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	struct mock_context *ctx = (struct mock_context *)mr->context;

	pthread_mutex_lock(&ctx->lock);
	for (unsigned i = 0; i < MOCK_MRS; i++)
		if (ctx->mrs[i] == mr)
			ctx->mrs[i] = NULL;
	pthread_mutex_unlock(&ctx->lock);
	object_free(mr);
	return 0;
}

/* A scatter entry must lie in memory that was registered in the queue pair's own domain. */
static bool sge_good(const struct mock_qp *qp, const struct ibv_sge *sge)
{
	for (unsigned i = 0; i < MOCK_MRS; i++) {
		const struct ibv_mr *mr = qp->ctx->mrs[i];

		if (mr && mr->lkey == sge->lkey)
			return mr->pd == qp->ibv.pd && sge->addr >= (uintptr_t)mr->addr &&
			       sge->addr + sge->length <= (uintptr_t)mr->addr + mr->length;
	}
	return false;
}

/* --- completion queues -------------------------------------------------------------------------------------------- */

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ibv)
{
	struct mock_channel *ch = object_new(sizeof(*ch));
	int fds[2];

	if (!ch || pipe2(fds, O_CLOEXEC))
		return NULL;
	ch->ibv.context = ibv;
	ch->ibv.fd = fds[0];
	ch->write_fd = fds[1];
	return &ch->ibv;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
	struct mock_channel *ch = (struct mock_channel *)ibv;

	if (ibv->refcnt)
		return EBUSY;
	close(ibv->fd);
	close(ch->write_fd);
	object_free(ch);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *ibv, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			     int vector)
{
	struct mock_context *ctx = (struct mock_context *)ibv;
	struct mock_cq *cq = object_new(sizeof(*cq));
	unsigned i = 0;

	(void)vector;
	if (!cq)
		return NULL;
	cq->ring = calloc((size_t)cqe, sizeof(*cq->ring));
	cq->ctx = ctx;
	cq->ibv.context = ibv;
	cq->ibv.channel = channel;
	cq->ibv.cq_context = cq_context;
	cq->ibv.cqe = cqe;
	if (channel)
		channel->refcnt++;
	while (ctx->cqs[i])
		i++;
	ctx->cqs[i] = cq;
	return &cq->ibv;
}

int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct mock_cq *cq = (struct mock_cq *)ibv;
	struct mock_context *ctx = cq->ctx;
	struct ibv_cq *pending;

	for (unsigned i = 0; i < MOCK_QPS; i++)
		if (ctx->qps[i] && (ctx->qps[i]->ibv.send_cq == ibv || ctx->qps[i]->ibv.recv_cq == ibv))
			return EBUSY;
	/* Events that were read must have been acknowledged: the true one waits for that without end. */
	while (cq->unacked && ibv->channel && read(ibv->channel->fd, &pending, sizeof(pending)) == sizeof(pending))
		cq->unacked--;
	if (cq->unacked) {
		fprintf(stderr, "mock verbs: %u events never acknowledged\n", cq->unacked);
		abort();
	}
	for (unsigned i = 0; i < MOCK_QPS; i++)
		if (ctx->cqs[i] == cq)
			ctx->cqs[i] = NULL;
	if (ibv->channel)
		ibv->channel->refcnt--;
	free(cq->ring);
	object_free(cq);
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	if (read(channel->fd, cq, sizeof(*cq)) != sizeof(*cq))
		return -1;
	*cq_context = (*cq)->cq_context;
	return 0;
}

void ibv_ack_cq_events(struct ibv_cq *ibv, unsigned count)
{
	struct mock_cq *cq = (struct mock_cq *)ibv;

	pthread_mutex_lock(&cq->ctx->lock);
	if (count > cq->unacked)
		abort();
	cq->unacked -= count;
	pthread_mutex_unlock(&cq->ctx->lock);
}

static int poll_cq(struct ibv_cq *ibv, int count, struct ibv_wc *wc)
{
	struct mock_cq *cq = (struct mock_cq *)ibv;
	unsigned char was = *gate;
	int n = 0;

	*gate = 0;
	pthread_mutex_lock(&cq->ctx->lock);
	while (n < count && !cq->broken && !cq->ctx->fatal && cq->head != cq->tail)
		wc[n++] = cq->ring[cq->tail++ % (uint32_t)cq->ibv.cqe];
	pthread_mutex_unlock(&cq->ctx->lock);
	*gate = was;
	return n;
}

static int req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	struct mock_cq *cq = (struct mock_cq *)ibv;
	unsigned char was = *gate;

	(void)solicited_only;
	*gate = 0;
	pthread_mutex_lock(&cq->ctx->lock);
	cq->armed = true; /* for what comes from now on */
	pthread_mutex_unlock(&cq->ctx->lock);
	*gate = was;
	return 0;
}

/* --- queue pairs -------------------------------------------------------------------------------------------------- */

static uint32_t qpn_choose(struct mock_context *ctx)
{
	uint32_t r = 0;

	if (mock_state[MOCK_REUSE] && ctx->last_qpn) {
		r = ctx->last_qpn;
		ctx->last_qpn = 0;
		return r;
	}
	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		abort();
	return (r & 0xffffff) | 2;
}

static unsigned qps_count(const struct mock_context *ctx)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MOCK_QPS; i++)
		n += ctx->qps[i] != NULL;
	return n;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
	struct mock_context *ctx = (struct mock_context *)pd->context;
	struct mock_qp *qp = NULL;
	long most = mock_state[MOCK_QP_MAX];
	unsigned tries = 0;

	errno = EINVAL;
	if (init->qp_type != IBV_QPT_RC || init->cap.max_send_wr > MOCK_QUEUE || init->cap.max_recv_wr > MOCK_QUEUE ||
	    init->cap.max_send_sge != 1 || init->cap.max_recv_sge != 1 || init->cap.max_inline_data > MOCK_INLINE ||
	    !init->sq_sig_all)
		return NULL;
	errno = ENOMEM;
	pthread_mutex_lock(&ctx->lock);
	if (!ctx->fatal && qps_count(ctx) < (most ? (unsigned long)most : MOCK_QPS))
		qp = object_new(sizeof(*qp));
	if (qp) {
		qp->ctx = ctx;
		qp->ibv = (struct ibv_qp){ .context = &ctx->ibv, .pd = pd, .send_cq = init->send_cq,
					   .recv_cq = init->recv_cq, .qp_type = init->qp_type };
		qp->max_send = init->cap.max_send_wr;
		qp->max_recv = init->cap.max_recv_wr;
		qp->max_inline = init->cap.max_inline_data;
		do
			qp->ibv.qp_num = qpn_choose(ctx);
		while (mock_wire_open(qp) && ++tries < 100);
		while (ctx->qps[qp->slot])
			qp->slot++;
		ctx->qps[qp->slot] = qp;
	}
	pthread_mutex_unlock(&ctx->lock);
	return qp ? &qp->ibv : NULL;
}

/* Completions of a queue pair that is no more. */
static void cq_clean(struct mock_cq *cq, uint32_t qpn)
{
	uint32_t size = (uint32_t)cq->ibv.cqe, to = cq->tail;

	for (uint32_t i = cq->tail; i != cq->head; i++)
		if (cq->ring[i % size].qp_num != qpn)
			cq->ring[to++ % size] = cq->ring[i % size];
	cq->head = to;
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	struct mock_context *ctx = qp->ctx;

	pthread_mutex_lock(&ctx->lock);
	if (!mock_state[MOCK_STALE]) {
		cq_clean((struct mock_cq *)ibv->send_cq, ibv->qp_num);
		cq_clean((struct mock_cq *)ibv->recv_cq, ibv->qp_num);
	}
	ctx->qps[qp->slot] = NULL;
	ctx->last_qpn = ibv->qp_num;
	mock_wire_close(qp);
	pthread_mutex_unlock(&ctx->lock);
	object_free(qp);
	return 0;
}

static bool transition_legal(const struct mock_qp *qp, const struct ibv_qp_attr *a, int mask)
{
	static const struct {
		enum ibv_qp_state from, to;
		int mask;
	} steps[] = {
		{ IBV_QPS_RESET, IBV_QPS_INIT,
		  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS },
		{ IBV_QPS_INIT, IBV_QPS_RTR,
		  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER },
		{ IBV_QPS_RTR, IBV_QPS_RTS,
		  IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			  IBV_QP_MAX_QP_RD_ATOMIC },
	};

	if (a->qp_state == IBV_QPS_ERR)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(steps); i++)
		if (qp->ibv.state == steps[i].from && a->qp_state == steps[i].to)
			return mask == steps[i].mask;
	return false;
}

int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *a, int mask)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	int err = 0;

	pthread_mutex_lock(&qp->ctx->lock);
	if (qp->ctx->fatal) {
		err = EIO;
	} else if (!transition_legal(qp, a, mask)) {
		err = EINVAL;
	} else if (a->qp_state == IBV_QPS_INIT) {
		err = a->port_num == 1 && !a->qp_access_flags ? 0 : EINVAL;
	} else if (a->qp_state == IBV_QPS_RTR) {
		qp->dest = a->dest_qp_num;
		qp->recv_psn = a->rq_psn;
		/* RoCE wants a global address; there is one device, hence one. */
		if (!a->ah_attr.is_global || memcmp(&a->ah_attr.grh.dgid, &device_gid, sizeof(device_gid)) ||
		    a->ah_attr.grh.sgid_index || a->path_mtu < IBV_MTU_256 || a->path_mtu > IBV_MTU_4096)
			err = EINVAL;
		else
			mock_wire_connect(qp);
	} else if (a->qp_state == IBV_QPS_RTS) {
		qp->send_psn = a->sq_psn;
		qp->timeout_ns = (4096ull << a->timeout) * (a->retry_cnt + 1ull);
	} else {
		mock_qp_fail(qp);
	}
	if (!err)
		qp->ibv.state = a->qp_state;
	pthread_mutex_unlock(&qp->ctx->lock);
	mock_device_kick(qp->ctx);
	return err;
}

static int send_queue(struct mock_qp *qp, const struct ibv_send_wr *wr)
{
	struct mock_send *s = &qp->sq[qp->posted % MOCK_QUEUE];
	bool inline_data = wr->send_flags & IBV_SEND_INLINE;

	if (qp->ctx->fatal)
		return EIO;
	if (wr->opcode != IBV_WR_SEND || wr->num_sge != 1 || qp->ibv.state < IBV_QPS_RTS ||
	    (inline_data ? wr->sg_list->length > qp->max_inline : !sge_good(qp, wr->sg_list)))
		return EINVAL;
	if (qp->posted - qp->acked == qp->max_send)
		return ENOMEM;
	*s = (struct mock_send){ .wr_id = wr->wr_id, .len = wr->sg_list->length, .lkey = wr->sg_list->lkey };
	s->at = (const uint8_t *)(uintptr_t)wr->sg_list->addr;
	if (inline_data) {
		memcpy(s->bytes, s->at, s->len);
		s->at = s->bytes;
	}
	s->fail = (enum ibv_wc_status)atomic_exchange(&mock_state[MOCK_SEND_STATUS], 0);
	qp->posted++;
	if (qp->ibv.state == IBV_QPS_ERR)
		mock_qp_fail(qp);
	return 0;
}

static int post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	unsigned char was = *gate;
	int err = 0;

	*gate = 0;
	pthread_mutex_lock(&qp->ctx->lock);
	for (; wr && !err; wr = wr->next) {
		err = send_queue(qp, wr);
		if (err)
			*bad = wr;
	}
	pthread_mutex_unlock(&qp->ctx->lock);
	mock_device_kick(qp->ctx);
	*gate = was;
	return err;
}

static int recv_queue(struct mock_qp *qp, const struct ibv_recv_wr *wr)
{
	if (qp->ctx->fatal)
		return EIO;
	if (wr->num_sge != 1 || qp->ibv.state == IBV_QPS_RESET || !sge_good(qp, wr->sg_list))
		return EINVAL;
	if (qp->recv_posted - qp->recv_done == qp->max_recv)
		return ENOMEM;
	qp->rq[qp->recv_posted++ % MOCK_QUEUE] =
		(struct mock_recv){ wr->wr_id, (uint8_t *)(uintptr_t)wr->sg_list->addr, wr->sg_list->length };
	if (qp->ibv.state == IBV_QPS_ERR)
		mock_qp_fail(qp);
	return 0;
}

static int post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	unsigned char was = *gate;
	bool dry;
	int err = 0;

	*gate = 0;
	pthread_mutex_lock(&qp->ctx->lock);
	dry = qp->recv_posted == qp->recv_done;
	for (; wr && !err; wr = wr->next) {
		err = recv_queue(qp, wr);
		if (err)
			*bad = wr;
	}
	pthread_mutex_unlock(&qp->ctx->lock);
	if (dry)
		mock_device_kick(qp->ctx);
	*gate = was;
	return err;
}
