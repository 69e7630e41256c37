/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/loop.c - a small event loop over epoll; see loop.h. */
#include "cluster-config/loop.h"

#include "base/assert.h"

#include <unistd.h>

int cc_loop_open(struct cc_loop *l)
{
	l->fd = epoll_create1(EPOLL_CLOEXEC);
	return l->fd < 0 ? -errno : 0;
}

void cc_loop_close(struct cc_loop *l)
{
	close(l->fd);
}

int cc_loop_add(struct cc_loop *l, struct cc_watch *w, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	w->events = events;
	return epoll_ctl(l->fd, EPOLL_CTL_ADD, w->fd, &e) ? -errno : 0;
}

void cc_loop_set(struct cc_loop *l, struct cc_watch *w, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = w };

	if (w->events == events)
		return;
	w->events = events;
	ASSERT(!epoll_ctl(l->fd, EPOLL_CTL_MOD, w->fd, &e));
}

void cc_loop_del(struct cc_loop *l, struct cc_watch *w)
{
	ASSERT(!epoll_ctl(l->fd, EPOLL_CTL_DEL, w->fd, NULL));
}

bool cc_loop_once(struct cc_loop *l, int timeout_ms)
{
	struct epoll_event e;
	struct cc_watch *w;

	if (epoll_wait(l->fd, &e, 1, timeout_ms) != 1)
		return false; /* time is up, or a signal */
	w = e.data.ptr;
	w->on_event(w->arg, e.events);
	return true;
}
