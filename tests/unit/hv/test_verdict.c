/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hv/test_verdict.c - which engine a VM gets on a host, over all that can be wrong there. */
#include "hv/core/verdict.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct hv_tried yes = { true, "", "" };

/* Everything works. */
static struct hv_host_can all_of_it(void)
{
	return (struct hv_host_can){
		.cpu = yes, .bt = yes, .kvm = yes, .shared = yes, .inline_faults = yes, .dispatch_faults = yes
	};
}

static void verdict_is(const struct hv_host_can *can, enum hv_span span, enum hv_engine_kind engine, bool kvm,
		       enum hv_refusal refusal, const char *why)
{
	struct hv_verdict v = hv_verdict_make(can, span);

	cr_expect_eq(v.engine, engine, "span %d: engine %s", span, hv_engine_kind_name(v.engine));
	cr_expect_eq(v.kvm, kvm, "span %d", span);
	cr_expect_eq(v.refusal, refusal, "span %d: %s", span, hv_refusal_name(v.refusal));
	if (why)
		cr_expect_str_eq(v.why, why);
	cr_expect_eq(strlen(v.why) > 0, v.engine != HV_ENGINE_KVM, "a reason if and only if it is not kvm");
}

Test(verdict, a_host_that_can_do_everything)
{
	struct hv_host_can can = all_of_it();

	for (unsigned span = 0; span < HV_SPANS; span++)
		verdict_is(&can, span, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	cr_expect_eq(hv_verdict_make(&can, HV_SPAN_ONE).faults, HV_FAULTS_NONE);
	cr_expect_eq(hv_verdict_make(&can, HV_SPAN_SEVERAL).faults, HV_FAULTS_DISPATCH);
	cr_expect_eq(hv_verdict_make(&can, HV_SPAN_PRIVATE).faults, HV_FAULTS_INLINE);
}

Test(verdict, where_one_fault_path_is_missing_the_other_is_taken)
{
	struct hv_host_can can = all_of_it();

	can.inline_faults = (struct hv_tried){ false, "no trace", "" };
	verdict_is(&can, HV_SPAN_PRIVATE, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	cr_expect_eq(hv_verdict_make(&can, HV_SPAN_PRIVATE).faults, HV_FAULTS_DISPATCH);
	can = all_of_it();
	can.dispatch_faults = (struct hv_tried){ false, "no userfaultfd of the kernel's", "" };
	verdict_is(&can, HV_SPAN_SEVERAL, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	cr_expect_eq(hv_verdict_make(&can, HV_SPAN_SEVERAL).faults, HV_FAULTS_INLINE);
}

Test(verdict, unsound_only_where_page_tables_are_shared)
{
	struct hv_host_can can = all_of_it();
	struct hv_verdict v;

	can.shared = (struct hv_tried){ false, "eptad is on", "reload it" };
	verdict_is(&can, HV_SPAN_ONE, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	verdict_is(&can, HV_SPAN_PRIVATE, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	verdict_is(&can, HV_SPAN_SEVERAL, HV_ENGINE_BT, false, HV_REFUSAL_UNSOUND, "eptad is on");
	v = hv_verdict_make(&can, HV_SPAN_SEVERAL);
	cr_expect_str_eq(v.fix, "reload it");
}

Test(verdict, each_way_kvm_is_out_of_reach_has_its_word)
{
	static const enum hv_refusal why[] = { HV_REFUSAL_NO_DEVICE, HV_REFUSAL_NO_PERMISSION, HV_REFUSAL_BUSY,
					       HV_REFUSAL_TOO_OLD };
	struct hv_host_can can = all_of_it();

	can.kvm = (struct hv_tried){ false, "not here", "" };
	can.shared.ok = false; /* of a KVM that cannot be used nothing else is told */
	can.shared.why = "not looked at";
	for (unsigned i = 0; i < ARRAY_LEN(why); i++) {
		can.kvm_refusal = why[i];
		for (unsigned span = 0; span < HV_SPANS; span++)
			verdict_is(&can, span, HV_ENGINE_BT, false, why[i], "not here");
		cr_expect_gt(strlen(hv_refusal_name(why[i])), 0);
		for (unsigned k = 0; k < i; k++)
			cr_expect_str_neq(hv_refusal_name(why[i]), hv_refusal_name(why[k]));
	}
}

Test(verdict, no_way_to_see_faults)
{
	struct hv_host_can can = all_of_it();

	can.inline_faults = (struct hv_tried){ false, "no trace", "" };
	can.dispatch_faults = (struct hv_tried){ false, "no userfaultfd", "sysctl" };
	can.shared = (struct hv_tried){ false, "not seen without faults", "" };
	verdict_is(&can, HV_SPAN_SEVERAL, HV_ENGINE_BT, false, HV_REFUSAL_NO_RIGHTS, "no userfaultfd");
	verdict_is(&can, HV_SPAN_PRIVATE, HV_ENGINE_BT, false, HV_REFUSAL_NO_RIGHTS, "no userfaultfd");
	verdict_is(&can, HV_SPAN_ONE, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, ""); /* there are none to see */
}

Test(verdict, a_slow_kvm_is_for_who_asks_for_it)
{
	struct hv_host_can can = all_of_it();

	can.kvm_slow = true;
	verdict_is(&can, HV_SPAN_ONE, HV_ENGINE_BT, true, HV_REFUSAL_SLOW, NULL);
	verdict_is(&can, HV_SPAN_PRIVATE, HV_ENGINE_BT, true, HV_REFUSAL_SLOW, NULL);
	can.bt = (struct hv_tried){ false, "no executable memory", "" };
	verdict_is(&can, HV_SPAN_ONE, HV_ENGINE_KVM, true, HV_REFUSAL_NONE, "");
	can.shared = (struct hv_tried){ false, "shadow paging", "" };
	verdict_is(&can, HV_SPAN_SEVERAL, HV_ENGINE_NONE, false, HV_REFUSAL_UNSOUND, "shadow paging");
}

Test(verdict, a_cpu_that_lacks_the_model_runs_nothing)
{
	struct hv_host_can can = all_of_it();

	can.cpu = (struct hv_tried){ false, "no popcnt", "" };
	for (unsigned span = 0; span < HV_SPANS; span++)
		verdict_is(&can, span, HV_ENGINE_NONE, false, HV_REFUSAL_CPU, "no popcnt");
}
