/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/boot_elf.c - the few things a loader wants of an ELF file.  Pure; every offset is
 * checked.
 *
 * Spec: System V ABI, chapters 4 and 5; Xen public/elfnote.h for the PVH note.
 */
#include "hv/core/boot_priv.h"

#define EM_386 3
#define EM_X86_64 62

struct note {
	const char *owner;
	uint32_t type;
};
static const struct note note_pvh = { "Xen", 18 };     /* XEN_ELFNOTE_PHYS32_ENTRY */
static const struct note note_private = { "unum", 1 }; /* tests/payloads/rt/private.S */

static bool refuse(const char **why, const char *text)
{
	*why = text;
	return false;
}

bool hv_elf_open(struct hv_boot_bytes file, struct hv_elf *out, const char **why)
{
	const uint8_t *p = file.p;
	uint16_t machine;

	if (file.len < 52 || memcmp(p, "\177ELF", 4) != 0)
		return refuse(why, "not an ELF file: bad magic");
	if (p[5] != 1)
		return refuse(why, "ELF file is not little-endian");
	if (p[4] != 1 && p[4] != 2)
		return refuse(why, "ELF file is neither 32-bit nor 64-bit");
	if (p[4] == 2 && file.len < 64)
		return refuse(why, "ELF header is cut off");
	machine = get_le16(p + 18);
	if (machine != EM_386 && machine != EM_X86_64)
		return refuse(why, "ELF file is not for x86");
	*out = (struct hv_elf){ .file = file, .is64 = p[4] == 2 };
	out->entry = out->is64 ? get_le64(p + 24) : get_le32(p + 24);
	out->phoff = out->is64 ? get_le64(p + 32) : get_le32(p + 28);
	out->phentsize = get_le16(p + (out->is64 ? 54 : 42));
	out->phnum = get_le16(p + (out->is64 ? 56 : 44));
	if (out->phnum == 0)
		return refuse(why, "ELF file has no program headers");
	if (out->phentsize < (out->is64 ? 56 : 32))
		return refuse(why, "ELF program headers are too small");
	if (out->phoff > file.len || file.len - out->phoff < (uint64_t)out->phnum * out->phentsize)
		return refuse(why, "ELF program headers are cut off");
	return true;
}

bool hv_elf_segment(const struct hv_elf *e, unsigned k, struct hv_elf_segment *s, const char **why)
{
	const uint8_t *p = e->file.p + e->phoff + (uint64_t)k * e->phentsize;

	s->type = get_le32(p);
	if (e->is64) {
		s->off = get_le64(p + 8);
		s->vaddr = get_le64(p + 16);
		s->paddr = get_le64(p + 24);
		s->filesz = get_le64(p + 32);
		s->memsz = get_le64(p + 40);
	} else {
		s->off = get_le32(p + 4);
		s->vaddr = get_le32(p + 8);
		s->paddr = get_le32(p + 12);
		s->filesz = get_le32(p + 16);
		s->memsz = get_le32(p + 20);
	}
	if (s->type != HV_ELF_LOAD && s->type != HV_ELF_NOTE)
		return true;
	if (s->off > e->file.len || s->filesz > e->file.len - s->off)
		return refuse(why, "ELF segment is cut off");
	if (s->type == HV_ELF_LOAD && s->memsz < s->filesz)
		return refuse(why, "ELF segment is larger in the file than in memory");
	if (s->paddr + s->memsz < s->paddr)
		return refuse(why, "ELF segment wraps around");
	return true;
}

bool hv_boot_add_elf(struct hv_boot_work *w, const struct hv_elf *e, gpa_t *end)
{
	struct hv_elf_segment s;
	const char *why;
	bool any = false;

	*end = 0;
	for (unsigned k = 0; k < e->phnum; k++) {
		if (!hv_elf_segment(e, k, &s, &why))
			return hv_boot_refuse(w, why);
		if (s.type != HV_ELF_LOAD || !s.memsz)
			continue;
		any = true;
		if (!hv_boot_add(w, s.paddr, e->file.p + s.off, s.filesz) ||
		    !hv_boot_add(w, s.paddr + s.filesz, NULL, s.memsz - s.filesz))
			return false;
		if (s.paddr + s.memsz > *end)
			*end = s.paddr + s.memsz;
	}
	return any || hv_boot_refuse(w, "ELF file has nothing to load");
}

/* Some images name a virtual address; the loader wants where that is loaded. */
bool hv_elf_entry(const struct hv_elf *e, uint64_t *entry)
{
	struct hv_elf_segment s;
	const char *why;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned k = 0; k < e->phnum; k++) {
			uint64_t start;

			if (!hv_elf_segment(e, k, &s, &why) || s.type != HV_ELF_LOAD)
				continue;
			start = pass ? s.vaddr : s.paddr;
			if (e->entry >= start && e->entry - start < s.filesz) {
				*entry = s.paddr + (e->entry - start);
				return true;
			}
		}
	}
	return false;
}

/* Notes of one segment: three words, name and descriptor, both padded to 4 bytes.  *value: the descriptor's first word. */
static bool segment_note(const uint8_t *p, uint64_t len, const struct note *want, uint32_t *value)
{
	struct reader r = { p, p + len, false };
	size_t owner_len = strlen(want->owner) + 1;

	while (r.end - r.p >= 12) {
		uint32_t name_len = reader_u32(&r), desc_len = reader_u32(&r),
			 type = reader_u32(&r);
		uint64_t name_room = ((uint64_t)name_len + 3) & ~3ull,
			 desc_room = ((uint64_t)desc_len + 3) & ~3ull;
		const uint8_t *name = r.p, *desc;

		if ((uint64_t)(r.end - r.p) < name_room ||
		    (uint64_t)(r.end - r.p) - name_room < desc_len)
			return false;
		desc = name + name_room;
		if (type == want->type && name_len == owner_len &&
		    memcmp(name, want->owner, owner_len) == 0 && desc_len >= 4) {
			*value = get_le32(desc);
			return true;
		}
		if ((uint64_t)(r.end - desc) < desc_room)
			return false;
		r.p = desc + desc_room;
	}
	return false;
}

static bool find_note(const struct hv_elf *e, const struct note *want, uint32_t *value)
{
	struct hv_elf_segment s;
	const char *why;

	for (unsigned k = 0; k < e->phnum; k++)
		if (hv_elf_segment(e, k, &s, &why) && s.type == HV_ELF_NOTE &&
		    segment_note(e->file.p + s.off, s.filesz, want, value))
			return true;
	return false;
}

bool hv_elf_pvh_entry(const struct hv_elf *e, uint32_t *entry)
{
	return find_note(e, &note_pvh, entry);
}

bool hv_boot_private_tables(const uint8_t *image, size_t len)
{
	struct hv_elf e;
	const char *why;
	uint32_t value;

	return hv_elf_open((struct hv_boot_bytes){ image, len }, &e, &why) &&
	       find_note(&e, &note_private, &value) && value == 1;
}
