/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/boot.h - from a kernel image to bytes in guest memory and the first registers.
 *
 * What      Linux bzImage by the 64-bit protocol (the payload already unpacked by the caller), ELF
 *           by PVH, ELF by multiboot 1.  Answers with a plan: chunks to write and the registers of
 *           the boot processor.
 * Owns      Nothing; a plan points into the caller's buffers and into its own arena: it is valid
 *           while they are.
 * Limits    See the constants.  Bad images are refused with static text in *why.
 * Spec      Linux Documentation/x86/boot.rst and zero-page.rst; Xen
 *           public/arch-x86/hvm/start_info.h; Multiboot Specification 0.6.96.
 */
#ifndef HV_CORE_BOOT_H
#define HV_CORE_BOOT_H

#include "base/err.h"
#include "base/types.h"
#include "hv/core/layout.h"

enum hv_boot_kind { HV_BOOT_LINUX, HV_BOOT_PVH, HV_BOOT_MULTIBOOT };

enum hv_boot_packing {
	HV_PACK_NONE, /* the payload is an ELF file as it is */
	HV_PACK_GZIP,
	HV_PACK_BZIP2,
	HV_PACK_LZMA,
	HV_PACK_XZ,
	HV_PACK_LZO,
	HV_PACK_LZ4, /* legacy frame format, magic 02 21 4c 18 */
	HV_PACK_ZSTD,
	HV_PACK_UNKNOWN,
};
/* "lz4", ... for messages. */
const char *hv_boot_packing_name(enum hv_boot_packing p);

struct hv_bzimage {
	uint64_t payload_off,
		payload_len;   /* the packed ELF within the file, without the trailing size word */
	uint32_t unpacked_len; /* size word after the payload; 0: not packed */
	enum hv_boot_packing packing;
	uint32_t cmdline_max; /* bytes without the NUL */
	uint32_t init_size;
	uint64_t initrd_max; /* highest address of the last byte of an initrd */
	uint16_t version;    /* boot protocol, 0x020c and up */
};

/* What the image is: bzImage, or ELF with a PVH note, or with a multiboot header (PVH preferred).
 * False: none of these; *why says so. */
bool hv_boot_kind_of(const uint8_t *image, size_t len, enum hv_boot_kind *kind, const char **why);
/* An ELF image that promises, by a note of owner "unum", type 1, value 1, that no two vCPUs share page tables. */
bool hv_boot_private_tables(const uint8_t *image, size_t len);
bool hv_bzimage_parse(const uint8_t *image, size_t len, struct hv_bzimage *out, const char **why);

struct hv_boot_bytes {
	const uint8_t *p;
	uint64_t len;
};

#define HV_BOOT_MODULES_MAX 8
#define HV_BOOT_RAM_MAX 16

struct hv_boot_ram {
	gpa_t start;
	uint64_t len;
};

struct hv_boot_input {
	enum hv_boot_kind kind;
	struct hv_boot_bytes image; /* the file */
	struct hv_boot_bytes elf;   /* HV_BOOT_LINUX: the unpacked vmlinux; otherwise unused */
	const char *cmdline;        /* NUL-terminated */
	/* Linux: module 0 is the initrd, no others.  PVH and multiboot: in this order. */
	struct hv_boot_bytes modules[HV_BOOT_MODULES_MAX];
	const char *module_cmdline[HV_BOOT_MODULES_MAX]; /* NULL: none */
	unsigned modules_count;
	/* guest RAM, ascending; [0] from 0 on, 4 MiB at least */
	struct hv_boot_ram ram[HV_BOOT_RAM_MAX];
	unsigned ram_count;
	gpa_t rsdp; /* 0: none */
};

struct hv_boot_chunk {
	gpa_t gpa;
	uint64_t len;
	const uint8_t *bytes; /* NULL: zeros (fresh guest RAM needs no write) */
};

/* First registers; everything not named is 0 or as after reset.  Segments are flat: code sel CS,
 * data sel DS for the others, base 0, limit 4 GiB, DPL 0, accessed; TR is a busy 32-bit TSS at base
 * 0. */
struct hv_boot_regs {
	/* CS is 64-bit code, EFER.LME|LMA, paging on; otherwise 32-bit protected, paging off */
	bool long_mode;
	uint64_t rip, rsp, rax, rbx, rsi;
	uint64_t cr0, cr3, cr4, efer;
	gpa_t gdt_base;
	uint16_t gdt_limit, cs, ds;
};

#define HV_BOOT_CHUNKS_MAX 64
#define HV_BOOT_ARENA 0xa000

struct hv_boot_plan {
	struct hv_boot_regs regs;
	unsigned chunks_count;
	struct hv_boot_chunk chunks[HV_BOOT_CHUNKS_MAX];
	/* small structures that a chunk points to: a plan is not copied */
	uint8_t arena[HV_BOOT_ARENA];
};

/* Chunks lie within RAM and do not overlap.  False: *why is static text; the plan is undefined. */
MUST_CHECK bool hv_boot_make(const struct hv_boot_input *in, struct hv_boot_plan *out,
			     const char **why);

#endif
