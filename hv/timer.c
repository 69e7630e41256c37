/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer.c - kicks vCPUs out of the guest when their LAPIC timer is due.
 *
 * What      One thread sleeps until the earliest deadline of the vCPUs that run guest code; a vCPU that sleeps wakes itself.
 *           The thread never touches a LAPIC: a kicked vCPU looks at its own timer.
 * Threads   hv_timer_armed: any vCPU thread.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t earliest(struct hv_slice *s)
{
	uint64_t min = HV_NEVER;

	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		struct hv_cpu *c = s->cpu[v];
		uint64_t at = c ? atomic_load(&c->deadline_ns) : HV_NEVER;

		if (at < min)
			min = at;
	}
	return min;
}

static void kick_due(struct hv_slice *s, uint64_t now)
{
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		struct hv_cpu *c = s->cpu[v];
		uint64_t at = c ? atomic_load(&c->deadline_ns) : HV_NEVER;

		/* A vCPU that has just armed a later one must not lose it. */
		if (at <= now && atomic_compare_exchange_strong(&c->deadline_ns, &at, HV_NEVER))
			hv_cpu_kick(c);
	}
}

static void *timer_thread(void *arg)
{
	struct hv_slice *s = arg;
	struct hv_timer *t = &s->timer;

	log_set_thread("timer");
	while (!hv_slice_ending(s)) {
		uint32_t seen = atomic_load(&t->word);
		uint64_t now = clock_now_ns(), at;

		/* Orders against hv_timer_armed: either it sees wakes_at, or earliest sees its deadline. */
		atomic_store(&t->wakes_at, 0);
		kick_due(s, now);
		at = earliest(s);
		if (at <= now)
			continue;
		atomic_store(&t->wakes_at, at);
		if (earliest(s) < at)
			continue;
		if (at == HV_NEVER) {
			syscall(SYS_futex, &t->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		} else {
			struct timespec ts = { (time_t)(at / NS_PER_S), (long)(at % NS_PER_S) };

			/* Absolute CLOCK_MONOTONIC. */
			syscall(SYS_futex, &t->word, FUTEX_WAIT_BITSET_PRIVATE, seen, &ts, NULL,
				FUTEX_BITSET_MATCH_ANY);
		}
	}
	return NULL;
}

void hv_timer_armed(struct hv_slice *s, uint64_t deadline_ns)
{
	struct hv_timer *t = &s->timer;

	if (atomic_load(&t->wakes_at) <= deadline_ns)
		return; /* awake, and will look; or wakes early enough */
	atomic_fetch_add(&t->word, 1);
	syscall(SYS_futex, &t->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int hv_timer_start(struct hv_slice *s)
{
	int err = pthread_create(&s->timer.thread, NULL, timer_thread, s);

	s->timer.runs = !err;
	return -err;
}

void hv_timer_stop(struct hv_slice *s)
{
	if (!s->timer.runs)
		return;
	atomic_fetch_add(&s->timer.word, 1);
	syscall(SYS_futex, &s->timer.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	pthread_join(s->timer.thread, NULL);
	s->timer.runs = false;
}
