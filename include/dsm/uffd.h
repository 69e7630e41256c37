/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/uffd.h - a second mapping of a memory file whose pages appear, are write-protected and vanish as told.
 *
 * What      What DSM_MAP_UFFD does to a mapping, as plain calls: also for programs that try what a host can do.
 *           A touch of a page that is not mapped, or a write to one that is write-protected, is a fault; it is
 *           resolved inline or dispatched (dsm.h).  A frame's bytes are read and written through the caller's alias.
 * Threads   open, close, shut: one.  map, protect, zap: one at a time per page.  event: one; wake: any.
 * Limits    Linux 5.19 (write-protection of shared memory).  Pages of 4 KiB only.
 * Sources   ioctl_userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
 */
#ifndef DSM_UFFD_H
#define DSM_UFFD_H

#include "base/err.h"
#include "base/types.h"
#include "dsm/dsm.h"

#define DSM_UFFD_TEXT 256u

struct dsm_uffd_config {
	int memfd;      /* borrowed */
	uint8_t *alias; /* borrowed: its other mapping, readable and writable */
	size_t bytes;
	enum dsm_faults faults;
	bool copy; /* UFFDIO_COPY for readable pages even where the kernel has something better */
};

/* All const after open. */
struct dsm_uffd {
	struct dsm_uffd_config cfg;
	int fd;
	uint8_t *view;
	bool copy; /* a page becomes readable by UFFDIO_COPY (before Linux 6.4) */
	bool kernel_faults; /* DISPATCH: touches by the kernel are parked, too, not only those by user code */
};

/* Why open failed, or why kernel_faults is false, and what mends it: a command where there is one.  May be "". */
struct dsm_uffd_why {
	char why[DSM_UFFD_TEXT], fix[DSM_UFFD_TEXT];
};

MUST_CHECK int dsm_uffd_open(struct dsm_uffd *u, const struct dsm_uffd_config *cfg,
			     struct dsm_uffd_why *why);
void dsm_uffd_close(struct dsm_uffd *u);
/*
 * The view cannot be touched any more and every parked thread goes on: with SIGSEGV, or EFAULT from KVM_RUN.  No
 * thread sees bytes that are not guest memory.
 */
void dsm_uffd_shut(struct dsm_uffd *u);

/*
 * Maps the frame at `offset`, which need not be unmapped, and wakes whoever is parked on it.  Without `writable` the
 * frame itself may be replaced by one with the same bytes: nobody may write it meanwhile.
 */
void dsm_uffd_map(struct dsm_uffd *u, uint64_t offset, bool writable);
/* Of a mapped page.  Off: wakes whoever is parked on it. */
void dsm_uffd_protect(struct dsm_uffd *u, uint64_t offset, bool on);
/* When it returns, nobody reaches the frame through the view. */
void dsm_uffd_zap(struct dsm_uffd *u, uint64_t offset);

/* DISPATCH */
struct dsm_uffd_event {
	uint64_t offset; /* of the page */
	bool write;
	uint32_t thread; /* kernel's id of the thread that is parked */
};
/* Fetches up to `max` faults, does not block; poll u->fd for more. */
unsigned dsm_uffd_events(struct dsm_uffd *u, struct dsm_uffd_event *out, unsigned max);
void dsm_uffd_wake(struct dsm_uffd *u, uint64_t offset);

#endif
