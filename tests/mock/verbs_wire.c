/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mock/verbs_wire.c - what the device of the fake libibverbs does by itself: moves messages and completes.
 *
 * What      Each queue pair is a datagram socket in the abstract namespace: it reaches those of any process here.
 *           Reliable connection: packets are numbered and acknowledged, the receiver keeps its hands off what is not
 *           from its peer; a receiver that has nothing posted lets the sender wait (RNR, retried without end); a sender
 *           whose peer is gone, or does not acknowledge in time, ends with IBV_WC_RETRY_EXC_ERR.
 * Sources   InfiniBand Architecture Specification 1.4, vol 1, chapters 9.7 and 10.3.
 */
#include "tests/mock/verbs.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WIRE_DATA = 1, WIRE_ACK, WIRE_NAK };

struct wire_head {
	uint32_t kind, from, psn;
};

#define PSN_MASK 0xffffffu
#define TICK_MS 50

static socklen_t wire_name(uint32_t qpn, struct sockaddr_un *sa)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			   (size_t)snprintf(sa->sun_path + 1, sizeof(sa->sun_path) - 1, "unum-mock-qp-%06x", qpn));
}

int mock_wire_open(struct mock_qp *qp)
{
	struct epoll_event ev = { .events = 0, .data.ptr = qp };
	struct sockaddr_un sa;
	socklen_t len = wire_name(qp->ibv.qp_num, &sa);

	qp->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (qp->fd < 0)
		return -1;
	if (bind(qp->fd, (struct sockaddr *)&sa, len) || epoll_ctl(qp->ctx->epoll_fd, EPOLL_CTL_ADD, qp->fd, &ev)) {
		close(qp->fd);
		return -1;
	}
	return 0;
}

void mock_wire_connect(struct mock_qp *qp)
{
	struct sockaddr_un sa;
	socklen_t len = wire_name(qp->dest, &sa);

	/* Nobody there: as on a real wire, that shows when something is sent. */
	if (connect(qp->fd, (struct sockaddr *)&sa, len) && errno == EINVAL)
		abort();
}

/* A child that was forked may hold the socket, too. */
void mock_wire_close(struct mock_qp *qp)
{
	shutdown(qp->fd, SHUT_RDWR);
	close(qp->fd);
}

/* --- completions -------------------------------------------------------------------------------------------------- */

void mock_async(struct mock_context *ctx, enum ibv_event_type type, void *element)
{
	struct ibv_async_event e = { .event_type = type, .element.cq = element };

	if (write(ctx->async_write_fd, &e, sizeof(e)) == sizeof(e))
		ctx->unacked++;
}

void mock_cq_add(struct mock_cq *cq, const struct ibv_wc *wc)
{
	struct mock_channel *ch = (struct mock_channel *)cq->ibv.channel;
	struct ibv_cq *ibv = &cq->ibv;

	if (cq->broken)
		return;
	if (cq->head - cq->tail == (uint32_t)cq->ibv.cqe || mock_take(MOCK_CQ_OVERRUN)) {
		cq->broken = true;
		mock_async(cq->ctx, IBV_EVENT_CQ_ERR, ibv);
		return;
	}
	cq->ring[cq->head++ % (uint32_t)cq->ibv.cqe] = *wc;
	if (cq->armed && ch) {
		cq->armed = false;
		if (write(ch->write_fd, &ibv, sizeof(ibv)) == sizeof(ibv))
			cq->unacked++;
	}
}

static void send_done(struct mock_qp *qp, enum ibv_wc_status status)
{
	struct ibv_wc wc = { .wr_id = qp->sq[qp->acked % MOCK_QUEUE].wr_id,
			     .status = status,
			     .opcode = IBV_WC_SEND,
			     .qp_num = qp->ibv.qp_num };

	qp->acked++;
	mock_cq_add((struct mock_cq *)qp->ibv.send_cq, &wc);
}

static void recv_done(struct mock_qp *qp, enum ibv_wc_status status, uint32_t len)
{
	struct ibv_wc wc = { .wr_id = qp->rq[qp->recv_done % MOCK_QUEUE].wr_id,
			     .status = status,
			     .opcode = IBV_WC_RECV,
			     .byte_len = len,
			     .qp_num = qp->ibv.qp_num };

	qp->recv_done++;
	mock_cq_add((struct mock_cq *)qp->ibv.recv_cq, &wc);
}

void mock_qp_fail(struct mock_qp *qp)
{
	qp->ibv.state = IBV_QPS_ERR;
	while (qp->acked != qp->posted)
		send_done(qp, IBV_WC_WR_FLUSH_ERR);
	qp->out = qp->posted;
	while (qp->recv_done != qp->recv_posted)
		recv_done(qp, IBV_WC_WR_FLUSH_ERR, 0);
}

static void send_fail(struct mock_qp *qp, enum ibv_wc_status status)
{
	send_done(qp, status);
	mock_qp_fail(qp);
}

/* --- the wire ----------------------------------------------------------------------------------------------------- */

/* 0; -EAGAIN; anything else: the other side is not there. */
static int wire_put(struct mock_qp *qp, uint32_t kind, uint32_t psn, const uint8_t *bytes, uint32_t len)
{
	struct wire_head head = { kind, qp->ibv.qp_num, psn };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)bytes, len } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	return sendmsg(qp->fd, &mh, MSG_NOSIGNAL) >= 0 ? 0 : -errno;
}

static bool memory_registered(const struct mock_qp *qp, const struct mock_send *s)
{
	for (unsigned i = 0; i < MOCK_MRS; i++) {
		const struct ibv_mr *mr = qp->ctx->mrs[i];

		if (mr && mr->lkey == s->lkey && mr->pd == qp->ibv.pd && s->at >= (uint8_t *)mr->addr &&
		    s->at + s->len <= (uint8_t *)mr->addr + mr->length)
			return true;
	}
	return s->at == s->bytes;
}

static void transmit(struct mock_qp *qp)
{
	qp->blocked = false;
	while (qp->ibv.state == IBV_QPS_RTS && qp->out != qp->posted) {
		struct mock_send *s = &qp->sq[qp->out % MOCK_QUEUE];
		int err;

		if (s->fail != IBV_WC_SUCCESS || !memory_registered(qp, s)) {
			send_fail(qp, s->fail != IBV_WC_SUCCESS ? s->fail : IBV_WC_LOC_PROT_ERR);
			return;
		}
		err = wire_put(qp, WIRE_DATA, (qp->send_psn + qp->out) & PSN_MASK, s->at, s->len);
		if (err == -EAGAIN || err == -ENOBUFS) {
			qp->blocked = true;
			return;
		}
		if (err) {
			send_fail(qp, IBV_WC_RETRY_EXC_ERR);
			return;
		}
		s->sent_ns = clock_now_ns();
		qp->out++;
		mock_state[MOCK_MESSAGES]++;
	}
}

static void on_ack(struct mock_qp *qp, uint32_t psn)
{
	uint32_t count = (psn - (qp->send_psn + qp->acked)) & PSN_MASK;

	if (count > qp->out - qp->acked)
		return;
	while (count--)
		send_done(qp, IBV_WC_SUCCESS);
}

static void on_data(struct mock_qp *qp, uint32_t psn, const uint8_t *bytes, uint32_t len)
{
	struct mock_recv *r = &qp->rq[qp->recv_done % MOCK_QUEUE];
	enum ibv_wc_status status = IBV_WC_SUCCESS;

	if (psn != ((qp->recv_psn + qp->recv_done) & PSN_MASK))
		return;
	if (mock_state[MOCK_RECV_STATUS])
		status = (enum ibv_wc_status)atomic_exchange(&mock_state[MOCK_RECV_STATUS], 0);
	else if (len > r->room)
		status = IBV_WC_LOC_LEN_ERR;
	if (status == IBV_WC_SUCCESS)
		memcpy(r->at, bytes, len);
	recv_done(qp, status, len);
	qp->ack_due = true;
	if (status == IBV_WC_SUCCESS)
		return;
	wire_put(qp, WIRE_NAK, psn, NULL, 0);
	mock_qp_fail(qp);
}

static void receive(struct mock_qp *qp)
{
	struct wire_head head;
	struct iovec iov[2] = { { &head, sizeof(head) }, { qp->ctx->staging, sizeof(qp->ctx->staging) } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	while (qp->ibv.state == IBV_QPS_RTR || qp->ibv.state == IBV_QPS_RTS) {
		bool ready = qp->recv_done != qp->recv_posted;
		ssize_t n;

		if (!ready && (recv(qp->fd, &head, sizeof(head), MSG_PEEK) < (ssize_t)sizeof(head) ||
			       head.kind == WIRE_DATA))
			return; /* nothing, or receiver not ready */
		n = recvmsg(qp->fd, &mh, 0);
		if (n < 0 && errno == ECONNRESET)
			continue; /* the other side is gone; sends will tell */
		if (n < (ssize_t)sizeof(head))
			return;
		if (head.from != qp->dest)
			continue;
		if (head.kind == WIRE_ACK)
			on_ack(qp, head.psn);
		else if (head.kind == WIRE_NAK && qp->acked != qp->out)
			send_fail(qp, IBV_WC_REM_OP_ERR);
		else if (head.kind == WIRE_DATA)
			on_data(qp, head.psn, qp->ctx->staging, (uint32_t)((size_t)n - sizeof(head)));
	}
}

static void acknowledge(struct mock_qp *qp)
{
	if (qp->ack_due && wire_put(qp, WIRE_ACK, (qp->recv_psn + qp->recv_done) & PSN_MASK, NULL, 0) != -EAGAIN)
		qp->ack_due = false;
}

static void qp_work(struct mock_qp *qp, uint64_t now_ns)
{
	struct epoll_event ev = { .data.ptr = qp };
	bool alive;

	receive(qp);
	if (qp->ibv.state == IBV_QPS_RTR || qp->ibv.state == IBV_QPS_RTS)
		acknowledge(qp);
	transmit(qp);
	if (qp->ibv.state == IBV_QPS_RTS && qp->acked != qp->out &&
	    now_ns > qp->sq[qp->acked % MOCK_QUEUE].sent_ns + qp->timeout_ns)
		send_fail(qp, IBV_WC_RETRY_EXC_ERR);
	alive = qp->ibv.state == IBV_QPS_RTR || qp->ibv.state == IBV_QPS_RTS;
	if (qp->ibv.state == IBV_QPS_ERR) { /* its socket's errors would wake us for ever */
		epoll_ctl(qp->ctx->epoll_fd, EPOLL_CTL_DEL, qp->fd, &ev);
		return;
	}
	if (alive && qp->recv_done != qp->recv_posted)
		ev.events |= EPOLLIN;
	if (alive && (qp->blocked || qp->ack_due))
		ev.events |= EPOLLOUT;
	if (ev.events != qp->events && !epoll_ctl(qp->ctx->epoll_fd, EPOLL_CTL_MOD, qp->fd, &ev))
		qp->events = ev.events;
}

/* A device that dies says so, and nothing else ever again. */
static void device_die(struct mock_context *ctx)
{
	ctx->fatal = true;
	for (unsigned i = 0; i < MOCK_QPS; i++)
		if (ctx->qps[i])
			ctx->qps[i]->ibv.state = IBV_QPS_ERR;
	mock_async(ctx, IBV_EVENT_DEVICE_FATAL, NULL);
}

void *mock_device_run(void *arg)
{
	struct mock_context *ctx = arg;
	struct epoll_event ev[32];
	bool stop = false;
	uint64_t drained;

	while (!stop) {
		long delay_us = mock_state[MOCK_DELAY_US];

		epoll_wait(ctx->epoll_fd, ev, ARRAY_LEN(ev), TICK_MS);
		if (delay_us)
			usleep((useconds_t)delay_us);
		pthread_mutex_lock(&ctx->lock);
		if (read(ctx->kick_fd, &drained, sizeof(drained)) < 0)
			drained = 0;
		for (unsigned i = 0; i < MOCK_QPS && !ctx->fatal; i++) {
			if (!ctx->qps[i])
				continue;
			if (mock_take(MOCK_DEVICE_FATAL)) {
				device_die(ctx);
				break;
			}
			if (ctx->qps[i]->ibv.state == IBV_QPS_RTS && mock_take(MOCK_QP_ERROR))
				mock_qp_fail(ctx->qps[i]);
			qp_work(ctx->qps[i], clock_now_ns());
		}
		stop = ctx->stop;
		pthread_mutex_unlock(&ctx->lock);
	}
	return NULL;
}

void mock_device_kick(struct mock_context *ctx)
{
	uint64_t one = 1;

	if (write(ctx->kick_fd, &one, sizeof(one)) < 0)
		perror("mock verbs: kick");
}
