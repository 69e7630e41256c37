/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/tr.h - what the files of the bt engine's translator share.
 *
 * What      One translator with one code buffer per vCPU; blocks, their links and the decoded instructions of
 *           the block under translation.
 * Registers In translated code host rsp is &bt_cpu, guest rsp is host r15, guest r10 r11 r14 r15 are in
 *           cpu->gpr[], host r10 r11 r14 are scratch (S0 S1 S2), everything else is itself.
 * Flags     At a block's entry and at its exits the guest's arithmetic flags are either in host flags ("F") or
 *           in cpu->scratch[SLOT_FLAGS] ("M", as lahf and seto give them); each block has an entry for both.
 * Threads   The vCPU thread; bt_vm as noted.
 */
#ifndef HV_BT_TR_H
#define HV_BT_TR_H

#include "hv/bt/cpu.h"
#include "hv/bt/emit.h"

#include <Zydis/Zydis.h>
#include <pthread.h>

#define TR_CODE_SIZE (48u << 20)
#define TR_BLOCKS (256u << 10)
#define TR_MARKS (3u << 20)
#define TR_PAGES (2 * TR_BLOCKS)
#define TR_BLOCK_INSNS 48
#define TR_BLOCK_ROOM (64u << 10) /* more than any block's code */
#define TR_HASH_BITS 16
#define TR_PAGE_HASH_BITS 12

/* cpu->scratch[] */
enum { SLOT_FLAGS, SLOT_VALUE, SLOT_ADDR, SLOT_SIZE };
#define CPU_SCRATCH(i) M_CPU_AT(offsetof(struct bt_cpu, scratch) + 8u * (i))
#define CPU_GPR(i) M_CPU_AT(offsetof(struct bt_cpu, gpr) + 8u * (i))

/* Block keys: cpu->mode and these. */
#define TR_MODE_ONE 0x100u    /* one instruction, then back to C */
#define TR_MODE_BOUNCE 0x200u /* as ONE, writes go through cpu->bounce */

enum tr_exit_kind {
	TR_EXIT_CHAIN,	  /* exit_pc is after the call of a direct exit's trampoline */
	TR_EXIT_KICK,	  /* exit_pc names the block, which has not begun */
	TR_EXIT_INDIRECT, /* cpu->rip is where to go on */
	TR_EXIT_AGAIN,	  /* cpu->rip is an instruction that did not happen: exc, exit_pending or nothing */
	TR_EXIT_ONE,	  /* run the instruction at cpu->rip alone */
	TR_EXIT_BOUNCE,	  /* the same, through the bounce buffer */
};

enum tr_class {
	TC_PLAIN, /* the host's own instruction with another memory operand */
	TC_NOP,
	TC_SYS,
	TC_LEA,
	TC_MOFFS,
	TC_JMP,
	TC_JCC,
	TC_CALL,
	TC_RET,
	TC_LOOP,
	TC_PUSH,
	TC_POP,
	TC_LEAVE,
	TC_PAUSE,
	TC_RDTSC,
	TC_CLI,
	TC_CLD,
	TC_BITMEM,  /* bt family with a register offset into memory */
	TC_MASKMOV, /* maskmovq, maskmovdqu */
};

struct tr_insn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem; /* the explicit memory operand or NULL */
	uint8_t bytes[15];
	uint64_t rip, next;
	enum tr_class cls;
	bt_sys_fn sys;
	bool ends;	/* nothing of the block after it */
	bool fpu;	/* touches x87, MMX or SSE state */
	bool clobbers;	/* its own work destroys host flags before the instruction itself */
	uint16_t reads; /* arithmetic flags */
	uint16_t kills; /* surely overwritten or undefined */
	uint16_t may;	/* perhaps changed */
	uint16_t live;	/* needed after it */
	uint16_t live_in; /* needed before it */
};

struct tr_mark {
	uint32_t host;	/* offset in the code buffer of the instruction proper */
	uint8_t guest;	/* offset from the block's rip, in bytes; blocks are shorter than 256 */
	uint8_t flags;	/* 1: guest flags are in host flags here */
};

#define TR_EXITS 2
struct tr_exit {
	uint8_t *patch; /* rel32 field, NULL: not a chained exit */
	uint8_t *tramp;
	uint64_t target;
	struct tr_exit *next; /* of those that lead to the same block */
	bool flags_host;
	bool back; /* target is not after its jump: enter where the kick is polled */
	bool linked;
};

struct bt_block {
	uint64_t rip, cs_base;
	gpa_t gpa;	/* of the first byte */
	gfn_t gfn2;	/* page of the last byte when it is another one, else ~0 */
	uint32_t mode;	/* with TR_MODE_* */
	uint16_t size;	/* guest bytes */
	bool dead;
	uint32_t code, end; /* offsets in the code buffer */
	uint8_t *entry_f, *entry_m;	/* with poll */
	uint8_t *inner_f, *inner_m;	/* without */
	uint32_t marks, nmarks;
	uint32_t starts; /* in t->starts: offset of each instruction from rip */
	struct bt_block *hash_next;
	struct bt_block *page_next[2];
	struct tr_exit exits[TR_EXITS];
	struct tr_exit *incoming;
};

/* Blocks that have bytes in one gfn. */
struct tr_page {
	gfn_t gfn;
	struct bt_block *blocks;
	struct tr_page *next;
};

enum tr_flstate { FL_HOST, FL_MEM, FL_BOTH, FL_NONE };

/* Code that is emitted after the block's body. */
struct tr_late {
	uint8_t *from; /* rel32 to patch */
	uint8_t *back;
	enum { LATE_MEM, LATE_FPU, LATE_PAUSE, LATE_PACE, LATE_KICK, LATE_CHAIN } kind;
	uint32_t meta;
	struct tr_exit *exit;
	bool flags_host;
};

struct bt_translator {
	struct emit e; /* first: M_CPU and e_* users write &t->e */
	struct bt_cpu *cpu;
	uint8_t *buf, *buf_end, *code_start;

	/* stubs at the start of the buffer */
	void (*enter)(struct bt_cpu *c, void *code);
	uint8_t *st_leave, *st_mem, *st_sys, *st_fpu, *st_chain_f, *st_chain_m, *st_kick_f, *st_kick_m;
	uint8_t *st_indirect, *st_bounce, *st_commit, *st_pause, *st_pace, *st_unwind, *st_seg;

	/* the block under translation */
	struct bt_block *cur;
	struct tr_insn insn[TR_BLOCK_INSNS];
	unsigned count, at;
	enum tr_flstate fl;
	struct tr_late late[4 * TR_BLOCK_INSNS + 8];
	unsigned nlate;
	uint32_t mode;
	uint64_t cs_base;
	ZydisDecoder decoder[5];

	/* cache */
	struct bt_block *blocks;
	uint32_t nblocks;
	struct tr_mark *marks;
	uint32_t nmarks;
	uint8_t *starts;
	uint32_t nstarts;
	struct bt_block *hash[1u << TR_HASH_BITS];
	struct tr_page *pages[1u << TR_PAGE_HASH_BITS];
	struct tr_page *page_pool;
	uint32_t npages;
	struct bt_block *cross[256]; /* across two pages and chained to: the chains live until the next forget */
	uint32_t ncross;
	unsigned slot; /* in vm->cpus */
	uint8_t generation;
	uint64_t gen_count; /* forgets, to see that one happened */
	uint64_t jc_bloom[64]; /* virtual pages that have entries in jc */
	uint64_t flushes, translated;

	/* run */
	struct bt_block *running; /* where C last entered */
	uint64_t shadow_rip;
	_Atomic bool kick_wanted; /* by hv_engine.kick */
	uint32_t inject; /* TR_INJECT_* | vector, by the monitor between two runs */
	bool nmi_wanted; /* the monitor asked for nmi_ready and it was not */
	bool restarts; /* the last exit's instruction is restarted with the monitor's answer */
	enum hv_exit_reason last_reason;
	bool write_done; /* the pending MMIO write belongs to an instruction that is complete */
	struct bt_insn *sysinsn;
	uint32_t nsysinsn;

	/* translations other vCPUs want dropped; guarded by lock */
	pthread_mutex_t lock;
	struct {
		gpa_t gpa;
		uint32_t len;
	} posted[64];
	_Atomic unsigned nposted; /* also looked at without the lock, after a kick */
};

/* --- vm --- */
#define BT_VM_GFNS (1ull << 28) /* 1 TiB of guest-physical space may hold code */
#define BT_VM_WRITER (1ull << 63)
struct bt_vm {
	struct hv_vm_config cfg;
	/* per gfn: bit n: local vCPU n has translations; BT_VM_WRITER: somebody may hold a write TLB entry */
	_Atomic uint64_t *code;
	pthread_mutex_t lock; /* cpus */
	struct bt_cpu *cpus[63];
};

/* stubs.c */
void tr_stubs_emit(struct bt_translator *t);
/* decode.c: fills t->insn[] from c->rip; BT_FAULT with an exception queued when not even one can be had. */
enum bt_res tr_decode(struct bt_translator *t, struct bt_block *b);
void tr_classify(struct bt_translator *t, struct tr_insn *in);
/* liveness of flags over t->insn[] */
void tr_flags_analyse(struct bt_translator *t);
void tr_sysinsn_fill(struct bt_insn *s, const struct tr_insn *in);
/* translate.c */
struct bt_block *tr_translate(struct bt_translator *t, uint32_t mode);
/* ops.c */
void tr_emit_insn(struct bt_translator *t, struct tr_insn *in);
void tr_exit_direct(struct bt_translator *t, unsigned slot, uint64_t target);
/* plain.c */
void tr_emit_plain(struct bt_translator *t, struct tr_insn *in);
void tr_emit_maskmov(struct bt_translator *t, struct tr_insn *in);
void tr_emit_bitmem(struct bt_translator *t, struct tr_insn *in);
/* mem.c: flags and memory */
void tr_flags_save(struct bt_translator *t);	 /* host -> slot, when they are only in host */
void tr_flags_restore(struct bt_translator *t); /* slot -> host, when they are only there */
void tr_clobber(struct bt_translator *t, const struct tr_insn *in); /* before destroying host flags */
/* Effective address into `dst` (host register); may use S1. */
void tr_ea(struct bt_translator *t, const struct tr_insn *in, unsigned dst);
enum { TR_READ = 1, TR_WRITE = 2, TR_STACK = 4 };
/* S0: offset in a segment -> linear address; may use flags and S1. */
void tr_add_segment(struct bt_translator *t, unsigned seg, unsigned size, unsigned access);
/* Linear address of the memory operand into S0. */
void tr_linear(struct bt_translator *t, const struct tr_insn *in, unsigned size, unsigned access);
/* S0: linear -> host address; uses S1 S2 and flags. */
void tr_probe(struct bt_translator *t, unsigned size, unsigned access);
/* After a write access. */
void tr_commit(struct bt_translator *t, unsigned access);
void tr_mark(struct bt_translator *t, const struct tr_insn *in);
struct tr_late *tr_late_add(struct bt_translator *t, int kind, uint8_t *from);
void tr_late_emit(struct bt_translator *t);
unsigned tr_host_reg(unsigned guest); /* NOREG: spilled */
static inline bool tr_spilled(unsigned g) { return g == 10 || g == 11 || g == 14 || g == 15; }
static inline int zreg(ZydisRegister r) { return ZydisRegisterGetId(r); }
/* cache.c */
struct bt_block *tr_lookup(struct bt_translator *t, gpa_t gpa, uint64_t rip, uint32_t mode);
void tr_insert(struct bt_translator *t, struct bt_block *b);
void tr_flush(struct bt_translator *t);
void tr_kill_all(struct bt_translator *t);
void tr_link(struct bt_translator *t, struct tr_exit *x, struct bt_block *to);
void tr_jc_add(struct bt_translator *t, struct bt_block *b);
void tr_salt_update(struct bt_cpu *c);
void tr_posted(struct bt_translator *t);
struct bt_block *tr_block_at(struct bt_translator *t, const uint8_t *pc);
/* Makes sure that nobody writes to gfn through a cached right; true when nothing moved meanwhile. */
bool tr_claim(struct bt_translator *t, gfn_t gfn);
/* slow.c */
void *tr_slow_mem(struct bt_cpu *c, gva_t va, uint32_t meta, uint8_t *pc);
uint64_t tr_slow_sys(struct bt_cpu *c, const struct bt_insn *i, bt_sys_fn fn);
void *tr_slow_bounce(struct bt_cpu *c, gva_t va, uint32_t meta, uint8_t *pc);
uint64_t tr_slow_commit(struct bt_cpu *c);
void *tr_slow_seg(struct bt_cpu *c, uint64_t off, uint32_t meta, uint8_t *pc);
void tr_slow_pause(struct bt_cpu *c);
void tr_slow_pace(struct bt_cpu *c, const uint8_t *pc);
void tr_flags_in(struct bt_cpu *c); /* slot -> rflags */
uint64_t tr_flags_to_slot(uint64_t rflags);
/* meta of a memory access: size | access << 10 | insn index << 16 | flags in memory << 24 | segment << 25 */
#define TR_META(size, access, index, inmem) \
	((uint32_t)(size) | (uint32_t)(access) << 10 | (uint32_t)(index) << 16 | (uint32_t)(inmem) << 24)
/* signal.c */
int tr_signals_init(void);
void tr_signals_current(struct bt_cpu *c);
/* run.c */
#define TR_INJECT_IRQ 0x100u
#define TR_INJECT_NMI 0x200u
bool tr_irq_ready(struct bt_cpu *c);
bool tr_nmi_ready(struct bt_cpu *c);
void tr_run(struct bt_cpu *c, struct hv_exit *exit, bool irq_window);

#endif
