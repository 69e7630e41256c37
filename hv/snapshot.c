/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - codec of hv/snapshot.h.  Pure. */
#include "hv/snapshot.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <zlib.h>

#define MAGIC 0x70637675u /* "uvcp" */
#define HEAD 8u
#define TAIL 4u

/* One pass over the fields, either way: so that the two ways cannot differ. */
struct coder {
	struct writer *w; /* NULL: decode */
	struct reader *r;
};

static void bytes(struct coder *c, void *p, size_t len)
{
	if (c->w)
		writer_bytes(c->w, p, len);
	else
		reader_bytes(c->r, p, len);
}

static void flag(struct coder *c, bool *b)
{
	uint8_t v = *b;

	bytes(c, &v, 1);
	if (v > 1)
		c->r->bad = true;
	*b = v;
}

#define FIELD(c, lvalue) bytes(c, &(lvalue), sizeof(lvalue))

static void visit_seg(struct coder *c, struct hv_seg *s)
{
	FIELD(c, s->base);
	FIELD(c, s->limit);
	FIELD(c, s->sel);
	FIELD(c, s->attr);
}

static void visit_cpu(struct coder *c, struct hv_cpu_state *s)
{
	FIELD(c, s->gpr);
	FIELD(c, s->rip);
	FIELD(c, s->rflags);
	for (unsigned k = 0; k < ARRAY_LEN(s->seg); k++)
		visit_seg(c, &s->seg[k]);
	visit_seg(c, &s->ldt);
	visit_seg(c, &s->tr);
	FIELD(c, s->gdt_base);
	FIELD(c, s->idt_base);
	FIELD(c, s->gdt_limit);
	FIELD(c, s->idt_limit);
	FIELD(c, s->cr0);
	FIELD(c, s->cr2);
	FIELD(c, s->cr3);
	FIELD(c, s->cr4);
	FIELD(c, s->cr8);
	FIELD(c, s->efer);
	FIELD(c, s->xcr0);
	FIELD(c, s->dr);
	FIELD(c, s->star);
	FIELD(c, s->lstar);
	FIELD(c, s->cstar);
	FIELD(c, s->sfmask);
	FIELD(c, s->kernel_gs_base);
	FIELD(c, s->sysenter_cs);
	FIELD(c, s->sysenter_esp);
	FIELD(c, s->sysenter_eip);
	FIELD(c, s->pat);
	FIELD(c, s->tsc_aux);
	FIELD(c, s->misc_enable);
	FIELD(c, s->mtrr_def_type);
	FIELD(c, s->mtrr_fixed);
	FIELD(c, s->mtrr_var);
	FIELD(c, s->fxsave);
	FIELD(c, s->ymm_high);
	flag(c, &s->sti_shadow);
	flag(c, &s->nmi_blocked);
	flag(c, &s->nmi_latched);
	flag(c, &s->event_valid);
	flag(c, &s->event_has_error);
	FIELD(c, s->event_vector);
	FIELD(c, s->event_type);
	FIELD(c, s->event_error);
}

static void visit_lapic(struct coder *c, struct hv_lapic *l)
{
	FIELD(c, l->apic_base);
	FIELD(c, l->id);
	FIELD(c, l->tpr);
	FIELD(c, l->ldr);
	FIELD(c, l->dfr);
	FIELD(c, l->svr);
	FIELD(c, l->esr);
	FIELD(c, l->esr_pending);
	FIELD(c, l->icr);
	FIELD(c, l->lvt);
	FIELD(c, l->irr);
	FIELD(c, l->isr);
	FIELD(c, l->tmr);
	FIELD(c, l->timer_initial);
	FIELD(c, l->timer_divide);
	FIELD(c, l->timer_start);
	FIELD(c, l->timer_deadline);
	flag(c, &l->nmi_pending);
	flag(c, &l->init_pending);
	flag(c, &l->sipi_pending);
	flag(c, &l->wait_sipi);
	FIELD(c, l->sipi_vector);
}

static void visit(struct coder *c, struct hv_snapshot *s)
{
	visit_cpu(c, &s->cpu);
	visit_lapic(c, &s->lapic);
	flag(c, &s->halted);
	FIELD(c, s->deadline_tsc);
	FIELD(c, s->addr_seq);
	FIELD(c, s->stopped_tsc);
}

size_t hv_snapshot_encode(const struct hv_snapshot *s, uint8_t out[static HV_SNAPSHOT_MAX])
{
	struct hv_snapshot copy = *s;
	struct writer w = { out + HEAD, out + HV_SNAPSHOT_MAX - TAIL, false };
	struct coder c = { .w = &w };
	size_t len;

	visit(&c, &copy);
	ASSERT(!w.bad);
	len = (size_t)(w.p - out);
	put_le32(out, MAGIC);
	put_le16(out + 4, HV_SNAPSHOT_VERSION);
	put_le16(out + 6, (uint16_t)(len + TAIL));
	put_le32(out + len, (uint32_t)crc32(0, out, (uInt)len));
	return len + TAIL;
}

int hv_snapshot_decode(const uint8_t *bytes_in, size_t len, struct hv_snapshot *out)
{
	struct reader r = { 0 };
	struct coder c = { .r = &r };

	if (len < HEAD + TAIL || len > HV_SNAPSHOT_MAX || get_le32(bytes_in) != MAGIC ||
	    get_le16(bytes_in + 6) != len ||
	    get_le32(bytes_in + len - TAIL) != (uint32_t)crc32(0, bytes_in, (uInt)(len - TAIL)))
		return -EBADMSG;
	if (get_le16(bytes_in + 4) != HV_SNAPSHOT_VERSION)
		return -EPROTO;
	r = (struct reader){ bytes_in + HEAD, bytes_in + len - TAIL, false };
	*out = (struct hv_snapshot){ 0 };
	visit(&c, out);
	return r.bad || r.p != r.end ? -EBADMSG : 0;
}
