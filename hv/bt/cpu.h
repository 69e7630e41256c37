/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/cpu.h - one vCPU of the binary translation engine, shared by its two halves.
 *
 * What      The translator (translate, emit, cache, tlb fast path, entry stubs) runs most instructions as
 *           host instructions; the system half (mmu, seg, event, sys, msr, string, state) runs the rest in C.
 * Layout    The struct sits at the top of the vCPU's translation stack: while translated code runs, host rsp
 *           points at it, so state is [rsp + offsetof].  Hot fields come first (8-bit displacements).
 * Registers Guest GPRs live in host registers in translated code, in gpr[] while C runs.  Arithmetic flags
 *           (CF PF AF ZF SF OF) live in host flags in translated code, in rflags while C runs; all other flags
 *           are always in rflags.  x87/SSE state stays in host registers as long as fpu_live: C code that
 *           runs under it is compiled with -mgeneral-regs-only (the whole of hv/bt but engine.c and state.c).
 * Threads   The vCPU thread only, except `kick`.
 */
#ifndef HV_BT_CPU_H
#define HV_BT_CPU_H

#include "hv/engine.h"

#include <stdatomic.h>

/* Result of anything that can end an instruction early. */
enum bt_res {
	BT_OK = 0,
	BT_FAULT, /* an exception is queued in cpu->exc: deliver it, rip is still at the instruction */
	BT_MMIO,  /* the address is not RAM: gpa in cpu->mmio.gpa */
	BT_EXIT,  /* cpu->exit is filled: leave run(); the instruction is restarted or completed later */
};

/* What a system operation wants next. */
enum bt_next {
	BT_NEXT,   /* done, rip advanced to the next instruction, stay in translated code */
	BT_BRANCH, /* done, rip or mode changed: look the next block up */
	BT_AGAIN,  /* nothing done (or partly, restartable): queued exception or cpu->exit decides */
};

enum bt_access { BT_READ, BT_WRITE, BT_EXEC };

#define BT_TLB_BITS 9
#define BT_TLB_SIZE (1u << BT_TLB_BITS)
#define BT_TLB_NONE (~0ull) /* a tag that no address has */

/* Direct mapped by (va >> 12); a hit on tag means host address = va + addend. */
struct bt_tlb {
	uint64_t tag_read[BT_TLB_SIZE];
	uint64_t tag_write[BT_TLB_SIZE]; /* set only when D is set, the page may be written and holds no code */
	uint64_t addend[BT_TLB_SIZE];
	gfn_t gfn[BT_TLB_SIZE]; /* for drops */
	uint8_t flags[BT_TLB_SIZE]; /* BT_TLB_GLOBAL, size of the guest's page; C only */
};
#define BT_TLB_GLOBAL 1u /* survives mov cr3 */
#define BT_TLB_2M 2u
#define BT_TLB_BIG 4u /* 4M or 1G */

/* Code fetch: tag as above, page frame instead of a host address.  C only. */
struct bt_itlb {
	uint64_t tag[BT_TLB_SIZE];
	gfn_t gfn[BT_TLB_SIZE];
	uint8_t flags[BT_TLB_SIZE];
};

/* How bt_event_deliver treats bt_exception: */
enum bt_event_kind { BT_EVENT_FAULT, BT_EVENT_SOFT, BT_EVENT_EXTERNAL, BT_EVENT_NMI };

struct bt_exception {
	bool pending;
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint8_t kind; /* enum bt_event_kind; int n, int3, into never queue here: they deliver at once */
	uint64_t cr2;
};

struct bt_block; /* translator-private */
struct bt_vm;

/* Jump cache: guest rip -> code, for everything that is not chained by patching. */
#define BT_JC_BITS 12
#define BT_JC_SIZE (1u << BT_JC_BITS)
struct bt_jc {
	uint64_t key; /* BT_TLB_NONE: empty */
	void *code;
};

struct bt_cpu {
	/* --- hot, touched by translated code --- */
	uint64_t gpr[16];
	uint64_t rip;
	uint64_t rflags;
	_Atomic uint32_t kick; /* nonzero: leave translated code at the next block. Any thread sets. */
	uint32_t fpu_live;     /* guest x87/SSE state is in host registers */
	uint64_t scratch[8];   /* translator's own spill slots */
	uint64_t fs_base, gs_base;
	uint64_t tsc_offset;
	uint64_t host_rsp; /* of the C caller, while in translated code */
	/* translator's own */
	uint64_t jc_salt; /* key in jc[] is rip ^ jc_salt: mode and generation in bits that canonical rips share */
	uint64_t exit_pc; /* where in the code buffer translated code was left */
	uint32_t exit_kind;
	uint32_t pause_left; /* pause instructions until the thread yields */
	uint32_t pace_left;  /* cfg->pace: polls until it is due, 0: now */

	/* --- architectural state, C only --- */
	struct hv_seg seg[6];
	struct hv_seg ldt, tr;
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer;
	uint64_t dr[8];
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, tsc_aux, misc_enable, mtrr_def_type;
	uint64_t mtrr_fixed[11], mtrr_var[16]; /* storage only: memory is always write-back */
	uint64_t tsc_adjust;
	uint64_t phys_mask; /* bits of a guest-physical address, from CPUID 0x80000008 */
	uint8_t cpl;
	bool irq_shadow;  /* no interrupt before the next instruction has run (sti, mov ss, pop ss) */
	bool nmi_blocked; /* until iret */
	bool halted;
	uint8_t fx[512] __attribute__((aligned(16))); /* x87/SSE while !fpu_live, fxsave64 image */

	/* Translation mode, derived by bt_mode_update from cr0, efer, cs, ss, cpl, rflags: part of a block's key. */
	uint32_t mode;

	struct bt_exception exc;

	/* --- leaving and completing --- */
	struct hv_exit *exit; /* where run() wants the answer */
	/* *exit is filled: run() must return it.  The next run() clears this; for MMIO, PIO and MSR it stores the
	 * answer (data; fault for an MSR) below, sets ready, and restarts the instruction at rip before it looks at
	 * interrupts.  HLT and KICKED are complete, rip is past the instruction. */
	bool exit_pending;
	struct {
		bool ready;   /* data holds the monitor's answer for gpa/port/MSR of the restarted instruction */
		bool fault;   /* MSR answer: #GP(0) */
		bool write;
		uint8_t size;
		gpa_t gpa;
		uint64_t data;
	} mmio, pio, msr;
	/* An MMIO read that was answered already, kept while a later access of the same instruction exits
	 * (movs and cmps between two devices).  Void once the instruction is done or faults. */
	struct {
		bool valid;
		uint8_t size;
		gva_t va;
		uint64_t data;
	} held;
	bool irq_window; /* run() was asked to leave when an interrupt can be taken */

	struct bt_tlb tlb[2]; /* [1] user (CPL 3) accesses, [0] supervisor */
	struct bt_itlb itlb[2];
	uint64_t tlb_large[2]; /* hashes of 2M and of 1G regions that large pages were filled from */

	struct bt_jc jc[BT_JC_SIZE];
	uint8_t bounce[576] __attribute__((aligned(64))); /* operand of an access that has no one host address */

	/* --- plumbing --- */
	struct bt_vm *vm;
	const struct hv_vm_config *cfg; /* borrowed from the VM; set before bt_cpu_reset */
	unsigned id;
	struct dsm *dsm;
	uint8_t *alias; /* host address of gpa 0 */
	struct dsm_reader *reader;
	bool active; /* between dsm_reader_enter and dsm_reader_leave */
	uint64_t quiesced; /* counts leave: host pointers taken before a change are void */
	struct bt_translator *tr_state; /* translator-private */
};

/* mode bits */
#define BT_MODE_CODE16 0x00u
#define BT_MODE_CODE32 0x01u
#define BT_MODE_CODE64 0x02u
#define BT_MODE_CODE 0x03u
#define BT_MODE_USER 0x04u   /* CPL 3: which tlb */
#define BT_MODE_SS32 0x08u   /* stack address size 32 (not 16) outside 64-bit mode */
#define BT_MODE_FLAT 0x10u   /* cs, ds, es, ss have base 0 (always in 64-bit mode) */
#define BT_MODE_REAL 0x20u   /* CR0.PE = 0 or VM86 */
#define BT_MODE_TS 0x40u     /* CR0.TS or EM: x87/SSE/fwait trap */
#define BT_MODE_SINGLE 0x80u /* RFLAGS.TF: one instruction a block */

#define RFLAGS_CF 0x1u
#define RFLAGS_PF 0x4u
#define RFLAGS_AF 0x10u
#define RFLAGS_ZF 0x40u
#define RFLAGS_SF 0x80u
#define RFLAGS_TF 0x100u
#define RFLAGS_IF 0x200u
#define RFLAGS_DF 0x400u
#define RFLAGS_OF 0x800u
#define RFLAGS_IOPL 0x3000u
#define RFLAGS_NT 0x4000u
#define RFLAGS_RF 0x10000u
#define RFLAGS_VM 0x20000u
#define RFLAGS_AC 0x40000u
#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

/* --- system half -> translator --- */
/* One decoded instruction that the translator hands over; static operands resolved, pc known. */
struct bt_insn {
	uint64_t rip, next_rip;
	uint16_t mnemonic;	/* ZydisMnemonic */
	uint8_t length;
	uint8_t opsize;		/* 2, 4, 8: effective operand size in bytes */
	uint8_t addrsize;	/* 2, 4, 8 */
	uint8_t rep;		/* 0, 0xf2 repne, 0xf3 rep */
	bool lock;
	uint8_t seg;		/* enum hv_sreg of the memory operand, overrides applied (default DS or SS) */
	/* memory operand: base/index are enum hv_gpr or 0xff; rip-relative is folded into disp */
	bool has_mem;
	uint8_t base, index, scale;
	int64_t disp;
	uint8_t memsize;	/* bytes */
	/* register operands and immediates in operand order; reg: number within its class */
	uint8_t nops;
	struct {
		uint8_t kind;	/* 0 none, 1 GPR, 2 memory, 3 immediate, 4 sreg, 5 control reg, 6 debug reg, 7 far ptr */
		uint8_t reg;	/* GPR number; high byte registers ah..bh have bit 4 set with number 0..3 */
		uint8_t size;	/* bytes */
		uint64_t imm;	/* immediate sign-extended; far pointer: selector << 32 | offset */
	} op[4];
};

/* On entry c->rip == i->rip, gpr and rflags are complete, c->active.  BT_NEXT and BT_BRANCH set c->rip; BT_BRANCH is
 * also the answer when IF went from 0 to 1 or irq_shadow was set, so that the loop looks at irq_window and ends the
 * shadow after one instruction.  BT_AGAIN: exc.pending, else exit_pending, else (string op kicked) just come back. */
typedef enum bt_next (*bt_sys_fn)(struct bt_cpu *c, const struct bt_insn *i);
/* The C implementation of an instruction the translator does not run itself, NULL when there is none (#UD).
 * Mnemonics with several meanings: CALL, JMP, RET are the far ones; MOV, PUSH, POP those with a segment, control or
 * debug register (PUSH/POP of anything else and near CALL/JMP/RET are the translator's); MOVSD, CMPSD the string ones. */
bt_sys_fn bt_sys_lookup(uint16_t mnemonic);

/* Fills the TLB for va (page walk, A/D bits, DSM rights; blocks in dsm_acquire when needed) and gives the host
 * address of [va, va + size), which lies in one page.  BT_FAULT queues #PF, BT_MMIO sets mmio.gpa, BT_EXIT when
 * the VM ends.  Any host pointer taken before is void if c->quiesced changed. */
enum bt_res bt_mmu_host(struct bt_cpu *c, gva_t va, unsigned size, enum bt_access access, void **host);
/* Any size <= 16 and alignment, page crossing and MMIO included; restartable.  va is linear. */
enum bt_res bt_mem_read(struct bt_cpu *c, gva_t va, void *dst, unsigned size);
enum bt_res bt_mem_write(struct bt_cpu *c, gva_t va, const void *src, unsigned size);
/* Makes [va, va + len) (len <= 2 pages) accessible in one active period, so that following writes cannot fail. */
enum bt_res bt_mem_probe(struct bt_cpu *c, gva_t va, unsigned len, enum bt_access access);
/* va -> gpa for code fetch; page present, executable and readable here. */
enum bt_res bt_mmu_fetch(struct bt_cpu *c, gva_t va, gpa_t *out);
/* Segment-relative to linear with limit and type checks outside 64-bit mode. */
enum bt_res bt_seg_address(struct bt_cpu *c, unsigned seg, uint64_t off, unsigned size,
			   enum bt_access access, gva_t *out);
/* Linear address of the memory operand (segment base, address size); queues #GP on a non-canonical address. */
enum bt_res bt_seg_linear(struct bt_cpu *c, const struct bt_insn *i, gva_t *out);

/* One MMIO access of the current instruction, 1 2 4 8 bytes: consumes the answer (BT_OK) or exits (BT_EXIT). */
enum bt_res bt_mmio_access(struct bt_cpu *c, gpa_t gpa, unsigned size, bool write, uint64_t *data);

void bt_tlb_flush_all(struct bt_cpu *c);
void bt_tlb_flush_page(struct bt_cpu *c, gva_t va);
/* dsm_drop_fn: removes TLB entries of gfn above right; calls bt_cache_drop_gfn for DSM_NONE. */
void bt_tlb_drop(void *cpu, gfn_t gfn, enum dsm_right right);
/* Reader life around anything that blocks. */
void bt_cpu_enter(struct bt_cpu *c);
void bt_cpu_leave(struct bt_cpu *c);

void bt_exception(struct bt_cpu *c, uint8_t vector);			  /* queue, no error code */
void bt_exception_error(struct bt_cpu *c, uint8_t vector, uint32_t error);
void bt_page_fault(struct bt_cpu *c, gva_t va, uint32_t error);
/* Delivers the queued exception / an external interrupt / NMI through IVT or IDT.  BT_OK, or BT_EXIT with
 * HV_EXIT_SHUTDOWN on a triple fault (double faults are handled inside). */
enum bt_res bt_event_deliver(struct bt_cpu *c);
enum bt_res bt_event_interrupt(struct bt_cpu *c, uint8_t vector, bool nmi);
/* Recomputes c->mode after any change of cr0, efer, cs, ds, es, ss, cpl, rflags.TF. */
void bt_mode_update(struct bt_cpu *c);
/* #DB of single step: call after an instruction that ran with BT_MODE_SINGLE. */
void bt_debug_step(struct bt_cpu *c);
/* Fills *c->exit with a reason that carries nothing else and sets exit_pending. */
void bt_exit(struct bt_cpu *c, enum hv_exit_reason reason);

/* --- state.c: not under live FPU state --- */
void bt_cpu_reset(struct bt_cpu *c); /* INIT/reset state; cfg and id are set; flushes the TLB */
void bt_state_get(struct bt_cpu *c, struct hv_cpu_state *out); /* parked, between instructions */
MUST_CHECK int bt_state_set(struct bt_cpu *c, const struct hv_cpu_state *in);

/* --- translator -> system half --- */
/* Saves live x87/SSE state into c->fx and clears fpu_live; nothing to do when not live.  Before anything that may
 * use host FPU registers: calls into other components above all. */
void bt_fpu_park(struct bt_cpu *c);
/* The reverse: loads c->fx into the host registers and sets fpu_live; nothing to do when live. */
void bt_fpu_load(struct bt_cpu *c);
/* Virtual mappings changed (cr3, invlpg, mode): forget virtual lookups of one page or of all. */
void bt_cache_forget_va(struct bt_cpu *c, gva_t va);
void bt_cache_forget_all(struct bt_cpu *c);
/* Bytes of gfn changed or are gone: drop this vCPU's translations made from it. */
void bt_cache_drop_gfn(struct bt_cpu *c, gfn_t gfn);
/* True when some vCPU of this slice has translations from gfn: no write TLB entry may be made. */
bool bt_cache_gfn_has_code(struct bt_cpu *c, gfn_t gfn);
/* A write to a page that has code: drops the translations of all vCPUs of the slice that overlap it. */
void bt_cache_wrote(struct bt_cpu *c, gpa_t gpa, unsigned len);

#endif
