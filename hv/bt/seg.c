/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/seg.c - segment registers: descriptors, hidden parts, addresses, the translation mode.
 *
 * What      SDM vol 3 chapters 3 and 5.  An unusable (null) segment has attr 0.
 * Threads   The vCPU thread, active as a DSM reader.
 * I/O       Guest memory only.
 * Limits    VM86 is not supported: nothing ever sets RFLAGS.VM.
 */
#include "hv/bt/sysint.h"

/* No limit and no type can be in the way of an access. */
static bool seg_flat(const struct hv_seg *s, unsigned type)
{
	return s->base == 0 && s->limit == 0xffffffffu && (s->attr & ATTR_P) &&
	       (s->attr & type) == type && (type == 0 || !(s->attr & (TYPE_CODE | TYPE_CE)));
}

void bt_mode_update(struct bt_cpu *c)
{
	uint32_t m = 0;
	bool flat;

	if (!(c->cr0 & CR0_PE)) {
		m |= BT_MODE_REAL;
		c->cpl = 0;
	}
	if (cpu_lma(c) && (c->seg[HV_CS].attr & ATTR_L))
		m |= BT_MODE_CODE64;
	else if (c->seg[HV_CS].attr & ATTR_DB)
		m |= BT_MODE_CODE32;
	if (c->cpl == 3)
		m |= BT_MODE_USER;
	/* not in 64-bit mode, where it has no meaning and would only double the translations */
	if ((c->seg[HV_SS].attr & ATTR_DB) && (m & BT_MODE_CODE) != BT_MODE_CODE64)
		m |= BT_MODE_SS32;
	flat = seg_flat(&c->seg[HV_CS], 0) && seg_flat(&c->seg[HV_DS], TYPE_RW) &&
	       seg_flat(&c->seg[HV_ES], TYPE_RW) && seg_flat(&c->seg[HV_SS], TYPE_RW);
	if (flat || (m & BT_MODE_CODE) == BT_MODE_CODE64)
		m |= BT_MODE_FLAT;
	if (c->cr0 & (CR0_TS | CR0_EM))
		m |= BT_MODE_TS;
	if (c->rflags & RFLAGS_TF)
		m |= BT_MODE_SINGLE;
	c->mode = m;
}

/* --- descriptors --- */
uint64_t desc_base(const struct desc *d)
{
	return ((d->raw >> 16) & 0xffffff) | ((d->raw >> 32) & 0xff000000u) |
	       (d->high & 0xffffffffu) << 32;
}

uint32_t desc_limit(const struct desc *d)
{
	uint32_t limit = (uint32_t)((d->raw & 0xffff) | ((d->raw >> 32) & 0xf0000));

	return d->raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static bool desc_place(const struct bt_cpu *c, uint16_t sel, unsigned len, gva_t *va)
{
	uint64_t base = sel & 4 ? c->ldt.base : c->gdt_base;
	uint32_t limit = sel & 4 ? c->ldt.limit : c->gdt_limit;

	if ((sel & 4) && !(c->ldt.attr & ATTR_P))
		return false;
	if ((sel & ~7u) + len - 1 > limit)
		return false;
	*va = base + (sel & ~7u);
	return true;
}

enum bt_res bt_desc_read(struct bt_cpu *c, uint16_t sel, uint8_t vector, unsigned ext,
			 struct desc *d)
{
	if (!desc_place(c, sel, 8, &d->addr))
		return res_fault(c, vector, (sel & ~3u) | ext);
	d->high = 0;
	return bt_mem_read_as(c, d->addr, &d->raw, 8, AS_SYSTEM);
}

enum bt_res bt_desc_read_high(struct bt_cpu *c, uint16_t sel, uint8_t vector, struct desc *d)
{
	gva_t va;

	if (!desc_place(c, sel, 16, &va))
		return res_fault(c, vector, sel & ~3u);
	return bt_mem_read_as(c, d->addr + 8, &d->high, 8, AS_SYSTEM);
}

enum bt_res bt_desc_mark_accessed(struct bt_cpu *c, struct desc *d)
{
	if (d->raw >> 40 & TYPE_ACCESSED)
		return BT_OK;
	d->raw |= (uint64_t)TYPE_ACCESSED << 40;
	return bt_mem_or8(c, d->addr + 5, TYPE_ACCESSED, AS_SYSTEM);
}

void bt_seg_from_desc(struct hv_seg *s, uint16_t sel, const struct desc *d)
{
	s->base = desc_base(d);
	s->limit = desc_limit(d);
	s->sel = sel;
	s->attr = desc_attr(d);
}

void bt_seg_set(struct bt_cpu *c, enum hv_sreg which, const struct hv_seg *s)
{
	c->seg[which] = *s;
	if (which == HV_FS)
		c->fs_base = s->base;
	else if (which == HV_GS)
		c->gs_base = s->base;
}

void bt_seg_null(struct bt_cpu *c, enum hv_sreg which, uint16_t sel)
{
	struct hv_seg s = { .base = 0, .limit = 0, .sel = sel, .attr = 0 };

	/* In 64-bit mode a null SS still tells the privilege (SDM vol 3, 5.8.3 and VM entry rules).
	 */
	if (which == HV_SS)
		s.attr = (uint16_t)(c->cpl << ATTR_DPL_SHIFT);
	bt_seg_set(c, which, &s);
}

enum bt_res bt_seg_check_ss(struct bt_cpu *c, uint16_t sel, unsigned cpl, uint8_t vector,
			    unsigned ext, struct hv_seg *out)
{
	struct desc d;
	enum bt_res r;

	if (!(sel & ~3u))
		return res_fault(c, vector, ext);
	r = bt_desc_read(c, sel, vector, ext, &d);
	if (r)
		return r;
	if ((sel & 3u) != cpl || !desc_data(&d) || !(desc_type(&d) & TYPE_RW) ||
	    desc_dpl(&d) != cpl)
		return res_fault(c, vector, (sel & ~3u) | ext);
	if (!desc_p(&d))
		return res_fault(c, EXC_SS, (sel & ~3u) | ext);
	r = bt_desc_mark_accessed(c, &d);
	if (r)
		return r;
	bt_seg_from_desc(out, sel, &d);
	return BT_OK;
}

static enum bt_res load_ss(struct bt_cpu *c, uint16_t sel)
{
	struct hv_seg s;
	enum bt_res r;

	if (!(sel & ~3u) && cpu_code64(c) && c->cpl != 3 && (sel & 3u) == c->cpl) {
		bt_seg_null(c, HV_SS, sel);
		return BT_OK;
	}
	r = bt_seg_check_ss(c, sel, c->cpl, EXC_GP, 0, &s);
	if (r == BT_OK)
		bt_seg_set(c, HV_SS, &s);
	return r;
}

enum bt_res bt_seg_load(struct bt_cpu *c, enum hv_sreg which, uint16_t sel)
{
	struct hv_seg s;
	struct desc d;
	enum bt_res r;

	if (cpu_real(c)) {
		s = c->seg[which];
		s.sel = sel;
		s.base = (uint32_t)sel << 4;
		if (!(s.attr & ATTR_P)) { /* was null: its limit means nothing */
			s.limit = 0xffff;
			s.attr = 0x93;
		}
		bt_seg_set(c, which, &s);
		return BT_OK;
	}
	if (which == HV_SS)
		return load_ss(c, sel);
	if (!(sel & ~3u)) {
		bt_seg_null(c, which, sel);
		return BT_OK;
	}
	r = bt_desc_read(c, sel, EXC_GP, 0, &d);
	if (r)
		return r;
	if (!desc_s(&d) || (desc_code(&d) && !(desc_type(&d) & TYPE_RW)))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (!(desc_code(&d) && desc_conforming(&d)) &&
	    ((sel & 3u) > desc_dpl(&d) || c->cpl > desc_dpl(&d)))
		return res_fault(c, EXC_GP, sel & ~3u);
	if (!desc_p(&d))
		return res_fault(c, EXC_NP, sel & ~3u);
	r = bt_desc_mark_accessed(c, &d);
	if (r)
		return r;
	bt_seg_from_desc(&s, sel, &d);
	bt_seg_set(c, which, &s);
	return BT_OK;
}

/* --- addresses --- */
static bool seg_limit_ok(const struct hv_seg *s, uint64_t off, unsigned size)
{
	uint64_t last = off + size - 1;

	if ((s->attr & ATTR_S) && !(s->attr & TYPE_CODE) && (s->attr & TYPE_CE))
		return off > s->limit && last <= (s->attr & ATTR_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

static bool seg_type_ok(const struct bt_cpu *c, const struct hv_seg *s, enum bt_access access)
{
	if (cpu_real(c))
		return true;
	if (!(s->attr & ATTR_P))
		return false;
	if (access == BT_WRITE)
		return !(s->attr & TYPE_CODE) && (s->attr & TYPE_RW);
	return !(s->attr & TYPE_CODE) || (s->attr & TYPE_RW);
}

bool bt_seg_inside(const struct bt_cpu *c, unsigned seg, uint64_t off, unsigned size,
		   enum bt_access access)
{
	return seg_type_ok(c, &c->seg[seg], access) && seg_limit_ok(&c->seg[seg], off, size);
}

enum bt_res bt_seg_address(struct bt_cpu *c, unsigned seg, uint64_t off, unsigned size,
			   enum bt_access access, gva_t *out)
{
	const struct hv_seg *s = &c->seg[seg];
	uint8_t vector = seg == HV_SS ? EXC_SS : EXC_GP;

	if (cpu_code64(c)) {
		gva_t va = off + (seg == HV_FS ? c->fs_base : seg == HV_GS ? c->gs_base : 0);

		if (!va_canonical(va))
			return res_fault(c, vector, 0);
		*out = va;
		return BT_OK;
	}
	if (!bt_seg_inside(c, seg, off, size, access))
		return res_fault(c, vector, 0);
	*out = (s->base + off) & 0xffffffffu;
	return BT_OK;
}

uint64_t bt_insn_ea(const struct bt_cpu *c, const struct bt_insn *i)
{
	uint64_t ea = (uint64_t)i->disp;

	if (i->base != 0xff)
		ea += c->gpr[i->base];
	if (i->index != 0xff)
		ea += c->gpr[i->index] * i->scale;
	return ea & size_mask(i->addrsize);
}

enum bt_res bt_insn_mem(struct bt_cpu *c, const struct bt_insn *i, unsigned at, unsigned size,
			enum bt_access access, gva_t *out)
{
	uint64_t ea = (bt_insn_ea(c, i) + at) & size_mask(i->addrsize);

	return bt_seg_address(c, i->seg, ea, size, access, out);
}

enum bt_res bt_seg_linear(struct bt_cpu *c, const struct bt_insn *i, gva_t *out)
{
	return bt_insn_mem(c, i, 0, i->memsize ? i->memsize : 1, BT_READ, out);
}

enum bt_res bt_op_read(struct bt_cpu *c, const struct bt_insn *i, unsigned n, unsigned size,
		       uint64_t *v)
{
	gva_t va;
	enum bt_res r;

	if (i->op[n].kind == 1) {
		*v = reg_read(c, i->op[n].reg, size);
		return BT_OK;
	}
	if (i->op[n].kind == 3) {
		*v = i->op[n].imm & size_mask(size);
		return BT_OK;
	}
	r = bt_insn_mem(c, i, 0, size, BT_READ, &va);
	*v = 0;
	return r ? r : bt_mem_read(c, va, v, size);
}

enum bt_res bt_op_write(struct bt_cpu *c, const struct bt_insn *i, unsigned n, unsigned size,
			uint64_t v)
{
	gva_t va;
	enum bt_res r;

	if (i->op[n].kind == 1) {
		reg_write(c, i->op[n].reg, v, size);
		return BT_OK;
	}
	r = bt_insn_mem(c, i, 0, size, BT_WRITE, &va);
	return r ? r : bt_mem_write(c, va, &v, size);
}
