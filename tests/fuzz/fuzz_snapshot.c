/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_snapshot.c - hv/snapshot: a vCPU that comes from a peer.  Input: its bytes; length and checksum are put right,
 * or nothing would get past them.
 */
#include "base/bytes.h"
#include "hv/snapshot.h"
#include "tests/fuzz/fuzz.h"

#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t bytes[HV_SNAPSHOT_MAX], again[HV_SNAPSHOT_MAX];
	struct hv_snapshot s;

	if (len < 12 || len > sizeof(bytes)) {
		ASSERT(hv_snapshot_decode(data, len, &s));
		return 0;
	}
	memcpy(bytes, data, len);
	put_le16(bytes + 6, (uint16_t)len);
	put_le32(bytes + len - 4, (uint32_t)crc32(0, bytes, (uInt)(len - 4)));
	if (hv_snapshot_decode(bytes, len, &s))
		return 0;
	ASSERT(hv_snapshot_encode(&s, again) == len && !memcmp(again, bytes, len));
	return 0;
}
