/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_wire.c - messages as bytes: what is sent is read, anything else is refused.
 */
#include "base/bytes.h"
#include "base/rng.h"
#include "dsm/core/wire.h"

#include <criterion/criterion.h>

static const struct proto_msg samples[] = {
	{ .kind = PROTO_REQ_READ, .page = 0 },
	{ .kind = PROTO_REQ_WRITE, .copy = 1, .page = 0xfffffffe },
	{ .kind = PROTO_EVICT, .page = 5 },
	{ .kind = PROTO_FWD_READ, .node = 127, .page = 6 },
	{ .kind = PROTO_FWD_WRITE, .node = 3, .acks = 126, .page = 7 },
	{ .kind = PROTO_RECALL, .page = 8 },
	{ .kind = PROTO_INV, .node = 1, .page = 9 },
	{ .kind = PROTO_GRANT, .right = PROTO_READ, .bytes = PROTO_BYTES_ZERO, .page = 10 },
	{ .kind = PROTO_GRANT, .right = PROTO_WRITE, .bytes = PROTO_BYTES_PAGE, .acks = 127, .page = 11 },
	{ .kind = PROTO_ACK, .page = 12 },
	{ .kind = PROTO_DONE, .page = 13 },
	{ .kind = PROTO_RETURN, .bytes = PROTO_BYTES_PAGE, .page = 14 },
};

static size_t data_of(const struct proto_msg *m)
{
	return m->bytes == PROTO_BYTES_PAGE ? PAGE_SIZE : 0;
}

Test(wire, round_trip)
{
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		uint8_t b[WIRE_MSG_BYTES];
		struct proto_msg m;

		wire_encode(&samples[i], b);
		cr_assert(wire_decode(b, sizeof(b), data_of(&samples[i]), &m), "sample %zu", i);
		cr_assert_eq(memcmp(&m, &samples[i], sizeof(m)), 0, "sample %zu", i);
	}
}

Test(wire, golden_bytes)
{
	static const uint8_t grant[WIRE_MSG_BYTES] = { 1, 8, 2, 3, 0, 127, 0, 0, 11 };
	uint8_t b[WIRE_MSG_BYTES];

	wire_encode(&samples[8], b);
	cr_assert_eq(memcmp(b, grant, sizeof(b)), 0);
}

Test(wire, refuses_wrong_lengths_and_versions)
{
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		uint8_t b[WIRE_MSG_BYTES + 1] = { 0 };
		size_t data = data_of(&samples[i]);
		struct proto_msg m;

		wire_encode(&samples[i], b);
		cr_assert_not(wire_decode(b, WIRE_MSG_BYTES - 1, data, &m));
		cr_assert_not(wire_decode(b, WIRE_MSG_BYTES + 1, data, &m));
		cr_assert_not(wire_decode(b, 0, data, &m));
		cr_assert_not(wire_decode(b, WIRE_MSG_BYTES, data ? 0 : PAGE_SIZE, &m));
		cr_assert_not(wire_decode(b, WIRE_MSG_BYTES, data ? data - 1 : 1, &m));
		b[0]++;
		cr_assert_not(wire_decode(b, WIRE_MSG_BYTES, data, &m));
	}
}

/* Whatever is accepted encodes to the very bytes it came from: one meaning, one spelling. */
Test(wire, accepts_only_what_it_would_send)
{
	struct rng r = { 1 };
	unsigned accepted = 0;

	for (unsigned i = 0; i < 400000; i++) {
		uint8_t b[WIRE_MSG_BYTES], again[WIRE_MSG_BYTES];
		struct proto_msg m;

		wire_encode(&samples[rng_below(&r, ARRAY_LEN(samples))], b);
		b[rng_below(&r, WIRE_MSG_BYTES)] = (uint8_t)rng_next(&r);
		b[rng_below(&r, WIRE_MSG_BYTES)] = (uint8_t)rng_below(&r, 4);
		if (!wire_decode(b, sizeof(b), b[3] == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, &m))
			continue;
		accepted++;
		cr_assert(m.kind > 0 && m.kind < PROTO_KINDS && m.right <= PROTO_WRITE &&
			  m.node < NODES_MAX && m.acks < NODES_MAX && m.copy <= 1);
		wire_encode(&m, again);
		cr_assert_eq(memcmp(b, again, sizeof(b)), 0);
	}
	cr_assert_gt(accepted, 1000);
}

Test(wire, refuses_each_bad_field)
{
	static const struct {
		uint8_t sample, at, value;
	} bad[] = {
		{ 0, 1, 0 }, { 0, 1, PROTO_KINDS }, { 0, 2, 1 }, { 0, 3, 1 }, { 0, 4, 1 }, { 0, 5, 1 },
		{ 0, 6, 1 }, { 1, 6, 2 },	    { 3, 4, 128 }, { 4, 5, 128 }, { 7, 2, 0 }, { 7, 2, 3 },
		{ 7, 3, 0 }, { 7, 3, 4 },	    { 7, 5, 1 },   { 0, 7, 1 },	  { 0, 12, 1 }, { 11, 3, 2 },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint8_t b[WIRE_MSG_BYTES];
		struct proto_msg m;

		wire_encode(&samples[bad[i].sample], b);
		b[bad[i].at] = bad[i].value;
		cr_assert_not(wire_decode(b, sizeof(b), b[3] == PROTO_BYTES_PAGE ? PAGE_SIZE : 0, &m),
			      "case %zu", i);
	}
	/* The page number that means none. */
	uint8_t b[WIRE_MSG_BYTES];
	struct proto_msg m;

	wire_encode(&samples[0], b);
	put_le64(b + 8, 0xffffffff);
	cr_assert_not(wire_decode(b, sizeof(b), 0, &m));
}
