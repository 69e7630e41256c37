/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp.c - the backends "tcp" (reference) and "shm": progress, waiting, opening, closing.
 *
 * What      One non-blocking stream per pair of nodes.  "shm" keeps a unix socket for handshake, doorbell and
 *           death, and moves messages through shared memory; it is for nodes on one host.
 * Owns      The epoll sets, the table of peers and links.
 * Threads   progress: one at a time (fabric.c's lock).  wait runs beside it and touches only the epoll sets,
 *           atomics, and up[] under up_lock.  The rest: any.
 * I/O       Few links: one recv each per progress, since a recv that finds nothing costs less than epoll; the
 *           epoll set is looked at every 64th time, or when wait saw something.  Many links: epoll only.
 *           Rings are looked at every time: that is a read of memory.
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

static int pump_all(struct tcp *t, unsigned budget)
{
	unsigned done = 0, count = t->up_count, start = t->up_next++;

	t->backlog = false;
	for (unsigned i = 0; i < count && done < budget && t->up_count == count; i++)
		done += (unsigned)tcp_link_pump(t, t->up[(start + i) % count], budget - done,
						false);
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
		*done += (unsigned)tcp_link_pump(t, l, budget - *done, true);
	}
}

static int tcp_progress(void *priv, unsigned budget)
{
	struct tcp *t = priv;
	struct epoll_event ev[EVENTS_MAX];
	unsigned done = 0;
	int n;

	if (++t->polls % SLOW_EVERY &&
	    (t->backlog || (!t->slow && !t->look && (t->local || t->up_count <= DIRECT_MAX))))
		return pump_all(t, budget);
	t->look = false;
	if (t->local)
		done = (unsigned)pump_all(t, budget); /* rings are not in the epoll set */
	/* An event names its link by address; a link is freed only by its own event or by timers, after. */
	n = epoll_wait(t->epoll_fd, ev, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++)
		on_event(t, &ev[i], budget, &done);
	if (t->slow || t->join_asked)
		tcp_timers(t);
	return (int)done;
}

/* Local: tells the other sides whether to ring the bell.  True when something is there already. */
static bool rings_sleep(struct tcp *t, bool on)
{
	bool unread = false;

	pthread_mutex_lock(&t->up_lock);
	for (unsigned i = 0; t->local && i < t->up_count; i++)
		unread |= shm_sleep(t->up[i]->shm, on);
	pthread_mutex_unlock(&t->up_lock);
	return unread;
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
	    !(t->local && !t->hushed && rings_sleep(t, true))) {
		if (t->slow && timeout_ns > TICK_NS)
			timeout_ns = TICK_NS;
		ts.tv_sec = (time_t)(timeout_ns / NS_PER_S);
		ts.tv_nsec = (long)(timeout_ns % NS_PER_S);
		if (epoll_pwait2(t->wait_fd, &ev, 1, &ts, NULL) == 1) {
			if (ev.data.ptr == &t->epoll_fd)
				t->look = true;
			else if (read(t->wake_fd, &drained, sizeof(drained)) < 0)
				log_debug("tcp: wake errno %d", errno);
		}
	}
	atomic_store(&t->waiting, false);
	if (t->local)
		rings_sleep(t, false);
}

static void tcp_wake(void *priv)
{
	struct tcp *t = priv;
	uint64_t one = 1;

	atomic_store(&t->woken, true);
	if (atomic_load(&t->waiting) && write(t->wake_fd, &one, sizeof(one)) < 0)
		log_debug("tcp: wake errno %d", errno);
}

static void tcp_hush(void *priv, bool on)
{
	struct tcp *t = priv;
	struct epoll_event ev = { .events = on ? 0 : EPOLLIN, .data.ptr = &t->epoll_fd };

	if (t->local) {
		atomic_store(&t->hushed, on);
		if (on)
			rings_sleep(t, false);
		else if (atomic_load(&t->waiting) && rings_sleep(t, true))
			tcp_wake(t);
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
	pthread_mutex_destroy(&t->join_lock);
	pthread_mutex_destroy(&t->up_lock);
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

static int stream_open(struct ic_fabric *f, bool local, void **out)
{
	struct tcp *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->f = f;
	t->local = local;
	t->listen_fd = -1;
	pthread_mutex_init(&t->up_lock, NULL);
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
	if (err) {
		tcp_close(t);
		return err;
	}
	*out = t;
	return 0;
}

static int tcp_open(struct ic_fabric *f, void **out)
{
	return stream_open(f, false, out);
}

static int local_open(struct ic_fabric *f, void **out)
{
	return stream_open(f, true, out);
}

const struct ic_backend ic_backend_tcp = {
	.name = "tcp",
	.open = tcp_open,
	.close = tcp_close,
	.address = tcp_address,
	.join = tcp_join,
	.send = tcp_send,
	.progress = tcp_progress,
	.wait = tcp_wait,
	.wake = tcp_wake,
	.hush = tcp_hush,
};

const struct ic_backend ic_backend_shm = {
	.name = "shm",
	.open = local_open,
	.close = tcp_close,
	.address = tcp_address,
	.join = tcp_join,
	.send = tcp_send,
	.progress = tcp_progress,
	.wait = tcp_wait,
	.wake = tcp_wake,
	.hush = tcp_hush,
};
