/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.c - the thread behind the devices of a slice.
 *
 * What      Serves virtio queues, requests of peers that found a device busy, messages that met back-pressure, outcomes of
 *           moves, and the console; says at the very end, after the last console byte, that the VM has ended.
 * Threads   One.  hv_io_wake: any.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"
#include "base/log.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RETRY_NS NS_PER_MS /* back-pressure */

void hv_io_wake(struct hv_slice *s)
{
	uint32_t old = atomic_fetch_or(&s->io.word, IO_WORK);

	if (old & IO_ASLEEP)
		syscall(SYS_futex, &s->io.word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void io_sleep(struct hv_slice *s, uint64_t timeout_ns)
{
	uint32_t none = 0;
	struct timespec ts = { .tv_nsec = (long)timeout_ns };

	if (!atomic_compare_exchange_strong(&s->io.word, &none, IO_ASLEEP))
		return; /* there is work */
	syscall(SYS_futex, &s->io.word, FUTEX_WAIT_PRIVATE, IO_ASLEEP, timeout_ns ? &ts : NULL,
		NULL, 0);
	atomic_fetch_and(&s->io.word, ~IO_ASLEEP);
}

static void *io_thread(void *arg)
{
	struct hv_slice *s = arg;

	log_set_thread("io");
	while (!hv_slice_ending(s)) {
		bool again, moving;

		atomic_fetch_and(&s->io.word, ~IO_WORK);
		hv_bus_serve(s);
		for (unsigned i = 0; i < s->virtio_slots; i++)
			if (s->virtio[i])
				hv_virtio_serve(s->virtio[i]);
		hv_board_input(s);
		hv_console_flush(s);
		again = hv_link_flush(s);
		moving = hv_move_serve(s);
		io_sleep(s, again ? RETRY_NS : moving ? HV_MOVE_TICK_NS : 0);
	}
	hv_console_flush(s);
	while (!atomic_load(&s->end_known)) {
		struct timespec ts = { .tv_nsec = NS_PER_MS };

		nanosleep(&ts, NULL); /* whoever claimed the end is writing it down */
	}
	s->sink.ended(s->sink.arg, &s->ended);
	return NULL;
}

int hv_io_start(struct hv_slice *s)
{
	int err = pthread_create(&s->io.thread, NULL, io_thread, s);

	s->io.runs = !err;
	return -err;
}

void hv_io_stop(struct hv_slice *s)
{
	if (!s->io.runs)
		return;
	hv_io_wake(s);
	pthread_join(s->io.thread, NULL);
	s->io.runs = false;
}
