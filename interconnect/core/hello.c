/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/hello.c - handshake records.
 *
 * Pure.  Every record: magic u32, version u16, kind u8, zero u8, then the fields of its kind: fixed size,
 * but for an offer's bytes.
 */
#include "interconnect/core/hello.h"
#include "base/bytes.h"

#define MAGIC 0x4d554e55u /* "UNUM" */
#define HEADER 8u

static const uint8_t payload_len[] = {
	[IC_HELLO] = 8 + 1 + 1 + 2 + 4 + IC_HELLO_NONCE,
	[IC_CHALLENGE] = 4 + IC_HELLO_NONCE + IC_HELLO_MAC,
	[IC_PROOF] = IC_HELLO_MAC,
	[IC_ACCEPT] = 0,
	[IC_REFUSE] = 1,
	[IC_OFFER] = 2, /* and as many bytes as that says */
	[IC_READY] = 0,
};

static const char *const refusal_text[IC_REFUSALS] = {
	[0] = "unknown",
	[IC_REFUSED_GARBAGE] = "not an unum node",
	[IC_REFUSED_VERSION] = "another wire version",
	[IC_REFUSED_VM] = "another VM",
	[IC_REFUSED_NODE] = "node numbers do not fit",
	[IC_REFUSED_KEY] = "wrong key",
	[IC_REFUSED_BUSY] = "not expected now",
};

size_t ic_hello_encode(const struct ic_hello *h, uint8_t out[static IC_HELLO_MAX])
{
	struct writer w = { out, out + IC_HELLO_MAX, false };

	writer_u32(&w, MAGIC);
	writer_u16(&w, IC_HELLO_VERSION);
	writer_u8(&w, (uint8_t)h->kind);
	writer_u8(&w, 0);
	switch (h->kind) {
	case IC_HELLO:
		writer_u64(&w, h->vm_id);
		writer_u8(&w, h->from);
		writer_u8(&w, h->to);
		writer_u16(&w, 0);
		writer_u32(&w, h->epoch);
		writer_bytes(&w, h->nonce, sizeof(h->nonce));
		break;
	case IC_CHALLENGE:
		writer_u32(&w, h->epoch);
		writer_bytes(&w, h->nonce, sizeof(h->nonce));
		writer_bytes(&w, h->mac, sizeof(h->mac));
		break;
	case IC_PROOF:
		writer_bytes(&w, h->mac, sizeof(h->mac));
		break;
	case IC_ACCEPT:
		break;
	case IC_REFUSE:
		writer_u8(&w, (uint8_t)h->why);
		break;
	case IC_OFFER:
		writer_u16(&w, h->offer_len);
		writer_bytes(&w, h->offer, h->offer_len);
		break;
	case IC_READY:
		break;
	}
	return (size_t)(w.p - out);
}

/* False when the bytes so far can no longer become a record. */
static bool header_fits(const uint8_t *bytes, size_t len, enum ic_refusal *why)
{
	uint8_t magic[4];

	put_le32(magic, MAGIC);
	*why = IC_REFUSED_GARBAGE;
	if (memcmp(bytes, magic, len < 4 ? len : 4))
		return false;
	if (len >= 6 && get_le16(bytes + 4) != IC_HELLO_VERSION) {
		*why = IC_REFUSED_VERSION;
		return false;
	}
	return len < HEADER || (bytes[6] >= IC_HELLO && bytes[6] <= IC_READY && !bytes[7]);
}

/* Bytes behind the header; of an offer only once its length is there. */
static size_t payload_bytes(const uint8_t *bytes, size_t len)
{
	size_t fixed = payload_len[bytes[6]];

	return bytes[6] == IC_OFFER && len >= HEADER + fixed ? fixed + get_le16(bytes + HEADER) : fixed;
}

int ic_hello_decode(const uint8_t *bytes, size_t len, struct ic_hello *out, enum ic_refusal *why)
{
	struct reader r;
	struct ic_hello h = { .kind = 0 };
	size_t payload;

	if (!header_fits(bytes, len, why))
		return -1;
	payload = len < HEADER ? 0 : payload_bytes(bytes, len);
	if (payload > 2 + IC_OFFER_MAX)
		return -1;
	if (len < HEADER || len < HEADER + payload)
		return 0;
	h.kind = bytes[6];
	r = (struct reader){ bytes + HEADER, bytes + HEADER + payload, false };
	switch (h.kind) {
	case IC_HELLO:
		h.vm_id = reader_u64(&r);
		h.from = reader_u8(&r);
		h.to = reader_u8(&r);
		r.bad |= reader_u16(&r) != 0;
		h.epoch = reader_u32(&r);
		reader_bytes(&r, h.nonce, sizeof(h.nonce));
		break;
	case IC_CHALLENGE:
		h.epoch = reader_u32(&r);
		reader_bytes(&r, h.nonce, sizeof(h.nonce));
		reader_bytes(&r, h.mac, sizeof(h.mac));
		break;
	case IC_PROOF:
		reader_bytes(&r, h.mac, sizeof(h.mac));
		break;
	case IC_ACCEPT:
		break;
	case IC_REFUSE:
		h.why = reader_u8(&r);
		break;
	case IC_OFFER:
		h.offer_len = reader_u16(&r);
		h.offer = bytes + HEADER + 2;
		break;
	case IC_READY:
		break;
	}
	if (r.bad)
		return -1;
	*out = h;
	return (int)(HEADER + payload);
}

size_t ic_hello_signed(char side, const struct ic_hello *hello, const struct ic_hello *challenge,
		       uint8_t out[static IC_HELLO_SIGNED_MAX])
{
	struct writer w = { out, out + IC_HELLO_SIGNED_MAX, false };

	writer_u8(&w, (uint8_t)side);
	writer_u16(&w, IC_HELLO_VERSION);
	writer_u64(&w, hello->vm_id);
	writer_u8(&w, hello->from);
	writer_u8(&w, hello->to);
	writer_u32(&w, hello->epoch);
	writer_bytes(&w, hello->nonce, sizeof(hello->nonce));
	writer_u32(&w, challenge->epoch);
	writer_bytes(&w, challenge->nonce, sizeof(challenge->nonce));
	return (size_t)(w.p - out);
}

const char *ic_refusal_text(enum ic_refusal why)
{
	return refusal_text[(unsigned)why < IC_REFUSALS ? why : 0];
}
