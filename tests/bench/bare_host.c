/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bare_host.c - bare transports that need no library: a TCP connection, a ring in shared memory.
 *
 * Limits    One connection each.  Asserts instead of errors: it is a measure, not a transport.
 */
#include "tests/bench/bare.h"

#include "base/assert.h"
#include "base/err.h"

#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- TCP ---------------------------------------------------------------------------------------------------------- */

static struct {
	int listen_fd, fd;
	size_t have;
	uint8_t rx[65536];
} tcp;

static int tcp_open(const char *device, unsigned node, void *shared, uint8_t *address, unsigned *len)
{
	struct sockaddr_in *sa = (struct sockaddr_in *)(void *)address;
	socklen_t n = sizeof(*sa);

	(void)device;
	(void)shared;
	ASSERT(*len >= sizeof(*sa));
	*len = sizeof(*sa);
	tcp.fd = -1;
	tcp.listen_fd = socket(AF_INET, SOCK_STREAM, 0);
	*sa = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ASSERT(tcp.listen_fd >= 0 && !bind(tcp.listen_fd, (struct sockaddr *)sa, sizeof(*sa)) &&
	       !listen(tcp.listen_fd, 1) && !getsockname(tcp.listen_fd, (struct sockaddr *)sa, &n));
	if (node == 1)
		tcp.fd = socket(AF_INET, SOCK_STREAM, 0);
	return 0;
}

static void tcp_connect(const uint8_t *address, unsigned len)
{
	int one = 1;

	if (tcp.fd < 0)
		tcp.fd = accept(tcp.listen_fd, NULL, NULL);
	else
		ASSERT(!connect(tcp.fd, (const struct sockaddr *)(const void *)address, len));
	ASSERT(tcp.fd >= 0 && !setsockopt(tcp.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
}

static bool tcp_send(const void *at, unsigned len)
{
	ssize_t n = send(tcp.fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) {
		ASSERT(errno == EAGAIN);
		return false;
	}
	/* The rest of one that has begun must follow. */
	if ((size_t)n < len)
		ASSERT(send(tcp.fd, (const uint8_t *)at + n, len - (size_t)n, MSG_NOSIGNAL) == (ssize_t)(len - (size_t)n));
	return true;
}

static bool tcp_recv(unsigned len)
{
	if (tcp.have < len) {
		ssize_t n = recv(tcp.fd, tcp.rx + tcp.have, sizeof(tcp.rx) - tcp.have, MSG_DONTWAIT);

		ASSERT(n > 0 || (n < 0 && errno == EAGAIN));
		tcp.have += n > 0 ? (size_t)n : 0;
		if (tcp.have < len)
			return false;
	}
	/* What is read is not looked at, so it need not be moved. */
	tcp.have -= len;
	return true;
}

static void tcp_sleep(void)
{
	struct pollfd pfd = { .fd = tcp.fd, .events = POLLIN };

	ASSERT(poll(&pfd, 1, 1000) >= 0);
}

const struct bare_ops bare_tcp = { tcp_open, tcp_connect, tcp_send, tcp_recv, tcp_sleep };

/* --- shared memory ------------------------------------------------------------------------------------------------ */

#define CELLS 64u

struct ring {
	_Alignas(64) _Atomic uint32_t head;
	_Alignas(64) _Atomic uint32_t tail;
	_Alignas(64) _Atomic uint32_t sleeps;
	_Alignas(64) uint8_t cell[CELLS][BARE_MESSAGE_MAX];
};
STATIC_ASSERT(2 * sizeof(struct ring) <= BARE_SHARED_BYTES, "both fit");

static struct {
	struct ring *tx, *rx;
	uint32_t head, tail;
} shm;

static int shm_open_bare(const char *device, unsigned node, void *shared, uint8_t *address, unsigned *len)
{
	struct ring *rings = shared;

	(void)device;
	(void)address;
	*len = 0;
	shm.tx = &rings[node];
	shm.rx = &rings[!node];
	shm.head = shm.tail = 0;
	return 0;
}

static void shm_connect(const uint8_t *address, unsigned len)
{
	(void)address;
	(void)len;
}

static bool shm_send(const void *at, unsigned len)
{
	if (shm.head - atomic_load_explicit(&shm.tx->tail, memory_order_acquire) == CELLS)
		return false;
	memcpy(shm.tx->cell[shm.head % CELLS], at, len);
	atomic_store(&shm.tx->head, ++shm.head);
	if (atomic_load(&shm.tx->sleeps))
		syscall(SYS_futex, &shm.tx->head, FUTEX_WAKE, 1, NULL, NULL, 0);
	return true;
}

static bool shm_recv(unsigned len)
{
	(void)len;
	if (atomic_load_explicit(&shm.rx->head, memory_order_acquire) == shm.tail)
		return false;
	atomic_store_explicit(&shm.rx->tail, ++shm.tail, memory_order_release);
	return true;
}

static void shm_sleep(void)
{
	atomic_store(&shm.rx->sleeps, 1);
	syscall(SYS_futex, &shm.rx->head, FUTEX_WAIT, shm.tail, NULL, NULL, 0);
	atomic_store(&shm.rx->sleeps, 0);
}

const struct bare_ops bare_shm = { shm_open_bare, shm_connect, shm_send, shm_recv, shm_sleep };
