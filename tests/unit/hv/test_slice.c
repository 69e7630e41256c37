/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_slice.c - whole slices on a scripted CPU engine: interrupts, bus, time and the end, on one and on two nodes.
 *
 * How       The "guest" is a C function per vCPU in a thread of its own that goes only while the engine's run waits for
 *           it; each of its port, MMIO and MSR accesses is an exit.  Two nodes are two slices in this process, joined by TCP on loopback.
 */
#include "hv/slice_priv.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

/* --- scripted engine -------------------------------------------------------------------------------------------- */

struct hv_vm {
	int dummy;
};
struct hv_vcpu {
	unsigned id;
	_Atomic bool kick;
	bool window;
	struct hv_exit *exit;
	pthread_t guest;
	sem_t go, left; /* the guest may run; it has come to an exit */
	bool started, quit;
	struct hv_cpu_state state;
	uint64_t tpr;
	/* what the guest has taken */
	unsigned taken[256], nmis;
};

/* The program of each vCPU in this test; a test case sets it. */
static void (*program[4])(struct hv_vcpu *v);

static int probe(const char **why)
{
	(void)why;
	return 0;
}

static int vm_open(const struct hv_vm_config *cfg, struct hv_vm **out)
{
	(void)cfg;
	*out = calloc(1, sizeof(**out));
	return 0;
}

static void vm_close(struct hv_vm *vm)
{
	free(vm);
}

static int vcpu_open(struct hv_vm *vm, unsigned id, struct hv_vcpu **out)
{
	(void)vm;
	*out = calloc(1, sizeof(**out));
	(*out)->id = id;
	sem_init(&(*out)->go, 0, 0);
	sem_init(&(*out)->left, 0, 0);
	return 0;
}

static void vcpu_close(struct hv_vcpu *v)
{
	if (v->started) {
		v->quit = true;
		sem_post(&v->go);
		pthread_join(v->guest, NULL);
	}
	free(v);
}

static void get_state(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	*out = v->state;
}

static int set_state(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	v->state = *in;
	return 0;
}

static void wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		;
}

/* The guest's thread: lets the monitor handle v->exit. */
static void to_monitor(struct hv_vcpu *v)
{
	sem_post(&v->left);
	wait_for(&v->go);
	if (v->quit)
		pthread_exit(NULL);
}

static void *guest_thread(void *arg)
{
	struct hv_vcpu *v = arg;

	wait_for(&v->go);
	if (v->quit)
		return NULL;
	program[v->id](v);
	for (;;) { /* done: halted for good */
		v->exit->reason = HV_EXIT_HLT;
		to_monitor(v);
	}
}

static void run(struct hv_vcpu *v, struct hv_exit *exit, bool window)
{
	v->exit = exit;
	v->window = window;
	if (atomic_exchange(&v->kick, false)) {
		exit->reason = HV_EXIT_KICKED;
		return;
	}
	if (!v->started)
		pthread_create(&v->guest, NULL, guest_thread, v);
	v->started = true;
	sem_post(&v->go);
	wait_for(&v->left);
}

static bool irq_ready(struct hv_vcpu *v)
{
	(void)v;
	return true;
}

static void inject_irq(struct hv_vcpu *v, uint8_t vector)
{
	v->taken[vector]++;
}

static void inject_nmi(struct hv_vcpu *v)
{
	v->nmis++;
}

static uint64_t get_tpr(struct hv_vcpu *v)
{
	return v->tpr;
}

static void set_tpr(struct hv_vcpu *v, uint64_t cr8)
{
	v->tpr = cr8;
}

static void kick(struct hv_vcpu *v)
{
	atomic_store(&v->kick, true);
}

static const struct hv_engine scripted = {
	.name = "script", .plain_only = true, .probe = probe, .vm_open = vm_open, .vm_close = vm_close,
	.vcpu_open = vcpu_open, .vcpu_close = vcpu_close, .get_state = get_state, .set_state = set_state,
	.run = run, .irq_ready = irq_ready, .inject_irq = inject_irq, .nmi_ready = irq_ready,
	.inject_nmi = inject_nmi, .get_tpr = get_tpr, .set_tpr = set_tpr, .kick = kick,
};
const struct hv_engine *const hv_engines[] = { &scripted, NULL }; /* takes the place of engines.c */

/* --- what a guest does ------------------------------------------------------------------------------------------ */

static uint64_t leave(struct hv_vcpu *v, struct hv_exit e)
{
	*v->exit = e;
	to_monitor(v);
	return v->exit->data;
}

static void out8(struct hv_vcpu *v, uint16_t port, uint8_t value)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_PIO,
				   .write = true,
				   .size = 1,
				   .addr = port,
				   .data = value });
}

static uint64_t in(struct hv_vcpu *v, uint16_t port, uint8_t size)
{
	return leave(v, (struct hv_exit){ .reason = HV_EXIT_PIO, .size = size, .addr = port });
}

static void store(struct hv_vcpu *v, uint64_t addr, uint32_t value)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_MMIO,
				   .write = true,
				   .size = 4,
				   .addr = addr,
				   .data = value });
}

static uint32_t load(struct hv_vcpu *v, uint64_t addr)
{
	return (uint32_t)leave(v,
			       (struct hv_exit){ .reason = HV_EXIT_MMIO, .size = 4, .addr = addr });
}

static void wrmsr(struct hv_vcpu *v, uint32_t msr, uint64_t value)
{
	leave(v,
	      (struct hv_exit){ .reason = HV_EXIT_MSR, .write = true, .addr = msr, .data = value });
}

static void halt(struct hv_vcpu *v)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_HLT });
}

/* A stretch of instructions without any exit but a kick. */
static void compute(struct hv_vcpu *v)
{
	if (atomic_exchange(&v->kick, false))
		leave(v, (struct hv_exit){ .reason = HV_EXIT_KICKED });
	if (v->window)
		leave(v, (struct hv_exit){ .reason = HV_EXIT_IRQ_WINDOW });
}

static void x2apic_on(struct hv_vcpu *v)
{
	wrmsr(v, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0xc00 | (v->id ? 0 : 0x100));
	wrmsr(v, 0x80f, 0x1ff);
}

static void ipi(struct hv_vcpu *v, uint32_t to, uint32_t low)
{
	wrmsr(v, 0x830, (uint64_t)to << 32 | low);
}

static void eoi(struct hv_vcpu *v)
{
	wrmsr(v, 0x80b, 0);
}

static void wait_vector(struct hv_vcpu *v, uint8_t vector)
{
	while (!v->taken[vector])
		halt(v);
	v->taken[vector]--;
	eoi(v);
}

static void power_off(struct hv_vcpu *v)
{
	out8(v, HV_PORT_SLEEP_CONTROL, HV_S5_SLP_TYP << 2 | 1 << 5);
}

/* --- a VM of one or two nodes ------------------------------------------------------------------------------------- */

struct node {
	struct cc_vm_spec spec;
	struct hv_slice *slice;
	char console[256];
	size_t console_len;
	struct cc_ended ended;
	_Atomic bool is_over;
	char address[IC_ADDR_MAX];
	pthread_t joiner;
	struct cc_connect all;
};

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	struct node *n = arg;

	for (size_t i = 0; i < len && n->console_len < sizeof(n->console) - 1; i++)
		n->console[n->console_len++] = (char)data[i];
}

static void on_progress(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static void on_ended(void *arg, const struct cc_ended *ended)
{
	struct node *n = arg;

	n->ended = *ended;
	atomic_store(&n->is_over, true);
}

static char kernel_path[] = "/tmp/unum-test-slice-XXXXXX";

/* The least that multiboot takes: a header with load addresses, and one instruction. */
static void kernel_make(void)
{
	uint32_t image[16] = { 0x1badb002, 0x10000,  -(0x1badb002u + 0x10000),
			       0x100000,   0x100000, 0x100040,
			       0x100040,   0x100020, 0xf4 };
	int fd = mkstemp(kernel_path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, image, sizeof(image)), (ssize_t)sizeof(image));
	close(fd);
}

static void node_prepare(struct node *n, node_id self, unsigned nodes, unsigned vcpus)
{
	struct hv_slice_sink sink = { on_console, on_progress, on_ended, n, NULL };
	struct cc_vm_spec *s = &n->spec;
	char text[HV_TEXT_MAX];

	s->name = "test";
	s->vm_id = 7;
	memset(s->vm_key, 9, sizeof(s->vm_key));
	s->self = self;
	s->nodes = nodes;
	for (unsigned i = 0; i < nodes; i++) {
		s->node_name[i] = i ? "beta" : "alpha";
		s->range[i] = (struct cc_range){ i * 4096ull, 4096, (node_id)i };
	}
	s->ranges = nodes;
	s->vcpus = vcpus;
	for (unsigned v = 0; v < vcpus; v++)
		s->vcpu_node[v] = (node_id)(v * nodes / vcpus);
	s->kernel = self ? "" : kernel_path;
	s->initrd = s->cmdline = s->fabric_device = "";
	s->fabric_backend = "tcp";
	s->fabric_listen = "127.0.0.1:0";
	s->device[0] = (struct cc_device){ .kind = CC_DEV_SERIAL, .node = 0, .path = "" };
	s->device[1] =
		(struct cc_device){ .kind = CC_DEV_RNG, .node = (node_id)(nodes - 1), .path = "" };
	s->devices = 2;
	cr_assert_eq(hv_slice_prepare(s, &sink, &n->slice, text), 0, "%s", text);
	hv_slice_address(n->slice, n->address);
}

static void *join(void *arg)
{
	struct node *n = arg;
	char text[HV_TEXT_MAX] = "";

	if (hv_slice_connect(n->slice, &n->all, text))
		fprintf(stderr, "connect: %s\n", text);
	return NULL;
}

static struct node *vm_start(unsigned nodes, unsigned vcpus)
{
	struct node *n = calloc(nodes, sizeof(*n));

	kernel_make();
	for (unsigned i = 0; i < nodes; i++)
		node_prepare(&n[i], (node_id)i, nodes, vcpus);
	for (unsigned i = 0; i < nodes; i++) {
		n[i].all.nodes = nodes;
		for (unsigned k = 0; k < nodes; k++)
			n[i].all.address[k] = n[k].address;
		pthread_create(&n[i].joiner, NULL, join, &n[i]);
	}
	for (unsigned i = 0; i < nodes; i++)
		pthread_join(n[i].joiner, NULL);
	unlink(kernel_path);
	for (unsigned i = 0; i < nodes; i++)
		hv_slice_run(n[i].slice);
	return n;
}

static void wait_over(struct node *n)
{
	for (unsigned ms = 0; ms < 5000 && !atomic_load(&n->is_over); ms++)
		usleep(1000);
	cr_assert(atomic_load(&n->is_over), "the VM did not end");
}

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
