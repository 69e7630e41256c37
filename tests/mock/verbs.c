/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mock/verbs.c - a fake libibverbs: what the verbs path needs of it, for machines with no RDMA.
 *
 * What      First in LD_LIBRARY_PATH, it stands in for the true library; the path is not changed.  One device "mock0"
 *           with one active Ethernet port.  Devices, memory, completion queues here; verbs_qp.c has queue pairs, and
 *           verbs_wire.c moves the messages.  Stricter than a driver where a mistake would pass unseen there: an
 *           object destroyed while it is in use, or an event that was never acknowledged, is refused; a slot that
 *           is not registered fails.
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
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_query_port

_Atomic long mock_state[MOCK_KEYS];
static const char *const key_names[MOCK_KEYS] = {
	[MOCK_SEND_STATUS] = "send-status", [MOCK_RECV_STATUS] = "recv-status", [MOCK_MR_FAIL] = "mr-fail",
	[MOCK_QP_MAX] = "qp-max",	    [MOCK_DEVICE_FATAL] = "device-fatal", [MOCK_CQ_OVERRUN] = "cq-overrun",
	[MOCK_STALE] = "stale",		    [MOCK_REUSE] = "reuse",		  [MOCK_DELAY_US] = "delay-us",
	[MOCK_QP_ERROR] = "qp-error",
	[MOCK_OBJECTS] = "objects",	    [MOCK_MESSAGES] = "messages",
};

/* While a device's work is done in a caller's thread, its *gate is 0: a test that counts system calls looks away. */
static _Thread_local volatile unsigned char *gate;

unsigned char mock_gate_open(void)
{
	unsigned char was = gate ? *gate : 0;

	if (gate)
		*gate = 0;
	return was;
}

void mock_gate_back(unsigned char was)
{
	if (gate)
		*gate = was;
}

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
	gate = at;
}

void *mock_object_new(size_t bytes)
{
	void *p = calloc(1, bytes);

	mock_state[MOCK_OBJECTS] += p != NULL;
	return p;
}

void mock_object_free(void *p)
{
	mock_state[MOCK_OBJECTS]--;
	free(p);
}

/* --- devices ------------------------------------------------------------------------------------------------------ */

static struct ibv_device device = { .node_type = IBV_NODE_CA, .transport_type = IBV_TRANSPORT_IB, .name = "mock0" };
const union ibv_gid mock_gid = { .raw = { [10] = 0xff, 0xff, 127, 0, 0, 2 } };

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

struct ibv_context *ibv_open_device(struct ibv_device *d)
{
	struct mock_context *ctx = mock_object_new(sizeof(*ctx));
	struct epoll_event ev = { .events = EPOLLIN };
	int async[2];

	if (!ctx || pipe2(async, O_CLOEXEC))
		return NULL;
	ctx->ibv.device = d;
	ctx->ibv.ops.poll_cq = poll_cq;
	ctx->ibv.ops.req_notify_cq = req_notify_cq;
	ctx->ibv.ops.post_send = mock_post_send;
	ctx->ibv.ops.post_recv = mock_post_recv;
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
	mock_object_free(ctx);
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
	entries[0] = (struct ibv_gid_entry){ .gid = mock_gid, .port_num = 1, .gid_type = IBV_GID_TYPE_ROCE_V2 };
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
	struct ibv_pd *pd = mock_object_new(sizeof(*pd));

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
	mock_object_free(pd);
	return 0;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	static _Atomic uint32_t next = 0x1000;
	struct mock_context *ctx = (struct mock_context *)pd->context;
	struct ibv_mr *mr = mock_take(MOCK_MR_FAIL) ? NULL : mock_object_new(sizeof(*mr));
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
	mock_object_free(mr);
	return 0;
}

/* --- completion queues -------------------------------------------------------------------------------------------- */

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ibv)
{
	struct mock_channel *ch = mock_object_new(sizeof(*ch));
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
	mock_object_free(ch);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *ibv, int cqe, void *cq_context, struct ibv_comp_channel *channel,
			     int vector)
{
	struct mock_context *ctx = (struct mock_context *)ibv;
	struct mock_cq *cq = mock_object_new(sizeof(*cq));
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
	ctx->held_count = 0; /* there is one queue */
	for (unsigned i = 0; i < MOCK_QPS; i++)
		if (ctx->cqs[i] == cq)
			ctx->cqs[i] = NULL;
	if (ibv->channel)
		ibv->channel->refcnt--;
	free(cq->ring);
	mock_object_free(cq);
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
	unsigned char was = mock_gate_open();
	int n = 0;

	pthread_mutex_lock(&cq->ctx->lock);
	while (n < count && !cq->broken && !cq->ctx->fatal && cq->head != cq->tail)
		wc[n++] = cq->ring[cq->tail++ % (uint32_t)cq->ibv.cqe];
	pthread_mutex_unlock(&cq->ctx->lock);
	mock_gate_back(was);
	return n;
}

static int req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	struct mock_cq *cq = (struct mock_cq *)ibv;
	unsigned char was = mock_gate_open();

	(void)solicited_only;
	pthread_mutex_lock(&cq->ctx->lock);
	cq->armed = true; /* for what comes from now on */
	pthread_mutex_unlock(&cq->ctx->lock);
	mock_gate_back(was);
	return 0;
}
