/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/chaos.c - a bad network on demand: a transport around another one (ic_config.chaos).
 *
 * What      Messages are held back for a while that a seeded generator draws, each peer's on its own: so they overtake
 *           each other between peers, never within one.  Now and then a peer is not served for longer.  With `breaks`,
 *           a link is cut, or one frame is sent twice or with a wrong header, each of which must end that link.
 * Owns      A queue for each peer.
 * Threads   send: any.  peer.lock (rank: outside the inner transport's send) guards a queue.  The rest as inner's.
 * I/O       The inner transport's.
 * Limits    HELD messages per peer, then -EAGAIN.  What is drawn follows from the seed, when it happens from the clock.
 */
#include "interconnect/fabric_priv.h"

#include "base/clock.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

#define HELD 64u
#define DELAY_NS (200 * NS_PER_US) /* up to */
#define LONG_DELAY_NS (5 * NS_PER_MS)
#define PAUSE_NS (30 * NS_PER_MS)
#define STUCK_NS NS_PER_MS /* before another look whether the inner transport has room */
/* In messages.  Denser, and the handler of a Linux guest's timer tick takes longer than a tick. */
#define DELAY_EVERY 4u
#define LONG_EVERY 256u
#define PAUSE_EVERY 8192u
#define BREAK_EVERY 1024u

struct held {
	uint64_t due_ns;
	struct ic_msg msg;
	uint8_t bytes[IC_BODY_MAX + IC_DATA_MAX];
};

struct chaos_peer {
	pthread_mutex_t lock;
	struct rng rng;
	bool up;
	uint64_t last_due_ns, retry_ns;
	uint32_t head, tail; /* free-running */
	struct held *ring;   /* HELD of them, from the first time that the peer is up */
};

struct ic_chaos {
	struct ic_fabric *f;
	const struct ic_transport *inner;
	void *priv;
	struct chaos_peer peers[NODES_MAX];
};

static uint64_t delay_draw(struct rng *r)
{
	uint64_t x = rng_next(r);

	if (x % PAUSE_EVERY == 0)
		return PAUSE_NS;
	if (x % LONG_EVERY == 0)
		return (x >> 16) % LONG_DELAY_NS;
	return (x >> 32) % DELAY_EVERY == 0 ? (x >> 40) % DELAY_NS : 0;
}

/* Lock held.  Sends what is due; 0, or what the inner transport said. */
static int flush(struct ic_chaos *c, node_id to, uint64_t now_ns)
{
	struct chaos_peer *p = &c->peers[to];
	int err = 0;

	while (!err && p->head != p->tail && p->ring[p->tail % HELD].due_ns <= now_ns) {
		struct held *h = &p->ring[p->tail % HELD];

		err = c->inner->send(c->priv, to, &h->msg);
		p->tail += !err;
		if (!err && c->f->cfg.chaos.breaks && rng_below(&p->rng, BREAK_EVERY) == 0)
			c->inner->spoil(c->priv, to, (enum ic_spoil)rng_below(&p->rng, IC_SPOILS));
	}
	return err;
}

static void flush_all(struct ic_chaos *c)
{
	uint64_t now = clock_now_ns();

	for (unsigned i = 0; i < c->f->cfg.nodes; i++) {
		struct chaos_peer *p = &c->peers[i];

		pthread_mutex_lock(&p->lock);
		/* Room is made by progress; that the peer is down is told there. */
		p->retry_ns = flush(c, (node_id)i, now) ? now + STUCK_NS : 0;
		pthread_mutex_unlock(&p->lock);
	}
}

/* When progress has something to send; UINT64_MAX: nothing is held. */
static uint64_t next_due(struct ic_chaos *c)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < c->f->cfg.nodes; i++) {
		struct chaos_peer *p = &c->peers[i];
		uint64_t due = UINT64_MAX;

		pthread_mutex_lock(&p->lock);
		if (p->head != p->tail)
			due = p->ring[p->tail % HELD].due_ns;
		due = due > p->retry_ns ? due : p->retry_ns;
		pthread_mutex_unlock(&p->lock);
		next = due < next ? due : next;
	}
	return next;
}

static void hold(struct chaos_peer *p, const struct ic_msg *msg, uint64_t due_ns)
{
	struct held *h = &p->ring[p->head++ % HELD];

	h->due_ns = due_ns;
	h->msg = *msg;
	h->msg.body = h->bytes;
	h->msg.data = h->bytes + msg->body_len;
	if (msg->body_len)
		memcpy(h->bytes, msg->body, msg->body_len);
	if (msg->data_len)
		memcpy(h->bytes + msg->body_len, msg->data, msg->data_len);
}

static int chaos_send(void *priv, node_id to, const struct ic_msg *msg)
{
	struct ic_chaos *c = priv;
	struct chaos_peer *p = &c->peers[to];
	uint64_t now = clock_now_ns();
	bool first = false;
	int err = 0;

	pthread_mutex_lock(&p->lock);
	if (!p->up) {
		err = -ENOTCONN;
	} else if (p->head - p->tail == HELD) {
		err = -EAGAIN;
	} else {
		uint64_t due = now + delay_draw(&p->rng);

		first = p->head == p->tail;
		p->last_due_ns = due > p->last_due_ns ? due : p->last_due_ns;
		hold(p, msg, p->last_due_ns);
		flush(c, to, now);
		first = first && p->head != p->tail;
	}
	pthread_mutex_unlock(&p->lock);
	if (first) /* who waits must look at the clock anew */
		c->inner->wake(c->priv);
	return err;
}

void ic_chaos_peer(struct ic_chaos *c, node_id peer, bool up)
{
	struct chaos_peer *p = &c->peers[peer];

	pthread_mutex_lock(&p->lock);
	p->head = p->tail = 0; /* nothing of an old epoch */
	p->last_due_ns = p->retry_ns = 0;
	if (up && !p->ring)
		p->ring = calloc(HELD, sizeof(*p->ring));
	p->up = up && p->ring;
	pthread_mutex_unlock(&p->lock);
}

static int chaos_progress(void *priv, unsigned budget)
{
	struct ic_chaos *c = priv;

	flush_all(c);
	return c->inner->progress(c->priv, budget);
}

static void chaos_wait(void *priv, uint64_t timeout_ns)
{
	struct ic_chaos *c = priv;
	uint64_t next = next_due(c), now = clock_now_ns();

	if (next <= now)
		return;
	c->inner->wait(c->priv, next - now < timeout_ns ? next - now : timeout_ns);
}

static void chaos_address(void *priv, char out[static IC_ADDR_MAX])
{
	struct ic_chaos *c = priv;

	c->inner->address(c->priv, out);
}

static int chaos_join(void *priv, node_id peer, const char *address)
{
	struct ic_chaos *c = priv;

	return c->inner->join(c->priv, peer, address);
}

static void chaos_wake(void *priv)
{
	struct ic_chaos *c = priv;

	c->inner->wake(c->priv);
}

static void chaos_hush(void *priv, bool on)
{
	struct ic_chaos *c = priv;

	c->inner->hush(c->priv, on);
}

static void chaos_free(struct ic_chaos *c)
{
	for (unsigned i = 0; i < NODES_MAX; i++) {
		pthread_mutex_destroy(&c->peers[i].lock);
		free(c->peers[i].ring);
	}
	free(c);
}

static void chaos_close(void *priv)
{
	struct ic_chaos *c = priv;

	c->inner->close(c->priv);
	chaos_free(c);
}

static int chaos_open(struct ic_fabric *f, void **out)
{
	struct ic_chaos *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->f = f;
	c->inner = f->backend.transport;
	for (unsigned i = 0; i < NODES_MAX; i++) {
		pthread_mutex_init(&c->peers[i].lock, NULL);
		c->peers[i].rng.state = f->cfg.chaos.seed ^ ((uint64_t)f->cfg.self << 32) ^ ((uint64_t)i << 40);
	}
	err = c->inner->open(f, &c->priv);
	if (!err && f->cfg.chaos.breaks && !c->inner->spoil) {
		c->inner->close(c->priv);
		err = -EOPNOTSUPP;
	}
	if (err) {
		chaos_free(c);
		return err;
	}
	f->chaos = c;
	*out = c;
	return 0;
}

const struct ic_transport ic_transport_chaos = {
	.open = chaos_open,
	.close = chaos_close,
	.address = chaos_address,
	.join = chaos_join,
	.send = chaos_send,
	.progress = chaos_progress,
	.wait = chaos_wait,
	.wake = chaos_wake,
	.hush = chaos_hush,
};
