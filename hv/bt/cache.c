/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/cache.c - finding, linking and forgetting translations.
 *
 * What      Hash of blocks by physical address and rip, lists by guest frame, chains between blocks, the jump
 *           cache, and the table that tells all vCPUs of a slice which frames have translations.
 * Order     A writer announces itself in the table before it looks for code, a translator announces code before
 *           it looks for writers, both with sequentially consistent operations: one of them sees the other.
 * Threads   The vCPU thread; vm->code any vCPU thread; posted[] under its lock.
 * Limits    Runs under live guest FPU state.
 */
#include "hv/bt/tr.h"

/* --- blocks --- */
static unsigned block_hash(gpa_t gpa, uint64_t rip, uint32_t mode)
{
	uint64_t h = (gpa ^ rip << 7 ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> (64 - TR_HASH_BITS));
}

static unsigned page_hash(gfn_t gfn)
{
	return (unsigned)((gfn * 0x9e3779b97f4a7c15ull) >> (64 - TR_PAGE_HASH_BITS));
}

static struct tr_page *page_find(struct bt_translator *t, gfn_t gfn)
{
	struct tr_page *p = t->pages[page_hash(gfn)];

	while (p && p->gfn != gfn)
		p = p->next;
	return p;
}

/* Pages are few and kept until the flush, so that a drop and a new translation do not cost a heap call. */
static void page_add(struct bt_translator *t, gfn_t gfn, struct bt_block *b, unsigned which)
{
	struct tr_page *p = page_find(t, gfn);

	if (!p) {
		ASSERT(t->npages < TR_PAGES);
		p = &t->page_pool[t->npages++];
		p->gfn = gfn;
		p->blocks = NULL;
		p->next = t->pages[page_hash(gfn)];
		t->pages[page_hash(gfn)] = p;
	}
	b->page_next[which] = p->blocks;
	p->blocks = b;
}

static gfn_t block_gfn(const struct bt_block *b)
{
	return b->gpa >> PAGE_SHIFT;
}

static struct bt_block **page_link(struct bt_block *b, gfn_t gfn)
{
	return &b->page_next[block_gfn(b) != gfn];
}

/* A block across two pages is found by its second page too: the page may have been mapped elsewhere meanwhile. */
static bool second_matches(struct bt_translator *t, const struct bt_block *b)
{
	gva_t va = ((b->cs_base + b->rip) & PAGE_MASK) + PAGE_SIZE;
	gpa_t gpa;

	if (b->gfn2 == ~0ull)
		return true;
	return bt_mmu_fetch(t->cpu, va, &gpa) == BT_OK && gpa >> PAGE_SHIFT == b->gfn2;
}

struct bt_block *tr_lookup(struct bt_translator *t, gpa_t gpa, uint64_t rip, uint32_t mode)
{
	struct bt_block *b = t->hash[block_hash(gpa, rip, mode)];
	uint64_t cs_base = mode & BT_MODE_FLAT ? 0 : t->cpu->seg[HV_CS].base;

	for (; b; b = b->hash_next) {
		if (b->gpa != gpa || b->rip != rip || b->mode != mode || b->cs_base != cs_base)
			continue;
		if (second_matches(t, b))
			return b->dead ? NULL : b;
		/* the translation that follows meets the fault again, as the first thing that it does */
		t->cpu->exc.pending = false;
		return NULL;
	}
	return NULL;
}

void tr_insert(struct bt_translator *t, struct bt_block *b)
{
	unsigned h = block_hash(b->gpa, b->rip, b->mode);

	b->hash_next = t->hash[h];
	t->hash[h] = b;
	page_add(t, block_gfn(b), b, 0);
	if (b->gfn2 != ~0ull && b->gfn2 != block_gfn(b))
		page_add(t, b->gfn2, b, 1);
}

/* The block whose code holds pc; blocks lie in the buffer in the order of their making. */
struct bt_block *tr_block_at(struct bt_translator *t, const uint8_t *pc)
{
	uint32_t at = (uint32_t)(pc - t->buf), lo = 0, hi = t->nblocks;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (t->blocks[mid].code <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &t->blocks[lo];
}

/* --- jump cache --- */
static unsigned jc_index(uint64_t rip)
{
	return (unsigned)(rip ^ rip >> 8) & (BT_JC_SIZE - 1);
}

void tr_salt_update(struct bt_cpu *c)
{
	c->jc_salt = ((uint64_t)c->tr_state->generation << 8 | (c->mode & 0xff)) << 48;
}

static void jc_clear(struct bt_translator *t)
{
	for (unsigned k = 0; k < BT_JC_SIZE; k++)
		t->cpu->jc[k].key = BT_TLB_NONE;
}

static unsigned bloom_bit(gva_t va)
{
	return (unsigned)((va >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 52);
}

void tr_jc_add(struct bt_translator *t, struct bt_block *b)
{
	struct bt_jc *j = &t->cpu->jc[jc_index(b->rip)];
	unsigned bit = bloom_bit(b->rip);

	if (!(b->mode & BT_MODE_FLAT) || (b->mode & BT_MODE_CODE) == BT_MODE_CODE16 ||
	    (b->mode & (BT_MODE_SINGLE | TR_MODE_ONE | TR_MODE_BOUNCE)))
		return;
	j->key = b->rip ^ t->cpu->jc_salt;
	j->code = b->entry_m;
	t->jc_bloom[bit / 64] |= 1ull << (bit % 64);
	if (b->gfn2 != ~0ull) {
		bit = bloom_bit(b->rip + PAGE_SIZE);
		t->jc_bloom[bit / 64] |= 1ull << (bit % 64);
	}
}

/* Chains into blocks across two pages hold only while the second page's mapping is known to stand. */
static void unlink_incoming(struct bt_block *b)
{
	struct tr_exit *x = b->incoming;

	while (x) {
		struct tr_exit *next = x->next;

		e_patch32(x->patch, x->tramp);
		x->linked = false;
		x->next = NULL;
		x = next;
	}
	b->incoming = NULL;
}

void tr_link(struct bt_translator *t, struct tr_exit *x, struct bt_block *to)
{
	if (x->linked || to->dead)
		return;
	if (to->gfn2 != ~0ull) {
		if (t->ncross == ARRAY_LEN(t->cross))
			return;
		if (!to->incoming)
			t->cross[t->ncross++] = to;
	}
	e_patch32(x->patch, x->flags_host ? (x->back ? to->entry_f : to->inner_f)
					  : (x->back ? to->entry_m : to->inner_m));
	x->linked = true;
	x->next = to->incoming;
	to->incoming = x;
}

static void forget(struct bt_translator *t)
{
	t->gen_count++;
	for (uint32_t k = 0; k < t->ncross; k++)
		unlink_incoming(t->cross[k]);
	t->ncross = 0;
	for (unsigned k = 0; k < ARRAY_LEN(t->jc_bloom); k++)
		t->jc_bloom[k] = 0;
	if (++t->generation == 0)
		jc_clear(t);
	tr_salt_update(t->cpu);
}

void bt_cache_forget_all(struct bt_cpu *c)
{
	if (c->tr_state)
		forget(c->tr_state);
}

void bt_cache_forget_va(struct bt_cpu *c, gva_t va)
{
	struct bt_translator *t = c->tr_state;
	unsigned bit = bloom_bit(va);

	if (!t)
		return;
	t->gen_count++;
	if (t->ncross || (t->jc_bloom[bit / 64] >> (bit % 64) & 1))
		forget(t);
}

/* --- dropping --- */
static void block_kill(struct bt_translator *t, struct bt_block *b)
{
	struct bt_block **h = &t->hash[block_hash(b->gpa, b->rip, b->mode)];
	struct bt_jc *j = &t->cpu->jc[jc_index(b->rip)];

	ASSERT(!b->dead);
	b->dead = true;
	while (*h != b)
		h = &(*h)->hash_next;
	*h = b->hash_next;
	unlink_incoming(b);
	if (j->code == b->entry_m)
		j->key = BT_TLB_NONE;
}

/* Kills the blocks that have bytes in [off, off + len) of gfn; true when none is left. */
static bool page_kill(struct bt_translator *t, gfn_t gfn, unsigned off, unsigned len)
{
	struct tr_page *p = page_find(t, gfn);
	struct bt_block **at, *b;

	if (!p)
		return true;
	for (at = &p->blocks; (b = *at) != NULL;) {
		unsigned start = block_gfn(b) == gfn ? b->gpa & (PAGE_SIZE - 1) : 0;
		unsigned first = PAGE_SIZE - (unsigned)(b->gpa & (PAGE_SIZE - 1));
		unsigned end = block_gfn(b) == gfn ? start + b->size : b->size - first;

		if (end > PAGE_SIZE)
			end = PAGE_SIZE;
		if (b->gfn2 == block_gfn(b)) {
			start = 0;
			end = PAGE_SIZE;
		}
		if (!b->dead && start < off + len && off < end)
			block_kill(t, b);
		if (b->dead)
			*at = *page_link(b, gfn);
		else
			at = page_link(b, gfn);
	}
	return p->blocks == NULL;
}

static _Atomic uint64_t *code_word(struct bt_cpu *c, gfn_t gfn)
{
	return gfn < BT_VM_GFNS ? &c->vm->code[gfn] : NULL;
}

static void page_drop(struct bt_cpu *c, gfn_t gfn, unsigned off, unsigned len)
{
	_Atomic uint64_t *w = code_word(c, gfn);

	if (w && page_kill(c->tr_state, gfn, off, len))
		atomic_fetch_and(w, ~(1ull << c->tr_state->slot));
}

void bt_cache_drop_gfn(struct bt_cpu *c, gfn_t gfn)
{
	if (!c->tr_state)
		return;
	if (gfn == DSM_ALL)
		tr_kill_all(c->tr_state);
	else
		page_drop(c, gfn, 0, PAGE_SIZE);
}

bool bt_cache_gfn_has_code(struct bt_cpu *c, gfn_t gfn)
{
	_Atomic uint64_t *w = code_word(c, gfn);

	if (!w || !c->tr_state)
		return false;
	return (atomic_fetch_or(w, BT_VM_WRITER) & ~BT_VM_WRITER) != 0;
}

bool tr_claim(struct bt_translator *t, gfn_t gfn)
{
	struct bt_cpu *c = t->cpu;
	_Atomic uint64_t *w = code_word(c, gfn);
	uint64_t old;

	if (!w)
		return true; /* not reachable: the CPU model shows 40 address bits, the table covers them */
	old = atomic_fetch_or(w, 1ull << t->slot);
	if (!(old & BT_VM_WRITER))
		return true;
	bt_cpu_leave(c);
	dsm_readers_sync(c->dsm, gfn, DSM_READ);
	bt_cpu_enter(c);
	/* only when our announcement stood all the time has every later writer seen it */
	if (atomic_fetch_or(w, 1ull << t->slot) >> t->slot & 1)
		atomic_fetch_and(w, ~BT_VM_WRITER);
	return false;
}

static void post(struct bt_cpu *to, gpa_t gpa, unsigned len)
{
	struct bt_translator *t = to->tr_state;

	pthread_mutex_lock(&t->lock);
	if (t->nposted < ARRAY_LEN(t->posted)) {
		t->posted[t->nposted].gpa = gpa;
		t->posted[t->nposted].len = len;
	}
	t->nposted++;
	pthread_mutex_unlock(&t->lock);
	atomic_store(&to->kick, 1);
}

void tr_posted(struct bt_translator *t)
{
	pthread_mutex_lock(&t->lock);
	if (t->nposted > ARRAY_LEN(t->posted)) {
		tr_kill_all(t);
	} else {
		for (unsigned k = 0; k < t->nposted; k++)
			page_drop(t->cpu, t->posted[k].gpa >> PAGE_SHIFT, t->posted[k].gpa & (PAGE_SIZE - 1),
				  t->posted[k].len);
	}
	t->nposted = 0;
	pthread_mutex_unlock(&t->lock);
}

void bt_cache_wrote(struct bt_cpu *c, gpa_t gpa, unsigned len)
{
	_Atomic uint64_t *w = code_word(c, gpa >> PAGE_SHIFT);
	uint64_t mask;

	if (!w || !c->tr_state)
		return;
	mask = atomic_fetch_or(w, BT_VM_WRITER) & ~BT_VM_WRITER;
	if (mask >> c->tr_state->slot & 1)
		page_drop(c, gpa >> PAGE_SHIFT, gpa & (PAGE_SIZE - 1), len);
	mask &= ~(1ull << c->tr_state->slot);
	if (!mask)
		return;
	pthread_mutex_lock(&c->vm->lock);
	for (unsigned k = 0; k < ARRAY_LEN(c->vm->cpus); k++)
		if (mask >> k & 1 && c->vm->cpus[k])
			post(c->vm->cpus[k], gpa, len);
	pthread_mutex_unlock(&c->vm->lock);
}

/* --- everything --- */
/* The code stays where it is, for a caller that is in the middle of a block. */
void tr_kill_all(struct bt_translator *t)
{
	for (uint32_t k = 0; k < t->npages; k++)
		page_drop(t->cpu, t->page_pool[k].gfn, 0, PAGE_SIZE);
}

/* Reclaims all memory; not while translated code is on the stack. */
void tr_flush(struct bt_translator *t)
{
	tr_kill_all(t);
	for (unsigned k = 0; k < ARRAY_LEN(t->hash); k++)
		t->hash[k] = NULL;
	for (unsigned k = 0; k < ARRAY_LEN(t->pages); k++)
		t->pages[k] = NULL;
	t->npages = 0;
	t->ncross = 0;
	t->nblocks = 0;
	t->nmarks = 0;
	t->nstarts = 0;
	t->nsysinsn = 0;
	t->e.p = t->code_start;
	jc_clear(t);
	t->flushes++;
}
