/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_chaos.c - the contract holds over a bad network (interconnect/chaos.c).
 *
 * Every message is checked for its number within the epoch, as in all cases.
 */
#include "tests/conform/fabric_conform.h"

#include <string.h>
#include <unistd.h>

#define LONG_NS (30 * NS_PER_S)
#define MESSAGES 3000u

/* Between two peers nothing changes; one peer's messages overtake the other's. */
void chaos_keeps_order_within_a_peer(void)
{
	bool overtaken = false, all = false;
	unsigned each = MESSAGES;
	struct end e[3];

	chaos_seed = 5;
	ends_open(e, 3);
	chaos_seed = 0;
	while (!all) {
		all = true;
		for (unsigned i = 0; i < 3; i++)
			for (unsigned k = 0; k < 3; k++)
				if (k != i && e[i].sent[k] < each)
					all &= send_next(&e[i], (node_id)k) && false;
		PUMP_FOR(e, 3, true, LONG_NS);
		/* 0 sends to 1 first, as long as nobody is full. */
		overtaken |= e[0].sent[1] == e[0].sent[2] && e[2].got[0] > e[1].got[0];
		/* Where this process is held up, everything is due at once when it goes on. */
		if (all && !overtaken && each < 20 * MESSAGES) {
			each += MESSAGES;
			all = false;
		}
	}
	PUMP_FOR(e, 3,
		 e[0].got[1] + e[0].got[2] + e[1].got[0] + e[1].got[2] + e[2].got[0] + e[2].got[1] == 6 * each,
		 LONG_NS);
	CHECK(overtaken && !e[0].downs && !e[1].downs && !e[2].downs);
	ends_close(e, 3);
}

/* What is held back does not keep a sleeper asleep. */
void chaos_wakes_who_waits(void)
{
	struct ic_stats st;
	uint64_t start;
	struct end e[2];

	chaos_seed = 6;
	ends_open(e, 2);
	chaos_seed = 0;
	for (unsigned i = 0; i < 300; i++) {
		CHECK(!send_next(&e[0], 1));
		start = clock_now_ns();
		for (ic_stats(e[0].f, &st); st.msgs_sent != i + 1; ic_stats(e[0].f, &st)) {
			ic_wait(e[0].f, 5 * NS_PER_S); /* ends when it is time to send */
			ic_progress(e[0].f, 16);
		}
		CHECK(clock_now_ns() < start + 4 * NS_PER_S);
		PUMP_FOR(e, 2, e[1].got[0] == i + 1, LONG_NS);
	}
	ends_close(e, 2);
}

static unsigned ends_of_links(const struct end *e)
{
	return e[0].downs + e[1].downs;
}

/* Links are cut, frames come twice or spoiled: each time one end on both sides, and nothing of it in the next epoch. */
void chaos_breaks_cleanly(void)
{
	struct end e[2];

	chaos_seed = 7;
	chaos_breaks = true;
	ends_open(e, 2);
	for (unsigned round = 1; round <= 6; round++) {
		uint64_t until = clock_now_ns() + LONG_NS;

		while (ends_of_links(e) == 2 * (round - 1)) {
			CHECK(clock_now_ns() < until);
			for (unsigned k = 0; k < 8; k++)
				if (send_next(&e[0], 1) || send_next(&e[1], 0))
					break;
			pump_once(e, 2);
		}
		PUMP_FOR(e, 2, e[0].downs == round && e[1].downs == round, LONG_NS);
		for (unsigned i = 0; i < 50; i++)
			pump_once(e, 2);
		CHECK(e[0].downs == round && e[1].downs == round);
		e[0].sent[1] = e[0].got[1] = e[1].sent[0] = e[1].got[0] = 0;
		CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
		PUMP_FOR(e, 2, e[0].ups == round + 1 && e[1].ups == round + 1, LONG_NS);
	}
	ends_close(e, 2);
	chaos_seed = 0;
	chaos_breaks = false;
}
