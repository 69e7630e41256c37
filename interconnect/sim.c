/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/sim.c - the transport of a simulated network: interconnect/sim.h.
 *
 * Owns      struct ic_sim: per pair of nodes a queue of what is under way, each with the time of its arrival.  That a peer
 *           is up or down travels in the same queue, so that it has its place among the messages.
 * Threads   As ic_transport says; ic_sim.lock guards everything but `word`, and nothing is delivered under it.
 */
#include "interconnect/sim.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"
#include "interconnect/fabric_priv.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEVER UINT64_MAX

struct parcel {
	struct parcel *next;
	uint64_t at_ns;
	enum { PARCEL_MSG, PARCEL_UP, PARCEL_DOWN } kind;
	struct ic_msg msg;
	uint8_t bytes[]; /* body, data */
};

struct sim_link { /* from one node to another */
	struct parcel *head, **tail;
	unsigned count;
	uint64_t last_ns; /* arrival of the newest */
};

struct sim_node {
	struct ic_sim *sim;
	struct ic_fabric *fabric; /* NULL: not open */
	node_id id;
	bool crashed, hushed;
	bool asked[NODES_MAX]; /* joined by this node */
	bool up[NODES_MAX];    /* this node was told that the peer is up, and not yet that it is down */
	_Atomic uint32_t word; /* futex: changes when ic_wait must end */
	uint32_t seen;	       /* its value when ic_wait ended last; the waiting thread's */
};

struct ic_sim {
	struct ic_sim_config cfg;
	pthread_mutex_t lock;
	struct rng rng;
	struct sim_node *node;
	struct sim_link *link; /* [from * nodes + to] */
};

static struct sim_link *link_of(struct ic_sim *s, unsigned from, unsigned to)
{
	return &s->link[from * s->cfg.nodes + to];
}

static void node_wake(struct sim_node *n)
{
	atomic_fetch_add(&n->word, 1);
	syscall(SYS_futex, &n->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* --- parcels: under the lock ------------------------------------------------------------------------------------ */

static uint64_t arrival(struct ic_sim *s, const struct sim_link *l)
{
	const struct ic_sim_config *c = &s->cfg;
	uint64_t at = clock_now_ns() + c->delay_min_ns;

	at += rng_below(&s->rng, c->delay_max_ns - c->delay_min_ns + 1);
	if (c->stall_every && !rng_below(&s->rng, c->stall_every))
		at += rng_below(&s->rng, c->stall_ns + 1);
	return at > l->last_ns ? at : l->last_ns;
}

static void link_push(struct sim_link *l, struct parcel *p, uint64_t at_ns)
{
	p->next = NULL;
	p->at_ns = l->last_ns = at_ns;
	*l->tail = p;
	l->tail = &p->next;
	l->count++;
}

static struct parcel *link_pop(struct sim_link *l)
{
	struct parcel *p = l->head;

	l->head = p->next;
	if (!l->head)
		l->tail = &l->head;
	l->count--;
	return p;
}

static void tell(struct ic_sim *s, unsigned from, unsigned to, int kind, uint64_t at_ns)
{
	struct parcel *p = calloc(1, sizeof(*p));
	struct sim_link *l = link_of(s, from, to);

	ASSERT(p);
	p->kind = kind;
	link_push(l, p, at_ns > l->last_ns ? at_ns : l->last_ns);
}

/* The link on which something for `to` has arrived first; NULL: nothing has. */
static struct sim_link *link_due(struct ic_sim *s, unsigned to, uint64_t now, unsigned *from)
{
	struct sim_link *due = NULL;

	for (unsigned n = 0; n < s->cfg.nodes; n++) {
		struct sim_link *l = link_of(s, n, to);

		if (l->head && l->head->at_ns <= now && (!due || l->head->at_ns < due->head->at_ns)) {
			due = l;
			*from = n;
		}
	}
	return due;
}

static uint64_t next_arrival(struct ic_sim *s, unsigned to)
{
	uint64_t at = NEVER;

	for (unsigned n = 0; n < s->cfg.nodes; n++) {
		struct sim_link *l = link_of(s, n, to);

		if (l->head && l->head->at_ns < at)
			at = l->head->at_ns;
	}
	return at;
}

/* Its peers, told at that time: not before what is under way. */
static void part(struct ic_sim *s, struct sim_node *n, uint64_t at_ns)
{
	for (unsigned m = 0; m < s->cfg.nodes; m++)
		if (m != n->id && s->node[m].fabric && n->asked[m] && s->node[m].asked[n->id]) {
			tell(s, n->id, m, PARCEL_DOWN, at_ns);
			node_wake(&s->node[m]);
		}
}

/* --- transport ---------------------------------------------------------------------------------------------------- */

static int sim_open(struct ic_fabric *f, void **out)
{
	struct ic_sim *s = f->cfg.sim;
	struct sim_node *n = &s->node[f->cfg.self];
	int err = 0;

	if (f->cfg.nodes != s->cfg.nodes)
		return -EINVAL;
	pthread_mutex_lock(&s->lock);
	if (n->fabric)
		err = -EADDRINUSE;
	else
		n->fabric = f;
	pthread_mutex_unlock(&s->lock);
	*out = n;
	return err;
}

static void sim_close(void *priv)
{
	struct sim_node *n = priv;

	pthread_mutex_lock(&n->sim->lock);
	part(n->sim, n, clock_now_ns());
	n->fabric = NULL;
	pthread_mutex_unlock(&n->sim->lock);
}

static void sim_address(void *priv, char out[static IC_ADDR_MAX])
{
	const struct sim_node *n = priv;

	snprintf(out, IC_ADDR_MAX, "sim:%u", n->id);
}

static int sim_join(void *priv, node_id peer, const char *address)
{
	struct sim_node *n = priv, *m = &n->sim->node[peer];
	struct ic_sim *s = n->sim;
	char name[IC_ADDR_MAX];

	sim_address(m, name);
	if (strcmp(name, address))
		return -EINVAL;
	pthread_mutex_lock(&s->lock);
	if (!n->asked[peer]) {
		n->asked[peer] = true;
		if (m->asked[n->id]) {
			tell(s, n->id, peer, PARCEL_UP, arrival(s, link_of(s, n->id, peer)));
			tell(s, peer, n->id, PARCEL_UP, arrival(s, link_of(s, peer, n->id)));
			node_wake(n);
			node_wake(m);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int send_locked(struct sim_node *n, struct sim_node *m, const struct ic_msg *msg)
{
	struct ic_sim *s = n->sim;
	struct sim_link *l = link_of(s, n->id, m->id);
	struct parcel *p;

	if (!n->up[m->id])
		return -ENOTCONN;
	if (l->count >= s->cfg.queue)
		return -EAGAIN;
	ic_count_sent(n->fabric, m->id, msg);
	if (n->crashed || m->crashed || !m->fabric)
		return 0; /* lost */
	p = malloc(sizeof(*p) + msg->body_len + msg->data_len);
	if (!p)
		return -EAGAIN;
	p->kind = PARCEL_MSG;
	p->msg = *msg;
	p->msg.body = p->bytes;
	p->msg.data = p->bytes + msg->body_len;
	memcpy(p->bytes, msg->body, msg->body_len);
	if (msg->data_len)
		memcpy(p->bytes + msg->body_len, msg->data, msg->data_len);
	link_push(l, p, arrival(s, l));
	if (!m->hushed)
		node_wake(m);
	return 0;
}

static int sim_send(void *priv, node_id to, const struct ic_msg *msg)
{
	struct sim_node *n = priv;
	int err;

	pthread_mutex_lock(&n->sim->lock);
	err = send_locked(n, &n->sim->node[to], msg);
	pthread_mutex_unlock(&n->sim->lock);
	return err;
}

/* One that has arrived, NULL: none. */
static struct parcel *take(struct sim_node *n, unsigned *from)
{
	struct sim_link *l;
	struct parcel *p = NULL;

	pthread_mutex_lock(&n->sim->lock);
	l = link_due(n->sim, n->id, clock_now_ns(), from);
	if (l && !n->crashed) {
		p = link_pop(l);
		if (p->kind != PARCEL_MSG)
			n->up[*from] = p->kind == PARCEL_UP;
	}
	pthread_mutex_unlock(&n->sim->lock);
	return p;
}

static int sim_progress(void *priv, unsigned budget)
{
	struct sim_node *n = priv;
	unsigned from = 0;
	int done = 0;

	while (done < (int)budget) {
		struct parcel *p = take(n, &from);

		if (!p)
			break;
		if (p->kind == PARCEL_MSG)
			ic_deliver(n->fabric, (node_id)from, &p->msg);
		else
			ic_peer_changed(n->fabric, (node_id)from,
					p->kind == PARCEL_UP ? IC_PEER_UP : IC_PEER_DOWN);
		free(p);
		done++;
	}
	return done;
}

static void sim_wait(void *priv, uint64_t timeout_ns)
{
	struct sim_node *n = priv;
	uint64_t now = clock_now_ns(), until = now + timeout_ns, next = NEVER;

	if (atomic_load(&n->word) == n->seen) {
		pthread_mutex_lock(&n->sim->lock);
		if (!n->hushed)
			next = next_arrival(n->sim, n->id);
		pthread_mutex_unlock(&n->sim->lock);
		if (next < until)
			until = next;
		if (until > now) {
			struct timespec ts = { (time_t)(until / NS_PER_S), (long)(until % NS_PER_S) };

			/* A wake or a parcel since `seen` makes the kernel refuse to sleep. */
			syscall(SYS_futex, &n->word, FUTEX_WAIT_BITSET_PRIVATE, n->seen, &ts, NULL,
				FUTEX_BITSET_MATCH_ANY);
		}
	}
	n->seen = atomic_load(&n->word);
}

static void sim_wake(void *priv)
{
	node_wake(priv);
}

static void sim_hush(void *priv, bool on)
{
	struct sim_node *n = priv;

	pthread_mutex_lock(&n->sim->lock);
	n->hushed = on;
	if (!on && next_arrival(n->sim, n->id) != NEVER)
		node_wake(n); /* it may sleep beyond that */
	pthread_mutex_unlock(&n->sim->lock);
}

const struct ic_transport ic_transport_sim = {
	.open = sim_open,
	.close = sim_close,
	.address = sim_address,
	.join = sim_join,
	.send = sim_send,
	.progress = sim_progress,
	.wait = sim_wait,
	.wake = sim_wake,
	.hush = sim_hush,
};

/* --- the network -------------------------------------------------------------------------------------------------- */

int ic_sim_open(const struct ic_sim_config *cfg, struct ic_sim **out)
{
	struct ic_sim *s;

	if (!cfg->nodes || cfg->nodes > NODES_MAX || cfg->delay_max_ns < cfg->delay_min_ns || !cfg->queue)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->cfg = *cfg;
	s->rng.state = cfg->seed;
	s->node = calloc(cfg->nodes, sizeof(*s->node));
	s->link = calloc((size_t)cfg->nodes * cfg->nodes, sizeof(*s->link));
	if (!s->node || !s->link) {
		free(s->node);
		free(s->link);
		free(s);
		return -ENOMEM;
	}
	pthread_mutex_init(&s->lock, NULL);
	for (unsigned n = 0; n < cfg->nodes; n++) {
		s->node[n].sim = s;
		s->node[n].id = (node_id)n;
	}
	for (unsigned i = 0; i < cfg->nodes * cfg->nodes; i++)
		s->link[i].tail = &s->link[i].head;
	*out = s;
	return 0;
}

/* The newest that are under way, any number of them. */
static void lose_some(struct ic_sim *s, struct sim_link *l)
{
	unsigned keep = l->count ? (unsigned)rng_below(&s->rng, l->count + 1) : 0;
	struct parcel **at = &l->head;

	while (keep--)
		at = &(*at)->next;
	while (*at) {
		struct parcel *p = *at;

		*at = p->next;
		free(p);
		l->count--;
	}
	l->tail = at;
}

void ic_sim_crash(struct ic_sim *s, node_id node)
{
	struct sim_node *n = &s->node[node];

	pthread_mutex_lock(&s->lock);
	if (!n->crashed) {
		for (unsigned m = 0; m < s->cfg.nodes; m++)
			lose_some(s, link_of(s, node, m));
		n->crashed = true;
		part(s, n, clock_now_ns() + s->cfg.detect_ns);
	}
	pthread_mutex_unlock(&s->lock);
}

void ic_sim_close(struct ic_sim *s)
{
	for (unsigned i = 0; i < s->cfg.nodes * s->cfg.nodes; i++)
		while (s->link[i].head)
			free(link_pop(&s->link[i]));
	pthread_mutex_destroy(&s->lock);
	free(s->node);
	free(s->link);
	free(s);
}
