/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/map_uffd.c - rights enforced by the MMU: a second mapping of the memfd under userfaultfd.
 *
 * What      The guest view.  A page without a right is not in its page table, one that is only readable is
 *           write-protected.  A touch beyond the right is resolved by the thread itself (inline: SIGBUS, or EFAULT of KVM_RUN, then
 *           dsm_view_fault) or parked for dispatch.c.  Revoke: zap or write-protect; both are complete, on every CPU
 *           and in KVM's tables, when the call returns (mm/memory.c and the MMU notifiers flush before it does).
 *           The kernel may drop a mapping by itself (reclaim, migration); the next touch is then a fault on a page
 *           whose right is held, and the page is mapped again.
 *           A one-node VM takes none of this: its view is an ordinary mapping, all rights are its own from the start.
 * Owns      The view, and the dispatcher when there is one.
 * Threads   grant, revoke, stop: under dsm.lock.
 * Limits    See dsm/uffd.h.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdlib.h>
#include <sys/mman.h>

struct uffd_map {
	struct dsm_uffd u; /* plain: only its view and size */
	struct dispatch *dispatch;
	bool plain;
	bool shut; /* dsm.lock */
};

static void uffd_close(void *map)
{
	struct uffd_map *m = map;

	if (m->dispatch)
		dispatch_close(m->dispatch);
	dsm_uffd_close(&m->u);
	free(m);
}

/* What is not RAM cannot be touched, so no thread is ever parked on it. */
static int holes_close(struct dsm *d, struct uffd_map *m)
{
	gfn_t at = 0;

	for (unsigned i = 0; i < d->dir.spans_count; i++) {
		const struct dir_span *span = &d->dir.span[i];

		if (span->first > at && mprotect(m->u.view + (at << PAGE_SHIFT),
						 (span->first - at) << PAGE_SHIFT, PROT_NONE))
			return -errno;
		at = span->first + span->count;
	}
	return 0;
}

/* One node: it has every right from the start, and nobody to lose one to. */
static int plain_open(struct dsm *d, struct uffd_map *m, const struct dsm_uffd_config *uc)
{
	void *p = mmap(NULL, uc->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		       uc->memfd, 0);

	if (p == MAP_FAILED)
		return -errno;
	m->plain = true;
	m->u = (struct dsm_uffd){ .cfg = *uc, .fd = -1, .view = p };
	for (unsigned i = 0; i < d->dir.spans_count; i++)
		for (uint32_t k = 0; k < d->dir.span[i].count; k++)
			state_set(d, d->dir.span[i].first + k, DSM_WRITE);
	return 0;
}

static int watched_open(struct uffd_map *m, const struct dsm_uffd_config *uc)
{
	struct dsm_uffd_why why;
	int err = dsm_uffd_open(&m->u, uc, &why);

	if (err)
		log_error("dsm: %s%s%s", why.why, why.fix[0] ? "; mends it: " : "", why.fix);
	return err;
}

static int uffd_open(struct dsm *d, const struct dsm_config *cfg, void **out)
{
	struct dsm_uffd_config uc = { .memfd = d->memfd,
				      .alias = d->alias,
				      .bytes = (size_t)d->top << PAGE_SHIFT,
				      .faults = cfg->faults,
				      .copy = cfg->uffd_copy };
	struct uffd_map *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	err = d->nodes == 1 ? plain_open(d, m, &uc) : watched_open(m, &uc);
	if (err) {
		free(m);
		return err;
	}
	*out = m; /* from here uffd_close undoes it */
	err = holes_close(d, m);
	if (!err && !m->plain && cfg->faults == DSM_FAULTS_DISPATCH)
		err = dispatch_open(d, &m->u, &m->dispatch);
	return err;
}

static void uffd_grant(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	struct uffd_map *m = d->map_data;
	uint64_t offset = gfn << PAGE_SHIFT;
	enum dsm_right had = dsm_right(d, gfn);

	if (had == right)
		return;
	if (m->shut)
		; /* nobody can use it */
	else if (had == DSM_READ)
		dsm_uffd_protect(&m->u, offset, false);
	else
		dsm_uffd_map(&m->u, offset, right == DSM_WRITE);
	state_set(d, gfn, right);
}

static bool uffd_revoke(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right)
{
	struct uffd_map *m = d->map_data;
	uint64_t offset = gfn << PAGE_SHIFT;

	(void)page;
	state_set(d, gfn, right);
	if (m->shut)
		return true;
	if (right == DSM_READ)
		dsm_uffd_protect(&m->u, offset, true);
	else
		dsm_uffd_zap(&m->u, offset);
	return true;
}

static void uffd_again(struct dsm *d, gfn_t gfn)
{
	struct uffd_map *m = d->map_data;
	enum dsm_right right = dsm_right(d, gfn);

	if (right != DSM_NONE && !m->shut)
		dsm_uffd_map(&m->u, gfn << PAGE_SHIFT, right == DSM_WRITE);
}

static void uffd_stop(struct dsm *d)
{
	struct uffd_map *m = d->map_data;

	if (!m->shut && !m->plain)
		dsm_uffd_shut(&m->u);
	else if (!m->shut && mprotect(m->u.view, m->u.cfg.bytes, PROT_NONE))
		ASSERT(!"the view can be closed");
	m->shut = true;
}

const struct map_ops map_uffd_ops = {
	.open = uffd_open,
	.close = uffd_close,
	.grant = uffd_grant,
	.revoke = uffd_revoke,
	.again = uffd_again,
	.stop = uffd_stop,
};

uint8_t *dsm_view(struct dsm *d)
{
	ASSERT(d->map == &map_uffd_ops);
	return ((struct uffd_map *)d->map_data)->u.view;
}

int dsm_view_fault(struct dsm *d, const void *addr, bool write, uint64_t deadline_ns)
{
	uintptr_t offset = (uintptr_t)addr - (uintptr_t)dsm_view(d);
	enum dsm_right want = write ? DSM_WRITE : DSM_READ;
	gfn_t gfn = offset >> PAGE_SHIFT;

	if (offset >= (uintptr_t)d->top << PAGE_SHIFT)
		return -EFAULT;
	if (atomic_load(&d->stopping))
		return -EPIPE;
	if (((struct uffd_map *)d->map_data)->plain)
		return -EFAULT; /* no page is ever missing */
	if (dsm_right(d, gfn) < want)
		return dsm_acquire(d, gfn, want, deadline_ns);
	/* Granted since the touch, or the mapping was lost. */
	dsm_lock(d);
	if (dsm_right(d, gfn) >= want)
		uffd_again(d, gfn);
	dsm_unlock(d);
	return 0;
}
