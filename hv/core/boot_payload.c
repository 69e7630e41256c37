/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/boot_payload.c - 32-bit entries: PVH and multiboot 1.  Pure.
 *
 * Spec: Xen public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc; Multiboot Specification
 * 0.6.96.
 */
#include "hv/core/boot_priv.h"

#define BELOW_4G 0x100000000ull

#define PVH_MAGIC 0x336ec578u
#define PVH_INFO_LEN 56
#define PVH_MODULE_LEN 32
#define PVH_MAP_LEN 24

#define MB_SEARCH 8192u
#define MB_MAGIC 0x1badb002u
#define MB_BOOTED 0x2badb002u
#define MB_UNSUPPORTED 0xfffcu /* video mode, and what the specification leaves undefined */
#define MB_ADDRESSES (1u << 16)
#define MB_INFO_LEN 88
#define MB_INFO_MEMORY (1u << 0)
#define MB_INFO_CMDLINE (1u << 2)
#define MB_INFO_MODULES (1u << 3)
#define MB_INFO_MAP (1u << 6)
#define MB_MODULE_LEN 16
#define MB_MAP_LEN 24

/* Modules follow the image; addresses of them in `at`. */
static bool add_modules(struct hv_boot_work *w, gpa_t from, gpa_t at[static HV_BOOT_MODULES_MAX],
			gpa_t cmdline[static HV_BOOT_MODULES_MAX])
{
	for (unsigned k = 0; k < w->in->modules_count; k++) {
		const struct hv_boot_bytes *m = &w->in->modules[k];

		at[k] = hv_boot_find(w, from, BELOW_4G, m->len);
		if (!at[k])
			return hv_boot_refuse(w, "modules do not fit into guest memory");
		hv_boot_add(w, at[k], m->p, m->len);
		cmdline[k] = hv_boot_add_string(
			w, w->in->module_cmdline[k] ? w->in->module_cmdline[k] : "");
	}
	return !w->why;
}

static void set_registers(struct hv_boot_work *w, uint32_t entry, uint32_t rax, gpa_t info)
{
	struct hv_boot_regs *r = &w->plan->regs;

	r->rip = entry;
	r->rax = rax;
	r->rbx = info;
	r->cr0 = HV_CR0_PE | HV_CR0_ET;
}

/* --- PVH
 * --------------------------------------------------------------------------------------------- */

static gpa_t put_pvh_info(struct hv_boot_work *w, gpa_t cmdline, const gpa_t *at,
			  const gpa_t *cmdlines)
{
	struct hv_boot_map_entry map[HV_BOOT_MAP_MAX];
	unsigned entries = hv_boot_map(w->in, map), modules = w->in->modules_count;
	gpa_t info_gpa, list_gpa, map_gpa;
	uint8_t *info = hv_boot_arena(w, PVH_INFO_LEN, 8, &info_gpa);
	uint8_t *list = hv_boot_arena(w, modules * PVH_MODULE_LEN, 8, &list_gpa);
	uint8_t *m = hv_boot_arena(w, entries * PVH_MAP_LEN, 8, &map_gpa);

	put_le32(info, PVH_MAGIC);
	put_le32(info + 4, 1);
	put_le32(info + 12, modules);
	put_le64(info + 16, modules ? list_gpa : 0);
	put_le64(info + 24, cmdline);
	put_le64(info + 32, w->in->rsdp);
	put_le64(info + 40, map_gpa);
	put_le32(info + 48, entries);
	for (unsigned k = 0; k < modules; k++, list += PVH_MODULE_LEN) {
		put_le64(list, at[k]);
		put_le64(list + 8, w->in->modules[k].len);
		put_le64(list + 16, cmdlines[k]);
	}
	for (unsigned k = 0; k < entries; k++, m += PVH_MAP_LEN) {
		put_le64(m, map[k].start);
		put_le64(m + 8, map[k].len);
		put_le32(m + 16, map[k].type);
	}
	return info_gpa;
}

bool hv_boot_make_pvh(struct hv_boot_work *w)
{
	gpa_t at[HV_BOOT_MODULES_MAX], cmdlines[HV_BOOT_MODULES_MAX], end, cmdline, info;
	struct hv_elf elf;
	uint32_t entry;
	const char *why;

	if (!hv_elf_open(w->in->image, &elf, &why))
		return hv_boot_refuse(w, why);
	if (!hv_elf_pvh_entry(&elf, &entry))
		return hv_boot_refuse(w, "ELF file has no PVH entry note");
	if (!hv_boot_add_elf(w, &elf, &end) || !add_modules(w, end, at, cmdlines))
		return false;
	cmdline = hv_boot_add_string(w, w->in->cmdline);
	hv_boot_set_gdt(w, false);
	info = put_pvh_info(w, cmdline, at, cmdlines);
	hv_boot_add_arena(w);
	set_registers(w, entry, 0, info);
	return !w->why;
}

/* --- multiboot
 * --------------------------------------------------------------------------------------- */

/* 3.1.1: in the first 8 KiB, 4-byte aligned, magic + flags + checksum = 0. */
bool hv_multiboot_find(struct hv_boot_bytes image, uint32_t *offset)
{
	for (uint32_t k = 0; k + 12 <= MB_SEARCH && k + 12 <= image.len; k += 4) {
		const uint8_t *p = image.p + k;

		if (get_le32(p) == MB_MAGIC &&
		    get_le32(p) + get_le32(p + 4) + get_le32(p + 8) == 0) {
			*offset = k;
			return true;
		}
	}
	return false;
}

/* 3.1.3: the header itself says what to load where, for images that are not ELF. */
static bool load_by_addresses(struct hv_boot_work *w, uint32_t header, gpa_t *end, uint32_t *entry)
{
	const struct hv_boot_bytes *f = &w->in->image;
	const uint8_t *p = f->p + header;
	uint32_t header_addr, load, load_end, bss_end;
	uint64_t off, len;

	if (f->len - header < 32)
		return hv_boot_refuse(w, "multiboot header is cut off");
	header_addr = get_le32(p + 12);
	load = get_le32(p + 16);
	load_end = get_le32(p + 20);
	bss_end = get_le32(p + 24);
	*entry = get_le32(p + 28);
	if (header_addr < load || header_addr - load > header)
		return hv_boot_refuse(w, "multiboot load address does not fit the file");
	off = header - (header_addr - load);
	len = load_end ? (uint64_t)load_end - load : f->len - off;
	if ((load_end && load_end < load) || len > f->len - off ||
	    (bss_end && bss_end < load + len))
		return hv_boot_refuse(w, "multiboot addresses do not fit the file");
	*end = bss_end ? bss_end : load + len;
	return hv_boot_add(w, load, f->p + off, len) &&
	       hv_boot_add(w, load + len, NULL, *end - (load + len));
}

static bool load_multiboot(struct hv_boot_work *w, gpa_t *end, uint32_t *entry)
{
	uint32_t header, flags;
	uint64_t physical;
	struct hv_elf elf;
	const char *why;

	if (!hv_multiboot_find(w->in->image, &header))
		return hv_boot_refuse(w, "no multiboot header in the first 8 KiB");
	flags = get_le32(w->in->image.p + header + 4);
	if (flags & MB_UNSUPPORTED)
		return hv_boot_refuse(
			w, "multiboot header asks for a video mode or an unknown feature");
	if (flags & MB_ADDRESSES)
		return load_by_addresses(w, header, end, entry);
	if (!hv_elf_open(w->in->image, &elf, &why))
		return hv_boot_refuse(w, why);
	if (!hv_boot_add_elf(w, &elf, end))
		return false;
	if (!hv_elf_entry(&elf, &physical) || physical >= BELOW_4G)
		return hv_boot_refuse(w, "ELF entry is not in a loaded segment below 4 GiB");
	*entry = (uint32_t)physical;
	return true;
}

/* 3.3 */
static gpa_t put_multiboot_info(struct hv_boot_work *w, gpa_t cmdline, const gpa_t *at,
				const gpa_t *cmdlines)
{
	struct hv_boot_map_entry map[HV_BOOT_MAP_MAX];
	unsigned entries = hv_boot_map(w->in, map), modules = w->in->modules_count;
	gpa_t info_gpa, list_gpa, map_gpa;
	uint8_t *info = hv_boot_arena(w, MB_INFO_LEN, 8, &info_gpa);
	uint8_t *list = hv_boot_arena(w, modules * MB_MODULE_LEN, 8, &list_gpa);
	uint8_t *m = hv_boot_arena(w, entries * MB_MAP_LEN, 8, &map_gpa);

	put_le32(info, MB_INFO_MEMORY | MB_INFO_CMDLINE | MB_INFO_MODULES | MB_INFO_MAP);
	put_le32(info + 4, HV_LOW_RAM_END / 1024);
	put_le32(info + 8, (uint32_t)((w->in->ram[0].len - HV_HIGH_RAM_START) / 1024));
	put_le32(info + 16, (uint32_t)cmdline);
	put_le32(info + 20, modules);
	put_le32(info + 24, (uint32_t)list_gpa);
	put_le32(info + 44, entries * MB_MAP_LEN);
	put_le32(info + 48, (uint32_t)map_gpa);
	for (unsigned k = 0; k < modules; k++, list += MB_MODULE_LEN) {
		put_le32(list, (uint32_t)at[k]);
		put_le32(list + 4, (uint32_t)(at[k] + w->in->modules[k].len));
		put_le32(list + 8, (uint32_t)cmdlines[k]);
	}
	for (unsigned k = 0; k < entries; k++, m += MB_MAP_LEN) {
		put_le32(m, MB_MAP_LEN - 4); /* size of what follows */
		put_le64(m + 4, map[k].start);
		put_le64(m + 12, map[k].len);
		put_le32(m + 20, map[k].type);
	}
	return info_gpa;
}

bool hv_boot_make_multiboot(struct hv_boot_work *w)
{
	gpa_t at[HV_BOOT_MODULES_MAX], cmdlines[HV_BOOT_MODULES_MAX], end, cmdline, info;
	uint32_t entry = 0;

	if (!load_multiboot(w, &end, &entry) || !add_modules(w, end, at, cmdlines))
		return false;
	cmdline = hv_boot_add_string(w, w->in->cmdline);
	hv_boot_set_gdt(w, false);
	info = put_multiboot_info(w, cmdline, at, cmdlines);
	hv_boot_add_arena(w);
	set_registers(w, entry, MB_BOOTED, info);
	return !w->why;
}
