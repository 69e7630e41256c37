/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp_send.c - the sending half.
 *
 * What      Header, body and data leave with one vectored call straight from the sender's thread; what the socket
 *           does not take goes to a bounded queue, which progress flushes.  Or the path takes them.
 * Threads   Any, under tx_lock of the peer.
 * I/O       sendmsg that does not block.
 * Limits    TCP_TX_BYTES per peer, or what the path holds, then -EAGAIN.
 */
#include "interconnect/tcp.h"

#include "base/log.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define TX_PARTS 2 /* header and body; data */

static uint32_t ring_used(const struct tcp_peer *p)
{
	return p->tx_head - p->tx_tail;
}

static void ring_put(struct tcp_peer *p, const void *bytes, size_t len)
{
	size_t at = p->tx_head % TCP_TX_BYTES, first = TCP_TX_BYTES - at;

	if (!len)
		return; /* then bytes may be NULL */
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

/* Writes as much of the queue as the socket takes. */
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
static void tx_direct(struct tcp *t, struct tcp_peer *p, struct iovec iov[TX_PARTS], size_t total)
{
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = TX_PARTS };
	ssize_t n;
	size_t sent;

	do
		n = iov[1].iov_len ? sendmsg(p->tx_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL)
				   : send(p->tx_fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		tx_break(p);
		return;
	}
	sent = n < 0 ? 0 : (size_t)n;
	if (sent == total)
		return;
	for (int i = 0; i < TX_PARTS; i++) {
		size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

		ring_put(p, (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
		sent -= skip;
	}
	p->tx_queued = true;
	tx_arm(t, p, true);
}

/* tx_lock held.  No queue but the path's own. */
static int tx_path(struct tcp *t, struct tcp_peer *p, const struct iovec *iov)
{
	bool bell = false;
	int err = t->ops->send(p->path, iov, TX_PARTS, &bell);

	if (err == -EPROTO)
		tx_break(p);
	else if (bell && send(p->tx_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("fabric: bell errno %d", errno);
	return err == -EPROTO ? -ENOTCONN : err;
}

/*
 * A frame that cannot be: the last one's number again, or no mark; the other side ends the link.  Or its end at once.  What
 * the queue has no room for is not sent.
 */
void tcp_spoil(void *priv, node_id to, enum ic_spoil how)
{
	struct tcp *t = priv;
	struct tcp_peer *p = &t->peers[to];
	struct ic_frame fr = { .port = IC_PORT_TEST };
	uint8_t header[IC_FRAME_HEADER];
	struct iovec iov[TX_PARTS] = { { header, sizeof(header) } };

	pthread_mutex_lock(&p->tx_lock);
	fr.epoch = p->tx_epoch;
	fr.seq = p->tx_seq - (how == IC_SPOIL_TWICE);
	ic_frame_encode(&fr, header);
	header[0] ^= how == IC_SPOIL_HEADER;
	if (p->tx_fd < 0)
		log_debug("fabric: node %u is down already", to);
	else if (how == IC_SPOIL_CUT)
		tx_break(p);
	else if (p->path && tx_path(t, p, iov))
		log_debug("fabric: no room to spoil");
	else if (!p->path && !ring_used(p))
		tx_direct(t, p, iov, sizeof(header));
	else if (!p->path && TCP_TX_BYTES - ring_used(p) >= sizeof(header))
		ring_put(p, header, sizeof(header));
	pthread_mutex_unlock(&p->tx_lock);
}

int tcp_send(void *priv, node_id to, const struct ic_msg *msg)
{
	struct tcp *t = priv;
	struct tcp_peer *p = &t->peers[to];
	struct ic_frame fr = { .port = (uint8_t)msg->port,
			       .body_len = msg->body_len,
			       .data_len = msg->data_len };
	uint8_t head[IC_FRAME_HEADER + IC_BODY_MAX]; /* header and body: a copy costs less than a third part */
	struct iovec iov[TX_PARTS] = { { head, IC_FRAME_HEADER + msg->body_len },
				       { (void *)(uintptr_t)msg->data, msg->data_len } };
	size_t total = ic_frame_size(&fr);
	int err = 0;

	if (msg->body_len) /* else the body may be NULL */
		memcpy(head + IC_FRAME_HEADER, msg->body, msg->body_len);
	pthread_mutex_lock(&p->tx_lock);
	if (p->tx_fd < 0) {
		err = -ENOTCONN;
	} else if (ring_used(p) && TCP_TX_BYTES - ring_used(p) < total) {
		err = -EAGAIN;
	} else {
		fr.epoch = p->tx_epoch;
		fr.seq = p->tx_seq;
		ic_frame_encode(&fr, head);
		if (p->path)
			err = tx_path(t, p, iov);
		else if (!ring_used(p))
			tx_direct(t, p, iov, total);
		else
			for (int i = 0; i < TX_PARTS; i++)
				ring_put(p, iov[i].iov_base, iov[i].iov_len);
		p->tx_seq += !err;
	}
	if (!err)
		ic_count_sent(t->f, to, msg);
	pthread_mutex_unlock(&p->tx_lock);
	return err;
}

void tcp_flush(struct tcp *t, struct tcp_peer *p)
{
	pthread_mutex_lock(&p->tx_lock);
	if (p->tx_fd >= 0)
		tx_flush(t, p);
	pthread_mutex_unlock(&p->tx_lock);
}
