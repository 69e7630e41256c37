/* SPDX-License-Identifier: Apache-2.0 */
/* base/clock.h - monotonic host time for shells; cores take time as a value instead. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* CLOCK_MONOTONIC in nanoseconds.  Any thread, does not block. */
static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* The host's TSC, not read before earlier loads are done.  A function, so that a program can bring its own time
 * (tests/simvm).  Any thread; uses general registers only. */
uint64_t clock_tsc(void);

#endif
