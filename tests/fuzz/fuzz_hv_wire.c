/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hv_wire.c - hv/wire: a message between slices.  Input: its body. */
#include "hv/wire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct hv_msg m;
	uint8_t again[HV_MSG_BYTES_MAX];

	if (!hv_msg_decode(data, len, &m))
		return 0;
	ASSERT(m.kind > 0 && m.kind < HV_MSG_KINDS);
	ASSERT(hv_msg_encode(&m, again) == len && !memcmp(again, data, len));
	return 0;
}
