/* SPDX-License-Identifier: Apache-2.0 */
/* walk.c - the guest's own page tables, read from outside; see walk.h. */
#include "hv/walk.h"

#define PTE_PRESENT 1u
#define PTE_LARGE 0x80u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LMA 0x400u
#define ADDRESS 0x000ffffffffff000ull

int hv_walk(struct dsm *dsm, const struct hv_cpu_state *st, gva_t va, uint64_t deadline_ns, gpa_t *out)
{
	bool wide = st->cr4 & CR4_PAE;
	unsigned bits = wide ? 9 : 10, size = wide ? 8 : 4;
	int level = st->efer & EFER_LMA ? 4 : wide ? 3 : 2;
	gpa_t table = st->cr3 & (st->efer & EFER_LMA ? ADDRESS : wide ? 0xffffffe0ull : 0xfffff000ull);

	*out = va;
	if (!(st->cr0 & CR0_PG))
		return 0;
	for (; level > 0; level--) {
		unsigned shift = PAGE_SHIFT + bits * (unsigned)(level - 1);
		uint64_t pte = 0;
		int err = dsm_copy_in(dsm, &pte, table + ((va >> shift) & ((1u << bits) - 1)) * size, size,
				      deadline_ns);

		if (err || !(pte & PTE_PRESENT))
			return err ? err : -EFAULT;
		table = pte & (wide ? ADDRESS : 0xfffff000ull);
		if (level == 1 || (level < 4 && (pte & PTE_LARGE))) {
			uint64_t mask = (1ull << shift) - 1;

			*out = (table & ~mask) | (va & mask);
			return 0;
		}
	}
	return -EFAULT;
}

size_t hv_walk_read(struct dsm *dsm, const struct hv_cpu_state *st, gva_t va, uint8_t *buf, size_t len,
		    uint64_t deadline_ns)
{
	size_t done = 0;

	while (done < len) {
		size_t n = PAGE_SIZE - ((va + done) & (PAGE_SIZE - 1));
		gpa_t gpa;

		if (n > len - done)
			n = len - done;
		if (hv_walk(dsm, st, va + done, deadline_ns, &gpa) ||
		    dsm_copy_in(dsm, buf + done, gpa, n, deadline_ns))
			break;
		done += n;
	}
	return done;
}
