/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_unpack.c - hv/kernel_image: packed kernels of every format.
 *
 * Input     The packed bytes.  They end where memory ends: the libraries that unpack are not built with sanitizers.
 * Keeps     That memory.
 */
#include "hv/kernel_image.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>

#define ROOM (1u << 20)

static uint8_t *room(void)
{
	static uint8_t *p;

	if (!p) {
		p = mmap(NULL, ROOM + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT(p != MAP_FAILED && mprotect(p + ROOM, PAGE_SIZE, PROT_NONE) == 0);
	}
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct hv_bytes out = { 0 };
	const char *format = NULL;
	uint8_t *packed;
	int err;

	if (len > ROOM)
		return 0;
	packed = room() + ROOM - len;
	memcpy(packed, data, len);
	err = hv_kernel_unpack(packed, len, &out, &format);
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
