/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/dispatch.c - faults of threads that the kernel has parked.
 *
 * What      One thread reads faults from the userfaultfd and asks the core for the pages, without waiting for any:
 *           many vCPUs fault at once.  Whoever then performs the grant (mostly the net thread) maps the page, and that
 *           wakes the parked thread.  A fault on a page whose right is there is mapped again and woken.
 *           For a thread that keeps losing pages the reader collects them (collect.c), one request after the other; the
 *           thread runs, and is parked again on what is still missing, as its pages come.
 * Owns      The reader thread; `fault[]`, one entry per page and right that is asked for; what each thread asked for
 *           lately.
 * Threads   The reader; `finished` runs in the thread that stepped the core.  Everything shared: dsm.lock.
 * I/O       userfaultfd, an eventfd that wakes the reader.
 * Limits    FAULTS entries; when all are taken, further faults stay in the kernel's queue.  No allocation after open.
 */
#include "dsm/dsm_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FAULTS 256u
#define READS 16u    /* events at one time */
#define FAULTERS 64u /* threads whose last requests are remembered */
#define ROOM_MS 1    /* how long to wait for room before asking again */
#define ROOM_NS (ROOM_MS * NS_PER_MS)
#define IDLE_MS 1000
#define POLL_NS \
	(120 *  \
	 NS_PER_US) /* as a waiter of fault.c: longer than a peer that is awake takes to answer */
#define SLICE_NS (100 * NS_PER_US)
#define SKIP_MAX 64u
/* From a grant until the woken thread has used the page and faults on its next one: it has to be scheduled. */
#define AT_ONCE_NS (500 * NS_PER_US)
/* How long what was collected stays: the thread has to be woken and scheduled.  Twice as long each time that it was not
 * enough; the core keeps it below its longest hold. */
#define KEEP_NS (300 * NS_PER_US)
#define KEEP_SHIFT_MAX 7u

struct faulter {
	uint32_t thread;
	unsigned keep_shift; /* of the collections since a fault that was not in time */
	uint64_t chain;	     /* of recents, when it was counted */
	struct recents recents;
};

struct fault {
	struct waiter w; /* linked in dsm.waiting unless `again` */
	struct dispatch *p;
	bool taken, remote, bounced;
	uint32_t thread;
	bool again;    /* has to ask again: was finished with WAIT_AGAIN, or with another page of its collection */
	bool collects;
	bool roomless; /* waits for room, with or without being linked */
	gfn_t gfn;
	enum dsm_right had;
	struct faulter *who; /* both may have been reused for others meanwhile: they are advice */
	struct recent *recent;
	struct collection pages; /* collects */
	uint64_t start_ns;
};

struct dispatch {
	struct dsm *d;
	struct dsm_uffd *u;
	int wake; /* eventfd */
	pthread_t thread;
	bool runs;
	_Atomic bool asleep, ending;
	/* Written under dsm.lock. */
	struct fault fault[FAULTS];
	_Atomic unsigned taken;    /* entries of fault[] */
	_Atomic unsigned roomless; /* of them */
	_Atomic uint64_t again_ns; /* when those ask again */
	struct faulter faulter[FAULTERS];
	/* The reader's own: idle polling.  It pays when the next fault comes soon; when it did not, so many are skipped. */
	unsigned skip, skipped;
	bool one_cpu;
};

/* --- one fault, under dsm.lock ----------------------------------------------------------------------- */

static void reader_hurry(struct dispatch *p)
{
	uint64_t one = 1;

	/* Missed by a reader that is about to sleep: it does not sleep long when there is something to be hurried for. */
	if (atomic_load(&p->asleep) && write(p->wake, &one, sizeof(one)) < 0)
		log_debug("dsm: eventfd errno %d", errno);
}

static void roomless_set(struct fault *f, bool on)
{
	if (f->roomless == on)
		return;
	f->roomless = on;
	atomic_fetch_add(&f->p->roomless, on ? 1 : -1u);
}

/* The reader has to look at it: outside of the step that finished it. */
static bool fault_goes_on(const struct fault *f, enum wait_state how)
{
	return how == WAIT_AGAIN || (how == WAIT_DONE && f->collects);
}

static void fault_finished(struct waiter *w, enum wait_state how)
{
	struct fault *f = container_of(w, struct fault, w);
	struct dispatch *p = f->p;
	struct dsm *d = p->d;
	uint64_t now = clock_now_ns();

	if (how == WAIT_DONE)
		f->who->recents.last_end_ns = f->recent->granted_ns = now;
	roomless_set(f, fault_goes_on(f, how));
	if (f->roomless) {
		f->again = true;
		atomic_store(&p->again_ns, now);
		reader_hurry(p);
		return;
	}
	if (how == WAIT_DONE) {
		if (f->remote) {
			stats_remote_fault(&d->count, f->gfn, f->had, w->right, now - f->start_ns);
			stats_stall(stats_stalls_of(d, f->thread), w->from, w->right, f->bounced, now - f->start_ns);
		} else
			count_one(&d->count.faults_local);
	}
	f->taken = false;
	if (atomic_fetch_sub(&p->taken, 1) == FAULTS)
		reader_hurry(p);
}

/* All pages that the thread asked for since it last got on are here, pinned. */
static void fault_collected(struct fault *f)
{
	struct faulter *who = f->who;

	if (who->chain != who->recents.chain)
		who->keep_shift = 0;
	else if (who->keep_shift < KEEP_SHIFT_MAX)
		who->keep_shift++;
	who->chain = who->recents.chain;
	f->collects = f->again = false;
	collection_end(f->p->d, &f->pages, clock_now_ns() + (KEEP_NS << who->keep_shift));
	fault_finished(&f->w, WAIT_DONE);
}

static void fault_ask(struct fault *f, unsigned retry)
{
	struct dsm *d = f->p->d;

	if (f->collects && collect_next(&f->pages.c) == f->pages.c.count) {
		fault_collected(f);
		return;
	}
	if (f->collects)
		collection_next(&f->pages, &f->w);
	f->again = f->w.no_room = false;
	waiter_link(d, &f->w);
	drive_request(d, &f->w, retry);
	f->remote = true; /* unless it is finished already */
	if (f->taken && !f->again)
		roomless_set(f, f->w.no_room);
}

/* What a collection will bring, in its order. */
static bool collection_covers(const struct collect *c, uint32_t page, enum dsm_right right)
{
	for (unsigned i = collect_next(c); i < c->count; i++)
		if (c->page[i] == page && c->right[i] >= right)
			return true;
	return false;
}

/* An entry that will bring this right to this thread anyway. */
static bool fault_known(const struct dispatch *p, uint32_t thread, uint32_t page, enum dsm_right right)
{
	unsigned left = atomic_load(&p->taken);

	for (const struct fault *f = p->fault; left; f++) {
		left -= f->taken;
		if (!f->taken)
			continue;
		if (f->collects ? f->thread == thread && collection_covers(&f->pages.c, page, right) :
				  f->w.page == page && f->w.right >= right)
			return true;
	}
	return false;
}

static struct faulter *faulter_find(struct dispatch *p, uint32_t thread)
{
	struct faulter *oldest = &p->faulter[0];

	for (unsigned i = 0; i < FAULTERS; i++) {
		struct faulter *f = &p->faulter[i];

		if (f->thread == thread)
			return f;
		if (f->recents.last_end_ns < oldest->recents.last_end_ns)
			oldest = f;
	}
	*oldest = (struct faulter){ .thread = thread };
	return oldest;
}

static void fault_start(struct dispatch *p, const struct dsm_uffd_event *ev, uint64_t now)
{
	struct dsm *d = p->d;
	gfn_t gfn = ev->offset >> PAGE_SHIFT;
	enum dsm_right want = ev->write ? DSM_WRITE : DSM_READ, had = dsm_right(d, gfn);
	uint32_t page = dir_page(&d->dir, gfn);
	struct fault *f = p->fault;
	struct faulter *who;
	struct recent *recent;

	if (atomic_load(&d->stopping))
		return; /* dsm_stop wakes it */
	if (had >= want) {
		d->map->again(d, gfn);
		return;
	}
	if (!d->drive) {
		acquire_alone(d, gfn, want);
		return;
	}
	if (fault_known(p, ev->thread, page, want))
		return;
	while (f->taken) /* the reader fetched no more than are free */
		f++;
	who = faulter_find(p, ev->thread);
	recent = recents_find(&who->recents, d, gfn, want, now, AT_ONCE_NS);
	*f = (struct fault){ .w = { .finished = fault_finished, .page = page, .right = want },
			     .p = p,
			     .taken = true,
			     .gfn = gfn,
			     .had = had,
			     .who = who,
			     .recent = recent,
			     .thread = ev->thread,
			     .bounced = recent->granted_ns && had == DSM_NONE,
			     .start_ns = now };
	atomic_fetch_add(&p->taken, 1);
	f->collects = recent->retry >= COLLECT_AFTER && collection_begin(d, &f->pages, &who->recents);
	if (f->collects)
		f->w.pin_for = &f->pages;
	fault_ask(f, f->collects ? 0 : recent->retry);
}

/* Those that found no room ask again. */
static void faults_again(struct dispatch *p, uint64_t now)
{
	atomic_store(&p->again_ns, now + ROOM_NS);
	for (unsigned i = 0; i < FAULTS && atomic_load(&p->roomless); i++) {
		struct fault *f = &p->fault[i];

		if (!f->taken || !f->roomless)
			continue;
		if (!f->again)
			waiter_unlink(p->d, &f->w);
		fault_ask(f, 0);
	}
}

/* --- the reader -------------------------------------------------------------------------------------- */

/* True when there were faults. */
static bool serve(struct dispatch *p)
{
	struct dsm_uffd_event ev[READS];
	struct dsm *d = p->d;
	unsigned n, room = FAULTS - atomic_load(&p->taken); /* only this thread makes it less */
	uint64_t now;
	bool again;

	n = room ? dsm_uffd_events(p->u, ev, room < READS ? room : READS) : 0;
	now = clock_now_ns();
	again = atomic_load(&p->roomless) && now >= atomic_load(&p->again_ns);
	if (!n && !again)
		return false;
	dsm_lock(d);
	if (again)
		faults_again(p, now);
	for (unsigned i = 0; i < n; i++)
		fault_start(p, &ev[i], now);
	dsm_unlock(d);
	return n;
}

static bool idle_pays(struct dispatch *p)
{
	return p->skipped++ >= p->skip;
}

/*
 * After faults were served: for a while this thread moves the fabric, as one that waits for its own page would, and
 * looks for more.  To wake it costs more than most pages.
 */
static void spin(struct dispatch *p)
{
	uint64_t now = clock_now_ns(), until = now + POLL_NS;
	struct dsm *d = p->d;
	bool idle = false;

	if (d->drive)
		drive_poller_enter(d);
	while (now < until && !atomic_load(&p->ending)) {
		if (serve(p)) {
			until = clock_now_ns() + POLL_NS;
			p->skip = idle ? 0 : p->skip;
			idle = false;
		} else if (!atomic_load(&p->taken)) {
			if (!idle && !idle_pays(p))
				break;
			idle = true;
		}
		if (!d->drive || !drive_poll(d))
			__builtin_ia32_pause();
		now = clock_now_ns();
	}
	if (d->drive)
		drive_poller_leave(d);
	if (idle) {
		p->skip = !p->skip ? 1 : p->skip < SKIP_MAX ? 2 * p->skip : SKIP_MAX;
		p->skipped = 0;
	}
}

static void reader_sleep(struct dispatch *p)
{
	struct pollfd fds[2] = { { .fd = p->wake, .events = POLLIN },
				 { .fd = p->u->fd, .events = POLLIN } };
	bool full = atomic_load(&p->taken) == FAULTS;
	uint64_t n;

	atomic_store(&p->asleep, true);
	if (!atomic_load(&p->ending))
		poll(fds, full ? 1 : 2, full || atomic_load(&p->roomless) ? ROOM_MS : IDLE_MS);
	atomic_store(&p->asleep, false);
	if (fds[0].revents && read(p->wake, &n, sizeof(n)) < 0)
		log_debug("dsm: eventfd errno %d", errno);
}

static void *reader_run(void *arg)
{
	struct dispatch *p = arg;
	cpu_set_t cpus;

	log_set_thread("faults");
	thread_slice(SLICE_NS);
	prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
	p->one_cpu = !sched_getaffinity(0, sizeof(cpus), &cpus) && CPU_COUNT(&cpus) == 1;
	while (!atomic_load(&p->ending)) {
		if (!serve(p))
			reader_sleep(p);
		else if (!p->one_cpu)
			spin(p);
	}
	return NULL;
}

/* --- open, close ------------------------------------------------------------------------------------ */

int dispatch_open(struct dsm *d, struct dsm_uffd *u, struct dispatch **out)
{
	struct dispatch *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->d = d;
	p->u = u;
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = p->wake < 0 ? -errno : -pthread_create(&p->thread, NULL, reader_run, p);
	p->runs = !err;
	if (err) {
		dispatch_close(p);
		return err;
	}
	*out = p;
	return 0;
}

void dispatch_close(struct dispatch *p)
{
	uint64_t one = 1;

	atomic_store(&p->ending, true);
	if (p->runs) {
		if (write(p->wake, &one, sizeof(one)) < 0)
			log_debug("dsm: eventfd errno %d", errno);
		pthread_join(p->thread, NULL);
	}
	if (p->wake >= 0)
		close(p->wake);
	free(p);
}
