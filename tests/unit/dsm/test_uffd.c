/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/dsm/test_uffd.c - calls that make, protect and take away pages of a view; both ways to make readable ones. */
#include "base/clock.h"
#include "dsm/uffd.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 8u

struct file {
	int fd;
	uint8_t *alias;
	struct dsm_uffd u;
};

static void open_file(struct file *f, enum dsm_faults faults, bool copy)
{
	struct dsm_uffd_config cfg = { .bytes = PAGES * PAGE_SIZE, .faults = faults, .copy = copy };
	struct dsm_uffd_why why;
	void *p;

	cfg.memfd = f->fd = memfd_create("test", MFD_CLOEXEC);
	cr_assert_geq(f->fd, 0);
	cr_assert_eq(ftruncate(f->fd, PAGES * PAGE_SIZE), 0);
	p = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	cfg.alias = f->alias = p;
	cr_assert_eq(dsm_uffd_open(&f->u, &cfg, &why), 0, "%s (%s)", why.why, why.fix);
	cr_assert(!copy || f->u.copy);
}

static void close_file(struct file *f)
{
	dsm_uffd_close(&f->u);
	munmap(f->alias, PAGES * PAGE_SIZE);
	close(f->fd);
}

/* --- inline: what does a touch do? ------------------------------------------------------------------- */

static sigjmp_buf out_of_fault;
static volatile int fault_signal;

static void on_fault(int sig)
{
	fault_signal = sig;
	siglongjmp(out_of_fault, 1);
}

static void faults_catch(void)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
}

/* The signal that a read, or a write, of the view raises; 0: none.  *value: what was read. */
static int touch(struct file *f, unsigned page, bool write, uint8_t *value)
{
	volatile uint8_t *at = f->u.view + page * PAGE_SIZE;

	fault_signal = 0;
	if (sigsetjmp(out_of_fault, 1))
		return fault_signal;
	if (write)
		*at = *value;
	else
		*value = *at;
	return 0;
}

static void rights_are_enforced(bool copy)
{
	struct file f;
	uint8_t b;

	faults_catch();
	open_file(&f, DSM_FAULTS_INLINE, copy);
	memset(f.alias + PAGE_SIZE, 0x5a, PAGE_SIZE);
	for (unsigned round = 0; round < 3; round++) {
		cr_assert_eq(touch(&f, 1, false, &b), SIGBUS,
			     "absent although the file has the frame");
		cr_assert_eq(touch(&f, 2, false, &b), SIGBUS, "absent");
		dsm_uffd_map(&f.u, PAGE_SIZE, false);
		cr_assert_eq(touch(&f, 1, false, &b), 0);
		cr_assert_eq(b, 0x5a + round);
		cr_assert_eq(f.alias[2 * PAGE_SIZE - 1], 0x5a + round,
			     "the alias has the same bytes");
		cr_assert_eq(touch(&f, 1, true, &b), SIGBUS, "readable only");
		dsm_uffd_protect(&f.u, PAGE_SIZE, false);
		b = (uint8_t)(0x5b + round);
		cr_assert_eq(touch(&f, 1, true, &b), 0, "writable");
		cr_assert_eq(f.alias[PAGE_SIZE], b, "one frame");
		dsm_uffd_protect(&f.u, PAGE_SIZE, true);
		cr_assert_eq(touch(&f, 1, true, &b), SIGBUS, "protected again");
		cr_assert_eq(touch(&f, 1, false, &b), 0);
		/* Zapped in turns while protected and while writable: what the kernel remembers of it must not matter. */
		if (round == 1)
			dsm_uffd_protect(&f.u, PAGE_SIZE, false);
		dsm_uffd_zap(&f.u, PAGE_SIZE);
		memset(f.alias + PAGE_SIZE, 0x5b + (int)round, PAGE_SIZE);
	}
	close_file(&f);
}

Test(uffd, rights_are_enforced)
{
	rights_are_enforced(false);
}
Test(uffd, rights_are_enforced_copying)
{
	rights_are_enforced(true);
}

static void a_write_grant_after_protection(bool copy)
{
	struct file f;
	uint8_t b = 7;

	faults_catch();
	open_file(&f, DSM_FAULTS_INLINE, copy);
	dsm_uffd_map(&f.u, 0, false);
	dsm_uffd_zap(&f.u, 0);
	dsm_uffd_map(&f.u, 0, true);
	cr_assert_eq(touch(&f, 0, true, &b), 0, "no left-over of the protection");
	dsm_uffd_map(&f.u, 0, true);
	cr_assert_eq(f.alias[0], 7, "mapping a page that is mapped changes nothing");
	dsm_uffd_zap(&f.u, 0);
	dsm_uffd_map(&f.u, 0, false);
	dsm_uffd_map(&f.u, 0, false);
	cr_assert_eq(touch(&f, 0, true, &b), SIGBUS);
	dsm_uffd_map(&f.u, 0, true);
	cr_assert_eq(touch(&f, 0, true, &b), 0, "mapping again can widen");
	close_file(&f);
}

Test(uffd, a_write_grant_after_protection)
{
	a_write_grant_after_protection(false);
}
Test(uffd, a_write_grant_after_protection_copying)
{
	a_write_grant_after_protection(true);
}

/* --- a page that becomes readable is writable at no time ---------------------------------------------- */

static _Atomic bool writer_stops;
static __thread sigjmp_buf writer_jump;

static void on_writer_fault(int sig)
{
	(void)sig;
	siglongjmp(writer_jump, 1);
}

static void *writer(void *arg)
{
	volatile uint8_t *at = arg;

	sigsetjmp(writer_jump, 0);
	while (!writer_stops)
		*at = 0xee;
	return NULL;
}

static void never_writable(bool copy)
{
	struct sigaction sa = { .sa_handler = on_writer_fault, .sa_flags = SA_NODEFER };
	uint64_t until = clock_now_ns() + 300 * NS_PER_MS;
	unsigned rounds = 0;
	pthread_t tid;
	struct file f;

	sigaction(SIGBUS, &sa, NULL);
	open_file(&f, DSM_FAULTS_INLINE, copy);
	pthread_create(&tid, NULL, writer, f.u.view);
	while (clock_now_ns() < until) {
		f.alias[0] = (uint8_t)(rounds++ % 200);
		dsm_uffd_map(&f.u, 0, false);
		cr_assert_neq(f.alias[0], 0xee, "written while it became readable, round %u",
			      rounds);
		dsm_uffd_zap(&f.u, 0);
	}
	writer_stops = true;
	pthread_join(tid, NULL);
	cr_assert_gt(rounds, 10);
	close_file(&f);
}

Test(uffd, never_writable_on_the_way)
{
	never_writable(false);
}
Test(uffd, never_writable_on_the_way_copying)
{
	never_writable(true);
}

/* --- dispatch ----------------------------------------------------------------------------------------- */

struct toucher {
	volatile uint8_t *at;
	bool write;
	uint8_t value;
	_Atomic bool done, refused;
	pthread_t tid;
};
static __thread struct toucher *me;
static __thread sigjmp_buf my_jump;

static void on_refusal(int sig)
{
	(void)sig;
	siglongjmp(my_jump, 1);
}

static void *toucher_run(void *arg)
{
	me = arg;
	if (sigsetjmp(my_jump, 0)) {
		me->refused = true;
	} else if (me->write) {
		*me->at = me->value;
	} else {
		me->value = *me->at;
	}
	me->done = true;
	return NULL;
}

static struct dsm_uffd_event event_wait(struct file *f)
{
	struct pollfd p = { .fd = f->u.fd, .events = POLLIN };
	struct dsm_uffd_event ev;

	cr_assert_eq(poll(&p, 1, 5000), 1, "a fault is told");
	cr_assert_eq(dsm_uffd_events(&f->u, &ev, 1), 1);
	return ev;
}

static void parked_until_mapped(bool copy)
{
	struct toucher t = { .value = 9 };
	struct dsm_uffd_event ev;
	struct file f;

	open_file(&f, DSM_FAULTS_DISPATCH, copy);
	f.alias[3 * PAGE_SIZE + 5] = 0x77;
	t.at = f.u.view + 3 * PAGE_SIZE + 5;
	pthread_create(&t.tid, NULL, toucher_run, &t);
	ev = event_wait(&f);
	cr_assert_eq(ev.offset, 3 * PAGE_SIZE);
	cr_assert_not(ev.write);
	cr_assert_neq(ev.thread, 0);
	cr_assert_not(t.done);
	dsm_uffd_wake(&f.u, ev.offset);
	ev = event_wait(&f); /* woken with nothing there: it comes again */
	dsm_uffd_map(&f.u, ev.offset, false);
	pthread_join(t.tid, NULL);
	cr_assert_eq(t.value, 0x77);

	t.write = true;
	t.done = false;
	t.value = 0x78;
	pthread_create(&t.tid, NULL, toucher_run, &t);
	ev = event_wait(&f);
	cr_assert(ev.write);
	cr_assert_eq(f.alias[3 * PAGE_SIZE + 5], 0x77);
	dsm_uffd_protect(&f.u, ev.offset, false);
	pthread_join(t.tid, NULL);
	cr_assert_eq(f.alias[3 * PAGE_SIZE + 5], 0x78);
	cr_assert_eq(dsm_uffd_events(&f.u, &ev, 1), 0);
	close_file(&f);
}

Test(uffd, parked_until_mapped, .timeout = 20)
{
	parked_until_mapped(false);
}
Test(uffd, parked_until_mapped_copying, .timeout = 20)
{
	parked_until_mapped(true);
}

/* Nobody who was parked, or comes later, gets a byte. */
Test(uffd, shut_refuses_everybody, .timeout = 20)
{
	struct sigaction sa = { .sa_handler = on_refusal, .sa_flags = SA_NODEFER };
	struct toucher t[6];
	struct dsm_uffd_event ev;
	struct file f;

	sigaction(SIGSEGV, &sa, NULL);
	open_file(&f, DSM_FAULTS_DISPATCH, false);
	memset(f.alias, 0x11, PAGES * PAGE_SIZE);
	dsm_uffd_map(&f.u, 4 * PAGE_SIZE, true);
	for (unsigned i = 0; i < 5; i++) {
		t[i] = (struct toucher){ .at = f.u.view + i / 2 * PAGE_SIZE,
					 .write = i & 1,
					 .value = 0x22 };
		pthread_create(&t[i].tid, NULL, toucher_run, &t[i]);
		ev = event_wait(&f);
		cr_assert_eq(ev.offset, i / 2 * PAGE_SIZE);
	}
	dsm_uffd_shut(&f.u);
	t[5] = (struct toucher){ .at = f.u.view + 4 * PAGE_SIZE, .write = true, .value = 0x22 };
	pthread_create(&t[5].tid, NULL, toucher_run, &t[5]);
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(t[i].tid, NULL);
		cr_assert(t[i].refused, "thread %u", i);
		cr_assert_eq(*(f.alias + (t[i].at - f.u.view)), 0x11);
	}
	close_file(&f);
}
