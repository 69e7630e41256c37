/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_mig_wire.c - vcpu-migrate/wire: a message between the moves of two nodes.  Input: its body. */
#include "tests/fuzz/fuzz.h"
#include "vcpu-migrate/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct mig_msg m;
	uint8_t again[MIG_BODY_MAX];

	if (!mig_msg_decode(data, len, &m))
		return 0;
	ASSERT(m.kind > 0 && m.kind < MIG_MSG_KINDS);
	ASSERT(mig_msg_encode(&m, again) == len && !memcmp(again, data, len));
	return 0;
}
