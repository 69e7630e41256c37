/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/node.c - the life of a dsm: memory file, state bytes, the net thread.
 *
 * Owns      struct dsm, the memfd of guest RAM, the alias mapping, the net thread, the keeper.
 * Threads   open and close: one.  The net thread runs drive_poll as long as something comes, else blocks in
 *           ic_wait; it delivers the messages of every port, not only the DSM's.
 * I/O       memfd_create, mmap; the fabric.
 * Limits    One sparse memfd covers gpa 0 up to the end of the last range.  A one-node VM has neither
 *           protocol core nor net thread: it owns every page.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEEP_NS (20 * NS_PER_MS)    /* how long after the last traffic the keeper goes on */
#define KEEP_NAP_NS (5 * NS_PER_MS) /* how often it looks otherwise */
#define KEEP_PAUSES 500u
#define IDLE_NS (100 * NS_PER_MS) /* longest sleep of the net thread */
#define SLICE_NS \
	(100 * NS_PER_US) /* its scheduling slice: short, so that it runs soon after waking */

/*
 * The owner of the lock is mostly a few microseconds from letting go, while to be woken costs a hundred:
 * hence try for a while, giving the CPU away in between, before sleeping.
 */
void dsm_lock(struct dsm *d)
{
	for (unsigned i = 0; i < 64; i++) {
		if (!pthread_mutex_trylock(&d->lock))
			return;
		if (i < 32)
			__builtin_ia32_pause();
		else
			sched_yield();
	}
	pthread_mutex_lock(&d->lock);
}

void dsm_unlock(struct dsm *d)
{
	pthread_mutex_unlock(&d->lock);
}

/* --- memory ----------------------------------------------------------------------------------------- */

static int memory_open(struct dsm *d)
{
	size_t bytes = (size_t)d->top << PAGE_SHIFT;
	void *p;

	d->memfd = memfd_create("unum-ram", MFD_CLOEXEC);
	if (d->memfd < 0 || ftruncate(d->memfd, (off_t)bytes))
		return -errno;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, d->memfd, 0);
	if (p == MAP_FAILED)
		return -errno;
	d->alias = p;
	p = mmap(NULL, d->top, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	d->state = p;
	for (unsigned i = 0; i < d->dir.spans_count; i++)
		memset(p + d->dir.span[i].first, ST_RAM, d->dir.span[i].count);
	return 0;
}

static void memory_close(struct dsm *d)
{
	if (d->state)
		munmap((void *)d->state, d->top);
	if (d->alias)
		munmap(d->alias, (size_t)d->top << PAGE_SHIFT);
	if (d->memfd >= 0)
		close(d->memfd);
}

/* --- net thread ------------------------------------------------------------------------------------- */

/* The structure is the kernel's, include/uapi/linux/sched/types.h. */
void thread_slice(uint64_t slice_ns)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = { .size = sizeof(attr), .policy = SCHED_OTHER, .runtime = slice_ns };

	if (syscall(SYS_sched_setattr, 0, &attr, 0))
		log_debug("dsm: sched_setattr errno %d", errno);
}

static void *net_run(void *arg)
{
	struct dsm *d = arg;
	uint64_t now, due;

	log_set_thread("net");
	thread_slice(SLICE_NS);
	prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
	while (!atomic_load_explicit(&d->closing, memory_order_relaxed)) {
		if (drive_poll(d))
			continue;
		now = clock_now_ns();
		drive_net_sleeps(d, now + IDLE_NS);
		due = drive_next_due(d);
		if (due > now && !atomic_load(&d->closing))
			ic_wait(d->fabric, due < now + IDLE_NS ? due - now : IDLE_NS);
		drive_net_sleeps(d, 0);
	}
	return NULL;
}

/* --- keeper ----------------------------------------------------------------------------------------- */

/*
 * To wake a thread on a CPU that halted costs 100 to 400 us on a virtual host, and tens on a real one in a deep
 * idle state; on a CPU that runs, a few.  So as long as there is traffic one thread of the lowest scheduling class
 * keeps a CPU from halting.  It gives way to anybody who wants the CPU, and takes no lock.
 *
 * When the process is killed on a busy host, this thread is the last to get to its end, seconds later.  So it holds
 * no files: the peers' connections close with the other threads.
 */
static void *keeper_run(void *arg)
{
	const struct sched_param lowest = { 0 };
	struct dsm *d = arg;

	log_set_thread("keeper");
	if (close_range(0, UINT_MAX, CLOSE_RANGE_UNSHARE))
		log_debug("dsm: close_range errno %d", errno);
	if (sched_setscheduler(0, SCHED_IDLE, &lowest))
		return NULL;
	while (!atomic_load_explicit(&d->closing, memory_order_relaxed)) {
		uint64_t last = atomic_load_explicit(&d->traffic_ns, memory_order_relaxed);
		struct timespec nap = { .tv_nsec = KEEP_NAP_NS };

		if (clock_now_ns() - last > KEEP_NS)
			nanosleep(&nap, NULL);
		for (unsigned i = 0; i < KEEP_PAUSES; i++)
			__builtin_ia32_pause();
	}
	return NULL;
}

/* --- open, stop, close ------------------------------------------------------------------------------ */

static int config_take(struct dsm *d, const struct dsm_config *cfg)
{
	struct dir_range ranges[DIR_RANGES_MAX];

	if (!cfg->nodes || cfg->nodes > NODES_MAX || cfg->self >= cfg->nodes ||
	    !cfg->ranges_count || cfg->ranges_count > DIR_RANGES_MAX ||
	    (cfg->nodes > 1 && !cfg->fabric))
		return -EINVAL;
	for (unsigned i = 0; i < cfg->ranges_count; i++)
		ranges[i] = (struct dir_range){ cfg->ranges[i].first, cfg->ranges[i].count,
						cfg->ranges[i].node };
	if (!dir_init(&d->dir, cfg->nodes, ranges, cfg->ranges_count))
		return -EINVAL;
	d->homes = &d->dir;
	d->top = dir_gfn(&d->dir, d->dir.pages - 1) + 1;
	d->self = cfg->self;
	d->nodes = cfg->nodes;
	d->checksums = cfg->checksums;
	d->on_damage = cfg->on_damage;
	d->damage_arg = cfg->arg;
	ASSERT(!d->checksums || d->on_damage);
	d->fabric = cfg->nodes > 1 ? cfg->fabric : NULL;
	rehome_open(d, cfg->spare_pages);
	d->map = cfg->mapping == DSM_MAP_UFFD ? &map_uffd_ops : &map_tlb_ops;
	return 0;
}

static int parts_open(struct dsm *d, const struct dsm_config *cfg)
{
	int err = config_take(d, cfg);

	if (!err)
		err = memory_open(d);
	if (!err && d->nodes > 1)
		err = drive_open(d, cfg);
	if (!err)
		err = cache_open(d, cfg->cache_pages);
	if (!err)
		err = d->map->open(d, cfg, &d->map_data);
	if (!err && d->nodes > 1) {
		err = -pthread_create(&d->net, NULL, net_run, d);
		d->net_runs = !err;
	}
	if (!err && d->nodes > 1) {
		err = -pthread_create(&d->keeper, NULL, keeper_run, d);
		d->keeper_runs = !err;
	}
	return err;
}

static void parts_close(struct dsm *d)
{
	atomic_store(&d->closing, true);
	if (d->keeper_runs)
		pthread_join(d->keeper, NULL);
	if (d->net_runs) {
		ic_wake(d->fabric);
		pthread_join(d->net, NULL);
	}
	if (d->map_data)
		d->map->close(d->map_data);
	if (d->drive)
		drive_close(d);
	rehome_close(d);
	cache_close(d);
	memory_close(d);
	stats_close(&d->count);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

int dsm_open(const struct dsm_config *cfg, struct dsm **out)
{
	struct dsm *d = calloc(1, sizeof(*d));
	cpu_set_t cpus;
	int err;

	if (!d)
		return -ENOMEM;
	d->memfd = -1;
	d->one_cpu = !sched_getaffinity(0, sizeof(cpus), &cpus) && CPU_COUNT(&cpus) == 1;
	pthread_mutex_init(&d->lock, NULL);
	stats_open(&d->count);
	err = parts_open(d, cfg);
	if (err) {
		log_error("dsm: cannot open: %s", strerror(-err));
		parts_close(d);
		return err;
	}
	if (d->drive)
		assert_last_words(record_dump, d);
	*out = d;
	return 0;
}

void dsm_stop(struct dsm *d)
{
	const struct sched_param none = { 0 };

	atomic_store(&d->stopping, true);
	/* On a busy host its class may keep it from ending for seconds.  Best effort: not everybody may raise a thread. */
	if (d->keeper_runs && pthread_setschedparam(d->keeper, SCHED_OTHER, &none))
		log_debug("dsm: the keeper keeps its class");
	dsm_lock(d);
	waiters_end(d);
	if (d->map->stop && d->map_data)
		d->map->stop(d);
	dsm_unlock(d);
}

void dsm_peer_lost(struct dsm *d, node_id peer)
{
	if (d->drive)
		drive_peer_lost(d, peer);
	if (!d->drive || peer >= d->nodes || rehome_bereaved(d, peer))
		dsm_stop(d);
}

void dsm_close(struct dsm *d)
{
	ASSERT(atomic_load(&d->stopping));
	assert_last_words_end(d);
	parts_close(d);
}

uint8_t *dsm_alias(struct dsm *d)
{
	return d->alias;
}

bool dsm_is_ram(const struct dsm *d, gfn_t gfn)
{
	return gfn < d->top && atomic_load_explicit(&d->state[gfn], memory_order_relaxed) & ST_RAM;
}

enum dsm_right dsm_right(const struct dsm *d, gfn_t gfn)
{
	if (gfn >= d->top)
		return DSM_NONE;
	return atomic_load_explicit(&d->state[gfn], memory_order_acquire) & ST_RIGHT;
}
