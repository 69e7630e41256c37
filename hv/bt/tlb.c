/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/tlb.c - the software TLB of one vCPU and its life as a reader of the shared memory.
 *
 * What      Data entries give host addresses with rights, code entries give frames.  An entry never
 * says more than the DSM right it was made from: drops from the DSM take it away again. Threads The
 * vCPU thread; bt_tlb_drop is called from dsm_reader_enter and dsm_reader_poll on it. I/O None.
 * Limits    Large guest pages are held as 4K pieces; invlpg finds the pieces through a small hash.
 */
#include "hv/bt/sysint.h"

void bt_cpu_enter(struct bt_cpu *c)
{
	dsm_reader_enter(c->reader, bt_tlb_drop, c);
	c->active = true;
}

void bt_cpu_leave(struct bt_cpu *c)
{
	c->active = false;
	c->quiesced++;
	dsm_reader_leave(c->reader);
}

static void note_large(struct bt_cpu *c, gva_t page, uint8_t flags)
{
	if (flags & BT_TLB_2M)
		c->tlb_large[0] |= 1ull << ((page >> 21) & 63);
	if (flags & BT_TLB_BIG)
		c->tlb_large[1] |= 1ull << ((page >> 30) & 63);
}

void bt_tlb_fill(struct bt_cpu *c, gva_t page, bool user, const struct mmu_map *m)
{
	struct bt_tlb *t = &c->tlb[user];
	unsigned k = tlb_index(page);

	t->tag_read[k] = page;
	t->tag_write[k] = m->writable ? page : BT_TLB_NONE;
	t->addend[k] = (uint64_t)(c->alias + (m->gfn << PAGE_SHIFT)) - page;
	t->gfn[k] = m->gfn;
	t->flags[k] = m->flags;
	note_large(c, page, m->flags);
}

void bt_itlb_fill(struct bt_cpu *c, gva_t page, bool user, const struct mmu_map *m)
{
	struct bt_itlb *t = &c->itlb[user];
	unsigned k = tlb_index(page);

	t->tag[k] = page;
	t->gfn[k] = m->gfn;
	t->flags[k] = m->flags;
	note_large(c, page, m->flags);
}

void bt_tlb_flush_all(struct bt_cpu *c)
{
	for (unsigned u = 0; u < 2; u++) {
		fill_bytes(c->tlb[u].tag_read, 0xff, sizeof(c->tlb[u].tag_read));
		fill_bytes(c->tlb[u].tag_write, 0xff, sizeof(c->tlb[u].tag_write));
		fill_bytes(c->itlb[u].tag, 0xff, sizeof(c->itlb[u].tag));
	}
	c->tlb_large[0] = 0;
	c->tlb_large[1] = 0;
}

void bt_tlb_flush_nonglobal(struct bt_cpu *c)
{
	for (unsigned u = 0; u < 2; u++) {
		struct bt_tlb *t = &c->tlb[u];
		struct bt_itlb *x = &c->itlb[u];

		for (unsigned k = 0; k < BT_TLB_SIZE; k++) {
			if (!(t->flags[k] & BT_TLB_GLOBAL))
				t->tag_read[k] = t->tag_write[k] = BT_TLB_NONE;
			if (!(x->flags[k] & BT_TLB_GLOBAL))
				x->tag[k] = BT_TLB_NONE;
		}
	}
}

/* Drops every piece of a large page in the region of va. */
static void flush_region(struct bt_cpu *c, gva_t va, uint8_t flag, unsigned shift)
{
	for (unsigned u = 0; u < 2; u++) {
		struct bt_tlb *t = &c->tlb[u];
		struct bt_itlb *x = &c->itlb[u];

		for (unsigned k = 0; k < BT_TLB_SIZE; k++) {
			if ((t->flags[k] & flag) && (t->tag_read[k] ^ va) >> shift == 0)
				t->tag_read[k] = t->tag_write[k] = BT_TLB_NONE;
			if ((x->flags[k] & flag) && (x->tag[k] ^ va) >> shift == 0)
				x->tag[k] = BT_TLB_NONE;
		}
	}
}

bool bt_tlb_flush_va(struct bt_cpu *c, gva_t va)
{
	gva_t page;
	unsigned k;
	bool large = false;

	if (!cpu_lma(c))
		va &= 0xffffffffu;
	page = va & PAGE_MASK;
	k = tlb_index(va);
	for (unsigned u = 0; u < 2; u++) {
		if (c->tlb[u].tag_read[k] == page)
			c->tlb[u].tag_read[k] = c->tlb[u].tag_write[k] = BT_TLB_NONE;
		if (c->itlb[u].tag[k] == page)
			c->itlb[u].tag[k] = BT_TLB_NONE;
	}
	if (c->tlb_large[0] & 1ull << ((va >> 21) & 63)) {
		flush_region(c, va, BT_TLB_2M, 21);
		large = true;
	}
	if (c->tlb_large[1] & 1ull << ((va >> 30) & 63)) {
		flush_region(c, va, BT_TLB_BIG, 30);
		large = true;
	}
	return large;
}

void bt_tlb_flush_page(struct bt_cpu *c, gva_t va)
{
	bt_tlb_flush_va(c, va);
}

void bt_tlb_drop(void *cpu, gfn_t gfn, enum dsm_right right)
{
	struct bt_cpu *c = cpu;

	if (gfn == DSM_ALL) {
		bt_tlb_flush_all(c);
	} else {
		for (unsigned u = 0; u < 2; u++) {
			struct bt_tlb *t = &c->tlb[u];

			for (unsigned k = 0; k < BT_TLB_SIZE; k++) {
				if (t->gfn[k] != gfn)
					continue;
				if (right < DSM_WRITE)
					t->tag_write[k] = BT_TLB_NONE;
				if (right < DSM_READ)
					t->tag_read[k] = BT_TLB_NONE;
			}
			for (unsigned k = 0; k < BT_TLB_SIZE && right < DSM_READ; k++) {
				if (c->itlb[u].gfn[k] == gfn)
					c->itlb[u].tag[k] = BT_TLB_NONE;
			}
		}
	}
	if (right == DSM_NONE)
		bt_cache_drop_gfn(c, gfn);
}
