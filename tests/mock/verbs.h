/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mock/verbs.h - what the files of the fake libibverbs share: verbs.c, verbs_qp.c, and verbs_wire.c (what the
 * device does by itself).
 *
 * Threads   One per open device plays the device.  context.lock guards everything that belongs to the context.
 */
#ifndef TESTS_MOCK_VERBS_H
#define TESTS_MOCK_VERBS_H

#include "base/types.h"

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdatomic.h>

#define MOCK_INLINE 128u
#define MOCK_QUEUE 128u /* work requests of a queue, at most */
#define MOCK_MTU_BYTES 8192u
#define MOCK_QPS 256u
#define MOCK_MRS 256u
#define MOCK_HELD (4 * MOCK_QUEUE)
#define MOCK_HELD_SENDS 48u /* by then most slots are in use again */

struct mock_send {
	uint64_t wr_id;
	uint32_t len, lkey;
	const uint8_t *at; /* read when it is transmitted, as a device would */
	uint64_t sent_ns;
	enum ibv_wc_status fail; /* injected */
	uint8_t bytes[MOCK_INLINE];
};

struct mock_recv {
	uint64_t wr_id;
	uint8_t *at;
	uint32_t room;
};

struct mock_qp {
	struct ibv_qp ibv; /* first */
	struct mock_context *ctx;
	unsigned slot; /* in context.qps */
	int fd;	       /* its end of the wire */
	uint32_t events; /* asked of epoll */
	uint32_t max_send, max_recv, max_inline, dest, send_psn, recv_psn;
	uint64_t timeout_ns; /* of all retries */
	/* Free-running: acked <= out <= posted. */
	uint32_t posted, out, acked, recv_posted, recv_done;
	bool ack_due, blocked;
	struct mock_send sq[MOCK_QUEUE];
	struct mock_recv rq[MOCK_QUEUE];
};

struct mock_cq {
	struct ibv_cq ibv; /* first */
	struct mock_context *ctx;
	struct ibv_wc *ring; /* ibv.cqe of them */
	uint32_t head, tail;
	bool armed, broken;
	unsigned unacked;
};

struct mock_channel {
	struct ibv_comp_channel ibv; /* first */
	int write_fd;
};

struct mock_context {
	struct ibv_context ibv; /* first */
	pthread_mutex_t lock;
	pthread_t thread;
	int epoll_fd, kick_fd, async_write_fd;
	bool stop, fatal;
	uint32_t last_qpn;
	struct mock_qp *qps[MOCK_QPS];
	struct ibv_mr *mrs[MOCK_MRS];
	struct mock_cq *cqs[MOCK_QPS];
	unsigned unacked;
	struct mock_held {
		struct mock_cq *cq;
		struct ibv_wc wc;
	} held[MOCK_HELD]; /* see MOCK_STALE */
	unsigned held_count;
	uint8_t staging[MOCK_MTU_BYTES];
};

/* What a test may ask for, and what it may look at, by name: see verbs.c. */
enum mock_key {
	MOCK_SEND_STATUS, /* the next message sent ends with this enum ibv_wc_status */
	MOCK_RECV_STATUS, /* the same for the next received */
	MOCK_MR_FAIL,	  /* so many registrations fail */
	MOCK_QP_MAX,	  /* queue pairs of a device, 0: no limit but MOCK_QPS */
	MOCK_DEVICE_FATAL, /* the next device that has something to do dies */
	MOCK_CQ_OVERRUN,  /* the next completion finds its queue full */
	MOCK_STALE,	  /* completions of a queue pair that is destroyed go (0, as with mlx5), stay (1, as with rxe), or stay
			     with all that was posted, and are polled only when a queue pair has sent MOCK_HELD_SENDS (2) */
	MOCK_REUSE,	  /* a queue pair gets the number of the one destroyed last */
	MOCK_QP_ERROR,	  /* so many queue pairs at work fail, by themselves and with no event */
	MOCK_DELAY_US,	  /* the device is that slow */
	MOCK_OBJECTS,	  /* alive: read only */
	MOCK_MESSAGES,	  /* that a device has sent: read only */
	MOCK_KEYS
};
extern _Atomic long mock_state[MOCK_KEYS];

/* Takes one unit of a state that counts down. */
static inline bool mock_take(enum mock_key key)
{
	long v = mock_state[key];

	while (v > 0)
		if (atomic_compare_exchange_weak(&mock_state[key], &v, v - 1))
			return true;
	return false;
}

/* verbs.c */
extern const union ibv_gid mock_gid; /* of the one port of every device */
void *mock_object_new(size_t bytes);
void mock_object_free(void *p);
unsigned char mock_gate_open(void);
void mock_gate_back(unsigned char was);

/* verbs_qp.c */
int mock_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int mock_post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* verbs_wire.c; lock held but for the first two */
void *mock_device_run(void *arg);
void mock_device_kick(struct mock_context *ctx);
int mock_wire_open(struct mock_qp *qp);
void mock_wire_connect(struct mock_qp *qp);
void mock_wire_close(struct mock_qp *qp);
void mock_qp_fail(struct mock_qp *qp); /* to ERR, everything flushed */
void mock_cq_add(struct mock_cq *cq, const struct ibv_wc *wc);
void mock_async(struct mock_context *ctx, enum ibv_event_type type, void *element);

#endif
