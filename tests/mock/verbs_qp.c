/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mock/verbs_qp.c - queue pairs of the fake libibverbs: their states, and what is posted to them.
 *
 * Sources   ibv_create_qp(3), ibv_modify_qp(3), ibv_post_send(3); InfiniBand Architecture Specification 1.4, vol 1,
 *           chapters 10.2.4 and 10.3.1.
 */
#include "tests/mock/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

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
		qp = mock_object_new(sizeof(*qp));
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

/* Completions of a queue pair that is no more: dropped, or held back. */
static void cq_clean(struct mock_cq *cq, uint32_t qpn, bool hold)
{
	uint32_t size = (uint32_t)cq->ibv.cqe, to = cq->tail;
	struct mock_context *ctx = cq->ctx;

	for (uint32_t i = cq->tail; i != cq->head; i++) {
		const struct ibv_wc *wc = &cq->ring[i % size];

		if (wc->qp_num != qpn)
			cq->ring[to++ % size] = *wc;
		else if (hold && ctx->held_count < MOCK_HELD)
			ctx->held[ctx->held_count++] = (struct mock_held){ cq, *wc };
	}
	cq->head = to;
}

static void held_give(struct mock_context *ctx)
{
	for (unsigned i = 0; i < ctx->held_count; i++)
		mock_cq_add(ctx->held[i].cq, &ctx->held[i].wc);
	ctx->held_count = 0;
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	struct mock_context *ctx = qp->ctx;

	pthread_mutex_lock(&ctx->lock);
	if (mock_state[MOCK_STALE] == 2 && !ctx->fatal)
		mock_qp_fail(qp);
	if (mock_state[MOCK_STALE] != 1) {
		cq_clean((struct mock_cq *)ibv->send_cq, ibv->qp_num, mock_state[MOCK_STALE] == 2);
		cq_clean((struct mock_cq *)ibv->recv_cq, ibv->qp_num, mock_state[MOCK_STALE] == 2);
	}
	ctx->qps[qp->slot] = NULL;
	ctx->last_qpn = ibv->qp_num;
	mock_wire_close(qp);
	pthread_mutex_unlock(&ctx->lock);
	mock_object_free(qp);
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
		if (!a->ah_attr.is_global || memcmp(&a->ah_attr.grh.dgid, &mock_gid, sizeof(mock_gid)) ||
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
	if (qp->posted == MOCK_HELD_SENDS)
		held_give(qp->ctx);
	if (qp->ibv.state == IBV_QPS_ERR)
		mock_qp_fail(qp);
	return 0;
}

int mock_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	unsigned char was = mock_gate_open();
	int err = 0;

	pthread_mutex_lock(&qp->ctx->lock);
	for (; wr && !err; wr = wr->next) {
		err = send_queue(qp, wr);
		if (err)
			*bad = wr;
	}
	pthread_mutex_unlock(&qp->ctx->lock);
	mock_device_kick(qp->ctx);
	mock_gate_back(was);
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

int mock_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct mock_qp *qp = (struct mock_qp *)ibv;
	unsigned char was = mock_gate_open();
	bool dry;
	int err = 0;

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
	mock_gate_back(was);
	return err;
}
