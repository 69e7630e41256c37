/* SPDX-License-Identifier: Apache-2.0 */
/* test_slice.c - interrupts, bus, time and the end of whole slices on a scripted CPU engine. */
#include "tests/unit/hv/slice_fixture.h"

/* --- cases ---------------------------------------------------------------------------------------------------------- */

static void hello(struct hv_vcpu *v)
{
	for (const char *p = "hello"; *p; p++)
		out8(v, HV_PORT_COM1, (uint8_t)*p);
	power_off(v);
}

Test(slice, serial_output_and_power_off, .timeout = 20)
{
	struct node *n;

	program[0] = hello;
	n = vm_start(1, 1);
	wait_over(n);
	cr_assert_eq(n->ended.reason, CC_END_POWEROFF);
	cr_assert_str_eq(n->console, "hello");
	hv_slice_close(n->slice);
	free(n);
}

static _Atomic uint64_t seen[8];

static void absent(struct hv_vcpu *v)
{
	seen[0] = in(v, 0x1234, 2);
	seen[1] = load(v, 0xdfff0000);
	store(v, 0xdfff0000, 1);
	leave(v, (struct hv_exit){ .reason = HV_EXIT_MSR, .addr = 0xc0001234 });
	seen[2] = v->exit->fault;
	seen[3] = load(v, HV_VIRTIO_BASE);
	power_off(v);
}

Test(slice, absent_things_answer_as_hardware_does, .timeout = 20)
{
	struct node *n;

	program[0] = absent;
	n = vm_start(1, 1);
	wait_over(n);
	cr_assert_eq(seen[0], 0xffff);
	cr_assert_eq(seen[1], 0xffffffff);
	cr_assert(seen[2]);
	cr_assert_eq(seen[3], 0x74726976, "virtio magic");
	hv_slice_close(n->slice);
	free(n);
}

static void timer_halted_and_running(struct hv_vcpu *v)
{
	uint64_t now;

	x2apic_on(v);
	wrmsr(v, 0x832, 2u << 17 | 0x50); /* TSC deadline mode */
	now = __rdtsc() + v->state.tsc_offset;
	seen[0] = now + 20000000;
	wrmsr(v, HV_MSR_TSC_DEADLINE, seen[0]);
	wait_vector(v, 0x50);
	seen[1] = __rdtsc() + v->state.tsc_offset;
	seen[2] = seen[1] + 20000000;
	wrmsr(v, HV_MSR_TSC_DEADLINE, seen[2]);
	while (!v->taken[0x50])
		compute(v);
	seen[3] = __rdtsc() + v->state.tsc_offset;
	power_off(v);
}

Test(slice, deadline_timer_wakes_a_halted_and_kicks_a_running_vcpu, .timeout = 20)
{
	struct node *n;

	program[0] = timer_halted_and_running;
	n = vm_start(1, 1);
	wait_over(n);
	cr_assert_geq(seen[1], seen[0], "too early");
	cr_assert_geq(seen[3], seen[2], "too early");
	hv_slice_close(n->slice);
	free(n);
}

static void boot_cpu(struct hv_vcpu *v)
{
	x2apic_on(v);
	ipi(v, 1, 0x4500);         /* INIT */
	ipi(v, 1, 0x4600 | 0x9a);  /* SIPI */
	wait_vector(v, 0x41);      /* fixed, physical */
	ipi(v, 1, 0x4400);         /* NMI */
	wait_vector(v, 0x42);      /* it was taken */
	ipi(v, 0, 0xc4000 | 0x43); /* all but self */
	wait_vector(v, 0x44);
	for (;;)
		halt(v);
}

static void second_cpu(struct hv_vcpu *v)
{
	seen[0] = v->state.seg[HV_CS].base;
	x2apic_on(v);
	ipi(v, 0, 0x4000 | 0x41);
	while (!v->nmis)
		halt(v);
	ipi(v, 1u << 0, 0x4800 | 0x42); /* logical, cluster 0, bit 0 */
	wait_vector(v, 0x43);
	store(v, HV_IOAPIC_BASE, 1); /* version register, on node alpha */
	seen[1] = load(v, HV_IOAPIC_BASE + 0x10);
	/* COM1's pin to vCPU 0, vector 0x44; then make the UART raise it. */
	store(v, HV_IOAPIC_BASE, 0x10 + 2 * HV_GSI_COM1);
	store(v, HV_IOAPIC_BASE + 0x10, 0x44);
	out8(v, HV_PORT_COM1 + 4, 8);
	out8(v, HV_PORT_COM1 + 1, 2);
	out8(v, HV_PORT_COM1, '!');
	power_off(v);
}

Test(slice, two_nodes_exchange_interrupts_and_device_accesses, .timeout = 30)
{
	struct node *n;
	struct cc_stats st;

	program[0] = boot_cpu;
	program[1] = second_cpu;
	n = vm_start(2, 2);
	wait_over(&n[0]);
	cr_assert_eq(n[0].ended.reason, CC_END_POWEROFF, "%s", n[0].ended.text);
	cr_assert_eq(seen[0], 0x9a000);
	cr_assert_eq(seen[1] & 0xff, 0x20);
	cr_assert_str_eq(n[0].console, "!");
	hv_slice_stats(n[0].slice, &st);
	cr_assert_geq(st.ipis_sent_remote, 4);
	cr_assert_eq(st.ipis_received_remote, 2);
	hv_slice_stats(n[1].slice, &st);
	cr_assert_eq(st.mmio_remote, 8);
	cr_assert_eq(n[0].slice->clock.offset, n[1].slice->clock.offset, "one host has one TSC");
	hv_slice_close(n[1].slice);
	hv_slice_close(n[0].slice);
	free(n);
}

static void busy(struct hv_vcpu *v)
{
	for (;;)
		compute(v);
}

Test(slice, a_lost_node_ends_the_vm_by_name, .timeout = 30)
{
	struct node *n;
	uint64_t start;

	program[0] = program[1] = busy;
	n = vm_start(2, 2);
	start = clock_now_ns();
	hv_slice_close(n[1].slice);
	wait_over(&n[0]);
	cr_assert_lt(clock_now_ns() - start, 2 * NS_PER_S);
	cr_assert_eq(n[0].ended.reason, CC_END_PEER_LOST);
	cr_assert_eq(n[0].ended.node, 1);
	cr_assert_str_eq(n[0].ended.text, "node beta is lost");
	hv_slice_close(n[0].slice);
	free(n);
}

static void waits_for_remote_device(struct hv_vcpu *v)
{
	x2apic_on(v);
	for (;;)
		load(v, HV_VIRTIO_BASE);
}

Test(slice, a_vcpu_that_waits_for_a_lost_node_is_freed, .timeout = 30)
{
	struct node *n;

	program[0] = waits_for_remote_device;
	program[1] = busy;
	n = vm_start(2, 2);
	usleep(20000);
	hv_slice_close(n[1].slice);
	wait_over(&n[0]);
	hv_slice_close(n[0].slice);
	free(n);
}

static void crash(struct hv_vcpu *v)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_SHUTDOWN });
}

Test(slice, a_triple_fault_ends_with_a_dump, .timeout = 20)
{
	struct node *n;

	program[0] = crash;
	n = vm_start(1, 1);
	wait_over(n);
	cr_assert_eq(n->ended.reason, CC_END_CRASH);
	cr_assert_str_eq(n->ended.text, "vCPU 0: triple fault");
	cr_assert(strstr(n->ended.dump, "rip"));
	cr_assert(strstr(n->ended.dump, "hlt"), "the code at rip: %s", n->ended.dump);
	hv_slice_close(n->slice);
	free(n);
}

Test(slice, stop_ends_a_busy_vm, .timeout = 20)
{
	struct node *n;

	program[0] = busy;
	n = vm_start(1, 1);
	hv_slice_stop(n->slice);
	wait_over(n);
	cr_assert_eq(n->ended.reason, CC_END_STOPPED);
	hv_slice_close(n->slice);
	free(n);
}
