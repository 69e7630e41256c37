/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_errors.c - what a device can do wrong, done by the fake libibverbs (tests/mock).
 *
 * Each error ends in one IC_PEER_DOWN on each side, nothing of the old epoch comes after it, nothing is leaked, and the
 * peers meet again.
 */
#include "tests/conform/fabric_conform.h"

#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <string.h>
#include <unistd.h>

#define LONG_NS (20 * NS_PER_S)

static long (*control)(const char *key, long value);

bool mock_present(void)
{
	void *so = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD);

	control = so ? (long (*)(const char *, long))dlsym(so, "mock_verbs") : NULL;
	return control;
}

static void traffic(struct end *e, unsigned count)
{
	uint32_t a = e[0].got[1] + count, b = e[1].got[0] + count;

	for (unsigned i = 0; i < count; i++) {
		PUMP_FOR(e, 2, send_next(&e[0], 1) != -EAGAIN, LONG_NS);
		PUMP_FOR(e, 2, send_next(&e[1], 0) != -EAGAIN, LONG_NS);
	}
	PUMP_FOR(e, 2, e[0].got[1] >= a && e[1].got[0] >= b, LONG_NS);
	CHECK(e[0].got[1] == a && e[1].got[0] == b);
}

static void rejoin(struct end *e)
{
	unsigned a = e[0].ups, b = e[1].ups;

	/* From 0 on both sides: a message of the old epoch would not fit. */
	e[0].sent[1] = e[0].got[1] = e[1].sent[0] = e[1].got[0] = 0;
	CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
	PUMP_FOR(e, 2, e[0].ups == a + 1 && e[1].ups == b + 1, LONG_NS);
}

/* Both full of what is under way, then the error. */
static void break_once(struct end *e, const char *key, long value)
{
	unsigned a = e[0].downs, b = e[1].downs;

	for (unsigned i = 0; i < 20; i++)
		if (send_next(&e[0], 1) || send_next(&e[1], 0))
			break;
	control(key, value);
	PUMP_FOR(e, 2, (send_next(&e[0], 1), send_next(&e[1], 0), e[0].downs > a && e[1].downs > b), LONG_NS);
	for (unsigned i = 0; i < 200; i++)
		pump_once(e, 2);
	CHECK(e[0].downs == a + 1 && e[1].downs == b + 1 && !control(key, -1));
}

static void break_each(const char *key, const int *statuses, unsigned count)
{
	long objects = control("objects", -1);
	struct end e[2];

	ends_open(e, 2);
	for (unsigned i = 0; i < 6 * count; i++) {
		control("stale", i % 3);
		control("reuse", i / 3 & 1);
		traffic(e, 50);
		break_once(e, key, statuses[i / 6]);
		rejoin(e);
	}
	traffic(e, 300); /* more than there are slots: none was lost */
	ends_close(e, 2);
	control("stale", 0);
	control("reuse", 0);
	CHECK(control("objects", -1) == objects);
}

void errors_of_sends(void)
{
	static const int statuses[] = { IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_REM_OP_ERR,
					IBV_WC_LOC_PROT_ERR, IBV_WC_FATAL_ERR };

	break_each("send-status", statuses, ARRAY_LEN(statuses));
}

void errors_of_receives(void)
{
	static const int statuses[] = { IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_PROT_ERR };

	break_each("recv-status", statuses, ARRAY_LEN(statuses));
}

/* Nobody sends, nothing is reported but that the receives are flushed: on one side, and the other learns it from there. */
void queue_pair_fails_in_silence(void)
{
	long objects = control("objects", -1);
	struct end e[2];

	ends_open(e, 2);
	for (unsigned round = 1; round <= 4; round++) {
		control("stale", round % 3);
		traffic(e, 50);
		for (unsigned i = 0; i < 200; i++)
			pump_once(e, 2);
		control("qp-error", 1);
		PUMP_FOR(e, 2, e[0].downs == round && e[1].downs == round, LONG_NS);
		CHECK(!control("qp-error", -1));
		rejoin(e);
	}
	traffic(e, 150);
	ends_close(e, 2);
	control("stale", 0);
	CHECK(control("objects", -1) == objects);
}

/* The device is gone for good: its fabric is, too, and can only be closed. */
static void lose_device(const char *key)
{
	long objects = control("objects", -1);
	struct end e[2];

	for (unsigned round = 0; round < 3; round++) {
		ends_open(e, 2);
		traffic(e, 50);
		break_once(e, key, 1);
		CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
		for (unsigned i = 0; i < 200; i++)
			pump_once(e, 2);
		CHECK(e[0].ups == 1 && e[1].ups == 1);
		ends_close(e, 2);
		CHECK(control("objects", -1) == objects);
	}
}

void device_dies(void)
{
	lose_device("device-fatal");
}

void completion_queue_overruns(void)
{
	lose_device("cq-overrun");
}

/* Each of three has place for one peer: the others are told of nothing, and come up when there is more. */
void queue_pairs_run_out(void)
{
	long objects = control("objects", -1);
	struct end e[3];
	unsigned ups = 0;

	control("qp-max", 1);
	for (unsigned i = 0; i < 3; i++)
		end_open(&e[i], (node_id)i, 3, 1, 77);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 3; k++)
			if (k != i)
				CHECK(!ic_join(e[i].f, (node_id)k, e[k].address));
	PUMP_FOR(e, 3, (ups = e[0].ups + e[1].ups + e[2].ups) == 2, LONG_NS);
	for (unsigned i = 0; i < 500; i++) {
		pump_once(e, 3);
		usleep(200);
	}
	CHECK(e[0].ups + e[1].ups + e[2].ups == 2);
	control("qp-max", 0);
	PUMP_FOR(e, 3, e[0].ups == 2 && e[1].ups == 2 && e[2].ups == 2, LONG_NS);
	CHECK(!e[0].downs && !e[1].downs && !e[2].downs);
	traffic(e, 100);
	ends_close(e, 3);
	CHECK(control("objects", -1) == objects);
}

void memory_cannot_be_registered(void)
{
	long objects = control("objects", -1);
	struct end e[2];

	control("mr-fail", 3);
	ends_open(e, 2); /* attempts fail until it can */
	CHECK(!control("mr-fail", -1) && !e[0].downs && !e[1].downs);
	traffic(e, 100);
	ends_close(e, 2);
	CHECK(control("objects", -1) == objects);
}

/* Closed and opened again while the device still has the sends: a slot must not be used before it is let go. */
void late_completions(void)
{
	struct end e[2];

	ends_open(e, 2);
	control("reuse", 1);
	for (unsigned round = 0; round < 20; round++) {
		control("stale", 1 + (round & 1));
		control("delay-us", round % 4 * 1000);
		while (!send_next(&e[0], 1) && !send_next(&e[1], 0))
			;
		ic_close(e[1].f);
		PUMP_FOR(e, 1, e[0].downs == round + 1, LONG_NS);
		control("delay-us", 0);
		end_open(&e[1], 1, 2, 1, 77);
		rejoin(e);
		traffic(e, 150);
	}
	ends_close(e, 2);
	control("stale", 0);
	control("reuse", 0);
}
