/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp.c - the reference backend: one non-blocking TCP connection per pair of nodes.
 *
 * What      A sender writes header, body and data with one vectored call straight from its own thread; only
 *           what the socket does not take goes to a bounded ring.  Progress reads into one buffer per link and
 *           delivers from it in place.
 * Owns      Sockets, the epoll set, rings and buffers.
 * Threads   send: any, under tx_lock of the peer.  Everything else: the one inside progress (fabric.c's lock).
 *           wait runs beside progress and touches only the epoll set and atomics.
 * I/O       Few links: one recv each per progress, since a recv that finds nothing is cheaper than epoll; the
 *           epoll set is looked at every 64th time.  Many links: epoll only.
 * Limits    TCP_TX_BYTES of queue per peer, then -EAGAIN.  A peer that is silent for 5 s with data under way
 *           is lost (TCP_USER_TIMEOUT, RFC 5482).
 */
#include "interconnect/tcp.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DIRECT_MAX 4u		/* links up to which each is simply read */
#define SLOW_EVERY 64u		/* progress calls between looks at the epoll set */
#define EVENTS_MAX 32
#define TICK_NS (10 * NS_PER_MS) /* while joining */

/* --- sending ---------------------------------------------------------------------------------------- */

static uint32_t ring_used(const struct tcp_peer *p)
{
	return p->tx_head - p->tx_tail;
}

static void ring_put(struct tcp_peer *p, const void *bytes, size_t len)
{
	size_t at = p->tx_head % TCP_TX_BYTES, first = TCP_TX_BYTES - at;

	if (first > len)
		first = len;
	memcpy(p->tx_ring + at, bytes, first);
	memcpy(p->tx_ring, (const uint8_t *)bytes + first, len - first);
	p->tx_head += (uint32_t)len;
}

static void tx_arm(struct tcp *t, struct tcp_peer *p, bool on)
{
	struct epoll_event ev = { .events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = p->link };

	if (p->tx_armed == on)
		return;
	p->tx_armed = on;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, p->tx_fd, &ev))
		log_error("tcp: epoll_ctl errno %d", errno);
}

/* The socket is dead: progress will read its end and tear the link down. */
static void tx_break(struct tcp_peer *p)
{
	shutdown(p->tx_fd, SHUT_RDWR);
}

/* tx_lock held.  Writes as much of the queue as the socket takes. */
static void tx_flush(struct tcp *t, struct tcp_peer *p)
{
	while (ring_used(p)) {
		size_t at = p->tx_tail % TCP_TX_BYTES, len = ring_used(p);
		size_t first = len < TCP_TX_BYTES - at ? len : TCP_TX_BYTES - at;
		struct iovec iov[2] = { { p->tx_ring + at, first }, { p->tx_ring, len - first } };
		struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
		ssize_t n = sendmsg(p->tx_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				tx_break(p);
			break;
		}
		p->tx_tail += (uint32_t)n;
	}
	tx_arm(t, p, ring_used(p) != 0);
	p->tx_queued = ring_used(p) != 0;
}

/* tx_lock held, queue empty.  What the socket does not take goes to the queue. */
static void tx_direct(struct tcp *t, struct tcp_peer *p, struct iovec *iov, size_t total)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 3 };
	ssize_t n;
	size_t sent;

	do
		n = sendmsg(p->tx_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		tx_break(p);
		return;
	}
	sent = n < 0 ? 0 : (size_t)n;
	if (sent == total)
		return;
	for (int i = 0; i < 3; i++) {
		size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

		ring_put(p, (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
		sent -= skip;
	}
	p->tx_queued = true;
	tx_arm(t, p, true);
}

static int tcp_send(void *priv, node_id to, const struct ic_msg *msg)
{
	struct tcp *t = priv;
	struct tcp_peer *p = &t->peers[to];
	struct ic_frame fr = { .port = (uint8_t)msg->port, .body_len = msg->body_len, .data_len = msg->data_len };
	uint8_t header[IC_FRAME_HEADER];
	struct iovec iov[3] = { { header, sizeof(header) },
				{ (void *)(uintptr_t)msg->body, msg->body_len },
				{ (void *)(uintptr_t)msg->data, msg->data_len } };
	size_t total = ic_frame_size(&fr);
	int err = 0;

	pthread_mutex_lock(&p->tx_lock);
	if (p->tx_fd < 0) {
		err = -ENOTCONN;
	} else if (ring_used(p) && TCP_TX_BYTES - ring_used(p) < total) {
		err = -EAGAIN;
	} else {
		fr.epoch = p->tx_epoch;
		fr.seq = p->tx_seq++;
		ic_frame_encode(&fr, header);
		if (!ring_used(p))
			tx_direct(t, p, iov, total);
		else
			for (int i = 0; i < 3; i++)
				ring_put(p, iov[i].iov_base, iov[i].iov_len);
	}
	pthread_mutex_unlock(&p->tx_lock);
	if (err)
		return err;
	ic_count(&t->f->count.msgs_sent, 1);
	ic_count(&t->f->count.bytes_sent, (uint64_t)msg->body_len + msg->data_len);
	if (msg->data_len == IC_DATA_MAX)
		ic_count(&t->f->count.pages_sent, 1);
	return 0;
}

/* --- links ------------------------------------------------------------------------------------------ */

static void socket_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },	  { SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 1 },	  { IPPROTO_TCP, TCP_KEEPINTVL, 1 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 5 },	  { IPPROTO_TCP, TCP_USER_TIMEOUT, 5000 },
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)))
			log_debug("tcp: option %d errno %d", options[i].name, errno);
}

struct tcp_link *tcp_link_new(struct tcp *t, int fd, enum tcp_phase phase, uint32_t events)
{
	struct tcp_link *l = malloc(sizeof(*l));
	struct epoll_event ev = { .events = events, .data.ptr = l };
	unsigned slot = 0;

	while (slot < TCP_LINKS_MAX && t->links[slot])
		slot++;
	if (!l || slot == TCP_LINKS_MAX || epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		free(l);
		close(fd);
		return NULL;
	}
	socket_tune(fd);
	memset(l, 0, offsetof(struct tcp_link, rx));
	l->fd = fd;
	l->slot = slot;
	l->phase = phase;
	l->peer = NODE_NONE;
	t->links[slot] = l;
	t->handshakes++;
	t->slow = true;
	return l;
}

void tcp_link_free(struct tcp *t, struct tcp_link *l)
{
	if (l->phase == TCP_OPEN) {
		struct tcp_peer *p = &t->peers[l->peer];

		t->up[l->up_slot] = t->up[--t->up_count];
		t->up[l->up_slot]->up_slot = l->up_slot;
		pthread_mutex_lock(&p->tx_lock);
		p->tx_fd = -1;
		p->tx_head = p->tx_tail = 0;
		p->tx_queued = p->tx_armed = false;
		p->link = NULL;
		pthread_mutex_unlock(&p->tx_lock);
	} else {
		t->handshakes--;
	}
	t->links[l->slot] = NULL;
	close(l->fd);
	free(l);
}

void tcp_link_open(struct tcp *t, struct tcp_link *l, uint32_t epoch)
{
	struct tcp_peer *p = &t->peers[l->peer];
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = l };

	ASSERT(!p->link);
	t->handshakes--;
	l->phase = TCP_OPEN;
	l->epoch = epoch;
	l->rx_seq = 0;
	l->up_slot = t->up_count;
	t->up[t->up_count++] = l;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, l->fd, &ev))
		log_error("tcp: epoll_ctl errno %d", errno);
	pthread_mutex_lock(&p->tx_lock);
	p->link = l;
	p->tx_epoch = epoch;
	p->tx_seq = 0;
	p->tx_head = p->tx_tail = 0;
	p->tx_fd = l->fd;
	pthread_mutex_unlock(&p->tx_lock);
	t->backlog = true; /* frames may have come behind the last handshake record */
	if (ic_peer_proven(&p->life, epoch) & IC_FX_UP)
		ic_peer_changed(t->f, l->peer, IC_PEER_UP);
}

static void link_lost(struct tcp *t, struct tcp_link *l)
{
	node_id peer = l->peer;

	tcp_link_free(t, l);
	if (ic_peer_link_lost(&t->peers[peer].life) & IC_FX_DOWN)
		ic_peer_changed(t->f, peer, IC_PEER_DOWN);
}

int tcp_link_read(struct tcp_link *l)
{
	ssize_t n;

	if (l->rx_start == l->rx_end) {
		l->rx_start = l->rx_end = 0;
	} else if (sizeof(l->rx) - l->rx_start < IC_FRAME_MAX) {
		memmove(l->rx, l->rx + l->rx_start, l->rx_end - l->rx_start);
		l->rx_end -= l->rx_start;
		l->rx_start = 0;
	}
	if (l->rx_end == sizeof(l->rx))
		return 0;
	do
		n = recv(l->fd, l->rx + l->rx_end, sizeof(l->rx) - l->rx_end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n <= 0)
		return -EPIPE;
	l->rx_end += (size_t)n;
	return (int)n;
}

/* Delivers whole frames.  Their number, or -EPROTO. */
static int link_deliver(struct tcp *t, struct tcp_link *l, unsigned budget)
{
	unsigned done = 0;

	while (done < budget) {
		const uint8_t *at = l->rx + l->rx_start;
		struct ic_frame fr;
		struct ic_msg msg;
		enum ic_frame_verdict v = ic_frame_decode(at, l->rx_end - l->rx_start, IC_PORTS, l->epoch,
							  l->rx_seq, &fr);

		if (v == IC_FRAME_BAD)
			return -EPROTO;
		if (v == IC_FRAME_SHORT)
			return (int)done;
		msg = (struct ic_msg){ .port = fr.port,
				       .body_len = fr.body_len,
				       .data_len = fr.data_len,
				       .body = at + IC_FRAME_HEADER,
				       .data = at + IC_FRAME_HEADER + fr.body_len };
		l->rx_seq++;
		l->rx_start += ic_frame_size(&fr);
		ic_deliver(t->f, l->peer, &msg);
		done++;
	}
	t->backlog = true;
	return (int)done;
}

/* One round of an open link; may free it.  Messages delivered. */
static int link_pump(struct tcp *t, struct tcp_link *l, unsigned budget)
{
	struct tcp_peer *p = &t->peers[l->peer];
	int done, more, got;

	if (p->tx_queued) {
		pthread_mutex_lock(&p->tx_lock);
		tx_flush(t, p);
		pthread_mutex_unlock(&p->tx_lock);
	}
	done = link_deliver(t, l, budget);
	if (done >= 0 && (unsigned)done == budget)
		return done;
	got = done < 0 ? done : tcp_link_read(l);
	if (!got)
		return done;
	if (got > 0) {
		more = link_deliver(t, l, budget - (unsigned)done);
		if (more >= 0)
			return done + more;
		got = more;
	}
	if (got == -EPROTO)
		ic_refused(t->f, IC_REFUSED_GARBAGE, "bytes on an open link");
	link_lost(t, l);
	return done < 0 ? 0 : done;
}

/* --- progress --------------------------------------------------------------------------------------- */

static int pump_all(struct tcp *t, unsigned budget)
{
	unsigned done = 0, count = t->up_count, start = t->up_next++;

	t->backlog = false;
	for (unsigned i = 0; i < count && done < budget && t->up_count == count; i++)
		done += (unsigned)link_pump(t, t->up[(start + i) % count], budget - done);
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
		*done += (unsigned)link_pump(t, l, budget - *done);
	}
}

static int tcp_progress(void *priv, unsigned budget)
{
	struct tcp *t = priv;
	struct epoll_event ev[EVENTS_MAX];
	unsigned done = 0;
	int n;

	if (++t->polls % SLOW_EVERY &&
	    (t->backlog || (!t->slow && !t->look && t->up_count <= DIRECT_MAX)))
		return pump_all(t, budget);
	t->look = false;
	/* An event names its link by address; a link is freed only by its own event or by timers, after. */
	n = epoll_wait(t->epoll_fd, ev, EVENTS_MAX, 0);
	for (int i = 0; i < n; i++)
		on_event(t, &ev[i], budget, &done);
	if (t->slow || t->join_asked)
		tcp_timers(t);
	return (int)done;
}

static void tcp_wait(void *priv, uint64_t timeout_ns)
{
	struct tcp *t = priv;
	struct epoll_event ev;
	struct timespec ts;
	uint64_t drained;

	/* Orders `waiting` before the read of `woken`; tcp_wake does it the other way round. */
	atomic_store(&t->waiting, true);
	if (!atomic_exchange(&t->woken, false) && !t->backlog) {
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

static int tcp_open(struct ic_fabric *f, void **out)
{
	struct tcp *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->f = f;
	t->listen_fd = -1;
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

static void tcp_address(void *priv, char out[static IC_ADDR_MAX])
{
	struct tcp *t = priv;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char host[64] = "?", port[8] = "0";

	if (!getsockname(t->listen_fd, (struct sockaddr *)&sa, &len))
		getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
			    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, IC_ADDR_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
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
