/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exits.c - what a vCPU thread does when its engine comes back.
 *
 * Threads   The vCPU's own.
 */
#include "hv/slice_priv.h"

static bool exit_nothing(struct hv_cpu *c, struct hv_exit *e)
{
	(void)c;
	(void)e;
	return true; /* the loop looks at the mailbox and the LAPIC */
}

/* The guest may have set CR8 since the LAPIC last saw it. */
static void mirror_tpr(struct hv_cpu *c)
{
	hv_lapic_set_cr8(&c->lapic, c->slice->engine->get_tpr(c->engine_vcpu));
}

static bool exit_mmio(struct hv_cpu *c, struct hv_exit *e)
{
	struct hv_lapic_effects fx = { 0 };
	uint64_t tsc;

	if (!hv_lapic_has_mmio(&c->lapic, e->addr))
		return !hv_bus_access(c, HV_IO_MMIO, e->addr, e->size, e->write, &e->data);
	mirror_tpr(c);
	tsc = hv_clock_guest_tsc(&c->slice->clock);
	if (!e->write) {
		e->data = hv_lapic_mmio_read(&c->lapic, e->addr & 0xfff, e->size, tsc);
		return true;
	}
	hv_lapic_mmio_write(&c->lapic, e->addr & 0xfff, e->size, e->data, tsc, &fx);
	c->slice->engine->set_tpr(c->engine_vcpu, hv_lapic_cr8(&c->lapic));
	hv_cpu_effects(c, &fx);
	return true;
}

static bool exit_pio(struct hv_cpu *c, struct hv_exit *e)
{
	return !hv_bus_access(c, HV_IO_PORT, e->addr, e->size, e->write, &e->data);
}

static bool exit_msr(struct hv_cpu *c, struct hv_exit *e)
{
	struct hv_lapic_effects fx = { 0 };
	uint64_t tsc = hv_clock_guest_tsc(&c->slice->clock);
	uint32_t msr = (uint32_t)e->addr;

	e->fault = true; /* no such MSR: #GP(0) */
	if (!hv_lapic_has_msr(msr))
		return true;
	mirror_tpr(c);
	if (!e->write) {
		e->fault = !hv_lapic_msr_read(&c->lapic, msr, tsc, &e->data);
		return true;
	}
	e->fault = !hv_lapic_msr_write(&c->lapic, msr, e->data, tsc, &fx);
	c->slice->engine->set_tpr(c->engine_vcpu, hv_lapic_cr8(&c->lapic));
	hv_cpu_effects(c, &fx);
	return true;
}

static bool exit_hlt(struct hv_cpu *c, struct hv_exit *e)
{
	(void)e;
	c->halted = true;
	return true;
}

static bool exit_shutdown(struct hv_cpu *c, struct hv_exit *e)
{
	(void)e;
	hv_slice_end(c->slice, CC_END_CRASH, c->slice->spec->self, hv_dump(c),
		     "vCPU %u: triple fault", c->id);
	return false;
}

static bool exit_error(struct hv_cpu *c, struct hv_exit *e)
{
	hv_slice_end(c->slice, CC_END_CRASH, c->slice->spec->self, hv_dump(c), "vCPU %u: %s", c->id,
		     e->text ? e->text : "the engine cannot go on");
	return false;
}

static bool exit_lost(struct hv_cpu *c, struct hv_exit *e)
{
	(void)e;
	/* Whoever ended the memory has said why before; this is for the case that nobody has. */
	hv_slice_end(c->slice, CC_END_ERROR, c->slice->spec->self, NULL,
		     "vCPU %u: guest memory cannot be had", c->id);
	return false;
}

static bool (*const handlers[])(struct hv_cpu *c, struct hv_exit *e) = {
	[HV_EXIT_KICKED] = exit_nothing,    [HV_EXIT_MMIO] = exit_mmio,
	[HV_EXIT_PIO] = exit_pio,           [HV_EXIT_MSR] = exit_msr,
	[HV_EXIT_HLT] = exit_hlt,           [HV_EXIT_IRQ_WINDOW] = exit_nothing,
	[HV_EXIT_SHUTDOWN] = exit_shutdown, [HV_EXIT_LOST] = exit_lost,
	[HV_EXIT_ERROR] = exit_error,
};

bool hv_exit_handle(struct hv_cpu *c, struct hv_exit *e)
{
	return handlers[e->reason](c, e);
}
