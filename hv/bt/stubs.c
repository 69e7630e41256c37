/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/stubs.c - the fixed code at the start of a code buffer: into translated code, out of it, and to C.
 *
 * What      Translated code calls a stub with host rsp = &bt_cpu, so the return address lies just below the
 *           struct and C runs on the same stack below that.
 * Threads   Emitted once per vCPU.
 */
#include "hv/bt/tr.h"

/* Pinned registers; rsp's place is r15. */
static const struct {
	uint8_t guest, host;
} pinned[] = {
	{0, RAX}, {1, RCX}, {2, RDX}, {3, RBX}, {4, GSP}, {5, RBP},
	{6, RSI}, {7, RDI}, {8, R8}, {9, R9}, {12, R12}, {13, R13},
};

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static size_t gpr_at(unsigned n)
{
	return offsetof(struct bt_cpu, gpr) + 8u * n;
}

/* depth: bytes pushed since rsp was &bt_cpu */
static void save_all(struct emit *e, unsigned depth)
{
	for (unsigned k = 0; k < ARRAY_LEN(pinned); k++)
		e_st(e, M_CPU_AT(gpr_at(pinned[k].guest) + depth), pinned[k].host);
}

static bool is_callee_saved(unsigned r)
{
	return r == RBX || r == RBP || r >= R12;
}

static void load(struct emit *e, unsigned depth, bool all)
{
	for (unsigned k = 0; k < ARRAY_LEN(pinned); k++)
		if (all || !is_callee_saved(pinned[k].host))
			e_ld(e, pinned[k].host, M_CPU_AT(gpr_at(pinned[k].guest) + depth));
}

static void call_c(struct emit *e, void *fn)
{
	e_movi(e, RAX, (uint64_t)(uintptr_t)fn);
	e_rr(e, false, 0xff, 2, RAX);
}

/* Entry: enter(cpu in rdi, code in rsi); the code is entered with flags in the slot. */
static void emit_enter(struct bt_translator *t)
{
	struct emit *e = &t->e;

	t->enter = (void (*)(struct bt_cpu *, void *))(void *)e->p;
	for (unsigned k = 0; k < ARRAY_LEN(callee_saved); k++)
		e_push(e, callee_saved[k]);
	e_st(e, M_BASE(RDI, offsetof(struct bt_cpu, host_rsp)), RSP);
	e_mov(e, RSP, RDI);
	e_mov(e, S0, RSI);
	load(e, 0, true);
	e_rr(e, false, 0xff, 4, S0);
}

/* rsp is anywhere in the translation stack with the cpu at rsp + depth; gpr[] is complete. */
static void emit_leave(struct emit *e, unsigned depth)
{
	e_ld(e, RSP, M_CPU_AT(offsetof(struct bt_cpu, host_rsp) + depth));
	for (unsigned k = ARRAY_LEN(callee_saved); k-- > 0;)
		e_pop(e, callee_saved[k]);
	e8(e, 0xc3);
}

/* Called from a block's trampoline: notes where from, then out. */
static uint8_t *emit_exit(struct bt_translator *t, bool flags_host, enum tr_exit_kind kind)
{
	struct emit *e = &t->e;
	uint8_t *start = e->p;

	e_pop(e, S0);
	e_st(e, M_CPU(exit_pc), S0);
	if (flags_host) {
		t->fl = FL_HOST;
		tr_flags_save(t);
	}
	e_st32i(e, M_CPU(exit_kind), kind);
	e_jmp(e, t->st_leave);
	return start;
}

/* S0: linear address, S1: meta.  Comes back with the host address in S0, or leaves. */
static uint8_t *emit_mem(struct bt_translator *t, void *fn)
{
	struct emit *e = &t->e;
	uint8_t *start = e->p, *out;

	save_all(e, 8);
	e_lea(e, true, RDI, M_BASE(RSP, 8));
	e_mov(e, RSI, S0);
	e_mov32(e, RDX, S1);
	e_ld(e, RCX, M_BASE(RSP, 0));
	e_alu_ri(e, true, 5, RSP, 8);
	call_c(e, fn);
	e_alu_ri(e, true, 0, RSP, 8);
	e_rr(e, true, 0x85, RAX, RAX);
	out = e_jcc(e, CC_E, NULL);
	e_mov(e, S0, RAX);
	load(e, 8, false);
	e8(e, 0xc3);
	e_patch32(out, e->p);
	emit_leave(e, 8);
	return start;
}

/* S0: struct bt_insn, S1: function.  Comes back when the block goes on. */
static uint8_t *emit_sys(struct bt_translator *t)
{
	struct emit *e = &t->e;
	uint8_t *start = e->p, *out;

	save_all(e, 8);
	e_lea(e, true, RDI, M_BASE(RSP, 8));
	e_mov(e, RSI, S0);
	e_mov(e, RDX, S1);
	e_alu_ri(e, true, 5, RSP, 8);
	call_c(e, tr_slow_sys);
	e_alu_ri(e, true, 0, RSP, 8);
	e_rr(e, true, 0x85, RAX, RAX);
	out = e_jcc(e, CC_E, NULL);
	load(e, 8, true);
	e8(e, 0xc3);
	e_patch32(out, e->p);
	emit_leave(e, 8);
	return start;
}

/* A C function of the cpu and the place it is called from, that changes no register and may want to leave (0) or not. */
static uint8_t *emit_plain_call(struct bt_translator *t, void *fn, bool may_leave)
{
	struct emit *e = &t->e;
	uint8_t *start = e->p, *out = NULL;

	save_all(e, 8);
	e_lea(e, true, RDI, M_BASE(RSP, 8));
	e_ld(e, RSI, M_BASE(RSP, 0));
	e_alu_ri(e, true, 5, RSP, 8);
	call_c(e, fn);
	e_alu_ri(e, true, 0, RSP, 8);
	if (may_leave) {
		e_rr(e, true, 0x85, RAX, RAX);
		out = e_jcc(e, CC_E, NULL);
	}
	load(e, 8, false);
	e8(e, 0xc3);
	if (may_leave) {
		e_patch32(out, e->p);
		emit_leave(e, 8);
	}
	return start;
}

void tr_stubs_emit(struct bt_translator *t)
{
	struct emit *e = &t->e;

	emit_enter(t);
	t->st_leave = e->p;
	save_all(e, 0);
	emit_leave(e, 0);
	t->st_unwind = e->p; /* registers are saved already */
	emit_leave(e, 0);
	t->st_chain_f = emit_exit(t, true, TR_EXIT_CHAIN);
	t->st_chain_m = emit_exit(t, false, TR_EXIT_CHAIN);
	t->st_kick_f = emit_exit(t, true, TR_EXIT_KICK);
	t->st_kick_m = emit_exit(t, false, TR_EXIT_KICK);
	t->st_indirect = e->p;
	e_st(e, M_CPU(rip), S0);
	e_st32i(e, M_CPU(exit_kind), TR_EXIT_INDIRECT);
	e_jmp(e, t->st_leave);
	t->st_mem = emit_mem(t, tr_slow_mem);
	t->st_bounce = emit_mem(t, tr_slow_bounce);
	t->st_seg = emit_mem(t, tr_slow_seg);
	t->st_sys = emit_sys(t);
	t->st_fpu = emit_plain_call(t, bt_fpu_load, false);
	t->st_pause = emit_plain_call(t, tr_slow_pause, false);
	t->st_pace = emit_plain_call(t, tr_slow_pace, false);
	t->st_commit = emit_plain_call(t, tr_slow_commit, true);
	t->code_start = e->p;
}
