/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump.c - a dead vCPU in words: registers, and the instructions at rip.
 *
 * Threads   The vCPU's own, outside the engine's run.
 * I/O       Guest memory, with short deadlines: a dump must not hang on a dead node.
 */
#include "hv/slice_priv.h"
#include "hv/walk.h"

#include "base/clock.h"

#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>

#define DUMP_TIMEOUT_NS (200 * NS_PER_MS)
#define CODE_BYTES 48u
#define INSTRUCTIONS 6u

static void print_code(FILE *f, struct hv_cpu *c, const struct hv_cpu_state *st)
{
	bool wide = st->seg[HV_CS].attr & 0x2000, is32 = st->seg[HV_CS].attr & 0x4000;
	gva_t at = wide ? st->rip : (uint32_t)(st->seg[HV_CS].base + st->rip);
	ZydisDisassembledInstruction insn;
	uint8_t code[CODE_BYTES];
	size_t len = hv_walk_read(c->slice->dsm, st, at, code, sizeof(code),
				  clock_now_ns() + DUMP_TIMEOUT_NS),
	       pos = 0;

	if (!len)
		fprintf(f, "  code at 0x%llx cannot be read\n", (unsigned long long)at);
	for (unsigned i = 0; i < INSTRUCTIONS && pos < len; i++) {
		ZydisMachineMode mode = wide   ? ZYDIS_MACHINE_MODE_LONG_64
					: is32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
					       : ZYDIS_MACHINE_MODE_REAL_16;

		fprintf(f, "  %016llx ", (unsigned long long)(at + pos));
		if (!ZYAN_SUCCESS(
			    ZydisDisassembleIntel(mode, at + pos, code + pos, len - pos, &insn))) {
			for (size_t k = pos; k < len && k < pos + 15; k++)
				fprintf(f, " %02x", code[k]);
			fprintf(f, "\n");
			return;
		}
		for (unsigned k = 0; k < 12; k++)
			if (k < insn.info.length)
				fprintf(f, "%02x", code[pos + k]);
			else
				fprintf(f, "  ");
		fprintf(f, "  %s\n", insn.text);
		pos += insn.info.length;
	}
}

static void print_registers(FILE *f, const struct hv_cpu_state *st)
{
	static const char *const gpr[16] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"
	};
	static const char *const seg[6] = { "es", "cs", "ss", "ds", "fs", "gs" };

	for (unsigned i = 0; i < 16; i++)
		fprintf(f, "%s%s %016llx%s", i % 4 ? " " : "  ", gpr[i],
			(unsigned long long)st->gpr[i], i % 4 == 3 ? "\n" : "");
	fprintf(f, "  rip %016llx flags %08llx\n", (unsigned long long)st->rip,
		(unsigned long long)st->rflags);
	fprintf(f, "  cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx\n", (unsigned long long)st->cr0,
		(unsigned long long)st->cr2, (unsigned long long)st->cr3,
		(unsigned long long)st->cr4, (unsigned long long)st->efer);
	for (unsigned i = 0; i < 6; i++)
		fprintf(f, "  %s %04x base %llx limit %x attr %04x\n", seg[i], st->seg[i].sel,
			(unsigned long long)st->seg[i].base, st->seg[i].limit, st->seg[i].attr);
	fprintf(f, "  gdt %llx:%x idt %llx:%x tr %04x\n", (unsigned long long)st->gdt_base,
		st->gdt_limit, (unsigned long long)st->idt_base, st->idt_limit, st->tr.sel);
}

char *hv_dump(struct hv_cpu *c)
{
	struct hv_cpu_state st;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	c->slice->engine->get_state(c->engine_vcpu, &st);
	fprintf(f, "vCPU %u on node %s\n", c->id, c->slice->spec->node_name[c->slice->spec->self]);
	print_registers(f, &st);
	print_code(f, c, &st);
	fclose(f);
	return text;
}
