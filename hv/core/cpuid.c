/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/cpuid.c - the CPU model; see cpuid.h.  Pure.
 *
 * Vendor "AuthenticAMD", family 0xf, model 0x2f: not affected by Meltdown, L1TF, MDS, retbleed or
 * the C1E and null segment errata in Linux' tables, `rep` string operations are marked good, and
 * Linux touches the fewest model-specific registers, each by its fault-tolerant accessor (HWCR
 * 0xc0010015, DE_CFG 0xc0011029). Left out: MTRR and MCA (no registers behind them), MONITOR, and
 * what a VM may have by name (cpuid_words.c): XSAVE and so AVX, PCID, FSGSBASE, SMEP, SMAP, UMIP...
 *
 * Spec: AMD64 Architecture Programmer's Manual vol 3, appendix E; Intel SDM vol 2A, CPUID.
 */
#include "hv/core/cpuid_words.h"

#include "base/assert.h"

/* Family 0xf, model 0x2f, stepping 2. */
#define SIGNATURE 0x00020ff2u

#define BIT(n) (1u << (n))

/* Leaf 1 ECX: SSE3, SSSE3, CX16, SSE4.1, SSE4.2, x2APIC, POPCNT, TSC deadline, hypervisor. */
#define F1_ECX \
	(BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(21) | BIT(23) | BIT(24) | BIT(31))
#define F1_ECX_DEADLINE BIT(24)
/* Leaf 1 EDX: FPU, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE36, CLFSH, MMX, FXSR,
 * SSE, SSE2; HTT is added when a package has several ids. */
#define F1_EDX_COMMON                                                                      \
	(BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(13) | \
	 BIT(15) | BIT(16) | BIT(17) | BIT(23) | BIT(24))
#define F1_EDX (F1_EDX_COMMON | BIT(11) | BIT(19) | BIT(25) | BIT(26))
#define F1_EDX_HTT BIT(28)
/* Leaf 7 EBX: ERMS, so that string instructions are preferred. */
#define F7_EBX BIT(9)
/* 0x80000001 ECX: LAHF, CmpLegacy (no SMT: all ids of a package are cores).  EDX: common, SYSCALL,
 * NX, RDTSCP, LM. */
#define FE1_ECX_LAHF BIT(0)
#define FE1_ECX_CMP_LEGACY BIT(1)
#define FE1_EDX (F1_EDX_COMMON | BIT(11) | BIT(20) | BIT(27) | BIT(29))

#define HYPERVISOR_MAX 0x40000010u
#define EXTENDED_MAX 0x80000008u

/* XCR0 components: x87 and SSE in the legacy area and header; the upper halves of ymm behind them. */
#define XSAVE_LEGACY 576u
#define XSAVE_YMM 256u

struct table {
	struct hv_cpuid_entry *e;
	unsigned count;
};

static void add(struct table *t, uint32_t leaf, struct hv_cpuid_regs r)
{
	ASSERT(t->count < HV_CPUID_MAX);
	t->e[t->count++] = (struct hv_cpuid_entry){
		.leaf = leaf,
		.eax = r.eax,
		.ebx = r.ebx,
		.ecx = r.ecx,
		.edx = r.edx,
	};
}

static void add_sub(struct table *t, uint32_t leaf, uint32_t subleaf, struct hv_cpuid_regs r)
{
	add(t, leaf, r);
	t->e[t->count - 1].subleaf = subleaf;
	t->e[t->count - 1].by_subleaf = true;
}

/* Four characters as CPUID packs them. */
static uint32_t chars(const char *s)
{
	uint32_t v = 0;

	for (unsigned k = 0; k < 4; k++)
		v |= (uint32_t)(uint8_t)s[k] << (8 * k);
	return v;
}

static bool blocks_stay_on_node(const struct hv_cpuid_config *cfg, unsigned shift)
{
	for (unsigned k = 0; k < cfg->vcpus; k++)
		if (cfg->node_of[k] != cfg->node_of[k >> shift << shift])
			return false;
	return true;
}

unsigned hv_cpuid_package_shift(const struct hv_cpuid_config *cfg)
{
	unsigned shift = 0;

	while (1u << shift < cfg->vcpus && (!cfg->node_of || blocks_stay_on_node(cfg, shift + 1)))
		shift++;
	return shift;
}

static void add_basic(struct table *t, unsigned shift)
{
	unsigned ids = 1u << shift;

	add(t, 0, (struct hv_cpuid_regs){ 0xb, chars("Auth"), chars("cAMD"), chars("enti") });
	add(t, 1,
	    (struct hv_cpuid_regs){ SIGNATURE, ids << 16 | 8u << 8 /* clflush: 8 quadwords */,
				    F1_ECX, F1_EDX | (shift ? F1_EDX_HTT : 0) });
	add_sub(t, 7, 0, (struct hv_cpuid_regs){ .ebx = F7_EBX });
	/* Levels: threads (one), then cores of the package (Intel SDM vol 2A, leaf 0xb). */
	add_sub(t, 0xb, 0, (struct hv_cpuid_regs){ 0, 1, 0 | 1u << 8, 0 });
	add_sub(t, 0xb, 1, (struct hv_cpuid_regs){ shift, ids, 1 | 2u << 8, 0 });
}

/* Intel SDM vol 1, 13.2: standard format; the enabled size (subleaf 0 EBX) follows XCR0 on a CPU. */
static void add_xsave(struct table *t, bool avx)
{
	uint32_t size = XSAVE_LEGACY + (avx ? XSAVE_YMM : 0);

	add_sub(t, 0xd, 0, (struct hv_cpuid_regs){ avx ? 7 : 3, XSAVE_LEGACY, size, 0 });
	add_sub(t, 0xd, 1, (struct hv_cpuid_regs){ .ebx = size });
	if (avx)
		add_sub(t, 0xd, 2, (struct hv_cpuid_regs){ XSAVE_YMM, XSAVE_LEGACY, 0, 0 });
	t->e[0].eax = 0xd;
}

static void set_bit(struct table *t, const struct hv_cpuid_bit *b, bool on)
{
	for (unsigned i = 0; i < t->count; i++) {
		uint32_t *reg = hv_cpuid_reg(&t->e[i], b->reg);

		if (t->e[i].leaf == b->leaf && t->e[i].subleaf == b->subleaf)
			*reg = on ? *reg | BIT(b->bit) : *reg & ~BIT(b->bit);
	}
}

static void add_features(struct table *t, const struct hv_cpuid_config *cfg)
{
	const char *words = cfg->features ? cfg->features : "";
	const char *without = cfg->without ? cfg->without : "";

	if (cfg->deadline_by_word)
		t->e[1].ecx &= ~F1_ECX_DEADLINE;
	if (hv_cpuid_has_word(words, "xsave"))
		add_xsave(t, hv_cpuid_has_word(words, "avx"));
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++) {
		const struct hv_cpuid_bit *b = &hv_cpuid_bits[k];

		if (hv_cpuid_has_word(words, b->name))
			set_bit(t, b, true);
		else if (hv_cpuid_has_word(without, b->name))
			set_bit(t, b, false);
	}
}

static void add_hypervisor(struct table *t, unsigned tsc_khz)
{
	add(t, 0x40000000,
	    (struct hv_cpuid_regs){ HYPERVISOR_MAX, chars("KVMK"), chars("VMKV"),
				    chars("M\0\0\0") });
	add(t, 0x40000001, (struct hv_cpuid_regs){ 0 }); /* no paravirtual features */
	add(t, 0x40000010, (struct hv_cpuid_regs){ .eax = tsc_khz });
}

static void add_extended(struct table *t, unsigned shift)
{
	static const char brand[48] = "unum virtual CPU (x86-64-v2)";
	unsigned ids = 1u << shift;

	add(t, 0x80000000,
	    (struct hv_cpuid_regs){ EXTENDED_MAX, chars("Auth"), chars("cAMD"), chars("enti") });
	add(t, 0x80000001,
	    (struct hv_cpuid_regs){ SIGNATURE, 0, FE1_ECX_LAHF | (shift ? FE1_ECX_CMP_LEGACY : 0),
				    FE1_EDX });
	for (unsigned k = 0; k < 3; k++)
		add(t, 0x80000002 + k,
		    (struct hv_cpuid_regs){ chars(brand + 16 * k), chars(brand + 16 * k + 4),
					    chars(brand + 16 * k + 8),
					    chars(brand + 16 * k + 12) });
	/* L1: TLBs of 64 entries, caches of 32 KiB, 8 ways, 64-byte lines each.  L2: 1 MiB, 8 ways,
	 * no L3. */
	add(t, 0x80000005,
	    (struct hv_cpuid_regs){ 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140 });
	add(t, 0x80000006, (struct hv_cpuid_regs){ 0x42004200, 0x42004200, 0x04006140, 0 });
	add(t, 0x80000007, (struct hv_cpuid_regs){ .edx = BIT(8) }); /* invariant TSC */
	/* XSAVEERPTR: fxsave keeps no error pointers of others; saves Linux a workaround at each
	 * switch. */
	add(t, 0x80000008,
	    (struct hv_cpuid_regs){ HV_CPUID_PHYS_BITS | 48u << 8, BIT(2), (ids - 1) | shift << 12,
				    0 });
}

unsigned hv_cpuid_build(const struct hv_cpuid_config *cfg,
			struct hv_cpuid_entry out[static HV_CPUID_MAX])
{
	struct table t = { .e = out };
	unsigned shift = hv_cpuid_package_shift(cfg);

	add_basic(&t, shift);
	add_hypervisor(&t, cfg->tsc_khz);
	add_extended(&t, shift);
	add_features(&t, cfg);
	return t.count;
}

struct hv_cpuid_regs hv_cpuid_lookup(const struct hv_cpuid_entry *table, unsigned count,
				     uint32_t apic_id, uint32_t leaf, uint32_t subleaf)
{
	struct hv_cpuid_regs r = { 0 };

	for (unsigned k = 0; k < count; k++) {
		const struct hv_cpuid_entry *e = &table[k];

		if (e->leaf == leaf && (!e->by_subleaf || e->subleaf == subleaf)) {
			r = (struct hv_cpuid_regs){ e->eax, e->ebx, e->ecx, e->edx };
			break;
		}
	}
	if (leaf == 1) {
		r.ebx = (r.ebx & 0x00ffffff) | apic_id << 24;
	} else if (leaf ==
		   0xb) { /* levels that do not exist still give the id and the level asked for */
		r.ecx = (r.ecx & ~0xffu) | (subleaf & 0xff);
		r.edx = apic_id;
	}
	return r;
}
