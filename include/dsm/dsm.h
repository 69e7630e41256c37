/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/dsm.h - one page-granular, sequentially consistent shared memory across the nodes of a VM.
 *
 * What      Guest-physical memory: single writer or many readers per page, homed by address range.
 * Threads   dsm_acquire: any thread that is not inside ic_progress.  The rest as noted.
 * Errors    -ETIMEDOUT: the deadline passed; -EPIPE: the VM is ending (a peer is lost or dsm_stop); -EHOSTDOWN: this node is
 *           drained, or about to be.
 *
 * Two ways for guest code to reach the bytes, one per open dsm (struct dsm_config.mapping):
 *
 *   DSM_MAP_TLB   The user caches host pointers and rights itself (the bt engine's TLB).  Each thread that
 *                 does so is a `dsm_reader`: it is active between dsm_reader_enter and _leave.  While active
 *                 it may use any page whose right it saw with dsm_reader_right since its last dsm_reader_poll.
 *                 When a right must go, the DSM lowers it first, then posts the page to every active reader
 *                 that ever looked at it and sets *kick; the right is gone when each has called dsm_reader_poll (which hands
 *                 it the pages to drop) or dsm_reader_leave.  A reader that enters polls first.
 *   DSM_MAP_UFFD  A second mapping, the guest view, registered with userfaultfd; hardware enforces rights.  What is
 *                 not RAM cannot be touched.  With one node the view is an ordinary mapping and has no faults.
 *                 A thread parked in KVM_RUN by DSM_FAULTS_DISPATCH takes no signal before Linux 6.2 (nor later, where
 *                 KVM reads guest page tables itself) until its page comes or dsm_stop is called.
 */
#ifndef DSM_DSM_H
#define DSM_DSM_H

#include "base/err.h"
#include "base/types.h"
#include "interconnect/fabric.h"

#include <stdatomic.h>

enum dsm_right { DSM_NONE, DSM_READ, DSM_WRITE };
enum dsm_mapping { DSM_MAP_TLB, DSM_MAP_UFFD };
/*
 * DSM_MAP_UFFD: who resolves a touch of a page without the right.
 *   INLINE    The thread itself: it gets SIGBUS, or EFAULT from KVM_RUN, and calls dsm_view_fault.  No privilege.
 *   DISPATCH  The kernel parks it, a thread of the DSM gets the page and the thread goes on where it was.  For touches
 *             by the kernel (KVM) the process must be allowed userfaultfd for kernel faults; see dsm/uffd.h.
 */
enum dsm_faults { DSM_FAULTS_INLINE, DSM_FAULTS_DISPATCH };

/* Frames [first, first + count) are homed on `node`.  Ranges do not overlap. */
struct dsm_range {
	gfn_t first;
	uint64_t count;
	node_id node;
};

#define DSM_RANGES_MAX (2 * NODES_MAX)

struct dsm_config {
	node_id self;
	unsigned nodes;
	const struct dsm_range *ranges; /* copied */
	unsigned ranges_count;
	uint64_t cache_pages; /* remote pages this node may hold beside its share; 0: no bound */
	uint64_t spare_pages; /* so many more it can be home to, when another node is drained */
	enum dsm_mapping mapping;
	enum dsm_faults faults; /* DSM_MAP_UFFD */
	bool uffd_copy; /* DSM_MAP_UFFD: the way of kernels before 6.4 to map a readable page, chosen there anyway */
	/* Every page travels with a checksum; the same on all nodes of the VM.  `on_damage`: one that came from `from` does not
	 * fit its own.  Memory is wrong from there on, so the user ends the VM.  Context: inside ic_progress. */
	bool checksums;
	void (*on_damage)(void *arg, node_id from, gfn_t gfn);
	void *arg;
	struct ic_fabric *fabric; /* borrowed; NULL when nodes == 1; the dsm takes IC_PORT_DSM */
};

struct dsm;

MUST_CHECK int dsm_open(const struct dsm_config *cfg, struct dsm **out);
/*
 * From now on every wait ends with -EPIPE.  DSM_MAP_UFFD: the view cannot be touched any more, so that nobody
 * computes on bytes that have ceased to be guest memory: SIGSEGV, or EFAULT from KVM_RUN, also for those that were
 * parked.  Any thread.
 */
void dsm_stop(struct dsm *d);
/* A peer is gone for good: the VM ends here, unless it was drained.  Context: any thread; does not block. */
void dsm_peer_lost(struct dsm *d, node_id peer);
/* After dsm_stop, when no thread is inside any call. */
void dsm_close(struct dsm *d);

/* Host address of gpa 0 in the alias mapping: the bytes themselves, no rights enforced.  Const. */
uint8_t *dsm_alias(struct dsm *d);
/* DSM_MAP_UFFD: host address of gpa 0 in the guest view. */
uint8_t *dsm_view(struct dsm *d);
/*
 * DSM_MAP_UFFD: resolves a fault of the calling thread at addr in the guest view; then the access can be tried
 * again.  For a SIGBUS handler (the fault was in the view, so no lock of the DSM is held) and for EFAULT of
 * KVM_RUN.  -EFAULT: addr is not RAM in the view (a real error); otherwise as dsm_acquire.  DSM_FAULTS_DISPATCH: not
 * needed, and yet right.
 */
MUST_CHECK int dsm_view_fault(struct dsm *d, const void *addr, bool write, uint64_t deadline_ns);
/* True when gfn is guest RAM of this VM. */
bool dsm_is_ram(const struct dsm *d, gfn_t gfn);

/* Right this node holds now.  Any thread; see the reader contract above for how long it may be used. */
enum dsm_right dsm_right(const struct dsm *d, gfn_t gfn);

/*
 * Blocks until this node holds `right` on gfn, or deadline_ns (clock_now_ns) passes.  The right may be gone
 * again by the time the caller looks: call, look with dsm_right while active, repeat.  A page just granted is
 * held here for a short bounded time, longer when the same thread asks for it again.
 * Context: not active as a reader; not inside ic_progress.
 */
MUST_CHECK int dsm_acquire(struct dsm *d, gfn_t gfn, enum dsm_right right, uint64_t deadline_ns);

/* --- readers (DSM_MAP_TLB) --- */
struct dsm_reader;
/* *kick becomes nonzero (release) when the reader should poll soon; the reader clears it before polling. */
MUST_CHECK int dsm_reader_open(struct dsm *d, _Atomic uint32_t *kick, struct dsm_reader **out);
void dsm_reader_close(struct dsm_reader *r); /* not active */
/* As dsm_right, and from now on revocations of gfn are posted to this reader.  The reader's thread, active. */
enum dsm_right dsm_reader_right(struct dsm_reader *r, gfn_t gfn);
/* Drops cached rights on gfn above `right` (and translations of it when right is DSM_NONE or when a writer
 * elsewhere is granted). gfn == DSM_ALL: drop everything. */
typedef void (*dsm_drop_fn)(void *arg, gfn_t gfn, enum dsm_right right);
#define DSM_ALL (~(gfn_t)0)
/* enter and poll call drop for each posted page, then acknowledge.  Cheap when nothing is posted. */
void dsm_reader_enter(struct dsm_reader *r, dsm_drop_fn drop, void *arg);
void dsm_reader_poll(struct dsm_reader *r, dsm_drop_fn drop, void *arg);
/* The pages posted up to here count as dropped: the user must not use what it cached until the next enter,
 * which hands over what was posted while it was away. */
void dsm_reader_leave(struct dsm_reader *r);

/*
 * Makes every reader of this node (the caller's own is not active) drop what it caches on gfn above `right`,
 * and waits until each has.  Local: no message, no protocol state.  For an engine that is about to translate
 * code from gfn and must know that nobody still writes to it through a cached right.
 * Context: not active as a reader; may block for as long as a reader takes to poll.
 */
void dsm_readers_sync(struct dsm *d, gfn_t gfn, enum dsm_right right);

/*
 * For device models: copies between host memory and guest RAM with rights, any length and alignment, page by
 * page.  Atomic only per page.  -EFAULT when the range is not RAM; -ETIMEDOUT, -EPIPE.
 * Context: as dsm_acquire.
 */
MUST_CHECK int dsm_copy_in(struct dsm *d, void *dst, gpa_t src, size_t len, uint64_t deadline_ns);
MUST_CHECK int dsm_copy_out(struct dsm *d, gpa_t dst, const void *src, size_t len, uint64_t deadline_ns);

/*
 * A node leaves the memory while the VM runs: what it is home to falls to others, it holds nothing any more, and dsm_acquire
 * fails there with -EHOSTDOWN.  Its threads should have gone before.  When the call says 0, loss of that node ends nothing.
 *
 * Context: node 0 (which cannot leave), a thread that may sleep; one call at a time in the VM.  Up to the freeze, in which
 * nobody is granted anything, the deadline holds, and all is as before when it passes.  Then there is no way back,
 * and loss of a node ends the VM.
 *
 * -EPERM: not on node 0; -EINVAL: no such node, or node 0; -EALREADY: it is out (join: in) already; -EBUSY: another call;
 * -ENOSPC: room_pages, what the others can take, is less than need_pages (or so cut up that no table holds it: -E2BIG);
 * -ENOTCONN: a node that was lost cannot come back; -ETIMEDOUT, -EPIPE; -EOPNOTSUPP: there is only one node.
 */
struct dsm_drain {
	uint64_t need_pages, room_pages;
	uint64_t moved_entries, moved_pages; /* of the directory; pages whose bytes travelled with them */
	uint64_t leave_ns;  /* for which the node gave up others' pages, while everybody ran */
	uint64_t frozen_ns; /* for which nobody was granted anything */
};
/* What dsm_drain would say at once. */
MUST_CHECK int dsm_drain_ask(struct dsm *d, node_id node, uint64_t deadline_ns, struct dsm_drain *out);
MUST_CHECK int dsm_drain(struct dsm *d, node_id node, uint64_t deadline_ns, struct dsm_drain *out);
/* A drained node that lives is in again, home to what it was home to first. */
MUST_CHECK int dsm_join(struct dsm *d, node_id node, struct dsm_drain *out);
/* Any node, any thread. */
bool dsm_drained(const struct dsm *d, node_id node);

#define DSM_HOT_PAGES 10
#define DSM_LAT_BUCKETS 32 /* bucket i counts faults of [2^i, 2^(i+1)) ns */
struct dsm_stats {
	uint64_t faults_read, faults_write, faults_upgrade; /* that needed another node */
	uint64_t faults_local;				    /* resolved at this node alone */
	uint64_t pages_sent, pages_received, invalidations_received, refused;
	uint64_t evictions; /* frames given back because the cache was full */
	uint64_t collections; /* instructions that had to take all their pages in order: docs/protocol.md, section 6 */
	uint64_t latency_p50_ns, latency_p99_ns; /* of remote faults */
	uint64_t latency_hist[DSM_LAT_BUCKETS];
	struct {
		gfn_t gfn;
		uint64_t faults;
	} hot[DSM_HOT_PAGES]; /* most remote faults first; approximate */
};
void dsm_stats(struct dsm *d, struct dsm_stats *out);

/* Waits of one thread for pages, by the node whose answer ended them; by this node: for something here.  Only grow; any
 * thread reads, relaxed. */
struct dsm_stalls {
	struct {
		_Atomic uint64_t waits, ns;
		_Atomic uint64_t reads;	  /* of the waits: a readable copy was enough */
		_Atomic uint64_t bounced; /* of the waits: for a page that the thread had had lately, and this node lost */
	} by[NODES_MAX];
	uint32_t thread; /* the rest: the DSM's */
	struct dsm_stalls *next;
};
/* From now on the calling thread's waits are counted in *s, zeroed by the caller; one per thread, and for one dsm. */
void dsm_stalls_bind(struct dsm *d, struct dsm_stalls *s);
/* The same thread, before it ends. */
void dsm_stalls_unbind(struct dsm *d, struct dsm_stalls *s);

#endif
