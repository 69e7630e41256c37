/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/map_tlb.c - rights for users that cache host pointers themselves (the bt engine's TLB).
 *
 * What      A right is the byte in dsm.state.  To take one: lower the byte, then post the page to every
 *           reader that has looked at it.  Readers that are away get it in their queue and are not waited
 *           for; active ones own a share of a ticket, and whoever gives back its last share tells the core
 *           (UNMAPPED) from its own thread, so the answer to the peer leaves from there.  Nobody waits here.
 * Owns      Readers, their queues, tickets.
 * Threads   grant, revoke, written: under dsm.lock.  A reader's calls: its own thread; reader.lock guards what
 *           revokers write.  Drop callbacks run in the reader's thread without locks.
 * Limits    QUEUE pages per reader between two polls; more become DSM_ALL.
 *
 * Why it is right (I3 of docs/protocol.md): a reader uses a right only while active and only if it saw the
 * byte since its last poll or enter.  The byte is lowered before reader.lock is taken to post; the reader
 * takes the same lock to fetch.  So it either saw the old byte and will find the post at its next poll, before
 * which the ticket cannot complete, or it fetched after the post and sees the lowered byte.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUEUE 64u
#define SYNCS VCPUS_MAX /* dsm_readers_sync at one time: one per reader */

struct post {
	gfn_t gfn;
	enum dsm_right right;
};

struct ticket {
	_Atomic unsigned shares;  /* active readers that have not let go, and the revoker itself */
	uint32_t page;            /* of a revocation */
	_Atomic uint32_t *synced; /* of a dsm_readers_sync: futex word of its thread; else NULL */
	uint16_t next_free;
};

struct tlb {
	struct dsm_reader *readers; /* dsm.lock */
	_Atomic uint8_t *holders;   /* [dsm.top]: marks of the readers that may have cached something of the page */
	uint64_t top;
	unsigned opened; /* readers ever; dsm.lock */
	struct ticket *tickets;     /* [1 .. count] */
	uint16_t free;
	unsigned count;
};

struct dsm_reader {
	struct dsm *d;
	uint8_t mark; /* its bit in holders; the last bit is shared by all beyond the seventh */
	struct dsm_reader *next; /* dsm.lock */
	_Atomic uint32_t *kick;
	_Atomic bool posted; /* something below waits; only a hint, the lock decides */
	pthread_mutex_t lock;
	/* All below: lock. */
	bool active, overflow;
	unsigned posts, tickets;
	struct post post[QUEUE];
	uint16_t *ticket; /* [tlb.count] */
	uint16_t *spare;  /* the reader's own: fetched tickets */
};

/* --- the DSM's side --------------------------------------------------------------------------------- */

static int tlb_open(struct dsm *d, const struct dsm_config *cfg, void **out)
{
	struct tlb *m = calloc(1, sizeof(*m));

	(void)cfg;
	if (!m)
		return -ENOMEM;
	m->count = drive_flights(d) + SYNCS;
	ASSERT(m->count < UINT16_MAX);
	m->tickets = calloc(m->count + 1, sizeof(*m->tickets));
	m->top = d->top;
	m->holders = mmap(NULL, m->top, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!m->tickets || m->holders == MAP_FAILED) {
		free(m->tickets);
		free(m);
		return -ENOMEM;
	}
	for (unsigned i = m->count; i; i--) {
		m->tickets[i].next_free = m->free;
		m->free = (uint16_t)i;
	}
	*out = m;
	return 0;
}

static void tlb_close(void *map)
{
	struct tlb *m = map;

	ASSERT(!m->readers);
	munmap((void *)m->holders, m->top);
	free(m->tickets);
	free(m);
}

static void tlb_grant(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	state_set(d, gfn, right);
}

static void post(struct dsm_reader *r, gfn_t gfn, enum dsm_right right)
{
	if (r->posts == QUEUE)
		r->overflow = true;
	else
		r->post[r->posts++] = (struct post){ gfn, right };
	atomic_store_explicit(&r->posted, true, memory_order_release);
	if (r->active)
		atomic_store_explicit(r->kick, 1, memory_order_release);
}

static uint16_t ticket_new(struct tlb *m, uint32_t page)
{
	uint16_t i = m->free;

	ASSERT(i); /* I7: revocations are bounded by the core's flights */
	m->free = m->tickets[i].next_free;
	m->tickets[i].page = page;
	m->tickets[i].synced = NULL;
	atomic_store_explicit(&m->tickets[i].shares, 1, memory_order_relaxed);
	return i;
}

static void ticket_free(struct tlb *m, uint16_t i)
{
	m->tickets[i].next_free = m->free;
	m->free = i;
}

/*
 * The readers that may have cached something of gfn above `right`; those that lose all are forgotten.
 * Sequentially consistent against dsm_reader_right, which marks first and reads the right then, while here the right
 * was lowered before: either we see the mark, or the reader sees the lower right.
 */
static uint8_t holders_of(struct tlb *m, gfn_t gfn, enum dsm_right right)
{
	return right == DSM_NONE ? atomic_exchange(&m->holders[gfn], 0) :
				   atomic_fetch_or(&m->holders[gfn], 0);
}

/* True: no active reader has to let go.  The ticket is free again then. */
static bool post_to_holders(struct tlb *m, uint16_t t, gfn_t gfn, enum dsm_right right)
{
	uint8_t holders = holders_of(m, gfn, right);

	for (struct dsm_reader *r = m->readers; r; r = r->next) {
		if (!(holders & r->mark))
			continue;
		pthread_mutex_lock(&r->lock);
		post(r, gfn, right);
		if (r->active) {
			ASSERT(r->tickets < m->count);
			atomic_fetch_add(&m->tickets[t].shares, 1);
			r->ticket[r->tickets++] = t;
		}
		pthread_mutex_unlock(&r->lock);
	}
	if (atomic_fetch_sub(&m->tickets[t].shares, 1) > 1)
		return false;
	ticket_free(m, t);
	return true;
}

static bool tlb_revoke(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right)
{
	struct tlb *m = d->map_data;

	state_set(d, gfn, right);
	return post_to_holders(m, ticket_new(m, page), gfn, right);
}

void dsm_readers_sync(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	struct tlb *m = d->map_data;
	_Atomic uint32_t synced = 0;
	uint16_t t;

	dsm_lock(d);
	t = ticket_new(m, 0);
	m->tickets[t].synced = &synced;
	if (post_to_holders(m, t, gfn, right))
		atomic_store(&synced, 1);
	dsm_unlock(d);
	for (unsigned i = 0; i < 100 && !atomic_load(&synced); i++)
		sched_yield();
	while (!atomic_load(&synced))
		syscall(SYS_futex, &synced, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

/* Not waited for: whoever is told by the device that the data is there polls before it looks. */
static void tlb_written(struct dsm *d, gfn_t gfn)
{
	struct tlb *m = d->map_data;
	/* Marks stay: a reader that has not polled yet still uses what it cached, so a revocation must find it. */
	uint8_t holders = atomic_load(&m->holders[gfn]);

	for (struct dsm_reader *r = m->readers; r; r = r->next) {
		if (!(holders & r->mark))
			continue;
		pthread_mutex_lock(&r->lock);
		post(r, gfn, DSM_NONE);
		pthread_mutex_unlock(&r->lock);
	}
}

const struct map_ops map_tlb_ops = {
	.open = tlb_open,
	.close = tlb_close,
	.grant = tlb_grant,
	.revoke = tlb_revoke,
	.written = tlb_written,
};

/* --- the reader's side ------------------------------------------------------------------------------ */

int dsm_reader_open(struct dsm *d, _Atomic uint32_t *kick, struct dsm_reader **out)
{
	struct tlb *m = d->map_data;
	struct dsm_reader *r;

	if (d->map != &map_tlb_ops)
		return -EINVAL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->ticket = calloc(2 * (size_t)m->count + 1, sizeof(*r->ticket));
	if (!r->ticket) {
		free(r);
		return -ENOMEM;
	}
	r->spare = r->ticket + m->count;
	r->d = d;
	r->kick = kick;
	pthread_mutex_init(&r->lock, NULL);
	dsm_lock(d);
	r->mark = (uint8_t)(1u << (m->opened < 7 ? m->opened : 7));
	m->opened++;
	r->next = m->readers;
	m->readers = r;
	dsm_unlock(d);
	*out = r;
	return 0;
}

/* Callers may have live SSE state that is not theirs (hv/bt/cpu.h). */
__attribute__((target("general-regs-only"))) enum dsm_right
dsm_reader_right(struct dsm_reader *r, gfn_t gfn)
{
	struct tlb *m = r->d->map_data;

	if (gfn >= m->top)
		return DSM_NONE;
	if (!(atomic_load_explicit(&m->holders[gfn], memory_order_relaxed) & r->mark))
		atomic_fetch_or(&m->holders[gfn], r->mark);
	return dsm_right(r->d, gfn);
}

void dsm_reader_close(struct dsm_reader *r)
{
	struct tlb *m = r->d->map_data;
	struct dsm_reader **at = &m->readers;

	ASSERT(!r->active);
	dsm_lock(r->d);
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	dsm_unlock(r->d);
	pthread_mutex_destroy(&r->lock);
	free(r->ticket < r->spare ? r->ticket : r->spare);
	free(r);
}

/* Gives back shares; the last one of a ticket tells the core. */
static void tickets_return(struct dsm *d, const uint16_t *ticket, unsigned count)
{
	struct tlb *m = d->map_data;

	for (unsigned i = 0; i < count; i++) {
		struct ticket *t = &m->tickets[ticket[i]];
		uint32_t page = t->page;

		_Atomic uint32_t *synced = t->synced;

		if (atomic_fetch_sub(&t->shares, 1) > 1)
			continue;
		dsm_lock(d);
		ticket_free(m, ticket[i]);
		if (!synced)
			map_revoked(d, page);
		dsm_unlock(d);
		if (!synced)
			continue;
		/* Its word may be gone once it reads 1; waking a dead address is harmless. */
		atomic_store(synced, 1);
		syscall(SYS_futex, synced, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}

/* Under r->lock: takes the tickets to r->spare. */
static unsigned tickets_fetch(struct dsm_reader *r)
{
	uint16_t *fetched = r->ticket;
	unsigned count = r->tickets;

	r->ticket = r->spare;
	r->spare = fetched;
	r->tickets = 0;
	return count;
}

static void reader_catch_up(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	struct post copy[QUEUE];
	unsigned posts, tickets;
	bool all;

	pthread_mutex_lock(&r->lock);
	r->active = true;
	posts = r->posts;
	all = r->overflow;
	memcpy(copy, r->post, posts * sizeof(copy[0]));
	tickets = tickets_fetch(r);
	r->posts = 0;
	r->overflow = false;
	atomic_store_explicit(&r->posted, false, memory_order_relaxed);
	pthread_mutex_unlock(&r->lock);
	if (all)
		drop(arg, DSM_ALL, DSM_NONE);
	else
		for (unsigned i = 0; i < posts; i++)
			drop(arg, copy[i].gfn, copy[i].right);
	tickets_return(r->d, r->spare, tickets);
}

void dsm_reader_enter(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	ASSERT(!r->active);
	reader_catch_up(r, drop, arg);
}

void dsm_reader_poll(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	ASSERT(r->active);
	if (atomic_load_explicit(&r->posted, memory_order_acquire))
		reader_catch_up(r, drop, arg);
}

void dsm_reader_leave(struct dsm_reader *r)
{
	unsigned tickets;

	pthread_mutex_lock(&r->lock);
	ASSERT(r->active);
	r->active = false;
	tickets = tickets_fetch(r);
	pthread_mutex_unlock(&r->lock);
	tickets_return(r->d, r->spare, tickets);
}
