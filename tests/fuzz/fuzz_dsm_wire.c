/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_dsm_wire.c - dsm/core/wire.  Input: u8 whether a page is beside it, then the body. */
#include "dsm/core/wire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct proto_msg m, again;
	uint8_t out[WIRE_MSG_BYTES];
	size_t page;

	if (len < 1)
		return 0;
	page = data[0] & 1 ? PAGE_SIZE : data[0] >> 1;
	if (!wire_decode(data + 1, len - 1, page, &m))
		return 0;
	ASSERT(m.kind > 0 && m.kind < PROTO_KINDS && m.page < DIR_PAGE_NONE && m.node < NODES_MAX);
	ASSERT(page == (m.bytes == PROTO_BYTES_PAGE ? PAGE_SIZE : 0));
	/* Only what encoding makes is taken. */
	wire_encode(&m, out);
	ASSERT(len - 1 == WIRE_MSG_BYTES && !memcmp(out, data + 1, WIRE_MSG_BYTES));
	ASSERT(wire_decode(out, sizeof(out), page, &again));
	ASSERT(proto_kind_name(m.kind)[0] != '?');
	return 0;
}
