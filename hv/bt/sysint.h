/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/sysint.h - what the files of the bt engine's system half share; not for the translator.
 *
 * Threads   The vCPU thread.
 * Limits    Runs under live guest FPU state: no libc, no SSE, no large struct copies.
 */
#ifndef HV_BT_SYSINT_H
#define HV_BT_SYSINT_H

#include "base/clock.h"
#include "hv/bt/cpu.h"

/* --- vectors and control bits --- */
/* clang-format off */
enum {
	EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7,
	EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16,
	EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};
/* clang-format on */

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_EM 0x4ull
#define CR0_TS 0x8ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_AM 0x40000ull
#define CR0_NW 0x20000000ull
#define CR0_CD 0x40000000ull
#define CR0_PG 0x80000000ull

#define CR4_VME 0x1ull
#define CR4_PVI 0x2ull
#define CR4_TSD 0x4ull
#define CR4_DE 0x8ull
#define CR4_PSE 0x10ull
#define CR4_PAE 0x20ull
#define CR4_MCE 0x40ull
#define CR4_PGE 0x80ull
#define CR4_PCE 0x100ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMM 0x400ull
#define CR4_FSGSBASE 0x10000ull

#define EFER_SCE 0x1ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define EFER_NXE 0x800ull

#define RFLAGS_FIXED 0x2u
#define RFLAGS_VIF 0x80000u
#define RFLAGS_VIP 0x100000u
#define RFLAGS_ID 0x200000u
#define RFLAGS_ALL 0x3f7fd7u /* every defined flag and the fixed bit 1 */

/* hv_seg.attr */
#define ATTR_TYPE 0xfu
#define ATTR_S 0x10u
#define ATTR_DPL_SHIFT 5
#define ATTR_P 0x80u
#define ATTR_L 0x2000u
#define ATTR_DB 0x4000u
#define ATTR_G 0x8000u
/* type bits of code and data descriptors */
#define TYPE_ACCESSED 0x1u
#define TYPE_RW 0x2u /* data: writable; code: readable */
#define TYPE_CE 0x4u /* data: expand-down; code: conforming */
#define TYPE_CODE 0x8u
/* system types */
#define SYS_TSS16 0x1u
#define SYS_LDT 0x2u
#define SYS_TSS16_BUSY 0x3u
#define SYS_CALL16 0x4u
#define SYS_TASK 0x5u
#define SYS_INT16 0x6u
#define SYS_TRAP16 0x7u
#define SYS_TSS 0x9u
#define SYS_TSS_BUSY 0xbu
#define SYS_CALL 0xcu
#define SYS_INT 0xeu
#define SYS_TRAP 0xfu

#define PF_P 0x1u
#define PF_W 0x2u
#define PF_U 0x4u
#define PF_RSVD 0x8u
#define PF_I 0x10u

static inline bool cpu_lma(const struct bt_cpu *c)
{
	return c->efer & EFER_LMA;
}
static inline bool cpu_code64(const struct bt_cpu *c)
{
	return (c->mode & BT_MODE_CODE) == BT_MODE_CODE64;
}
static inline bool cpu_real(const struct bt_cpu *c)
{
	return c->mode & BT_MODE_REAL;
}
static inline bool va_canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}
static inline unsigned cpu_iopl(const struct bt_cpu *c)
{
	return (c->rflags & RFLAGS_IOPL) >> 12;
}
static inline uint64_t size_mask(unsigned size)
{
	return size >= 8 ? ~0ull : (1ull << (8 * size)) - 1;
}
static inline unsigned seg_type(const struct hv_seg *s)
{
	return s->attr & ATTR_TYPE;
}
static inline unsigned seg_dpl(const struct hv_seg *s)
{
	return (s->attr >> ATTR_DPL_SHIFT) & 3;
}

/* --- small copies and registers --- */
static inline uint64_t load_le(const void *p, unsigned size)
{
	uint64_t v = 0;

	switch (size) {
	case 1:
		return *(const uint8_t *)p;
	case 2: {
		uint16_t w;
		__builtin_memcpy(&w, p, 2);
		return w;
	}
	case 4: {
		uint32_t w;
		__builtin_memcpy(&w, p, 4);
		return w;
	}
	default:
		__builtin_memcpy(&v, p, 8);
		return v;
	}
}

static inline void store_le(void *p, uint64_t v, unsigned size)
{
	switch (size) {
	case 1:
		*(uint8_t *)p = (uint8_t)v;
		break;
	case 2: {
		uint16_t w = (uint16_t)v;
		__builtin_memcpy(p, &w, 2);
		break;
	}
	case 4: {
		uint32_t w = (uint32_t)v;
		__builtin_memcpy(p, &w, 4);
		break;
	}
	default:
		__builtin_memcpy(p, &v, 8);
		break;
	}
}

/* One access where the size allows one, as the guest's own instruction would have it. */
static inline void copy_bytes(void *dst, const void *src, unsigned len)
{
	if (len == 1 || len == 2 || len == 4 || len == 8) {
		store_le(dst, load_le(src, len), len);
		return;
	}
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

static inline void fill_bytes(void *dst, uint8_t v, uint64_t len)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(len) : "a"(v) : "memory");
}

/* reg as in bt_insn.op: bit 4 set means ah, ch, dh, bh. */
static inline uint64_t reg_read(const struct bt_cpu *c, unsigned reg, unsigned size)
{
	if (reg & 0x10)
		return (c->gpr[reg & 3] >> 8) & 0xff;
	return c->gpr[reg & 15] & size_mask(size);
}

static inline void reg_write(struct bt_cpu *c, unsigned reg, uint64_t v, unsigned size)
{
	uint64_t *r = &c->gpr[reg & (reg & 0x10 ? 3 : 15)];

	if (reg & 0x10)
		*r = (*r & ~0xff00ull) | (v & 0xff) << 8;
	else if (size >= 4)
		*r = v & size_mask(size);
	else
		*r = (*r & ~size_mask(size)) | (v & size_mask(size));
}

/* --- how an instruction ends --- */
static inline enum bt_next next_insn(struct bt_cpu *c, const struct bt_insn *i)
{
	c->rip = i->next_rip;
	return BT_NEXT;
}

static inline enum bt_next branch_insn(struct bt_cpu *c, const struct bt_insn *i)
{
	c->rip = i->next_rip;
	return BT_BRANCH;
}

static inline enum bt_next fault(struct bt_cpu *c, uint8_t vector)
{
	bt_exception(c, vector);
	return BT_AGAIN;
}

static inline enum bt_next fault_error(struct bt_cpu *c, uint8_t vector, uint32_t error)
{
	bt_exception_error(c, vector, error);
	return BT_AGAIN;
}

static inline enum bt_next fault_gp0(struct bt_cpu *c)
{
	return fault_error(c, EXC_GP, 0);
}

/* Queues an exception with an error code and is BT_FAULT. */
static inline enum bt_res res_fault(struct bt_cpu *c, uint8_t vector, uint32_t error)
{
	bt_exception_error(c, vector, error);
	return BT_FAULT;
}

/* --- mmu.c --- */
enum {
	AS_USER = 1,   /* with CPL 3 rights; else supervisor, whatever the CPL */
	AS_SILENT = 2, /* outside RAM: reads give ones and writes vanish, instead of an MMIO exit */
	AS_STACK = 4,  /* a non-canonical address is #SS, not #GP */
};
#define AS_SYSTEM AS_SILENT /* descriptor tables, TSS: implicit supervisor accesses */
static inline unsigned as_current(const struct bt_cpu *c)
{
	return c->cpl == 3 ? AS_USER : 0;
}

struct mmu_ref {
	uint8_t *host; /* NULL: not RAM */
	gpa_t gpa;
	bool code; /* a write must be told to bt_cache_wrote */
};
/* One page's worth; BT_OK also for MMIO (host NULL).  Valid while c->quiesced stands. */
enum bt_res bt_mmu_ref(struct bt_cpu *c, gva_t va, enum bt_access access, unsigned as,
		       struct mmu_ref *r);
enum bt_res bt_mem_read_as(struct bt_cpu *c, gva_t va, void *dst, unsigned size, unsigned as);
enum bt_res bt_mem_write_as(struct bt_cpu *c, gva_t va, const void *src, unsigned size,
			    unsigned as);
enum bt_res bt_mem_probe_as(struct bt_cpu *c, gva_t va, unsigned len, enum bt_access access,
			    unsigned as);
/* Sets bits in a byte of a descriptor with a locked or. */
enum bt_res bt_mem_or8(struct bt_cpu *c, gva_t va, uint8_t bits, unsigned as);
/* Makes sure `right` on a RAM page while active.  BT_OK; or BT_EXIT; *again set when it had to be
 * fetched. */
enum bt_res bt_mmu_right(struct bt_cpu *c, gfn_t gfn, enum dsm_right right, bool *again);

/* --- tlb.c --- */
void bt_tlb_flush_nonglobal(struct bt_cpu *c);
/* invlpg: true when va may lie in a large page, of which all was dropped. */
bool bt_tlb_flush_va(struct bt_cpu *c, gva_t va);
/* What a walk found out about one 4K page. */
struct mmu_map {
	gfn_t gfn;
	bool writable; /* for the privilege that asked, D set; to fill: held for writing here, no
			  code */
	uint8_t flags; /* BT_TLB_* */
};
void bt_tlb_fill(struct bt_cpu *c, gva_t page, bool user, const struct mmu_map *m);
void bt_itlb_fill(struct bt_cpu *c, gva_t page, bool user, const struct mmu_map *m);

static inline unsigned tlb_index(gva_t va)
{
	return (va >> PAGE_SHIFT) & (BT_TLB_SIZE - 1);
}

/* --- seg.c --- */
struct desc {
	uint64_t raw;
	uint64_t high; /* second half of 16-byte system descriptors */
	gva_t addr;
};
static inline uint16_t desc_attr(const struct desc *d)
{
	return (d->raw >> 40) & 0xf0ff;
}
static inline unsigned desc_type(const struct desc *d)
{
	return (d->raw >> 40) & 0xf;
}
static inline bool desc_s(const struct desc *d)
{
	return (d->raw >> 44) & 1;
}
static inline unsigned desc_dpl(const struct desc *d)
{
	return (d->raw >> 45) & 3;
}
static inline bool desc_p(const struct desc *d)
{
	return (d->raw >> 47) & 1;
}
static inline bool desc_l(const struct desc *d)
{
	return (d->raw >> 53) & 1;
}
static inline bool desc_db(const struct desc *d)
{
	return (d->raw >> 54) & 1;
}
static inline bool desc_code(const struct desc *d)
{
	return desc_s(d) && (desc_type(d) & TYPE_CODE);
}
static inline bool desc_data(const struct desc *d)
{
	return desc_s(d) && !(desc_type(d) & TYPE_CODE);
}
static inline bool desc_conforming(const struct desc *d)
{
	return desc_type(d) & TYPE_CE;
}
uint64_t desc_base(const struct desc *d);
uint32_t desc_limit(const struct desc *d);

/* Reads the descriptor of a non-null selector; outside its table: `vector`(sel & ~3 | ext). */
enum bt_res bt_desc_read(struct bt_cpu *c, uint16_t sel, uint8_t vector, unsigned ext,
			 struct desc *d);
/* Reads the upper half (call gates, LDT and TSS in long mode). */
enum bt_res bt_desc_read_high(struct bt_cpu *c, uint16_t sel, uint8_t vector, struct desc *d);
enum bt_res bt_desc_mark_accessed(struct bt_cpu *c, struct desc *d);
void bt_seg_from_desc(struct hv_seg *s, uint16_t sel, const struct desc *d);
/* Writes seg[which] and the hot copy of its base. */
void bt_seg_set(struct bt_cpu *c, enum hv_sreg which, const struct hv_seg *s);
void bt_seg_null(struct bt_cpu *c, enum hv_sreg which, uint16_t sel);
/* Loads a selector with all checks of a mov to a segment register (not CS). */
enum bt_res bt_seg_load(struct bt_cpu *c, enum hv_sreg which, uint16_t sel);
/* SS for a stack of privilege cpl: checks as for iret and far ret (`vector` is #GP or #TS), fills
 * *out. */
enum bt_res bt_seg_check_ss(struct bt_cpu *c, uint16_t sel, unsigned cpl, uint8_t vector,
			    unsigned ext, struct hv_seg *out);
/* The checks of that alone; not for 64-bit mode. */
bool bt_seg_inside(const struct bt_cpu *c, unsigned seg, uint64_t off, unsigned size,
		   enum bt_access access);
/* Effective address of the memory operand, before the segment. */
uint64_t bt_insn_ea(const struct bt_cpu *c, const struct bt_insn *i);
/* Reads or writes operand n: register, immediate or memory. */
enum bt_res bt_op_read(struct bt_cpu *c, const struct bt_insn *i, unsigned n, unsigned size,
		       uint64_t *v);
enum bt_res bt_op_write(struct bt_cpu *c, const struct bt_insn *i, unsigned n, unsigned size,
			uint64_t v);
/* Memory operand at a byte offset. */
enum bt_res bt_insn_mem(struct bt_cpu *c, const struct bt_insn *i, unsigned at, unsigned size,
			enum bt_access access, gva_t *out);

/* --- stack.c --- */
/* A stack that may not be the current one; pushes are collected and written at once. */
struct stack {
	struct hv_seg ss; /* base, limit, attr: not looked at when flat */
	bool flat;        /* 64-bit: no base, no limit */
	uint64_t mask;    /* of the stack pointer */
	uint64_t sp;
	unsigned as;
	uint32_t ss_error; /* error code of #SS */
	unsigned n;
	uint64_t val[64];
};
void bt_stack_current(const struct bt_cpu *c, struct stack *s);
static inline void stack_push(struct stack *s, uint64_t v)
{
	s->val[s->n++] = v;
}
/* Writes all collected values, `size` bytes each, or none of them; s->sp is the new pointer. */
enum bt_res bt_stack_commit(struct bt_cpu *c, struct stack *s, unsigned size);
/* Reads n values upwards from s->sp, which moves. */
enum bt_res bt_stack_pop(struct bt_cpu *c, struct stack *s, unsigned size, uint64_t *v, unsigned n);
/* Puts s->sp into rsp, as wide as the stack is. */
void bt_stack_store_sp(struct bt_cpu *c, const struct stack *s);

/* --- far.c --- */
/* Stack for entering privilege `cpl` from the TSS (not IST).  64-bit: *ss is null. */
enum bt_res bt_tss_stack(struct bt_cpu *c, unsigned cpl, unsigned ext, struct hv_seg *ss,
			 uint64_t *sp);
enum bt_res bt_tss_ist(struct bt_cpu *c, unsigned ist, unsigned ext, uint64_t *sp);

/* --- event.c --- */
/* int n, int3, into, int1: delivers at once; the saved rip is `next`. */
enum bt_res bt_event_soft(struct bt_cpu *c, uint8_t vector, uint64_t next, bool check_dpl);

/* --- control.c --- */
uint64_t bt_cr4_allowed(const struct bt_cpu *c);

/* --- sys.c --- */
/* IF may have become set, TF, or the mode changed: what the instruction answers. */
enum bt_next bt_flags_changed(struct bt_cpu *c, uint64_t old);
void bt_cpuid(const struct bt_cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
bool bt_cpuid_has(const struct bt_cpu *c, uint32_t leaf, unsigned reg, unsigned bit);

/* Element size of a string or ins/outs mnemonic. */
unsigned bt_string_size(uint16_t mnemonic);
/* The guest's TSC, not read before earlier loads are done. */
static inline uint64_t bt_tsc(const struct bt_cpu *c)
{
	return clock_tsc() + c->tsc_offset;
}

#define SYS_FN(name) enum bt_next name(struct bt_cpu *c, const struct bt_insn *i)

/* clang-format off */
/* seg.c, segops.c */
SYS_FN(bt_sys_mov); SYS_FN(bt_sys_push); SYS_FN(bt_sys_pop);
SYS_FN(bt_sys_lds); SYS_FN(bt_sys_les); SYS_FN(bt_sys_lfs); SYS_FN(bt_sys_lgs); SYS_FN(bt_sys_lss);
SYS_FN(bt_sys_lldt); SYS_FN(bt_sys_ltr); SYS_FN(bt_sys_sldt); SYS_FN(bt_sys_str);
SYS_FN(bt_sys_lar); SYS_FN(bt_sys_lsl); SYS_FN(bt_sys_verr); SYS_FN(bt_sys_verw); SYS_FN(bt_sys_arpl);
SYS_FN(bt_sys_rdfsbase); SYS_FN(bt_sys_rdgsbase); SYS_FN(bt_sys_wrfsbase); SYS_FN(bt_sys_wrgsbase);
SYS_FN(bt_sys_swapgs);
/* far.c, syscall.c */
SYS_FN(bt_sys_far_jmp); SYS_FN(bt_sys_far_call); SYS_FN(bt_sys_far_ret); SYS_FN(bt_sys_iret);
SYS_FN(bt_sys_int); SYS_FN(bt_sys_int3); SYS_FN(bt_sys_into); SYS_FN(bt_sys_int1);
SYS_FN(bt_sys_syscall); SYS_FN(bt_sys_sysret); SYS_FN(bt_sys_sysenter); SYS_FN(bt_sys_sysexit);
/* sys.c, control.c */
SYS_FN(bt_sys_mov_cr); SYS_FN(bt_sys_mov_dr); SYS_FN(bt_sys_lmsw); SYS_FN(bt_sys_smsw); SYS_FN(bt_sys_clts);
SYS_FN(bt_sys_lgdt); SYS_FN(bt_sys_lidt); SYS_FN(bt_sys_sgdt); SYS_FN(bt_sys_sidt);
SYS_FN(bt_sys_invlpg); SYS_FN(bt_sys_wbinvd); SYS_FN(bt_sys_hlt); SYS_FN(bt_sys_cli); SYS_FN(bt_sys_sti);
SYS_FN(bt_sys_pushf); SYS_FN(bt_sys_popf); SYS_FN(bt_sys_cpuid); SYS_FN(bt_sys_rdtsc); SYS_FN(bt_sys_rdtscp);
SYS_FN(bt_sys_rdpmc); SYS_FN(bt_sys_fxsave); SYS_FN(bt_sys_fxrstor);
/* msr.c */
SYS_FN(bt_sys_rdmsr); SYS_FN(bt_sys_wrmsr);
/* pio.c */
SYS_FN(bt_sys_in); SYS_FN(bt_sys_out); SYS_FN(bt_sys_ins); SYS_FN(bt_sys_outs);
/* string.c */
SYS_FN(bt_sys_movs); SYS_FN(bt_sys_stos); SYS_FN(bt_sys_lods); SYS_FN(bt_sys_scas); SYS_FN(bt_sys_cmps);
/* legacy.c */
SYS_FN(bt_sys_enter); SYS_FN(bt_sys_leave); SYS_FN(bt_sys_pusha); SYS_FN(bt_sys_popa); SYS_FN(bt_sys_bound);
SYS_FN(bt_sys_daa); SYS_FN(bt_sys_das); SYS_FN(bt_sys_aaa); SYS_FN(bt_sys_aas); SYS_FN(bt_sys_aam);
SYS_FN(bt_sys_aad); SYS_FN(bt_sys_xlat); SYS_FN(bt_sys_salc); SYS_FN(bt_sys_lahf); SYS_FN(bt_sys_sahf);
/* clang-format on */

#endif
