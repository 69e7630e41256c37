/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/boot.c - what an image is, and the parts of a boot plan that all three ways share.
 *
 * Pure; see boot.h.  The ways themselves are in boot_linux.c and boot_payload.c, ELF in boot_elf.c.
 */
#include "hv/core/boot_priv.h"

#include "base/assert.h"

#define RAM_MIN (4ull << 20)

static const uint8_t elf_magic[4] = { 0x7f, 'E', 'L', 'F' };

bool hv_boot_kind_of(const uint8_t *image, size_t len, enum hv_boot_kind *kind, const char **why)
{
	struct hv_boot_bytes file = { image, len };
	struct hv_elf elf;
	uint32_t ignored;

	if (len >= 0x206 && memcmp(image + 0x202, "HdrS", 4) == 0) {
		*kind = HV_BOOT_LINUX;
		return true;
	}
	if (len >= 4 && memcmp(image, elf_magic, 4) == 0) {
		if (!hv_elf_open(file, &elf, why))
			return false;
		if (hv_elf_pvh_entry(&elf, &ignored)) {
			*kind = HV_BOOT_PVH;
			return true;
		}
	}
	if (hv_multiboot_find(file, &ignored)) {
		*kind = HV_BOOT_MULTIBOOT;
		return true;
	}
	*why = "not a kernel: no bzImage header, no PVH note, no multiboot header";
	return false;
}

bool hv_boot_refuse(struct hv_boot_work *w, const char *why)
{
	if (!w->why)
		w->why = why;
	return false;
}

static bool within_ram(const struct hv_boot_input *in, gpa_t gpa, uint64_t len)
{
	for (unsigned k = 0; k < in->ram_count; k++)
		if (gpa >= in->ram[k].start && len <= in->ram[k].len &&
		    gpa - in->ram[k].start <= in->ram[k].len - len)
			return true;
	return false;
}

/* The chunk that [gpa, gpa + len) touches, NULL: none. */
static const struct hv_boot_chunk *overlapping(const struct hv_boot_plan *p, gpa_t gpa,
					       uint64_t len)
{
	for (unsigned k = 0; k < p->chunks_count; k++) {
		const struct hv_boot_chunk *c = &p->chunks[k];

		if (gpa < c->gpa + c->len && c->gpa < gpa + len)
			return c;
	}
	return NULL;
}

bool hv_boot_add(struct hv_boot_work *w, gpa_t gpa, const uint8_t *bytes, uint64_t len)
{
	struct hv_boot_plan *p = w->plan;

	if (w->why)
		return false;
	if (!len)
		return true;
	if (!within_ram(w->in, gpa, len))
		return hv_boot_refuse(w, "does not fit into guest memory");
	if (gpa < HV_HIGH_RAM_START && gpa + len > HV_LOW_RAM_END)
		return hv_boot_refuse(w, "loads into the firmware area below 1 MiB");
	if (overlapping(p, gpa, len))
		return hv_boot_refuse(
			w, "parts of the image overlap, or lie where boot information goes");
	if (p->chunks_count == HV_BOOT_CHUNKS_MAX)
		return hv_boot_refuse(w, "too many segments");
	p->chunks[p->chunks_count++] = (struct hv_boot_chunk){ gpa, len, bytes };
	return true;
}

uint8_t *hv_boot_arena(struct hv_boot_work *w, uint64_t len, uint64_t align, gpa_t *gpa)
{
	uint64_t at = (w->arena_used + align - 1) & ~(align - 1);

	ASSERT(at + len <= HV_BOOT_ARENA); /* sizes are bounded by the limits in boot.h */
	w->arena_used = at + len;
	*gpa = HV_BOOT_ARENA_GPA + at;
	memset(w->plan->arena + at, 0, len);
	return w->plan->arena + at;
}

bool hv_boot_add_arena(struct hv_boot_work *w)
{
	return hv_boot_add(w, HV_BOOT_ARENA_GPA, w->plan->arena, w->arena_used);
}

gpa_t hv_boot_add_string(struct hv_boot_work *w, const char *s)
{
	uint64_t len = strlen(s) + 1;
	gpa_t at = w->cmdline_next;

	if (len > HV_BOOT_CMDLINES_END - at) {
		hv_boot_refuse(w, "command lines are too long");
		return 0;
	}
	w->cmdline_next = at + len;
	return hv_boot_add(w, at, (const uint8_t *)s, len) ? at : 0;
}

gpa_t hv_boot_find(struct hv_boot_work *w, gpa_t from, gpa_t limit, uint64_t len)
{
	const struct hv_boot_chunk *c;

	for (unsigned k = 0; k < w->in->ram_count; k++) {
		const struct hv_boot_ram *r = &w->in->ram[k];
		gpa_t at = from > r->start ? from : r->start;
		gpa_t end = r->start + r->len < limit ? r->start + r->len : limit;

		at = (at + PAGE_SIZE - 1) & PAGE_MASK;
		while (at < end && end - at >= len) {
			c = overlapping(w->plan, at, len ? len : 1);
			if (!c)
				return at;
			at = (c->gpa + c->len + PAGE_SIZE - 1) & PAGE_MASK;
		}
	}
	return 0;
}

void hv_boot_set_gdt(struct hv_boot_work *w, bool long_mode)
{
	struct hv_boot_regs *r = &w->plan->regs;
	uint8_t *g = hv_boot_arena(w, 0x30, 8, &r->gdt_base);

	put_le64(g + 0x10, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
	put_le64(g + 0x18, 0x00cf93000000ffffull);
	put_le64(g + 0x20, 0x00008b0000000067ull); /* 16 bytes in long mode, the upper half is 0 */
	r->gdt_limit = 0x2f;
	r->cs = 0x10;
	r->ds = 0x18;
}

unsigned hv_boot_map(const struct hv_boot_input *in,
		     struct hv_boot_map_entry out[static HV_BOOT_MAP_MAX])
{
	unsigned n = 0;

	out[n++] = (struct hv_boot_map_entry){ 0, HV_LOW_RAM_END, 1 };
	out[n++] =
		(struct hv_boot_map_entry){ HV_LOW_RAM_END, HV_HIGH_RAM_START - HV_LOW_RAM_END, 2 };
	out[n++] = (struct hv_boot_map_entry){ HV_HIGH_RAM_START,
					       in->ram[0].len - HV_HIGH_RAM_START, 1 };
	for (unsigned k = 1; k < in->ram_count; k++)
		out[n++] = (struct hv_boot_map_entry){ in->ram[k].start, in->ram[k].len, 1 };
	return n;
}

bool hv_boot_make(const struct hv_boot_input *in, struct hv_boot_plan *out, const char **why)
{
	struct hv_boot_work w = { .in = in, .plan = out, .cmdline_next = HV_BOOT_CMDLINE_GPA };
	bool ok;

	ASSERT(in->ram_count >= 1 && in->ram_count <= HV_BOOT_RAM_MAX);
	ASSERT(in->modules_count <= HV_BOOT_MODULES_MAX);
	out->chunks_count = 0;
	out->regs = (struct hv_boot_regs){ 0 };
	if (in->ram[0].start != 0 || in->ram[0].len < RAM_MIN) {
		*why = "guest memory has less than 4 MiB from address 0 on";
		return false;
	}
	switch (in->kind) {
	case HV_BOOT_LINUX:
		ok = hv_boot_make_linux(&w);
		break;
	case HV_BOOT_PVH:
		ok = hv_boot_make_pvh(&w);
		break;
	default:
		ok = hv_boot_make_multiboot(&w);
		break;
	}
	if (!ok)
		*why = w.why;
	return ok;
}
