/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/dsm_priv.h - what the files of the memory shell share.
 *
 * Reading order  node.c (life of a dsm, net thread), fault.c (a thread wants a page), drive.c (steps the
 *           protocol core and performs its effects; timers.c, unsent.c), cache.c (bound on remote pages), map_tlb.c and map_uffd.c with uffd.c (the only
 *           files that change a mapping), dispatch.c (faults of parked threads), rehome.c (a node leaves or comes back), stats.c.
 * Threads   Users (vCPUs, devices), the net thread, the fault reader of dispatch.c, whoever drives ic_progress.
 * Locks     Ranks, outer to inner: fabric progress (tried only) > dsm.lock > reader.lock > fabric tx.
 *           dsm.lock is held around each protocol step together with its effects; page bytes change hands
 *           only under it.  Nothing sleeps while holding it.
 */
#ifndef DSM_DSM_PRIV_H
#define DSM_DSM_PRIV_H

#include "dsm/core/collect.h"
#include "dsm/core/dir.h"
#include "dsm/core/proto.h"
#include "dsm/core/rehome.h"
#include "dsm/dsm.h"
#include "dsm/uffd.h"

#include <pthread.h>
#include <stdatomic.h>

/* Bits of dsm.state[gfn].  Written under dsm.lock, read by anyone. */
#define ST_RIGHT 0x03u /* enum dsm_right */
#define ST_FREE 0x20u  /* with ST_BYTES: nobody needs what the frame holds */
#define ST_BYTES 0x40u /* the frame may hold something else than zeros */
#define ST_RAM 0x80u   /* const after open */

/*
 * The two ways to give and take rights.  All under dsm.lock.  `grant` and `revoke` publish in dsm.state.
 */
struct map_ops {
	MUST_CHECK int (*open)(struct dsm *d, const struct dsm_config *cfg, void **out);
	void (*close)(void *map);
	void (*grant)(struct dsm *d, gfn_t gfn, enum dsm_right right);
	/* True: nobody can use more than `right` any more.  False: map_revoked will be called for `page`. */
	bool (*revoke)(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right);
	/* A device wrote the page's bytes behind the backs of those that hold it. */
	void (*written)(struct dsm *d, gfn_t gfn);
	/* May be NULL.  Maps a page again whose right is held, and wakes who is parked on it. */
	void (*again)(struct dsm *d, gfn_t gfn);
	/* May be NULL.  The VM is ending: nobody may use any right any more. */
	void (*stop)(struct dsm *d);
};

extern const struct map_ops map_tlb_ops, map_uffd_ops;

/* One thread that waits for a page, or dispatch.c on behalf of one that is parked; linked under dsm.lock. */
enum wait_state { WAIT_SPINNING, WAIT_ASLEEP, WAIT_DONE, WAIT_AGAIN, WAIT_ENDED };
struct waiter {
	/* NULL: a thread looks at `state`.  Else called once instead, unlinked, under dsm.lock. */
	void (*finished)(struct waiter *w, enum wait_state how);
	_Atomic uint32_t state; /* enum wait_state; futex word */
	uint32_t page;
	enum dsm_right right;
	bool no_room; /* its request got BUSY */
	node_id from; /* who sent what finished it */
	struct collection *pin_for; /* the page is pinned with the grant, for this one: collect.c */
	struct waiter *next;
};
#define WAIT_BUCKETS 64u

/* Counting of page faults: stats.c. */
#define HOT_SLOTS 64u
struct counters {
	_Atomic uint64_t faults_read, faults_write, faults_upgrade, faults_local, collections, pages_sent,
		pages_received, invalidations_received, refused, evictions;
	_Atomic uint64_t latency_hist[DSM_LAT_BUCKETS];
	pthread_mutex_t hot_lock; /* rank: innermost */
	struct {
		gfn_t gfn;
		uint64_t faults;
	} hot[HOT_SLOTS];
};

/* record.c: the last protocol events, for the dump after a failed assertion. */
#define RECORDS 4096u
struct record {
	uint64_t ns;
	uint32_t page;
	bool is_event; /* else an effect */
	uint8_t kind;  /* enum proto_event_kind, enum proto_effect_kind */
	uint8_t msg;   /* enum proto_kind; 0: none */
	uint8_t right, bytes, acks; /* acks: of a REQUEST its retries */
	node_id peer;
};
void record_event(struct dsm *d, const struct proto_event *ev);
void record_effect(struct dsm *d, uint64_t now_ns, const struct proto_effect *fx);
void record_dump(void *dsm);

/* cache.c */
struct cache {
	uint32_t limit; /* frames of pages homed elsewhere; 0: no bound */
	uint32_t *ring, room, first, resident;
};

/* rehome.c.  dsm.lock, unless atomic. */
struct rehoming {
	struct rehome steps;
	_Atomic bool active; /* rehome_pump has something to do or to look at */
	_Atomic bool gone[NODES_MAX]; /* drained; who is gone may die */
	_Atomic bool dead[NODES_MAX];
	_Atomic bool broken; /* a peer kept what is nowhere else: the VM has to end */
	bool frozen;	     /* nothing new is asked of the core */
	bool leaving, empty; /* this node gives up others' pages; the last round found none */
	uint64_t spare;	     /* const: pages that this node can be home to beside its first ones */
	/* The table that comes, and its directory; the one before. */
	struct dir map[2];
	struct proto_homes next;
	const struct dir *old;
	void *mem, *next_mem; /* of the core's home[] and copyset[], NULL: as opened */
	size_t mem_bytes, next_bytes;
	/* Where a round over the pages is. */
	uint32_t span, at;
	uint64_t held, entries, pages;
	unsigned unmapping; /* rights that readers have not let go of */
	/* dsm_drain, dsm_join */
	bool called, left_known;
	struct nodeset answered;
	uint64_t room[NODES_MAX], left, moved_entries, moved_pages, thawed_ns;
};

struct drive; /* drive.c: protocol core and what its effects need; NULL on a one-node VM */

struct dsm {
	node_id self;
	unsigned nodes;
	struct ic_fabric *fabric; /* NULL on a one-node VM */
	struct dir dir;           /* const: frames and numbers of pages, and their first homes */
	const struct dir *homes;  /* lock: the same pages and their homes now */
	struct rehoming rehoming;
	gfn_t top;                /* one past the last frame of RAM */
	int memfd;
	uint8_t *alias;
	_Atomic uint8_t *state; /* [top], ST_* */
	const struct map_ops *map;
	void *map_data;
	pthread_mutex_t lock;
	struct drive *drive;
	bool one_cpu; /* const; nobody else runs while a thread of ours polls */
	struct cache cache;                   /* lock */
	struct waiter *waiting[WAIT_BUCKETS]; /* lock */
	_Atomic bool stopping;                /* every wait ends */
	_Atomic bool closing;                 /* the net thread ends */
	pthread_t net, keeper;
	bool net_runs, keeper_runs;
	_Atomic uint64_t traffic_ns; /* when a message came last */
	struct collection *collections; /* lock */
	unsigned pinned;                /* lock; pages in them */
	struct counters count;
	struct dsm_stalls *stalls; /* lock */
	node_id serving;	   /* lock; who sent the message that is being stepped, else this node */
	bool checksums; /* const, as the two below */
	void (*on_damage)(void *arg, node_id from, gfn_t gfn);
	void *damage_arg;
	struct {
		uint32_t next;
		struct record entry[RECORDS];
	} record; /* lock */
};

void dsm_lock(struct dsm *d);
void dsm_unlock(struct dsm *d);
/*
 * Asks for a scheduling slice of the calling thread: with a short one it runs sooner after it was woken, and who
 * waits for the CPU it runs on waits shorter (EEVDF, Linux 6.12; without effect before).
 */
void thread_slice(uint64_t slice_ns);
static inline uint8_t *frame_of(struct dsm *d, gfn_t gfn)
{
	return d->alias + (gfn << PAGE_SHIFT);
}

/* For the mappings: publishes what this node holds.  Under dsm.lock. */
static inline void state_set(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	uint8_t st = atomic_load_explicit(&d->state[gfn], memory_order_relaxed);

	/* Release orders the page's bytes (FILL) before the right; readers load with acquire. */
	atomic_store_explicit(&d->state[gfn], (uint8_t)((st & ~ST_RIGHT) | right),
			      memory_order_release);
}

/* fault.c: what one thread asked for lately.  Only one thread at a time. */
#define RECENT 16u
struct recents {
	struct recent {
		const struct dsm *d;
		gfn_t gfn;
		uint64_t granted_ns, chain;
		unsigned retry;
		enum dsm_right right; /* the strongest in this chain */
	} slot[RECENT];
	uint64_t last_end_ns; /* of its last wait */
	uint64_t chain;       /* number of the present row of requests, each at once after the one before */
};
/* The slot of gfn, noted; `retry` counts how often it was asked for within at_once_ns after a wait. */
struct recent *recents_find(struct recents *r, const struct dsm *d, gfn_t gfn, enum dsm_right right,
			    uint64_t now_ns, uint64_t at_once_ns);

/* collect.c: pages that one thread takes in ascending order and pins. */
struct collection {
	struct collection *next;
	struct collect c; /* lock */
};
#define COLLECT_AFTER 4u /* retries for one page, then all pages of the instruction are taken in order */
/* Under dsm.lock, not inside a step: for all pages of the present chain, false: not now. */
bool collection_begin(struct dsm *d, struct collection *k, const struct recents *rs);
/* What to ask for next; there is something. */
void collection_next(const struct collection *k, struct waiter *w);
/* Every page that it has pinned is held until then. */
void collection_end(struct dsm *d, struct collection *k, uint64_t until_ns);
/* All pages of the present chain, held together for a moment.  -ENOBUFS: not now; else as dsm_acquire. */
MUST_CHECK int collect(struct dsm *d, const struct recents *rs, uint64_t deadline_ns, bool *remote);

/* fault.c, under dsm.lock */
void waiter_link(struct dsm *d, struct waiter *w);
void waiter_unlink(struct dsm *d, struct waiter *w);
/* One-node VM: grants; there is nobody to ask. */
void acquire_alone(struct dsm *d, gfn_t gfn, enum dsm_right right);
void waiters_wake(struct dsm *d, uint32_t page, enum dsm_right right);
/* Without locks: one request to the core and the wait for its answer.  -EAGAIN: ask again; else as dsm_acquire. */
MUST_CHECK int waiter_ask(struct dsm *d, struct waiter *w, unsigned retry, uint64_t deadline_ns, bool *remote);
void waiters_room(struct dsm *d);
/* Threads that have asked the core for a page, or are about to, and have no answer yet. */
unsigned waiters_asking(const struct dsm *d);
void waiters_end(struct dsm *d);

/* unsent.c: messages that the fabric pushed back.  Under dsm.lock. */
struct unsent_queue {
	struct unsent_record *record; /* rings */
	uint8_t *page;
	unsigned first, count, page_first, page_count;
};
struct unsent {
	uint8_t *mem;
	size_t bytes;
	unsigned nodes, records, pages; /* the last two: for each peer */
	_Atomic unsigned count;		/* records */
	struct unsent_queue to[NODES_MAX];
};
MUST_CHECK int unsent_open(struct unsent *u, unsigned nodes, unsigned requests);
void unsent_close(struct unsent *u);
/* At the end of the queue; copies.  `whole`: no other message may travel with it.  False: the peer has no right to so many. */
bool unsent_add(struct unsent *u, node_id to, const void *body, uint16_t body_len, const void *page, bool whole);
/* The first one; valid until unsent_pop. */
bool unsent_first(const struct unsent *u, node_id to, struct ic_msg *out);
void unsent_pop(struct unsent *u, node_id to); /* there is one */

/* timers.c: what is due when; a binary heap with at most one entry for each revocation record.  Under dsm.lock. */
struct timer {
	uint64_t at_ns;
	uint32_t page;
	uint32_t slot; /* of the record, below `room` */
};
struct timers {
	struct timer *heap; /* smallest at_ns first */
	uint32_t *where;    /* [slot] index into heap + 1; 0: not there */
	unsigned count, room;
};
MUST_CHECK int timers_open(struct timers *t, unsigned room);
void timers_close(struct timers *t);
/* In place of what is there for this slot. */
void timers_set(struct timers *t, struct timer timer);
struct timer timers_pop(struct timers *t); /* there is one */
/* UINT64_MAX: none. */
static inline uint64_t timers_next_ns(const struct timers *t)
{
	return t->count ? t->heap[0].at_ns : UINT64_MAX;
}

/* drive.c */
MUST_CHECK int drive_open(struct dsm *d, const struct dsm_config *cfg);
void drive_close(struct dsm *d);
/* Under dsm.lock: ask the core for a page on behalf of `w`, which is already linked. */
void drive_request(struct dsm *d, struct waiter *w, unsigned retry);
/* Under dsm.lock.  The page just granted is pinned before anything else happens to it (inside waiters_wake). */
void drive_pin(struct dsm *d, uint32_t page);
/* Under dsm.lock: the hold of the page ends then. */
void drive_hold(struct dsm *d, uint32_t page, uint64_t until_ns);
/* A revocation that `revoke` left open is complete.  Under dsm.lock, not inside an effect. */
void map_revoked(struct dsm *d, uint32_t page);
void drive_peer_lost(struct dsm *d, node_id peer);
/* Under dsm.lock, not inside a step.  For rehome.c: the core; a message of its own; whether `to` cannot be sent to at once;
 * the core gives up a page. */
struct proto *drive_proto(struct dsm *d);
void drive_send(struct dsm *d, node_id to, const void *body, uint16_t body_len, const void *page);
bool drive_backed_up(const struct dsm *d, node_id to);
void drive_evict(struct dsm *d, uint32_t page);
/* Revocations that can be open at one time. */
unsigned drive_flights(const struct dsm *d);
/* Moves the fabric, due timers and queued sends.  True when something happened.  Any thread, no locks. */
bool drive_poll(struct dsm *d);
/* When something of that kind is due; UINT64_MAX: nothing. */
uint64_t drive_next_due(struct dsm *d);
/* The net thread will sleep until this time unless woken; 0: it is awake. */
void drive_net_sleeps(struct dsm *d, uint64_t until_ns);
/* A thread that drives the fabric, hence the timers, while it waits. */
void drive_poller_enter(struct dsm *d);
void drive_poller_leave(struct dsm *d);

/* dispatch.c: from dispatch_open until dispatch_close its thread serves the faults of `u`. */
struct dispatch;
MUST_CHECK int dispatch_open(struct dsm *d, struct dsm_uffd *u, struct dispatch **out);
void dispatch_close(struct dispatch *p);

/* rehome.c, under dsm.lock */
void rehome_open(struct dsm *d, uint64_t spare_pages);
void rehome_close(struct dsm *d);
void rehome_message(struct dsm *d, node_id from, const void *body, size_t body_len, const void *data);
/* While rehoming.active; not inside a step.  True when it got on. */
bool rehome_pump(struct dsm *d);
/* Nothing may be asked of the core for `w` now; NULL: for nobody in particular. */
bool rehome_withholds(const struct dsm *d, const struct waiter *w);
/* This node is out of the memory, or about to be: nobody here gets a page. */
bool rehome_away(const struct dsm *d);
/* Any thread: `peer` is lost.  False: it was drained, so nobody misses it. */
bool rehome_bereaved(struct dsm *d, node_id peer);

/* cache.c, under dsm.lock */
MUST_CHECK int cache_open(struct dsm *d, uint64_t pages);
void cache_close(struct dsm *d);
void cache_filled(struct dsm *d, gfn_t gfn,
		  uint32_t page);             /* the frame holds bytes that are needed */
void cache_dropped(struct dsm *d, gfn_t gfn); /* they are needed no more */
bool cache_full(const struct dsm *d);
/* The table of homes has changed. */
void cache_rehomed(struct dsm *d);
/* A frame that was this node's as home, and the page is homed elsewhere now. */
void cache_passed_on(struct dsm *d, gfn_t gfn, uint32_t page);
/* Nothing of the memory is left here. */
void cache_forget(struct dsm *d);
/* Bytes of a page that this node will be home to. */
void cache_homecoming(struct dsm *d, gfn_t gfn, const void *bytes);
/* Punches free frames; when that is not enough, a page that the core should EVICT, else DIR_PAGE_NONE. */
uint32_t cache_victim(struct dsm *d);

/* stats.c */
void stats_open(struct counters *c);
void stats_close(struct counters *c);
void stats_remote_fault(struct counters *c, gfn_t gfn, enum dsm_right had, enum dsm_right want,
			uint64_t latency_ns);
/* `s` may be NULL. */
void stats_stall(struct dsm_stalls *s, node_id from, enum dsm_right want, bool bounced, uint64_t ns);
/* Of a thread that is parked, NULL: not bound.  Under dsm.lock. */
struct dsm_stalls *stats_stalls_of(const struct dsm *d, uint32_t thread);
static inline void count_one(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
