/* SPDX-License-Identifier: Apache-2.0 */
/* Page walks, error codes, A and D bits, rights, the TLB and MMIO of the bt engine. */
#include "bt_fixture.h"

#define VA 0x7f0000400000ull
#define PAGE_A 0x150000u
#define PAGE_B 0x160000u

static enum bt_res read_as(gva_t va, bool user)
{
	uint8_t v;

	return bt_mem_read_as(fx.c, va, &v, 1, user ? AS_USER : 0);
}

static enum bt_res write_as(gva_t va, bool user)
{
	uint8_t v = 1;

	return bt_mem_write_as(fx.c, va, &v, 1, user ? AS_USER : 0);
}

Test(bt_mmu, no_paging)
{
	struct bt_cpu *c = fx_cpu();
	uint64_t v = 0x1122334455667788ull, w = 0;
	void *host;

	cr_assert_eq(bt_mem_write(c, 0x1ffc, &v, 8), BT_OK); /* crosses */
	cr_assert_eq(bt_mem_read(c, 0x1ffc, &w, 8), BT_OK);
	cr_assert_eq(w, v);
	cr_assert_eq(bt_mmu_host(c, 0x1000, 8, BT_READ, &host), BT_OK);
	cr_assert_eq(host, fx.ram + 0x1000);
	cr_assert_eq(bt_mmu_host(c, FX_RAM + 8, 4, BT_READ, &host), BT_MMIO);
	cr_assert_eq(c->mmio.gpa, FX_RAM + 8);
}

Test(bt_mmu, accessed_and_dirty)
{
	gpa_t pte, pde;

	fx_long();
	pte = fx_map(VA, PAGE_A, PT_W);
	pde = fx_pte(VA, 2);
	put64(pde, ram64(pde) & ~PT_A);
	cr_assert_eq(read_as(VA, false), BT_OK);
	cr_assert_eq(ram64(pte) & (PT_A | PT_D), PT_A);
	cr_assert_eq(ram64(pde) & (PT_A | PT_D), PT_A);
	cr_assert_eq(fx.c->tlb[0].tag_read[tlb_index(VA)], VA);
	cr_assert_eq(fx.c->tlb[0].tag_write[tlb_index(VA)], BT_TLB_NONE,
		     "D is not set: no write entry");
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(ram64(pte) & (PT_A | PT_D), PT_A | PT_D);
	cr_assert_eq(fx.c->tlb[0].tag_write[tlb_index(VA)], VA);
	cr_assert_eq(fx.ram[PAGE_A], 1);
}

Test(bt_mmu, a_walk_is_a_read)
{
	gpa_t pte;

	fx_long();
	pte = fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	fx.right[pte >> 12] = DSM_NONE;
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(fx.acquired[pte >> 12][DSM_READ], 1);
	cr_assert_eq(fx.acquired[pte >> 12][DSM_WRITE], 0);
	/* only when a bit has to be set */
	put64(pte, ram64(pte) & ~PT_D);
	bt_tlb_flush_all(fx.c);
	cr_assert_eq(read_as(VA, false), BT_OK);
	cr_assert_eq(fx.acquired[pte >> 12][DSM_WRITE], 0);
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(fx.acquired[pte >> 12][DSM_WRITE], 1);
	cr_assert(ram64(pte) & PT_D);
}

Test(bt_mmu, error_codes)
{
	struct bt_cpu *c = fx_long();
	gpa_t pte = fx_map(VA, PAGE_A, PT_W | PT_U), gpa;

	put64(pte, 0);
	cr_assert_eq(read_as(VA + 5, false), BT_FAULT);
	cr_assert_eq(c->exc.cr2, VA + 5);
	fx_expect_fault(EXC_PF, 0);
	cr_assert_eq(write_as(VA, true), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_W | PF_U);
	c->cpl = 3;
	cr_assert_eq(bt_mmu_fetch(c, VA, &gpa), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_U | PF_I);
	c->efer &= ~EFER_NXE;
	cr_assert_eq(bt_mmu_fetch(c, VA, &gpa), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_U);

	put64(pte, PAGE_A | PT_P | PT_W | PT_NX); /* reserved without NXE */
	cr_assert_eq(read_as(VA, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
	c->efer |= EFER_NXE;
	cr_assert_eq(read_as(VA, false), BT_OK);
	cr_assert_eq(read_as(VA, true), BT_FAULT); /* supervisor page */
	fx_expect_fault(EXC_PF, PF_P | PF_U);
	c->cpl = 0;
	cr_assert_eq(bt_mmu_fetch(c, VA, &gpa), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_I);

	put64(pte, PAGE_A | PT_P | PT_U); /* read only */
	bt_tlb_flush_all(c);
	cr_assert_eq(write_as(VA, true), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_W | PF_U);
	cr_assert_eq(write_as(VA, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_W);
	c->cr0 &= ~CR0_WP;
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(write_as(VA, true), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_W | PF_U);

	put64(pte, PAGE_A | PT_P | PT_W | 1ull << 45); /* above 40 bits */
	bt_tlb_flush_all(c);
	cr_assert_eq(read_as(VA, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
	/* a table outside RAM reads as not present */
	put64(fx_pte(VA, 2), FX_RAM | PT_P | PT_W | PT_U);
	cr_assert_eq(read_as(VA, false), BT_FAULT);
	fx_expect_fault(EXC_PF, 0);
}

Test(bt_mmu, canonical)
{
	fx_long();
	cr_assert_eq(read_as(1ull << 47, false), BT_FAULT);
	fx_expect_fault(EXC_GP, 0);
	cr_assert_eq(bt_mem_read_as(fx.c, 1ull << 47, &(uint8_t){ 0 }, 1, AS_STACK), BT_FAULT);
	fx_expect_fault(EXC_SS, 0);
}

Test(bt_mmu, large_pages)
{
	struct bt_cpu *c = fx_long();
	gva_t two = 0x40000000ull, giga = 0x8000000000ull;

	put64(fx_pte(two, 2), 0x200000 | PT_P | PT_W | PT_PS);
	put64(fx_pte(giga, 3), 0 | PT_P | PT_W | PT_PS);
	fx.ram[0x2f1234] = 0x77;
	for (unsigned k = 0; k < 2; k++) {
		uint8_t v = 0;

		cr_assert_eq(bt_mem_read(c, k ? giga + 0x2f1234 : two + 0xf1234, &v, 1), BT_OK);
		cr_assert_eq(v, 0x77);
	}
	cr_assert_eq(write_as(two + 0xf1234, false), BT_OK);
	cr_assert_eq(ram64(fx_pte(two, 2)) & (PT_A | PT_D), PT_A | PT_D);
	/* invlpg of any address in it drops all of it */
	cr_assert(bt_tlb_flush_va(c, two));
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(two + 0xf1234)], BT_TLB_NONE);
	cr_assert_eq(read_as(giga + 0x5000, false), BT_OK);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(giga + 0x5000)], giga + 0x5000);
	cr_assert(bt_tlb_flush_va(c, giga + 0x3fffffff));
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(giga + 0x5000)], BT_TLB_NONE);
	/* reserved address bits of a large page */
	put64(fx_pte(two, 2), 0x202000 | PT_P | PT_W | PT_PS);
	cr_assert_eq(read_as(two, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
	put64(fx_pte(giga, 4), ram64(fx_pte(giga, 4)) | PT_PS);
	bt_tlb_flush_all(c);
	cr_assert_eq(read_as(giga, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
}

Test(bt_mmu, legacy_paging)
{
	struct bt_cpu *c = fx_protected();
	uint8_t v;

	c->cr3 = 0x10000;
	c->cr4 = CR4_PSE;
	c->cr0 |= CR0_PG | CR0_WP;
	put32(0x10000 + 4 * 4, 0x11000 | PT_P | PT_W | PT_U);   /* 0x01000000 */
	put32(0x11000 + 4 * 3, PAGE_A | PT_P | PT_W);           /* 0x01003000 */
	put32(0x10000 + 4 * 5, 0x400000 | PT_P | PT_W | PT_PS); /* 0x01400000: 4M */
	fx.ram[PAGE_A + 9] = 0x31;
	fx.ram[0x400000 + 0x1009] = 0x32;
	cr_assert_eq(bt_mem_read(c, 0x01003009, &v, 1), BT_OK);
	cr_assert_eq(v, 0x31);
	cr_assert_eq(bt_mem_read(c, 0x01401009, &v, 1), BT_OK);
	cr_assert_eq(v, 0x32);
	cr_assert_eq(ram32(0x11000 + 12) & PT_A, PT_A);
	cr_assert_eq(ram32(0x10000 + 20) & (PT_A | PT_D), PT_A);
	cr_assert_eq(read_as(0x01003009, true), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_U);
	put32(0x10000 + 4 * 6, 0x400000 | PT_P | PT_W | PT_PS | 1u << 21);
	cr_assert_eq(read_as(0x01800000, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
}

Test(bt_mmu, pae_paging)
{
	struct bt_cpu *c = fx_protected();
	uint8_t v;

	c->cr3 = 0x10020;
	c->cr4 = CR4_PAE;
	c->cr0 |= CR0_PG | CR0_WP;
	c->efer = EFER_NXE;
	put64(0x10020 + 8 * 1, 0x11000 | PT_P); /* 0x40000000 */
	put64(0x11000, 0x12000 | PT_P | PT_W | PT_U);
	put64(0x12000 + 8 * 2, PAGE_A | PT_P | PT_W | PT_U | PT_NX); /* 0x40002000 */
	put64(0x11000 + 8, 0x400000 | PT_P | PT_PS);                 /* 0x40200000 */
	fx.ram[PAGE_A + 1] = 0x41;
	fx.ram[0x400002] = 0x42;
	cr_assert_eq(bt_mem_read_as(c, 0x40002001, &v, 1, AS_USER), BT_OK);
	cr_assert_eq(v, 0x41);
	cr_assert_eq(bt_mem_read(c, 0x40200002, &v, 1), BT_OK);
	cr_assert_eq(v, 0x42);
	cr_assert_eq(ram64(0x10028), (0x11000 | PT_P), "a PDPTE has no A bit");
	cr_assert_eq(write_as(0x40200002, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_W);
	put64(0x12000 + 8 * 3, PAGE_A | PT_P | 1ull << 60); /* ignored in 64-bit mode, reserved here */
	cr_assert_eq(read_as(0x40003000, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
	put64(0x10020, 0x11000 | PT_P | PT_W);
	cr_assert_eq(read_as(0, false), BT_FAULT);
	fx_expect_fault(EXC_PF, PF_P | PF_RSVD);
}

Test(bt_mmu, code_pages_get_no_write_entry)
{
	uint32_t v = 0xabcd;

	fx_long();
	fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	fx.code[PAGE_A >> 12] = true;
	cr_assert_eq(bt_mem_write(fx.c, VA + 16, &v, 4), BT_OK);
	cr_assert_eq(fx.c->tlb[0].tag_write[tlb_index(VA)], BT_TLB_NONE);
	cr_assert_eq(fx.wrote, 1);
	cr_assert_eq(fx.wrote_gpa, PAGE_A + 16);
	cr_assert_eq(fx.wrote_len, 4);
	cr_assert_eq(ram32(PAGE_A + 16), 0xabcd);
}

Test(bt_mmu, drops)
{
	struct bt_cpu *c = fx_long();
	unsigned k = tlb_index(VA);
	gpa_t gpa;

	fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(bt_mmu_fetch(c, VA, &gpa), BT_OK);
	cr_assert_eq(gpa, PAGE_A);
	bt_tlb_drop(c, PAGE_A >> 12, DSM_READ);
	cr_assert_eq(c->tlb[0].tag_write[k], BT_TLB_NONE);
	cr_assert_eq(c->tlb[0].tag_read[k], VA);
	cr_assert_eq(fx.dropped, 0);
	bt_tlb_drop(c, PAGE_A >> 12, DSM_NONE);
	cr_assert_eq(c->tlb[0].tag_read[k], BT_TLB_NONE);
	cr_assert_eq(c->itlb[0].tag[k], BT_TLB_NONE);
	cr_assert_eq(fx.dropped, 1);
}

Test(bt_mmu, read_right_gives_read_entry)
{
	fx_long();
	fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	fx.right[PAGE_A >> 12] = DSM_READ;
	cr_assert_eq(read_as(VA, false), BT_OK);
	cr_assert_eq(fx.acquires, 0);
	cr_assert_eq(fx.c->tlb[0].tag_write[tlb_index(VA)], BT_TLB_NONE);
	cr_assert_eq(write_as(VA, false), BT_OK);
	cr_assert_eq(fx.acquired[PAGE_A >> 12][DSM_WRITE], 1);
	cr_assert_eq(fx.c->tlb[0].tag_write[tlb_index(VA)], VA);
}

Test(bt_mmu, both_pages_in_one_active_period)
{
	struct bt_cpu *c = fx_long();
	uint64_t v = 0x8877665544332211ull, w, q;

	fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	fx_map(VA + PAGE_SIZE, PAGE_B, PT_W | PT_A | PT_D);
	fx.right[PAGE_B >> 12] = DSM_NONE;
	fx.steal_for = PAGE_B >> 12;
	fx.stolen = PAGE_A >> 12;
	fx.steals = 3;
	/* each acquire of B costs A, whose acquire costs nothing: the second round has both */
	cr_assert_eq(bt_mem_write(c, VA + PAGE_SIZE - 3, &v, 8), BT_OK);
	cr_assert_eq(fx.right[PAGE_A >> 12], DSM_WRITE);
	cr_assert_eq(fx.right[PAGE_B >> 12], DSM_WRITE);
	cr_assert_geq(fx.acquired[PAGE_A >> 12][DSM_WRITE], 1);
	cr_assert_eq(bt_mem_read(c, VA + PAGE_SIZE - 3, &w, 8), BT_OK);
	cr_assert_eq(w, v);
	fx.right[PAGE_B >> 12] = DSM_NONE;
	bt_tlb_drop(c, PAGE_B >> 12, DSM_NONE);
	cr_assert_eq(bt_mem_probe(c, VA + 1, 2 * PAGE_SIZE - 2, BT_WRITE), BT_OK);
	q = c->quiesced;
	cr_assert_eq(bt_mem_write(c, VA + PAGE_SIZE - 3, &v, 8), BT_OK);
	cr_assert_eq(c->quiesced, q, "after a probe a write does not leave");
}

Test(bt_mmu, lost)
{
	fx_long();
	fx_map(VA, PAGE_A, PT_W | PT_A | PT_D);
	fx.right[PAGE_A >> 12] = DSM_NONE;
	fx.lost = true;
	cr_assert_eq(read_as(VA, false), BT_EXIT);
	cr_assert(fx.c->exit_pending);
	cr_assert_eq(fx.exit.reason, HV_EXIT_LOST);
	cr_assert(fx.c->active);
}

Test(bt_mmu, global_entries)
{
	struct bt_cpu *c = fx_long();

	fx_map(VA, PAGE_A, PT_A | PT_G);
	fx_map(VA + PAGE_SIZE, PAGE_B, PT_A);
	cr_assert_eq(read_as(VA, false), BT_OK);
	cr_assert_eq(read_as(VA + PAGE_SIZE, false), BT_OK);
	bt_tlb_flush_nonglobal(c);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(VA)], VA);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(VA + PAGE_SIZE)], BT_TLB_NONE);
	bt_tlb_flush_page(c, VA);
	cr_assert_eq(c->tlb[0].tag_read[tlb_index(VA)], BT_TLB_NONE);
}

Test(bt_mmu, mmio)
{
	struct bt_cpu *c = fx_long();
	uint32_t v = 0;
	uint64_t w = 0;

	fx_map(VA, 0xfed00000, PT_W | PT_A | PT_D);
	cr_assert_eq(bt_mem_read(c, VA + 0x10, &v, 4), BT_EXIT);
	cr_assert_eq(fx.exit.reason, HV_EXIT_MMIO);
	cr_assert_eq(fx.exit.addr, 0xfed00010);
	cr_assert_eq(fx.exit.size, 4);
	cr_assert(!fx.exit.write);
	c->exit_pending = false;
	c->mmio.data = 0x12345678;
	c->mmio.ready = true;
	cr_assert_eq(bt_mem_read(c, VA + 0x10, &v, 4), BT_OK);
	cr_assert_eq(v, 0x12345678);
	cr_assert_eq(bt_mem_read(c, VA + 0x10, &v, 4), BT_EXIT, "an answer serves once");
	c->mmio.ready = true;
	cr_assert_eq(bt_mem_write(c, VA + 0x10, &v, 4), BT_EXIT, "and only what was asked");
	cr_assert(fx.exit.write);
	cr_assert_eq(fx.exit.data, 0x12345678);
	c->mmio.ready = true;
	cr_assert_eq(bt_mem_write(c, VA + 0x10, &v, 4), BT_OK);
	/* what no device is asked for gives ones */
	c->exit_pending = false;
	cr_assert_eq(bt_mem_read(c, VA + 0xffc, &w, 8), BT_FAULT); /* second page not mapped */
	fx_expect_fault(EXC_PF, 0);
	fx_map(VA + PAGE_SIZE, PAGE_A, PT_A);
	cr_assert_eq(bt_mem_read(c, VA + 0xffc, &w, 8), BT_OK);
	cr_assert_eq(w, 0xffffffffull);
	cr_assert_eq(bt_mem_read_as(c, VA, &v, 4, AS_SYSTEM), BT_OK);
	cr_assert_eq(v, 0xffffffffu);
	cr_assert(!c->exit_pending);
}
