/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/wrap.c - what the slices call instead of the C library (-Wl,--wrap): threads, mutexes, futexes, time, chance.
 *
 * What      The same promises, kept by the runtime.  A futex wait may end for no reason, as the kernel's may.
 * Limits    As runtime.c: general registers only.  Outside of rt_run the C library's own are called.  What is not needed
 *           is not there: a system call that is unknown here is a failure, not a silent pass.
 */
#include "tests/simvm/rt_priv.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPURIOUS_EVERY 64u

/* In the bytes of a pthread_mutex_t; PTHREAD_MUTEX_INITIALIZER is all zeros. */
struct mutex {
	struct rt_thread *owner;
};
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "room");

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
pthread_t __wrap_pthread_self(void);
int __wrap_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *param);
int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
long __wrap_syscall(long number, ...);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left);
int __wrap_sched_yield(void);
int __wrap_sched_setscheduler(pid_t pid, int policy, const struct sched_param *param);
int __wrap_close_range(unsigned first, unsigned last, int flags);
int __wrap_prctl(int option, ...);
ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags);
pid_t __wrap_getpid(void);
int __wrap_open(const char *path, int flags, ...);
uint64_t __wrap_clock_tsc(void);
void __wrap_log_set_thread(const char *name);
void __real_log_set_thread(const char *name);
int __real_open(const char *path, int flags, ...);

/* --- threads ------------------------------------------------------------------------------------------------------ */

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	struct rt_thread *t = rt_thread_new(rt_node(), "t", fn, arg);

	(void)attr;
	*out = (pthread_t)(uintptr_t)t;
	rt_point();
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
	struct rt_thread *t = (struct rt_thread *)(uintptr_t)thread;

	rt_point();
	while (t->state != RT_ENDED)
		rt_sleep(t, UINT64_MAX);
	if (result)
		*result = t->result;
	return 0;
}

pthread_t __wrap_pthread_self(void)
{
	return (pthread_t)(uintptr_t)rt_current();
}

int __wrap_pthread_setschedparam(pthread_t thread, int policy, const struct sched_param *param)
{
	(void)thread;
	(void)policy;
	(void)param;
	return 0;
}

/* --- mutexes ------------------------------------------------------------------------------------------------------ */

int __wrap_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
	(void)attr;
	((struct mutex *)m)->owner = NULL;
	return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
	if (((struct mutex *)m)->owner)
		rt_fail("a mutex is destroyed while it is held");
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	struct mutex *x = (struct mutex *)m;
	struct rt_thread *me = rt_current();

	if (!me)
		return 0;
	rt_point();
	if (x->owner == me)
		rt_fail("a thread locks a mutex that it holds");
	while (x->owner)
		rt_sleep(x, UINT64_MAX);
	x->owner = me;
	me->held++;
	return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *m)
{
	struct mutex *x = (struct mutex *)m;
	struct rt_thread *me = rt_current();

	if (!me)
		return 0;
	rt_point();
	if (x->owner)
		return EBUSY;
	x->owner = me;
	me->held++;
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	struct mutex *x = (struct mutex *)m;
	struct rt_thread *me = rt_current();

	if (!me)
		return 0;
	if (x->owner != me)
		rt_fail("a thread unlocks a mutex that it does not hold");
	x->owner = NULL;
	me->held--;
	rt_rouse(x, RT_THREADS_MAX);
	rt_point();
	return 0;
}

/* --- futexes ------------------------------------------------------------------------------------------------------ */

static uint64_t ns_of(const struct timespec *ts)
{
	uint64_t s = (uint64_t)ts->tv_sec;

	return s > INT32_MAX ? UINT64_MAX : s * NS_PER_S + (uint64_t)ts->tv_nsec;
}

static long futex_wait(const volatile uint32_t *word, uint32_t value, uint64_t until)
{
	if (*word != value) {
		errno = EAGAIN;
		return -1;
	}
	if (rt_random() % SPURIOUS_EVERY == 0 && (until == UINT64_MAX || until > rt_now_ns() + NS_PER_US))
		until = rt_now_ns() + NS_PER_US; /* as if a signal came */
	if (rt_sleep(word, until))
		return 0;
	errno = ETIMEDOUT;
	return -1;
}

static long futex(const volatile uint32_t *word, int op, uint32_t value, const struct timespec *ts)
{
	uint64_t until = ts ? ns_of(ts) : UINT64_MAX;

	rt_point();
	switch (op) {
	case FUTEX_WAIT_PRIVATE:
		if (ts && until != UINT64_MAX)
			until += rt_now_ns();
		return futex_wait(word, value, until);
	case FUTEX_WAIT_BITSET_PRIVATE:
		return futex_wait(word, value, until);
	case FUTEX_WAKE_PRIVATE:
		return (long)rt_rouse(word, value);
	default:
		rt_fail("a futex operation that the runtime does not know");
	}
}

long __wrap_syscall(long number, ...)
{
	const uint32_t *word;
	const struct timespec *ts;
	uint32_t value;
	va_list ap;
	int op;

	if (number == SYS_sched_setattr) {
		errno = EPERM;
		return -1;
	}
	if (number != SYS_futex)
		rt_fail("a system call that the runtime does not know");
	va_start(ap, number);
	word = va_arg(ap, const uint32_t *);
	op = va_arg(ap, int);
	value = va_arg(ap, uint32_t);
	ts = va_arg(ap, const struct timespec *);
	va_end(ap);
	return futex(word, op, value, ts);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
	uint64_t now;

	(void)clock;
	rt_point();
	now = rt_now_ns();
	out->tv_sec = (time_t)(now / NS_PER_S);
	out->tv_nsec = (long)(now % NS_PER_S);
	return 0;
}

int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
	(void)left;
	rt_sleep(NULL, rt_now_ns() + ns_of(wanted));
	return 0;
}

int __wrap_sched_yield(void)
{
	rt_point();
	rt_switch();
	return 0;
}

uint64_t __wrap_clock_tsc(void)
{
	return rt_tsc();
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

/* The keeper of dsm/node.c, which only keeps a CPU from halting, gives up. */
int __wrap_sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
{
	(void)pid;
	(void)policy;
	(void)param;
	errno = EPERM;
	return -1;
}

/* It closes the files of its thread: ours are everybody's. */
int __wrap_close_range(unsigned first, unsigned last, int flags)
{
	(void)first;
	(void)last;
	(void)flags;
	errno = EPERM;
	return -1;
}

/* Timer slack. */
int __wrap_prctl(int option, ...)
{
	(void)option;
	return 0;
}

ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags)
{
	uint8_t *p = out;

	(void)flags;
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rt_random();
	return (ssize_t)len;
}

pid_t __wrap_getpid(void)
{
	return 1000 + (pid_t)rt_node();
}

/* Where the nodes are different hosts, they have no boot id in common. */
int __wrap_open(const char *path, int flags, ...)
{
	int mode = 0;

	if (flags & O_CREAT) {
		va_list ap;

		va_start(ap, flags);
		mode = va_arg(ap, int);
		va_end(ap);
	}
	if (rt_skewed() && strstr(path, "boot_id")) {
		errno = ENOENT;
		return -1;
	}
	return __real_open(path, flags, mode);
}

void __wrap_log_set_thread(const char *name)
{
	struct rt_thread *t = rt_current();
	unsigned i = 0;

	__real_log_set_thread(name);
	if (!t)
		return;
	for (; name[i] && i < sizeof(t->name) - 1; i++)
		t->name[i] = name[i];
	t->name[i] = 0;
}
