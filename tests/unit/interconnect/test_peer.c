/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/interconnect/test_peer.c - a peer's life: who connects, retries, deadline, epochs. */
#include "interconnect/core/peer.h"

#include <criterion/criterion.h>

#define MS 1000000ull

Test(peer, the_higher_number_connects)
{
	struct ic_peer low, high;

	ic_peer_init(&low, 1, 2);
	ic_peer_init(&high, 2, 1);
	cr_assert_eq(ic_peer_join(&low, 0, 1000 * MS), 0);
	cr_assert_eq(ic_peer_join(&high, 0, 1000 * MS), IC_FX_CONNECT);
	cr_assert_eq(ic_peer_join(&high, 0, 1000 * MS), 0, "a second join changes nothing");
}

Test(peer, retries_back_off_and_end_at_the_deadline)
{
	struct ic_peer p;
	unsigned attempts = 1, downs = 0;
	uint64_t last = 0, gap = 0;

	ic_peer_init(&p, 2, 1);
	ic_peer_join(&p, 0, 3000 * MS);
	ic_peer_attempt_failed(&p, 0);
	for (uint64_t now = 0; now < 5000 * MS; now += MS) {
		unsigned fx = ic_peer_tick(&p, now);

		if (fx & IC_FX_CONNECT) {
			cr_assert_geq(now - last, gap);
			gap = now - last < 200 * MS ? now - last : 200 * MS;
			last = now;
			attempts++;
			cr_assert_eq(ic_peer_tick(&p, now), 0, "one attempt at a time");
			ic_peer_attempt_failed(&p, now);
		}
		downs += (fx & IC_FX_DOWN) != 0;
	}
	cr_assert_geq(attempts, 10);
	cr_assert_leq(attempts, 30);
	cr_assert_eq(downs, 1);
	cr_assert_eq(p.state, IC_PEER_LOST);
}

Test(peer, up_and_down_once_each)
{
	struct ic_peer p;

	ic_peer_init(&p, 0, 1);
	cr_assert_eq(ic_peer_proven(&p, 1), 0, "nobody asked for it");
	ic_peer_join(&p, 0, 1000 * MS);
	cr_assert_eq(ic_peer_proven(&p, 1), IC_FX_UP);
	cr_assert_eq(ic_peer_proven(&p, 2), 0);
	cr_assert_eq(ic_peer_tick(&p, 5000 * MS), 0, "no deadline once it is up");
	cr_assert_eq(ic_peer_link_lost(&p), IC_FX_DOWN);
	cr_assert_eq(ic_peer_link_lost(&p), 0);
	cr_assert_eq(ic_peer_tick(&p, 9000 * MS), 0);
}

Test(peer, epochs_only_grow)
{
	struct ic_peer p;
	uint32_t epoch;

	ic_peer_init(&p, 0, 1);
	epoch = ic_peer_next_epoch(&p, 0);
	cr_assert_eq(epoch, 1);
	ic_peer_join(&p, 0, 1000 * MS);
	ic_peer_proven(&p, epoch);
	ic_peer_link_lost(&p);
	cr_assert_eq(ic_peer_next_epoch(&p, 0), 2, "the peer was started anew");
	cr_assert_eq(ic_peer_next_epoch(&p, 7), 8, "this side was");
}
