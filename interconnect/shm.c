/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/shm.c - rings in a shared memory file.
 *
 * Owns      The mappings of one link.
 * Threads   shm.h.  One producer and one consumer per ring; free-running 32-bit indices.
 * I/O       memfd_create, mmap; none on the data path.
 *
 * The bytes of each ring are mapped twice in a row, so a frame that wraps is contiguous to the reader.
 */
#include "interconnect/shm.h"

#include "base/assert.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* One page of the file per ring; each field has a cache line and one writer. */
struct ring_ctl {
	_Alignas(64) _Atomic uint32_t head;   /* producer: bytes written so far */
	_Alignas(64) _Atomic uint32_t tail;   /* consumer: bytes read so far */
	_Alignas(64) _Atomic uint32_t sleeps; /* consumer sets, producer takes: ring the bell */
};
STATIC_ASSERT(sizeof(struct ring_ctl) <= PAGE_SIZE, "a page each");

#define CTL_BYTES (2 * PAGE_SIZE)
#define FILE_BYTES (CTL_BYTES + 2 * SHM_RING_BYTES)

struct shm_link {
	uint8_t *ctl; /* CTL_BYTES */
	struct ring_ctl *tx, *rx;
	uint8_t *tx_bytes, *rx_bytes; /* 2 * SHM_RING_BYTES each */
	uint32_t head, tail;          /* own copies of what this side writes */
};

int shm_create(void)
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

struct shm_link *shm_map(int fd, bool acceptor)
{
	struct shm_link *s = calloc(1, sizeof(*s));
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *ctl;

	if (!s || seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) ||
	    st.st_size != FILE_BYTES) {
		free(s);
		return NULL;
	}
	ctl = mmap(NULL, CTL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	s->ctl = ctl == MAP_FAILED ? NULL : ctl;
	s->tx_bytes = map_twice(fd, CTL_BYTES + (acceptor ? 0 : SHM_RING_BYTES));
	s->rx_bytes = map_twice(fd, CTL_BYTES + (acceptor ? SHM_RING_BYTES : 0));
	if (!s->ctl || !s->tx_bytes || !s->rx_bytes) {
		shm_unmap(s);
		return NULL;
	}
	s->tx = (struct ring_ctl *)(s->ctl + (acceptor ? 0 : PAGE_SIZE));
	s->rx = (struct ring_ctl *)(s->ctl + (acceptor ? PAGE_SIZE : 0));
	return s;
}

void shm_unmap(struct shm_link *s)
{
	if (s->ctl)
		munmap(s->ctl, CTL_BYTES);
	if (s->tx_bytes)
		munmap(s->tx_bytes, 2 * SHM_RING_BYTES);
	if (s->rx_bytes)
		munmap(s->rx_bytes, 2 * SHM_RING_BYTES);
	free(s);
}

int shm_put(struct shm_link *s, const struct iovec *iov, unsigned count)
{
	/* Acquire: the reader is done with the bytes that it has counted. */
	uint32_t used = s->head - atomic_load_explicit(&s->tx->tail, memory_order_acquire);
	size_t total = 0;
	uint8_t *at = s->tx_bytes + s->head % SHM_RING_BYTES;

	if (used > SHM_RING_BYTES)
		return -EPROTO;
	for (unsigned i = 0; i < count; i++)
		total += iov[i].iov_len;
	if (SHM_RING_BYTES - used < total)
		return -EAGAIN;
	for (unsigned i = 0; i < count; i++) {
		if (!iov[i].iov_len)
			continue; /* then the base may be NULL */
		memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	s->head += (uint32_t)total;
	/* Before the look at `sleeps` (shm_bell_wanted); shm_sleep does it the other way round. */
	atomic_store(&s->tx->head, s->head);
	return 0;
}

bool shm_bell_wanted(struct shm_link *s)
{
	return atomic_load(&s->tx->sleeps) && atomic_exchange(&s->tx->sleeps, 0);
}

int shm_peek(struct shm_link *s, const uint8_t **at)
{
	uint32_t unread = atomic_load_explicit(&s->rx->head, memory_order_acquire) - s->tail;

	if (unread > SHM_RING_BYTES)
		return -EPROTO;
	*at = s->rx_bytes + s->tail % SHM_RING_BYTES;
	return (int)unread;
}

void shm_consume(struct shm_link *s, size_t len)
{
	s->tail += (uint32_t)len;
	atomic_store_explicit(&s->rx->tail, s->tail, memory_order_release);
}

bool shm_sleep(struct shm_link *s, bool on)
{
	atomic_store(&s->rx->sleeps, on);
	/* s->tail belongs to the thread inside progress; the shared copy is what this side last wrote. */
	return atomic_load(&s->rx->head) != atomic_load(&s->rx->tail);
}
