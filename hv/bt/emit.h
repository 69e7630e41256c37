/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/emit.h - x86-64 machine code, one small function per shape of instruction.
 *
 * What      Appends bytes at e->p.  The caller makes sure that there is room (a block's bound is known).
 * Threads   The vCPU thread.
 */
#ifndef HV_BT_EMIT_H
#define HV_BT_EMIT_H

#include "base/assert.h"
#include "base/types.h"

enum hreg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, NOREG = 0xff };
enum cond { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

/* Registers that belong to the translator in translated code; guest rsp lives in R15. */
#define S0 R10
#define S1 R11
#define S2 R14
#define GSP R15

struct emit {
	uint8_t *p;
};

struct mem {
	uint8_t base, index, scale; /* host registers or NOREG; scale 1 2 4 8 */
	int32_t disp;
};

static inline void e8(struct emit *e, unsigned v) { *e->p++ = (uint8_t)v; }
static inline void e16(struct emit *e, unsigned v) { __builtin_memcpy(e->p, &(uint16_t){(uint16_t)v}, 2); e->p += 2; }
static inline void e32(struct emit *e, uint32_t v) { __builtin_memcpy(e->p, &v, 4); e->p += 4; }
static inline void e64(struct emit *e, uint64_t v) { __builtin_memcpy(e->p, &v, 8); e->p += 8; }
static inline bool fits32(uint64_t v) { return (uint64_t)(int64_t)(int32_t)v == v; }

/* Displacement from the end of a 4-byte field at `at`. */
static inline void e_patch32(uint8_t *at, const uint8_t *target)
{
	int32_t d = (int32_t)(target - (at + 4));

	__builtin_memcpy(at, &d, 4);
}

/* op: up to three opcode bytes, first byte highest (0x0fb6, 0x8b).  w: REX.W. */
static inline void e_opcode(struct emit *e, unsigned op)
{
	if (op >> 16)
		e8(e, op >> 16);
	if (op >> 8)
		e8(e, op >> 8);
	e8(e, op);
}

static inline void e_modrm_mem(struct emit *e, unsigned reg, const struct mem *m)
{
	unsigned base = m->base == NOREG ? 5 : m->base & 7;
	unsigned mod = m->base == NOREG ? 0 : m->disp == 0 && base != 5 ? 0 : m->disp == (int8_t)m->disp ? 1 : 2;
	unsigned ss = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;

	reg = (reg & 7) << 3;
	if (m->index == NOREG && m->base != NOREG && base != 4) {
		e8(e, mod << 6 | reg | base);
	} else {
		e8(e, mod << 6 | reg | 4);
		e8(e, ss << 6 | (m->index == NOREG ? 4 : m->index & 7) << 3 | base);
	}
	if (mod == 1)
		e8(e, (unsigned)m->disp);
	else if (mod == 2 || m->base == NOREG)
		e32(e, (uint32_t)m->disp);
}

static inline void e_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base, bool force)
{
	unsigned rex = w << 3 | ((reg >> 3) & 1) << 2 | (index == NOREG ? 0 : (index >> 3) & 1) << 1 |
		       (base == NOREG ? 0 : (base >> 3) & 1);

	if (rex || force)
		e8(e, 0x40 | rex);
}

static inline void e_rr(struct emit *e, bool w, unsigned op, unsigned reg, unsigned rm)
{
	e_rex(e, w, reg, NOREG, rm, false);
	e_opcode(e, op);
	e8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void e_rm(struct emit *e, bool w, unsigned op, unsigned reg, const struct mem *m)
{
	e_rex(e, w, reg, m->index, m->base, false);
	e_opcode(e, op);
	e_modrm_mem(e, reg, m);
}

#define M_BASE(b, d) (&(struct mem){.base = (b), .index = NOREG, .scale = 1, .disp = (int32_t)(d)})
#define M_CPU(field) M_BASE(RSP, offsetof(struct bt_cpu, field))
#define M_CPU_AT(off) M_BASE(RSP, off)
#define M_CPU_IDX(idx, off) (&(struct mem){.base = RSP, .index = (idx), .scale = 1, .disp = (int32_t)(off)})

static inline void e_mov(struct emit *e, unsigned dst, unsigned src) { e_rr(e, true, 0x89, src, dst); }
static inline void e_mov32(struct emit *e, unsigned dst, unsigned src) { e_rr(e, false, 0x89, src, dst); }
static inline void e_ld(struct emit *e, unsigned dst, const struct mem *m) { e_rm(e, true, 0x8b, dst, m); }
static inline void e_ld32(struct emit *e, unsigned dst, const struct mem *m) { e_rm(e, false, 0x8b, dst, m); }
static inline void e_st(struct emit *e, const struct mem *m, unsigned src) { e_rm(e, true, 0x89, src, m); }
static inline void e_st32(struct emit *e, const struct mem *m, unsigned src) { e_rm(e, false, 0x89, src, m); }
static inline void e_lea(struct emit *e, bool w, unsigned dst, const struct mem *m) { e_rm(e, w, 0x8d, dst, m); }

static inline void e_st32i(struct emit *e, const struct mem *m, uint32_t imm)
{
	e_rm(e, false, 0xc7, 0, m);
	e32(e, imm);
}

static inline void e_movi(struct emit *e, unsigned dst, uint64_t v)
{
	if (v <= 0xffffffffu) {
		e_rex(e, false, 0, NOREG, dst, false);
		e8(e, 0xb8 | (dst & 7));
		e32(e, (uint32_t)v);
	} else if (fits32(v)) {
		e_rr(e, true, 0xc7, 0, dst);
		e32(e, (uint32_t)v);
	} else {
		e_rex(e, true, 0, NOREG, dst, false);
		e8(e, 0xb8 | (dst & 7));
		e64(e, v);
	}
}

/* alu: 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp */
static inline void e_alu_ri(struct emit *e, bool w, unsigned alu, unsigned rm, int32_t imm)
{
	if (imm == (int8_t)imm) {
		e_rr(e, w, 0x83, alu, rm);
		e8(e, (unsigned)imm);
	} else {
		e_rr(e, w, 0x81, alu, rm);
		e32(e, (uint32_t)imm);
	}
}

static inline void e_alu_mi(struct emit *e, bool w, unsigned alu, const struct mem *m, int32_t imm)
{
	if (imm == (int8_t)imm) {
		e_rm(e, w, 0x83, alu, m);
		e8(e, (unsigned)imm);
	} else {
		e_rm(e, w, 0x81, alu, m);
		e32(e, (uint32_t)imm);
	}
}

static inline void e_alu_rr(struct emit *e, bool w, unsigned alu, unsigned dst, unsigned src)
{
	e_rr(e, w, alu << 3 | 3, dst, src);
}

static inline void e_alu_rm(struct emit *e, bool w, unsigned alu, unsigned dst, const struct mem *m)
{
	e_rm(e, w, alu << 3 | 3, dst, m);
}

/* sh: 4 shl, 5 shr, 7 sar */
static inline void e_shift(struct emit *e, bool w, unsigned sh, unsigned rm, unsigned count)
{
	e_rr(e, w, 0xc1, sh, rm);
	e8(e, count);
}

/* Jumps and calls: a rel32 to be patched, or to a known target; answer the field's address. */
static inline uint8_t *e_jmp(struct emit *e, const uint8_t *target)
{
	e8(e, 0xe9);
	e32(e, 0);
	if (target)
		e_patch32(e->p - 4, target);
	return e->p - 4;
}

static inline uint8_t *e_call(struct emit *e, const uint8_t *target)
{
	e8(e, 0xe8);
	e32(e, 0);
	if (target)
		e_patch32(e->p - 4, target);
	return e->p - 4;
}

static inline uint8_t *e_jcc(struct emit *e, unsigned cc, const uint8_t *target)
{
	e8(e, 0x0f);
	e8(e, 0x80 | cc);
	e32(e, 0);
	if (target)
		e_patch32(e->p - 4, target);
	return e->p - 4;
}

static inline void e_push(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, NOREG, r, false);
	e8(e, 0x50 | (r & 7));
}

static inline void e_pop(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, NOREG, r, false);
	e8(e, 0x58 | (r & 7));
}

#endif
