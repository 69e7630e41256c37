/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_bt.c - the bt engine's decoder and translator on any guest code; nothing of it is run.
 *
 * Input     u8 mode (16, 32 or 64 bits, ring, flags), u8 distance of the code from the end of its page, then code.
 * Checks    Blocks keep their promises of length, and every host instruction that was made of guest bytes is one that a
 *           process may run: decodable, not privileged, no system call.
 * Keeps     The guest; translations are dropped after each input.
 */
#include "hv/bt/tr.h"
#include "tests/bt/guest.h"
#include "tests/fuzz/fuzz.h"

#define CODE 0x400000ull
#define STACK 0x600000ull
#define RAM (4ull << 20)
#define BLOCKS_MAX 16u

static struct guest g;
static struct bt_cpu *cpu;
static struct hv_exit leaving;

static void open_once(void)
{
	if (cpu)
		return;
	guest_open(&g, RAM, 1);
	guest_map(&g, CODE, GUEST_FREE, 3 * PAGE_SIZE, GUEST_RWU);
	cpu = ((struct bt_vm *)(void *)g.vm)->cpus[0];
	cpu->exit = &leaving;
	bt_cpu_enter(cpu);
}

static void state_set(uint8_t mode)
{
	static const uint16_t code_attr[] = { 0xa09b, 0xc09b, 0x009b, 0xa09b };
	struct hv_cpu_state s;
	bool user = mode & 4;

	guest_state(&g, &s, CODE, STACK, user);
	s.seg[HV_CS].attr = code_attr[mode & 3] | (user ? 0x60 : 0);
	if (mode & 8)
		s.cr0 |= 8; /* TS */
	if (mode & 16)
		s.rflags |= 0x100; /* TF */
	if (mode & 32)
		s.seg[HV_DS].base = 0x1000;
	ASSERT(hv_engine_bt.set_state(g.vcpu[0], &s) == 0);
}

static void host_code_check(const struct bt_translator *t, const struct bt_block *b)
{
	ZydisDecoder d;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (uint32_t at = b->code; at < b->end;) {
		ZydisDecodedInstruction z;
		ZyanStatus s = ZydisDecoderDecodeInstruction(&d, NULL, t->buf + at, b->end - at, &z);

		ASSERT(ZYAN_SUCCESS(s));
		ASSERT(!(z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED));
		ASSERT(z.meta.category != ZYDIS_CATEGORY_SYSCALL && z.meta.category != ZYDIS_CATEGORY_SYSRET);
		ASSERT(z.meta.category != ZYDIS_CATEGORY_INTERRUPT);
		ASSERT(z.meta.category != ZYDIS_CATEGORY_SYSTEM || z.mnemonic == ZYDIS_MNEMONIC_RDTSC);
		ASSERT(z.meta.category != ZYDIS_CATEGORY_IO && z.meta.category != ZYDIS_CATEGORY_IOSTRINGOP);
		ASSERT(z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR);
		at += z.length;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint32_t extra[] = { 0, TR_MODE_ONE, TR_MODE_BOUNCE | TR_MODE_ONE, 0 };
	struct bt_translator *t;
	uint64_t end;
	uint8_t mode;

	if (len < 3)
		return 0;
	open_once();
	t = cpu->tr_state;
	mode = data[0];
	state_set(mode);
	cpu->rip = CODE + PAGE_SIZE - 1 - data[1];
	data += 2;
	len -= 2;
	if (len > PAGE_SIZE)
		len = PAGE_SIZE;
	memset(g.ram + GUEST_FREE, 0x90, 3 * PAGE_SIZE);
	memcpy(g.ram + GUEST_FREE + (cpu->rip - CODE), data, len);
	end = cpu->rip + len;
	for (unsigned n = 0; n < BLOCKS_MAX && cpu->rip < end; n++) {
		struct bt_block *b = tr_translate(t, cpu->mode | extra[mode >> 6]);

		if (!b) {
			/* Pages are there and may be run: nothing else than an instruction that is none. */
			cpu->exc = (struct bt_exception){ 0 };
			cpu->exit_pending = false;
			cpu->rip++;
			continue;
		}
		ASSERT(b->size >= 1 && b->rip == cpu->rip && b->end > b->code);
		ASSERT(b->end - b->code <= TR_BLOCK_ROOM);
		host_code_check(t, b);
		cpu->rip += b->size;
	}
	tr_flush(t);
	return 0;
}
