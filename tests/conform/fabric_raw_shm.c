/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_raw_shm.c - a proven peer of the shm backend that writes what it likes into the shared rings.
 *
 * Node 2 is played by hand; the link between 0 and 1 must not notice.  The layout is that of interconnect/shm.c.
 */
#include "tests/conform/fabric_raw.h"

#include "interconnect/core/frame.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING_BYTES (256u << 10)
#define CTL_BYTES (2 * PAGE_SIZE)
#define HEAD_AT PAGE_SIZE	  /* of the ring that the connector, node 2, fills */
#define TAIL_OF_OURS_AT 64u	  /* how far node 2 says to have read in the other one */
#define BYTES_AT (CTL_BYTES + RING_BYTES)

struct liar {
	int fd;
	uint8_t *memory;
	uint32_t epoch;
};

/* Through the handshake and the offers until the link is up. */
static void liar_up(struct end *e, struct liar *l)
{
	struct ic_hello h = { .kind = IC_OFFER }, theirs;
	uint8_t bytes[IC_HELLO_MAX];
	unsigned ups = e[0].ups;
	int memory;

	l->fd = raw_proven(e, &l->epoch);
	raw_read_record(e, l->fd, &theirs, &memory);
	CHECK(theirs.kind == IC_OFFER && memory >= 0);
	l->memory = mmap(NULL, CTL_BYTES + 2 * RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	CHECK(l->memory != MAP_FAILED);
	close(memory);
	send(l->fd, bytes, ic_hello_encode(&h, bytes), MSG_NOSIGNAL);
	h.kind = IC_READY;
	send(l->fd, bytes, ic_hello_encode(&h, bytes), MSG_NOSIGNAL);
	PUMP_FOR(e, 2, e[0].ups == ups + 1, 10 * NS_PER_S);
}

static void head_set(struct liar *l, uint32_t head)
{
	atomic_store((_Atomic uint32_t *)(void *)(l->memory + HEAD_AT), head);
}

static void frame_put(struct liar *l, uint16_t body_len, uint32_t seq, uint32_t head)
{
	struct ic_frame fr = { .port = IC_PORT_TEST, .body_len = body_len, .epoch = l->epoch, .seq = seq };

	ic_frame_encode(&fr, l->memory + BYTES_AT);
	head_set(l, head);
}

static void lie_head(struct liar *l)
{
	head_set(l, RING_BYTES + 1);
}
static void lie_head_back(struct liar *l)
{
	head_set(l, (uint32_t)-1);
}
static void lie_half_header(struct liar *l)
{
	frame_put(l, 0, 0, IC_FRAME_HEADER - 1);
}
static void lie_half_body(struct liar *l)
{
	frame_put(l, 100, 0, IC_FRAME_HEADER + 50);
}
static void lie_long_body(struct liar *l)
{
	frame_put(l, IC_FRAME_BODY_MAX + 1, 0, RING_BYTES);
}
static void lie_seq(struct liar *l)
{
	frame_put(l, 0, 1, IC_FRAME_HEADER);
}
static void lie_epoch(struct liar *l)
{
	l->epoch++;
	frame_put(l, 0, 0, IC_FRAME_HEADER);
}
static void lie_data(struct liar *l)
{
	frame_put(l, 0, 0, IC_FRAME_HEADER);
	l->memory[BYTES_AT + 4] = 1; /* a byte of data that is not there */
}
/* To have read what will not be written for long: found out when the ring has been filled once, and the index is looked at. */
static void lie_tail(struct liar *l)
{
	atomic_store((_Atomic uint32_t *)(void *)(l->memory + TAIL_OF_OURS_AT), 1u << 31);
}

void shm_garbage_in_the_rings(void)
{
	static void (*const lies[])(struct liar *) = { lie_head,      lie_head_back, lie_half_header, lie_half_body,
						       lie_long_body, lie_seq,	     lie_epoch,	      lie_data,
						       lie_tail };
	struct end e[2];

	raw_live_open(e);
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		unsigned downs = e[0].downs;
		struct liar l;

		liar_up(e, &l);
		lies[i](&l);
		PUMP_FOR(e, 2, (send_next(&e[0], 2), e[0].downs == downs + 1), 10 * NS_PER_S);
		CHECK(!e[0].got[2] && e[0].is_up[1] && !e[1].downs);
		munmap(l.memory, CTL_BYTES + 2 * RING_BYTES);
		close(l.fd);
	}
	e[0].downs = 0; /* those of node 2 */
	raw_live(e);
	ends_close(e, 2);
}
