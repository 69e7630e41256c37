/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp.c - one stream per pair of nodes: the backend "tcp" (reference), and what carries the handshake and
 * the news of a death for all others (path.h).  Progress, waiting, opening, closing.
 *
 * Owns      The epoll sets, the table of peers and links.
 * Threads   progress: one at a time (fabric.c's lock).  wait runs beside it and touches only the epoll sets,
 *           atomics, and the path's sleep.  The rest: any.
 * I/O       Few links: one recv each per progress, since a recv that finds nothing costs less than epoll; the
 *           epoll set is looked at every 64th time, or when wait saw something.  Many links: epoll only.
 *           A path is polled every time, its streams only through epoll.
 * Limits    NODES_MAX peers.
 */
#include "interconnect/tcp.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DIRECT_MAX 4u  /* links up to which each is simply read */
#define SLOW_EVERY 64u /* progress calls between looks at the epoll set */
#define EVENTS_MAX 32
#define TICK_NS (10 * NS_PER_MS) /* while joining */
/* With a path that cannot wake a sleeper, naps: each twice as long as the one before, from the last message on. */
#define NAP_MIN_NS (10 * NS_PER_US)
#define NAP_MAX_NS (320 * NS_PER_US)

static int pump_all(struct tcp *t, unsigned budget)
{
	unsigned done = 0, count = t->up_count, start = t->up_next++;

	t->backlog = false;
	if (t->ops) {
		done = tcp_path_pump(t, budget);
		tcp_path_sweep(t);
		return (int)done;
	}
	for (unsigned i = 0; i < count && done < budget && t->up_count == count; i++)
		done += (unsigned)tcp_link_pump(t, t->up[(start + i) % count], budget - done);
	if (done == budget)
		t->backlog = true; /* links after the last one may hold whole frames too */
	return (int)done;
}

static void on_event(struct tcp *t, struct epoll_event *ev, unsigned budget, unsigned *done)
{
	struct tcp_link *l = ev->data.ptr;

	if (ev->data.ptr == &t->listen_fd) {
		tcp_accept(t);
	} else if (l->phase != TCP_OPEN) {
		tcp_hello_step(t, l);
	} else if (*done < budget) {
		*done += (unsigned)tcp_link_pump(t, l, budget - *done);
	}
}

static int progress(struct tcp *t, unsigned budget)
{
	struct epoll_event ev[EVENTS_MAX];
	unsigned done = 0;
	int n;

	if (++t->polls % SLOW_EVERY &&
	    (t->backlog || (!t->slow && !t->look && (t->ops || t->up_count <= DIRECT_MAX))))
		return pump_all(t, budget);
	t->look = false;
	if (t->ops)
		done = (unsigned)pump_all(t, budget); /* what a path has is not in the epoll set */
	/* An event names its link by address; a link is freed only by its own event, or by the sweep and timers after. */
	n = epoll_wait(t->epoll_fd, ev, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++)
		on_event(t, &ev[i], budget, &done);
	tcp_path_sweep(t);
	if (t->slow || t->join_asked)
		tcp_timers(t);
	return (int)done;
}

static int tcp_progress(void *priv, unsigned budget)
{
	struct tcp *t = priv;
	int done = progress(t, budget);

	if (done && t->nap_ns != NAP_MIN_NS)
		t->nap_ns = NAP_MIN_NS;
	return done;
}

/* How long to sleep at most, when only a look tells that something has come. */
static uint64_t nap_ns(struct tcp *t, uint64_t timeout_ns)
{
	uint64_t nap = t->nap_ns;

	if (nap < NAP_MAX_NS)
		t->nap_ns = 2 * nap;
	return nap < timeout_ns ? nap : timeout_ns;
}

static void tcp_wait(void *priv, uint64_t timeout_ns)
{
	struct tcp *t = priv;
	struct epoll_event ev;
	struct timespec ts;
	uint64_t drained;

	/* Orders `waiting` before the read of `woken`; tcp_wake does it the other way round. */
	atomic_store(&t->waiting, true);
	if (!atomic_exchange(&t->woken, false) && !t->backlog &&
	    !(t->ops && !t->hushed && t->ops->sleep(t->path, true))) {
		if (t->slow && timeout_ns > TICK_NS)
			timeout_ns = TICK_NS;
		if (t->ops && !t->local && t->path_fd < 0)
			timeout_ns = nap_ns(t, timeout_ns);
		ts.tv_sec = (time_t)(timeout_ns / NS_PER_S);
		ts.tv_nsec = (long)(timeout_ns % NS_PER_S);
		if (epoll_pwait2(t->wait_fd, &ev, 1, &ts, NULL) == 1) {
			if (ev.data.ptr == &t->epoll_fd)
				t->look = true;
			else if (ev.data.ptr == &t->wake_fd && read(t->wake_fd, &drained, sizeof(drained)) < 0)
				log_debug("tcp: wake errno %d", errno);
		}
	}
	atomic_store(&t->waiting, false);
	if (t->ops)
		t->ops->sleep(t->path, false);
}

static void tcp_wake(void *priv)
{
	struct tcp *t = priv;
	uint64_t one = 1;

	atomic_store(&t->woken, true);
	if (atomic_load(&t->waiting) && write(t->wake_fd, &one, sizeof(one)) < 0)
		log_debug("tcp: wake errno %d", errno);
}

void tcp_rearm(struct tcp *t)
{
	if (atomic_load(&t->waiting) && (t->ops->sleep(t->path, true) || t->backlog))
		tcp_wake(t);
}

static void hush_path(struct tcp *t, bool on)
{
	struct epoll_event ev = { .events = on ? 0 : EPOLLIN, .data.ptr = &t->path_fd };

	atomic_store(&t->hushed, on);
	if (t->path_fd >= 0 && epoll_ctl(t->wait_fd, EPOLL_CTL_MOD, t->path_fd, &ev))
		log_error("tcp: epoll_ctl errno %d", errno);
	if (on)
		t->ops->sleep(t->path, false);
	else
		tcp_rearm(t);
}

static void tcp_hush(void *priv, bool on)
{
	struct tcp *t = priv;
	struct epoll_event ev = { .events = on ? 0 : EPOLLIN, .data.ptr = &t->epoll_fd };

	if (t->ops) {
		hush_path(t, on);
		return;
	}
	/* Taking it back looks at readiness anew, so nothing that came meanwhile is missed. */
	if (epoll_ctl(t->wait_fd, EPOLL_CTL_MOD, t->epoll_fd, &ev))
		log_error("tcp: epoll_ctl errno %d", errno);
}

static int tcp_join(void *priv, node_id peer, const char *address)
{
	struct tcp *t = priv;

	if (strlen(address) >= IC_ADDR_MAX)
		return -EINVAL;
	pthread_mutex_lock(&t->join_lock);
	t->asked->wanted[peer] = true;
	strcpy(t->asked->address[peer], address);
	t->slow = t->join_asked = true;
	pthread_mutex_unlock(&t->join_lock);
	tcp_wake(t);
	return 0;
}

/* --- open and close --------------------------------------------------------------------------------- */

static void tcp_close(void *priv)
{
	struct tcp *t = priv;

	for (unsigned i = 0; i < TCP_LINKS_MAX; i++)
		if (t->links[i])
			tcp_link_free(t, t->links[i]);
	for (unsigned i = 0; t->peers && i < t->f->cfg.nodes; i++) {
		free(t->peers[i].tx_ring);
		pthread_mutex_destroy(&t->peers[i].tx_lock);
	}
	if (t->listen_fd >= 0)
		close(t->listen_fd);
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	if (t->wait_fd >= 0)
		close(t->wait_fd);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	if (t->path)
		t->ops->close(t->path);
	pthread_mutex_destroy(&t->join_lock);
	free(t->asked);
	free(t->peers);
	free(t);
}

static int peers_new(struct tcp *t)
{
	unsigned nodes = t->f->cfg.nodes;

	t->peers = calloc(nodes, sizeof(*t->peers));
	t->asked = calloc(1, sizeof(*t->asked));
	if (!t->peers || !t->asked)
		return -ENOMEM;
	for (unsigned i = 0; i < nodes; i++) {
		struct tcp_peer *p = &t->peers[i];

		ic_peer_init(&p->life, t->f->cfg.self, (node_id)i);
		p->tx_fd = -1;
		pthread_mutex_init(&p->tx_lock, NULL);
	}
	for (unsigned i = 0; i < nodes; i++) {
		t->peers[i].tx_ring = i == t->f->cfg.self ? NULL : malloc(TCP_TX_BYTES);
		if (!t->peers[i].tx_ring && i != t->f->cfg.self)
			return -ENOMEM;
	}
	return 0;
}

static int epoll_add(int epoll_fd, int fd, void *name)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = name };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int path_open(struct tcp *t)
{
	int err = t->ops->open(t->f->cfg.device ? t->f->cfg.device : "", &tcp_path_host, t->f->cfg.nodes, &t->path);

	if (err)
		return err;
	t->path_fd = t->ops->fd(t->path);
	return t->path_fd < 0 ? 0 : epoll_add(t->wait_fd, t->path_fd, &t->path_fd);
}

static int tcp_open(struct ic_fabric *f, void **out)
{
	struct tcp *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->f = f;
	t->ops = f->backend.path;
	t->local = t->ops && t->ops->local;
	t->listen_fd = t->path_fd = -1;
	t->nap_ns = NAP_MIN_NS;
	pthread_mutex_init(&t->join_lock, NULL);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->wait_fd = epoll_create1(EPOLL_CLOEXEC);
	t->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	err = t->epoll_fd < 0 || t->wait_fd < 0 || t->wake_fd < 0 ? -errno : peers_new(t);
	if (!err)
		err = tcp_listen(t, f->cfg.listen);
	if (!err)
		err = epoll_add(t->epoll_fd, t->listen_fd, &t->listen_fd);
	if (!err)
		err = epoll_add(t->wait_fd, t->epoll_fd, &t->epoll_fd);
	if (!err)
		err = epoll_add(t->wait_fd, t->wake_fd, &t->wake_fd);
	if (!err && t->ops)
		err = path_open(t);
	if (err) {
		tcp_close(t);
		return err;
	}
	*out = t;
	return 0;
}

const struct ic_transport ic_transport_stream = {
	.open = tcp_open,
	.close = tcp_close,
	.address = tcp_address,
	.join = tcp_join,
	.send = tcp_send,
	.progress = tcp_progress,
	.wait = tcp_wait,
	.wake = tcp_wake,
	.hush = tcp_hush,
	.spoil = tcp_spoil,
};
