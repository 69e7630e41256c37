/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/boot_linux.c - Linux bzImage, started at the 64-bit entry of the kernel proper.
 *
 * Pure.  The caller unpacks the payload, so the guest is spared its own unpacking: what runs first
 * is startup_64 of the vmlinux, with RSI = boot_params, as after the kernel's own decompressor.  No
 * KASLR.
 *
 * Spec: Linux Documentation/x86/boot.rst (header), zero-page.rst (boot_params).
 */
#include "hv/core/boot_priv.h"

#define VERSION_MIN 0x020c
#define XLF_KERNEL_64 1u

/* Offsets that the file's header and boot_params share. */
#define H_SETUP_SECTS 0x1f1
#define H_VID_MODE 0x1fa
#define H_JUMP_LEN 0x201
#define H_MAGIC 0x202
#define H_VERSION 0x206
#define H_LOADER 0x210
#define H_RAMDISK 0x218
#define H_RAMDISK_SIZE 0x21c
#define H_CMDLINE 0x228
#define H_INITRD_MAX 0x22c
#define H_XLOADFLAGS 0x236
#define H_CMDLINE_SIZE 0x238
#define H_PAYLOAD_OFFSET 0x248
#define H_PAYLOAD_LENGTH 0x24c
#define H_INIT_SIZE 0x260
#define H_END 0x268

/* boot_params only. */
#define P_RSDP 0x070
#define P_E820_ENTRIES 0x1e8
#define P_E820_TABLE 0x2d0
#define E820_ENTRY 20

#define TABLE_ENTRIES 512u
#define IDENTITY_GIB 4u
#define PTE_P_W 0x3ull
#define PDE_LARGE (1ull << 7)
#define LARGE_SHIFT 21

static const struct {
	uint8_t magic[6];
	uint8_t len;
	uint8_t packing;
	const char *name;
} packings[] = {
	{ { 0x7f, 'E', 'L', 'F' }, 4, HV_PACK_NONE, "none" },
	{ { 0x1f, 0x8b }, 2, HV_PACK_GZIP, "gzip" },
	{ { 'B', 'Z', 'h' }, 3, HV_PACK_BZIP2, "bzip2" },
	{ { 0x5d, 0x00, 0x00 }, 3, HV_PACK_LZMA, "lzma" },
	{ { 0xfd, '7', 'z', 'X', 'Z', 0x00 }, 6, HV_PACK_XZ, "xz" },
	{ { 0x89, 'L', 'Z', 'O' }, 4, HV_PACK_LZO, "lzo" },
	{ { 0x02, 0x21, 0x4c, 0x18 }, 4, HV_PACK_LZ4, "lz4" },
	{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, HV_PACK_ZSTD, "zstd" },
};

const char *hv_boot_packing_name(enum hv_boot_packing p)
{
	for (unsigned k = 0; k < ARRAY_LEN(packings); k++)
		if (packings[k].packing == p)
			return packings[k].name;
	return "unknown";
}

static enum hv_boot_packing packing_of(const uint8_t *p, uint64_t len)
{
	for (unsigned k = 0; k < ARRAY_LEN(packings); k++)
		if (len >= packings[k].len && memcmp(p, packings[k].magic, packings[k].len) == 0)
			return packings[k].packing;
	return HV_PACK_UNKNOWN;
}

static bool refuse(const char **why, const char *text)
{
	*why = text;
	return false;
}

bool hv_bzimage_parse(const uint8_t *p, size_t len, struct hv_bzimage *out, const char **why)
{
	struct hv_bzimage b = { 0 };
	uint64_t sects;

	if (len < H_END || memcmp(p + H_MAGIC, "HdrS", 4) != 0)
		return refuse(why, "not a bzImage: no HdrS at 0x202");
	b.version = get_le16(p + H_VERSION);
	if (b.version < VERSION_MIN)
		return refuse(why, "bzImage is too old: boot protocol below 2.12");
	if (!(get_le16(p + H_XLOADFLAGS) & XLF_KERNEL_64))
		return refuse(why, "not a 64-bit kernel: XLF_KERNEL_64 is not set");
	sects = p[H_SETUP_SECTS] ? p[H_SETUP_SECTS] : 4;
	b.payload_off = (sects + 1) * 512 + get_le32(p + H_PAYLOAD_OFFSET);
	b.payload_len = get_le32(p + H_PAYLOAD_LENGTH);
	if (b.payload_len < 8)
		return refuse(why, "bzImage has no payload");
	if (b.payload_off > len || b.payload_len > len - b.payload_off)
		return refuse(why,
			      "bzImage is cut off: payload reaches beyond the end of the file");
	b.packing = packing_of(p + b.payload_off, b.payload_len);
	if (b.packing != HV_PACK_NONE)
		b.unpacked_len = get_le32(p + b.payload_off + b.payload_len - 4);
	/* The size word is gzip's own last word; for the others the kernel build appends it. */
	if (b.packing != HV_PACK_NONE && b.packing != HV_PACK_GZIP)
		b.payload_len -= 4;
	b.cmdline_max = get_le32(p + H_CMDLINE_SIZE);
	b.init_size = get_le32(p + H_INIT_SIZE);
	b.initrd_max = get_le32(p + H_INITRD_MAX);
	*out = b;
	return true;
}

/* Identity mapping of the first 4 GiB by 2 MiB pages. */
static void put_page_tables(struct hv_boot_work *w)
{
	gpa_t base;
	uint8_t *t = hv_boot_arena(w, (2 + IDENTITY_GIB) * PAGE_SIZE, PAGE_SIZE, &base);

	put_le64(t, (base + PAGE_SIZE) | PTE_P_W);
	for (unsigned g = 0; g < IDENTITY_GIB; g++)
		put_le64(t + PAGE_SIZE + 8 * g, (base + (2 + g) * PAGE_SIZE) | PTE_P_W);
	for (uint64_t k = 0; k < IDENTITY_GIB * TABLE_ENTRIES; k++)
		put_le64(t + 2 * PAGE_SIZE + 8 * k, k << LARGE_SHIFT | PDE_LARGE | PTE_P_W);
	w->plan->regs.cr3 = base;
}

/* The header as in the file, from setup_sects to where its jump says that it ends. */
static void copy_header(uint8_t *zero_page, const uint8_t *image)
{
	size_t end = H_MAGIC + (size_t)image[H_JUMP_LEN];

	if (end > P_E820_TABLE)
		end = P_E820_TABLE;
	if (end < H_END)
		end = H_END;
	memcpy(zero_page + H_SETUP_SECTS, image + H_SETUP_SECTS, end - H_SETUP_SECTS);
}

static void put_e820(uint8_t *zero_page, const struct hv_boot_input *in)
{
	struct hv_boot_map_entry map[HV_BOOT_MAP_MAX];
	unsigned n = hv_boot_map(in, map);

	zero_page[P_E820_ENTRIES] = (uint8_t)n;
	for (unsigned k = 0; k < n; k++) {
		uint8_t *e = zero_page + P_E820_TABLE + k * E820_ENTRY;

		put_le64(e, map[k].start);
		put_le64(e + 8, map[k].len);
		put_le32(e + 16, map[k].type);
	}
}

/* Right behind the kernel: that is memory of the node that reads it. */
static gpa_t add_initrd(struct hv_boot_work *w, const struct hv_bzimage *b, gpa_t kernel_end)
{
	const struct hv_boot_bytes *m = &w->in->modules[0];
	gpa_t at;

	if (w->in->modules_count > 1) {
		hv_boot_refuse(w, "a Linux kernel takes one initrd");
		return 0;
	}
	if (!w->in->modules_count || !m->len)
		return 0;
	at = hv_boot_find(w, kernel_end, b->initrd_max + 1, m->len);
	if (!at)
		hv_boot_refuse(w, "initrd does not fit into guest memory");
	else
		hv_boot_add(w, at, m->p, m->len);
	return at;
}

static void set_registers(struct hv_boot_work *w, gpa_t zero_page, uint64_t entry)
{
	struct hv_boot_regs *r = &w->plan->regs;

	r->long_mode = true;
	r->rip = entry;
	r->rsi = zero_page;
	r->cr0 = HV_CR0_PE | HV_CR0_ET | HV_CR0_NE | HV_CR0_PG;
	r->cr4 = HV_CR4_PAE;
	r->efer = HV_EFER_LME | HV_EFER_LMA;
}

bool hv_boot_make_linux(struct hv_boot_work *w)
{
	const struct hv_boot_input *in = w->in;
	struct hv_bzimage b;
	struct hv_elf elf;
	const char *why;
	uint64_t entry;
	gpa_t zero_gpa, end, cmdline, initrd;
	uint8_t *zero;

	if (!hv_bzimage_parse(in->image.p, in->image.len, &b, &why) ||
	    !hv_elf_open(in->elf, &elf, &why))
		return hv_boot_refuse(w, why);
	if (strlen(in->cmdline) > b.cmdline_max)
		return hv_boot_refuse(w, "command line is longer than this kernel takes");
	hv_boot_set_gdt(w, true);
	put_page_tables(w);
	zero = hv_boot_arena(w, PAGE_SIZE, PAGE_SIZE, &zero_gpa);
	hv_boot_add_arena(w);
	cmdline = hv_boot_add_string(w, in->cmdline);
	if (!hv_boot_add_elf(w, &elf, &end))
		return false;
	if (!elf.is64 || !hv_elf_entry(&elf, &entry))
		return hv_boot_refuse(w, "unpacked kernel has no 64-bit entry");
	initrd = add_initrd(w, &b, end);
	copy_header(zero, in->image.p);
	put_e820(zero, in);
	zero[H_LOADER] = 0xff; /* no assigned id */
	put_le16(zero + H_VID_MODE, 0xffff);
	put_le32(zero + H_RAMDISK, (uint32_t)initrd);
	put_le32(zero + H_RAMDISK_SIZE, initrd ? (uint32_t)in->modules[0].len : 0);
	put_le32(zero + H_CMDLINE, (uint32_t)cmdline);
	put_le64(zero + P_RSDP, in->rsdp);
	set_registers(w, zero_gpa, entry);
	return !w->why;
}
