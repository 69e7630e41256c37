/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/tcp.h - what the files of the stream share.
 *
 * "tcp" moves its frames over the stream itself.  Every other backend has a path (path.h), and its stream carries
 * the handshake, the offers, doorbells and the news of a death.
 *
 * Threads   Everything belongs to the thread inside progress, except tcp_peer's tx fields (tx_lock), the
 *           join request (join_lock) and what is atomic.
 */
#ifndef INTERCONNECT_TCP_H
#define INTERCONNECT_TCP_H

#include "interconnect/core/frame.h"
#include "interconnect/core/peer.h"
#include "interconnect/fabric_priv.h"
#include "interconnect/path.h"

#define TCP_TX_BYTES (256u << 10) /* bounded queue of a peer; a power of two */
#define TCP_RX_BYTES (64u << 10)
#define TCP_HANDSHAKES_MAX 32u /* unproven connections at one time; the rest is turned away */
#define TCP_LINKS_MAX (NODES_MAX + TCP_HANDSHAKES_MAX)

enum tcp_phase {
	TCP_CONNECTING,
	TCP_CHALLENGED,
	TCP_PROVING,
	TCP_GREETED,
	TCP_CHECKING,
	TCP_OFFERED, /* path: proven, our offer is out */
	TCP_OPEN
};

struct tcp_link {
	struct tcp *t;
	int fd;
	unsigned slot;    /* in tcp.links */
	unsigned up_slot; /* in tcp.up while open */
	enum tcp_phase phase;
	node_id peer; /* NODE_NONE until a HELLO named it */
	struct ic_hello hello, challenge;
	uint64_t deadline_ns; /* of the handshake */
	uint32_t epoch, rx_seq;
	struct ic_path_link *path; /* from ACCEPT on */
	bool reached, ready;       /* path: we can reach the other side; it can reach us */
	bool broken;               /* path: is freed by the next sweep */
	int passed_fd;             /* local: came with a record, -1: none */
	size_t rx_start, rx_end; /* bytes of rx in use */
	uint8_t rx[TCP_RX_BYTES];
};

struct tcp_peer {
	struct ic_peer life;
	struct tcp_link *link; /* while up */
	char address[IC_ADDR_MAX];
	pthread_mutex_t tx_lock; /* rank: innermost */
	int tx_fd;               /* -1: not up.  The link's fd; closed only after this is -1 */
	uint32_t tx_seq, tx_epoch;
	uint32_t tx_head, tx_tail; /* free-running; bytes of the ring in use = head - tail */
	bool tx_armed;             /* EPOLLOUT is asked for */
	struct ic_path_link *path; /* the link's, while up */
	_Atomic bool tx_queued;
	uint8_t *tx_ring;
};

struct tcp {
	struct ic_fabric *f;
	int listen_fd, epoll_fd; /* epoll_fd: listener and links, what progress looks at */
	int wait_fd, wake_fd;    /* wait_fd: epoll_fd and wake_fd, what wait sleeps on */
	struct tcp_peer *peers;  /* cfg.nodes of them */
	struct tcp_link *links[TCP_LINKS_MAX];
	const struct ic_path_ops *ops; /* NULL: "tcp" */
	struct ic_path *path;
	bool path_trouble; /* a link is marked as broken */
	bool local; /* unix sockets */
	int path_fd; /* in the wait set; -1: none */
	struct tcp_link *up[NODES_MAX];
	unsigned up_count, up_next;
	unsigned handshakes; /* links that are not open */
	unsigned polls;
	_Atomic bool backlog; /* whole frames may wait in some rx */
	_Atomic bool slow;    /* handshakes or joins are under way: look at timers */
	_Atomic bool waiting, woken;
	_Atomic bool hushed;       /* path */
	_Atomic uint64_t nap_ns;   /* path without a descriptor: the next nap in wait */
	_Atomic bool look;         /* wait saw something in the epoll set */
	pthread_mutex_t join_lock; /* rank: innermost */
	_Atomic bool join_asked;
	struct tcp_asked { /* join_lock */
		bool wanted[NODES_MAX];
		char address[NODES_MAX][IC_ADDR_MAX];
	} * asked;
};

/* tcp.c; path: whoever is in wait may have missed what was to wake it */
void tcp_rearm(struct tcp *t);

/* tcp_send.c */
int tcp_send(void *priv, node_id to, const struct ic_msg *msg);
void tcp_spoil(void *priv, node_id to, enum ic_spoil how);
void tcp_flush(struct tcp *t, struct tcp_peer *p);

/* tcp_link.c */
struct tcp_link *tcp_link_new(struct tcp *t, int fd, enum tcp_phase phase, uint32_t events);
void tcp_link_free(struct tcp *t, struct tcp_link *l);
/* A handshake ended well: the link carries messages from here. */
void tcp_link_open(struct tcp *t, struct tcp_link *l, uint32_t epoch);
/* Reads once.  >0 bytes, 0 nothing there now, -EPIPE the end. */
int tcp_link_read(struct tcp *t, struct tcp_link *l);
/* One round of an open link's stream; may free it.  Messages delivered. */
int tcp_link_pump(struct tcp *t, struct tcp_link *l, unsigned budget);
/* One round of the path.  Messages delivered.  Links that break are only marked. */
unsigned tcp_path_pump(struct tcp *t, unsigned budget);
/* Frees the marked ones; while no event of the epoll set is in hand, since that names its link by address. */
void tcp_path_sweep(struct tcp *t);
extern const struct ic_path_host tcp_path_host;

/* tcp_hello.c */
int tcp_listen(struct tcp *t, const char *address);
void tcp_address(void *priv, char out[static IC_ADDR_MAX]);
void tcp_accept(struct tcp *t);
void tcp_connect(struct tcp *t, node_id peer);
/* Takes the handshake as far as the bytes go; may free the link. */
void tcp_hello_step(struct tcp *t, struct tcp_link *l);
void tcp_hello_fail(struct tcp *t, struct tcp_link *l);
/* We can reach the other side over the path now. */
void tcp_path_reached(struct tcp *t, struct tcp_link *l);
/* The other side has sent a frame over the path of a link that is not open: opens it.  False: it must not. */
bool tcp_path_ready(struct tcp *t, struct tcp_link *l);
/* Join requests, retries, deadlines. */
void tcp_timers(struct tcp *t);

#endif
