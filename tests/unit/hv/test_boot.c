/* SPDX-License-Identifier: Apache-2.0 */
/* Boot plans: synthetic bzImage, PVH and multiboot images, each rejection, and a real kernel where
 * there is one. */
#include <criterion/criterion.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hv/core/boot.h"
#include "hv/kernel_image.h"

#define MIB (1ull << 20)

static uint8_t image[64 << 10], elf[64 << 10];
static struct hv_boot_plan plan;
static const char *why;

/* --- building images --- */

/* ELF file with one load segment of `filesz` bytes of 0xc3 at `paddr`, followed by bss, and maybe a
 * PVH note. */
static size_t make_elf(uint8_t *p, bool is64, uint64_t paddr, uint32_t filesz, uint32_t memsz,
		       bool pvh)
{
	unsigned ehsize = is64 ? 64 : 52, phsize = is64 ? 56 : 32;
	uint32_t data = 0x1000, note = 0x800;

	memset(p, 0, data + filesz);
	memcpy(p, "\177ELF", 4);
	p[4] = is64 ? 2 : 1;
	p[5] = p[6] = 1;
	put_le16(p + 16, 2);
	put_le16(p + 18, is64 ? 62 : 3);
	if (is64) {
		put_le64(p + 24, paddr + 0x10);
		put_le64(p + 32, ehsize);
	} else {
		put_le32(p + 24, (uint32_t)paddr + 0x10);
		put_le32(p + 28, ehsize);
	}
	put_le16(p + (is64 ? 54 : 42), (uint16_t)phsize);
	put_le16(p + (is64 ? 56 : 44), 2);
	for (unsigned k = 0; k < 2; k++) {
		uint8_t *h = p + ehsize + k * phsize;
		uint64_t v[5] = { k ? note : data, k ? 0 : 0xffffffff80000000 + paddr,
				  k ? 0 : paddr, k ? 24 : filesz, k ? 24 : memsz };

		put_le32(h, k ? (pvh ? 4 : 0) : 1);
		if (!is64)
			v[1] = v[2];
		for (unsigned f = 0; f < 5; f++) {
			if (is64)
				put_le64(h + 8 + 8 * f, v[f]);
			else
				put_le32(h + 4 + 4 * f, (uint32_t)v[f]);
		}
	}
	put_le32(p + note, 4);
	put_le32(p + note + 4, 4);
	put_le32(p + note + 8, 18);
	memcpy(p + note + 12, "Xen", 4);
	put_le32(p + note + 16, (uint32_t)paddr + 0x20);
	memset(p + data, 0xc3, filesz);
	return data + filesz;
}

static size_t make_bzimage(uint8_t *p, size_t payload)
{
	memset(p, 0, 0x1000 + payload);
	p[0x1f1] = 3;
	p[0x201] = 0x6a;
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x20f);
	put_le32(p + 0x22c, 0x7fffffff);
	put_le16(p + 0x236, 1);
	put_le32(p + 0x238, 2047);
	put_le32(p + 0x248, 0x100);
	put_le32(p + 0x24c, (uint32_t)payload);
	put_le32(p + 0x260, 0x200000);
	memcpy(p + 4 * 512 + 0x100, "\x02\x21\x4c\x18", 4);
	put_le32(p + 4 * 512 + 0x100 + payload - 4, 123456);
	return 4 * 512 + 0x100 + payload;
}

static void add_multiboot_header(uint8_t *p, uint32_t at, uint32_t flags)
{
	put_le32(p + at, 0x1badb002);
	put_le32(p + at + 4, flags);
	put_le32(p + at + 8, (uint32_t) - (0x1badb002 + flags));
}

static struct hv_boot_input input(enum hv_boot_kind kind, size_t image_len, size_t elf_len)
{
	return (struct hv_boot_input){
		.kind = kind,
		.image = { image, image_len },
		.elf = { elf, elf_len },
		.cmdline = "console=hvc0 quiet",
		.ram = { { 0, 64 * MIB }, { 0x100000000, 64 * MIB } },
		.ram_count = 2,
		.rsdp = 0xe0000,
	};
}

/* --- looking at a plan --- */

/* Guest memory as the plan makes it; len bytes must be within one chunk. */
static const uint8_t *guest(gpa_t gpa, uint64_t len)
{
	for (unsigned k = 0; k < plan.chunks_count; k++) {
		const struct hv_boot_chunk *c = &plan.chunks[k];

		if (c->bytes && gpa >= c->gpa && gpa + len <= c->gpa + c->len)
			return c->bytes + (gpa - c->gpa);
	}
	cr_assert_fail("nothing at %#llx", (unsigned long long)gpa);
	return NULL;
}

static void chunks_are_sane(const struct hv_boot_input *in)
{
	for (unsigned k = 0; k < plan.chunks_count; k++) {
		const struct hv_boot_chunk *c = &plan.chunks[k];
		bool inside = false;

		for (unsigned r = 0; r < in->ram_count; r++)
			inside |= c->gpa >= in->ram[r].start &&
				  c->gpa + c->len <= in->ram[r].start + in->ram[r].len;
		cr_assert(inside);
		for (unsigned j = 0; j < k; j++)
			cr_assert(c->gpa + c->len <= plan.chunks[j].gpa ||
				  plan.chunks[j].gpa + plan.chunks[j].len <= c->gpa);
	}
}

/* What the CPU would make of a virtual address with these tables. */
static uint64_t translate(uint64_t va)
{
	uint64_t entry = plan.regs.cr3;

	for (int level = 3; level >= 0; level--) {
		entry = get_le64(guest(
			(entry & 0xffffffffff000ull) + 8 * ((va >> (12 + 9 * level)) & 511), 8));
		cr_assert_eq(entry & 3, 3, "%#llx is not mapped", (unsigned long long)va);
		if (entry & 0x80)
			return (entry & 0xfffffffe00000ull) | (va & 0x1fffff);
	}
	return (entry & 0xffffffffff000ull) | (va & 0xfff);
}

static void make(const struct hv_boot_input *in)
{
	why = "";
	cr_assert(hv_boot_make(in, &plan, &why), "%s", why);
	chunks_are_sane(in);
}

static void refused(const struct hv_boot_input *in, const char *text)
{
	why = "";
	cr_assert_not(hv_boot_make(in, &plan, &why));
	cr_assert(strstr(why, text), "got \"%s\", wanted \"%s\"", why, text);
}

/* --- Linux --- */

Test(boot, bzimage_header)
{
	size_t len = make_bzimage(image, 5000);
	struct hv_bzimage b;

	cr_assert(hv_bzimage_parse(image, len, &b, &why));
	cr_assert_eq(b.payload_off, 4 * 512 + 0x100);
	cr_assert_eq(b.payload_len, 4996);
	cr_assert_eq(b.packing, HV_PACK_LZ4);
	cr_assert_str_eq(hv_boot_packing_name(b.packing), "lz4");
	cr_assert_eq(b.unpacked_len, 123456);
	cr_assert_eq(b.version, 0x20f);
	cr_assert_eq(b.cmdline_max, 2047);
	memcpy(image + b.payload_off, "\x1f\x8b", 2);
	cr_assert(hv_bzimage_parse(image, len, &b, &why));
	cr_assert_eq(b.packing, HV_PACK_GZIP);
	cr_assert_eq(b.payload_len, 5000, "gzip's size word is its own");
}

Test(boot, bzimage_rejections)
{
	size_t len = make_bzimage(image, 5000);
	struct hv_bzimage b;

	for (size_t cut = 0; cut < len; cut += 7)
		cr_assert_not(hv_bzimage_parse(image, cut, &b, &why), "cut at %zu", cut);
	cr_assert(strstr(why, "cut off"));
	put_le16(image + 0x206, 0x20b);
	cr_assert_not(hv_bzimage_parse(image, len, &b, &why));
	cr_assert(strstr(why, "too old"));
	make_bzimage(image, 5000);
	image[0x236] = 0;
	cr_assert_not(hv_bzimage_parse(image, len, &b, &why));
	cr_assert(strstr(why, "64-bit"));
	make_bzimage(image, 5000);
	put_le32(image + 0x248, 0xffffff00);
	cr_assert_not(hv_bzimage_parse(image, len, &b, &why));
	make_bzimage(image, 5000);
	image[0x202] = 'h';
	cr_assert_not(hv_bzimage_parse(image, len, &b, &why));
	cr_assert_str_eq(why, "not a bzImage: no HdrS at 0x202");
}

Test(boot, linux_plan)
{
	struct hv_boot_input in = input(HV_BOOT_LINUX, make_bzimage(image, 5000),
					make_elf(elf, true, 16 * MIB, 0x3000, 0x9000, false));
	static const uint8_t initrd[] = "070701initrd";
	const uint8_t *zero, *e;

	in.modules[0] = (struct hv_boot_bytes){ initrd, sizeof(initrd) };
	in.modules_count = 1;
	make(&in);
	cr_assert(plan.regs.long_mode);
	cr_assert_eq(plan.regs.rip, 16 * MIB + 0x10);
	cr_assert_eq(plan.regs.cr0 & 0x80000001, 0x80000001);
	cr_assert_eq(plan.regs.efer, 0x500);
	cr_assert_eq(*guest(plan.regs.rip, 1), 0xc3);
	zero = guest(plan.regs.rsi, 4096);
	cr_assert_eq(memcmp(zero + 0x202, "HdrS", 4), 0);
	cr_assert_eq(zero[0x1ef], 0, "sentinel");
	cr_assert_eq(zero[0x210], 0xff);
	cr_assert_eq(get_le64(zero + 0x70), 0xe0000);
	cr_assert_str_eq((const char *)guest(get_le32(zero + 0x228), 19), "console=hvc0 quiet");
	cr_assert_eq(get_le32(zero + 0x21c), sizeof(initrd));
	cr_assert_eq(memcmp(guest(get_le32(zero + 0x218), sizeof(initrd)), initrd, sizeof(initrd)),
		     0);
	cr_assert_geq(get_le32(zero + 0x218), 16 * MIB + 0x9000, "behind the kernel's bss");
	cr_assert_eq(zero[0x1e8], 4);
	e = zero + 0x2d0;
	cr_assert_eq(get_le64(e + 8), HV_LOW_RAM_END);
	cr_assert_eq(get_le32(e + 20 + 16), 2, "firmware area");
	cr_assert_eq(get_le64(e + 40), MIB);
	cr_assert_eq(get_le64(e + 48), 63 * MIB);
	cr_assert_eq(get_le64(e + 60), 0x100000000);
}

Test(boot, linux_paging_and_segments)
{
	struct hv_boot_input in = input(HV_BOOT_LINUX, make_bzimage(image, 5000),
					make_elf(elf, true, 16 * MIB, 0x3000, 0x9000, false));
	const uint8_t *gdt;

	make(&in);
	for (uint64_t va = 0; va < 0x100000000; va += 0x1fff123)
		cr_assert_eq(translate(va), va);
	gdt = guest(plan.regs.gdt_base, plan.regs.gdt_limit + 1u);
	cr_assert_eq(get_le64(gdt + plan.regs.cs) >> 40 & 0xff, 0x9b, "code");
	cr_assert_eq(get_le64(gdt + plan.regs.cs) >> 52 & 0xf, 0xa, "64-bit");
	cr_assert_eq(get_le64(gdt + plan.regs.ds) >> 40 & 0xff, 0x93, "data");
}

Test(boot, linux_rejections)
{
	size_t bz = make_bzimage(image, 5000),
	       len = make_elf(elf, true, 16 * MIB, 0x3000, 0x9000, false);
	struct hv_boot_input in = input(HV_BOOT_LINUX, bz, len);
	static char longline[3000];

	in.ram[0].len = 2 * MIB;
	refused(&in, "less than 4 MiB");
	in.ram[0].len = 64 * MIB;
	in.elf.len = 40;
	refused(&in, "not an ELF");
	in.elf.len = len - 1;
	refused(&in, "segment is cut off");
	in.elf.len = len;
	memset(longline, 'x', sizeof(longline) - 1);
	in.cmdline = longline;
	refused(&in, "command line is longer");
	in.cmdline = "";
	in.modules_count = 1;
	in.modules[0] = (struct hv_boot_bytes){ elf, 60 * MIB };
	refused(&in, "initrd does not fit");
	in.modules_count = 0;
	put_le64(elf + 64 + 24, 63 * MIB + 0x8000);
	put_le64(elf + 24, 63 * MIB + 0x8000);
	put_le64(elf + 64 + 40, 2 * MIB);
	refused(&in, "does not fit into guest memory");
	put_le64(elf + 64 + 24, 0x6000);
	put_le64(elf + 24, 0x6000);
	put_le64(elf + 64 + 40, 0x9000);
	refused(&in, "overlap");
	put_le64(elf + 64 + 24, 0xfffffffffffff000);
	refused(&in, "wraps");
	make_elf(elf, true, 16 * MIB, 0x3000, 0x9000, false);
	put_le64(elf + 24, 0x1234);
	refused(&in, "no 64-bit entry");
}

/* --- PVH --- */

Test(boot, pvh_plan)
{
	for (unsigned is64 = 0; is64 < 2; is64++) {
		size_t len = make_elf(image, is64, MIB, 0x2000, 0x5000, true);
		struct hv_boot_input in = input(HV_BOOT_PVH, len, 0);
		const uint8_t *info, *list, *map;
		enum hv_boot_kind kind;

		cr_assert(hv_boot_kind_of(image, len, &kind, &why));
		cr_assert_eq(kind, HV_BOOT_PVH);
		in.modules[0] = (struct hv_boot_bytes){ (const uint8_t *)"first", 5 };
		in.modules[1] = (struct hv_boot_bytes){ (const uint8_t *)"second", 6 };
		in.module_cmdline[1] = "args of second";
		in.modules_count = 2;
		make(&in);
		cr_assert_not(plan.regs.long_mode);
		cr_assert_eq(plan.regs.rip, MIB + 0x20);
		cr_assert_eq(plan.regs.cr0, 0x11);
		info = guest(plan.regs.rbx, 56);
		cr_assert_eq(get_le32(info), 0x336ec578);
		cr_assert_eq(get_le32(info + 4), 1);
		cr_assert_eq(get_le32(info + 12), 2);
		cr_assert_str_eq((const char *)guest(get_le64(info + 24), 19),
				 "console=hvc0 quiet");
		cr_assert_eq(get_le64(info + 32), 0xe0000);
		list = guest(get_le64(info + 16), 64);
		cr_assert_eq(memcmp(guest(get_le64(list), 5), "first", 5), 0);
		cr_assert_eq(memcmp(guest(get_le64(list + 32), 6), "second", 6), 0);
		cr_assert_eq(get_le64(list + 40), 6);
		cr_assert_str_eq((const char *)guest(get_le64(list + 48), 15), "args of second");
		cr_assert_geq(get_le64(list), MIB + 0x5000, "behind bss");
		map = guest(get_le64(info + 40), 4 * 24);
		cr_assert_eq(get_le32(info + 48), 4);
		cr_assert_eq(get_le64(map + 3 * 24), 0x100000000);
		cr_assert_eq(get_le32(map + 3 * 24 + 16), 1);
	}
}

Test(boot, pvh_hostile_notes)
{
	size_t len = make_elf(image, true, MIB, 0x2000, 0x5000, true);
	struct hv_boot_input in = input(HV_BOOT_PVH, len, 0);
	enum hv_boot_kind kind;

	put_le32(image + 0x800, 0xfffffff0);
	refused(&in, "no PVH entry");
	put_le32(image + 0x800, 4);
	put_le32(image + 0x804, 0xffffffff);
	refused(&in, "no PVH entry");
	cr_assert_not(hv_boot_kind_of(image, len, &kind, &why));
	cr_assert(strstr(why, "not a kernel"));
}

/* --- multiboot --- */

Test(boot, multiboot_plan)
{
	size_t len = make_elf(image, false, MIB, 0x2000, 0x5000, false);
	struct hv_boot_input in = input(HV_BOOT_MULTIBOOT, len, 0);
	const uint8_t *info, *mod, *map;
	enum hv_boot_kind kind;

	add_multiboot_header(image, 0x1100, 3);
	cr_assert(hv_boot_kind_of(image, len, &kind, &why));
	cr_assert_eq(kind, HV_BOOT_MULTIBOOT);
	in.modules[0] = (struct hv_boot_bytes){ (const uint8_t *)"module", 6 };
	in.module_cmdline[0] = "m0";
	in.modules_count = 1;
	make(&in);
	cr_assert_eq(plan.regs.rax, 0x2badb002);
	cr_assert_eq(plan.regs.rip, MIB + 0x10);
	info = guest(plan.regs.rbx, 88);
	cr_assert_eq(get_le32(info) & 0x4d, 0x4d);
	cr_assert_eq(get_le32(info + 8), 63 * 1024);
	cr_assert_str_eq((const char *)guest(get_le32(info + 16), 19), "console=hvc0 quiet");
	mod = guest(get_le32(info + 24), 16);
	cr_assert_eq(get_le32(mod) % 4096, 0, "modules are page-aligned");
	cr_assert_eq(get_le32(mod + 4) - get_le32(mod), 6);
	cr_assert_eq(memcmp(guest(get_le32(mod), 6), "module", 6), 0);
	cr_assert_str_eq((const char *)guest(get_le32(mod + 8), 3), "m0");
	cr_assert_eq(get_le32(info + 44), 4 * 24);
	map = guest(get_le32(info + 48), 4 * 24);
	cr_assert_eq(get_le32(map), 20);
	cr_assert_eq(get_le64(map + 2 * 24 + 4), MIB);
	cr_assert_eq(get_le64(map + 2 * 24 + 12), 63 * MIB);
	cr_assert_eq(get_le32(map + 24 + 20), 2);
}

Test(boot, multiboot_flat_image)
{
	struct hv_boot_input in = input(HV_BOOT_MULTIBOOT, 0x1000, 0);

	memset(image, 0x90, 0x1000);
	add_multiboot_header(image, 0x40, 1u << 16);
	put_le32(image + 0x4c, MIB + 0x40); /* header_addr */
	put_le32(image + 0x50, MIB);        /* load_addr */
	put_le32(image + 0x54, 0);
	put_le32(image + 0x58, MIB + 0x3000); /* bss_end */
	put_le32(image + 0x5c, MIB + 0x80);   /* entry */
	make(&in);
	cr_assert_eq(plan.regs.rip, MIB + 0x80);
	cr_assert_eq(memcmp(guest(MIB, 0x1000), image, 0x1000), 0);
	put_le32(image + 0x50, MIB - 0x100);
	refused(&in, "does not fit the file");
	put_le32(image + 0x50, MIB);
	put_le32(image + 0x54, MIB + 0x2000);
	refused(&in, "do not fit the file");
}

Test(boot, multiboot_rejections)
{
	size_t len = make_elf(image, false, MIB, 0x2000, 0x5000, false);
	struct hv_boot_input in = input(HV_BOOT_MULTIBOOT, len, 0);

	refused(&in, "no multiboot header");
	add_multiboot_header(image, 0x1100, 4);
	refused(&in, "video mode");
	add_multiboot_header(image, 0x1100, 0);
	put_le32(image + 52 + 12, 0x9e000); /* runs into the firmware area */
	put_le32(image + 52 + 8, 0x9e000);
	put_le32(image + 24, 0x9e000);
	refused(&in, "firmware area");
	make_elf(image, false, MIB, 0x2000, 0x5000, false);
	add_multiboot_header(image, 0x1100, 0);
	put_le16(image + 18, 40);
	refused(&in, "not for x86");
}

/* Any single byte of the headers may be anything: a plan that is made must still be sane. */
Test(boot, damaged_elf_never_makes_a_bad_plan)
{
	size_t len = make_elf(image, true, MIB, 0x2000, 0x5000, true);
	struct hv_boot_input in = input(HV_BOOT_PVH, len, 0);

	for (unsigned at = 0; at < 64 + 2 * 56; at++) {
		uint8_t keep = image[at];

		for (unsigned v = 0; v < 256; v++) {
			image[at] = (uint8_t)v;
			if (hv_boot_make(&in, &plan, &why))
				chunks_are_sane(&in);
		}
		image[at] = keep;
	}
}

/* --- a kernel of this machine --- */

Test(boot, real_kernel)
{
	struct hv_boot_input in = input(HV_BOOT_LINUX, 0, 0);
	const char *path = getenv("UNUM_TEST_KERNEL"), *format;
	struct hv_bytes file, unpacked;
	enum hv_boot_kind kind;
	struct hv_bzimage b;
	glob_t g = { 0 };

	if (!path && (glob("build/guest/vmlinuz", 0, NULL, &g) == 0 ||
		      glob("/boot/vmlinuz-*", 0, NULL, &g) == 0))
		path = g.gl_pathv[0];
	if (!path)
		cr_skip_test("no kernel: not built for the guest, none in /boot, UNUM_TEST_KERNEL "
			     "is not set");
	cr_assert_eq(hv_file_read(path, &file), 0);
	cr_assert(hv_boot_kind_of(file.data, file.len, &kind, &why), "%s", why);
	cr_assert_eq(kind, HV_BOOT_LINUX);
	cr_assert(hv_bzimage_parse(file.data, file.len, &b, &why), "%s", why);
	cr_assert_neq(b.packing, HV_PACK_UNKNOWN);
	cr_assert_eq(hv_kernel_unpack(file.data + b.payload_off, b.payload_len, &unpacked, &format),
		     0);
	cr_assert_eq(unpacked.len, b.unpacked_len, "%s: %zu", path, unpacked.len);
	in.image = (struct hv_boot_bytes){ file.data, file.len };
	in.elf = (struct hv_boot_bytes){ unpacked.data, unpacked.len };
	in.ram[0].len = 512 * MIB;
	make(&in);
	cr_assert_eq(plan.regs.rip % 4096, 0);
	cr_assert_eq(translate(plan.regs.rip), plan.regs.rip);
	guest(plan.regs.rip, 64);
	hv_bytes_free(&file);
	hv_bytes_free(&unpacked);
	globfree(&g);
}

/* The mark of page tables that are not shared: owner, type and value all have to be right. */
Test(boot, private_page_tables_mark)
{
	static const struct {
		const char *owner;
		uint32_t owner_len, type, value;
		bool marked;
	} notes[] = {
		{ "unum", 5, 1, 1, true },  { "unum", 5, 1, 0, false }, { "unum", 5, 1, 2, false },
		{ "unum", 5, 2, 1, false }, { "unux", 5, 1, 1, false }, { "unum", 4, 1, 1, false },
	};

	for (unsigned bits = 0; bits < 2; bits++) {
		size_t len = make_elf(elf, bits, 0x100000, 0x100, 0x200, true);

		cr_expect_not(hv_boot_private_tables(elf, len), "a PVH note alone");
		for (unsigned i = 0; i < ARRAY_LEN(notes); i++) {
			uint8_t *p = elf + 0x800;

			put_le32(p, notes[i].owner_len);
			put_le32(p + 4, 4);
			put_le32(p + 8, notes[i].type);
			memset(p + 12, 0, 8);
			memcpy(p + 12, notes[i].owner, notes[i].owner_len);
			put_le32(p + (notes[i].owner_len > 4 ? 20 : 16), notes[i].value);
			cr_expect_eq(hv_boot_private_tables(elf, len), notes[i].marked, "note %u", i);
			for (size_t cut = 0; cut < 0x818; cut++) /* the segment ends at 0x818 */
				cr_expect_not(hv_boot_private_tables(elf, cut), "note %u, %zu bytes", i, cut);
		}
	}
	cr_expect_not(hv_boot_private_tables((const uint8_t *)"MZ", 2));
}
