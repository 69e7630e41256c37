/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/term.c - the terminal (or pipe) that is the guest's console; see term.h.
 *
 * I/O       stdin and stdout. Their descriptors stay in blocking mode, since others share them: a
 *           write follows a poll and is never longer than PIPE_BUF, which a pipe that polls
 *           writable takes at once.
 */
#include "cluster-config/term.h"

#include "base/clock.h"

#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAVE_KEY 0x1d /* Ctrl-] */

static void input_read(struct cc_term *t)
{
	uint8_t data[4096], *leave;
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		cc_term_listen(t, false);
		t->in_end = true;
		return;
	}
	leave = t->is_tty ? memchr(data, LEAVE_KEY, (size_t)n) : NULL;
	if (leave)
		n = leave - data;
	if (n)
		t->ops->on_input(t->arg, data, (size_t)n);
	if (leave)
		t->ops->on_leave(t->arg);
}

static void on_input_event(void *arg, uint32_t events)
{
	(void)events;
	input_read(arg);
}

static void raw_set(struct cc_term *t, bool raw)
{
	struct termios mode = t->saved;

	if (!t->is_tty || t->raw == raw)
		return;
	if (raw) {
		cfmakeraw(&mode);
		mode.c_oflag = t->saved.c_oflag; /* log lines of ours keep their shape */
	}
	if (!tcsetattr(STDIN_FILENO, TCSADRAIN, &mode))
		t->raw = raw;
}

static void out_write(struct cc_term *t)
{
	while (t->at < t->len) {
		struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
		size_t part = t->len - t->at > PIPE_BUF ? PIPE_BUF : t->len - t->at;
		ssize_t n;

		if (poll(&p, 1, 0) != 1)
			break;
		n = write(STDOUT_FILENO, t->buf + t->at, part);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			break;
		if (n < 0) { /* nobody reads any more; the guest need not suffer from it */
			t->out_broken = true;
			break;
		}
		t->at += (size_t)n;
	}
	if (t->at == t->len || t->out_broken)
		t->at = t->len = 0;
	if (t->out_watched)
		cc_loop_set(t->loop, &t->out, t->len ? EPOLLOUT : 0);
}

static void on_output_event(void *arg, uint32_t events)
{
	struct cc_term *t = arg;

	out_write(t);
	if ((events & (EPOLLERR | EPOLLHUP)) && t->out_watched) {
		cc_loop_del(t->loop, &t->out);
		t->out_watched = false;
		t->out_broken = true;
	}
}

void cc_term_open(struct cc_term *t, struct cc_loop *loop, const struct cc_term_ops *ops, void *arg)
{
	bool front = tcgetpgrp(STDIN_FILENO) == getpgrp();

	*t = (struct cc_term){ .loop = loop, .ops = ops, .arg = arg };
	t->in = (struct cc_watch){ .fd = STDIN_FILENO, .on_event = on_input_event, .arg = t };
	t->out = (struct cc_watch){ .fd = STDOUT_FILENO, .on_event = on_output_event, .arg = t };
	t->is_tty = isatty(STDIN_FILENO) && front && !tcgetattr(STDIN_FILENO, &t->saved);
	/* A job in the background must not touch its terminal, or it is stopped. */
	t->in_end = isatty(STDIN_FILENO) && !front;
	t->out_watched = !cc_loop_add(loop, &t->out, 0);
}

void cc_term_listen(struct cc_term *t, bool on)
{
	on = on && !t->in_end;
	if (on == t->wanted)
		return;
	t->wanted = on;
	if (on) {
		raw_set(t, true);
		t->in_watched = !cc_loop_add(t->loop, &t->in, EPOLLIN);
		t->in_file = !t->in_watched;
	} else if (t->in_watched) {
		cc_loop_del(t->loop, &t->in);
		t->in_watched = false;
	}
}

void cc_term_write(struct cc_term *t, const uint8_t *data, size_t len)
{
	if (t->out_broken || !len)
		return;
	if (t->len + len > t->room) {
		size_t room = t->len + len + 65536;
		uint8_t *grown = realloc(t->buf, room);

		if (!grown)
			return; /* a lost console line is better than a lost VM */
		t->buf = grown;
		t->room = room;
	}
	memcpy(t->buf + t->len, data, len);
	t->len += len;
	out_write(t);
}

bool cc_term_busy(const struct cc_term *t)
{
	return t->len - t->at > CC_TERM_OUT_MAX;
}

void cc_term_tick(struct cc_term *t)
{
	if (t->wanted && t->in_file)
		input_read(t);
}

void cc_term_close(struct cc_term *t, int timeout_ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;

	cc_term_listen(t, false);
	while (t->len && clock_now_ns() < end) {
		struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

		poll(&p, 1, 50);
		out_write(t);
	}
	if (t->out_watched)
		cc_loop_del(t->loop, &t->out);
	t->out_watched = false;
	raw_set(t, false);
	free(t->buf);
	t->buf = NULL;
}
