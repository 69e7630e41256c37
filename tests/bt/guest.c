/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bt/guest.c - see guest.h.  One thread. */
#include "guest.h"

#include "base/assert.h"
#include "fake_dsm.h"

#include <stdio.h>
#include <string.h>

#define PML4 0x1000ull
#define GDT 0x2000ull
#define IDT 0x3000ull
#define TSS 0x4000ull
#define TABLES 0x10000ull

static uint64_t *table(struct guest *g, uint64_t *entry)
{
	if (!(*entry & 1)) {
		*entry = g->next_table | 7;
		g->next_table += PAGE_SIZE;
		ASSERT(g->next_table <= GUEST_HANDLERS);
	}
	return (uint64_t *)(void *)(g->ram + (*entry & PAGE_MASK));
}

void guest_map(struct guest *g, gva_t va, gpa_t gpa, uint64_t bytes, uint64_t flags)
{
	for (uint64_t at = 0; at < bytes; at += PAGE_SIZE) {
		uint64_t *t = (uint64_t *)(void *)(g->ram + PML4);

		for (unsigned shift = 39; shift > 12; shift -= 9)
			t = table(g, &t[(va + at) >> shift & 511]);
		t[(va + at) >> 12 & 511] = (gpa + at) | flags;
	}
}

static bool has_error(unsigned v)
{
	return v == 8 || (v >= 10 && v <= 14) || v == 17;
}

static void tables(struct guest *g)
{
	uint64_t *gdt = (uint64_t *)(void *)(g->ram + GDT);

	gdt[1] = 0x00af9b000000ffffull; /* 08: code 64 */
	gdt[2] = 0x00cf93000000ffffull; /* 10: data */
	gdt[3] = 0x00cffb000000ffffull; /* 18: code 32 user */
	gdt[4] = 0x00cff3000000ffffull; /* 20: data user */
	gdt[5] = 0x00affb000000ffffull; /* 28: code 64 user */
	gdt[6] = TSS << 16 | 0x67 | 0x89ull << 40;
	memcpy(g->ram + TSS + 36, &(uint64_t){GUEST_IST_TOP}, 8); /* IST1 */
	memcpy(g->ram + TSS + 4, &(uint64_t){GUEST_IST_TOP}, 8);  /* RSP0 */
	for (unsigned v = 0; v < 256; v++) {
		uint64_t h = GUEST_HANDLERS + 16 * v;
		uint64_t lo = (h & 0xffff) | 8ull << 16 | 1ull << 32 | 0xeeull << 40 | (h >> 16 & 0xffff) << 48;

		memcpy(g->ram + IDT + 16 * v, &lo, 8);
		memcpy(g->ram + IDT + 16 * v + 8, &(uint64_t){h >> 32}, 8);
		g->ram[h] = 0xf4;
	}
	g->next_table = TABLES;
	guest_map(g, 0, 0, GUEST_FREE, GUEST_RW);
}

void guest_open(struct guest *g, uint64_t ram_bytes, unsigned vcpus)
{
	static const struct hv_cpuid_entry cpuid[] = {
		{.leaf = 0, .eax = 7},
		{.leaf = 1, .eax = 0x800f10, .edx = 0x178bfbff, .ecx = 0x80982201},
		{.leaf = 0x80000000, .eax = 0x80000008},
		{.leaf = 0x80000001, .ecx = 1, .edx = 0x2fd3fbff},
		{.leaf = 0x80000008, .eax = 0x3028},
	};
	struct hv_vm_config cfg = {.cpuid = cpuid, .cpuid_count = ARRAY_LEN(cpuid), .vcpus = vcpus};
	int r;

	memset(g, 0, sizeof(*g));
	g->dsm = fake_dsm_open(ram_bytes);
	g->ram = dsm_alias(g->dsm);
	cfg.dsm = g->dsm;
	r = hv_engine_bt.vm_open(&cfg, &g->vm);
	ASSERT(r == 0);
	for (g->vcpus = 0; g->vcpus < vcpus; g->vcpus++) {
		r = hv_engine_bt.vcpu_open(g->vm, g->vcpus, &g->vcpu[g->vcpus]);
		ASSERT(r == 0);
	}
	tables(g);
}

void guest_close(struct guest *g)
{
	for (unsigned k = 0; k < g->vcpus; k++)
		hv_engine_bt.vcpu_close(g->vcpu[k]);
	hv_engine_bt.vm_close(g->vm);
	fake_dsm_close(g->dsm);
}

void guest_state(struct guest *g, struct hv_cpu_state *s, uint64_t rip, uint64_t rsp, bool user)
{
	struct hv_seg data = {.limit = 0xffffffff, .sel = user ? 0x23 : 0x10, .attr = user ? 0xc0f3 : 0xc093};

	hv_engine_bt.get_state(g->vcpu[0], s);
	s->rip = rip;
	s->rflags = 2;
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[HV_RSP] = rsp;
	for (unsigned k = 0; k < 6; k++)
		s->seg[k] = data;
	s->seg[HV_CS] = (struct hv_seg){.limit = 0xffffffff, .sel = user ? 0x2b : 8, .attr = user ? 0xa0fb : 0xa09b};
	s->tr = (struct hv_seg){.base = TSS, .limit = 0x67, .sel = 0x30, .attr = 0x8b};
	s->ldt = (struct hv_seg){.attr = 0x82};
	s->gdt_base = GDT;
	s->gdt_limit = 8 * 8 - 1;
	s->idt_base = IDT;
	s->idt_limit = 4095;
	s->cr0 = 0x80050033;
	s->cr3 = PML4;
	s->cr4 = 0x620;
	s->efer = 0xd01;
	s->xcr0 = 1;
}

int guest_run(struct guest *g, unsigned cpu, const struct hv_cpu_state *in, struct hv_cpu_state *out)
{
	struct hv_exit x = {0};
	int r = hv_engine_bt.set_state(g->vcpu[cpu], in);

	ASSERT(r == 0);
	do {
		hv_engine_bt.run(g->vcpu[cpu], &x, false);
	} while (x.reason == HV_EXIT_KICKED);
	hv_engine_bt.get_state(g->vcpu[cpu], out);
	if (x.reason != HV_EXIT_HLT) {
		fprintf(stderr, "exit %d %s addr %llx at rip %llx\n", x.reason, x.text ? x.text : "",
			(unsigned long long)x.addr, (unsigned long long)out->rip);
		return -2;
	}
	if (out->rip - 1 >= GUEST_HANDLERS && out->rip - 1 < GUEST_HANDLERS + 16 * 256)
		return (int)((out->rip - 1 - GUEST_HANDLERS) / 16);
	return -1;
}

void guest_frame(struct guest *g, int vector, uint64_t *rip, uint64_t *rflags, uint64_t *rsp, uint64_t *error)
{
	const uint64_t *top = (const uint64_t *)(const void *)(g->ram + GUEST_IST_TOP);

	*rip = top[-5];
	*rflags = top[-3];
	*rsp = top[-2];
	*error = has_error((unsigned)vector) ? top[-6] : 0;
}
