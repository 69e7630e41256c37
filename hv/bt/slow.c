/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/slow.c - C functions that translated code calls.
 *
 * Threads   The vCPU thread, on the translation stack, possibly with guest x87/SSE state in host registers.
 */
#include "hv/bt/tr.h"

#include <sched.h>

#define VECTOR_SS 12
#define VECTOR_GP 13
#define PAUSES_PER_YIELD 16

#define META_SIZE(m) ((m) & 0x3ff)
#define META_ACCESS(m) ((m) >> 10 & 0x3f)
#define META_INDEX(m) ((m) >> 16 & 0xff)
#define META_SEG(m) ((m) >> 25 & 7)

static inline uint8_t *bounce_at(struct bt_cpu *c, gva_t va)
{
	return c->bounce + (va & 63);
}

static uint64_t flags_from_slot(uint64_t slot)
{
	return (slot >> 8 & (RFLAGS_ARITH & ~RFLAGS_OF)) | (slot & 1) << 11;
}

uint64_t tr_flags_to_slot(uint64_t rflags)
{
	return (rflags & (RFLAGS_ARITH & ~RFLAGS_OF)) << 8 | (rflags >> 11 & 1);
}

void tr_flags_in(struct bt_cpu *c)
{
	c->rflags = (c->rflags & ~(uint64_t)RFLAGS_ARITH) | flags_from_slot(c->scratch[SLOT_FLAGS]);
}

/* The instruction that an access belongs to: its rip comes from the marks of its block. */
static uint64_t rip_of(struct bt_cpu *c, uint32_t meta, const uint8_t *pc)
{
	struct bt_translator *t = c->tr_state;
	const struct bt_block *b = tr_block_at(t, pc);

	return b->rip + t->starts[b->starts + META_INDEX(meta)];
}

static void *leave(struct bt_cpu *c, enum tr_exit_kind kind)
{
	c->exit_kind = kind;
	return NULL;
}

static bool canonical(struct bt_cpu *c, gva_t va, unsigned size, unsigned access)
{
	uint64_t last = va + size - 1;

	if ((c->mode & BT_MODE_CODE) != BT_MODE_CODE64)
		return true;
	if ((uint64_t)((int64_t)(va << 16) >> 16) == va && (uint64_t)((int64_t)(last << 16) >> 16) == last)
		return true;
	bt_exception_error(c, access & TR_STACK ? VECTOR_SS : VECTOR_GP, 0);
	return false;
}

/* Large operands (fnsave) in pieces. */
static enum bt_res read_pieces(struct bt_cpu *c, gva_t va, uint8_t *dst, unsigned size)
{
	enum bt_res r = BT_OK;

	for (unsigned at = 0; at < size && r == BT_OK; at += 16)
		r = bt_mem_read(c, va + at, dst + at, size - at < 16 ? size - at : 16);
	return r;
}

static void fpu_again(struct bt_cpu *c, bool live)
{
	if (live && !c->fpu_live)
		bt_fpu_load(c);
}

/* Translations of what is about to be written go first. */
static void announce_write(struct bt_cpu *c, gpa_t gpa, unsigned size)
{
	if (bt_cache_gfn_has_code(c, gpa >> PAGE_SHIFT))
		bt_cache_wrote(c, gpa, size);
}

void *tr_slow_mem(struct bt_cpu *c, gva_t va, uint32_t meta, uint8_t *pc)
{
	struct bt_block *b = tr_block_at(c->tr_state, pc);
	unsigned size = META_SIZE(meta), access = META_ACCESS(meta);
	bool live = c->fpu_live, crossing = (va & (PAGE_SIZE - 1)) + size > PAGE_SIZE;
	enum bt_res r = BT_MMIO;
	void *host;

	c->rip = rip_of(c, meta, pc);
	if (!canonical(c, va, size, access))
		return leave(c, TR_EXIT_AGAIN);
	if (!crossing)
		r = bt_mmu_host(c, va, size, access & TR_WRITE ? BT_WRITE : BT_READ, &host);
	if (r == BT_MMIO) {
		if (access & TR_WRITE)
			return leave(c, TR_EXIT_BOUNCE);
		host = bounce_at(c, va);
		r = read_pieces(c, va, host, size);
	}
	if (r != BT_OK)
		return leave(c, TR_EXIT_AGAIN);
	if (access & TR_WRITE)
		announce_write(c, (gpa_t)((uint8_t *)host - c->alias), size);
	/* a write that hit this very block: nothing of it may run after the instruction */
	if ((access & TR_WRITE) && b->dead && !(b->mode & (BT_MODE_SINGLE | TR_MODE_ONE)))
		return leave(c, TR_EXIT_ONE);
	fpu_again(c, live);
	return host;
}

/* Limit and type of a segment outside 64-bit mode; the linear address is in the slot. */
void *tr_slow_seg(struct bt_cpu *c, uint64_t off, uint32_t meta, uint8_t *pc)
{
	c->rip = rip_of(c, meta, pc);
	if (bt_seg_address(c, META_SEG(meta), off, META_SIZE(meta), META_ACCESS(meta) & TR_WRITE ? BT_WRITE : BT_READ,
			   &c->scratch[SLOT_ADDR]) != BT_OK)
		return leave(c, TR_EXIT_AGAIN);
	return c;
}

/* Before a write through the bounce buffer: makes sure that it will succeed, and gets the old bytes. */
void *tr_slow_bounce(struct bt_cpu *c, gva_t va, uint32_t meta, uint8_t *pc)
{
	unsigned size = META_SIZE(meta), access = META_ACCESS(meta);
	bool live = c->fpu_live;
	enum bt_res r;
	void *host;

	c->rip = rip_of(c, meta, pc);
	if (!canonical(c, va, size, access))
		return leave(c, TR_EXIT_AGAIN);
	r = bt_mem_probe(c, va, size, BT_WRITE);
	/* old bytes of RAM always: an x87 store with an unmasked exception writes nothing */
	if (r == BT_OK && ((access & TR_READ) || bt_mmu_host(c, va, 1, BT_READ, &host) == BT_OK))
		r = read_pieces(c, va, bounce_at(c, va), size);
	if (r != BT_OK)
		return leave(c, TR_EXIT_AGAIN);
	c->scratch[SLOT_ADDR] = va;
	c->scratch[SLOT_SIZE] = size;
	fpu_again(c, live);
	return bounce_at(c, va);
}

/*
 * After it.  An MMIO write leaves to the monitor when the instruction has changed registers already: it is complete,
 * only the monitor's part is to come.
 */
uint64_t tr_slow_commit(struct bt_cpu *c)
{
	struct bt_translator *t = c->tr_state;
	struct bt_block *b = t->running;
	gva_t va = c->scratch[SLOT_ADDR];
	unsigned size = (unsigned)c->scratch[SLOT_SIZE];
	const uint8_t *src = bounce_at(c, va);
	bool live = c->fpu_live;
	enum bt_res r = BT_OK;

	for (unsigned at = 0; at < size && r == BT_OK; at += 16)
		r = bt_mem_write(c, va + at, src + at, size - at < 16 ? size - at : 16);
	if (r == BT_OK) {
		fpu_again(c, live);
		return 1;
	}
	if (r == BT_EXIT) {
		c->rip = b->rip + b->size;
		t->write_done = true;
	}
	leave(c, TR_EXIT_AGAIN);
	return 0;
}

uint64_t tr_slow_sys(struct bt_cpu *c, const struct bt_insn *i, bt_sys_fn fn)
{
	struct bt_translator *t = c->tr_state;
	uint64_t gen = t->gen_count;
	enum bt_next n;

	c->rip = i->rip;
	c->irq_shadow = false; /* this is the instruction that it protected */
	tr_flags_in(c);
	n = fn(c, i);
	if (c->irq_shadow)
		t->shadow_rip = c->rip;
	c->scratch[SLOT_FLAGS] = tr_flags_to_slot(c->rflags);
	if (n == BT_NEXT && gen == t->gen_count && c->rip == i->next_rip && !c->irq_shadow)
		return 1;
	leave(c, n == BT_AGAIN ? TR_EXIT_AGAIN : TR_EXIT_INDIRECT);
	return 0;
}

/* A guest that spins waits for another vCPU: vCPU threads outnumber host CPUs. */
void tr_slow_pause(struct bt_cpu *c)
{
	c->pause_left = PAUSES_PER_YIELD;
	sched_yield();
}

/* Guest x87/SSE state may be live: cfg->pace leaves it alone. */
void tr_slow_pace(struct bt_cpu *c, const uint8_t *pc)
{
	c->pace_left = c->cfg->pace(c->id, tr_block_at(c->tr_state, pc)->rip, c->gpr);
}

void bt_fpu_park(struct bt_cpu *c)
{
	static const uint32_t mxcsr_default = 0x1f80;

	if (!c->fpu_live)
		return;
	__asm__ volatile("fxsave64 %0\n\tfninit\n\tldmxcsr %1" : "=m"(c->fx) : "m"(mxcsr_default) : "memory");
	c->fpu_live = 0;
}

void bt_fpu_load(struct bt_cpu *c)
{
	if (c->fpu_live)
		return;
	__asm__ volatile("fxrstor64 %0" : : "m"(c->fx) : "memory");
	c->fpu_live = 1;
}
