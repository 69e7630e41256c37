/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/bench_floor.c - the floor: a remote page with nothing but transport and mapping calls.
 *
 * Node 1 serves from a loop that polls; node 0 faults, asks, polls, copies, maps.  The kinds of request say
 * which mapping call the server makes before it answers, as map_uffd would.
 */
#include "tests/bench/dsm_bench.h"

#include "base/assert.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif

#define BODY 64u
enum request { ASK_RAW, ASK_PING, ASK_READ, ASK_WRITE, ASK_INVALIDATE, ASK_END };
enum { AT_NONE, AT_READ };

static struct {
	struct ic_fabric *f;
	int memfd, uffd;
	uint8_t *alias, *view;
	uint8_t *has; /* AT_*; node 0's page table, so to say */
	_Atomic unsigned answers;
	void *into;
	bool ended;
} fl;

static void protect(unsigned page, bool on)
{
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)fl.view + page * PAGE_SIZE,
						     PAGE_SIZE },
					  .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	if (ioctl(fl.uffd, UFFDIO_WRITEPROTECT, &wp))
		abort();
}

static void map_page(unsigned page, bool writable)
{
	struct uffdio_continue c = { .range = { (uintptr_t)fl.view + page * PAGE_SIZE, PAGE_SIZE },
				     .mode = UFFDIO_CONTINUE_MODE_DONTWAKE |
					     (writable ? 0 : UFFDIO_CONTINUE_MODE_WP) };

	if (ioctl(fl.uffd, UFFDIO_CONTINUE, &c))
		abort();
}

static void send_to(node_id to, const uint32_t *body, const void *data, uint16_t data_len)
{
	struct ic_msg msg = { .port = IC_PORT_TEST,
			      .body_len = BODY,
			      .body = body,
			      .data = data,
			      .data_len = data_len };

	if (ic_send(fl.f, to, &msg))
		abort();
}

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	uint32_t body[BODY / 4];

	(void)arg;
	memcpy(body, msg->body, sizeof(body));
	if (self == 0) {
		if (msg->data_len)
			memcpy(fl.into, msg->data, msg->data_len);
		fl.answers++;
		return;
	}
	switch (body[0]) {
	case ASK_READ:
		protect(body[1], true);
		break;
	case ASK_WRITE:
	case ASK_INVALIDATE:
		if (madvise(fl.view + body[1] * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED))
			abort();
		break;
	case ASK_END:
		fl.ended = true;
		return;
	}
	send_to(from, body, fl.alias + body[1] * PAGE_SIZE,
		body[0] == ASK_INVALIDATE || body[0] == ASK_PING ? 0 : PAGE_SIZE);
}

static void ask(enum request what, unsigned page, void *into)
{
	uint32_t body[BODY / 4] = { what, page };
	unsigned before = fl.answers;

	fl.into = into;
	send_to(1, body, NULL, 0);
	while (what != ASK_END && fl.answers == before)
		if (ic_progress(fl.f, 8) <= 0)
			sched_yield();
}

int floor_fault(void *addr, bool write)
{
	unsigned page = (unsigned)(((uintptr_t)addr - (uintptr_t)fl.view) / PAGE_SIZE);

	if (page >= 2 * PAGES)
		return -EFAULT;
	if (self == 1) {
		map_page(page, true);
	} else if (fl.has[page] == AT_READ) {
		ask(ASK_INVALIDATE, page, NULL);
		protect(page, false);
	} else {
		ask(write ? ASK_WRITE : ASK_READ, page, fl.alias + page * PAGE_SIZE);
		map_page(page, write);
		fl.has[page] = AT_READ;
	}
	return 0;
}

static void memory_open(void)
{
	size_t bytes = 3 * PAGES * PAGE_SIZE;
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM |
					      UFFD_FEATURE_MINOR_SHMEM |
					      UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					      UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_MINOR |
					       UFFDIO_REGISTER_MODE_WP };

	fl.memfd = memfd_create("floor", MFD_CLOEXEC);
	if (fl.memfd < 0 || ftruncate(fl.memfd, (off_t)bytes))
		abort();
	fl.alias =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fl.memfd, 0);
	fl.view =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fl.memfd, 0);
	fl.has = calloc(2, PAGES);
	ASSERT(fl.alias != MAP_FAILED && fl.view != MAP_FAILED && fl.has);
	fl.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fl.uffd < 0)
		fl.uffd =
			(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	reg.range.start = (uintptr_t)fl.view;
	reg.range.len = bytes;
	if (fl.uffd < 0 || ioctl(fl.uffd, UFFDIO_API, &api) ||
	    ioctl(fl.uffd, UFFDIO_REGISTER, &reg))
		abort();
	for (unsigned i = 0; self == 1 && i < 2 * PAGES; i++) {
		fl.alias[i * PAGE_SIZE] = 1;
		fl.view[i * PAGE_SIZE] = 1;
	}
}

static void memory_close(void)
{
	munmap(fl.view, 3 * PAGES * PAGE_SIZE);
	munmap(fl.alias, 3 * PAGES * PAGE_SIZE);
	close(fl.uffd);
	close(fl.memfd);
	free(fl.has);
}

static void client(struct samples s[BENCH_CASES])
{
	uint8_t page[PAGE_SIZE];
	uint64_t start;

	for (unsigned i = 0; i < PAGES; i++) {
		start = clock_now_ns();
		ask(ASK_RAW, i, page);
		sample_add(&s[BENCH_RAW], clock_now_ns() - start);
	}
	for (unsigned i = 0; i < PAGES; i++) {
		start = clock_now_ns();
		ask(ASK_PING, i, NULL);
		sample_add(&s[BENCH_PING], clock_now_ns() - start);
	}
	for (unsigned i = 2 * PAGES; i < 3 * PAGES; i++) {
		start = clock_now_ns();
		ask(ASK_RAW, i - PAGES, fl.alias + i * PAGE_SIZE);
		sample_add(&s[BENCH_FRESH], clock_now_ns() - start);
	}
	for (unsigned i = 0; i < PAGES; i++) {
		start = clock_now_ns();
		ASSERT(*(volatile uint8_t *)(fl.view + i * PAGE_SIZE) == 1);
		sample_add(&s[BENCH_READ], clock_now_ns() - start);
	}
	for (unsigned i = PAGES; i < 2 * PAGES; i++) {
		start = clock_now_ns();
		fl.view[i * PAGE_SIZE] = 2;
		sample_add(&s[BENCH_WRITE], clock_now_ns() - start);
	}
	for (unsigned i = 0; i < PAGES; i++) {
		start = clock_now_ns();
		fl.view[i * PAGE_SIZE] = 2;
		sample_add(&s[BENCH_INVALIDATE], clock_now_ns() - start);
	}
	ask(ASK_END, 0, NULL);
}

void floor_round(const char *backend, struct samples s[BENCH_CASES])
{
	fl.f = fabric_open(backend, NULL);
	fl.ended = false;
	fl.answers = 0;
	ic_set_handler(fl.f, IC_PORT_TEST, (struct ic_handler){ on_message, NULL });
	memory_open();
	fabric_link(fl.f, true);
	if (self == 0)
		client(s);
	else
		while (!fl.ended)
			if (ic_progress(fl.f, 8) <= 0)
				sched_yield();
	meet();
	memory_close();
	ic_close(fl.f);
	meet();
}
