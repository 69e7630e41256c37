/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/mmu.c - from linear addresses to bytes: page walks, rights on shared pages, MMIO.
 *
 * What      SDM vol 3 chapter 4: no paging, 32-bit, PAE, 4-level.  A walk is a read of the tables;
 * only an entry whose A or D bit is not yet set is written (locked), which needs write right on its
 * page. Threads   The vCPU thread, active as a DSM reader. I/O       dsm_acquire when a page is not
 * held; the guest FPU state is parked and the reader left for it. Limits    No SMEP, SMAP, PKU,
 * PCID, LA57 (CR4 refuses them).  PAE PDPTEs are read at each walk, as AMD does. Page tables
 * outside RAM read as not present.
 */
#include "hv/bt/sysint.h"

#include "base/clock.h"

#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PDPTE_PAE_RSVD 0x1e6ull

#define ACQUIRE_NS (30 * NS_PER_S)

void bt_exit(struct bt_cpu *c, enum hv_exit_reason reason)
{
	c->exit->reason = reason;
	c->exit_pending = true;
}

enum bt_res bt_mmu_right(struct bt_cpu *c, gfn_t gfn, enum dsm_right right, bool *again)
{
	int err;

	if (dsm_reader_right(c->reader, gfn) >= right)
		return BT_OK;
	*again = true;
	bt_fpu_park(c);
	bt_cpu_leave(c);
	do {
		err = dsm_acquire(c->dsm, gfn, right, clock_now_ns() + ACQUIRE_NS);
	} while (err == -ETIMEDOUT);
	bt_cpu_enter(c);
	if (err == 0)
		return BT_OK;
	bt_exit(c, HV_EXIT_LOST);
	return BT_EXIT;
}

/* --- page walk --- */
struct walk {
	gva_t va;
	enum bt_access access;
	bool user;
	bool lma, legacy; /* neither: PAE */
	unsigned n;
	struct {
		gpa_t gpa;
		uint64_t entry;
		bool no_a; /* PAE PDPTE: has no A bit */
	} step[4];
};

static enum bt_res pte_read(struct bt_cpu *c, gpa_t gpa, unsigned size, uint64_t *v, bool *again)
{
	enum bt_res r;

	if (!dsm_is_ram(c->dsm, gpa >> PAGE_SHIFT)) {
		*v = 0;
		return BT_OK;
	}
	r = bt_mmu_right(c, gpa >> PAGE_SHIFT, DSM_READ, again);
	if (r == BT_OK && !*again)
		*v = size == 4 ? __atomic_load_n((uint32_t *)(c->alias + gpa), __ATOMIC_ACQUIRE)
			       : __atomic_load_n((uint64_t *)(c->alias + gpa), __ATOMIC_ACQUIRE);
	return r;
}

static enum bt_res pte_set(struct bt_cpu *c, gpa_t gpa, unsigned size, uint64_t old, uint64_t bits,
			   bool *again)
{
	enum bt_res r = bt_mmu_right(c, gpa >> PAGE_SHIFT, DSM_WRITE, again);
	bool same;

	if (r || *again)
		return r;
	if (size == 4) {
		uint32_t expect = (uint32_t)old;

		same = __atomic_compare_exchange_n((uint32_t *)(c->alias + gpa), &expect,
						   (uint32_t)(old | bits), false, __ATOMIC_SEQ_CST,
						   __ATOMIC_SEQ_CST);
	} else {
		same = __atomic_compare_exchange_n((uint64_t *)(c->alias + gpa), &old, old | bits,
						   false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (!same)
		*again = true;
	else if (bt_cache_gfn_has_code(c, gpa >> PAGE_SHIFT))
		bt_cache_wrote(c, gpa, size);
	return BT_OK;
}

static enum bt_res walk_fault(struct bt_cpu *c, const struct walk *w, uint32_t error)
{
	if (w->access == BT_WRITE)
		error |= PF_W;
	if (w->user)
		error |= PF_U;
	if (w->access == BT_EXEC && (c->efer & EFER_NXE) && !w->legacy)
		error |= PF_I;
	bt_page_fault(c, w->va, error);
	return BT_FAULT;
}

static bool pte_is_leaf(const struct bt_cpu *c, const struct walk *w, uint64_t e, unsigned level)
{
	if (level == 1)
		return true;
	if (!(e & PTE_PS))
		return false;
	if (w->legacy)
		return c->cr4 & CR4_PSE;
	return level == 2 || (level == 3 && w->lma);
}

static uint64_t pte_reserved(const struct bt_cpu *c, const struct walk *w, uint64_t e,
			     unsigned level)
{
	uint64_t rsvd;

	if (w->legacy) {
		if (level == 1 || !(e & PTE_PS) || !(c->cr4 & CR4_PSE))
			return 0;
		/* bits 20:13 are address bits 39:32 (PSE-36) */
		return (e & 1u << 21) | (((e >> 13) & 0xff) << 32 & ~c->phys_mask);
	}
	rsvd = ~c->phys_mask & 0x000ffffffffff000ull;
	if (!w->lma)
		rsvd |= 0x7ff0000000000000ull;
	if (!(c->efer & EFER_NXE))
		rsvd |= PTE_NX;
	if (!w->lma && level == 3)
		return e & (rsvd | PTE_NX | PDPTE_PAE_RSVD);
	if (level == 4)
		rsvd |= PTE_PS;
	else if (level == 3 && (e & PTE_PS))
		rsvd |= bt_cpuid_has(c, 0x80000001, 3, 26) ? 0x3fffe000ull : PTE_PS;
	else if (level == 2 && (e & PTE_PS))
		rsvd |= 0x1fe000ull;
	return e & rsvd;
}

static gpa_t leaf_address(const struct bt_cpu *c, const struct walk *w, uint64_t e, unsigned shift)
{
	uint64_t low = (1ull << shift) - 1;
	gpa_t base;

	if (w->legacy && shift == 22)
		base = (e & 0xffc00000u) | ((e >> 13) & 0xff) << 32;
	else
		base = e & 0x000ffffffffff000ull & ~low;
	return (base | (w->va & low)) & c->phys_mask;
}

/* Walks for one access.  BT_OK: *m is set, unless *again: something had to be fetched, start over.
 */
static enum bt_res mmu_walk(struct bt_cpu *c, struct walk *w, struct mmu_map *m, bool *again)
{
	unsigned esize = w->legacy ? 4 : 8, bits = w->legacy ? 10 : 9;
	unsigned level = w->lma ? 4 : w->legacy ? 2 : 3, shift;
	gpa_t table = c->cr3 & (w->lma      ? c->phys_mask & PAGE_MASK
				: w->legacy ? 0xfffff000u
					    : 0xffffffe0u);
	bool writable = true, user = true, nx = false, leaf;
	uint64_t e, want;
	enum bt_res r;

	w->n = 0;
	for (;; level--) {
		bool pdpte = !w->lma && !w->legacy && level == 3;

		shift = PAGE_SHIFT + (level - 1) * bits;
		w->step[w->n].gpa = table + ((w->va >> shift) & ((1u << bits) - 1)) * esize;
		w->step[w->n].no_a = pdpte;
		r = pte_read(c, w->step[w->n].gpa, esize, &e, again);
		if (r || *again)
			return r;
		w->step[w->n++].entry = e;
		if (!(e & PTE_P))
			return walk_fault(c, w, 0);
		if (pte_reserved(c, w, e, level))
			return walk_fault(c, w, PF_P | PF_RSVD);
		if (!pdpte) {
			writable &= !!(e & PTE_W);
			user &= !!(e & PTE_U);
			nx |= !w->legacy && (e & PTE_NX);
		}
		leaf = pte_is_leaf(c, w, e, level);
		if (leaf)
			break;
		table = e & 0x000ffffffffff000ull & c->phys_mask;
	}
	if (!w->user && !(c->cr0 & CR0_WP))
		writable = true;
	if ((w->user && !user) || (w->access == BT_WRITE && !writable) ||
	    (w->access == BT_EXEC && nx))
		return walk_fault(c, w, PF_P);

	for (unsigned k = 0; k < w->n; k++) {
		if (w->step[k].no_a)
			continue;
		want = PTE_A | (k == w->n - 1 && w->access == BT_WRITE ? PTE_D : 0);
		if ((w->step[k].entry & want) == want)
			continue;
		r = pte_set(c, w->step[k].gpa, esize, w->step[k].entry, want, again);
		if (r || *again)
			return r;
		e = k == w->n - 1 ? e | want : e;
	}
	m->gfn = leaf_address(c, w, e, shift) >> PAGE_SHIFT;
	m->writable = writable && (e & PTE_D);
	m->flags = shift == 21 ? BT_TLB_2M : shift > 21 ? BT_TLB_BIG : 0;
	if ((e & PTE_G) && (c->cr4 & CR4_PGE))
		m->flags |= BT_TLB_GLOBAL;
	return BT_OK;
}

/* Translation with the right that the access needs, held in the present active period.  *ram says
 * which. */
static enum bt_res mmu_map(struct bt_cpu *c, gva_t va, enum bt_access access, bool user,
			   struct mmu_map *m, bool *ram)
{
	struct walk w = { .va = va, .access = access, .user = user };
	enum bt_res r;
	bool again;

	w.lma = cpu_lma(c);
	w.legacy = !(c->cr4 & CR4_PAE);
	do {
		again = false;
		if (c->cr0 & CR0_PG) {
			r = mmu_walk(c, &w, m, &again);
			if (r)
				return r;
			if (again)
				continue;
		} else {
			m->gfn = (va & c->phys_mask) >> PAGE_SHIFT;
			m->writable = true;
			m->flags = 0;
		}
		*ram = dsm_is_ram(c->dsm, m->gfn);
		if (!*ram)
			return BT_OK;
		r = bt_mmu_right(c, m->gfn, access == BT_WRITE ? DSM_WRITE : DSM_READ, &again);
		if (r)
			return r;
	} while (again);
	return BT_OK;
}

enum bt_res bt_mmu_ref(struct bt_cpu *c, gva_t va, enum bt_access access, unsigned as,
		       struct mmu_ref *ref)
{
	bool user = as & AS_USER, ram;
	struct bt_tlb *t = &c->tlb[user];
	unsigned k = tlb_index(va);
	struct mmu_map m;
	enum bt_res r;

	if (!cpu_lma(c))
		va &= 0xffffffffu;
	if ((access == BT_WRITE ? t->tag_write[k] : t->tag_read[k]) == (va & PAGE_MASK)) {
		ref->host = (uint8_t *)(va + t->addend[k]);
		ref->gpa = t->gfn[k] << PAGE_SHIFT | (va & ~PAGE_MASK);
		ref->code = false;
		return BT_OK;
	}
	if (cpu_lma(c) && !va_canonical(va))
		return res_fault(c, as & AS_STACK ? EXC_SS : EXC_GP, 0);
	r = mmu_map(c, va, access, user, &m, &ram);
	if (r)
		return r;
	ref->gpa = m.gfn << PAGE_SHIFT | (va & ~PAGE_MASK);
	if (!ram) {
		ref->host = NULL;
		ref->code = false;
		return BT_OK;
	}
	ref->host = c->alias + ref->gpa;
	ref->code = false;
	/* a page that is only read is not announced as written to */
	m.writable = m.writable && dsm_reader_right(c->reader, m.gfn) == DSM_WRITE;
	if (m.writable || access == BT_WRITE)
		ref->code = bt_cache_gfn_has_code(c, m.gfn);
	m.writable = m.writable && !ref->code;
	bt_tlb_fill(c, va & PAGE_MASK, user, &m);
	return BT_OK;
}

enum bt_res bt_mmu_host(struct bt_cpu *c, gva_t va, unsigned size, enum bt_access access,
			void **host)
{
	struct mmu_ref ref;
	enum bt_res r = bt_mmu_ref(c, va, access, as_current(c), &ref);

	(void)size;
	if (r)
		return r;
	if (ref.host) {
		*host = ref.host;
		return BT_OK;
	}
	if (ref.gpa != c->mmio.gpa) {
		c->mmio.ready = false;
		c->mmio.gpa = ref.gpa;
	}
	return BT_MMIO;
}

enum bt_res bt_mmu_fetch(struct bt_cpu *c, gva_t va, gpa_t *out)
{
	bool user = c->cpl == 3, ram;
	struct bt_itlb *t = &c->itlb[user];
	unsigned k = tlb_index(va);
	struct mmu_map m;
	enum bt_res r;

	if (!cpu_lma(c))
		va &= 0xffffffffu;
	if (t->tag[k] == (va & PAGE_MASK)) {
		*out = t->gfn[k] << PAGE_SHIFT | (va & ~PAGE_MASK);
		return BT_OK;
	}
	if (cpu_lma(c) && !va_canonical(va))
		return res_fault(c, EXC_GP, 0);
	r = mmu_map(c, va, BT_EXEC, user, &m, &ram);
	if (r)
		return r;
	*out = m.gfn << PAGE_SHIFT | (va & ~PAGE_MASK);
	if (!ram) {
		c->mmio.gpa = *out;
		return BT_MMIO;
	}
	bt_itlb_fill(c, va & PAGE_MASK, user, &m);
	return BT_OK;
}

/* --- memory accesses of the system half --- */
enum bt_res bt_mmio_access(struct bt_cpu *c, gpa_t gpa, unsigned size, bool write, uint64_t *data)
{
	if (c->mmio.ready && c->mmio.gpa == gpa && c->mmio.size == size && c->mmio.write == write) {
		c->mmio.ready = false;
		if (!write)
			*data = c->mmio.data & size_mask(size);
		return BT_OK;
	}
	c->mmio.ready = false;
	c->mmio.gpa = gpa;
	c->mmio.size = (uint8_t)size;
	c->mmio.write = write;
	c->exit->write = write;
	c->exit->size = (uint8_t)size;
	c->exit->addr = gpa;
	c->exit->data = write ? *data & size_mask(size) : 0;
	bt_exit(c, HV_EXIT_MMIO);
	return BT_EXIT;
}

/* A part of an access that is not RAM.  What no device can be asked for in one piece gives ones. */
static enum bt_res mmio_part(struct bt_cpu *c, gpa_t gpa, void *buf, unsigned part, bool write,
			     bool silent)
{
	uint64_t data = 0;
	enum bt_res r;

	if (silent || (part != 1 && part != 2 && part != 4 && part != 8)) {
		if (!write)
			fill_bytes(buf, 0xff, part);
		return BT_OK;
	}
	if (write)
		data = load_le(buf, part);
	r = bt_mmio_access(c, gpa, part, write, &data);
	if (r == BT_OK && !write)
		store_le(buf, data, part);
	return r;
}

/* References to both pages of [va, va + size), taken in one active period; returns the first one's
 * length. */
static enum bt_res mem_refs(struct bt_cpu *c, gva_t va, unsigned size, enum bt_access access,
			    unsigned as, struct mmu_ref ref[2], unsigned *first)
{
	unsigned room = PAGE_SIZE - (unsigned)(va & (PAGE_SIZE - 1));
	uint64_t q;
	enum bt_res r;

	*first = size < room ? size : room;
	do {
		q = c->quiesced;
		r = bt_mmu_ref(c, va, access, as, &ref[0]);
		if (r)
			return r;
		if (size > room)
			r = bt_mmu_ref(c, va + room, access, as, &ref[1]);
		if (r)
			return r;
	} while (q != c->quiesced);
	return BT_OK;
}

static enum bt_res mem_access(struct bt_cpu *c, gva_t va, uint8_t *buf, unsigned size, bool write,
			      unsigned as)
{
	struct mmu_ref ref[2];
	unsigned first, at = 0;
	enum bt_res r = mem_refs(c, va, size, write ? BT_WRITE : BT_READ, as, ref, &first);

	if (r)
		return r;
	for (unsigned k = 0; at < size; k++) {
		unsigned part = k ? size - first : first;

		if (!ref[k].host) {
			r = mmio_part(c, ref[k].gpa, buf + at, part, write,
				      part != size || (as & AS_SILENT));
			if (r)
				return r;
		} else if (write) {
			copy_bytes(ref[k].host, buf + at, part);
		} else {
			copy_bytes(buf + at, ref[k].host, part);
		}
		at += part;
	}
	/* after both parts: this may give up the active period */
	if (write && ref[0].host && ref[0].code)
		bt_cache_wrote(c, ref[0].gpa, first);
	if (write && first < size && ref[1].host && ref[1].code)
		bt_cache_wrote(c, ref[1].gpa, size - first);
	return BT_OK;
}

enum bt_res bt_mem_read_as(struct bt_cpu *c, gva_t va, void *dst, unsigned size, unsigned as)
{
	return mem_access(c, va, dst, size, false, as);
}

enum bt_res bt_mem_write_as(struct bt_cpu *c, gva_t va, const void *src, unsigned size, unsigned as)
{
	return mem_access(c, va, (uint8_t *)src, size, true, as);
}

enum bt_res bt_mem_read(struct bt_cpu *c, gva_t va, void *dst, unsigned size)
{
	return mem_access(c, va, dst, size, false, as_current(c));
}

enum bt_res bt_mem_write(struct bt_cpu *c, gva_t va, const void *src, unsigned size)
{
	return mem_access(c, va, (uint8_t *)src, size, true, as_current(c));
}

enum bt_res bt_mem_probe_as(struct bt_cpu *c, gva_t va, unsigned len, enum bt_access access,
			    unsigned as)
{
	struct mmu_ref ref;
	uint64_t q;
	enum bt_res r;

	if (len == 0)
		return BT_OK;
	do {
		gva_t at = va & PAGE_MASK, last = (va + len - 1) & PAGE_MASK;

		q = c->quiesced;
		for (bool first = true;; at += PAGE_SIZE, first = false) {
			r = bt_mmu_ref(c, first ? va : at, access, as, &ref);
			if (r)
				return r;
			if (at == last)
				break;
		}
	} while (q != c->quiesced);
	return BT_OK;
}

enum bt_res bt_mem_probe(struct bt_cpu *c, gva_t va, unsigned len, enum bt_access access)
{
	return bt_mem_probe_as(c, va, len, access, as_current(c));
}

enum bt_res bt_mem_or8(struct bt_cpu *c, gva_t va, uint8_t bits, unsigned as)
{
	struct mmu_ref ref;
	enum bt_res r = bt_mmu_ref(c, va, BT_WRITE, as, &ref);

	if (r || !ref.host)
		return r;
	__atomic_or_fetch(ref.host, bits, __ATOMIC_SEQ_CST);
	if (ref.code)
		bt_cache_wrote(c, ref.gpa, 1);
	return BT_OK;
}
