/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp_hello.c - connecting, accepting, the mutual proof of the VM key (core/hello.h), and the offers of a
 * path.
 *
 * Threads   The one inside progress.
 * I/O       Non-blocking; a handshake that does not end in HANDSHAKE_NS is dropped.  getaddrinfo may look up
 *           a name: give addresses where that matters.
 * Limits    TCP_HANDSHAKES_MAX at a time.  A stranger costs at most one of them and one log line per cause.
 */
#include "interconnect/tcp.h"

#include "base/clock.h"
#include "base/log.h"

#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HANDSHAKE_NS (3 * NS_PER_S)
#define JOIN_NS (30 * NS_PER_S) /* how long a peer may take to appear */

/* A place to listen at or to connect to. */
struct place {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* "host:port" or "[v6]:port". */
static int place_parse(const char *address, bool passive, struct place *out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *ai;
	char host[IC_ADDR_MAX];
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;

	if (!colon || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, address, len);
	host[len] = 0;
	if (host[0] == '[' && host[len - 1] == ']') {
		memmove(host, host + 1, len - 2);
		host[len - 2] = 0;
	}
	if (passive)
		hints.ai_flags |= AI_PASSIVE;
	if (getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &ai))
		return -EADDRNOTAVAIL;
	memcpy(&out->sa, ai->ai_addr, ai->ai_addrlen);
	out->len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return 0;
}

#define LOCAL_PREFIX "shm:"

/* "shm:name": a unix socket in the abstract namespace, which leaves nothing in the file system. */
static int place_local(const char *address, struct place *out)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&out->sa;
	size_t len = strlen(address), prefix = strlen(LOCAL_PREFIX);

	if (strncmp(address, LOCAL_PREFIX, prefix) || len == prefix ||
	    len - prefix + 1 > sizeof(un->sun_path))
		return -EINVAL;
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + 1, address + prefix, len - prefix);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len - prefix);
	return 0;
}

static int place_any_local(struct place *out)
{
	char name[64];
	uint64_t r[2];

	if (RAND_bytes((uint8_t *)r, sizeof(r)) != 1)
		return -EIO;
	snprintf(name, sizeof(name), LOCAL_PREFIX "unum-%016llx%016llx", (unsigned long long)r[0],
		 (unsigned long long)r[1]);
	return place_local(name, out);
}

static void place_name(const struct place *p, char out[static IC_ADDR_MAX])
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&p->sa;
	size_t path = offsetof(struct sockaddr_un, sun_path) + 1;
	char host[64] = "?", port[8] = "0";

	if (p->sa.ss_family == AF_UNIX) {
		snprintf(out, IC_ADDR_MAX, LOCAL_PREFIX "%.*s",
			 p->len > path ? (int)(p->len - path) : 0, un->sun_path + 1);
		return;
	}
	getnameinfo((const struct sockaddr *)&p->sa, p->len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(out, IC_ADDR_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

int tcp_listen(struct tcp *t, const char *address)
{
	struct place at;
	int one = 1, err = t->local ? place_any_local(&at) : place_parse(address, true, &at);

	if (!err) {
		t->listen_fd =
			socket(at.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (t->listen_fd < 0 ||
		    setsockopt(t->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		    bind(t->listen_fd, (struct sockaddr *)&at.sa, at.len) ||
		    listen(t->listen_fd, NODES_MAX))
			err = -errno;
	}
	if (err)
		log_error("tcp: cannot listen on %s: %s", t->local ? "a unix socket" : address,
			  strerror(-err));
	return err;
}

void tcp_address(void *priv, char out[static IC_ADDR_MAX])
{
	struct tcp *t = priv;
	struct place at = { .len = sizeof(at.sa) };

	if (getsockname(t->listen_fd, (struct sockaddr *)&at.sa, &at.len))
		log_error("tcp: getsockname errno %d", errno);
	place_name(&at, out);
}

static void mac_make(struct tcp *t, char side, const struct tcp_link *l, uint8_t out[IC_HELLO_MAC])
{
	uint8_t text[IC_HELLO_SIGNED_MAX], mac[EVP_MAX_MD_SIZE] = { 0 };
	size_t len = ic_hello_signed(side, &l->hello, &l->challenge, text);
	unsigned mac_len = 0;

	/* A library that cannot hash must not make two empty MACs equal. */
	if (!HMAC(EVP_sha256(), t->f->cfg.key, IC_KEY_BYTES, text, len, mac, &mac_len) ||
	    mac_len != IC_HELLO_MAC)
		RAND_bytes(mac, IC_HELLO_MAC);
	memcpy(out, mac, IC_HELLO_MAC);
}

static bool mac_right(struct tcp *t, char side, const struct tcp_link *l, const uint8_t *theirs)
{
	uint8_t ours[IC_HELLO_MAC];

	mac_make(t, side, l, ours);
	return !CRYPTO_memcmp(ours, theirs, sizeof(ours));
}

static bool record_send(struct tcp_link *l, const struct ic_hello *h)
{
	uint8_t bytes[IC_HELLO_MAX];
	size_t len = ic_hello_encode(h, bytes);

	/* A fresh socket takes a record; if not, the handshake has failed. */
	return send(l->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len;
}

void tcp_hello_fail(struct tcp *t, struct tcp_link *l)
{
	if (l->peer != NODE_NONE && t->peers[l->peer].life.connector)
		ic_peer_attempt_failed(&t->peers[l->peer].life, clock_now_ns());
	tcp_link_free(t, l);
}

static void link_name(const struct tcp_link *l, char out[static IC_ADDR_MAX])
{
	struct place at = { .len = sizeof(at.sa) };

	if (getpeername(l->fd, (struct sockaddr *)&at.sa, &at.len))
		at.sa.ss_family = AF_UNSPEC;
	place_name(&at, out);
}

static void refuse(struct tcp *t, struct tcp_link *l, enum ic_refusal why)
{
	struct ic_hello h = { .kind = IC_REFUSE, .why = why };
	char who[IC_ADDR_MAX];

	link_name(l, who);
	record_send(l, &h);
	if (why != IC_REFUSED_BUSY)
		ic_refused(t->f, why, who);
	tcp_hello_fail(t, l);
}

void tcp_accept(struct tcp *t)
{
	for (;;) {
		int fd = accept4(t->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct tcp_link *l;

		if (fd < 0)
			return;
		if (t->handshakes >= TCP_HANDSHAKES_MAX) {
			ic_count(&t->f->count.refused, 1);
			close(fd);
			continue;
		}
		l = tcp_link_new(t, fd, TCP_GREETED, EPOLLIN);
		if (l)
			l->deadline_ns = clock_now_ns() + HANDSHAKE_NS;
	}
}

void tcp_connect(struct tcp *t, node_id peer)
{
	struct tcp_peer *p = &t->peers[peer];
	struct tcp_link *l;
	struct place at;
	int fd = -1,
	    err = t->local ? place_local(p->address, &at) : place_parse(p->address, false, &at);

	if (!err) {
		fd = socket(at.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&at.sa, at.len) &&
		    errno != EINPROGRESS) {
			close(fd);
			fd = -1;
		}
	}
	l = fd < 0 ? NULL : tcp_link_new(t, fd, TCP_CONNECTING, EPOLLOUT);
	if (!l) {
		ic_peer_attempt_failed(&p->life, clock_now_ns());
		return;
	}
	l->peer = peer;
	l->deadline_ns = clock_now_ns() + HANDSHAKE_NS;
}

/* Connector: the socket is writable, or the attempt failed. */
static void on_connected(struct tcp *t, struct tcp_link *l)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = l };
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
		tcp_hello_fail(t, l);
		return;
	}
	l->hello = (struct ic_hello){ .kind = IC_HELLO,
				      .vm_id = t->f->cfg.vm_id,
				      .from = t->f->cfg.self,
				      .to = l->peer,
				      .epoch = t->peers[l->peer].life.epoch };
	l->phase = TCP_CHALLENGED;
	if (RAND_bytes(l->hello.nonce, sizeof(l->hello.nonce)) != 1 || !record_send(l, &l->hello) ||
	    epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, l->fd, &ev))
		tcp_hello_fail(t, l);
}

/* Connector: the acceptor proved itself? Then prove ourselves. */
static bool on_challenge(struct tcp *t, struct tcp_link *l, const struct ic_hello *h)
{
	struct ic_hello proof = { .kind = IC_PROOF };

	l->challenge = *h;
	if (!mac_right(t, 'A', l, h->mac)) {
		refuse(t, l, IC_REFUSED_KEY);
		return false;
	}
	if (h->epoch <= l->hello.epoch) {
		refuse(t, l, IC_REFUSED_GARBAGE);
		return false;
	}
	mac_make(t, 'C', l, proof.mac);
	l->phase = TCP_PROVING;
	if (!record_send(l, &proof)) {
		tcp_hello_fail(t, l);
		return false;
	}
	return true;
}

static bool peer_wanted(const struct tcp *t, node_id peer)
{
	return t->peers[peer].life.state == IC_PEER_JOINING && !t->peers[peer].link;
}

/* Acceptor: somebody says who he is. */
static bool on_hello(struct tcp *t, struct tcp_link *l, const struct ic_hello *h)
{
	enum ic_refusal why = 0;

	if (h->vm_id != t->f->cfg.vm_id)
		why = IC_REFUSED_VM;
	else if (h->to != t->f->cfg.self || h->from >= t->f->cfg.nodes || h->from <= t->f->cfg.self)
		why = IC_REFUSED_NODE;
	else if (!peer_wanted(t, h->from))
		why = IC_REFUSED_BUSY;
	if (why) {
		refuse(t, l, why);
		return false;
	}
	l->hello = *h;
	l->peer = h->from;
	l->challenge = (struct ic_hello){ .kind = IC_CHALLENGE };
	l->challenge.epoch = ic_peer_next_epoch(&t->peers[l->peer].life, h->epoch);
	l->phase = TCP_CHECKING;
	if (RAND_bytes(l->challenge.nonce, sizeof(l->challenge.nonce)) == 1) {
		mac_make(t, 'A', l, l->challenge.mac);
		if (record_send(l, &l->challenge))
			return true;
	}
	tcp_hello_fail(t, l);
	return false;
}

/* --- paths -------------------------------------------------------------------------------------------------------- */

/* OFFER, with a descriptor where the path passes one. */
static bool offer_send(struct tcp_link *l, const struct ic_path_offer *offer)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct ic_hello h = { .kind = IC_OFFER, .offer_len = offer->len, .offer = offer->bytes };
	uint8_t bytes[IC_HELLO_MAX];
	struct iovec iov = { bytes, ic_hello_encode(&h, bytes) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (offer->fd >= 0) {
		struct cmsghdr *c;

		mh.msg_control = &control;
		mh.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &offer->fd, sizeof(int));
	}
	return sendmsg(l->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)iov.iov_len;
}

/* Both have proven themselves: the link is up, or the path begins. */
static bool link_proven(struct tcp *t, struct tcp_link *l)
{
	struct ic_path_offer offer = { .fd = -1 };
	bool sent;
	int err;

	if (!peer_wanted(t, l->peer)) { /* the join's deadline passed meanwhile */
		tcp_hello_fail(t, l);
		return false;
	}
	if (!t->ops) {
		tcp_link_open(t, l, l->challenge.epoch);
		return false;
	}
	l->phase = TCP_OFFERED;
	err = t->ops->link_open(t->path, l, l->peer, t->f->cfg.self < l->peer, &l->path, &offer);
	if (err) {
		log_error("fabric: path to node %u: %s", l->peer, strerror(-err));
		tcp_hello_fail(t, l);
		return false;
	}
	sent = offer_send(l, &offer);
	if (offer.fd >= 0)
		close(offer.fd);
	if (!sent)
		tcp_hello_fail(t, l);
	return sent;
}

/* True: more records are wanted. */
static bool path_step(struct tcp *t, struct tcp_link *l)
{
	if (!l->reached || !l->ready)
		return true;
	if (peer_wanted(t, l->peer))
		tcp_link_open(t, l, l->challenge.epoch);
	else
		tcp_hello_fail(t, l);
	return false;
}

static bool reached(struct tcp_link *l)
{
	struct ic_hello ready = { .kind = IC_READY };

	l->reached = true;
	return record_send(l, &ready);
}

static bool on_offer(struct tcp *t, struct tcp_link *l, const struct ic_hello *h)
{
	struct ic_path_offer theirs = { .fd = l->passed_fd, .len = h->offer_len };
	int err = -EPROTO;

	memcpy(theirs.bytes, h->offer, h->offer_len);
	if (!l->reached)
		err = t->ops->link_connect(l->path, &theirs);
	if (err == -EINPROGRESS)
		return true;
	if (err) {
		refuse(t, l, IC_REFUSED_GARBAGE);
		return false;
	}
	if (!reached(l)) {
		tcp_hello_fail(t, l);
		return false;
	}
	return path_step(t, l);
}

void tcp_path_reached(struct tcp *t, struct tcp_link *l)
{
	if (l->phase != TCP_OFFERED || l->reached)
		return;
	if (!reached(l))
		tcp_path_host.broken(l, -EPIPE);
	else if (l->ready && peer_wanted(t, l->peer))
		path_step(t, l);
}

static bool on_ready(struct tcp *t, struct tcp_link *l)
{
	l->ready = true;
	return path_step(t, l);
}

bool tcp_path_ready(struct tcp *t, struct tcp_link *l)
{
	l->ready = true;
	if (!l->reached || !peer_wanted(t, l->peer))
		return false;
	path_step(t, l);
	return true;
}

/* Acceptor: the connector's proof. */
static bool on_proof(struct tcp *t, struct tcp_link *l, const struct ic_hello *h)
{
	struct ic_hello accept = { .kind = IC_ACCEPT };

	if (!mac_right(t, 'C', l, h->mac)) {
		refuse(t, l, IC_REFUSED_KEY);
		return false;
	}
	if (!peer_wanted(t, l->peer)) { /* two proven attempts of one peer: the first one won */
		refuse(t, l, IC_REFUSED_BUSY);
		return false;
	}
	if (!record_send(l, &accept)) {
		tcp_hello_fail(t, l);
		return false;
	}
	return link_proven(t, l);
}

/* One record; false when the link is open or gone. */
static bool on_record(struct tcp *t, struct tcp_link *l, const struct ic_hello *h)
{
	if (h->kind == IC_REFUSE) {
		if (h->why != IC_REFUSED_BUSY)
			ic_refused(t->f, h->why < IC_REFUSALS ? h->why : 0, "by the other side");
		tcp_hello_fail(t, l);
		return false;
	}
	if (l->phase == TCP_GREETED && h->kind == IC_HELLO)
		return on_hello(t, l, h);
	if (l->phase == TCP_CHECKING && h->kind == IC_PROOF)
		return on_proof(t, l, h);
	if (l->phase == TCP_CHALLENGED && h->kind == IC_CHALLENGE)
		return on_challenge(t, l, h);
	if (l->phase == TCP_PROVING && h->kind == IC_ACCEPT)
		return link_proven(t, l);
	if (l->phase == TCP_OFFERED && h->kind == IC_OFFER)
		return on_offer(t, l, h);
	if (l->phase == TCP_OFFERED && h->kind == IC_READY)
		return on_ready(t, l);
	refuse(t, l, IC_REFUSED_GARBAGE);
	return false;
}

void tcp_hello_step(struct tcp *t, struct tcp_link *l)
{
	struct ic_hello h;
	enum ic_refusal why;
	int got;

	if (l->phase == TCP_CONNECTING) {
		on_connected(t, l);
		return;
	}
	got = tcp_link_read(t, l);
	for (;;) {
		int used = ic_hello_decode(l->rx + l->rx_start, l->rx_end - l->rx_start, &h, &why);

		if (used < 0) {
			refuse(t, l, why);
			return;
		}
		if (!used)
			break;
		l->rx_start += (size_t)used;
		if (!on_record(t, l, &h))
			return;
	}
	if (got < 0)
		tcp_hello_fail(t, l);
}

/* Requests of ic_join, which any thread makes, come into the peers here. */
static void joins_take(struct tcp *t, uint64_t now_ns)
{
	pthread_mutex_lock(&t->join_lock);
	t->join_asked = false;
	for (unsigned i = 0; i < t->f->cfg.nodes; i++) {
		struct tcp_peer *p = &t->peers[i];

		if (!t->asked->wanted[i])
			continue;
		t->asked->wanted[i] = false;
		memcpy(p->address, t->asked->address[i], IC_ADDR_MAX);
		if (ic_peer_join(&p->life, now_ns, now_ns + JOIN_NS) & IC_FX_CONNECT)
			tcp_connect(t, (node_id)i);
	}
	pthread_mutex_unlock(&t->join_lock);
}

void tcp_timers(struct tcp *t)
{
	uint64_t now = clock_now_ns();
	bool slow = false;

	if (t->join_asked)
		joins_take(t, now);
	for (unsigned i = 0; i < TCP_LINKS_MAX && t->handshakes; i++) {
		struct tcp_link *l = t->links[i];

		if (l && l->phase != TCP_OPEN && now >= l->deadline_ns)
			tcp_hello_fail(t, l);
	}
	for (unsigned i = 0; i < t->f->cfg.nodes; i++) {
		struct tcp_peer *p = &t->peers[i];
		unsigned fx = ic_peer_tick(&p->life, now);

		if (fx & IC_FX_CONNECT)
			tcp_connect(t, (node_id)i);
		if (fx & IC_FX_DOWN) {
			log_error("tcp: node %u at %s did not answer in time", i, p->address);
			ic_peer_changed(t->f, (node_id)i, IC_PEER_DOWN);
		}
		slow |= p->life.state == IC_PEER_JOINING;
	}
	t->slow = slow || t->handshakes;
	if (t->join_asked) /* asked while we looked */
		t->slow = true;
}
