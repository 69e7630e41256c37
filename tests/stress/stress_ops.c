/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress_ops.c - what the threads of unum-stress do to the memory, and how wrong values are noticed.
 *
 * What      Every page has words of every kind, so kinds, writers and sizes share pages and cache lines:
 *             stamps    one writer each, any reader; a reader knows the oldest and the newest value that it may find
 *             bytes     eight writers to one word
 *             ticket    lock xadd: everybody's tickets rise, and all of 0 .. n-1 were drawn once
 *             chain     lock cmpxchg of a value that says which one it is; the pair: the same by cmpxchg16b
 *             xchg      what was put in less what was taken out is what is left
 *             narrow    locked additions of 1, 2 and 4 bytes side by side
 *             block     1 KiB that is checked and rewritten under a spin lock in the page
 *             crossing  unaligned stamps across the boundary to the next page; each half for itself is one
 *           and whole pages are read by loads and by the call that devices use.
 * Threads   Each user its own struct user; struct tally has one writer.
 */
#include "tests/stress/stress.h"

#include "base/clock.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define W_TAIL 0u /* second half of the crossing word of the page before */
#define W_LOCK 1u
#define W_TICKET 2u
#define W_CHAIN 3u
#define W_PAIR 4u /* and 5; 16-aligned */
#define W_NARROW 6u
#define W_BYTES 7u
#define W_XCHG 8u
#define W_BLOCK 16u
#define BLOCK_WORDS 128u
#define W_STAMPS 144u
#define W_HEAD 511u /* first half of a crossing word; stamps end here */

#define HOT_PERCENT 70u
#define BURST 16u
#define COMPLAINTS 12u /* lines per process */

const struct op_kind op_kinds[OPS] = {
	[OP_STAMP_WRITE] = { "stamp_write", CLASS_WRITE, 18 },
	[OP_STAMP_READ] = { "stamp_read", CLASS_READ, 26 },
	[OP_BYTE] = { "byte", CLASS_WRITE, 4 },
	[OP_XADD] = { "xadd", CLASS_ATOMIC, 6 },
	[OP_CMPXCHG] = { "cmpxchg", CLASS_ATOMIC, 6 },
	[OP_XCHG] = { "xchg", CLASS_ATOMIC, 4 },
	[OP_PAIR] = { "cmpxchg16b", CLASS_ATOMIC, 4 },
	[OP_NARROW] = { "narrow", CLASS_ATOMIC, 6 },
	[OP_BLOCK] = { "block", CLASS_WRITE, 4 },
	[OP_CROSS_WRITE] = { "cross_write", CLASS_WRITE, 6 },
	[OP_CROSS_READ] = { "cross_read", CLASS_READ, 8 },
	[OP_SCAN] = { "scan", CLASS_READ, 3 },
	[OP_COPY_IN] = { "copy_in", CLASS_READ, 3 },
	[OP_COPY_OUT] = { "copy_out", CLASS_WRITE, 2 },
};

void violation(struct run *r, const char *what, uint32_t page, unsigned word, uint64_t have,
	       uint64_t want)
{
	static _Atomic unsigned said;
	uint64_t gfn = FIRST_GFN + page;

	atomic_fetch_add(&r->ctl->violations, 1);
	if (atomic_fetch_add(&said, 1) < COMPLAINTS)
		fprintf(stderr,
			"node %u: VIOLATION %s: page %u (gfn %llu) word %u: have %#llx, want "
			"%#llx; "
			"right here %d\n",
			r->node.self, what, page, (unsigned long long)gfn, word,
			(unsigned long long)have, (unsigned long long)want,
			dsm_right(r->node.dsm, gfn));
}

/* --- addresses and values --------------------------------------------------------------------------- */

static void *at_word(const struct run *r, uint32_t page, unsigned word)
{
	return r->node.view + (((uint64_t)FIRST_GFN + page) << PAGE_SHIFT) + word * 8;
}

static uint64_t load(const void *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

/* The value number `seq` of the word `where`; number 0 is never-written memory. */
static uint64_t value_of(uint32_t seq, uint64_t where)
{
	return seq ? seq | (mix64(where << 32 | seq) & ~0xffffffffull) : 0;
}

static uint64_t where_of(uint32_t page, unsigned word)
{
	return (uint64_t)page * WORDS + word;
}

/* One of the words (word + page) % users == id of [from, to); there is always one. */
static unsigned own_word(struct user *u, uint32_t page, unsigned from, unsigned to)
{
	unsigned users = u->run->users;
	unsigned first = from + (u->id + users - (page + from) % users) % users;

	return first + users * (unsigned)rng_below(&u->rng, (to - first + users - 1) / users);
}

/* --- stamps ----------------------------------------------------------------------------------------- */

static struct stamp *stamp_at(const struct run *r, uint32_t page, unsigned word)
{
	return &r->ctl->stamp[where_of(page, word)];
}

/* `value` was loaded after *lo was read from stamp.done and before stamp.begun is read here. */
static void stamp_judge(struct user *u, uint32_t page, unsigned word, uint32_t lo, uint64_t value)
{
	uint32_t hi = atomic_load(&stamp_at(u->run, page, word)->begun), seq = (uint32_t)value;
	uint32_t *seen = &u->seen[where_of(page, word)];

	if (value != value_of(seq, where_of(page, word)))
		violation(u->run, "torn or foreign value", page, word, value,
			  value_of(seq, where_of(page, word)));
	else if (seq < lo)
		violation(u->run, "stale value", page, word, seq, lo);
	else if (seq > hi)
		violation(u->run, "value from nowhere", page, word, seq, hi);
	else if (seq < *seen)
		violation(u->run, "value went back", page, word, seq, *seen);
	else
		*seen = seq;
}

static void op_stamp_read(struct user *u, uint32_t page)
{
	unsigned word = W_STAMPS + (unsigned)rng_below(&u->rng, W_HEAD - W_STAMPS);
	uint32_t lo = atomic_load(&stamp_at(u->run, page, word)->done);

	stamp_judge(u, page, word, lo, load(at_word(u->run, page, word)));
}

/* By a store, or by the call of a device. */
static void stamp_write(struct user *u, uint32_t page, bool copy)
{
	struct run *r = u->run;
	unsigned word = own_word(u, page, W_STAMPS, W_HEAD);
	struct stamp *s = stamp_at(r, page, word);
	uint32_t seq = atomic_load(&s->done);
	uint64_t *at = at_word(r, page, word), mine = load(at);
	uint64_t value = value_of(seq + 1, where_of(page, word));
	int err;

	if (mine != value_of(seq, where_of(page, word)))
		violation(r, "own word lost", page, word, mine, seq);
	atomic_store(&s->begun, seq + 1);
	if (copy) {
		gpa_t gpa = (gpa_t)((uint8_t *)at - r->node.view);

		err = dsm_copy_out(r->node.dsm, gpa, &value, sizeof(value),
				   clock_now_ns() + u->seat->fault.patience_ns);
		if (err)
			siglongjmp(*u->seat->fault.out, -err);
	} else {
		__atomic_store_n(at, value, __ATOMIC_RELAXED);
	}
	__atomic_thread_fence(
		__ATOMIC_SEQ_CST); /* the value is performed before it is said to be */
	atomic_store(&s->done, seq + 1);
}

static void op_scan(struct user *u, uint32_t page)
{
	for (unsigned word = W_STAMPS; word < W_HEAD; word++) {
		uint32_t lo = atomic_load(&stamp_at(u->run, page, word)->done);

		stamp_judge(u, page, word, lo, load(at_word(u->run, page, word)));
	}
}

static void op_copy_in(struct user *u, uint32_t page)
{
	struct run *r = u->run;
	uint32_t lo[WORDS];
	uint64_t got[WORDS];
	int err;

	for (unsigned word = W_STAMPS; word < W_HEAD; word++)
		lo[word] = atomic_load(&stamp_at(r, page, word)->done);
	err = dsm_copy_in(r->node.dsm, got, ((gpa_t)FIRST_GFN + page) << PAGE_SHIFT, sizeof(got),
			  clock_now_ns() + u->seat->fault.patience_ns);
	if (err)
		siglongjmp(*u->seat->fault.out, -err);
	for (unsigned word = W_STAMPS; word < W_HEAD; word++)
		stamp_judge(u, page, word, lo[word], got[word]);
}

/* --- crossing --------------------------------------------------------------------------------------- */

/* Bytes of each half, by page, so that a boundary has one kind: 16, 8 and 2 bytes in all. */
static unsigned half_of(uint32_t page)
{
	static const unsigned halves[] = { 8, 4, 1 };

	return halves[page % 3];
}

static uint64_t half_value(uint32_t seq, uint32_t page, unsigned half, unsigned which)
{
	if (half == 8)
		return value_of(seq, where_of(page, W_HEAD) << 1 | which);
	return half == 4 ? seq : (uint8_t)seq;
}

static void op_cross_write(struct user *u, uint32_t page)
{
	struct run *r = u->run;
	struct stamp *s;
	uint32_t seq;
	uint8_t *at;
	unsigned half;
	uint64_t v[2];

	page = page - page % r->users + u->id;
	if (page + 1 >= r->pages)
		return;
	half = half_of(page);
	s = stamp_at(r, page, W_HEAD);
	seq = atomic_load(&s->done) + 1;
	at = (uint8_t *)at_word(r, page + 1, W_TAIL) - half;
	v[0] = half_value(seq, page, half, 0);
	v[1] = half_value(seq, page, half, 1);
	atomic_store(&s->begun, seq);
	if (half == 8)
		__asm__ volatile("movups %1, %%xmm0; movups %%xmm0, %0"
				 : "=m"(*(uint8_t(*)[16])at)
				 : "m"(v)
				 : "xmm0");
	else if (half == 4)
		__asm__ volatile("movq %1, %0" : "=m"(*(uint64_t *)at) : "r"(v[0] | v[1] << 32));
	else
		__asm__ volatile("movw %w1, %0" : "=m"(*(uint16_t *)at) : "r"(v[0] | v[1] << 8));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	atomic_store(&s->done, seq);
}

static void op_cross_read(struct user *u, uint32_t page)
{
	struct run *r = u->run;
	unsigned half = half_of(page);
	uint32_t lo, hi;
	uint64_t v[2] = { 0 };
	uint8_t *at;

	if (page + 1 >= r->pages)
		return;
	at = (uint8_t *)at_word(r, page + 1, W_TAIL) - half;
	lo = atomic_load(&stamp_at(r, page, W_HEAD)->done);
	if (half == 8) {
		__asm__ volatile("movups %1, %%xmm0; movups %%xmm0, %0"
				 : "=m"(v)
				 : "m"(*(uint8_t(*)[16])at)
				 : "xmm0");
	} else if (half == 4) {
		__asm__ volatile("movq %1, %0" : "=r"(v[0]) : "m"(*(uint64_t *)at));
		v[1] = v[0] >> 32;
		v[0] &= 0xffffffff;
	} else {
		__asm__ volatile("movzwl %1, %k0" : "=r"(v[0]) : "m"(*(uint16_t *)at));
		v[1] = v[0] >> 8;
		v[0] &= 0xff;
	}
	hi = atomic_load(&stamp_at(r, page, W_HEAD)->begun);
	for (unsigned which = 0; which < 2; which++) {
		uint32_t seq = (uint32_t)v[which];

		if (half == 1) /* the one number in question with this low byte, if there is one */
			seq = lo + (uint8_t)((uint8_t)v[which] - (uint8_t)lo);
		if (v[which] != half_value(seq, page, half, which) || seq < lo || seq > hi)
			violation(r, "half of a crossing word is wrong", page + which,
				  which ? W_TAIL : W_HEAD, v[which], lo);
	}
}

/* --- atomics ---------------------------------------------------------------------------------------- */

static void op_xadd(struct user *u, uint32_t page)
{
	uint64_t t = __atomic_fetch_add((uint64_t *)at_word(u->run, page, W_TICKET), 1,
					__ATOMIC_SEQ_CST);

	if (t < u->ticket[page])
		violation(u->run, "ticket drawn again", page, W_TICKET, t, u->ticket[page]);
	u->ticket[page] = t + 1;
	u->tally[page].xadd++;
	u->tally[page].ticket_sum += t;
	u->tally[page].ticket_squares += t * t;
}

static void op_cmpxchg(struct user *u, uint32_t page)
{
	uint64_t *at = at_word(u->run, page, W_CHAIN), where = where_of(page, W_CHAIN);
	uint64_t old = load(at);

	do {
		if (old != value_of((uint32_t)old, where)) {
			violation(u->run, "chain broken", page, W_CHAIN, old,
				  value_of((uint32_t)old, where));
			return;
		}
	} while (!__atomic_compare_exchange_n(at, &old, value_of((uint32_t)old + 1, where), false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	u->tally[page].cmpxchg++;
}

static uint64_t xchg_hash(uint64_t v)
{
	return v ? mix64(v) : 0;
}

static void op_xchg(struct user *u, uint32_t page)
{
	uint64_t in = rng_next(&u->rng), out;

	out = __atomic_exchange_n((uint64_t *)at_word(u->run, page, W_XCHG), in, __ATOMIC_SEQ_CST);
	u->tally[page].xchg_sum += in - out;
	u->tally[page].xchg_hash += xchg_hash(in) - xchg_hash(out);
}

/* Number n of a pair: n, and what follows from it. */
static void op_pair(struct user *u, uint32_t page)
{
	uint64_t *at = at_word(u->run, page, W_PAIR), lo = load(at), hi = load(at + 1);
	uint8_t done;

	do {
		__asm__ volatile("lock cmpxchg16b %0; setz %3"
				 : "+m"(*(__uint128_t *)at), "+a"(lo), "+d"(hi), "=q"(done)
				 : "b"(lo + 1), "c"(mix64(lo + 1))
				 : "cc", "memory");
		/* What it answers was read in one piece, unlike what was loaded above. */
		if (!done && hi != mix64(lo)) {
			violation(u->run, "pair broken", page, W_PAIR, hi, mix64(lo));
			return;
		}
	} while (!done);
	u->tally[page].pair++;
}

static void op_narrow(struct user *u, uint32_t page)
{
	uint8_t *at = at_word(u->run, page, W_NARROW), old;
	unsigned kind = (unsigned)rng_below(&u->rng, 4);

	switch (kind) {
	case 0:
		__atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
		break;
	case 1:
		old = __atomic_load_n(at + 1, __ATOMIC_SEQ_CST);
		while (!__atomic_compare_exchange_n(at + 1, &old, old + 1, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
		break;
	case 2:
		__atomic_fetch_add((uint16_t *)(at + 2), 1, __ATOMIC_SEQ_CST);
		break;
	default:
		__atomic_fetch_add((uint32_t *)(at + 4), 1, __ATOMIC_SEQ_CST);
	}
	u->tally[page].narrow[kind]++;
}

static void op_byte(struct user *u, uint32_t page)
{
	unsigned i = (unsigned)rng_below(&u->rng, 8);
	uint8_t *at = (uint8_t *)at_word(u->run, page, W_BYTES) + i, have;
	struct tally *t = &u->tally[page];

	if ((i + page) % u->run->users != u->id)
		return;
	have = __atomic_load_n(at, __ATOMIC_RELAXED);
	if (have != t->bytes[i])
		violation(u->run, "own byte lost", page, W_BYTES, have, t->bytes[i]);
	__atomic_store_n(at, ++t->bytes[i], __ATOMIC_RELAXED);
}

/* --- under a lock ----------------------------------------------------------------------------------- */

static void lock_take(struct user *u, uint64_t *lock)
{
	uint64_t none = 0;

	while (__atomic_load_n(lock, __ATOMIC_RELAXED) ||
	       !__atomic_compare_exchange_n(lock, &none, u->id + 1, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_RELAXED)) {
		sched_yield();
		if (atomic_load(&u->run->ctl->meet.ending))
			siglongjmp(*u->seat->fault.out, EPIPE);
		none = 0;
	}
}

static uint64_t block_word(uint64_t gen, uint32_t page, unsigned i)
{
	return !gen || i == 0 ? gen : mix64(gen << 32 | where_of(page, i));
}

static void op_block(struct user *u, uint32_t page)
{
	struct run *r = u->run;
	uint64_t *lock = at_word(r, page, W_LOCK), *block = at_word(r, page, W_BLOCK);
	uint64_t gen;

	lock_take(u, lock);
	gen = r->ctl->generation[page];
	for (unsigned i = 0; i < BLOCK_WORDS; i++) {
		if (block[i] != block_word(gen, page, i)) {
			violation(r, "block under a lock", page, W_BLOCK + i, block[i],
				  block_word(gen, page, i));
			break;
		}
	}
	for (unsigned i = 0; i < BLOCK_WORDS; i++)
		block[i] = block_word(gen + 1, page, i);
	r->ctl->generation[page]++;
	u->tally[page].block++;
	if (__atomic_load_n(lock, __ATOMIC_RELAXED) != u->id + 1)
		violation(r, "lock not held", page, W_LOCK, __atomic_load_n(lock, __ATOMIC_RELAXED),
			  u->id + 1);
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* --- one operation ---------------------------------------------------------------------------------- */

/* A few operations on one page, then another: a page that was fetched is used while others want it. */
static uint32_t page_pick(struct user *u)
{
	const struct options *o = u->run->opt;
	uint64_t base;

	if (u->burst) {
		u->burst--;
		return u->page;
	}
	u->burst = (unsigned)rng_below(&u->rng, BURST);
	if (rng_below(&u->rng, 100) >= HOT_PERCENT)
		return u->page = (uint32_t)rng_below(&u->rng, u->run->pages);
	base = mix64(o->seed + atomic_load_explicit(&u->run->ctl->hot, memory_order_relaxed));
	u->page = (uint32_t)((base + rng_below(&u->rng, o->hot_pages)) % u->run->pages);
	return u->page;
}

static enum op op_pick(struct user *u)
{
	unsigned draw = (unsigned)rng_below(&u->rng, 100);
	unsigned op = 0;

	while (draw >= op_kinds[op].weight)
		draw -= op_kinds[op++].weight;
	return op;
}

void op_run(struct user *u)
{
	enum op op = op_pick(u);
	uint32_t page = page_pick(u);

	atomic_store_explicit(&u->seat->op, op, memory_order_relaxed);
	atomic_store_explicit(&u->seat->page, page, memory_order_relaxed);
	switch (op) {
	case OP_STAMP_WRITE:
		stamp_write(u, page, false);
		break;
	case OP_STAMP_READ:
		op_stamp_read(u, page);
		break;
	case OP_BYTE:
		op_byte(u, page);
		break;
	case OP_XADD:
		op_xadd(u, page);
		break;
	case OP_CMPXCHG:
		op_cmpxchg(u, page);
		break;
	case OP_XCHG:
		op_xchg(u, page);
		break;
	case OP_PAIR:
		op_pair(u, page);
		break;
	case OP_NARROW:
		op_narrow(u, page);
		break;
	case OP_BLOCK:
		op_block(u, page);
		break;
	case OP_CROSS_WRITE:
		op_cross_write(u, page);
		break;
	case OP_CROSS_READ:
		op_cross_read(u, page);
		break;
	case OP_SCAN:
		op_scan(u, page);
		break;
	case OP_COPY_IN:
		op_copy_in(u, page);
		break;
	case OP_COPY_OUT:
		stamp_write(u, page, true);
		break;
	case OPS:
		break;
	}
	atomic_fetch_add_explicit(&u->seat->ops[op], 1, memory_order_relaxed);
}

/* --- at the end ------------------------------------------------------------------------------------- */

static struct tally tally_sum(const struct run *r, uint32_t page)
{
	struct tally sum = { 0 };

	for (unsigned id = 0; id < r->users; id++) {
		const struct tally *t = &r->ctl->tally[(uint64_t)id * r->pages + page];

		sum.xadd += t->xadd;
		sum.ticket_sum += t->ticket_sum;
		sum.ticket_squares += t->ticket_squares;
		sum.cmpxchg += t->cmpxchg;
		sum.pair += t->pair;
		sum.block += t->block;
		sum.xchg_sum += t->xchg_sum;
		sum.xchg_hash += t->xchg_hash;
		for (unsigned i = 0; i < 4; i++)
			sum.narrow[i] += t->narrow[i];
		for (unsigned i = 0; i < 8; i++)
			if ((i + page) % r->users == id)
				sum.bytes[i] = t->bytes[i];
	}
	return sum;
}

static void expect(struct run *r, const char *what, uint32_t page, unsigned word, uint64_t have,
		   uint64_t want)
{
	if (have != want)
		violation(r, what, page, word, have, want);
}

static void atomics_check(struct run *r, uint32_t page)
{
	struct tally t = tally_sum(r, page);
	const uint64_t *w = at_word(r, page, 0);
	const uint8_t *narrow = (const uint8_t *)&w[W_NARROW];
	__uint128_t n = t.xadd;

	expect(r, "lock xadd lost", page, W_TICKET, w[W_TICKET], t.xadd);
	expect(r, "tickets", page, W_TICKET, t.ticket_sum, (uint64_t)(n ? n * (n - 1) / 2 : 0));
	expect(r, "tickets", page, W_TICKET, t.ticket_squares,
	       (uint64_t)(n ? n * (n - 1) * (2 * n - 1) / 6 : 0));
	expect(r, "lock cmpxchg lost", page, W_CHAIN, w[W_CHAIN],
	       value_of((uint32_t)t.cmpxchg, where_of(page, W_CHAIN)));
	expect(r, "cmpxchg16b lost", page, W_PAIR, w[W_PAIR], t.pair);
	expect(r, "xchg lost", page, W_XCHG, w[W_XCHG], t.xchg_sum);
	expect(r, "xchg lost", page, W_XCHG, xchg_hash(w[W_XCHG]), t.xchg_hash);
	expect(r, "lock xadd of 1 byte lost", page, W_NARROW, narrow[0], (uint8_t)t.narrow[0]);
	expect(r, "lock cmpxchg of 1 byte lost", page, W_NARROW, narrow[1], (uint8_t)t.narrow[1]);
	expect(r, "lock xadd of 2 bytes lost", page, W_NARROW, *(uint16_t *)(narrow + 2),
	       (uint16_t)t.narrow[2]);
	expect(r, "lock xadd of 4 bytes lost", page, W_NARROW, *(uint32_t *)(narrow + 4),
	       (uint32_t)t.narrow[3]);
	for (unsigned i = 0; i < 8; i++)
		expect(r, "byte lost", page, W_BYTES, ((uint8_t *)&w[W_BYTES])[i], t.bytes[i]);
	expect(r, "block lost", page, W_BLOCK, r->ctl->generation[page], t.block);
	for (unsigned i = 0; i < BLOCK_WORDS; i++)
		expect(r, "block lost", page, W_BLOCK + i, w[W_BLOCK + i],
		       block_word(t.block, page, i));
	expect(r, "lock left held", page, W_LOCK, w[W_LOCK], 0);
}

void page_check(struct run *r, uint32_t page)
{
	unsigned half = half_of(page);
	uint64_t v[2] = { 0 };

	atomics_check(r, page);
	for (unsigned word = W_STAMPS; word < W_HEAD; word++)
		expect(r, "stamp lost", page, word, load(at_word(r, page, word)),
		       value_of(atomic_load(&stamp_at(r, page, word)->done), where_of(page, word)));
	if (page + 1 >= r->pages)
		return;
	memcpy(&v[0], (uint8_t *)at_word(r, page + 1, W_TAIL) - half, half);
	memcpy(&v[1], at_word(r, page + 1, W_TAIL), half);
	for (unsigned i = 0; i < 2; i++)
		expect(r, "crossing word lost", page + i, i ? W_TAIL : W_HEAD, v[i],
		       half_value(atomic_load(&stamp_at(r, page, W_HEAD)->done), page, half, i));
}
