/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/interconnect/test_frame.c - frames: round trip, every cut, every bit that may not flip. */
#include "base/rng.h"
#include "interconnect/core/frame.h"

#include <criterion/criterion.h>
#include <string.h>

#define PORTS 4u

static const struct ic_frame sample = {
	.port = 3, .body_len = 40, .data_len = 4096, .epoch = 9, .seq = 77
};

Test(frame, round_trip_and_every_cut)
{
	uint8_t bytes[IC_FRAME_MAX] = { 0 };
	struct ic_frame out;

	ic_frame_encode(&sample, bytes);
	for (size_t len = 0; len < ic_frame_size(&sample); len++)
		cr_assert_eq(ic_frame_decode(bytes, len, PORTS, 9, 77, &out), IC_FRAME_SHORT);
	cr_assert_eq(ic_frame_decode(bytes, ic_frame_size(&sample), PORTS, 9, 77, &out),
		     IC_FRAME_OK);
	cr_assert_eq(out.port, 3);
	cr_assert_eq(out.body_len, 40);
	cr_assert_eq(out.data_len, 4096);
	cr_assert_eq(out.epoch, 9);
	cr_assert_eq(out.seq, 77);
}

Test(frame, limits_are_inclusive)
{
	struct ic_frame fr = { .port = 0,
			       .body_len = IC_FRAME_BODY_MAX,
			       .data_len = IC_FRAME_DATA_MAX };
	uint8_t bytes[IC_FRAME_MAX] = { 0 };
	struct ic_frame out;

	ic_frame_encode(&fr, bytes);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), PORTS, 0, 0, &out), IC_FRAME_OK);
	fr.body_len++;
	ic_frame_encode(&fr, bytes);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), PORTS, 0, 0, &out), IC_FRAME_BAD);
	fr.body_len--;
	fr.data_len++;
	ic_frame_encode(&fr, bytes);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), PORTS, 0, 0, &out), IC_FRAME_BAD);
}

Test(frame, another_epoch_sequence_or_port_is_bad)
{
	uint8_t bytes[IC_FRAME_MAX] = { 0 };
	struct ic_frame out;

	ic_frame_encode(&sample, bytes);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), PORTS, 10, 77, &out), IC_FRAME_BAD);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), PORTS, 9, 76, &out), IC_FRAME_BAD);
	cr_assert_eq(ic_frame_decode(bytes, sizeof(bytes), 3, 9, 77, &out), IC_FRAME_BAD);
}

/* No flipped bit of the header is taken for a frame with other meaning than its lengths. */
Test(frame, flipped_bits)
{
	uint8_t bytes[IC_FRAME_MAX] = { 0 };
	struct ic_frame out;

	for (unsigned bit = 0; bit < IC_FRAME_HEADER * 8; bit++) {
		enum ic_frame_verdict v;

		ic_frame_encode(&sample, bytes);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		v = ic_frame_decode(bytes, sizeof(bytes), PORTS, 9, 77, &out);
		if (bit / 8 >= 2 && bit / 8 <= 5)
			cr_assert(v != IC_FRAME_OK || out.body_len <= IC_FRAME_BODY_MAX);
		else if (bit / 8 == 1)
			cr_assert(v == IC_FRAME_BAD || out.port < PORTS);
		else
			cr_assert_eq(v, IC_FRAME_BAD, "bit %u", bit);
	}
}

Test(frame, random_bytes_stay_in_bounds)
{
	struct rng r = { .state = 3 };
	uint8_t bytes[64];
	struct ic_frame out;

	for (unsigned i = 0; i < 200000; i++) {
		size_t len = rng_below(&r, sizeof(bytes));

		for (size_t k = 0; k < sizeof(bytes); k++)
			bytes[k] = (uint8_t)rng_next(&r);
		bytes[0] = i % 2 ? 0xd5 : bytes[0];
		memset(bytes + 8, 0, 8);
		if (ic_frame_decode(bytes, len, PORTS, 0, 0, &out) == IC_FRAME_OK)
			cr_assert_leq(ic_frame_size(&out), len);
	}
}
