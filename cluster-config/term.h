/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/term.h - the terminal (or pipe) that is the guest's console.
 *
 * What      stdin to the guest, the guest to stdout. A terminal is put into raw mode while the
 *           guest runs; Ctrl-] leaves. A slow reader of stdout never blocks the loop.
 * Threads   The loop's.
 */
#ifndef CC_TERM_H
#define CC_TERM_H

#include "cluster-config/loop.h"

#include <stddef.h>
#include <termios.h>

#define CC_TERM_OUT_MAX (1u << 20) /* bytes that wait for stdout before cc_term_busy */

struct cc_term_ops {
	void (*on_input)(void *arg, const uint8_t *data, size_t len);
	void (*on_leave)(void *arg); /* Ctrl-] */
};

struct cc_term {
	struct cc_loop *loop;
	const struct cc_term_ops *ops;
	void *arg;
	struct cc_watch in, out;
	bool in_watched, in_file, in_end; /* in_file: always readable, epoll does not take it */
	bool out_watched, out_broken;
	bool is_tty, raw, wanted;
	struct termios saved;
	uint8_t *buf; /* waits for stdout */
	size_t at, len, room;
};

void cc_term_open(struct cc_term *t, struct cc_loop *loop, const struct cc_term_ops *ops,
		  void *arg);
/* Takes input, or leaves it where it is. */
void cc_term_listen(struct cc_term *t, bool on);
void cc_term_write(struct cc_term *t, const uint8_t *data, size_t len);
bool cc_term_busy(const struct cc_term *t);
/* At least every 50 ms. */
void cc_term_tick(struct cc_term *t);
/* Writes what waits (for at most timeout_ms) and gives the terminal back as it was. */
void cc_term_close(struct cc_term *t, int timeout_ms);

#endif
