/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/map_uffd.c - rights enforced by the MMU: a second mapping of the memfd under userfaultfd.
 *
 * What      The guest view.  A page without a right is not in its page table; a touch raises SIGBUS in the
 *           thread itself (UFFD_FEATURE_SIGBUS), whose handler calls dsm_view_fault, so no other thread has to
 *           be woken.  Grant: UFFDIO_CONTINUE maps the frame that the alias filled, write-protected for
 *           DSM_READ; an upgrade lifts the protection.  Revoke: zap or write-protect; both are complete, on
 *           every CPU, when the call returns (mm/memory.c flushes before it does).
 * Owns      The view and the userfaultfd.
 * Threads   grant and revoke: under dsm.lock.
 * Limits    Needs UFFDIO_CONTINUE_MODE_WP (Linux 6.4): without it a page would be writable for a moment.
 *           The userfaultfd is made for user-mode faults only unless the process may do more.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/log.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers are Linux 6.1's; values from include/uapi/linux/userfaultfd.h of 6.4. */
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif

#define FEATURES                                                                       \
	(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | \
	 UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

struct uffd {
	int fd;
	uint8_t *view;
	size_t bytes;
};

static int uffd_register(struct uffd *m)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
	struct uffdio_register reg = {
		.range = { (uintptr_t)m->view, m->bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
			UFFDIO_REGISTER_MODE_WP,
	};

	m->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (m->fd < 0)
		m->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (m->fd < 0 || ioctl(m->fd, UFFDIO_API, &api))
		return -errno;
	if (!(api.features & UFFD_FEATURE_WP_UNPOPULATED))
		return -EOPNOTSUPP; /* as old as CONTINUE_MODE_WP, which has no bit of its own */
	return ioctl(m->fd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static void uffd_close(void *map)
{
	struct uffd *m = map;

	if (m->view != MAP_FAILED)
		munmap(m->view, m->bytes);
	if (m->fd >= 0)
		close(m->fd);
	free(m);
}

static int uffd_open(struct dsm *d, void **out)
{
	struct uffd *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->fd = -1;
	m->bytes = (size_t)d->top << PAGE_SHIFT;
	m->view = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, d->memfd,
		       0);
	err = m->view == MAP_FAILED ? -errno : uffd_register(m);
	if (err) {
		log_error("dsm: userfaultfd for the guest view: %s", strerror(-err));
		uffd_close(m);
		return err;
	}
	*out = m;
	return 0;
}

static void protect(struct uffd *m, uint8_t *at, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)at, PAGE_SIZE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int err = ioctl(m->fd, UFFDIO_WRITEPROTECT, &wp);

	ASSERT(!err); /* a range of ours, registered for it */
}

/* The kernel may answer EAGAIN while the address space changes elsewhere. */
static void map_frame(struct uffd *m, uint8_t *at, bool writable)
{
	struct uffdio_continue c = {
		.range = { (uintptr_t)at, PAGE_SIZE },
		.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (writable ? 0 : UFFDIO_CONTINUE_MODE_WP),
	};
	int err;

	do
		err = ioctl(m->fd, UFFDIO_CONTINUE, &c) ? errno : 0;
	while (err == EAGAIN);
	ASSERT(!err || err == EEXIST);
}

static void uffd_grant(struct dsm *d, gfn_t gfn, enum dsm_right right)
{
	struct uffd *m = d->map_data;
	uint8_t *at = m->view + (gfn << PAGE_SHIFT);
	enum dsm_right had = dsm_right(d, gfn);

	if (had == right)
		return;
	if (had == DSM_READ) {
		protect(m, at, false);
	} else {
		/* CONTINUE maps what the file holds; a touch through the alias makes a frame of zeros. */
		atomic_fetch_or_explicit((_Atomic uint8_t *)frame_of(d, gfn), 0,
					 memory_order_relaxed);
		map_frame(m, at, right == DSM_WRITE);
	}
	state_set(d, gfn, right);
}

static bool uffd_revoke(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right)
{
	struct uffd *m = d->map_data;
	uint8_t *at = m->view + (gfn << PAGE_SHIFT);

	(void)page;
	state_set(d, gfn, right);
	if (right == DSM_READ)
		protect(m, at, true);
	else if (madvise(at, PAGE_SIZE, MADV_DONTNEED))
		ASSERT(!"the view can be zapped");
	return true;
}

const struct map_ops map_uffd_ops = {
	.open = uffd_open,
	.close = uffd_close,
	.grant = uffd_grant,
	.revoke = uffd_revoke,
};

uint8_t *dsm_view(struct dsm *d)
{
	ASSERT(d->map == &map_uffd_ops);
	return ((struct uffd *)d->map_data)->view;
}

int dsm_view_fault(struct dsm *d, const void *addr, bool write, uint64_t deadline_ns)
{
	uintptr_t offset = (uintptr_t)addr - (uintptr_t)dsm_view(d);

	if (offset >= (uintptr_t)d->top << PAGE_SHIFT)
		return -EFAULT;
	return dsm_acquire(d, offset >> PAGE_SHIFT, write ? DSM_WRITE : DSM_READ, deadline_ns);
}
