/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/sys.c - the table of instructions that run in C, and the small ones: flags, hlt, cpuid,
 * tsc, fxsave.
 *
 * What      bt_sys_lookup gives the function of a mnemonic; NULL means that no such instruction is
 * offered. Threads   The vCPU thread, active as a DSM reader. I/O       Guest memory; the host's
 * TSC. Limits    monitor, mwait, xsave, SVM and VMX instructions are not offered (#UD), nor are
 * they in CPUID.
 */
#include "hv/bt/sysint.h"

#include <Zydis/Zydis.h>

/* --- interrupt flag --- */
enum bt_next bt_flags_changed(struct bt_cpu *c, uint64_t old)
{
	if ((old ^ c->rflags) & RFLAGS_TF) {
		bt_mode_update(c);
		return BT_BRANCH;
	}
	return (c->rflags & ~old & RFLAGS_IF) ? BT_BRANCH : BT_NEXT;
}

SYS_FN(bt_sys_cli)
{
	if (c->cpl > cpu_iopl(c))
		return fault_gp0(c);
	c->rflags &= ~(uint64_t)RFLAGS_IF;
	return next_insn(c, i);
}

SYS_FN(bt_sys_sti)
{
	if (c->cpl > cpu_iopl(c))
		return fault_gp0(c);
	if (c->rflags & RFLAGS_IF)
		return next_insn(c, i);
	c->rflags |= RFLAGS_IF;
	c->irq_shadow = true;
	return branch_insn(c, i);
}

SYS_FN(bt_sys_pushf)
{
	struct stack s;

	bt_stack_current(c, &s);
	stack_push(&s, c->rflags & ~(uint64_t)(RFLAGS_RF | RFLAGS_VM));
	if (bt_stack_commit(c, &s, i->opsize))
		return BT_AGAIN;
	bt_stack_store_sp(c, &s);
	return next_insn(c, i);
}

SYS_FN(bt_sys_popf)
{
	uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT, old = c->rflags, v;
	struct stack s;

	bt_stack_current(c, &s);
	if (bt_stack_pop(c, &s, i->opsize, &v, 1))
		return BT_AGAIN;
	bt_stack_store_sp(c, &s);
	if (i->opsize > 2)
		mask |= RFLAGS_AC | RFLAGS_ID;
	if (c->cpl == 0)
		mask |= RFLAGS_IOPL;
	if (c->cpl <= cpu_iopl(c))
		mask |= RFLAGS_IF;
	c->rflags = ((old & ~mask) | (v & mask) | RFLAGS_FIXED) & ~(uint64_t)RFLAGS_RF;
	c->rip = i->next_rip;
	return bt_flags_changed(c, old);
}

SYS_FN(bt_sys_hlt)
{
	if (c->cpl != 0)
		return fault_gp0(c);
	c->rip = i->next_rip;
	c->irq_shadow = false;
	bt_exit(c, HV_EXIT_HLT);
	return BT_AGAIN;
}

/* --- cpuid --- */
void bt_cpuid(const struct bt_cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct hv_cpuid_entry *e = NULL;
	bool topology = leaf == 0xb || leaf == 0x1f, known = false;

	out[0] = out[1] = out[2] = out[3] = 0;
	for (unsigned k = 0; k < c->cfg->cpuid_count; k++) {
		const struct hv_cpuid_entry *x = &c->cfg->cpuid[k];

		if (x->leaf != leaf)
			continue;
		known = true;
		if (x->by_subleaf && x->subleaf != subleaf)
			continue;
		e = x;
		break;
	}
	if (!known)
		return;
	if (e) {
		out[0] = e->eax;
		out[1] = e->ebx;
		out[2] = e->ecx;
		out[3] = e->edx;
	}
	if (topology) {
		out[2] = (out[2] & ~0xffu) | (subleaf & 0xff);
		out[3] = c->id;
	} else if (leaf == 1) {
		out[1] = (out[1] & 0x00ffffffu) | (uint32_t)c->id << 24;
		out[2] &= ~(1u << 27); /* OSXSAVE: CR4.OSXSAVE cannot be set */
	} else if (leaf == 0x8000001e) {
		out[0] = c->id;
	}
}

bool bt_cpuid_has(const struct bt_cpu *c, uint32_t leaf, unsigned reg, unsigned bit)
{
	uint32_t v[4];

	bt_cpuid(c, leaf, 0, v);
	return v[reg] >> bit & 1;
}

SYS_FN(bt_sys_cpuid)
{
	uint32_t v[4];

	bt_cpuid(c, (uint32_t)c->gpr[HV_RAX], (uint32_t)c->gpr[HV_RCX], v);
	c->gpr[HV_RAX] = v[0];
	c->gpr[HV_RBX] = v[1];
	c->gpr[HV_RCX] = v[2];
	c->gpr[HV_RDX] = v[3];
	return next_insn(c, i);
}

/* --- time stamp --- */
static bool tsc_forbidden(const struct bt_cpu *c)
{
	return (c->cr4 & CR4_TSD) && c->cpl != 0;
}

static void read_tsc(struct bt_cpu *c)
{
	uint64_t t = bt_tsc(c);

	c->gpr[HV_RAX] = (uint32_t)t;
	c->gpr[HV_RDX] = t >> 32;
}

SYS_FN(bt_sys_rdtsc)
{
	if (tsc_forbidden(c))
		return fault_gp0(c);
	read_tsc(c);
	return next_insn(c, i);
}

SYS_FN(bt_sys_rdtscp)
{
	if (!bt_cpuid_has(c, 0x80000001, 3, 27))
		return fault(c, EXC_UD);
	if (tsc_forbidden(c))
		return fault_gp0(c);
	read_tsc(c);
	c->gpr[HV_RCX] = (uint32_t)c->tsc_aux;
	return next_insn(c, i);
}

/* No counters: every index is invalid. */
SYS_FN(bt_sys_rdpmc)
{
	(void)i;
	return fault_gp0(c);
}

/* --- fxsave, fxrstor --- */
#define FX_HEAD 160u /* control words and ST0-7 */
#define FX_MXCSR 24u

static enum bt_res fx_address(struct bt_cpu *c, const struct bt_insn *i, enum bt_access access,
			      gva_t *va)
{
	enum bt_res r;

	if (c->cr0 & (CR0_TS | CR0_EM)) {
		bt_exception(c, EXC_NM);
		return BT_FAULT;
	}
	r = bt_insn_mem(c, i, 0, 512, access, va);
	if (r == BT_OK && (*va & 15))
		r = res_fault(c, EXC_GP, 0);
	return r ? r : bt_mem_probe(c, *va, 512, access);
}

/* The XMM registers that this mode has. */
static unsigned fx_bytes(const struct bt_cpu *c)
{
	return FX_HEAD + (cpu_code64(c) ? 256 : 128);
}

static bool fx_wide(const struct bt_insn *i)
{
	return i->mnemonic == ZYDIS_MNEMONIC_FXSAVE64 || i->mnemonic == ZYDIS_MNEMONIC_FXRSTOR64;
}

SYS_FN(bt_sys_fxsave)
{
	uint8_t fx[512] __attribute__((aligned(16)));
	gva_t va;

	if (fx_address(c, i, BT_WRITE, &va))
		return BT_AGAIN;
	bt_fpu_load(c);
	if (fx_wide(i))
		__asm__ volatile("fxsave64 %0" : "=m"(fx));
	else
		__asm__ volatile("fxsave %0" : "=m"(fx));
	for (unsigned at = 0; at < fx_bytes(c); at += 8)
		if (bt_mem_write(c, va + at, fx + at, 8))
			return BT_AGAIN;
	return next_insn(c, i);
}

SYS_FN(bt_sys_fxrstor)
{
	uint8_t fx[512] __attribute__((aligned(16))), now[512] __attribute__((aligned(16)));
	uint32_t mask;
	gva_t va;

	if (fx_address(c, i, BT_READ, &va))
		return BT_AGAIN;
	for (unsigned at = 0; at < fx_bytes(c); at += 8)
		if (bt_mem_read(c, va + at, fx + at, 8))
			return BT_AGAIN;
	bt_fpu_load(c);
	__asm__ volatile("fxsave64 %0" : "=m"(now));
	mask = (uint32_t)load_le(now + FX_MXCSR + 4, 4);
	if (load_le(fx + FX_MXCSR, 4) & ~(uint64_t)(mask ? mask : 0xffbf))
		return fault_gp0(c);
	copy_bytes(fx + fx_bytes(c), now + fx_bytes(c), 512 - fx_bytes(c));
	if (fx_wide(i))
		__asm__ volatile("fxrstor64 %0" : : "m"(fx));
	else
		__asm__ volatile("fxrstor %0" : : "m"(fx));
	return next_insn(c, i);
}

/* --- the table --- */
/* clang-format off */
#define M(name, fn) [ZYDIS_MNEMONIC_##name] = fn
static const bt_sys_fn by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	M(MOV, bt_sys_mov), M(PUSH, bt_sys_push), M(POP, bt_sys_pop),
	M(LDS, bt_sys_lds), M(LES, bt_sys_les), M(LFS, bt_sys_lfs), M(LGS, bt_sys_lgs), M(LSS, bt_sys_lss),
	M(LLDT, bt_sys_lldt), M(LTR, bt_sys_ltr), M(SLDT, bt_sys_sldt), M(STR, bt_sys_str),
	M(LAR, bt_sys_lar), M(LSL, bt_sys_lsl), M(VERR, bt_sys_verr), M(VERW, bt_sys_verw),
	M(ARPL, bt_sys_arpl),
	M(RDFSBASE, bt_sys_rdfsbase), M(RDGSBASE, bt_sys_rdgsbase),
	M(WRFSBASE, bt_sys_wrfsbase), M(WRGSBASE, bt_sys_wrgsbase), M(SWAPGS, bt_sys_swapgs),
	M(JMP, bt_sys_far_jmp), M(CALL, bt_sys_far_call), M(RET, bt_sys_far_ret),
	M(IRET, bt_sys_iret), M(IRETD, bt_sys_iret), M(IRETQ, bt_sys_iret),
	M(INT, bt_sys_int), M(INT3, bt_sys_int3), M(INTO, bt_sys_into), M(INT1, bt_sys_int1),
	M(SYSCALL, bt_sys_syscall), M(SYSRET, bt_sys_sysret),
	M(SYSENTER, bt_sys_sysenter), M(SYSEXIT, bt_sys_sysexit),
	M(LMSW, bt_sys_lmsw), M(SMSW, bt_sys_smsw), M(CLTS, bt_sys_clts),
	M(LGDT, bt_sys_lgdt), M(LIDT, bt_sys_lidt), M(SGDT, bt_sys_sgdt), M(SIDT, bt_sys_sidt),
	M(INVLPG, bt_sys_invlpg), M(WBINVD, bt_sys_wbinvd), M(INVD, bt_sys_wbinvd),
	M(HLT, bt_sys_hlt), M(CLI, bt_sys_cli), M(STI, bt_sys_sti),
	M(PUSHF, bt_sys_pushf), M(PUSHFD, bt_sys_pushf), M(PUSHFQ, bt_sys_pushf),
	M(POPF, bt_sys_popf), M(POPFD, bt_sys_popf), M(POPFQ, bt_sys_popf),
	M(CPUID, bt_sys_cpuid), M(RDTSC, bt_sys_rdtsc), M(RDTSCP, bt_sys_rdtscp), M(RDPMC, bt_sys_rdpmc),
	M(RDMSR, bt_sys_rdmsr), M(WRMSR, bt_sys_wrmsr),
	M(FXSAVE, bt_sys_fxsave), M(FXSAVE64, bt_sys_fxsave),
	M(FXRSTOR, bt_sys_fxrstor), M(FXRSTOR64, bt_sys_fxrstor),
	M(IN, bt_sys_in), M(OUT, bt_sys_out),
	M(INSB, bt_sys_ins), M(INSW, bt_sys_ins), M(INSD, bt_sys_ins),
	M(OUTSB, bt_sys_outs), M(OUTSW, bt_sys_outs), M(OUTSD, bt_sys_outs),
	M(MOVSB, bt_sys_movs), M(MOVSW, bt_sys_movs), M(MOVSD, bt_sys_movs), M(MOVSQ, bt_sys_movs),
	M(STOSB, bt_sys_stos), M(STOSW, bt_sys_stos), M(STOSD, bt_sys_stos), M(STOSQ, bt_sys_stos),
	M(LODSB, bt_sys_lods), M(LODSW, bt_sys_lods), M(LODSD, bt_sys_lods), M(LODSQ, bt_sys_lods),
	M(SCASB, bt_sys_scas), M(SCASW, bt_sys_scas), M(SCASD, bt_sys_scas), M(SCASQ, bt_sys_scas),
	M(CMPSB, bt_sys_cmps), M(CMPSW, bt_sys_cmps), M(CMPSD, bt_sys_cmps), M(CMPSQ, bt_sys_cmps),
	M(ENTER, bt_sys_enter), M(LEAVE, bt_sys_leave), M(PUSHA, bt_sys_pusha), M(PUSHAD, bt_sys_pusha),
	M(POPA, bt_sys_popa), M(POPAD, bt_sys_popa), M(BOUND, bt_sys_bound),
	M(DAA, bt_sys_daa), M(DAS, bt_sys_das), M(AAA, bt_sys_aaa), M(AAS, bt_sys_aas),
	M(AAM, bt_sys_aam), M(AAD, bt_sys_aad), M(XLAT, bt_sys_xlat), M(SALC, bt_sys_salc),
	M(LAHF, bt_sys_lahf), M(SAHF, bt_sys_sahf),
};
/* clang-format on */

bt_sys_fn bt_sys_lookup(uint16_t mnemonic)
{
	return mnemonic <= ZYDIS_MNEMONIC_MAX_VALUE ? by_mnemonic[mnemonic] : NULL;
}

unsigned bt_string_size(uint16_t mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_LODSB:
	case ZYDIS_MNEMONIC_SCASB:
	case ZYDIS_MNEMONIC_CMPSB:
		return 1;
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_LODSW:
	case ZYDIS_MNEMONIC_SCASW:
	case ZYDIS_MNEMONIC_CMPSW:
		return 2;
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_STOSQ:
	case ZYDIS_MNEMONIC_LODSQ:
	case ZYDIS_MNEMONIC_SCASQ:
	case ZYDIS_MNEMONIC_CMPSQ:
		return 8;
	default:
		return 4;
	}
}
