/* SPDX-License-Identifier: Apache-2.0 */
/* test_slice_move.c - moves between slices on a scripted CPU engine: what a real engine seldom does. */
#include "tests/unit/hv/slice_fixture.h"

static _Atomic uint64_t seen[1];

static _Atomic unsigned stage;

static void holds_an_interrupt(struct hv_vcpu *v)
{
	x2apic_on(v);
	ipi(v, 0, 0x4000 | 0x60);
	while (!v->taken[0x60])
		in(v, 0x1234, 1);
	atomic_store(&stage, 1);
	while (atomic_load(&stage) == 1)
		in(v, 0x1234, 1);
	for (unsigned i = 0; i < 20; i++)
		in(v, 0x1234, 1);
	seen[0] = v->taken[0x60];
	power_off(v);
}

static void wait_for_count(_Atomic unsigned *what, unsigned count)
{
	for (unsigned ms = 0; ms < 5000 && atomic_load(what) < count; ms++)
		usleep(1000);
	cr_assert_geq(atomic_load(what), count);
}

/* The guest has not seen the vector yet, its engine holds it: the vCPU that came back has it once, not twice. */
Test(slice, a_move_that_is_returned_leaves_the_vcpu_as_it_was, .timeout = 20)
{
	struct cc_order o = { .id = 1, .kind = CC_ORDER_MOVE, .vcpu = 0, .node = 1, .name = "" };
	struct node *n;

	program[0] = holds_an_interrupt;
	program[1] = halt;
	n = vm_start(2, 2);
	wait_for_count(&stage, 1);
	atomic_store(&latched, 0x60);
	atomic_store(&refuse_states, true);
	hv_slice_order(n[0].slice, &o);
	wait_for_count(&answers, 1);
	cr_expect(strstr(answer, "refuses its state"), "%s", answer);
	atomic_store(&refuse_states, false);
	atomic_store(&stage, 2);
	wait_over(&n[0]);
	cr_expect_eq(n[0].ended.reason, CC_END_POWEROFF);
	cr_expect_eq(seen[0], 1);
	hv_slice_close(n[0].slice);
	hv_slice_close(n[1].slice);
	free(n);
}
