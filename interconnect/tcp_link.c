/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp_link.c - links: their life and the receiving half.
 *
 * What      One buffer per link; messages are delivered from it, or from where the path has them, in place.
 * Owns      Links and their sockets.
 * Threads   The one inside progress.
 * I/O       recv that does not block.
 * Limits    A peer that is silent for dead_after_ms with data under way is lost (TCP_USER_TIMEOUT, RFC 5482).
 */
#include "interconnect/tcp.h"

#include "base/assert.h"
#include "base/log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEAVINGS_MAX 1024u /* polls for what a dead peer has sent */

/* On a link with nothing under way, the user timeout bounds the probes too, whatever TCP_KEEPCNT says (tcp(7)). */
static void socket_tune(int fd, unsigned dead_after_ms)
{
	const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },  { SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 1 }, { IPPROTO_TCP, TCP_KEEPINTVL, 1 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, (int)dead_after_ms },
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		if (setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			       sizeof(int)))
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
	if (!t->local)
		socket_tune(fd, t->f->cfg.dead_after_ms);
	memset(l, 0, offsetof(struct tcp_link, rx));
	l->t = t;
	l->fd = fd;
	l->slot = slot;
	l->phase = phase;
	l->peer = NODE_NONE;
	l->passed_fd = -1;
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
		p->path = NULL;
		p->tx_head = p->tx_tail = 0;
		p->tx_queued = p->tx_armed = false;
		p->link = NULL;
		pthread_mutex_unlock(&p->tx_lock);
	} else {
		t->handshakes--;
	}
	t->links[l->slot] = NULL;
	if (l->path)
		t->ops->link_close(l->path);
	if (l->passed_fd >= 0)
		close(l->passed_fd);
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
	p->path = l->path;
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

/* recv that keeps a descriptor which came along; local links, while the handshake lasts. */
static ssize_t recv_fd(struct tcp_link *l, void *buf, size_t len)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, len };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_LEN(sizeof(int)) }; /* no room for a second one */
	ssize_t n = recvmsg(l->fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&mh);

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int))) {
		if (l->passed_fd >= 0)
			close(l->passed_fd);
		memcpy(&l->passed_fd, CMSG_DATA(c), sizeof(int));
	}
	return n;
}

int tcp_link_read(struct tcp *t, struct tcp_link *l)
{
	ssize_t n;
	size_t room;

	if (l->rx_start == l->rx_end) {
		l->rx_start = l->rx_end = 0;
	} else if (sizeof(l->rx) - l->rx_start < IC_FRAME_MAX) {
		memmove(l->rx, l->rx + l->rx_start, l->rx_end - l->rx_start);
		l->rx_end -= l->rx_start;
		l->rx_start = 0;
	}
	room = sizeof(l->rx) - l->rx_end;
	if (!room)
		return 0;
	do
		n = t->local && l->phase != TCP_OPEN ? recv_fd(l, l->rx + l->rx_end, room)
					: recv(l->fd, l->rx + l->rx_end, room, MSG_DONTWAIT);
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
		enum ic_frame_verdict v = ic_frame_decode(at, l->rx_end - l->rx_start, IC_PORTS,
							  l->epoch, l->rx_seq, &fr);

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

/* --- paths -------------------------------------------------------------------------------------------------------- */

static int path_frame(void *owner, const uint8_t *head, const uint8_t *data, size_t len)
{
	struct tcp_link *l = owner;
	struct ic_frame fr;
	struct ic_msg msg;

	/* A frame before READY: who sends one can reach us. */
	if (l->phase != TCP_OPEN && !tcp_path_ready(l->t, l))
		return -EPROTO;
	if (ic_frame_decode(head, len, IC_PORTS, l->epoch, l->rx_seq, &fr) != IC_FRAME_OK)
		return -EPROTO;
	msg = (struct ic_msg){ .port = fr.port,
			       .body_len = fr.body_len,
			       .data_len = fr.data_len,
			       .body = head + IC_FRAME_HEADER,
			       .data = data ? data : head + IC_FRAME_HEADER + fr.body_len };
	l->rx_seq++;
	ic_deliver(l->t->f, l->peer, &msg);
	return (int)ic_frame_size(&fr);
}

static void path_broken(void *owner, int err)
{
	struct tcp_link *l = owner;

	if (err == -EPROTO && !l->broken && l->phase == TCP_OPEN)
		ic_refused(l->t->f, IC_REFUSED_GARBAGE, "what came on an open link");
	l->broken = true;
	l->t->path_trouble = true;
}

static void path_reached(void *owner)
{
	struct tcp_link *l = owner;

	tcp_path_reached(l->t, l);
}

const struct ic_path_host tcp_path_host = { path_frame, path_reached, path_broken };

unsigned tcp_path_pump(struct tcp *t, unsigned budget)
{
	unsigned done = t->ops->poll(t->path, budget);

	if (done >= budget)
		t->backlog = true;
	return done;
}

void tcp_path_sweep(struct tcp *t)
{
	for (unsigned i = 0; t->path_trouble && i < TCP_LINKS_MAX; i++) {
		struct tcp_link *l = t->links[i];

		if (!l || !l->broken)
			continue;
		if (l->phase == TCP_OPEN)
			link_lost(t, l);
		else
			tcp_hello_fail(t, l);
	}
	t->path_trouble = false;
}

/* The stream of a link with a path says no more than "wake" or "gone". */
static int control_pump(struct tcp *t, struct tcp_link *l, unsigned budget)
{
	int got = tcp_link_read(t, l), done = 0;

	l->rx_start = l->rx_end = 0;
	if (got > 0 && !t->hushed) /* a bell, which may have been for another thread */
		tcp_rearm(t);
	if (got >= 0)
		return 0;
	/* What it left behind.  Bounded: the others may never cease. */
	for (unsigned i = 0, n = budget; i < LEAVINGS_MAX && n >= budget; i++) {
		n = tcp_path_pump(t, budget);
		done += (int)n;
	}
	link_lost(t, l);
	return done;
}

/* --- the stream --------------------------------------------------------------------------------------------------- */

int tcp_link_pump(struct tcp *t, struct tcp_link *l, unsigned budget)
{
	struct tcp_peer *p = &t->peers[l->peer];
	int done, more, got;

	if (t->ops)
		return control_pump(t, l, budget);
	if (p->tx_queued)
		tcp_flush(t, p);
	done = link_deliver(t, l, budget);
	if (done >= 0 && (unsigned)done == budget)
		return done;
	got = done < 0 ? done : tcp_link_read(t, l);
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
