/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kernel_image.h - kernel files on the host: read whole, and the compressed kernel inside a bzImage unpacked.
 *
 * Threads   Any; no shared state.  Blocks on file I/O.
 * Limits    HV_FILE_MAX bytes a file, HV_KERNEL_MAX bytes unpacked.
 */
#ifndef HV_KERNEL_IMAGE_H
#define HV_KERNEL_IMAGE_H

#include "base/err.h"
#include "base/types.h"

#define HV_FILE_MAX (1ull << 31)
#define HV_KERNEL_MAX (512ull << 20)

/* A file, or an unpacked kernel, in host memory; free with hv_bytes_free. */
struct hv_bytes {
	uint8_t *data;
	size_t len;
};

void hv_bytes_free(struct hv_bytes *b);

/* The whole file.  -errno of open and read, -EFBIG, -ENOMEM, -EISDIR. */
MUST_CHECK int hv_file_read(const char *path, struct hv_bytes *out);

/*
 * Unpacks gzip, xz, lzma, zstd, LZ4 (legacy frames, as the kernel build makes them) or a bare ELF file, told apart by
 * their magic.  `len` may include the kernel build's trailing 4 bytes with the unpacked size.
 * -ENOTSUP: another format; -EINVAL: damaged; -EFBIG; -ENOMEM.  *format names what it was, set on every return.
 */
MUST_CHECK int hv_kernel_unpack(const uint8_t *data, size_t len, struct hv_bytes *out,
				const char **format);

#endif
