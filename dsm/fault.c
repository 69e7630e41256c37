/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/fault.c - a thread wants a page: dsm_acquire and the copies that device models make.
 *
 * What      Look, ask the core, wait.  A waiting thread drives the fabric itself for a while, so that a fault
 *           costs no thread switch; then it sleeps on a futex and the net thread does the work.
 * Owns      The waiters (on their threads' stacks, linked under dsm.lock) and, per thread, which pages it
 *           asked for lately.
 * Threads   Users; not the one inside ic_progress.  The first remote wait of a thread gives it a short scheduling
 *           slice (SLICE_NS), for good.
 */
#include "dsm/dsm_priv.h"

#include "base/clock.h"

#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a waiter polls before it sleeps: longer than a peer that is awake takes to answer, and not much to lose
 * for those that wait for its CPU. */
#define POLL_NS (120 * NS_PER_US)
/* Slice of a thread that waits for remote pages: where CPUs are short, a page is held up by the slices of all who
 * have to let go of it. */
#define SLICE_NS (300 * NS_PER_US)
#define ROOM_NS NS_PER_MS /* how long to wait for room before asking again */

/* --- waiters ---------------------------------------------------------------------------------------- */

static struct waiter **bucket_of(struct dsm *d, uint32_t page)
{
	return &d->waiting[page % WAIT_BUCKETS];
}

void waiter_link(struct dsm *d, struct waiter *w)
{
	struct waiter **b = bucket_of(d, w->page);

	w->next = *b;
	*b = w;
}

void waiter_unlink(struct dsm *d, struct waiter *w)
{
	for (struct waiter **at = bucket_of(d, w->page); *at; at = &(*at)->next)
		if (*at == w) {
			*at = w->next;
			return;
		}
}

/* Takes *at out of its list and tells its thread.  The waiter may be gone when this returns. */
static void waiter_finish(struct dsm *d, struct waiter **at, enum wait_state how)
{
	struct waiter *w = *at;

	*at = w->next;
	w->from = d->serving;
	if (w->finished) {
		w->finished(w, how);
		return;
	}
	/* Release: what the step did (rights, bytes) is seen by the thread that sees the state. */
	if (atomic_exchange_explicit(&w->state, how, memory_order_acq_rel) == WAIT_ASLEEP)
		syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void waiters_wake(struct dsm *d, uint32_t page, enum dsm_right right)
{
	struct waiter **at = bucket_of(d, page);

	while (*at) {
		if ((*at)->page == page && (*at)->right <= right) {
			if ((*at)->pin_for && collect_granted(&(*at)->pin_for->c, page, (uint8_t)right))
				drive_pin(d, page);
			waiter_finish(d, at, WAIT_DONE);
		} else
			at = &(*at)->next;
	}
}

void waiters_room(struct dsm *d)
{
	for (unsigned i = 0; i < WAIT_BUCKETS; i++) {
		struct waiter **at = &d->waiting[i];

		while (*at) {
			if ((*at)->no_room)
				waiter_finish(d, at, WAIT_AGAIN);
			else
				at = &(*at)->next;
		}
	}
}

unsigned waiters_asking(const struct dsm *d)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WAIT_BUCKETS; i++)
		for (const struct waiter *w = d->waiting[i]; w; w = w->next)
			n += !w->no_room;
	return n;
}

void waiters_end(struct dsm *d)
{
	for (unsigned i = 0; i < WAIT_BUCKETS; i++)
		while (d->waiting[i])
			waiter_finish(d, &d->waiting[i], WAIT_ENDED);
}

static bool still_waiting(struct waiter *w)
{
	return atomic_load_explicit(&w->state, memory_order_acquire) <= WAIT_ASLEEP;
}

static void sleep_until(struct waiter *w, uint64_t deadline_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
			       .tv_nsec = (long)(deadline_ns % NS_PER_S) };
	uint32_t spinning = WAIT_SPINNING;

	if (deadline_ns / NS_PER_S > INT32_MAX)
		ts.tv_sec = INT32_MAX; /* "never" */
	atomic_compare_exchange_strong(&w->state, &spinning, WAIT_ASLEEP);
	while (still_waiting(w) && clock_now_ns() < deadline_ns)
		syscall(SYS_futex, &w->state, FUTEX_WAIT_BITSET_PRIVATE, WAIT_ASLEEP, &ts, NULL,
			FUTEX_BITSET_MATCH_ANY);
}

/* Moves the fabric itself for a while: the answer is often there before a sleep would have begun. */
static void poll_fabric(struct dsm *d, struct waiter *w, uint64_t deadline_ns)
{
	uint64_t now = clock_now_ns(), poll_until = now + POLL_NS;

	drive_poller_enter(d);
	while (still_waiting(w) && now < poll_until && now < deadline_ns) {
		if (!drive_poll(d))
			__builtin_ia32_pause();
		now = clock_now_ns();
	}
	drive_poller_leave(d);
}

/* Until the waiter is finished or the deadline passes; without locks. */
static void wait_for(struct dsm *d, struct waiter *w, uint64_t deadline_ns)
{
	static _Thread_local bool sliced;

	if (!sliced) {
		thread_slice(SLICE_NS);
		sliced = true;
	}
	if (!d->one_cpu)
		poll_fabric(d, w, deadline_ns);
	if (still_waiting(w))
		sleep_until(w, deadline_ns);
}

/* --- retries ---------------------------------------------------------------------------------------- */

/*
 * An instruction that needs several pages may lose the first while it waits for the last; it asks again at
 * once.  The core then grants for longer.  Each thread remembers what it asked for lately.  A page that two nodes
 * write in turns is asked for often too, but only after it was used for a while.
 */
#define AT_ONCE_NS (20 * NS_PER_US)
#define RETRY_MAX 8u

static _Thread_local struct recents mine;
static _Thread_local struct dsm_stalls *stalls; /* dsm_stalls_bind */
static _Thread_local node_id served_by;		/* who ended the last wait */

struct recent *recents_find(struct recents *rs, const struct dsm *d, gfn_t gfn, enum dsm_right right,
			    uint64_t now_ns, uint64_t at_once_ns)
{
	struct recent *oldest = &rs->slot[0];
	bool again = now_ns - rs->last_end_ns < at_once_ns;

	rs->chain += !again;
	for (unsigned i = 0; i < RECENT; i++) {
		struct recent *r = &rs->slot[i];

		if (r->d == d && r->gfn == gfn) {
			r->retry = !again ? 0 : r->retry < RETRY_MAX ? r->retry + 1 : RETRY_MAX;
			if (r->chain != rs->chain || r->right < right)
				r->right = right;
			r->chain = rs->chain;
			return r;
		}
		if (r->granted_ns < oldest->granted_ns)
			oldest = r;
	}
	*oldest = (struct recent){ .d = d, .gfn = gfn, .right = right, .chain = rs->chain };
	return oldest;
}

/* --- acquire ---------------------------------------------------------------------------------------- */

/* This node is the only owner there is. */
void acquire_alone(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	if (dsm_right(d, gfn) < right)
		d->map->grant(d, gfn, DSM_WRITE);
	count_one(&d->count.faults_local);
}

int waiter_ask(struct dsm *d, struct waiter *w, unsigned retry, uint64_t deadline_ns, bool *remote)
{
	uint64_t now = clock_now_ns();
	bool no_room;
	uint32_t state;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	w->state = WAIT_SPINNING;
	w->no_room = false;
	dsm_lock(d);
	if (atomic_load(&d->stopping) || rehome_away(d)) {
		dsm_unlock(d);
		return atomic_load(&d->stopping) ? -EPIPE : -EHOSTDOWN;
	}
	waiter_link(d, w);
	drive_request(d, w, retry);
	no_room = w->no_room;
	dsm_unlock(d);
	if (no_room && deadline_ns - now > ROOM_NS)
		deadline_ns = now + ROOM_NS; /* then ask again, whatever was in the way */
	else
		no_room = false;
	if (still_waiting(w)) {
		*remote = true;
		wait_for(d, w, deadline_ns);
	}
	if (still_waiting(w)) {
		dsm_lock(d);
		if (still_waiting(w))
			waiter_unlink(d, w);
		dsm_unlock(d);
	}
	state = atomic_load_explicit(&w->state, memory_order_acquire);
	if (state == WAIT_DONE) {
		served_by = w->from;
		return 0;
	}
	if (state == WAIT_ENDED)
		return -EPIPE;
	return state == WAIT_AGAIN || no_room ? -EAGAIN : -ETIMEDOUT;
}

int dsm_acquire(struct dsm *d, gfn_t gfn, enum dsm_right right, uint64_t deadline_ns)
{
	struct waiter w = { .right = right };
	enum dsm_right had;
	struct recent *recent;
	bool remote = false, bounced;
	uint64_t start;
	int err;

	if (!dsm_is_ram(d, gfn))
		return -EFAULT;
	had = dsm_right(d, gfn);
	if (had >= right)
		return 0;
	if (!d->drive) {
		if (atomic_load(&d->stopping))
			return -EPIPE;
		dsm_lock(d);
		acquire_alone(d, gfn, right);
		dsm_unlock(d);
		return 0;
	}
	start = clock_now_ns();
	recent = recents_find(&mine, d, gfn, right, start, AT_ONCE_NS);
	bounced = recent->granted_ns && had == DSM_NONE;
	w.page = dir_page(&d->dir, gfn);
	err = recent->retry < COLLECT_AFTER ? -ENOBUFS : collect(d, &mine, deadline_ns, &remote);
	while (err == -ENOBUFS || err == -EAGAIN)
		err = waiter_ask(d, &w, recent->retry, deadline_ns, &remote);
	mine.last_end_ns = recent->granted_ns = clock_now_ns();
	if (err)
		return err;
	if (remote) {
		stats_remote_fault(&d->count, gfn, had, right, recent->granted_ns - start);
		stats_stall(stalls, served_by, right, bounced, recent->granted_ns - start);
	} else
		count_one(&d->count.faults_local);
	return 0;
}

void dsm_stalls_bind(struct dsm *d, struct dsm_stalls *s)
{
	s->thread = (uint32_t)gettid();
	dsm_lock(d);
	s->next = d->stalls;
	d->stalls = s;
	dsm_unlock(d);
	stalls = s;
}

void dsm_stalls_unbind(struct dsm *d, struct dsm_stalls *s)
{
	struct dsm_stalls **at = &d->stalls;

	dsm_lock(d);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	dsm_unlock(d);
	stalls = NULL;
}

/* --- copies ----------------------------------------------------------------------------------------- */

/* Within one page.  The lock keeps the right from leaving this node during the copy. */
static int copy_page(struct dsm *d, gpa_t gpa, void *to, const void *from, size_t len,
		     uint64_t deadline_ns)
{
	gfn_t gfn = gpa >> PAGE_SHIFT;
	enum dsm_right need = to ? DSM_READ : DSM_WRITE;
	int err;

	for (;;) {
		dsm_lock(d);
		if (dsm_right(d, gfn) >= need) {
			if (to)
				memcpy(to, d->alias + gpa, len);
			else
				memcpy(d->alias + gpa, from, len);
			if (!to && d->map->written)
				d->map->written(d, gfn);
			dsm_unlock(d);
			return 0;
		}
		dsm_unlock(d);
		err = dsm_acquire(d, gfn, need, deadline_ns);
		if (err)
			return err;
	}
}

static int copy(struct dsm *d, gpa_t gpa, uint8_t *to, const uint8_t *from, size_t len,
		uint64_t deadline_ns)
{
	/* The whole range is looked at before anything is copied. */
	if (gpa + len < gpa)
		return -EFAULT;
	for (gpa_t at = gpa & PAGE_MASK; at < gpa + len; at += PAGE_SIZE)
		if (!dsm_is_ram(d, at >> PAGE_SHIFT))
			return -EFAULT;
	while (len) {
		size_t part = PAGE_SIZE - (gpa & ~PAGE_MASK);
		int err;

		if (part > len)
			part = len;
		err = copy_page(d, gpa, to, from, part, deadline_ns);
		if (err)
			return err;
		gpa += part;
		len -= part;
		to = to ? to + part : NULL;
		from = from ? from + part : NULL;
	}
	return 0;
}

int dsm_copy_in(struct dsm *d, void *dst, gpa_t src, size_t len, uint64_t deadline_ns)
{
	return copy(d, src, dst, NULL, len, deadline_ns);
}

int dsm_copy_out(struct dsm *d, gpa_t dst, const void *src, size_t len, uint64_t deadline_ns)
{
	return copy(d, dst, NULL, src, len, deadline_ns);
}
