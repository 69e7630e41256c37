/* SPDX-License-Identifier: Apache-2.0 */
/* test_loader.c - bad kernel files fail while a slice is prepared, with one line, and leave nothing behind. */
#include "hv/kernel_image.h"
#include "hv/slice.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
}

static void on_progress(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static void on_ended(void *arg, const struct cc_ended *ended)
{
	(void)arg;
	(void)ended;
}

Test(loader, a_bad_kernel_fails_before_anything_runs)
{
	struct hv_slice_sink sink = { on_console, on_progress, on_ended, NULL, NULL };
	struct cc_vm_spec *s = calloc(1, sizeof(*s));
	struct hv_slice *slice = NULL;
	char text[HV_TEXT_MAX];

	s->nodes = s->vcpus = s->ranges = 1;
	s->range[0].count = 4096;
	s->node_name[0] = "alpha";
	s->kernel = "/dev/null";
	s->initrd = s->cmdline = s->fabric_backend = s->fabric_device = s->fabric_listen = "";
	cr_assert_lt(hv_slice_prepare(s, &sink, &slice, text), 0);
	cr_assert_null(slice);
	cr_assert(strstr(text, "/dev/null"), "%s", text);
	free(s);
}

Test(loader, a_gzip_kernel_unpacks_and_a_damaged_one_does_not)
{
	uint8_t *plain = calloc(1, 1 << 20), *packed = malloc(1 << 20);
	z_stream z = {
		.next_in = plain, .avail_in = 1 << 20, .next_out = packed, .avail_out = 1 << 20
	};
	struct hv_bytes out = { 0 };
	const char *format;
	size_t len;

	for (unsigned i = 0; i < 1 << 20; i++)
		plain[i] = (uint8_t)(i * i >> 7);
	cr_assert_eq(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	len = (1 << 20) - z.avail_out;
	deflateEnd(&z);
	cr_assert_eq(hv_kernel_unpack(packed, len, &out, &format), 0);
	cr_assert_str_eq(format, "gzip");
	cr_assert_eq(out.len, 1 << 20);
	cr_assert_eq(memcmp(out.data, plain, out.len), 0);
	hv_bytes_free(&out);
	cr_assert_eq(hv_kernel_unpack(packed, len / 2, &out, &format), -EINVAL, "cut");
	packed[len / 2] ^= 0x55;
	cr_assert_eq(hv_kernel_unpack(packed, len, &out, &format), -EINVAL, "damaged");
	packed[0] = 'x';
	cr_assert_eq(hv_kernel_unpack(packed, len, &out, &format), -ENOTSUP, "no magic");
	free(plain);
	free(packed);
}
