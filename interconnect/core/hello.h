/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/hello.h - the records by which two nodes of a VM prove themselves to each other.
 *
 *   connector -> acceptor   HELLO      who I am, whom I want, my nonce
 *   acceptor  -> connector  CHALLENGE  my nonce, the epoch, MAC(key, 'A' | hello | nonce | epoch)
 *   connector -> acceptor   PROOF      MAC(key, 'C' | hello | nonce | epoch)
 *   acceptor  -> connector  ACCEPT     the link is up, unless the backend has a path of its own; then
 *   each      -> other      OFFER      how to reach me there
 *   each      -> other      READY      I can reach you; the link is up for who has sent and got it
 *   either direction        REFUSE     why not; the sender closes
 *
 * What      Bytes in and out and the text that is signed.  The MAC itself (HMAC-SHA256) is made by the shell.
 * Owns      Nothing; pure.
 * Limits    Records of at most IC_HELLO_MAX bytes, IC_OFFER_MAX of them offer.  Everything decoded is untrusted.
 */
#ifndef INTERCONNECT_CORE_HELLO_H
#define INTERCONNECT_CORE_HELLO_H

#include "base/types.h"

#define IC_HELLO_VERSION 2u
#define IC_HELLO_NONCE 32u
#define IC_HELLO_MAC 32u
#define IC_OFFER_MAX 1024u
#define IC_HELLO_MAX (16u + IC_OFFER_MAX)
#define IC_HELLO_SIGNED_MAX 96u

enum ic_hello_kind { IC_HELLO = 1, IC_CHALLENGE, IC_PROOF, IC_ACCEPT, IC_REFUSE, IC_OFFER, IC_READY };
enum ic_refusal {
	IC_REFUSED_GARBAGE = 1,
	IC_REFUSED_VERSION,
	IC_REFUSED_VM,   /* another VM id */
	IC_REFUSED_NODE, /* node numbers that do not fit here */
	IC_REFUSED_KEY,
	IC_REFUSED_BUSY, /* not joining this peer now: try again */
	IC_REFUSALS
};

struct ic_hello {
	enum ic_hello_kind kind;
	uint64_t vm_id;   /* HELLO */
	node_id from, to; /* HELLO */
	uint32_t epoch;   /* HELLO: the last one its sender knew; CHALLENGE: the one that begins */
	uint8_t nonce[IC_HELLO_NONCE]; /* HELLO, CHALLENGE */
	uint8_t mac[IC_HELLO_MAC];     /* CHALLENGE, PROOF */
	enum ic_refusal why;           /* REFUSE */
	uint16_t offer_len;            /* OFFER; bytes, <= IC_OFFER_MAX */
	const uint8_t *offer;          /* OFFER; decoded: inside the bytes given */
};

/* Bytes written, at most IC_HELLO_MAX. */
size_t ic_hello_encode(const struct ic_hello *h, uint8_t out[static IC_HELLO_MAX]);
/*
 * Bytes of the first record in `bytes`; 0 when more are needed; -1 when it is none (*why: garbage or
 * version).
 */
int ic_hello_decode(const uint8_t *bytes, size_t len, struct ic_hello *out, enum ic_refusal *why);
/* The text that `side` ('A' or 'C') signs.  Length in bytes. */
size_t ic_hello_signed(char side, const struct ic_hello *hello, const struct ic_hello *challenge,
		       uint8_t out[static IC_HELLO_SIGNED_MAX]);
const char *ic_refusal_text(enum ic_refusal why);

#endif
