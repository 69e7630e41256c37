/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/hv/slice_fixture.h - whole slices on a scripted CPU engine, on one and on two nodes.
 *
 * How       The "guest" is a C function per vCPU in a thread of its own that goes only while the engine's run waits for
 *           it; each of its port, MMIO and MSR accesses is an exit.  Two nodes are two slices in this process, joined by TCP on loopback.
 * Limits    Included by exactly one file of a test program: it defines functions, and the engine.
 */
#ifndef TESTS_SLICE_FIXTURE_H
#define TESTS_SLICE_FIXTURE_H

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

static __attribute__((unused)) int probe(const char **why)
{
	(void)why;
	return 0;
}

static __attribute__((unused)) int vm_open(const struct hv_vm_config *cfg, struct hv_vm **out)
{
	(void)cfg;
	*out = calloc(1, sizeof(**out));
	return 0;
}

static __attribute__((unused)) void vm_close(struct hv_vm *vm)
{
	free(vm);
}

static __attribute__((unused)) int vcpu_open(struct hv_vm *vm, unsigned id, struct hv_vcpu **out)
{
	(void)vm;
	*out = calloc(1, sizeof(**out));
	(*out)->id = id;
	sem_init(&(*out)->go, 0, 0);
	sem_init(&(*out)->left, 0, 0);
	return 0;
}

static __attribute__((unused)) void vcpu_close(struct hv_vcpu *v)
{
	if (v->started) {
		v->quit = true;
		sem_post(&v->go);
		pthread_join(v->guest, NULL);
	}
	free(v);
}

static _Atomic bool refuse_states;
static _Atomic uint8_t latched; /* vector that the engine says it holds */

static __attribute__((unused)) void get_state(struct hv_vcpu *v, struct hv_cpu_state *out)
{
	*out = v->state;
	out->irq_vector = atomic_load(&latched);
	out->irq_latched = out->irq_vector;
}

static __attribute__((unused)) int set_state(struct hv_vcpu *v, const struct hv_cpu_state *in)
{
	if (atomic_load(&refuse_states))
		return -EINVAL;
	v->state = *in;
	return 0;
}

static __attribute__((unused)) void wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		;
}

/* The guest's thread: lets the monitor handle v->exit. */
static __attribute__((unused)) void to_monitor(struct hv_vcpu *v)
{
	sem_post(&v->left);
	wait_for(&v->go);
	if (v->quit)
		pthread_exit(NULL);
}

static __attribute__((unused)) void *guest_thread(void *arg)
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

static __attribute__((unused)) void run(struct hv_vcpu *v, struct hv_exit *exit, bool window)
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

static __attribute__((unused)) bool irq_ready(struct hv_vcpu *v)
{
	(void)v;
	return true;
}

static __attribute__((unused)) void inject_irq(struct hv_vcpu *v, uint8_t vector)
{
	v->taken[vector]++;
}

static __attribute__((unused)) void inject_nmi(struct hv_vcpu *v)
{
	v->nmis++;
}

static __attribute__((unused)) uint64_t get_tpr(struct hv_vcpu *v)
{
	return v->tpr;
}

static __attribute__((unused)) void set_tpr(struct hv_vcpu *v, uint64_t cr8)
{
	v->tpr = cr8;
}

static __attribute__((unused)) void kick(struct hv_vcpu *v)
{
	atomic_store(&v->kick, true);
}

static const struct hv_engine scripted = {
	.name = "script", .plain_only = true, .probe = probe, .vm_open = vm_open, .vm_close = vm_close,
	.vcpu_open = vcpu_open, .vcpu_close = vcpu_close, .settle = irq_ready, .get_state = get_state, .set_state = set_state,
	.run = run, .irq_ready = irq_ready, .inject_irq = inject_irq, .nmi_ready = irq_ready,
	.inject_nmi = inject_nmi, .get_tpr = get_tpr, .set_tpr = set_tpr, .kick = kick,
};
const struct hv_engine *const hv_engines[] = { &scripted, NULL }; /* takes the place of engines.c */

/* --- what a guest does ------------------------------------------------------------------------------------------ */

static __attribute__((unused)) uint64_t leave(struct hv_vcpu *v, struct hv_exit e)
{
	*v->exit = e;
	to_monitor(v);
	return v->exit->data;
}

static __attribute__((unused)) void out8(struct hv_vcpu *v, uint16_t port, uint8_t value)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_PIO,
				   .write = true,
				   .size = 1,
				   .addr = port,
				   .data = value });
}

static __attribute__((unused)) uint64_t in(struct hv_vcpu *v, uint16_t port, uint8_t size)
{
	return leave(v, (struct hv_exit){ .reason = HV_EXIT_PIO, .size = size, .addr = port });
}

static __attribute__((unused)) void store(struct hv_vcpu *v, uint64_t addr, uint32_t value)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_MMIO,
				   .write = true,
				   .size = 4,
				   .addr = addr,
				   .data = value });
}

static __attribute__((unused)) uint32_t load(struct hv_vcpu *v, uint64_t addr)
{
	return (uint32_t)leave(v,
			       (struct hv_exit){ .reason = HV_EXIT_MMIO, .size = 4, .addr = addr });
}

static __attribute__((unused)) void wrmsr(struct hv_vcpu *v, uint32_t msr, uint64_t value)
{
	leave(v,
	      (struct hv_exit){ .reason = HV_EXIT_MSR, .write = true, .addr = msr, .data = value });
}

static __attribute__((unused)) void halt(struct hv_vcpu *v)
{
	leave(v, (struct hv_exit){ .reason = HV_EXIT_HLT });
}

/* A stretch of instructions without any exit but a kick. */
static __attribute__((unused)) void compute(struct hv_vcpu *v)
{
	if (atomic_exchange(&v->kick, false))
		leave(v, (struct hv_exit){ .reason = HV_EXIT_KICKED });
	if (v->window)
		leave(v, (struct hv_exit){ .reason = HV_EXIT_IRQ_WINDOW });
}

static __attribute__((unused)) void x2apic_on(struct hv_vcpu *v)
{
	wrmsr(v, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0xc00 | (v->id ? 0 : 0x100));
	wrmsr(v, 0x80f, 0x1ff);
}

static __attribute__((unused)) void ipi(struct hv_vcpu *v, uint32_t to, uint32_t low)
{
	wrmsr(v, 0x830, (uint64_t)to << 32 | low);
}

static __attribute__((unused)) void eoi(struct hv_vcpu *v)
{
	wrmsr(v, 0x80b, 0);
}

static __attribute__((unused)) void wait_vector(struct hv_vcpu *v, uint8_t vector)
{
	while (!v->taken[vector])
		halt(v);
	v->taken[vector]--;
	eoi(v);
}

static __attribute__((unused)) void power_off(struct hv_vcpu *v)
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

static __attribute__((unused)) void on_console(void *arg, const uint8_t *data, size_t len)
{
	struct node *n = arg;

	for (size_t i = 0; i < len && n->console_len < sizeof(n->console) - 1; i++)
		n->console[n->console_len++] = (char)data[i];
}

static __attribute__((unused)) void on_progress(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static __attribute__((unused)) void on_ended(void *arg, const struct cc_ended *ended)
{
	struct node *n = arg;

	n->ended = *ended;
	atomic_store(&n->is_over, true);
}

static char answer[256];
static _Atomic unsigned answers;

static __attribute__((unused)) void on_answer(void *arg, const struct cc_answer *a)
{
	(void)arg;
	snprintf(answer, sizeof(answer), "%s", a->text);
	atomic_fetch_add(&answers, 1);
}

static char kernel_path[] = "/tmp/unum-test-slice-XXXXXX";

/* The least that multiboot takes: a header with load addresses, and one instruction. */
static __attribute__((unused)) void kernel_make(void)
{
	uint32_t image[16] = { 0x1badb002, 0x10000,  -(0x1badb002u + 0x10000),
			       0x100000,   0x100000, 0x100040,
			       0x100040,   0x100020, 0xf4 };
	int fd = mkstemp(kernel_path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, image, sizeof(image)), (ssize_t)sizeof(image));
	close(fd);
}

static __attribute__((unused)) void node_prepare(struct node *n, node_id self, unsigned nodes, unsigned vcpus)
{
	struct hv_slice_sink sink = { on_console, on_progress, on_ended, n, on_answer };
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

static __attribute__((unused)) void *join(void *arg)
{
	struct node *n = arg;
	char text[HV_TEXT_MAX] = "";

	if (hv_slice_connect(n->slice, &n->all, text))
		fprintf(stderr, "connect: %s\n", text);
	return NULL;
}

static __attribute__((unused)) struct node *vm_start(unsigned nodes, unsigned vcpus)
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

static __attribute__((unused)) void wait_over(struct node *n)
{
	for (unsigned ms = 0; ms < 5000 && !atomic_load(&n->is_over); ms++)
		usleep(1000);
	cr_assert(atomic_load(&n->is_over), "the VM did not end");
}

#endif
