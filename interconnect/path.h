/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/path.h - what moves frames between two proven peers, where the stream itself does not.
 *
 * What      Every backend but "tcp" is a path beside a control stream (tcp.h): the stream carries the handshake, then
 *           an offer each way (what the other side needs to reach this one), and after that only the news of
 *           a death.  The path carries the frames.
 * Life      open (once per fabric); per peer: link_open makes an offer, link_connect takes the other's; the link is
 *           up when both sides have said that they are connected.  link_close at any time after link_open.
 * Threads   send: any, one at a time per link.  sleep: any.  open, close, poll, link_*: the one inside progress (or the
 *           one that opens and closes the fabric).
 * Contract  Frames arrive whole, once and in order, or the link is broken: a path that cannot keep that calls
 *           host->broken.  Bytes are given to host->frame before poll returns.  Nothing is sent or received after
 *           link_close.  No memory of a peer is trusted: what it can still write is copied before it is looked at.
 */
#ifndef INTERCONNECT_PATH_H
#define INTERCONNECT_PATH_H

#include "base/err.h"
#include "base/types.h"
#include "interconnect/core/hello.h"

#include <sys/uio.h>

/* What one side tells the other to be reached.  fd: local paths may pass a descriptor, -1: none; whoever gets an
 * offer closes it. */
struct ic_path_offer {
	int fd;
	uint16_t len;
	uint8_t bytes[IC_OFFER_MAX];
};

struct ic_path;	     /* private to the implementation: one per fabric */
struct ic_path_link; /* the same: one per peer */

/* What a path calls, from inside poll.  `owner` is what link_open was given. */
struct ic_path_host {
	/*
	 * A frame: header and body at `head`, `len` bytes of frame in all; the page of data at `data`, or right behind
	 * the body when NULL.  Bytes of the frame (its real length), or -EPROTO: then the link is broken.
	 */
	int (*frame)(void *owner, const uint8_t *head, const uint8_t *data, size_t len);
	/* After -EINPROGRESS of link_connect: frames can be sent now. */
	void (*reached)(void *owner);
	/* The link will carry nothing more; -EPROTO: for what the other side sent.  It is closed soon after poll returns. */
	void (*broken)(void *owner, int err);
};

struct ic_path_ops {
	bool local; /* the control stream is a unix socket, which can pass descriptors */
	/* `device`: which of several, "" any.  -ENODEV: nothing of that kind here; logged once by the path. */
	MUST_CHECK int (*open)(const char *device, const struct ic_path_host *host, unsigned nodes, struct ic_path **out);
	void (*close)(struct ic_path *p);
	MUST_CHECK int (*link_open)(struct ic_path *p, void *owner, node_id peer, bool acceptor,
				    struct ic_path_link **out, struct ic_path_offer *offer);
	/* -EPROTO: the offer makes no sense.  -EINPROGRESS: host->reached follows, or broken, or nothing: the stream has a
	 * deadline. */
	MUST_CHECK int (*link_connect)(struct ic_path_link *l, const struct ic_path_offer *theirs);
	void (*link_close)(struct ic_path_link *l);
	/* 0; -EAGAIN: no room now; -EPROTO: broken.  One frame, as gathered; copied or sent before it returns.  *bell: the
	 * other side sleeps and wants a byte on the control stream. */
	MUST_CHECK int (*send)(struct ic_path_link *l, const struct iovec *iov, unsigned count, bool *bell);
	/* Moves what there is on all links; frames delivered.  Fewer than `budget`: nothing more is there, so that whoever
	 * sleeps now is woken by what comes next. */
	unsigned (*poll)(struct ic_path *p, unsigned budget);
	/* This side is about to sleep (true), or is awake.  True when something is there, so that it must not sleep. */
	bool (*sleep)(struct ic_path *p, bool on);
	/* Becomes readable when a sleeper must wake; -1: the bell alone does that, or, not `local`, nothing does. */
	int (*fd)(struct ic_path *p);
};

extern const struct ic_path_ops ic_path_shm;

/* Of a plugin that can tell what its library found on this host, a line each; a symbol of its shared object. */
typedef void ic_offers_fn(char *text, size_t size);
ic_offers_fn ic_offers_ofi, ic_offers_ucx;

#endif
