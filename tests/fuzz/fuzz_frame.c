/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_frame.c - interconnect/core/frame: a byte stream cut into frames, as a link does.
 *
 * Input     u8 ports, u32 epoch, then the stream; the first frame has number 0.
 */
#include "interconnect/core/frame.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader r = fuzz_reader(data, len);
	unsigned ports = reader_u8(&r);
	uint32_t epoch = reader_u32(&r);

	for (uint32_t seq = 0; !r.bad; seq++) {
		size_t left = (size_t)(r.end - r.p);
		struct ic_frame fr;
		uint8_t again[IC_FRAME_HEADER];
		enum ic_frame_verdict v = ic_frame_decode(r.p, left, ports, epoch, seq, &fr);

		if (v != IC_FRAME_OK) {
			/* Nobody waits for more bytes than a frame can have: lengths are at 2 and 4. */
			if (v == IC_FRAME_SHORT && left >= IC_FRAME_HEADER)
				ASSERT(IC_FRAME_HEADER + (size_t)get_le16(r.p + 2) + get_le16(r.p + 4) <= IC_FRAME_MAX);
			break;
		}
		ASSERT(ic_frame_size(&fr) <= left && ic_frame_size(&fr) <= IC_FRAME_MAX);
		ASSERT(fr.port < ports && fr.epoch == epoch && fr.seq == seq);
		ic_frame_encode(&fr, again);
		ASSERT(!memcmp(again, r.p, IC_FRAME_HEADER));
		/* A frame needs all of its bytes. */
		ASSERT(ic_frame_decode(r.p, ic_frame_size(&fr) - 1, ports, epoch, seq, &fr) == IC_FRAME_SHORT);
		r.p += ic_frame_size(&fr);
	}
	return 0;
}
