/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/uffd.c - a guest view: a mapping of a memory file under userfaultfd.
 *
 * What      A page becomes writable by UFFDIO_CONTINUE, which maps the frame that the alias filled.  It becomes readable
 *           by the same with MODE_WP; where the kernel has no such thing (before 6.4), by taking the bytes out, punching
 *           the frame and putting them back with UFFDIO_COPY and MODE_WP, which makes frame and protected mapping at once.
 *           CONTINUE and then protect would leave the page writable for a moment.
 * Owns      The view and the userfaultfd.
 * Threads   See the header; nothing here is written after open.
 * I/O       userfaultfd, mmap, fallocate.
 */
#include "dsm/uffd.h"

#include "base/assert.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers are Linux 6.1's; the value is from include/uapi/linux/userfaultfd.h of 6.4. */
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif

/* Shared memory needs: missing 4.11, minor 5.14, write-protection 5.19. */
#define FEATURES                                                                                  \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
#define COPY_TRIES 64u

static void explain(struct dsm_uffd_why *w, const char *why, int err, const char *fix)
{
	snprintf(w->why, sizeof(w->why), "%s%s%s", why, err ? ": " : "", err ? strerror(err) : "");
	snprintf(w->fix, sizeof(w->fix), "%s", fix);
}

/* --- open ------------------------------------------------------------------------------------------- */

/* For user-mode faults alone everybody gets one; for faults of the kernel there are three ways to be allowed. */
static int descriptor_open(struct dsm_uffd *u, struct dsm_uffd_why *why)
{
	int dev;

	u->kernel_faults = true;
	u->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (u->fd >= 0)
		return 0;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		u->fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
		if (u->fd >= 0)
			return 0;
	}
	u->kernel_faults = false;
	u->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (u->fd >= 0) {
		explain(why, "no right to a userfaultfd for faults of the kernel", 0,
			"sysctl vm.unprivileged_userfaultfd=1, or setfacl -m g:kvm:rw "
			"/dev/userfaultfd, or CAP_SYS_PTRACE");
		return 0;
	}
	dev = errno;
	explain(why, "userfaultfd", dev,
		dev == ENOSYS ? "a kernel with CONFIG_USERFAULTFD"
			      : "a process that may call userfaultfd(2): see its seccomp filter");
	return -dev;
}

static int features_take(struct dsm_uffd *u, struct dsm_uffd_why *why)
{
	__u64 mode =
		u->cfg.faults == DSM_FAULTS_INLINE ? UFFD_FEATURE_SIGBUS : UFFD_FEATURE_THREAD_ID;
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES | mode };

	if (!ioctl(u->fd, UFFDIO_API, &api))
		return 0;
	explain(why, "userfaultfd here cannot write-protect shared memory", errno,
		"Linux 5.19 or newer");
	return -EOPNOTSUPP;
}

static int view_open(struct dsm_uffd *u, struct dsm_uffd_why *why)
{
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
			UFFDIO_REGISTER_MODE_WP,
	};
	void *p = mmap(NULL, u->cfg.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		       u->cfg.memfd, 0);
	int err;

	if (p == MAP_FAILED) {
		err = errno;
		explain(why, "second mapping of guest memory", err, "");
		return -err;
	}
	u->view = p;
	/* A frame must come and go alone. */
	madvise(u->view, u->cfg.bytes, MADV_NOHUGEPAGE);
	madvise(u->cfg.alias, u->cfg.bytes, MADV_NOHUGEPAGE);
	reg.range.start = (uintptr_t)p;
	reg.range.len = u->cfg.bytes;
	if (ioctl(u->fd, UFFDIO_REGISTER, &reg)) {
		err = errno;
		explain(why, "userfaultfd refuses the guest view", err, "Linux 5.19 or newer");
		return -err;
	}
	return 0;
}

static int continue_frame(struct dsm_uffd *u, uint64_t offset, __u64 mode)
{
	struct uffdio_continue c = {
		.range = { (uintptr_t)u->view + offset, PAGE_SIZE },
		.mode = mode,
	};

	/* The kernel may answer EAGAIN while the address space changes elsewhere. */
	for (;;) {
		if (!ioctl(u->fd, UFFDIO_CONTINUE, &c))
			return 0;
		if (errno != EAGAIN)
			return -errno;
	}
}

/* Tried on the first page, which nobody uses yet: a kernel that does not know MODE_WP says EINVAL, one that does maps
 * the frame, or says EFAULT when there is none. */
static void way_choose(struct dsm_uffd *u)
{
	u->copy = u->cfg.copy || continue_frame(u, 0, UFFDIO_CONTINUE_MODE_WP) == -EINVAL;
	dsm_uffd_zap(u, 0);
}

int dsm_uffd_open(struct dsm_uffd *u, const struct dsm_uffd_config *cfg, struct dsm_uffd_why *why)
{
	struct dsm_uffd m = { .cfg = *cfg, .fd = -1 };
	int err;

	why->why[0] = why->fix[0] = 0;
	err = descriptor_open(&m, why);
	if (!err)
		err = features_take(&m, why);
	if (!err)
		err = view_open(&m, why);
	if (err) {
		dsm_uffd_close(&m);
		return err;
	}
	way_choose(&m);
	*u = m;
	return 0;
}

void dsm_uffd_close(struct dsm_uffd *u)
{
	if (u->view)
		munmap(u->view, u->cfg.bytes);
	if (u->fd >= 0)
		close(u->fd);
}

void dsm_uffd_shut(struct dsm_uffd *u)
{
	struct uffdio_range all = { (uintptr_t)u->view, u->cfg.bytes };

	/* In this order: who is parked, or about to be, tries again and finds no access. */
	if (mprotect(u->view, u->cfg.bytes, PROT_NONE))
		ASSERT(!"the view can be closed");
	if (ioctl(u->fd, UFFDIO_WAKE, &all))
		ASSERT(!"the view is registered");
}

/* --- pages ------------------------------------------------------------------------------------------ */

/* Bytes out, frame away, frame and protected mapping back. */
static void copy_frame(struct dsm_uffd *u, uint64_t offset)
{
	uint8_t bytes[PAGE_SIZE] __attribute__((aligned(4096)));
	struct uffdio_copy c = {
		.dst = (uintptr_t)u->view + offset,
		.src = (uintptr_t)bytes,
		.len = PAGE_SIZE,
		.mode = UFFDIO_COPY_MODE_WP,
	};
	int err = 0;

	memcpy(bytes, u->cfg.alias + offset, PAGE_SIZE);
	for (unsigned i = 0; i < COPY_TRIES; i++) {
		if (fallocate(u->cfg.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)offset, PAGE_SIZE))
			ASSERT(!"a frame can be punched");
		do
			err = ioctl(u->fd, UFFDIO_COPY, &c) ? errno : 0;
		while (err == EAGAIN);
		if (err != EEXIST)
			break;
	}
	ASSERT(!err);
}

void dsm_uffd_map(struct dsm_uffd *u, uint64_t offset, bool writable)
{
	int err;

	if (!writable && u->copy) {
		copy_frame(u, offset);
		return;
	}
	/* CONTINUE maps what the file holds; a touch through the alias makes a frame of zeros. */
	__atomic_fetch_or(u->cfg.alias + offset, 0, __ATOMIC_RELAXED);
	err = continue_frame(u, offset, writable ? 0 : UFFDIO_CONTINUE_MODE_WP);
	ASSERT(!err || err == -EEXIST);
	if (!err)
		return;
	if (writable)
		dsm_uffd_protect(u, offset, false);
	dsm_uffd_wake(u, offset);
}

void dsm_uffd_protect(struct dsm_uffd *u, uint64_t offset, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)u->view + offset, PAGE_SIZE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int err;

	do
		err = ioctl(u->fd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;
	while (err == EAGAIN);
	ASSERT(!err); /* a range of ours, registered for it */
}

void dsm_uffd_zap(struct dsm_uffd *u, uint64_t offset)
{
	if (madvise(u->view + offset, PAGE_SIZE, MADV_DONTNEED))
		ASSERT(!"the view can be zapped");
}

/* --- dispatch --------------------------------------------------------------------------------------- */

unsigned dsm_uffd_events(struct dsm_uffd *u, struct dsm_uffd_event *out, unsigned max)
{
	struct uffd_msg msg[16];
	unsigned n = 0;
	ssize_t got =
		read(u->fd, msg, sizeof(msg[0]) * (max < ARRAY_LEN(msg) ? max : ARRAY_LEN(msg)));

	for (ssize_t i = 0; i < got / (ssize_t)sizeof(msg[0]); i++) {
		if (msg[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		out[n++] = (struct dsm_uffd_event){
			.offset = (msg[i].arg.pagefault.address & PAGE_MASK) - (uintptr_t)u->view,
			.write = msg[i].arg.pagefault.flags &
				 (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP),
			.thread = msg[i].arg.pagefault.feat.ptid,
		};
	}
	return n;
}

void dsm_uffd_wake(struct dsm_uffd *u, uint64_t offset)
{
	struct uffdio_range range = { (uintptr_t)u->view + offset, PAGE_SIZE };

	if (ioctl(u->fd, UFFDIO_WAKE, &range))
		ASSERT(!"the view is registered");
}
