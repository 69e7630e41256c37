/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/interconnect/test_hello.c - handshake records, and what the two sides sign. */
#include "base/rng.h"
#include "interconnect/core/hello.h"

#include <criterion/criterion.h>
#include <string.h>

static struct ic_hello sample(enum ic_hello_kind kind)
{
	struct ic_hello h = { .kind = kind };

	if (kind == IC_HELLO) {
		h.vm_id = 0x1122334455667788;
		h.from = 5;
		h.to = 2;
	}
	if (kind == IC_HELLO || kind == IC_CHALLENGE) {
		h.epoch = 3;
		memset(h.nonce, 0xa5, sizeof(h.nonce));
	}
	if (kind == IC_CHALLENGE || kind == IC_PROOF)
		memset(h.mac, 0x3c, sizeof(h.mac));
	if (kind == IC_REFUSE)
		h.why = IC_REFUSED_KEY;
	if (kind == IC_OFFER) {
		h.offer = (const uint8_t *)"where I am";
		h.offer_len = 10;
	}
	return h;
}

Test(hello, round_trip_of_every_kind_and_every_cut)
{
	for (int kind = IC_HELLO; kind <= IC_READY; kind++) {
		struct ic_hello in = sample((enum ic_hello_kind)kind), out;
		uint8_t bytes[IC_HELLO_MAX];
		enum ic_refusal why;
		size_t len = ic_hello_encode(&in, bytes);

		cr_assert_leq(len, IC_HELLO_MAX);
		for (size_t cut = 0; cut < len; cut++)
			cr_assert_eq(ic_hello_decode(bytes, cut, &out, &why), 0);
		cr_assert_eq(ic_hello_decode(bytes, len, &out, &why), (int)len);
		cr_assert_eq(out.kind, in.kind);
		cr_assert_eq(out.vm_id, in.vm_id);
		cr_assert_eq(out.from, in.from);
		cr_assert_eq(out.to, in.to);
		cr_assert_eq(out.epoch, in.epoch);
		cr_assert_eq(out.why, in.why);
		cr_assert_eq(out.offer_len, in.offer_len);
		cr_assert(!in.offer_len || !memcmp(out.offer, in.offer, in.offer_len));
		cr_assert_eq(memcmp(out.nonce, in.nonce, sizeof(in.nonce)), 0);
		cr_assert_eq(memcmp(out.mac, in.mac, sizeof(in.mac)), 0);
	}
}

Test(hello, an_offer_has_its_limit)
{
	static const uint8_t text[IC_OFFER_MAX + 1];
	struct ic_hello in = { .kind = IC_OFFER, .offer = text, .offer_len = IC_OFFER_MAX }, out;
	uint8_t bytes[IC_HELLO_MAX + 1] = { 0 };
	enum ic_refusal why;
	size_t len = ic_hello_encode(&in, bytes);

	cr_assert_eq(ic_hello_decode(bytes, len, &out, &why), (int)len);
	bytes[8] ^= 1; /* one more than the most */
	cr_assert_eq(ic_hello_decode(bytes, len + 1, &out, &why), -1);
}

Test(hello, garbage_and_other_versions_have_their_names)
{
	struct ic_hello in = sample(IC_HELLO), out;
	uint8_t bytes[IC_HELLO_MAX];
	enum ic_refusal why;
	size_t len = ic_hello_encode(&in, bytes);

	bytes[4] ^= 1;
	cr_assert_eq(ic_hello_decode(bytes, len, &out, &why), -1);
	cr_assert_eq(why, IC_REFUSED_VERSION);
	ic_hello_encode(&in, bytes);
	bytes[0] ^= 1;
	cr_assert_eq(ic_hello_decode(bytes, 1, &out, &why), -1);
	cr_assert_eq(why, IC_REFUSED_GARBAGE);
	ic_hello_encode(&in, bytes);
	bytes[6] = IC_REFUSE + 1;
	cr_assert_eq(ic_hello_decode(bytes, len, &out, &why), -1);
	bytes[6] = 0;
	cr_assert_eq(ic_hello_decode(bytes, len, &out, &why), -1);
}

/* Every field that matters is under the signature, and the two sides never sign the same text. */
Test(hello, the_signed_text_covers_everything)
{
	struct ic_hello h = sample(IC_HELLO), c = sample(IC_CHALLENGE);
	uint8_t base[IC_HELLO_SIGNED_MAX], text[IC_HELLO_SIGNED_MAX];
	size_t len = ic_hello_signed('A', &h, &c, base);
	struct ic_hello changed[] = { h, h, h, h, h };

	cr_assert_lt(len, IC_HELLO_SIGNED_MAX);
	cr_assert_eq(ic_hello_signed('C', &h, &c, text), len);
	cr_assert_neq(memcmp(base, text, len), 0);
	changed[0].vm_id++;
	changed[1].from++;
	changed[2].to++;
	changed[3].epoch++;
	changed[4].nonce[31]++;
	for (unsigned i = 0; i < ARRAY_LEN(changed); i++) {
		ic_hello_signed('A', &changed[i], &c, text);
		cr_assert_neq(memcmp(base, text, len), 0, "field %u", i);
	}
	c.nonce[31]++;
	ic_hello_signed('A', &h, &c, text);
	cr_assert_neq(memcmp(base, text, len), 0);
	c.nonce[31]--;
	c.epoch++;
	ic_hello_signed('A', &h, &c, text);
	cr_assert_neq(memcmp(base, text, len), 0);
}

Test(hello, random_bytes_stay_in_bounds)
{
	struct rng r = { .state = 8 };
	uint8_t bytes[IC_HELLO_MAX];
	struct ic_hello out;
	enum ic_refusal why;

	for (unsigned i = 0; i < 200000; i++) {
		size_t len = rng_below(&r, sizeof(bytes) + 1);
		struct ic_hello in = sample((enum ic_hello_kind)(1 + i % 5));
		int used;

		ic_hello_encode(&in, bytes);
		bytes[rng_below(&r, sizeof(bytes))] ^= (uint8_t)rng_next(&r);
		used = ic_hello_decode(bytes, len, &out, &why);
		cr_assert_leq(used, (int)len);
	}
}
