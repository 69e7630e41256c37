/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/state.c - the snapshot format struct hv_cpu_state to and from KVM.
 *
 * Threads   The vCPU's own, between instructions.
 * Limits    Of XSAVE components x87, SSE and AVX: others are not shown in CPUID.  A soft interrupt under delivery is
 *           left out: rip still points at the instruction, which raises it again.
 * Sources   Documentation/virt/kvm/api.rst, 4.11 to 4.46 (registers, events, XSAVE), devices/vcpu.rst, 4 (TSC offset).
 */
#include "hv/kvm/kvm.h"

#include "base/assert.h"

#include <string.h>
#include <x86intrin.h>

#define APIC_BASE 0xfee00000ull
#define APIC_ENABLED (1ull << 11)
#define APIC_X2 (1ull << 10)
#define APIC_BSP (1ull << 8)

#define XSAVE_BV 512u /* the header's bit map of components */
#define XSAVE_YMM 576u
#define XCR0_LEGACY 3ull
#define XCR0_AVX 4ull

#define MSR_TSC 0x10u
#define RFLAGS_FIXED 2ull

enum { EVENT_EXTERNAL = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_SOFT = 4 };

/* --- segments ------------------------------------------------------------------------------------------------- */

static struct hv_seg seg_out(const struct kvm_segment *s)
{
	return (struct hv_seg){
		.base = s->base,
		.limit = s->limit,
		.sel = s->selector,
		.attr = (uint16_t)(s->type | s->s << 4 | s->dpl << 5 |
				   (s->unusable ? 0 : s->present) << 7 | s->avl << 12 | s->l << 13 |
				   s->db << 14 | s->g << 15),
	};
}

static struct kvm_segment seg_in(const struct hv_seg *s)
{
	uint16_t a = s->attr;

	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = a & 15,
		.s = a >> 4 & 1,
		.dpl = a >> 5 & 3,
		.present = a >> 7 & 1,
		.avl = a >> 12 & 1,
		.l = a >> 13 & 1,
		.db = a >> 14 & 1,
		.g = a >> 15 & 1,
		.unusable = !(a >> 7 & 1),
	};
}

/* Members of struct kvm_sregs in the order of enum hv_sreg. */
static struct kvm_segment *seg_of(struct kvm_sregs *s, unsigned k)
{
	struct kvm_segment *const seg[6] = { &s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs };

	return seg[k];
}

/* --- registers ------------------------------------------------------------------------------------------------ */

static void regs_out(const struct kvm_regs *r, struct hv_cpu_state *out)
{
	const uint64_t gpr[16] = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
				   r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15 };

	memcpy(out->gpr, gpr, sizeof(gpr));
	out->rip = r->rip;
	out->rflags = r->rflags;
}

static struct kvm_regs regs_in(const struct hv_cpu_state *in)
{
	const uint64_t *g = in->gpr;

	return (struct kvm_regs){
		.rax = g[HV_RAX], .rbx = g[HV_RBX], .rcx = g[HV_RCX], .rdx = g[HV_RDX],
		.rsi = g[HV_RSI], .rdi = g[HV_RDI], .rsp = g[HV_RSP], .rbp = g[HV_RBP],
		.r8 = g[HV_R8],	  .r9 = g[HV_R9],   .r10 = g[HV_R10], .r11 = g[HV_R11],
		.r12 = g[HV_R12], .r13 = g[HV_R13], .r14 = g[HV_R14], .r15 = g[HV_R15],
		.rip = in->rip,	  .rflags = in->rflags | RFLAGS_FIXED,
	};
}

static void sregs_out(struct kvm_sregs *s, struct hv_cpu_state *out)
{
	for (unsigned k = 0; k < 6; k++)
		out->seg[k] = seg_out(seg_of(s, k));
	out->ldt = seg_out(&s->ldt);
	out->tr = seg_out(&s->tr);
	out->gdt_base = s->gdt.base;
	out->gdt_limit = s->gdt.limit;
	out->idt_base = s->idt.base;
	out->idt_limit = s->idt.limit;
	out->cr0 = s->cr0;
	out->cr2 = s->cr2;
	out->cr3 = s->cr3;
	out->cr4 = s->cr4;
	out->cr8 = s->cr8;
	out->efer = s->efer;
}

/*
 * KVM's APIC base is always "enabled, x2APIC": then CPUID keeps its APIC bit, and registers 0x800.. come out.  What the
 * guest sees of APIC_BASE is the monitor's.
 */
static struct kvm_sregs sregs_in(const struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	struct kvm_sregs s = {
		.ldt = seg_in(&in->ldt),
		.tr = seg_in(&in->tr),
		.gdt = { .base = in->gdt_base, .limit = in->gdt_limit },
		.idt = { .base = in->idt_base, .limit = in->idt_limit },
		.cr0 = in->cr0,
		.cr2 = in->cr2,
		.cr3 = in->cr3,
		.cr4 = in->cr4,
		.cr8 = in->cr8,
		.efer = in->efer,
		.apic_base = APIC_BASE | APIC_ENABLED | APIC_X2 | (v->id ? 0 : APIC_BSP),
	};

	for (unsigned k = 0; k < 6; k++)
		*seg_of(&s, k) = seg_in(&in->seg[k]);
	return s;
}

/* --- MSRs ----------------------------------------------------------------------------------------------------- */

/* The place of each in the snapshot. */
static uint64_t *msr_place(struct hv_cpu_state *s, unsigned k)
{
	uint64_t *const place[KVM_MSR_MTRR_FIXED] = {
		[KVM_MSR_STAR] = &s->star,
		[KVM_MSR_LSTAR] = &s->lstar,
		[KVM_MSR_CSTAR] = &s->cstar,
		[KVM_MSR_SFMASK] = &s->sfmask,
		[KVM_MSR_KERNEL_GS] = &s->kernel_gs_base,
		[KVM_MSR_SYSENTER_CS] = &s->sysenter_cs,
		[KVM_MSR_SYSENTER_ESP] = &s->sysenter_esp,
		[KVM_MSR_SYSENTER_EIP] = &s->sysenter_eip,
		[KVM_MSR_PAT] = &s->pat,
		[KVM_MSR_TSC_AUX] = &s->tsc_aux,
		[KVM_MSR_MISC_ENABLE] = &s->misc_enable,
		[KVM_MSR_MTRR_DEF_TYPE] = &s->mtrr_def_type,
	};

	STATIC_ASSERT(KVM_MSR_MTRR_VAR - KVM_MSR_MTRR_FIXED == ARRAY_LEN(s->mtrr_fixed) &&
			      KVM_MSRS - KVM_MSR_MTRR_VAR == ARRAY_LEN(s->mtrr_var),
		      "every MTRR");
	if (k >= KVM_MSR_MTRR_VAR)
		return &s->mtrr_var[k - KVM_MSR_MTRR_VAR];
	if (k >= KVM_MSR_MTRR_FIXED)
		return &s->mtrr_fixed[k - KVM_MSR_MTRR_FIXED];
	return place[k];
}

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[KVM_MSRS];
};

static bool msr_get(int fd, uint32_t index, uint64_t *value)
{
	struct msr_list m = { .head.nmsrs = 1, .entry[0].index = index };

	if (kvm_call(fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*value = m.entry[0].data;
	return true;
}

static bool msr_set(int fd, uint32_t index, uint64_t value)
{
	struct msr_list m = { .head.nmsrs = 1, .entry[0] = { .index = index, .data = value } };

	return kvm_call(fd, KVM_SET_MSRS, &m) == 1;
}

/* Those that KVM keeps, with the values of the state: one call for all, since the pause of a move waits for it. */
static void msr_list(const struct hv_vcpu *v, struct hv_cpu_state *st, struct msr_list *m)
{
	m->head = (struct kvm_msrs){ 0 };
	for (unsigned k = 0; k < KVM_MSRS; k++)
		if (!v->msr_own[k])
			m->entry[m->head.nmsrs++] = (struct kvm_msr_entry){
				.index = kvm_msr_index[k],
				.data = *msr_place(st, k),
			};
}

static void msrs_out(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	struct msr_list m;
	unsigned at = 0;

	msr_list(v, out, &m);
	if (m.head.nmsrs)
		ASSERT(kvm_call(v->fd, KVM_GET_MSRS, &m) == (int)m.head.nmsrs); /* as at the start */
	for (unsigned k = 0; k < KVM_MSRS; k++)
		*msr_place(out, k) = v->msr_own[k] ? v->msr[k] : m.entry[at++].data;
}

static int msrs_in(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	struct hv_cpu_state copy = *in;
	struct msr_list m;

	msr_list(v, &copy, &m);
	if (m.head.nmsrs && kvm_call(v->fd, KVM_SET_MSRS, &m) != (int)m.head.nmsrs)
		return -EINVAL;
	for (unsigned k = 0; k < KVM_MSRS; k++)
		if (v->msr_own[k])
			v->msr[k] = *msr_place(&copy, k);
	return 0;
}

/* --- TSC ------------------------------------------------------------------------------------------------------ */

static int tsc_attr(struct hv_vcpu *v, unsigned long request, uint64_t *offset)
{
	struct kvm_device_attr a = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	return kvm_call(v->fd, request, &a);
}

/* Without the attribute (before Linux 5.16) as well as two readings can do. */
static void tsc_out(struct hv_vcpu *v, uint64_t *offset)
{
	uint64_t guest = 0;

	if (!tsc_attr(v, KVM_GET_DEVICE_ATTR, offset))
		return;
	if (msr_get(v->fd, MSR_TSC, &guest))
		*offset = guest - __rdtsc();
}

int kvm_tsc_set(struct hv_vcpu *v, uint64_t offset)
{
	if (!tsc_attr(v, KVM_SET_DEVICE_ATTR, &offset))
		return 0;
	return msr_set(v->fd, MSR_TSC, __rdtsc() + offset) ? 0 : -EINVAL;
}

/* --- x87, SSE, AVX -------------------------------------------------------------------------------------------- */

static void fpu_out(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	struct kvm_xsave x = { 0 };
	struct kvm_xcrs xcrs = { 0 };
	const uint8_t *area = (const uint8_t *)x.region;
	uint64_t present;

	out->xcr0 = 1;
	if (v->vm->has_xcrs && !kvm_call(v->fd, KVM_GET_XCRS, &xcrs) && xcrs.nr_xcrs)
		out->xcr0 = xcrs.xcrs[0].value;
	if (kvm_call(v->fd, KVM_GET_XSAVE, &x))
		return;
	memcpy(out->fxsave, area, sizeof(out->fxsave));
	memcpy(&present, area + XSAVE_BV, sizeof(present));
	if (present & XCR0_AVX)
		memcpy(out->ymm_high, area + XSAVE_YMM, sizeof(out->ymm_high));
}

static int fpu_in(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs = { { .value = in->xcr0 } } };
	uint64_t present = XCR0_LEGACY | (in->xcr0 & XCR0_AVX);
	struct kvm_xsave x = { 0 };
	uint8_t *area = (uint8_t *)x.region;
	int err = 0;

	memcpy(area, in->fxsave, sizeof(in->fxsave));
	memcpy(area + XSAVE_BV, &present, sizeof(present));
	if (present & XCR0_AVX)
		memcpy(area + XSAVE_YMM, in->ymm_high, sizeof(in->ymm_high));
	if (v->vm->has_xcrs)
		err = kvm_call(v->fd, KVM_SET_XCRS, &xcrs);
	else if (in->xcr0 != 1)
		err = -EINVAL;
	return err ? err : kvm_call(v->fd, KVM_SET_XSAVE, &x);
}

/* --- events --------------------------------------------------------------------------------------------------- */

static void events_out(const struct kvm_vcpu_events *e, struct hv_cpu_state *out)
{
	out->sti_shadow = e->interrupt.shadow != 0;
	out->nmi_blocked = e->nmi.masked;
	out->nmi_latched = e->nmi.pending;
	if (e->exception.injected) {
		out->event_valid = true;
		out->event_type = EVENT_EXCEPTION;
		out->event_vector = e->exception.nr;
		out->event_has_error = e->exception.has_error_code;
		out->event_error = e->exception.has_error_code ? e->exception.error_code : 0;
	} else if (e->nmi.injected) {
		out->event_valid = true;
		out->event_type = EVENT_NMI;
		out->event_vector = 2;
	} else if (e->interrupt.injected && !e->interrupt.soft) {
		out->event_valid = true;
		out->event_type = EVENT_EXTERNAL;
		out->event_vector = e->interrupt.nr;
	}
}

static struct kvm_vcpu_events events_in(const struct hv_cpu_state *in)
{
	struct kvm_vcpu_events e = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};

	e.interrupt.shadow = in->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0;
	e.nmi.masked = in->nmi_blocked;
	e.nmi.pending = in->nmi_latched;
	if (!in->event_valid)
		return e;
	switch (in->event_type) {
	case EVENT_EXTERNAL:
		e.interrupt.injected = 1;
		e.interrupt.nr = in->event_vector;
		break;
	case EVENT_NMI:
		e.nmi.injected = 1;
		break;
	case EVENT_EXCEPTION:
		e.exception.injected = 1;
		e.exception.nr = in->event_vector;
		e.exception.has_error_code = in->event_has_error;
		e.exception.error_code = in->event_error;
		break;
	default:
		break; /* soft: dropped */
	}
	return e;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

void kvm_state_get(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	struct kvm_regs regs = { 0 };
	struct kvm_sregs sregs = { 0 };
	struct kvm_vcpu_events events = { 0 };
	struct kvm_debugregs dr = { 0 };
	int err;

	memset(out, 0, sizeof(*out));
	err = kvm_call(v->fd, KVM_GET_REGS, &regs);
	if (!err)
		err = kvm_call(v->fd, KVM_GET_SREGS, &sregs);
	if (!err)
		err = kvm_call(v->fd, KVM_GET_VCPU_EVENTS, &events);
	if (!err)
		err = kvm_call(v->fd, KVM_GET_DEBUGREGS, &dr);
	ASSERT(!err); /* a vCPU of ours: they cannot fail */
	regs_out(&regs, out);
	sregs_out(&sregs, out);
	out->cr8 = v->run->cr8;
	events_out(&events, out);
	memcpy(out->dr, dr.db, sizeof(dr.db));
	out->dr[6] = dr.dr6;
	out->dr[7] = dr.dr7;
	msrs_out(v, out);
	tsc_out(v, &out->tsc_offset);
	fpu_out(v, out);
}

static bool can_take_irq(const struct hv_cpu_state *in)
{
	return in->rflags >> 9 & 1 && !in->sti_shadow && !in->event_valid;
}

int kvm_state_set(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	struct kvm_regs regs = regs_in(in);
	struct kvm_sregs sregs = sregs_in(v, in);
	struct kvm_vcpu_events events = events_in(in);
	struct kvm_debugregs dr = { .dr6 = in->dr[6], .dr7 = in->dr[7] };
	int err = 0;

	if (in->event_valid && in->event_type > EVENT_SOFT)
		return -EINVAL;
	memcpy(dr.db, in->dr, sizeof(dr.db));
	if (!v->ran)
		err = kvm_cpuid_set(v); /* the monitor has learnt more since */
	if (!err)
		err = kvm_call(v->fd, KVM_SET_SREGS, &sregs);
	if (!err)
		err = fpu_in(v, in);
	if (!err)
		err = msrs_in(v, in);
	if (!err)
		err = kvm_call(v->fd, KVM_SET_REGS, &regs);
	if (!err)
		err = kvm_call(v->fd, KVM_SET_DEBUGREGS, &dr);
	if (!err) /* after KVM_SET_REGS, which forgets exceptions */
		err = kvm_call(v->fd, KVM_SET_VCPU_EVENTS, &events);
	if (!err)
		err = kvm_tsc_set(v, in->tsc_offset);
	if (err)
		return err;
	v->run->cr8 = in->cr8;
	v->run->ready_for_interrupt_injection = can_take_irq(in);
	v->nmi_sent = in->nmi_latched;
	return 0;
}

int kvm_state_open(struct hv_vcpu *v)
{
	struct hv_cpu_state st;

	for (unsigned k = 0; k < KVM_MSRS; k++)
		v->msr_own[k] = !msr_get(v->fd, kvm_msr_index[k], &v->msr[k]) ||
				!msr_set(v->fd, kvm_msr_index[k], v->msr[k]);
	kvm_state_get(v, &st);
	st.gpr[HV_RDX] = hv_cpuid_lookup(v->vm->cpuid, v->vm->cpuid_count, v->id, 1, 0).eax;
	return kvm_state_set(v, &st);
}
