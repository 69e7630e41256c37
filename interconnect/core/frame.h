/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/frame.h - the bytes of one message on a byte stream.
 *
 * What      A fixed header, the body, the data, nothing between them.  docs/wire.md is the normative text.
 * Owns      Nothing; pure functions over caller's memory.
 * Limits    IC_FRAME_MAX bytes.  Everything decoded is untrusted: rejected, never asserted on.
 */
#ifndef INTERCONNECT_CORE_FRAME_H
#define INTERCONNECT_CORE_FRAME_H

#include "base/bytes.h"
#include "base/types.h"

#define IC_FRAME_HEADER 16u
#define IC_FRAME_BODY_MAX 512u
#define IC_FRAME_DATA_MAX PAGE_SIZE
#define IC_FRAME_MAX (IC_FRAME_HEADER + IC_FRAME_BODY_MAX + IC_FRAME_DATA_MAX)

struct ic_frame {
	uint8_t port;
	uint16_t body_len, data_len; /* bytes */
	uint32_t epoch;              /* life of the link; differs after every reconnect */
	uint32_t seq;                /* number of the message within the epoch, wraps */
};

enum ic_frame_verdict { IC_FRAME_OK, IC_FRAME_SHORT, IC_FRAME_BAD };

void ic_frame_encode(const struct ic_frame *fr, uint8_t out[static IC_FRAME_HEADER]);
/*
 * Looks at the first `len` bytes of a stream.  OK: a whole frame is there, body at IC_FRAME_HEADER and data
 * right after it.  SHORT: need more bytes.  BAD: not a frame of this link at this point.
 */
enum ic_frame_verdict ic_frame_decode(const uint8_t *bytes, size_t len, unsigned ports,
				      uint32_t epoch, uint32_t seq, struct ic_frame *out);
/* What a header says, before anything of it is checked. */
static inline size_t ic_frame_body_len(const uint8_t *header)
{
	return get_le16(header + 2);
}
static inline size_t ic_frame_size(const struct ic_frame *fr)
{
	return IC_FRAME_HEADER + (size_t)fr->body_len + fr->data_len;
}

#endif
