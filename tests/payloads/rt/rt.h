/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/rt.h - what payload guests stand on: console, traps, processors, APIC, power.
 *
 * What      A payload defines payload_name and payload_main, which runs on the boot processor with interrupts
 *           enabled and the others not yet started. Returning from it means PASS.
 * Threads   "Any" means any processor, in traps too, unless said otherwise.
 */
#ifndef RT_RT_H
#define RT_RT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rt/layout.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

extern const char payload_name[];
void payload_main(void);

/* --- console and verdict: any processor --- */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %lu %lx %% */
/* Prints "PAYLOAD name: FAIL reason" and powers off. */
_Noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void pass(void);
#define CHECK(cond, ...)                                                                                     \
	do {                                                                                                 \
		if (!(cond))                                                                                 \
			fail(__VA_ARGS__);                                                                   \
	} while (0)

/* --- what the loader said --- */
struct boot_range {
	uint64_t addr, len;
	uint32_t type; /* 1: usable RAM */
};
struct boot_module {
	uint64_t addr, len;
	const char *cmdline;
};
#define BOOT_RANGES_MAX 32
#define BOOT_MODULES_MAX 8
struct boot_info {
	bool pvh;
	const char *cmdline; /* "" when there is none */
	struct boot_range range[BOOT_RANGES_MAX];
	unsigned ranges;
	struct boot_module module[BOOT_MODULES_MAX];
	unsigned modules;
	uint64_t rsdp; /* 0: look for it */
};
extern struct boot_info boot;
extern char image_start[], image_end[];
/* Number after "word=" on the command line, `otherwise` when it is not there. */
uint64_t option(const char *word, uint64_t otherwise);

/* TSC cycles of a second, as CPUID leaf 0x40000010 tells; where it does not, a guess, and *told (may be NULL) is false. */
uint64_t tsc_hz(bool *told);

/* --- ACPI --- */
#define MMIO_SLOTS_MAX 32
struct platform {
	unsigned cpus; /* APIC ids are 0 .. cpus - 1 */
	unsigned numa_nodes; /* in the SRAT; 1 without one */
	uint8_t cpu_node[CPUS_MAX];
	uint64_t mmio_slot[MMIO_SLOTS_MAX]; /* virtio-mmio windows named in the DSDT */
	unsigned mmio_slots;
	uint64_t ioapic;
};
extern struct platform platform;
void platform_read(void);
_Noreturn void power_off(void);

/* --- traps --- */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};
typedef void (*trap_fn)(struct trap_frame *f);
/* Before processors start, or where no other can trap. NULL: a trap of this kind fails the payload. */
void trap_set(unsigned vector, trap_fn fn);
void trap_init(void);
void trap_load(void); /* this processor's IDT and TSS */
struct tss {
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, ist[7], reserved2;
	uint16_t reserved3, iomap;
} __attribute__((packed));
extern struct tss cpu_tss[CPUS_MAX];
struct gate {
	uint16_t offset0, sel;
	uint8_t ist, type;
	uint16_t offset1;
	uint32_t offset2, reserved;
};
extern struct gate idt[256];
extern char trap_stubs[];
extern uint64_t gdt[];
extern char ap_start[], ap_end[], cpu_stacks[];

/* --- page tables: the first 4 GiB one to one by 2 MiB pages ---
 * Each processor has its own, built by itself, and nobody else reads or writes them: the ELF files say so with a note
 * (rt/private.S). A payload for which processors must share tables says SHARED_PAGE_TABLES; at file scope: then all use
 * the boot processor's, and the note is not there. */
struct page_tables {
	uint64_t pml4[512], pdpt[512], pd[2048];
};
extern struct page_tables cpu_tables[CPUS_MAX];
extern const uint32_t page_tables_stride; /* bytes between the tables of two processors */
#define SHARED_PAGE_TABLES const uint32_t page_tables_stride = 0

/* --- exceptions that are wanted ---
 * TRY runs one piece of assembly; when it raises an exception, *caught gets its frame and cr2 and execution goes on
 * behind the piece. r10 and r11 are taken, rax, rcx and rdx are free for the piece; it may not move rsp. */
struct caught {
	uint64_t resume; /* 0: no TRY is under way */
	bool hit;
	struct trap_frame frame;
	uint64_t cr2;
};
#define TRY(text, ...)                                                                                       \
	({                                                                                                   \
		register struct caught *caught_ __asm__("r10") = caught_here();                              \
		__asm__ volatile("lea 99f(%%rip), %%r11\n\tmov %%r11, (%%r10)\n\t" text                     \
				 "\n99:\tmovq $0, (%%r10)"                                                   \
				 :                                                                           \
				 : "r"(caught_), ##__VA_ARGS__                                               \
				 : "r11", "rax", "rcx", "rdx", "memory", "cc");                              \
		caught_;                                                                                     \
	})
struct caught *caught_here(void); /* this processor's, with hit cleared */

/* --- processors --- */
unsigned cpu_id(void);
/* Starts all others and waits for them; they wait with interrupts enabled. */
void cpus_start(void);
/* Runs fn on every processor, this one too, and waits for all. Boot processor only. */
void cpus_run(void (*fn)(unsigned cpu));
/* INIT and SIPI for one waiting processor; true when it came (back) up. Boot processor only. */
bool cpu_restart(unsigned cpu);
void cpus_init_only(unsigned cpu);
/* All of `platform.cpus` meet here. Not in traps. */
struct barrier {
	uint32_t arrived, round;
};
void barrier_wait(struct barrier *b);

/* --- APIC: x2APIC where CPUID has it, and unless the command line says x2apic=0; else the memory-mapped one --- */
#define VECTOR_WAKE 0xf0
#define VECTOR_SPURIOUS 0xff
enum { APIC_ID = 0x02, APIC_TPR = 0x08, APIC_EOI = 0x0b, APIC_LDR = 0x0d, APIC_DFR = 0x0e, APIC_SVR = 0x0f,
       APIC_ESR = 0x28, APIC_LVT_TIMER = 0x32, APIC_TIMER_INIT = 0x38, APIC_TIMER_NOW = 0x39, APIC_TIMER_DIV = 0x3e };
#define ICR_FIXED 0x000
#define ICR_LOWEST 0x100
#define ICR_NMI 0x400
#define ICR_INIT 0x500
#define ICR_SIPI 0x600
#define ICR_LOGICAL 0x800
#define ICR_ASSERT 0x4000
#define ICR_SELF 0x40000
#define ICR_ALL 0x80000
#define ICR_OTHERS 0xc0000
extern bool apic_x2;
void apic_init(void);
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t value);
void apic_ipi(uint32_t dest, uint32_t icr);
/* Destination for ICR_LOGICAL that names exactly this processor; ids of one cluster may be ored. */
uint32_t apic_logical(unsigned cpu);
void apic_eoi(void);

/* --- the machine --- */
static inline void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	__asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub) : "memory");
}
static inline void pause(void) { __asm__ volatile("pause" : : : "memory"); }
static inline void irq_off(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void irq_on(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void invlpg(uint64_t addr) { __asm__ volatile("invlpg (%0)" : : "r"(addr) : "memory"); }
static inline uint64_t read_cr2(void) { uint64_t v; __asm__ volatile("mov %%cr2, %0" : "=r"(v)); return v; }
static inline uint64_t read_cr3(void) { uint64_t v; __asm__ volatile("mov %%cr3, %0" : "=r"(v)); return v; }
static inline void write_cr3(uint64_t v) { __asm__ volatile("mov %0, %%cr3" : : "r"(v) : "memory"); }
static inline struct page_tables *tables_here(void) { return (struct page_tables *)read_cr3(); }
static inline uint64_t read_cr0(void) { uint64_t v; __asm__ volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static inline void write_cr0(uint64_t v) { __asm__ volatile("mov %0, %%cr0" : : "r"(v) : "memory"); }

#define load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)

/* Cycles after which a wait counts as hung: tens of seconds on any machine. */
#define PATIENCE_CYCLES (option("patience", 60) * 1000000000ull)
#define WAIT_FOR(cond, ...)                                                                                  \
	do {                                                                                                 \
		uint64_t until_ = rdtsc() + PATIENCE_CYCLES;                                                 \
		while (!(cond)) {                                                                            \
			CHECK(rdtsc() < until_, __VA_ARGS__);                                                \
			pause();                                                                             \
		}                                                                                            \
	} while (0)

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
