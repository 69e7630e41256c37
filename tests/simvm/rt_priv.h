/* SPDX-License-Identifier: Apache-2.0 */
/* tests/simvm/rt_priv.h - what runtime.c and wrap.c share: a green thread, and how it waits. */
#ifndef TESTS_SIMVM_RT_PRIV_H
#define TESTS_SIMVM_RT_PRIV_H

#include "tests/simvm/runtime.h"

#include <stddef.h>

#define RT_THREADS_MAX 64u

struct rt_thread {
	void *sp; /* while it does not run: as rt_swap left it */
	enum { RT_READY, RT_ASLEEP, RT_BLOCKED, RT_ENDED } state;
	unsigned id, node, held; /* held: mutexes */
	bool main, timed_out;
	const volatile void *on; /* asleep: the word, thread or mutex that it waits for */
	uint64_t until;		 /* asleep: wakes then at the latest */
	void *(*fn)(void *);
	void *arg, *result;
	char name[16];
	uint8_t tls[]; /* while it does not run */
};

/* Of the calling thread; NULL outside of rt_run. */
struct rt_thread *rt_current(void);
struct rt_thread *rt_thread_new(unsigned node, const char *name, void *(*fn)(void *), void *arg);
/* A call that takes time, and after which another thread may run. */
void rt_point(void);
/* Another thread runs, or this one again. */
void rt_switch(void);
/* True: rt_rouse; false: the time has come. */
bool rt_sleep(const volatile void *on, uint64_t until_ns);
unsigned rt_rouse(const volatile void *on, unsigned most);
uint64_t rt_tsc(void);
bool rt_skewed(void);
_Noreturn void rt_fail(const char *text);

#endif
