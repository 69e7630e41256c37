/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/loop.h - a small event loop over epoll.
 *
 * Contract  One event is handled per cc_loop_once, so a handler may close and free whatever it
 *           likes.
 * Threads   One per loop.
 */
#ifndef CC_LOOP_H
#define CC_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct cc_watch {
	int fd;
	uint32_t events; /* as last told to epoll */
	void (*on_event)(void *arg, uint32_t events);
	void *arg;
};

struct cc_loop {
	int fd;
};

MUST_CHECK int cc_loop_open(struct cc_loop *l);
void cc_loop_close(struct cc_loop *l);
/* Borrows *w until cc_loop_del.  -EPERM: a regular file, which is always ready. */
MUST_CHECK int cc_loop_add(struct cc_loop *l, struct cc_watch *w, uint32_t events);
void cc_loop_set(struct cc_loop *l, struct cc_watch *w, uint32_t events);
void cc_loop_del(struct cc_loop *l, struct cc_watch *w);
/* Waits for one event and handles it.  True: there was one. */
bool cc_loop_once(struct cc_loop *l, int timeout_ms);

#endif
