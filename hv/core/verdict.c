/* SPDX-License-Identifier: Apache-2.0 */
/* hv/core/verdict.c - which CPU engine and fault path a VM gets on this host; see verdict.h.  Pure. */
#include "hv/core/verdict.h"

static const char *const engine_names[] = { "none", "bt", "kvm" };
static const char *const path_names[] = { "none", "inline", "dispatch" };
static const char *const refusal_names[HV_REFUSALS] = {
	[HV_REFUSAL_NONE] = "",
	[HV_REFUSAL_CPU] = "cpu",
	[HV_REFUSAL_NO_DEVICE] = "no-kvm",
	[HV_REFUSAL_NO_PERMISSION] = "no-permission",
	[HV_REFUSAL_BUSY] = "busy",
	[HV_REFUSAL_TOO_OLD] = "too-old",
	[HV_REFUSAL_UNSOUND] = "unsound",
	[HV_REFUSAL_SLOW] = "slow",
	[HV_REFUSAL_NO_RIGHTS] = "no-rights",
};

const char *hv_engine_kind_name(enum hv_engine_kind engine)
{
	return engine_names[engine];
}

const char *hv_fault_path_name(enum hv_fault_path path)
{
	return path_names[path];
}

const char *hv_refusal_name(enum hv_refusal refusal)
{
	return refusal_names[refusal];
}

static struct hv_verdict refused(const struct hv_host_can *can, enum hv_refusal refusal,
				 const struct hv_tried *because)
{
	return (struct hv_verdict){
		.engine = can->bt.ok ? HV_ENGINE_BT : HV_ENGINE_NONE,
		.refusal = refusal,
		.why = because->why,
		.fix = because->fix,
	};
}

static const struct hv_tried slow = {
	.why = "KVM is a software back end here, slower than bt; --engine kvm takes it all the same",
	.fix = "",
};

struct hv_verdict hv_verdict_make(const struct hv_host_can *can, enum hv_span span)
{
	struct hv_verdict v;

	if (!can->cpu.ok) {
		v = refused(can, HV_REFUSAL_CPU, &can->cpu);
		v.engine = HV_ENGINE_NONE;
		return v;
	}
	if (!can->kvm.ok)
		return refused(can, can->kvm_refusal, &can->kvm);
	/* Of two that fail, the way to dispatch is the shorter one: it needs userfaultfd and nothing else.  The memory
	 * of one node has no faults. */
	if (span != HV_SPAN_ONE && !can->inline_faults.ok && !can->dispatch_faults.ok)
		return refused(can, HV_REFUSAL_NO_RIGHTS, &can->dispatch_faults);
	if (span == HV_SPAN_SEVERAL && !can->shared.ok)
		return refused(can, HV_REFUSAL_UNSOUND, &can->shared);
	v = (struct hv_verdict){ .engine = HV_ENGINE_KVM, .why = "", .fix = "" };
	if (can->kvm_slow && can->bt.ok)
		v = refused(can, HV_REFUSAL_SLOW, &slow);
	v.kvm = true;
	if (span == HV_SPAN_SEVERAL) /* page tables that other nodes write: inline has a hole (docs/limits.md) */
		v.faults = can->dispatch_faults.ok ? HV_FAULTS_DISPATCH : HV_FAULTS_INLINE;
	else if (span == HV_SPAN_PRIVATE)
		v.faults = can->inline_faults.ok ? HV_FAULTS_INLINE : HV_FAULTS_DISPATCH;
	return v;
}
