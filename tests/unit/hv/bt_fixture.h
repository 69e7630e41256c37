/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/hv/bt_fixture.h - one bt_cpu over a small array of RAM, without DSM and translator.
 *
 * What      Doubles of every function of those two that the system half calls; rights are an array
 * that tests set, and dsm_acquire may take another page away at the same time. Limits    Included
 * by exactly one file of a test program: it defines functions.
 */
#ifndef TESTS_BT_FIXTURE_H
#define TESTS_BT_FIXTURE_H

#include "hv/bt/sysint.h"

#include <Zydis/Zydis.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define FX_PAGES 2048u
#define FX_RAM (FX_PAGES * (uint64_t)PAGE_SIZE)

static struct {
	struct bt_cpu *c;
	struct hv_exit exit;
	struct hv_vm_config cfg;
	uint8_t *ram;
	uint8_t right[FX_PAGES];
	bool code[FX_PAGES];
	unsigned acquired[FX_PAGES][3]; /* by right */
	unsigned acquires;
	/* when `steal_for` is acquired, `stolen` is lost, `steals` times */
	gfn_t steal_for, stolen;
	unsigned steals;
	bool lost;
	gfn_t posted[8];
	unsigned nposted;
	unsigned forget_all, forget_va, dropped, wrote;
	gpa_t wrote_gpa;
	unsigned wrote_len;
	gpa_t next_table;
} fx;

/* --- doubles --- */
enum dsm_right dsm_reader_right(struct dsm_reader *r, gfn_t gfn)
{
	(void)r;
	cr_assert(fx.c->active, "rights are looked at only while active");
	return gfn < FX_PAGES ? fx.right[gfn] : DSM_NONE;
}

bool dsm_is_ram(const struct dsm *d, gfn_t gfn)
{
	(void)d;
	return gfn < FX_PAGES;
}

int dsm_acquire(struct dsm *d, gfn_t gfn, enum dsm_right right, uint64_t deadline_ns)
{
	(void)d;
	(void)deadline_ns;
	cr_assert(!fx.c->active, "acquire blocks: the reader must have left");
	cr_assert_lt(gfn, FX_PAGES);
	if (fx.lost)
		return -EPIPE;
	fx.acquires++;
	fx.acquired[gfn][right]++;
	fx.right[gfn] = right;
	if (fx.steals && gfn == fx.steal_for) {
		fx.steals--;
		fx.right[fx.stolen] = DSM_NONE;
		fx.posted[fx.nposted++] = fx.stolen;
	}
	return 0;
}

void dsm_reader_enter(struct dsm_reader *r, dsm_drop_fn drop, void *arg)
{
	(void)r;
	while (fx.nposted) {
		fx.nposted--;
		drop(arg, fx.posted[fx.nposted], fx.right[fx.posted[fx.nposted]]);
	}
}

void dsm_reader_leave(struct dsm_reader *r)
{
	(void)r;
}

void bt_cache_forget_va(struct bt_cpu *c, gva_t va)
{
	(void)c;
	(void)va;
	fx.forget_va++;
}
void bt_cache_forget_all(struct bt_cpu *c)
{
	(void)c;
	fx.forget_all++;
}
void bt_cache_drop_gfn(struct bt_cpu *c, gfn_t gfn)
{
	(void)c;
	(void)gfn;
	fx.dropped++;
}
bool bt_cache_gfn_has_code(struct bt_cpu *c, gfn_t gfn)
{
	(void)c;
	return gfn < FX_PAGES && fx.code[gfn];
}
void bt_cache_wrote(struct bt_cpu *c, gpa_t gpa, unsigned len)
{
	(void)c;
	fx.wrote++;
	fx.wrote_gpa = gpa;
	fx.wrote_len = len;
}
void bt_fpu_park(struct bt_cpu *c)
{
	if (c->fpu_live)
		__asm__ volatile("fxsave64 %0" : "=m"(c->fx));
	c->fpu_live = 0;
}
void bt_fpu_load(struct bt_cpu *c)
{
	if (!c->fpu_live)
		__asm__ volatile("fxrstor64 %0" : : "m"(c->fx));
	c->fpu_live = 1;
}

/* --- building --- */
static const struct hv_cpuid_entry fx_cpuid[] = {
	{ .leaf = 0, .eax = 0xd },
	{ .leaf = 1, .eax = 0x00800f12, .ebx = 0x00010800, .ecx = 0x81982203, .edx = 0x178bfbff },
	{ .leaf = 7, .subleaf = 0, .by_subleaf = true },
	{ .leaf = 0xb, .subleaf = 0, .by_subleaf = true, .ecx = 0x100, .ebx = 1 },
	{ .leaf = 0x80000000, .eax = 0x80000008 },
	{ .leaf = 0x80000001, .edx = 0x2c100800 }, /* long mode, rdtscp, 1G pages, nx, syscall */
	{ .leaf = 0x80000008, .eax = 0x3028 },     /* 40 address bits */
};

static inline struct bt_cpu *fx_cpu(void)
{
	struct bt_cpu *c;

	if (fx.ram)
		return fx.c;
	fx.ram = aligned_alloc(PAGE_SIZE, FX_RAM);
	c = aligned_alloc(64, (sizeof(*c) + 63) & ~63ull);
	memset(fx.ram, 0, FX_RAM);
	memset(c, 0, sizeof(*c));
	memset(fx.right, DSM_WRITE, sizeof(fx.right));
	fx.cfg.cpuid = fx_cpuid;
	fx.cfg.cpuid_count = ARRAY_LEN(fx_cpuid);
	fx.c = c;
	c->cfg = &fx.cfg;
	c->id = 5;
	c->alias = fx.ram;
	c->exit = &fx.exit;
	bt_cpu_reset(c);
	bt_cpu_enter(c);
	return c;
}

static inline uint64_t ram64(gpa_t at)
{
	uint64_t v;

	memcpy(&v, fx.ram + at, 8);
	return v;
}
static inline uint32_t ram32(gpa_t at)
{
	uint32_t v;

	memcpy(&v, fx.ram + at, 4);
	return v;
}
static inline void put64(gpa_t at, uint64_t v)
{
	memcpy(fx.ram + at, &v, 8);
}
static inline void put32(gpa_t at, uint32_t v)
{
	memcpy(fx.ram + at, &v, 4);
}
static inline void put16(gpa_t at, uint16_t v)
{
	memcpy(fx.ram + at, &v, 2);
}

#define PT_P 1ull
#define PT_W 2ull
#define PT_U 4ull
#define PT_A 0x20ull
#define PT_D 0x40ull
#define PT_PS 0x80ull
#define PT_G 0x100ull
#define PT_NX (1ull << 63)

#define FX_ROOT 0x10000u

/* Address of the entry that maps va at `level` (1: 4K), tables above it are made. */
static inline gpa_t fx_pte(gva_t va, unsigned level)
{
	gpa_t table = FX_ROOT;

	for (unsigned l = 4; l > level; l--) {
		gpa_t at = table + ((va >> (12 + 9 * (l - 1))) & 511) * 8;

		if (!(ram64(at) & PT_P)) {
			fx.next_table += PAGE_SIZE;
			put64(at, (FX_ROOT + fx.next_table) | PT_P | PT_W | PT_U | PT_A);
		}
		table = ram64(at) & 0x000ffffffffff000ull;
	}
	return table + ((va >> (12 + 9 * (level - 1))) & 511) * 8;
}

static inline gpa_t fx_map(gva_t va, gpa_t gpa, uint64_t flags)
{
	gpa_t at = fx_pte(va, 1);

	put64(at, gpa | PT_P | flags);
	return at;
}

/* Tables of the long mode fixture, identity-mapped in supervisor pages. */
#define FX_GDT 0x100000u
#define FX_IDT 0x101000u
#define FX_TSS 0x102000u
#define FX_STACK0 0x110000u /* top of RSP0's page */
#define FX_IST1 0x112000u
#define FX_USTACK 0x120000u
#define FX_DATA 0x130000u /* user and supervisor, writable, 32 pages */

enum {
	SEL_K64 = 0x08,
	SEL_KDATA = 0x10,
	SEL_U32 = 0x18,
	SEL_UDATA = 0x20,
	SEL_U64 = 0x28,
	SEL_K32 = 0x30,
	SEL_TSS = 0x40,
	SEL_LDT = 0x50,
	SEL_NP = 0x60,
	SEL_RODATA = 0x68,
	SEL_FREE = 0x70
};

#define DESC_K64 0x00af9b000000ffffull
#define DESC_K32 0x00cf9b000000ffffull
#define DESC_KDATA 0x00cf93000000ffffull
#define DESC_U32 0x00cffb000000ffffull
#define DESC_UDATA 0x00cff3000000ffffull
#define DESC_U64 0x00affb000000ffffull

static inline void fx_seg(struct bt_cpu *c, enum hv_sreg which, uint16_t sel)
{
	struct desc d = { .raw = ram64(FX_GDT + (sel & ~7u)) };
	struct hv_seg s;

	bt_seg_from_desc(&s, sel, &d);
	bt_seg_set(c, which, &s);
}

/* CPL 0 or 3. */
static inline void fx_ring(struct bt_cpu *c, unsigned cpl, uint16_t cs)
{
	c->cpl = (uint8_t)cpl;
	fx_seg(c, HV_CS, (uint16_t)(cs | cpl));
	fx_seg(c, HV_SS, cpl == 3 ? SEL_UDATA | 3 : SEL_KDATA);
	bt_mode_update(c);
}

static inline void fx_gate64(unsigned vector, uint16_t sel, uint64_t off, unsigned type,
			     unsigned dpl, unsigned ist)
{
	put64(FX_IDT + 16 * vector, (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 |
					    (uint64_t)(0x80 | dpl << 5 | type) << 40 |
					    (off >> 16 & 0xffff) << 48);
	put64(FX_IDT + 16 * vector + 8, off >> 32);
}

static inline void fx_gdt(void)
{
	put64(FX_GDT + SEL_K64, DESC_K64);
	put64(FX_GDT + SEL_KDATA, DESC_KDATA);
	put64(FX_GDT + SEL_U32, DESC_U32);
	put64(FX_GDT + SEL_UDATA, DESC_UDATA);
	put64(FX_GDT + SEL_U64, DESC_U64);
	put64(FX_GDT + SEL_K32, DESC_K32);
	put64(FX_GDT + SEL_TSS, 0x0000890000000067ull | (uint64_t)FX_TSS << 16);
	put64(FX_GDT + SEL_LDT, 0x0000820000000fffull | 0x3000ull << 16);
	put64(FX_GDT + SEL_NP, DESC_UDATA & ~(1ull << 47));
	put64(FX_GDT + SEL_RODATA, 0x00cff1000000ffffull);
}

/* 64-bit mode, CPL 0, everything below 2 MiB identity-mapped for the supervisor, FX_DATA also for
 * the user. */
static inline struct bt_cpu *fx_long(void)
{
	struct bt_cpu *c = fx_cpu();

	for (gpa_t a = 0; a < 0x200000; a += PAGE_SIZE)
		fx_map(a, a,
		       PT_W | PT_A | PT_D |
			       (a >= FX_DATA || (a >> 12) == (FX_USTACK - 1) >> 12 ? PT_U : 0));
	fx_gdt();
	c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET | CR0_NE;
	c->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMM;
	c->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	c->cr3 = FX_ROOT;
	c->gdt_base = FX_GDT;
	c->gdt_limit = 0x7f;
	c->idt_base = FX_IDT;
	c->idt_limit = 0xfff;
	c->tr = (struct hv_seg){ .base = FX_TSS, .limit = 0x67, .sel = SEL_TSS, .attr = 0x8b };
	put64(FX_TSS + 4, FX_STACK0);
	put64(FX_TSS + 0x24, FX_IST1);
	for (unsigned k = 0; k < 6; k++)
		fx_seg(c, k, SEL_KDATA);
	fx_ring(c, 0, SEL_K64);
	c->gpr[HV_RSP] = FX_STACK0 - 0x100;
	c->rip = 0x5000;
	bt_tlb_flush_all(c);
	return c;
}

/* 32-bit protected mode, flat, no paging, CPL 0. */
static inline struct bt_cpu *fx_protected(void)
{
	struct bt_cpu *c = fx_cpu();

	fx_gdt();
	c->cr0 = CR0_PE | CR0_ET;
	c->gdt_base = FX_GDT;
	c->gdt_limit = 0x7f;
	c->idt_base = FX_IDT;
	c->idt_limit = 0x7ff;
	c->tr = (struct hv_seg){ .base = FX_TSS, .limit = 0x67, .sel = SEL_TSS, .attr = 0x8b };
	put32(FX_TSS + 4, FX_STACK0);
	put32(FX_TSS + 8, SEL_KDATA);
	for (unsigned k = 0; k < 6; k++)
		fx_seg(c, k, SEL_KDATA);
	fx_ring(c, 0, SEL_K32);
	c->gpr[HV_RSP] = FX_STACK0 - 0x100;
	c->rip = 0x5000;
	return c;
}

/* --- instructions --- */
static inline struct bt_insn fx_insn(uint16_t mnemonic, unsigned opsize)
{
	struct bt_cpu *c = fx.c;

	return (struct bt_insn){ .rip = c->rip,
				 .next_rip = c->rip + 3,
				 .mnemonic = mnemonic,
				 .length = 3,
				 .opsize = (uint8_t)opsize,
				 .addrsize = cpu_code64(c) ? 8 : 4,
				 .seg = HV_DS,
				 .base = 0xff,
				 .index = 0xff };
}

static inline void fx_op(struct bt_insn *i, unsigned kind, unsigned reg, unsigned size,
			 uint64_t imm)
{
	i->op[i->nops].kind = (uint8_t)kind;
	i->op[i->nops].reg = (uint8_t)reg;
	i->op[i->nops].size = (uint8_t)size;
	i->op[i->nops].imm = imm;
	i->nops++;
}

static inline void fx_mem(struct bt_insn *i, uint64_t disp, unsigned size)
{
	i->has_mem = true;
	i->disp = (int64_t)disp;
	i->memsize = (uint8_t)size;
	fx_op(i, 2, 0, size, 0);
}

static inline enum bt_next fx_run(const struct bt_insn *i)
{
	bt_sys_fn fn = bt_sys_lookup(i->mnemonic);

	cr_assert_not_null(fn);
	return fn(fx.c, i);
}

/* Expects and takes away a queued exception. */
#define fx_expect_fault(vec, err)                                                             \
	do {                                                                                  \
		cr_assert(fx.c->exc.pending);                                                 \
		cr_assert_eq(fx.c->exc.vector, (vec), "vector %u", fx.c->exc.vector);         \
		cr_assert(fx.c->exc.has_error);                                               \
		cr_assert_eq(fx.c->exc.error, (uint32_t)(err), "error %#x", fx.c->exc.error); \
		fx.c->exc.pending = false;                                                    \
	} while (0)
#define fx_expect_plain_fault(vec)                                                    \
	do {                                                                          \
		cr_assert(fx.c->exc.pending);                                         \
		cr_assert_eq(fx.c->exc.vector, (vec), "vector %u", fx.c->exc.vector); \
		cr_assert(!fx.c->exc.has_error);                                      \
		fx.c->exc.pending = false;                                            \
	} while (0)

#endif
