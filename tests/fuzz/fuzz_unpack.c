/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_unpack.c - hv/kernel_image: packed kernels of every format.  Input: the packed bytes. */
#include "hv/kernel_image.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct hv_bytes out = { 0 };
	const char *format = NULL;
	int err = hv_kernel_unpack(data, len, &out, &format);

	ASSERT(format);
	if (err) {
		ASSERT(err == -ENOTSUP || err == -EINVAL || err == -EFBIG || err == -ENOMEM);
		ASSERT(!out.data);
		return 0;
	}
	ASSERT(out.len <= HV_KERNEL_MAX);
	hv_bytes_free(&out);
	return 0;
}
