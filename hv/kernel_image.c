/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_image.c - reads kernel files and unpacks the compressed kernel of a bzImage with Debian's libraries.
 *
 * Why       A translated CPU would spend seconds in the kernel's own unpacker; the host takes a fraction of one.
 * Threads   Any; no shared state.
 * I/O       hv_file_read reads one file.
 * Limits    Output grows by doubling up to HV_KERNEL_MAX.
 */
#include "hv/kernel_image.h"

#include "base/bytes.h"

#include <fcntl.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define FIRST_BYTES (32u << 20)
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_CHUNK (8u << 20) /* unpacked size of every legacy block but the last */

void hv_bytes_free(struct hv_bytes *b)
{
	free(b->data);
	*b = (struct hv_bytes){ 0 };
}

int hv_file_read(const char *path, struct hv_bytes *out)
{
	struct hv_bytes b = { 0 };
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (S_ISDIR(st.st_mode))
		err = -EISDIR;
	else if ((uint64_t)st.st_size > HV_FILE_MAX)
		err = -EFBIG;
	else if (!(b.data = malloc((size_t)st.st_size + 1)))
		err = -ENOMEM;
	while (!err && b.len < (size_t)st.st_size) {
		ssize_t n = read(fd, b.data + b.len, (size_t)st.st_size - b.len);

		if (n < 0 && errno != EINTR)
			err = -errno;
		else if (n == 0)
			break; /* it shrank meanwhile: what is there counts */
		else if (n > 0)
			b.len += (size_t)n;
	}
	close(fd);
	if (err) {
		hv_bytes_free(&b);
		return err;
	}
	*out = b;
	return 0;
}

/* An output buffer that doubles. */
struct grow {
	uint8_t *data;
	size_t len, cap;
};

static int grow_more(struct grow *g)
{
	size_t cap = g->cap ? g->cap * 2 : FIRST_BYTES;
	uint8_t *p;

	if (cap > HV_KERNEL_MAX)
		return -EFBIG;
	p = realloc(g->data, cap);
	if (!p)
		return -ENOMEM;
	g->data = p;
	g->cap = cap;
	return 0;
}

static int unpack_elf(const uint8_t *data, size_t len, struct grow *g)
{
	if (len > HV_KERNEL_MAX)
		return -EFBIG;
	g->data = malloc(len);
	if (!g->data)
		return -ENOMEM;
	memcpy(g->data, data, len);
	g->len = g->cap = len;
	return 0;
}

static int unpack_gzip(const uint8_t *data, size_t len, struct grow *g)
{
	z_stream z = { .next_in = (uint8_t *)data, .avail_in = (uInt)len };
	int err = 0, r = Z_OK;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	while (!err && r != Z_STREAM_END) {
		if (g->len == g->cap) {
			err = grow_more(g);
			continue;
		}
		z.next_out = g->data + g->len;
		z.avail_out = (uInt)(g->cap - g->len);
		r = inflate(&z, Z_NO_FLUSH);
		g->len = g->cap - z.avail_out;
		if (r != Z_OK && r != Z_STREAM_END)
			err = -EINVAL; /* Z_BUF_ERROR too: the input ended early */
	}
	inflateEnd(&z);
	return err;
}

/* xz and lzma-alone. */
static int unpack_lzma(const uint8_t *data, size_t len, struct grow *g)
{
	lzma_stream s = LZMA_STREAM_INIT;
	int err = 0;
	lzma_ret r = LZMA_OK;

	if (lzma_auto_decoder(&s, UINT64_MAX, 0) != LZMA_OK)
		return -ENOMEM;
	s.next_in = data;
	s.avail_in = len;
	while (!err && r != LZMA_STREAM_END) {
		if (g->len == g->cap) {
			err = grow_more(g);
			continue;
		}
		s.next_out = g->data + g->len;
		s.avail_out = g->cap - g->len;
		r = lzma_code(&s, LZMA_RUN);
		g->len = g->cap - s.avail_out;
		if (r != LZMA_OK && r != LZMA_STREAM_END)
			err = -EINVAL;
	}
	lzma_end(&s);
	return err;
}

static int unpack_zstd(const uint8_t *data, size_t len, struct grow *g)
{
	ZSTD_DStream *s = ZSTD_createDStream();
	ZSTD_inBuffer in = { .src = data, .size = len };
	size_t r = 1;
	int err = s ? 0 : -ENOMEM;

	while (!err && r != 0) {
		ZSTD_outBuffer out;

		if (g->len == g->cap) {
			err = grow_more(g);
			continue;
		}
		out = (ZSTD_outBuffer){ .dst = g->data, .size = g->cap, .pos = g->len };
		r = ZSTD_decompressStream(s, &out, &in);
		if (ZSTD_isError(r) || (r != 0 && in.pos == in.size && out.pos == g->len))
			err = -EINVAL;
		g->len = out.pos;
	}
	ZSTD_freeDStream(s);
	return err;
}

/* Legacy frame: magic, then blocks of le32 packed size and that many bytes.  What follows the last block is the
 * kernel build's 4 size bytes, told from a block head because nothing comes after them. */
static int unpack_lz4(const uint8_t *data, size_t len, struct grow *g)
{
	size_t pos = 4;

	while (len - pos > 4) {
		uint32_t packed = get_le32(data + pos);
		int n;

		pos += 4;
		if (packed == LZ4_LEGACY_MAGIC)
			continue;
		if (packed > len - pos || packed > LZ4_COMPRESSBOUND(LZ4_CHUNK))
			return -EINVAL;
		while (g->cap - g->len < LZ4_CHUNK) {
			int err = grow_more(g);

			if (err)
				return err;
		}
		n = LZ4_decompress_safe((const char *)data + pos, (char *)g->data + g->len,
					(int)packed, (int)LZ4_CHUNK);
		if (n < 0)
			return -EINVAL;
		pos += packed;
		g->len += (size_t)n;
	}
	return g->len ? 0 : -EINVAL;
}

static const struct format {
	const char *name;
	uint8_t magic[6];
	uint8_t magic_len;
	int (*unpack)(const uint8_t *data, size_t len, struct grow *g);
} formats[] = {
	{ "ELF", { 0x7f, 'E', 'L', 'F' }, 4, unpack_elf },
	{ "gzip", { 0x1f, 0x8b }, 2, unpack_gzip },
	{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_lzma },
	{ "lzma", { 0x5d, 0, 0 }, 3, unpack_lzma },
	{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
	{ "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
};

int hv_kernel_unpack(const uint8_t *data, size_t len, struct hv_bytes *out, const char **format)
{
	*format = "unknown";
	for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
		const struct format *f = &formats[i];
		struct grow g = { 0 };
		int err;

		if (len < f->magic_len || memcmp(data, f->magic, f->magic_len))
			continue;
		*format = f->name;
		err = f->unpack(data, len, &g);
		if (err) {
			free(g.data);
			return err;
		}
		*out = (struct hv_bytes){ g.data, g.len };
		return 0;
	}
	return -ENOTSUP;
}
