/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interconnect/core/frame.c - header bytes and their validation.
 *
 * Pure.  Layout, little endian: mark u8, port u8, body_len u16, data_len u16, zero u16, epoch u32, seq u32.
 */
#include "interconnect/core/frame.h"
#include "base/bytes.h"

#define MARK 0xd5u /* no ASCII text starts with it */

void ic_frame_encode(const struct ic_frame *fr, uint8_t out[static IC_FRAME_HEADER])
{
	out[0] = MARK;
	out[1] = fr->port;
	put_le16(out + 2, fr->body_len);
	put_le16(out + 4, fr->data_len);
	put_le16(out + 6, 0);
	put_le32(out + 8, fr->epoch);
	put_le32(out + 12, fr->seq);
}

enum ic_frame_verdict ic_frame_decode(const uint8_t *bytes, size_t len, unsigned ports,
				      uint32_t epoch, uint32_t seq, struct ic_frame *out)
{
	struct ic_frame fr;

	if (len && bytes[0] != MARK)
		return IC_FRAME_BAD;
	if (len < IC_FRAME_HEADER)
		return IC_FRAME_SHORT;
	fr.port = bytes[1];
	fr.body_len = get_le16(bytes + 2);
	fr.data_len = get_le16(bytes + 4);
	fr.epoch = get_le32(bytes + 8);
	fr.seq = get_le32(bytes + 12);
	if (fr.port >= ports || fr.body_len > IC_FRAME_BODY_MAX ||
	    fr.data_len > IC_FRAME_DATA_MAX || get_le16(bytes + 6) || fr.epoch != epoch ||
	    fr.seq != seq)
		return IC_FRAME_BAD;
	if (len < ic_frame_size(&fr))
		return IC_FRAME_SHORT;
	*out = fr;
	return IC_FRAME_OK;
}
