/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/string.c - movs, stos, lods, scas, cmps with and without rep.
 *
 * What      A run of elements that lies in one source and one destination page, both held in one
 * active period, is done by the host's own string instruction on host addresses: same element size,
 * same direction, so overlap behaves as the guest's would.  Anything else (page crossing, MMIO, a
 * limit near) goes element by element.  Registers are brought up to date after each run; a fault,
 * an exit or a kick leaves the instruction restartable. Threads   The vCPU thread, active as a DSM
 * reader. I/O       Guest memory, MMIO exits. Limits    Single stepping (TF) traps once per
 * instruction, not per iteration.
 */
#include "hv/bt/sysint.h"

struct str {
	const struct bt_insn *i;
	unsigned size;
	uint64_t mask;  /* of addresses and the count */
	uint64_t count; /* elements left */
	bool down;
};

static void str_begin(const struct bt_cpu *c, const struct bt_insn *i, struct str *s)
{
	s->i = i;
	s->size = bt_string_size(i->mnemonic);
	s->mask = size_mask(i->addrsize);
	s->count = i->rep ? c->gpr[HV_RCX] & s->mask : 1;
	s->down = c->rflags & RFLAGS_DF;
}

/* n elements are done: which registers move is told by the two flags. */
static void str_advance(struct bt_cpu *c, struct str *s, uint64_t n, bool src, bool dst)
{
	uint64_t bytes = s->down ? -(n * s->size) : n * s->size;

	if (src)
		reg_write(c, HV_RSI, c->gpr[HV_RSI] + bytes, s->i->addrsize);
	if (dst)
		reg_write(c, HV_RDI, c->gpr[HV_RDI] + bytes, s->i->addrsize);
	s->count -= n;
	if (s->i->rep)
		reg_write(c, HV_RCX, s->count, s->i->addrsize);
	c->held.valid = false;
}

static bool str_kicked(const struct bt_cpu *c)
{
	return atomic_load_explicit(&c->kick, memory_order_relaxed) != 0;
}

/* One side of a string operation. */
struct side {
	unsigned seg;
	enum hv_gpr reg;
	enum bt_access access;
	gva_t va;
	struct mmu_ref ref;
};

/* Elements from here that stay in the page, in the address size and within `limit`; 0: use single
 * steps. */
static uint64_t side_room(const struct str *s, const struct bt_cpu *c, const struct side *x)
{
	unsigned at = (unsigned)(x->va & (PAGE_SIZE - 1));
	uint64_t ea = c->gpr[x->reg] & s->mask, room, wrap;

	if (at + s->size > PAGE_SIZE)
		return 0;
	if (s->down) {
		room = at / s->size + 1;
		wrap = ea / s->size + 1;
	} else {
		room = (PAGE_SIZE - at) / s->size;
		wrap = (s->mask - ea) / s->size + (s->mask == ~0ull);
	}
	return room < wrap ? room : wrap;
}

static enum bt_res side_address(struct bt_cpu *c, const struct str *s, struct side *x)
{
	return bt_seg_address(c, x->seg, c->gpr[x->reg] & s->mask, s->size, x->access, &x->va);
}

/* Outside 64-bit mode: the last element of a run must be within the limit too, or the run is cut to
 * one. */
static uint64_t side_limit(const struct bt_cpu *c, const struct str *s, const struct side *x,
			   uint64_t n)
{
	uint64_t ea = c->gpr[x->reg] & s->mask, last = (n - 1) * s->size;

	if (cpu_code64(c) || n <= 1)
		return n;
	ea = (s->down ? ea - last : ea + last) & s->mask;
	return bt_seg_inside(c, x->seg, ea, s->size, x->access) ? n : 1;
}

/*
 * Prepares a run: *n elements that both sides have in RAM, host addresses in x[].ref, or *n = 0: do
 * one element by bt_mem_*.  Checks the sides in order, so the first one's fault comes first.
 */
static enum bt_res str_run(struct bt_cpu *c, const struct str *s, struct side *x, unsigned sides,
			   uint64_t *n)
{
	uint64_t q, room;
	enum bt_res r;

	*n = s->count;
	for (unsigned k = 0; k < sides; k++) {
		r = side_address(c, s, &x[k]);
		if (r)
			return r;
		room = side_room(s, c, &x[k]);
		if (room < *n)
			*n = room;
		*n = *n ? side_limit(c, s, &x[k], *n) : 0;
	}
	if (*n == 0)
		return BT_OK;
	do {
		q = c->quiesced;
		for (unsigned k = 0; k < sides; k++) {
			r = bt_mmu_ref(c, x[k].va, x[k].access, as_current(c), &x[k].ref);
			if (r)
				return r;
		}
	} while (q != c->quiesced);
	for (unsigned k = 0; k < sides; k++)
		if (!x[k].ref.host)
			*n = 0;
	return BT_OK;
}

/* A run wrote to a page with code: tell which bytes. */
static void str_wrote(struct bt_cpu *c, const struct str *s, const struct side *x, uint64_t n)
{
	gpa_t first = s->down ? x->ref.gpa - (n - 1) * s->size : x->ref.gpa;

	if (x->ref.code)
		bt_cache_wrote(c, first, (unsigned)(n * s->size));
}

/* Runs a host string instruction under the guest's direction; the flag is clear again afterwards,
 * as the ABI has it. */
#define HOST_STRING(down, insn, ...)                                        \
	do {                                                                \
		if (down)                                                   \
			__asm__ volatile("std; " insn "; cld" __VA_ARGS__); \
		else                                                        \
			__asm__ volatile(insn __VA_ARGS__);                 \
	} while (0)

/* --- movs --- */
static void host_movs(void *dst, const void *src, uint64_t n, unsigned size, bool down)
{
#define REGS : "+D"(dst), "+S"(src), "+c"(n) : : "memory"
	switch (size) {
	case 1:
		HOST_STRING(down, "rep movsb", REGS);
		break;
	case 2:
		HOST_STRING(down, "rep movsw", REGS);
		break;
	case 4:
		HOST_STRING(down, "rep movsl", REGS);
		break;
	default:
		HOST_STRING(down, "rep movsq", REGS);
		break;
	}
#undef REGS
}

/* Reads one element, or takes it from `held` when it was read before a later access exited. */
static enum bt_res held_read(struct bt_cpu *c, gva_t va, uint64_t *v, unsigned size)
{
	*v = 0;
	if (c->held.valid && c->held.va == va && c->held.size == size) {
		*v = c->held.data;
		return BT_OK;
	}
	return bt_mem_read(c, va, v, size);
}

static void hold(struct bt_cpu *c, gva_t va, uint64_t v, unsigned size)
{
	c->held.valid = true;
	c->held.va = va;
	c->held.data = v;
	c->held.size = (uint8_t)size;
}

static enum bt_res movs_one(struct bt_cpu *c, const struct str *s, const struct side *x)
{
	uint64_t v;
	enum bt_res r = held_read(c, x[0].va, &v, s->size);

	if (r)
		return r;
	r = bt_mem_write(c, x[1].va, &v, s->size);
	if (r == BT_EXIT)
		hold(c, x[0].va, v, s->size);
	return r;
}

SYS_FN(bt_sys_movs)
{
	struct side x[2] = { { .seg = i->seg, .reg = HV_RSI, .access = BT_READ },
			     { .seg = HV_ES, .reg = HV_RDI, .access = BT_WRITE } };
	struct str s;
	uint64_t n;

	str_begin(c, i, &s);
	while (s.count) {
		if (str_run(c, &s, x, 2, &n))
			return BT_AGAIN;
		if (n) {
			host_movs(x[1].ref.host, x[0].ref.host, n, s.size, s.down);
			str_wrote(c, &s, &x[1], n);
		} else {
			if (movs_one(c, &s, x))
				return BT_AGAIN;
			n = 1;
		}
		str_advance(c, &s, n, true, true);
		if (s.count && str_kicked(c))
			return BT_AGAIN;
	}
	return next_insn(c, i);
}

/* --- stos --- */
static void host_stos(void *dst, uint64_t v, uint64_t n, unsigned size, bool down)
{
#define REGS : "+D"(dst), "+c"(n) : "a"(v) : "memory"
	switch (size) {
	case 1:
		HOST_STRING(down, "rep stosb", REGS);
		break;
	case 2:
		HOST_STRING(down, "rep stosw", REGS);
		break;
	case 4:
		HOST_STRING(down, "rep stosl", REGS);
		break;
	default:
		HOST_STRING(down, "rep stosq", REGS);
		break;
	}
#undef REGS
}

SYS_FN(bt_sys_stos)
{
	struct side x = { .seg = HV_ES, .reg = HV_RDI, .access = BT_WRITE };
	struct str s;
	uint64_t n;

	str_begin(c, i, &s);
	while (s.count) {
		if (str_run(c, &s, &x, 1, &n))
			return BT_AGAIN;
		if (n) {
			host_stos(x.ref.host, c->gpr[HV_RAX], n, s.size, s.down);
			str_wrote(c, &s, &x, n);
		} else {
			if (bt_mem_write(c, x.va, &c->gpr[HV_RAX], s.size))
				return BT_AGAIN;
			n = 1;
		}
		str_advance(c, &s, n, false, true);
		if (s.count && str_kicked(c))
			return BT_AGAIN;
	}
	return next_insn(c, i);
}

/* --- lods --- */
SYS_FN(bt_sys_lods)
{
	struct side x = { .seg = i->seg, .reg = HV_RSI, .access = BT_READ };
	struct str s;
	uint64_t n, v, at;

	str_begin(c, i, &s);
	while (s.count) {
		if (str_run(c, &s, &x, 1, &n))
			return BT_AGAIN;
		v = 0;
		if (n) { /* only the last of them can be seen */
			at = (n - 1) * s.size;
			v = load_le(s.down ? x.ref.host - at : x.ref.host + at, s.size);
		} else {
			if (bt_mem_read(c, x.va, &v, s.size))
				return BT_AGAIN;
			n = 1;
		}
		reg_write(c, HV_RAX, v, s.size);
		str_advance(c, &s, n, true, false);
		if (s.count && str_kicked(c))
			return BT_AGAIN;
	}
	return next_insn(c, i);
}

/* --- scas, cmps: the flags of the last comparison --- */
#define HOST_FLAGS "; lahf; seto %%al"

static void set_arith(struct bt_cpu *c, uint64_t ax)
{
	c->rflags =
		(c->rflags & ~(uint64_t)RFLAGS_ARITH) | (ax >> 8 & 0xd5) | (ax & 1 ? RFLAGS_OF : 0);
}

/* Elements done of n, until the comparison ends the loop; *ax gets lahf and seto. */
static uint64_t host_scas(const void *dst, uint64_t *ax, uint64_t n, unsigned size, bool down,
			  bool repne)
{
	uint64_t left = n;

#define REGS : "+D"(dst), "+c"(left), "+a"(*ax) : : "memory", "cc"
#define SCAS(insn)                                                         \
	do {                                                               \
		if (repne)                                                 \
			HOST_STRING(down, "repne " insn HOST_FLAGS, REGS); \
		else                                                       \
			HOST_STRING(down, "repe " insn HOST_FLAGS, REGS);  \
	} while (0)
	switch (size) {
	case 1:
		SCAS("scasb");
		break;
	case 2:
		SCAS("scasw");
		break;
	case 4:
		SCAS("scasl");
		break;
	default:
		SCAS("scasq");
		break;
	}
#undef SCAS
#undef REGS
	return n - left;
}

static uint64_t host_cmps(const void *dst, const void *src, uint64_t *ax, uint64_t n, unsigned size,
			  bool down, bool repne)
{
	uint64_t left = n;

#define REGS : "+D"(dst), "+S"(src), "+c"(left), "=&a"(*ax) : : "memory", "cc"
#define CMPS(insn)                                                         \
	do {                                                               \
		if (repne)                                                 \
			HOST_STRING(down, "repne " insn HOST_FLAGS, REGS); \
		else                                                       \
			HOST_STRING(down, "repe " insn HOST_FLAGS, REGS);  \
	} while (0)
	switch (size) {
	case 1:
		CMPS("cmpsb");
		break;
	case 2:
		CMPS("cmpsw");
		break;
	case 4:
		CMPS("cmpsl");
		break;
	default:
		CMPS("cmpsq");
		break;
	}
#undef CMPS
#undef REGS
	return n - left;
}

/* True when the comparison that set the flags ends a repeated instruction. */
static bool compare_ends(const struct bt_cpu *c, const struct bt_insn *i)
{
	bool zf = c->rflags & RFLAGS_ZF;

	return !i->rep || zf == (i->rep == 0xf2);
}

SYS_FN(bt_sys_scas)
{
	struct side x = { .seg = HV_ES, .reg = HV_RDI, .access = BT_READ };
	struct str s;
	uint64_t n, ax, v;

	str_begin(c, i, &s);
	while (s.count) {
		if (str_run(c, &s, &x, 1, &n))
			return BT_AGAIN;
		ax = c->gpr[HV_RAX];
		if (n) {
			n = host_scas(x.ref.host, &ax, n, s.size, s.down, i->rep == 0xf2);
		} else {
			if (bt_mem_read(c, x.va, &v, s.size))
				return BT_AGAIN;
			n = host_scas(&v, &ax, 1, s.size, false, false);
		}
		set_arith(c, ax);
		str_advance(c, &s, n, false, true);
		if (compare_ends(c, i))
			break;
		if (s.count && str_kicked(c))
			return BT_AGAIN;
	}
	return next_insn(c, i);
}

static enum bt_res cmps_one(struct bt_cpu *c, const struct str *s, const struct side *x,
			    uint64_t *ax)
{
	uint64_t a, b = 0;
	enum bt_res r = held_read(c, x[0].va, &a, s->size);

	if (r)
		return r;
	r = bt_mem_read(c, x[1].va, &b, s->size);
	if (r == BT_EXIT)
		hold(c, x[0].va, a, s->size);
	if (r)
		return r;
	host_cmps(&b, &a, ax, 1, s->size, false, false);
	return BT_OK;
}

SYS_FN(bt_sys_cmps)
{
	struct side x[2] = { { .seg = i->seg, .reg = HV_RSI, .access = BT_READ },
			     { .seg = HV_ES, .reg = HV_RDI, .access = BT_READ } };
	struct str s;
	uint64_t n, ax;

	str_begin(c, i, &s);
	while (s.count) {
		if (str_run(c, &s, x, 2, &n))
			return BT_AGAIN;
		if (n) {
			n = host_cmps(x[1].ref.host, x[0].ref.host, &ax, n, s.size, s.down,
				      i->rep == 0xf2);
		} else {
			if (cmps_one(c, &s, x, &ax))
				return BT_AGAIN;
			n = 1;
		}
		set_arith(c, ax);
		str_advance(c, &s, n, true, true);
		if (compare_ends(c, i))
			break;
		if (s.count && str_kicked(c))
			return BT_AGAIN;
	}
	return next_insn(c, i);
}
