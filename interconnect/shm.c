/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/shm.c - the path of the backend "shm": two rings in shared memory between two processes of one host.
 *
 * Owns      The rings of each link: a sealed memory file that the acceptor makes and offers.
 * Threads   path.h.  One producer and one consumer per ring; free-running 32-bit indices.
 * I/O       memfd_create, mmap; none on the data path.
 * Limits    SHM_RING_BYTES of unread frames per direction, then -EAGAIN.  The other side may write anything into the
 *           memory at any time: indices are checked, headers and bodies are copied before they are looked at.
 *
 * The bytes of each ring are mapped twice in a row, so a frame that wraps is contiguous to the reader.
 */
#include "interconnect/path.h"

#include "base/assert.h"
#include "interconnect/core/frame.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_RING_BYTES (256u << 10) /* a power of two */

/* One page of the file per ring; each field has a cache line and one writer. */
struct ring_ctl {
	_Alignas(64) _Atomic uint32_t head;   /* producer: bytes written so far */
	_Alignas(64) _Atomic uint32_t tail;   /* consumer: bytes read so far */
	_Alignas(64) _Atomic uint32_t sleeps; /* consumer sets, producer takes: ring the bell */
};
STATIC_ASSERT(sizeof(struct ring_ctl) <= PAGE_SIZE, "a page each");

#define CTL_BYTES (2 * PAGE_SIZE)
#define FILE_BYTES (CTL_BYTES + 2 * SHM_RING_BYTES)

struct ic_path_link {
	struct ic_path *path;
	void *owner;
	bool acceptor;
	_Atomic bool broken;
	uint8_t *ctl; /* CTL_BYTES; NULL until the memory is there */
	struct ring_ctl *tx, *rx;
	uint8_t *tx_bytes, *rx_bytes; /* 2 * SHM_RING_BYTES each */
	uint32_t head, tail;          /* own copies of what this side writes */
	uint32_t tail_seen;	      /* of the other side, as last looked at: each look costs a cache line's way */
};

struct ic_path {
	const struct ic_path_host *host;
	pthread_mutex_t lock; /* rank: innermost; of links[] against sleep, which only reads it */
	struct ic_path_link *links[NODES_MAX];
	unsigned count, next;
};

/* --- the rings of one link ----------------------------------------------------------------------------------- */

static int memory_new(void)
{
	int fd = memfd_create("unum-link", MFD_CLOEXEC | MFD_ALLOW_SEALING), err = 0;

	if (fd < 0)
		return -errno;
	/* Sealed, so that neither side can take the memory from under the other. */
	if (ftruncate(fd, FILE_BYTES) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err = -errno;
	if (err)
		close(fd);
	return err ? err : fd;
}

static uint8_t *map_twice(int fd, off_t offset)
{
	uint8_t *p = mmap(NULL, 2 * SHM_RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	for (unsigned i = 0; i < 2; i++)
		if (mmap(p + i * SHM_RING_BYTES, SHM_RING_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, offset) == MAP_FAILED) {
			munmap(p, 2 * SHM_RING_BYTES);
			return NULL;
		}
	return p;
}

static void memory_unmap(struct ic_path_link *l)
{
	if (l->ctl)
		munmap(l->ctl, CTL_BYTES);
	if (l->tx_bytes)
		munmap(l->tx_bytes, 2 * SHM_RING_BYTES);
	if (l->rx_bytes)
		munmap(l->rx_bytes, 2 * SHM_RING_BYTES);
}

/* Does not keep fd.  -EPROTO when it is not such a file. */
static int memory_map(struct ic_path_link *l, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *ctl;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) || st.st_size != FILE_BYTES)
		return -EPROTO;
	ctl = mmap(NULL, CTL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	l->ctl = ctl == MAP_FAILED ? NULL : ctl;
	l->tx_bytes = map_twice(fd, CTL_BYTES + (l->acceptor ? 0 : SHM_RING_BYTES));
	l->rx_bytes = map_twice(fd, CTL_BYTES + (l->acceptor ? SHM_RING_BYTES : 0));
	if (!l->ctl || !l->tx_bytes || !l->rx_bytes)
		return -ENOMEM;
	pthread_mutex_lock(&l->path->lock); /* a sleeper may look at links[] */
	l->tx = (struct ring_ctl *)(l->ctl + (l->acceptor ? 0 : PAGE_SIZE));
	l->rx = (struct ring_ctl *)(l->ctl + (l->acceptor ? PAGE_SIZE : 0));
	pthread_mutex_unlock(&l->path->lock);
	return 0;
}

static int ring_put(struct ic_path_link *s, const struct iovec *iov, unsigned count)
{
	size_t total = 0;
	uint8_t *at = s->tx_bytes + s->head % SHM_RING_BYTES;

	for (unsigned i = 0; i < count; i++)
		total += iov[i].iov_len;
	if (SHM_RING_BYTES - (s->head - s->tail_seen) < total) {
		/* Acquire: the reader is done with the bytes that it has counted. */
		uint32_t tail = atomic_load_explicit(&s->tx->tail, memory_order_acquire);

		if (s->head - tail > SHM_RING_BYTES)
			return -EPROTO;
		s->tail_seen = tail;
		if (SHM_RING_BYTES - (s->head - tail) < total)
			return -EAGAIN;
	}
	for (unsigned i = 0; i < count; i++) {
		if (!iov[i].iov_len)
			continue; /* then the base may be NULL */
		memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	s->head += (uint32_t)total;
	/* Before the look at `sleeps` (bell_wanted); ring_sleep does it the other way round. */
	atomic_store(&s->tx->head, s->head);
	return 0;
}

/* True when the reader of what was just put sleeps and wants the doorbell; only one sender is told. */
static bool bell_wanted(struct ic_path_link *s)
{
	return atomic_load(&s->tx->sleeps) && atomic_exchange(&s->tx->sleeps, 0);
}

/* Unread bytes at *at, contiguous. */
static int ring_peek(struct ic_path_link *s, const uint8_t **at)
{
	uint32_t unread = atomic_load_explicit(&s->rx->head, memory_order_acquire) - s->tail;

	if (unread > SHM_RING_BYTES)
		return -EPROTO;
	*at = s->rx_bytes + s->tail % SHM_RING_BYTES;
	return (int)unread;
}

static void ring_consume(struct ic_path_link *s, size_t len)
{
	s->tail += (uint32_t)len;
	atomic_store_explicit(&s->rx->tail, s->tail, memory_order_release);
}

static bool ring_sleep(struct ic_path_link *s, bool on)
{
	atomic_store(&s->rx->sleeps, on);
	/* s->tail belongs to the thread inside progress; the shared copy is what this side last wrote. */
	return atomic_load(&s->rx->head) != atomic_load(&s->rx->tail);
}

/* --- the path ----------------------------------------------------------------------------------------------------- */

static int shm_open_path(const char *device, const struct ic_path_host *host, unsigned nodes, struct ic_path **out)
{
	struct ic_path *p = calloc(1, sizeof(*p));

	(void)device;
	(void)nodes;
	if (!p)
		return -ENOMEM;
	p->host = host;
	pthread_mutex_init(&p->lock, NULL);
	*out = p;
	return 0;
}

static void shm_close_path(struct ic_path *p)
{
	ASSERT(!p->count);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int shm_link_open(struct ic_path *p, void *owner, node_id peer, bool acceptor, struct ic_path_link **out,
			 struct ic_path_offer *offer)
{
	struct ic_path_link *l;
	int err = 0;

	(void)peer;
	if (p->count == NODES_MAX) /* a proven peer that tries many times at once */
		return -EBUSY;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	*l = (struct ic_path_link){ .path = p, .owner = owner, .acceptor = acceptor };
	offer->fd = -1;
	offer->len = 0;
	if (acceptor) {
		offer->fd = memory_new();
		err = offer->fd < 0 ? offer->fd : memory_map(l, offer->fd);
	}
	if (err) {
		if (offer->fd >= 0)
			close(offer->fd);
		memory_unmap(l);
		free(l);
		return err;
	}
	pthread_mutex_lock(&p->lock);
	p->links[p->count++] = l;
	pthread_mutex_unlock(&p->lock);
	*out = l;
	return 0;
}

static int shm_link_connect(struct ic_path_link *l, const struct ic_path_offer *theirs)
{
	if (l->acceptor)
		return 0;
	return theirs->fd < 0 || l->ctl ? -EPROTO : memory_map(l, theirs->fd);
}

static void shm_link_close(struct ic_path_link *l)
{
	struct ic_path *p = l->path;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->count; i++)
		if (p->links[i] == l)
			p->links[i] = p->links[--p->count];
	pthread_mutex_unlock(&p->lock);
	memory_unmap(l);
	free(l);
}

static int shm_send(struct ic_path_link *l, const struct iovec *iov, unsigned count, bool *bell)
{
	int err = ring_put(l, iov, count);

	*bell = !err && bell_wanted(l);
	return err;
}

static unsigned link_poll(struct ic_path_link *l, unsigned budget)
{
	const struct ic_path_host *host = l->path->host;
	unsigned done = 0;

	while (done < budget && l->rx && !l->broken) {
		uint8_t head[IC_FRAME_HEADER + IC_FRAME_BODY_MAX];
		const uint8_t *at;
		int len = ring_peek(l, &at), used = -EPROTO;

		if (!len)
			break;
		if (len >= (int)IC_FRAME_HEADER) { /* frames are put as a whole */
			size_t body;

			/* The other side can still write there. */
			memcpy(head, at, IC_FRAME_HEADER);
			body = ic_frame_body_len(head);
			if (body <= IC_FRAME_BODY_MAX && IC_FRAME_HEADER + body <= (size_t)len) {
				memcpy(head + IC_FRAME_HEADER, at + IC_FRAME_HEADER, body);
				used = host->frame(l->owner, head, at + IC_FRAME_HEADER + body, (size_t)len);
			}
		}
		if (used < 0) {
			l->broken = true;
			host->broken(l->owner, -EPROTO);
			break;
		}
		ring_consume(l, (size_t)used);
		done++;
	}
	return done;
}

static unsigned shm_poll(struct ic_path *p, unsigned budget)
{
	unsigned done = 0, count = p->count, start = p->next++;

	for (unsigned i = 0; i < count && done < budget; i++)
		done += link_poll(p->links[(start + i) % count], budget - done);
	return done;
}

static bool shm_sleep(struct ic_path *p, bool on)
{
	bool unread = false;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->count; i++)
		if (p->links[i]->rx && !p->links[i]->broken)
			unread |= ring_sleep(p->links[i], on);
	pthread_mutex_unlock(&p->lock);
	return unread;
}

static int shm_fd(struct ic_path *p)
{
	(void)p;
	return -1;
}

const struct ic_path_ops ic_path_shm = {
	.local = true,
	.open = shm_open_path,
	.close = shm_close_path,
	.link_open = shm_link_open,
	.link_connect = shm_link_connect,
	.link_close = shm_link_close,
	.send = shm_send,
	.poll = shm_poll,
	.sleep = shm_sleep,
	.fd = shm_fd,
};
