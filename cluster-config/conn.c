/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/conn.c - framed, non-blocking control connections; see conn.h.
 *
 * Owns      The socket, its TLS state and two byte buffers.
 * I/O       Non-blocking reads and writes of one socket.
 */
#include "cluster-config/conn.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK 65536u
#define WHY_MAX 160

struct cc_conn {
	struct cc_loop *loop;
	struct cc_watch watch;
	enum cc_conn_role role;
	SSL *ssl;
	const struct cc_conn_ops *ops;
	void *arg;
	bool connecting, open; /* TCP not there yet; handshake done */
	bool paused, ssl_wants_write;
	bool again; /* resumed: bytes may wait inside TLS, where epoll does not see them */
	bool watched;
	bool unheard; /* plain: the other side has closed; what it said before may still be unread */
	bool busy, freed; /* inside on_event; cc_conn_free was called meanwhile */
	uint8_t *in, *out;
	size_t in_len, in_room, out_at, out_len, out_room;
	int err;      /* set once: what ended it */
	bool garbage; /* and it was not ours */
	char why[WHY_MAX];
};

static void fail(struct cc_conn *c, int err, bool garbage, const char *why)
{
	if (c->err)
		return;
	c->err = err;
	c->garbage = garbage;
	snprintf(c->why, sizeof(c->why), "%s", why);
}

static int room_make(uint8_t **buf, size_t *room, size_t need)
{
	size_t grown = *room ? *room : 4096;
	uint8_t *p;

	if (need <= *room)
		return 0;
	while (grown < need)
		grown *= 2;
	p = realloc(*buf, grown);
	if (!p)
		return -ENOMEM;
	*buf = p;
	*room = grown;
	return 0;
}

/* Turns the result of an SSL call into bytes (> 0), 0 for "later", or a failure that is noted. */
static ssize_t ssl_result(struct cc_conn *c, int n)
{
	unsigned long code;
	char text[120];

	if (n > 0)
		return n;
	switch (SSL_get_error(c->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		return 0;
	case SSL_ERROR_WANT_WRITE:
		c->ssl_wants_write = true;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		fail(c, -EPIPE, false, "closed by the other side");
		return -1;
	case SSL_ERROR_SYSCALL:
		fail(c, -EPIPE, !c->open, errno ? strerror(errno) : "closed by the other side");
		return -1;
	default:
		code = ERR_peek_last_error();
		if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING && c->open) {
			fail(c, -EPIPE, false, "closed by the other side");
			return -1;
		}
		snprintf(text, sizeof(text), "TLS: %s", ERR_reason_error_string(code) ?: "failed");
		fail(c, -EPROTO, true, text);
		return -1;
	}
}

static ssize_t raw_result(struct cc_conn *c, ssize_t n)
{
	if (n > 0)
		return n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	fail(c, -EPIPE, false,
	     n < 0 && errno != EPIPE ? strerror(errno) : "closed by the other side");
	return -1;
}

static ssize_t bytes_read(struct cc_conn *c, uint8_t *p, size_t len)
{
	errno = 0;
	if (!c->ssl)
		return raw_result(c, recv(c->watch.fd, p, len, MSG_DONTWAIT));
	ERR_clear_error();
	return ssl_result(c, SSL_read(c->ssl, p, (int)len));
}

static ssize_t bytes_write(struct cc_conn *c, const uint8_t *p, size_t len)
{
	errno = 0;
	if (!c->ssl) {
		ssize_t n = send(c->watch.fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		/* Its last words come first: reading finds the end behind them. */
		c->unheard = n < 0 && (errno == EPIPE || errno == ECONNRESET);
		return c->unheard ? 0 : raw_result(c, n);
	}
	ERR_clear_error();
	return ssl_result(c, SSL_write(c->ssl, p, (int)(len > READ_CHUNK ? READ_CHUNK : len)));
}

static void out_flush(struct cc_conn *c)
{
	while (!c->err && c->open && c->out_at < c->out_len) {
		ssize_t n = bytes_write(c, c->out + c->out_at, c->out_len - c->out_at);

		if (n <= 0)
			break;
		c->out_at += (size_t)n;
	}
	if (c->out_at == c->out_len || c->unheard)
		c->out_at = c->out_len = 0;
}

static void watch_update(struct cc_conn *c)
{
	bool write = c->connecting || c->ssl_wants_write || c->again || c->err ||
		     (c->open && c->out_len > c->out_at);

	if (c->watched)
		cc_loop_set(c->loop, &c->watch,
			    (c->paused && !c->err ? 0 : EPOLLIN) | (write ? EPOLLOUT : 0));
}

static void unwatch(struct cc_conn *c)
{
	if (c->watched)
		cc_loop_del(c->loop, &c->watch);
	c->watched = false;
}

/* Hands over each whole frame of the input buffer. */
static void frames_deliver(struct cc_conn *c)
{
	size_t at = 0;

	while (!c->freed && c->in_len - at >= CC_FRAME_HEAD) {
		uint32_t len = get_le32(c->in + at);
		struct cc_msg msg;

		if (len > CC_FRAME_MAX) {
			fail(c, -EPROTO, true, "a message that is too long");
			break;
		}
		if (c->in_len - at < CC_FRAME_HEAD + len)
			break;
		if (!cc_msg_decode(c->in + at + CC_FRAME_HEAD, len, &msg)) {
			fail(c, -EPROTO, true, "a message that cannot be read");
			break;
		}
		at += CC_FRAME_HEAD + len;
		c->ops->on_message(c->arg, &msg);
		cc_msg_clear(&msg);
	}
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
}

static void in_pump(struct cc_conn *c)
{
	while (!c->err && !c->freed && !c->paused) {
		ssize_t n;

		if (room_make(&c->in, &c->in_room, c->in_len + READ_CHUNK)) {
			fail(c, -ENOMEM, false, "out of memory");
			return;
		}
		n = bytes_read(c, c->in + c->in_len, READ_CHUNK);
		if (n > 0)
			c->in_len += (size_t)n;
		frames_deliver(c);
		if (n <= 0)
			return;
	}
}

static void connect_finish(struct cc_conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	getsockopt(c->watch.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err)
		fail(c, -err, false, strerror(err));
	c->connecting = false;
}

static void handshake(struct cc_conn *c)
{
	int n;

	if (c->ssl) {
		errno = 0;
		ERR_clear_error();
		n = SSL_do_handshake(c->ssl);
		if (n != 1) {
			ssl_result(c, n);
			return;
		}
		if (!cc_tls_proved(c->ssl)) {
			fail(c, -EPROTO, true, "the other side did not prove the pool key");
			return;
		}
	}
	c->open = true;
	if (c->ops->on_open)
		c->ops->on_open(c->arg);
}

static void conn_destroy(struct cc_conn *c)
{
	unwatch(c);
	if (c->ssl && c->open && !c->err) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
	}
	SSL_free(c->ssl);
	close(c->watch.fd);
	free(c->in);
	free(c->out);
	free(c);
}

static void on_event(void *arg, uint32_t events)
{
	struct cc_conn *c = arg;

	c->busy = true;
	c->ssl_wants_write = false;
	c->again = false;
	if (c->connecting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		connect_finish(c);
	if (!c->err && !c->connecting && !c->open)
		handshake(c);
	if (!c->err && c->open && !c->freed) {
		out_flush(c);
		if (events & (EPOLLERR | EPOLLHUP))
			c->paused =
				false; /* or the loop would spin on an event that nobody takes */
		in_pump(c);
	}
	if (c->err) {
		unwatch(c); /* once closed, epoll would not stop telling so */
		if (!c->freed)
			c->ops->on_close(c->arg, c->why, c->garbage);
	}
	c->busy = false;
	if (c->freed)
		conn_destroy(c);
	else
		watch_update(c);
}

int cc_conn_make(struct cc_loop *loop, int fd, enum cc_conn_role role, struct cc_tls *tls,
		 const struct cc_conn_ops *ops, void *arg, struct cc_conn **out)
{
	struct cc_conn *c = calloc(1, sizeof(*c));
	int err = -ENOMEM;

	if (!c)
		goto close_fd;
	c->loop = loop;
	c->role = role;
	c->ops = ops;
	c->arg = arg;
	c->watch = (struct cc_watch){ .fd = fd, .on_event = on_event, .arg = c };
	c->connecting = role == CC_CONN_TLS_CLIENT;
	c->open = role == CC_CONN_PLAIN;
	if (role != CC_CONN_PLAIN) {
		c->ssl = SSL_new(tls->ctx);
		if (!c->ssl || !SSL_set_fd(c->ssl, fd))
			goto free_conn;
		if (role == CC_CONN_TLS_CLIENT)
			SSL_set_connect_state(c->ssl);
		else
			SSL_set_accept_state(c->ssl);
	}
	err = cc_loop_add(loop, &c->watch, EPOLLIN | (c->connecting ? EPOLLOUT : 0));
	if (err)
		goto free_conn;
	c->watched = true;
	*out = c;
	return 0;

free_conn:
	SSL_free(c->ssl);
	free(c);
close_fd:
	close(fd);
	return err;
}

void cc_conn_send(struct cc_conn *c, const struct cc_msg *msg)
{
	uint8_t *frame = NULL;
	size_t len;
	int err;

	if (c->err || c->freed || c->unheard)
		return;
	err = cc_msg_encode(msg, &frame, &len);
	if (!err && c->out_len - c->out_at + len > CC_CONN_OUT_MAX)
		err = -ENOBUFS;
	if (!err && c->out_at) { /* so that a busy connection does not creep upwards in memory */
		memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
		c->out_len -= c->out_at;
		c->out_at = 0;
	}
	if (!err)
		err = room_make(&c->out, &c->out_room, c->out_len + len);
	if (err) {
		fail(c, err, false, "too much waits to be sent");
		shutdown(c->watch.fd,
			 SHUT_RDWR); /* makes an event, whether or not the other side reads */
	} else {
		memcpy(c->out + c->out_len, frame, len);
		c->out_len += len;
		out_flush(c);
	}
	free(frame);
	if (!c->busy)
		watch_update(c);
}

bool cc_conn_busy(const struct cc_conn *c)
{
	return c->out_len - c->out_at > CC_CONN_OUT_BUSY;
}

void cc_conn_pause(struct cc_conn *c, bool pause)
{
	if (c->paused == pause || c->err || c->freed)
		return;
	c->paused = pause;
	c->again = !pause;
	if (!c->busy)
		watch_update(c);
}

void cc_conn_free(struct cc_conn *c)
{
	if (!c)
		return;
	if (!c->err && !c->freed)
		out_flush(c);
	c->freed = true;
	if (!c->busy)
		conn_destroy(c);
}
