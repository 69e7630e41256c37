/* SPDX-License-Identifier: Apache-2.0 */
/*
 * absent.c - what is not there answers as hardware does: memory and ports read all ones, MSRs fault, writes go nowhere;
 * and the same from every processor.
 */
#include "rt/rt.h"

const char payload_name[] = "absent";

static const uint64_t holes[] = { 0xc8000000, 0xcfffff00, 0xe0000000, 0xfed00000, 0xfed40000 };
static const uint16_t ports[] = { 0x2f8, 0x1234, 0x5658, 0xeffc };
static const uint32_t msrs[] = { 0x12345, 0xc0001234, 0x4b564d7f, 0xffffffff };

static uint64_t top_of_ram(void)
{
	uint64_t top = 0;

	for (unsigned i = 0; i < boot.ranges; i++) {
		uint64_t end = boot.range[i].addr + boot.range[i].len;

		if (boot.range[i].type == 1 && end > top && end <= 0xc0000000)
			top = end;
	}
	return top;
}

static void absent_memory(uint64_t a)
{
	CHECK(*(volatile uint8_t *)a == 0xff, "byte at %lx is %x", a, *(volatile uint8_t *)a);
	CHECK(*(volatile uint16_t *)(a + 2) == 0xffff, "word at %lx", a + 2);
	CHECK(*(volatile uint32_t *)(a + 4) == 0xffffffff, "dword at %lx", a + 4);
	CHECK(*(volatile uint64_t *)(a + 8) == ~0ull, "qword at %lx is %lx", a + 8, *(volatile uint64_t *)(a + 8));
	*(volatile uint64_t *)(a + 8) = 0x1234;
	CHECK(*(volatile uint64_t *)(a + 8) == ~0ull, "a write to %lx stuck", a + 8);
	__asm__ volatile("lock incq %0" : "+m"(*(volatile uint64_t *)(a + 16)) : : "cc");
	CHECK(*(volatile uint64_t *)(a + 16) == ~0ull, "a locked write to %lx stuck", a + 16);
}

static void absent_port(uint16_t port)
{
	uint32_t v;

	CHECK(inb(port) == 0xff, "port %x reads %x", port, inb(port));
	__asm__ volatile("inw %1, %w0" : "=a"(v) : "Nd"(port));
	CHECK((uint16_t)v == 0xffff, "port %x reads %x", port, (uint16_t)v);
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	CHECK(v == 0xffffffff, "port %x reads %x", port, v);
	outb(port, 0);
	CHECK(inb(port) == 0xff, "a write to port %x stuck", port);
}

static void absent_msr(uint32_t msr)
{
	struct caught *c = TRY("mov %k1, %%ecx; rdmsr", "r"(msr));

	CHECK(c->hit && c->frame.vector == 13 && c->frame.error == 0, "rdmsr %x does not fault", msr);
	c = TRY("mov %k1, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr", "r"(msr));
	CHECK(c->hit && c->frame.vector == 13 && c->frame.error == 0, "wrmsr %x does not fault", msr);
}

static void look(unsigned cpu)
{
	uint64_t top = top_of_ram();

	(void)cpu;
	for (unsigned i = 0; i < ARRAY_LEN(holes); i++)
		absent_memory(holes[i]);
	if (top && option("top", 1))
		absent_memory((top + 0x1fffff) & ~0x1fffffull);
	for (unsigned i = 0; i < ARRAY_LEN(ports); i++)
		absent_port(ports[i]);
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++)
		absent_msr(msrs[i]);
}

void payload_main(void)
{
	cpus_start();
	cpus_run(look);
	print("absent: %u addresses, %u ports, %u msrs from %u processors: ok\n", (unsigned)ARRAY_LEN(holes),
	      (unsigned)ARRAY_LEN(ports), (unsigned)ARRAY_LEN(msrs), platform.cpus);
}
