/* SPDX-License-Identifier: Apache-2.0 */
/* hv/core/boot_priv.h - what boot.c, boot_elf.c, boot_linux.c and boot_payload.c share. */
#ifndef HV_CORE_BOOT_PRIV_H
#define HV_CORE_BOOT_PRIV_H

#include "base/bytes.h"
#include "hv/core/boot.h"

/* The arena is one chunk at this address: offset k of it is at HV_BOOT_ARENA_GPA + k. */
#define HV_BOOT_ARENA_GPA 0x6000u
#define HV_BOOT_CMDLINE_GPA 0x20000u
#define HV_BOOT_CMDLINES_END 0x40000u

#define HV_CR0_PE (1ull << 0)
#define HV_CR0_ET (1ull << 4)
#define HV_CR0_NE (1ull << 5)
#define HV_CR0_PG (1ull << 31)
#define HV_CR4_PAE (1ull << 5)
#define HV_EFER_LME (1ull << 8)
#define HV_EFER_LMA (1ull << 10)

/* A plan in the making. */
struct hv_boot_work {
	const struct hv_boot_input *in;
	struct hv_boot_plan *plan;
	uint64_t arena_used;
	gpa_t cmdline_next; /* where the next string goes */
	const char *why;    /* first reason to refuse */
};

/* All of these do nothing and answer false or 0 once w->why is set. */
bool hv_boot_refuse(struct hv_boot_work *w, const char *why);
bool hv_boot_add(struct hv_boot_work *w, gpa_t gpa, const uint8_t *bytes, uint64_t len);
/* Zeroed arena memory; *gpa is where the guest will see it. */
uint8_t *hv_boot_arena(struct hv_boot_work *w, uint64_t len, uint64_t align, gpa_t *gpa);
/* The arena's chunk; after the last hv_boot_arena. */
bool hv_boot_add_arena(struct hv_boot_work *w);
/* A string in low memory; its address. */
gpa_t hv_boot_add_string(struct hv_boot_work *w, const char *s);
/* Lowest free page-aligned address at or above `from` and below `limit`; 0: none. */
gpa_t hv_boot_find(struct hv_boot_work *w, gpa_t from, gpa_t limit, uint64_t len);
/* Flat descriptors: null, null, code at 0x10, data at 0x18, TSS at 0x20; sets the registers that
 * name them. */
void hv_boot_set_gdt(struct hv_boot_work *w, bool long_mode);

/* Memory map of the machine: calls for each range, type 1 (RAM) or 2 (reserved). */
struct hv_boot_map_entry {
	gpa_t start;
	uint64_t len;
	uint32_t type;
};
#define HV_BOOT_MAP_MAX (HV_BOOT_RAM_MAX + 3)
unsigned hv_boot_map(const struct hv_boot_input *in,
		     struct hv_boot_map_entry out[static HV_BOOT_MAP_MAX]);

/* --- ELF, 32 and 64 bits --- */
struct hv_elf {
	struct hv_boot_bytes file;
	bool is64;
	uint64_t entry;
	uint64_t phoff;
	unsigned phnum, phentsize;
};

struct hv_elf_segment {
	uint32_t type;
	uint64_t off, vaddr, paddr, filesz,
		memsz; /* off + filesz is within the file, paddr + memsz does not wrap */
};

#define HV_ELF_LOAD 1u
#define HV_ELF_NOTE 4u

bool hv_elf_open(struct hv_boot_bytes file, struct hv_elf *out, const char **why);
bool hv_elf_segment(const struct hv_elf *e, unsigned k, struct hv_elf_segment *out,
		    const char **why);
/* Adds the load segments to the plan; *end: first byte behind the highest. */
bool hv_boot_add_elf(struct hv_boot_work *w, const struct hv_elf *e, gpa_t *end);
/* Physical address of the entry; false: not within a load segment. */
bool hv_elf_entry(const struct hv_elf *e, uint64_t *entry);
/* Physical address of the PVH entry, from the note; false: no such note. */
bool hv_elf_pvh_entry(const struct hv_elf *e, uint32_t *entry);

bool hv_multiboot_find(struct hv_boot_bytes image, uint32_t *offset);

bool hv_boot_make_linux(struct hv_boot_work *w);
bool hv_boot_make_pvh(struct hv_boot_work *w);
bool hv_boot_make_multiboot(struct hv_boot_work *w);

#endif
