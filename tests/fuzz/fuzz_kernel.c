/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_kernel.c - a kernel file as the loader takes it: kind, bzImage header, unpacking, ELF, plan.
 *
 * Input     The file.  A plan's chunks lie within RAM and do not overlap, and name bytes that are there.
 */
#include "hv/core/boot.h"
#include "hv/kernel_image.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#define RAM_LEN (64ull << 20)

static uint8_t sum; /* makes the compiler read what a chunk names */

static void plan_check(const struct hv_boot_plan *p)
{
	for (unsigned i = 0; i < p->chunks_count; i++) {
		const struct hv_boot_chunk *c = &p->chunks[i];

		ASSERT(c->len > 0 && c->gpa < RAM_LEN && c->len <= RAM_LEN - c->gpa);
		for (unsigned k = 0; k < i; k++)
			ASSERT(c->gpa + c->len <= p->chunks[k].gpa ||
			       p->chunks[k].gpa + p->chunks[k].len <= c->gpa);
		for (uint64_t at = 0; c->bytes && at < c->len; at += at < 64 ? 1 : 61)
			sum ^= c->bytes[at];
		if (c->bytes)
			sum ^= c->bytes[c->len - 1];
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t module[] = "module";
	static struct hv_boot_plan plan;
	struct hv_boot_input in = {
		.image = { data, len }, .cmdline = "console=hvc0",
		.modules = { { module, sizeof(module) } }, .modules_count = 1,
		.ram = { { 0, RAM_LEN } }, .ram_count = 1, .rsdp = 0xe0000,
	};
	struct hv_bytes elf = { 0 };
	struct hv_bzimage bz;
	const char *why = NULL, *format = NULL;

	if (!hv_boot_kind_of(data, len, &in.kind, &why)) {
		ASSERT(why);
		return 0;
	}
	if (in.kind == HV_BOOT_LINUX) {
		if (!hv_bzimage_parse(data, len, &bz, &why)) {
			ASSERT(why);
			return 0;
		}
		ASSERT(bz.payload_off <= len && bz.payload_len <= len - bz.payload_off);
		if (hv_kernel_unpack(data + bz.payload_off, bz.payload_len, &elf, &format))
			return 0;
		in.elf = (struct hv_boot_bytes){ elf.data, elf.len };
	}
	if (hv_boot_make(&in, &plan, &why))
		plan_check(&plan);
	else
		ASSERT(why);
	hv_bytes_free(&elf);
	return 0;
}
