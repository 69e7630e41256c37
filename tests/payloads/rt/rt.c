/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/rt.c - console, verdict, boot information, traps.
 *
 * I/O       16550 at 0x3f8, polled.
 * Limits    Command line 1 KiB; boot.ranges and boot.modules as in rt.h, the rest is left out.
 */
#include "rt/rt.h"

#define COM1 0x3f8
#define COM_LSR 5
#define LSR_EMPTY 0x20

struct boot_info boot;
struct tss cpu_tss[CPUS_MAX];
struct gate idt[256] __attribute__((aligned(4096)));
static trap_fn trap_fns[256];
static struct caught cpu_caught[CPUS_MAX];
static uint32_t console_lock;
static char cmdline_copy[1024];
static char module_cmdline[BOOT_MODULES_MAX][128];

void boot_main(uint32_t magic, uint32_t info);
void trap_dispatch(struct trap_frame *f);

/* --- memory ---------------------------------------------------------------------------------------- */
void *memcpy(void *dst, const void *src, size_t n)
{
	uint8_t *d = dst;
	const uint8_t *s = src;

	while (n--)
		*d++ = *s++;
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	uint8_t *d = dst;

	while (n--)
		*d++ = (uint8_t)c;
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (; n--; x++, y++)
		if (*x != *y)
			return *x < *y ? -1 : 1;
	return 0;
}

static void string_copy(char *dst, size_t size, const char *src)
{
	size_t n = 0;

	while (n + 1 < size && src[n]) {
		dst[n] = src[n];
		n++;
	}
	dst[n] = 0;
}

/* --- console --------------------------------------------------------------------------------------- */
static void put_char(char c)
{
	for (unsigned i = 0; i < 100000 && !(inb(COM1 + COM_LSR) & LSR_EMPTY); i++)
		pause();
	outb(COM1, (uint8_t)c);
}

static void put_string(const char *s)
{
	while (*s)
		put_char(*s++);
}

static void put_number(uint64_t v, unsigned base)
{
	char digits[24];
	unsigned n = sizeof(digits);

	digits[--n] = 0;
	do {
		digits[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	put_string(digits + n);
}

static void put_format(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		bool wide = false;

		if (*fmt != '%') {
			put_char(*fmt);
			continue;
		}
		if (*++fmt == 'l') {
			wide = true;
			fmt++;
		}
		switch (*fmt) {
		case 's':
			put_string(va_arg(ap, const char *));
			break;
		case 'c':
			put_char((char)va_arg(ap, int));
			break;
		case 'd': {
			int v = va_arg(ap, int);

			if (v < 0)
				put_char('-');
			put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'u':
		case 'x':
			put_number(wide ? va_arg(ap, uint64_t) : va_arg(ap, uint32_t),
				   *fmt == 'u' ? 10 : 16);
			break;
		default:
			put_char(*fmt);
		}
	}
}

static uint64_t console_enter(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
	while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE))
		pause();
	return flags;
}

static void console_leave(uint64_t flags)
{
	__atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
	if (flags & 0x200)
		irq_on();
}

void print(const char *fmt, ...)
{
	uint64_t flags = console_enter();
	va_list ap;

	va_start(ap, fmt);
	put_format(fmt, ap);
	va_end(ap);
	console_leave(flags);
}

void fail(const char *fmt, ...)
{
	va_list ap;

	console_enter(); /* and never leaves: one verdict only */
	put_string("PAYLOAD ");
	put_string(payload_name);
	put_string(": FAIL ");
	va_start(ap, fmt);
	put_format(fmt, ap);
	va_end(ap);
	put_char('\n');
	power_off();
}

void pass(void)
{
	console_enter();
	put_string("PAYLOAD ");
	put_string(payload_name);
	put_string(": PASS\n");
	power_off();
}

/* --- command line ------------------------------------------------------------------------------------ */
uint64_t option(const char *word, uint64_t otherwise)
{
	size_t len = 0;

	while (word[len])
		len++;
	for (const char *p = boot.cmdline; p && *p; p++) {
		uint64_t v = 0;

		if ((p != boot.cmdline && p[-1] != ' ') || memcmp(p, word, len) != 0 || p[len] != '=')
			continue;
		for (p += len + 1; *p >= '0' && *p <= '9'; p++)
			v = v * 10 + (uint64_t)(*p - '0');
		return v;
	}
	return otherwise;
}

uint64_t tsc_hz(bool *told)
{
	uint32_t r[4];
	bool leaf;

	cpuid(0x40000000, 0, r);
	leaf = r[0] >= 0x40000010 && r[0] <= 0x400000ff;
	if (leaf)
		cpuid(0x40000010, 0, r);
	if (told)
		*told = leaf;
	return leaf ? r[0] * 1000ull : 2000000000ull;
}

/* --- what the loader said ------------------------------------------------------------------------------ */
struct mb_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
	uint32_t mmap_length, mmap_addr;
};
struct mb_module {
	uint32_t start, end, cmdline, pad;
};
struct mb_range {
	uint32_t size; /* of what follows */
	uint64_t addr, len;
	uint32_t type;
} __attribute__((packed));
struct pvh_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
struct pvh_module {
	uint64_t addr, size, cmdline, reserved;
};
struct pvh_range {
	uint64_t addr, size;
	uint32_t type, reserved;
};

#define MB_MAGIC 0x2badb002u
#define PVH_MAGIC 0x336ec578u
#define MB_FLAG_CMDLINE 4u
#define MB_FLAG_MODS 8u
#define MB_FLAG_MMAP 64u

static const void *at(uint64_t addr)
{
	return (const void *)addr;
}

static void range_add(uint64_t addr, uint64_t len, uint32_t type)
{
	if (boot.ranges < BOOT_RANGES_MAX)
		boot.range[boot.ranges++] = (struct boot_range){ addr, len, type };
}

static void module_add(uint64_t addr, uint64_t len, uint64_t cmdline)
{
	unsigned n = boot.modules;

	if (n >= BOOT_MODULES_MAX)
		return;
	string_copy(module_cmdline[n], sizeof(module_cmdline[n]), cmdline ? at(cmdline) : "");
	boot.module[boot.modules++] = (struct boot_module){ addr, len, module_cmdline[n] };
}

static void multiboot_read(const struct mb_info *mb)
{
	const struct mb_module *m = at(mb->mods_addr);

	if (mb->flags & MB_FLAG_CMDLINE)
		string_copy(cmdline_copy, sizeof(cmdline_copy), at(mb->cmdline));
	for (unsigned i = 0; (mb->flags & MB_FLAG_MODS) && i < mb->mods_count; i++)
		module_add(m[i].start, m[i].end - m[i].start, m[i].cmdline);
	if (!(mb->flags & MB_FLAG_MMAP))
		return;
	for (uint64_t a = mb->mmap_addr; a < (uint64_t)mb->mmap_addr + mb->mmap_length;) {
		const struct mb_range *r = at(a);

		range_add(r->addr, r->len, r->type);
		a += r->size + 4;
	}
}

static void pvh_read(const struct pvh_info *info)
{
	const struct pvh_module *m = at(info->modlist);
	const struct pvh_range *r = at(info->memmap);

	boot.pvh = true;
	if (info->cmdline)
		string_copy(cmdline_copy, sizeof(cmdline_copy), at(info->cmdline));
	for (unsigned i = 0; i < info->nr_modules; i++)
		module_add(m[i].addr, m[i].size, m[i].cmdline);
	boot.rsdp = info->rsdp;
	for (unsigned i = 0; info->version >= 1 && i < info->memmap_entries; i++)
		range_add(r[i].addr, r[i].size, r[i].type);
}

void boot_main(uint32_t magic, uint32_t info)
{
	boot.cmdline = cmdline_copy;
	if (magic == MB_MAGIC)
		multiboot_read(at(info));
	else if (magic == PVH_MAGIC && *(const uint32_t *)at(info) == PVH_MAGIC)
		pvh_read(at(info));
	else
		fail("entered with neither multiboot (eax %x) nor PVH information", magic);
	trap_init();
	trap_load();
	platform_read();
	apic_init();
	irq_on();
	payload_main();
	pass();
}

/* --- traps -------------------------------------------------------------------------------------------- */
void trap_init(void)
{
	for (unsigned v = 0; v < 256; v++) {
		uint64_t stub = (uint64_t)trap_stubs + v * 16;

		idt[v] = (struct gate){ .offset0 = (uint16_t)stub,
					.sel = SEL_CODE64,
					.type = 0x8e, /* present, DPL 0, 64-bit interrupt gate */
					.offset1 = (uint16_t)(stub >> 16),
					.offset2 = (uint32_t)(stub >> 32) };
	}
}

void trap_load(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint64_t)idt };
	unsigned cpu = cpu_id();
	uint64_t base = (uint64_t)&cpu_tss[cpu];
	uint64_t *d = &gdt[SEL_TSS / 8 + 2 * cpu];

	cpu_tss[cpu].iomap = sizeof(struct tss);
	d[0] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	d[1] = base >> 32;
	__asm__ volatile("lidt %0" : : "m"(pointer));
	__asm__ volatile("ltr %w0" : : "r"(SEL_TSS + 16 * cpu));
}

void trap_set(unsigned vector, trap_fn fn)
{
	trap_fns[vector] = fn;
}

struct caught *caught_here(void)
{
	struct caught *c = &cpu_caught[cpu_id()];

	c->hit = false;
	return c;
}

void trap_dispatch(struct trap_frame *f)
{
	trap_fn fn = trap_fns[f->vector & 255];
	struct caught *c = &cpu_caught[cpu_id()];

	if (f->vector < 32 && f->vector != 2 && c->resume) {
		c->hit = true;
		c->frame = *f;
		c->cr2 = read_cr2();
		f->rip = c->resume;
		return;
	}
	if (fn) {
		fn(f);
		return;
	}
	fail("unexpected trap %lu error %lx at %lx:%lx flags %lx sp %lx cr2 %lx on cpu %u", f->vector, f->error,
	     f->cs, f->rip, f->rflags, f->rsp, read_cr2(), cpu_id());
}
