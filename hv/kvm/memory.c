/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/memory.c - guest pages that are not here, met inside KVM_RUN.
 *
 * What      Inline faults: the processor met the page (KVM_RUN fails with EFAULT), or KVM's instruction emulation did: then
 *           it takes RAM for a device (an MMIO exit), or gives up (emulation failure).  Each time the page is
 *           acquired and the access done or tried again.  In dispatch mode KVM only takes longer, and the second and
 *           third do not come.
 * Threads   The vCPU's own; waits for pages.
 * Limits    KVM's own walk of guest page tables, too, takes an absent table for a page that is not mapped, and tells the
 *           guest so (#PF) without an exit.  It walks only to emulate an access that the processor has just walked for,
 *           so the table must be revoked in between; docs/limits.md.
 */
#include "hv/kvm/kvm.h"
#include "hv/walk.h"

#include <Zydis/Zydis.h>
#include <string.h>

#define FOREVER UINT64_MAX
#define BLIND_MAX 8u	/* faults in a row that nothing names: KVM_RUN comes again, with another record */
#define ATTEMPTS_MAX 16u
#define INSN_MAX 15u

static void lost(struct hv_vcpu *v, struct hv_exit *exit, int err, gpa_t gpa)
{
	if (err == -EPIPE)
		*exit = (struct hv_exit){ .reason = HV_EXIT_LOST };
	else
		kvm_error(v, exit, "guest memory at 0x%llx: %s", (unsigned long long)gpa, strerror(-err));
}

bool kvm_memory_fault(struct hv_vcpu *v, struct hv_exit *exit)
{
	gpa_t gpa = 0;
	bool write = false;
	int err;

	if (!v->faults) { /* dispatch: only when the memory has ended */
		*exit = (struct hv_exit){ .reason = HV_EXIT_LOST };
		return false;
	}
	err = kvm_faults_take(v->faults, &gpa, &write);
	if (err == -ENODATA && ++v->blind <= BLIND_MAX)
		return true;
	if (err) {
		kvm_error(v, exit, "KVM_RUN: a page is missing and nothing tells which: %s", strerror(-err));
		return false;
	}
	v->blind = 0;
	/* Not dsm_acquire: a page whose right is here may have lost its mapping (reclaim). */
	err = dsm_view_fault(v->vm->dsm, dsm_view(v->vm->dsm) + gpa, write, FOREVER);
	if (err)
		lost(v, exit, err, gpa);
	return !err;
}

bool kvm_memory_access(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct kvm_run *r = v->run;
	gpa_t gpa = r->mmio.phys_addr;
	int err;

	if (r->mmio.is_write)
		err = dsm_copy_out(v->vm->dsm, gpa, r->mmio.data, r->mmio.len, FOREVER);
	else
		err = dsm_copy_in(v->vm->dsm, r->mmio.data, gpa, r->mmio.len, FOREVER);
	if (err)
		lost(v, exit, err, gpa);
	return !err;
}

/* --- emulation failures --------------------------------------------------------------------------------------- */

static void context_of(const struct hv_cpu_state *st, ZydisRegisterContext *ctx)
{
	memset(ctx, 0, sizeof(*ctx));
	for (unsigned k = 0; k < 16; k++) {
		ctx->values[ZYDIS_REGISTER_RAX + k] = st->gpr[k];
		ctx->values[ZYDIS_REGISTER_EAX + k] = (uint32_t)st->gpr[k];
		ctx->values[ZYDIS_REGISTER_AX + k] = (uint16_t)st->gpr[k];
	}
}

static uint64_t segment_base(const struct hv_cpu_state *st, ZydisRegister seg)
{
	bool flat = st->efer & 0x400 && st->seg[HV_CS].attr & 0x2000;

	if (seg < ZYDIS_REGISTER_ES || seg > ZYDIS_REGISTER_GS)
		return 0;
	if (flat && seg != ZYDIS_REGISTER_FS && seg != ZYDIS_REGISTER_GS)
		return 0;
	return st->seg[seg - ZYDIS_REGISTER_ES].base; /* ES CS SS DS FS GS, as enum hv_sreg */
}

/* Every page of [va, va + len).  A page that is not mapped is the guest's affair. */
static int acquire_linear(struct hv_vcpu *v, const struct hv_cpu_state *st, gva_t va, unsigned len, bool write)
{
	gva_t end = va + (len ? len : 1);

	for (gva_t at = va; at < end && at >= va; at = (at & PAGE_MASK) + PAGE_SIZE) {
		gpa_t gpa;
		int err = hv_walk(v->vm->dsm, st, at, FOREVER, &gpa);

		if (!err && dsm_is_ram(v->vm->dsm, gpa >> PAGE_SHIFT))
			err = dsm_acquire(v->vm->dsm, gpa >> PAGE_SHIFT, write ? DSM_WRITE : DSM_READ, FOREVER);
		if (err && err != -EFAULT)
			return err;
	}
	return 0;
}

static int acquire_operands(struct hv_vcpu *v, const struct hv_cpu_state *st)
{
	bool wide = st->seg[HV_CS].attr & 0x2000, is32 = st->seg[HV_CS].attr & 0x4000;
	gva_t at = wide ? st->rip : (uint32_t)(st->seg[HV_CS].base + st->rip);
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisRegisterContext ctx;
	uint8_t code[INSN_MAX];
	size_t len = hv_walk_read(v->vm->dsm, st, at, code, sizeof(code), FOREVER);
	ZydisDecoder d;
	int err = 0;

	ZydisDecoderInit(&d,
			 wide	? ZYDIS_MACHINE_MODE_LONG_64
			 : is32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
				: ZYDIS_MACHINE_MODE_REAL_16,
			 wide	? ZYDIS_STACK_WIDTH_64
			 : is32 ? ZYDIS_STACK_WIDTH_32
				: ZYDIS_STACK_WIDTH_16);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, code, len, &insn, op)))
		return -EINVAL;
	context_of(st, &ctx);
	for (unsigned i = 0; i < insn.operand_count && !err; i++) {
		bool write = op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		ZyanU64 va;

		if (op[i].type != ZYDIS_OPERAND_TYPE_MEMORY || op[i].mem.type != ZYDIS_MEMOP_TYPE_MEM ||
		    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&insn, &op[i], st->rip, &ctx, &va)))
			continue;
		va += segment_base(st, op[i].mem.segment);
		err = acquire_linear(v, st, wide ? va : (uint32_t)va, op[i].size / 8, write);
		/* A push goes below. */
		if (!err && write && op[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			err = acquire_linear(v, st, (wide ? va : (uint32_t)va) - op[i].size / 8, op[i].size / 8, true);
	}
	return err;
}

bool kvm_memory_failed(struct hv_vcpu *v, struct hv_exit *exit)
{
	struct hv_cpu_state st;
	int err;

	if (v->vm->faults != DSM_FAULTS_INLINE)
		return false;
	kvm_state_get(v, &st);
	if (st.rip != v->attempt_rip)
		v->attempts = 0;
	v->attempt_rip = st.rip;
	if (++v->attempts > ATTEMPTS_MAX)
		return false;
	err = acquire_operands(v, &st);
	if (err == -EPIPE)
		lost(v, exit, err, 0);
	return !err;
}
