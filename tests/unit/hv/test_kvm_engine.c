/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm engine: pieces of accesses (pure), and against this host's /dev/kvm the snapshot, exits of every kind, kicks,
 * interrupts and NMIs.  Where KVM cannot be used here, the tests of the second sort are skipped by name.
 *
 * The guests are a few instructions in real mode.  RAM is 64 KiB; what lies above is a device.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "hv/kvm/kvm.h"

#define RAM_PAGES 16
#define CODE 0x1000
#define IDLE 0x2000 /* of every vector: hlt */

/* --- pieces ----------------------------------------------------------------------------------------------------- */

Test(kvm_io, odd_lengths_come_in_powers_of_two)
{
	static const struct {
		unsigned len;
		uint8_t sizes[4];
	} rows[] = { { 1, { 1 } },	{ 2, { 2 } },	    { 3, { 2, 1 } }, { 4, { 4 } },
		     { 5, { 4, 1 } }, { 6, { 4, 2 } }, { 7, { 4, 2, 1 } }, { 8, { 8 } } };
	uint8_t bytes[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
		struct kvm_io io = { .kind = KVM_IO_MMIO, .write = true, .data = bytes, .addr = 0x1000, .len = rows[k].len };
		struct hv_exit e;
		unsigned at = 0, i = 0;
		bool last;

		do {
			uint64_t want = 0;

			kvm_io_element(&io, &e);
			cr_assert_eq(e.reason, HV_EXIT_MMIO);
			cr_assert_eq(e.size, rows[k].sizes[i++]);
			cr_assert_eq(e.addr, 0x1000 + at);
			memcpy(&want, bytes + at, e.size);
			cr_assert_eq(e.data, want);
			at += e.size;
			last = kvm_io_answer(&io, &e);
			cr_assert_eq(last, at == rows[k].len);
		} while (!last);
	}
}

Test(kvm_io, string_input_fills_each_element)
{
	uint16_t words[3] = { 0 };
	struct kvm_io io = { .kind = KVM_IO_PIO, .data = (uint8_t *)words, .addr = 0x60, .len = 6, .size = 2 };

	for (unsigned k = 0; k < 3; k++) {
		struct hv_exit e;

		kvm_io_element(&io, &e);
		cr_assert_eq(e.reason, HV_EXIT_PIO);
		cr_assert_eq(e.addr, 0x60); /* the same port */
		cr_assert_eq(e.size, 2);
		e.data = 0xabcd0000 + 0x1111 * k; /* what is above the element is not taken */
		cr_assert_eq(kvm_io_answer(&io, &e), k == 2);
	}
	cr_assert_eq(words[0], 0);
	cr_assert_eq(words[1], 0x1111);
	cr_assert_eq(words[2], 0x2222);
}

/* --- a vCPU ----------------------------------------------------------------------------------------------------- */

static struct dsm *dsm;
static struct hv_vm *vm;
static struct hv_vcpu *cpu;
static struct hv_engine_terms terms;
static struct hv_cpuid_entry cpuid[HV_CPUID_MAX];
static const struct hv_engine *const e = &hv_engine_kvm;

static void machine_open(void)
{
	static const struct dsm_range ram = { .first = 0, .count = RAM_PAGES };
	struct hv_engine_need need = { .named = true, .choose_faults = true, .cpu_features = "" };
	struct hv_vm_config cfg = { .cpuid = cpuid, .vcpus = 1, .ram = &ram, .ram_count = 1, .terms = &terms };
	struct dsm_config mem = { .nodes = 1, .ranges = &ram, .ranges_count = 1, .mapping = DSM_MAP_UFFD };
	struct hv_cpuid_config model = { .vcpus = 1, .features = "" };
	const char *why = "";
	uint8_t vectors[1024], hlt = 0xf4;

	if (e->probe(&why))
		cr_skip_test("%s", why);
	if (e->agree(&need, &terms))
		cr_skip_test("%s", terms.why);
	model.without = terms.without;
	cfg.cpuid_count = hv_cpuid_build(&model, cpuid);
	mem.faults = terms.faults;
	cr_assert_eq(dsm_open(&mem, &dsm), 0);
	cfg.dsm = dsm;
	cr_assert_eq(e->vm_open(&cfg, &vm), 0);
	cr_assert_eq(e->vcpu_open(vm, 0, &cpu), 0);
	for (unsigned v = 0; v < 256; v++)
		memcpy(vectors + 4 * v, (uint16_t[2]){ IDLE, 0 }, 4);
	cr_assert_eq(dsm_copy_out(dsm, 0, vectors, sizeof(vectors), UINT64_MAX), 0);
	cr_assert_eq(dsm_copy_out(dsm, IDLE, &hlt, 1, UINT64_MAX), 0);
}

static void machine_close(void)
{
	if (cpu)
		e->vcpu_close(cpu);
	if (vm)
		e->vm_close(vm);
	if (dsm) {
		dsm_stop(dsm);
		dsm_close(dsm);
	}
}

TestSuite(kvm_engine, .init = machine_open, .fini = machine_close, .timeout = 60);

static struct hv_cpu_state real_mode(void)
{
	struct hv_cpu_state st;

	e->get_state(cpu, &st);
	st.rip = CODE;
	st.seg[HV_CS].sel = 0;
	st.seg[HV_CS].base = 0;
	st.gpr[HV_RSP] = 0x8000;
	return st;
}

static void start(const void *code, size_t len, const struct hv_cpu_state *st)
{
	cr_assert_eq(dsm_copy_out(dsm, CODE, code, len, UINT64_MAX), 0);
	cr_assert_eq(e->set_state(cpu, st), 0);
}

#define START(st, ...)                                     \
	do {                                               \
		static const uint8_t code[] = { __VA_ARGS__ }; \
		start(code, sizeof(code), st);             \
	} while (0)

static struct hv_exit run(bool window)
{
	static struct hv_exit x;

	e->run(cpu, &x, window);
	cr_assert_neq(x.reason, HV_EXIT_ERROR, "%s", x.text);
	return x;
}

static struct hv_cpu_state state(void)
{
	struct hv_cpu_state st;

	e->get_state(cpu, &st);
	return st;
}

/* --- snapshot ---------------------------------------------------------------------------------------------------- */

Test(kvm_engine, reset_state_is_the_manuals)
{
	struct hv_cpu_state st = state();

	cr_assert_eq(st.rip, 0xfff0);
	cr_assert_eq(st.seg[HV_CS].base, 0xffff0000);
	cr_assert_eq(st.seg[HV_CS].sel, 0xf000);
	cr_assert_eq(st.rflags, 2);
	cr_assert_eq(st.cr0, 0x60000010);
	cr_assert_eq(st.gpr[HV_RDX], hv_cpuid_lookup(cpuid, HV_CPUID_MAX, 0, 1, 0).eax);
	cr_assert_eq(st.efer, 0);
	cr_assert_not(st.event_valid);
}

/* Every field that may hold anything. */
static struct hv_cpu_state filled(void)
{
	struct hv_cpu_state st = real_mode();

	for (unsigned k = 0; k < 16; k++)
		st.gpr[k] = 0x1111111111111111ull * k + k;
	st.rip = 0x1234;
	st.rflags = 0x246;
	st.seg[HV_DS] = (struct hv_seg){ .base = 0x5550, .limit = 0xffff, .sel = 0x555, .attr = 0x93 };
	st.gdt_base = 0x3000;
	st.gdt_limit = 0x77;
	st.idt_base = 0x3100;
	st.idt_limit = 0x3ff;
	st.cr2 = 0xdeadbeef000;
	st.cr8 = 5;
	st.dr[0] = 0x111;
	st.dr[3] = 0x333;
	st.star = 0x23001000000000;
	st.lstar = 0xffffffff81000000;
	st.cstar = 0xffffffff81000100;
	st.sfmask = 0x47700;
	st.kernel_gs_base = 0xffff888000000000;
	st.sysenter_cs = 0x10;
	st.sysenter_esp = 0x88801000; /* on AMD hosts KVM keeps 32 bits: there is no sysenter in 64-bit mode */
	st.sysenter_eip = 0x81000200;
	st.tsc_aux = 7;
	st.tsc_offset = terms.tsc_fixed ? 0 : 0 - __rdtsc();
	for (unsigned k = 0; k < 16; k++) /* xmm0-15: FXSAVE, SDM vol 2A */
		memset(st.fxsave + 160 + 16 * k, (int)(0x30 + k), 16);
	return st;
}

#define FIELD(f) { #f, offsetof(struct hv_cpu_state, f), sizeof(((struct hv_cpu_state *)0)->f) }
static const struct {
	const char *name;
	size_t at, len;
} fields[] = {
	FIELD(gpr),	       FIELD(rip),	     FIELD(rflags),	      FIELD(seg),
	FIELD(ldt),	       FIELD(tr),	     FIELD(gdt_base),	      FIELD(idt_base),
	FIELD(gdt_limit),      FIELD(idt_limit),     FIELD(cr0),	      FIELD(cr2),
	FIELD(cr3),	       FIELD(cr4),	     FIELD(cr8),	      FIELD(efer),
	FIELD(xcr0),	       FIELD(dr),	     FIELD(star),	      FIELD(lstar),
	FIELD(cstar),	       FIELD(sfmask),	     FIELD(kernel_gs_base),   FIELD(sysenter_cs),
	FIELD(sysenter_esp),   FIELD(sysenter_eip),  FIELD(pat),	      FIELD(tsc_aux),
	FIELD(misc_enable),    FIELD(mtrr_def_type), FIELD(tsc_offset),	      FIELD(fxsave[24]),
	FIELD(ymm_high),       FIELD(sti_shadow),    FIELD(nmi_blocked),      FIELD(nmi_latched),
	FIELD(event_valid),    FIELD(event_vector),  FIELD(event_has_error),  FIELD(event_type),
	FIELD(event_error),
};

static void assert_same(struct hv_cpu_state want)
{
	struct hv_cpu_state got = state();

	for (unsigned k = 0; k < ARRAY_LEN(fields); k++) {
		const char *g = (char *)&got + fields[k].at, *w = (char *)&want + fields[k].at;

		cr_assert_eq(memcmp(g, w, fields[k].len), 0, "%s is %llx, was %llx", fields[k].name,
			     *(const unsigned long long *)g, *(const unsigned long long *)w);
	}
	cr_assert_eq(memcmp(got.fxsave + 160, want.fxsave + 160, 256), 0, "xmm0-15");
}

Test(kvm_engine, a_state_comes_back_as_it_was_set)
{
	struct hv_cpu_state st = filled();

	cr_assert_eq(e->set_state(cpu, &st), 0);
	assert_same(st);
	st = state();
	cr_assert_eq(e->set_state(cpu, &st), 0);
	assert_same(st);
}

Test(kvm_engine, events_come_back_as_they_were_set)
{
	static const struct {
		bool valid, has_error;
		uint8_t vector, type;
		uint32_t error;
		bool shadow, blocked, latched;
	} rows[] = {
		{ .valid = true, .vector = 0x31, .type = 0 },
		{ .valid = true, .vector = 2, .type = 2, .blocked = true },
		{ .valid = true, .vector = 14, .type = 3, .has_error = true, .error = 2 },
		{ .valid = true, .vector = 6, .type = 3 },
		{ .shadow = true },
		{ .blocked = true, .latched = true },
		{ .valid = false },
	};

	for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
		struct hv_cpu_state st = filled();

		st.seg[HV_CS].sel = 0;
		st.cr0 |= 1; /* real mode has no error codes */
		st.event_valid = rows[k].valid;
		st.event_vector = rows[k].vector;
		st.event_type = rows[k].type;
		st.event_has_error = rows[k].has_error;
		st.event_error = rows[k].error;
		st.sti_shadow = rows[k].shadow;
		st.nmi_blocked = rows[k].blocked;
		st.nmi_latched = rows[k].latched;
		cr_assert_eq(e->set_state(cpu, &st), 0, "row %u", k);
		assert_same(st);
		st = state();
		cr_assert_eq(e->set_state(cpu, &st), 0, "row %u", k);
		assert_same(st);
	}
}

Test(kvm_engine, a_state_that_no_cpu_has_is_refused)
{
	struct hv_cpu_state st = real_mode();

	st.cr0 = 0x80000010; /* paging without protection */
	cr_assert_neq(e->set_state(cpu, &st), 0);
	st = real_mode();
	st.event_valid = true;
	st.event_type = 9;
	cr_assert_eq(e->set_state(cpu, &st), -EINVAL);
}

/* --- exits ------------------------------------------------------------------------------------------------------- */

Test(kvm_engine, string_output_is_one_exit_an_element)
{
	struct hv_cpu_state st = real_mode();

	st.gpr[HV_RSI] = CODE + 16;
	st.gpr[HV_RCX] = 3;
	st.gpr[HV_RDX] = 0x80;
	START(&st, 0xf3, 0x6f, /* rep outsw */ 0xf4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* data */ 1, 2, 3, 4, 5, 6);
	for (unsigned k = 0; k < 3; k++) {
		struct hv_exit x = run(false);

		cr_assert_eq(x.reason, HV_EXIT_PIO);
		cr_assert(x.write);
		cr_assert_eq(x.addr, 0x80);
		cr_assert_eq(x.size, 2);
		cr_assert_eq(x.data, 0x0201u + 0x0202u * k);
	}
	cr_assert_eq(run(false).reason, HV_EXIT_HLT);
	st = state();
	cr_assert_eq(st.rip, CODE + 3);
	cr_assert_eq(st.gpr[HV_RCX], 0);
}

Test(kvm_engine, an_access_across_device_pages_is_answered_in_pieces)
{
	struct hv_cpu_state st = real_mode();
	static struct hv_exit x;
	uint64_t seen = 0;
	unsigned at = 0;

	st.seg[HV_DS] = (struct hv_seg){ .base = 0x10000, .limit = 0xffff, .sel = 0x1000, .attr = 0x93 };
	START(&st, 0x66, 0xa1, 0xfd, 0x0f, /* mov eax, [0xffd] */ 0xf4);
	for (e->run(cpu, &x, false); x.reason == HV_EXIT_MMIO; e->run(cpu, &x, false)) {
		cr_assert_not(x.write);
		cr_assert_eq(x.addr, 0x10ffd + at);
		cr_assert(x.size == 1 || x.size == 2 || x.size == 4);
		x.data = 0x44332211ull >> (8 * at);
		at += x.size;
		seen++;
	}
	cr_assert_eq(x.reason, HV_EXIT_HLT);
	cr_assert_eq(at, 4);
	cr_assert(seen >= 2);
	cr_assert_eq((uint32_t)state().gpr[HV_RAX], 0x44332211u);
}

Test(kvm_engine, registers_of_the_lapic_leave_and_may_fault)
{
	struct hv_cpu_state st = real_mode();
	static struct hv_exit x;

	st.gpr[HV_RCX] = 0x802;
	START(&st, 0x0f, 0x32, /* rdmsr */ 0x66, 0x89, 0xc3, /* mov ebx, eax */ 0x66, 0x89, 0xd6, /* mov esi, edx */ 0x0f,
	      0x32, 0xf4);
	e->run(cpu, &x, false);
	cr_assert_eq(x.reason, HV_EXIT_MSR);
	cr_assert_eq(x.addr, 0x802);
	cr_assert_not(x.write);
	x.data = 0x1234567800000007;
	x.fault = false;
	e->run(cpu, &x, false);
	cr_assert_eq(x.reason, HV_EXIT_MSR); /* the second */
	x.fault = true;
	e->run(cpu, &x, false);
	cr_assert_eq(x.reason, HV_EXIT_HLT);
	st = state();
	cr_assert_eq(st.rip, IDLE + 1); /* #GP(0): its handler */
	cr_assert_eq((uint32_t)st.gpr[HV_RBX], 7);
	cr_assert_eq((uint32_t)st.gpr[HV_RSI], 0x12345678);
}

Test(kvm_engine, the_apic_base_is_the_monitors)
{
	struct hv_cpu_state st = real_mode();
	struct hv_exit x;

	st.gpr[HV_RCX] = 0x1b;
	START(&st, 0x0f, 0x30, /* wrmsr */ 0xf4);
	x = run(false);
	cr_assert_eq(x.reason, HV_EXIT_MSR);
	cr_assert(x.write);
	cr_assert_eq(x.addr, 0x1b);
}

/* KVM's clock, steal time and the like would be written behind the other nodes' back. */
Test(kvm_engine, kvms_own_registers_do_not_exist)
{
	static const uint32_t index[] = { 0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04 };

	for (unsigned k = 0; k < ARRAY_LEN(index); k++) {
		struct hv_cpu_state st = real_mode();
		struct hv_exit x;

		st.gpr[HV_RCX] = index[k];
		st.gpr[HV_RAX] = 0x3001;
		START(&st, 0x0f, 0x30, /* wrmsr */ 0xf4);
		x = run(false);
		cr_assert_eq(x.reason, HV_EXIT_MSR, "%x", index[k]); /* which the monitor answers with #GP */
		cr_assert_eq(x.addr, index[k]);
	}
}

/* --- kicks ------------------------------------------------------------------------------------------------------- */

Test(kvm_engine, a_kick_before_the_run_counts)
{
	struct hv_cpu_state st = real_mode();

	START(&st, 0xeb, 0xfe /* jmp to itself */);
	e->kick(cpu);
	cr_assert_eq(run(false).reason, HV_EXIT_KICKED);
}

static void *kicker(void *arg)
{
	struct timespec nap = { .tv_nsec = (long)(uintptr_t)arg };

	nanosleep(&nap, NULL);
	e->kick(cpu);
	return NULL;
}

Test(kvm_engine, no_kick_is_lost)
{
	struct hv_cpu_state st = real_mode();

	START(&st, 0xeb, 0xfe /* jmp to itself: without the kick this test never ends */);
	for (unsigned k = 0; k < 100; k++) {
		pthread_t t;

		cr_assert_eq(pthread_create(&t, NULL, kicker, (void *)(uintptr_t)(k * 2000)), 0);
		cr_assert_eq(run(false).reason, HV_EXIT_KICKED);
		pthread_join(t, NULL);
	}
}

/* --- interrupts -------------------------------------------------------------------------------------------------- */

Test(kvm_engine, the_window_opens_when_the_guest_takes_interrupts)
{
	struct hv_cpu_state st = real_mode();

	START(&st, 0x90, 0x90, 0xfb, /* sti */ 0x90, 0x90, 0xeb, 0xfe);
	cr_assert_not(e->irq_ready(cpu));
	cr_assert_eq(run(true).reason, HV_EXIT_IRQ_WINDOW);
	cr_assert(e->irq_ready(cpu));
	cr_assert_geq(state().rip, CODE + 4); /* not in the shadow of sti */
	e->inject_irq(cpu, 0x20);
	cr_assert_not(e->irq_ready(cpu));
	cr_assert_eq(run(false).reason, HV_EXIT_HLT);
	cr_assert_eq(state().rip, IDLE + 1);
}

Test(kvm_engine, an_interrupt_waits_for_the_instruction_that_is_answered)
{
	struct hv_cpu_state st = real_mode();
	static struct hv_exit x;
	uint16_t stacked;

	st.rflags |= 0x200;
	st.gpr[HV_RAX] = 0;
	START(&st, 0xe4, 0x60, /* in al, 0x60 */ 0x90, 0xeb, 0xfe);
	e->run(cpu, &x, false);
	cr_assert_eq(x.reason, HV_EXIT_PIO);
	x.data = 0x5a;
	cr_assert(e->irq_ready(cpu));
	e->inject_irq(cpu, 0x21);
	e->run(cpu, &x, false);
	cr_assert_eq(x.reason, HV_EXIT_HLT);
	st = state();
	cr_assert_eq(st.gpr[HV_RAX], 0x5a);
	cr_assert_eq(st.rip, IDLE + 1);
	cr_assert_eq(dsm_copy_in(dsm, &stacked, st.gpr[HV_RSP] & 0xffff, 2, UINT64_MAX), 0);
	cr_assert_eq(stacked, CODE + 2); /* behind the instruction */
}

Test(kvm_engine, an_nmi_ends_a_loop_without_interrupts)
{
	struct hv_cpu_state st = real_mode();

	START(&st, 0xeb, 0xfe);
	cr_assert(e->nmi_ready(cpu));
	e->inject_nmi(cpu);
	cr_assert_eq(run(false).reason, HV_EXIT_HLT);
	st = state();
	cr_assert_eq(st.rip, IDLE + 1);
	cr_assert(st.nmi_blocked);
}

Test(kvm_engine, cr8_is_shared)
{
	struct hv_cpu_state st = real_mode();

	START(&st, 0xf4);
	e->set_tpr(cpu, 9);
	cr_assert_eq(run(false).reason, HV_EXIT_HLT);
	cr_assert_eq(e->get_tpr(cpu), 9);
	cr_assert_eq(state().cr8, 9);
}

/* --- another state in the middle --------------------------------------------------------------------------------- */

Test(kvm_engine, a_new_state_forgets_the_access_under_way)
{
	struct hv_cpu_state st = real_mode();

	st.gpr[HV_RDI] = 0x4000;
	st.gpr[HV_RCX] = 5;
	st.gpr[HV_RDX] = 0x80;
	START(&st, 0xf3, 0x6c /* rep insb */);
	cr_assert_eq(run(false).reason, HV_EXIT_PIO);
	st.gpr[HV_RCX] = 77;
	START(&st, 0xf4);
	cr_assert_eq(run(false).reason, HV_EXIT_HLT);
	st = state();
	cr_assert_eq(st.rip, CODE + 1);
	cr_assert_eq(st.gpr[HV_RCX], 77);
}
