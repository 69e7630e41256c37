/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/shm.h - two rings in shared memory between two processes of one host.
 *
 * What      The data path of the "shm" backend; sockets, handshake and life of a link are tcp.c's, over a unix
 *           socket, which also carries the memory's descriptor, the doorbell, and the news of a death.
 * Threads   put: senders, one at a time (tx_lock).  peek, consume: the one inside progress.  sleep: any.
 * Limits    SHM_RING_BYTES of unread frames per direction, then -EAGAIN.  The other side may write anything into
 *           the memory at any time: indices are checked, headers and bodies are copied before they are read.
 */
#ifndef INTERCONNECT_SHM_H
#define INTERCONNECT_SHM_H

#include "base/err.h"
#include "interconnect/core/frame.h"

#include <sys/uio.h>

#define SHM_RING_BYTES (256u << 10) /* a power of two */

struct shm_link;

/* A new sealed memory file for one link; its descriptor or -errno. */
int shm_create(void);
/* Maps the memory of a link; does not keep fd.  NULL when it is not such a file or memory is short. */
struct shm_link *shm_map(int fd, bool acceptor);
void shm_unmap(struct shm_link *s);

/* 0, -EAGAIN: no room now, -EPROTO: the other side has spoilt the ring. */
MUST_CHECK int shm_put(struct shm_link *s, const struct iovec *iov, unsigned count);
/* True when the reader of what was just put sleeps and wants the doorbell; only one sender is told. */
bool shm_bell_wanted(struct shm_link *s);
/* Unread bytes at *at, contiguous; -EPROTO as above. */
int shm_peek(struct shm_link *s, const uint8_t **at);
void shm_consume(struct shm_link *s, size_t len);
/* This side will sleep, or is awake.  True when there is something unread, so that it must not sleep. */
bool shm_sleep(struct shm_link *s, bool on);

#endif
