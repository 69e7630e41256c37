/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/bt/pio.c - in, out, ins, outs: every element is one HV_EXIT_PIO.
 *
 * What      Permission by IOPL and the TSS's I/O bitmap (SDM vol 1, 18.5).  The instruction
 * restarts after the exit and completes with the answer in c->pio. Threads   The vCPU thread,
 * active as a DSM reader. I/O       Guest memory; ports through the monitor.
 */
#include "hv/bt/sysint.h"

#define TSS_IOMAP 102u

static enum bt_res io_allowed(struct bt_cpu *c, uint16_t port, unsigned size)
{
	uint16_t map, bits;
	enum bt_res r;

	if (cpu_real(c) || c->cpl <= cpu_iopl(c))
		return BT_OK;
	if (!(c->tr.attr & ATTR_P) || (seg_type(&c->tr) & ~2u) != SYS_TSS ||
	    c->tr.limit < TSS_IOMAP + 1)
		return res_fault(c, EXC_GP, 0);
	r = bt_mem_read_as(c, c->tr.base + TSS_IOMAP, &map, 2, AS_SYSTEM);
	if (r)
		return r;
	if ((uint32_t)map + port / 8 + 1 > c->tr.limit) /* two bytes are always read */
		return res_fault(c, EXC_GP, 0);
	r = bt_mem_read_as(c, c->tr.base + map + port / 8, &bits, 2, AS_SYSTEM);
	if (r)
		return r;
	if (bits >> (port & 7) & ((1u << size) - 1))
		return res_fault(c, EXC_GP, 0);
	return BT_OK;
}

static bool pio_answered(const struct bt_cpu *c, uint16_t port, unsigned size, bool write)
{
	return c->pio.ready && c->pio.gpa == port && c->pio.size == size && c->pio.write == write;
}

/* The answer stays ready until the caller is done with the element and clears it. */
static enum bt_res pio_access(struct bt_cpu *c, uint16_t port, unsigned size, bool write,
			      uint64_t *data)
{
	if (pio_answered(c, port, size, write)) {
		if (!write)
			*data = c->pio.data & size_mask(size);
		return BT_OK;
	}
	c->pio.ready = false;
	c->pio.gpa = port;
	c->pio.size = (uint8_t)size;
	c->pio.write = write;
	c->exit->write = write;
	c->exit->size = (uint8_t)size;
	c->exit->addr = port;
	c->exit->data = write ? *data & size_mask(size) : 0;
	bt_exit(c, HV_EXIT_PIO);
	return BT_EXIT;
}

static uint16_t port_of(const struct bt_cpu *c, const struct bt_insn *i, unsigned n)
{
	return i->op[n].kind == 3 ? (uint8_t)i->op[n].imm : (uint16_t)c->gpr[HV_RDX];
}

SYS_FN(bt_sys_in)
{
	uint16_t port = port_of(c, i, 1);
	unsigned size = i->op[0].size;
	uint64_t v = 0;

	if (io_allowed(c, port, size) || pio_access(c, port, size, false, &v))
		return BT_AGAIN;
	c->pio.ready = false;
	reg_write(c, HV_RAX, v, size);
	return next_insn(c, i);
}

SYS_FN(bt_sys_out)
{
	uint16_t port = port_of(c, i, 0);
	unsigned size = i->op[1].size;
	uint64_t v = reg_read(c, HV_RAX, size);

	if (io_allowed(c, port, size) || pio_access(c, port, size, true, &v))
		return BT_AGAIN;
	c->pio.ready = false;
	return next_insn(c, i);
}

/* --- ins, outs --- */
static enum bt_res ins_element(struct bt_cpu *c, const struct bt_insn *i, uint16_t port,
			       unsigned size)
{
	uint64_t v = 0;
	gva_t va;
	enum bt_res r;

	r = bt_seg_address(c, HV_ES, c->gpr[HV_RDI] & size_mask(i->addrsize), size, BT_WRITE, &va);
	if (!r) /* faults come before the port is read */
		r = bt_mem_probe(c, va, size, BT_WRITE);
	if (!r)
		r = pio_access(c, port, size, false, &v);
	return r ? r : bt_mem_write(c, va, &v, size);
}

static enum bt_res outs_element(struct bt_cpu *c, const struct bt_insn *i, uint16_t port,
				unsigned size)
{
	uint64_t v = 0;
	gva_t va;
	enum bt_res r;

	r = bt_seg_address(c, i->seg, c->gpr[HV_RSI] & size_mask(i->addrsize), size, BT_READ, &va);
	/* an answered out is done: its source is not read again */
	if (!r && !pio_answered(c, port, size, true))
		r = bt_mem_read(c, va, &v, size);
	return r ? r : pio_access(c, port, size, true, &v);
}

static enum bt_next port_string(struct bt_cpu *c, const struct bt_insn *i, bool in)
{
	unsigned size = bt_string_size(i->mnemonic), which = in ? HV_RDI : HV_RSI;
	uint64_t mask = size_mask(i->addrsize);
	uint16_t port = (uint16_t)c->gpr[HV_RDX];
	uint64_t step = c->rflags & RFLAGS_DF ? -(uint64_t)size : size;

	for (;;) {
		if (i->rep && !(c->gpr[HV_RCX] & mask))
			return next_insn(c, i);
		if (io_allowed(c, port, size))
			return BT_AGAIN;
		if (in ? ins_element(c, i, port, size) : outs_element(c, i, port, size))
			return BT_AGAIN;
		c->pio.ready = false;
		reg_write(c, which, c->gpr[which] + step, i->addrsize);
		if (!i->rep)
			return next_insn(c, i);
		reg_write(c, HV_RCX, c->gpr[HV_RCX] - 1, i->addrsize);
		if ((c->gpr[HV_RCX] & mask) && atomic_load_explicit(&c->kick, memory_order_relaxed))
			return BT_AGAIN;
	}
}

SYS_FN(bt_sys_ins)
{
	return port_string(c, i, true);
}
SYS_FN(bt_sys_outs)
{
	return port_string(c, i, false);
}
