/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/chan.c - the slice's end of the channel to its agent.
 *
 * Owns      The socket, a reader thread and a short queue of messages that wait for cc_chan_recv.
 * Threads   The reader answers PING at once and queues the rest; senders take turns under
 *           `send_lock`.
 * I/O       Blocking reads and writes on the socket.
 * Limits    QUEUE_MAX messages wait; while it is full the reader reads no further, PINGs included,
 *           so that a slice which takes no messages for dead_after counts as dead.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/control.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MAX 64u

struct cc_chan {
	int fd;
	pthread_t reader;
	pthread_mutex_t send_lock; /* one frame at a time */
	pthread_mutex_t lock;      /* guards all below */
	pthread_cond_t filled, drained;
	struct cc_msg queue[QUEUE_MAX];
	unsigned first, count;
	bool gone, closing;
};

static int bytes_send(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int bytes_recv(int fd, uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int cc_chan_send(struct cc_chan *c, const struct cc_msg *msg)
{
	uint8_t *frame;
	size_t len;
	int err = cc_msg_encode(msg, &frame, &len);

	if (err)
		return err;
	pthread_mutex_lock(&c->send_lock);
	err = bytes_send(c->fd, frame, len);
	pthread_mutex_unlock(&c->send_lock);
	free(frame);
	return err;
}

/* One frame from the socket.  -EPIPE: closed, or garbage, which from our own agent is the same. */
static int frame_recv(int fd, uint8_t *buf, struct cc_msg *out)
{
	uint8_t head[CC_FRAME_HEAD];
	uint32_t len;

	if (bytes_recv(fd, head, sizeof(head)))
		return -EPIPE;
	len = get_le32(head);
	if (len > CC_FRAME_MAX || bytes_recv(fd, buf, len))
		return -EPIPE;
	if (!cc_msg_decode(buf, len, out)) {
		log_error("control: garbage from the agent, %u bytes", len);
		return -EPIPE;
	}
	return 0;
}

static void queue_put(struct cc_chan *c, struct cc_msg *msg)
{
	pthread_mutex_lock(&c->lock);
	while (c->count == QUEUE_MAX && !c->closing)
		pthread_cond_wait(&c->drained, &c->lock);
	if (c->closing) {
		cc_msg_clear(msg);
	} else {
		c->queue[(c->first + c->count++) % QUEUE_MAX] = *msg;
		pthread_cond_signal(&c->filled);
	}
	pthread_mutex_unlock(&c->lock);
}

static void *reader_main(void *arg)
{
	struct cc_chan *c = arg;
	uint8_t *buf = malloc(CC_FRAME_MAX);
	struct cc_msg msg;

	log_set_thread("control");
	while (buf && !frame_recv(c->fd, buf, &msg)) {
		if (msg.type == CC_MSG_PING) {
			struct cc_msg pong = { .type = CC_MSG_PONG, .ping = msg.ping };

			cc_msg_clear(&msg);
			if (cc_chan_send(c, &pong))
				break;
			continue;
		}
		queue_put(c, &msg);
	}
	free(buf);
	pthread_mutex_lock(&c->lock);
	c->gone = true;
	pthread_cond_signal(&c->filled);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int cc_chan_open(int fd, struct cc_chan **out)
{
	struct cc_chan *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int err;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->send_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->filled, &attr);
	pthread_cond_init(&c->drained, &attr);
	pthread_condattr_destroy(&attr);
	err = pthread_create(&c->reader, NULL, reader_main, c);
	if (err) {
		log_error("control: no thread: %s", strerror(err));
		free(c);
		return -err;
	}
	*out = c;
	return 0;
}

int cc_chan_recv(struct cc_chan *c, struct cc_msg *out, uint64_t timeout_ns)
{
	uint64_t end_ns = timeout_ns == ~0ull ? 0 : clock_now_ns() + timeout_ns;
	struct timespec end = { (time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S) };
	int err = 0;

	pthread_mutex_lock(&c->lock);
	while (!c->count && !c->gone && !err)
		err = end_ns ? pthread_cond_timedwait(&c->filled, &c->lock, &end)
			     : pthread_cond_wait(&c->filled, &c->lock);
	if (c->count) {
		*out = c->queue[c->first];
		c->first = (c->first + 1) % QUEUE_MAX;
		c->count--;
		pthread_cond_signal(&c->drained);
		err = 0;
	} else {
		err = c->gone ? -EPIPE : -ETIMEDOUT;
	}
	pthread_mutex_unlock(&c->lock);
	return err;
}

void cc_chan_close(struct cc_chan *c)
{
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_cond_signal(&c->drained);
	pthread_mutex_unlock(&c->lock);
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->reader, NULL);
	close(c->fd);
	for (unsigned i = 0; i < c->count; i++)
		cc_msg_clear(&c->queue[(c->first + i) % QUEUE_MAX]);
	free(c);
}
