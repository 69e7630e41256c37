/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC: priorities, EOI, ICR decoding, INIT/SIPI, register access rules, both modes. */
#include "lapic_help.h"

/* --- priorities --- */

Test(lapic, highest_vector_first_and_class_rule)
{
	struct hv_lapic l = ready(0);

	cr_assert_eq(hv_lapic_pending(&l), -1);
	deliver(&l, HV_INTR_FIXED, 0x41, false);
	cr_assert(effect(HV_LAPIC_WAKE));
	deliver(&l, HV_INTR_FIXED, 0x61, false);
	cr_assert_eq(hv_lapic_pending(&l), 0x61);
	hv_lapic_ack(&l, 0x61);
	cr_assert_eq(rd(&l, PPR), 0x60);
	cr_assert_eq(hv_lapic_pending(&l), -1, "0x41 must wait for 0x61");
	deliver(&l, HV_INTR_FIXED, 0x6f, false);
	cr_assert_eq(hv_lapic_pending(&l), -1, "same class does not interrupt");
	deliver(&l, HV_INTR_FIXED, 0x70, false);
	cr_assert_eq(hv_lapic_pending(&l), 0x70, "higher class does");
	hv_lapic_ack(&l, 0x70);
	wr(&l, EOI, 0); /* ends 0x70 */
	cr_assert_eq(rd(&l, PPR), 0x60);
	wr(&l, EOI, 0); /* ends 0x61 */
	cr_assert_eq(hv_lapic_pending(&l), 0x6f);
	hv_lapic_ack(&l, 0x6f);
	wr(&l, EOI, 0);
	cr_assert_eq(hv_lapic_pending(&l), 0x41);
}

Test(lapic, tpr_masks_by_class_and_is_cr8)
{
	struct hv_lapic l = ready(0);

	deliver(&l, HV_INTR_FIXED, 0x55, false);
	wr(&l, TPR, 0x5f);
	cr_assert_eq(hv_lapic_pending(&l), -1);
	cr_assert_eq(rd(&l, PPR), 0x5f);
	cr_assert_eq(hv_lapic_cr8(&l), 5);
	hv_lapic_set_cr8(&l, 4);
	cr_assert_eq(rd(&l, TPR), 0x40);
	cr_assert_eq(hv_lapic_pending(&l), 0x55);
	wr(&l, TPR, 0x45);
	hv_lapic_ack(&l, 0x55);
	cr_assert_eq(rd(&l, PPR), 0x50);
	wr(&l, TPR, 0x5a);
	cr_assert_eq(rd(&l, PPR), 0x5a, "in the same class the TPR shows");
	wr(&l, TPR, 0x47);
	hv_lapic_set_cr8(&l, 4);
	cr_assert_eq(rd(&l, TPR), 0x47, "mirroring an unchanged CR8 keeps the low bits");
}

Test(lapic, level_eoi_broadcasts_edge_does_not)
{
	struct hv_lapic l = ready(0);

	deliver(&l, HV_INTR_FIXED, 0x80, true);
	cr_assert_eq(rd(&l, MSR(0x18 + 4)), 1, "TMR bit 0x80");
	cr_assert_eq(rd(&l, MSR(0x20 + 4)), 1, "IRR bit 0x80");
	hv_lapic_ack(&l, 0x80);
	cr_assert_eq(rd(&l, MSR(0x10 + 4)), 1, "ISR bit 0x80");
	cr_assert_eq(rd(&l, MSR(0x20 + 4)), 0);
	wr(&l, EOI, 0);
	cr_assert(effect(HV_LAPIC_EOI_BROADCAST));
	cr_assert_eq(effect(HV_LAPIC_EOI_BROADCAST)->vector, 0x80);
	deliver(&l, HV_INTR_FIXED, 0x80, false);
	hv_lapic_ack(&l, 0x80);
	wr(&l, EOI, 0);
	cr_assert_not(effect(HV_LAPIC_EOI_BROADCAST), "the TMR bit goes with the last message");
	wr(&l, EOI, 0);
	cr_assert_eq(fx.count, 0, "EOI with nothing in service");
}

Test(lapic, same_vector_can_be_pending_while_in_service)
{
	struct hv_lapic l = ready(0);

	deliver(&l, HV_INTR_FIXED, 0x33, false);
	hv_lapic_ack(&l, 0x33);
	deliver(&l, HV_INTR_FIXED, 0x33, false);
	deliver(&l, HV_INTR_FIXED, 0x33, false);
	wr(&l, EOI, 0);
	cr_assert_eq(hv_lapic_pending(&l), 0x33);
	hv_lapic_ack(&l, 0x33);
	wr(&l, EOI, 0);
	cr_assert_eq(hv_lapic_pending(&l), -1, "two deliveries coalesced");
}

/* --- IPIs --- */

Test(lapic, icr_fields_in_x2apic_mode)
{
	struct hv_lapic l = ready(3);
	const struct hv_lapic_effect *e;

	cr_assert(wr(&l, ICR, 0x1234567800000800ull | 0x4000 | 0xf1));
	e = effect(HV_LAPIC_SEND);
	cr_assert(e);
	cr_assert_eq(e->intr.dest, 0x12345678);
	cr_assert(e->intr.logical);
	cr_assert(e->intr.wide);
	cr_assert_eq(e->intr.mode, HV_INTR_FIXED);
	cr_assert_eq(e->intr.vector, 0xf1);
	cr_assert_eq(e->intr.source, 3);
	cr_assert_eq(e->intr.shorthand, HV_INTR_DEST);
	cr_assert_eq(rd(&l, ICR), 0x12345678000048f1ull);
}

Test(lapic, icr_all_shorthands)
{
	struct hv_lapic l = ready(3);

	cr_assert(wr(&l, ICR, 2u << 18 | 0x4000 | 0x44));
	cr_assert_eq(effect(HV_LAPIC_SEND)->intr.shorthand, HV_INTR_ALL);
	cr_assert(wr(&l, ICR, 3u << 18 | 0x4000 | 0x44));
	cr_assert_eq(effect(HV_LAPIC_SEND)->intr.shorthand, HV_INTR_OTHERS);
	cr_assert_eq(hv_lapic_pending(&l), -1);
	cr_assert(wr(&l, ICR, 1u << 18 | 0x4000 | 0x44));
	cr_assert_not(effect(HV_LAPIC_SEND), "self is local");
	cr_assert(effect(HV_LAPIC_WAKE));
	cr_assert_eq(hv_lapic_pending(&l), 0x44);
	cr_assert(wr(&l, SELF, 0x54));
	cr_assert_eq(hv_lapic_pending(&l), 0x54);
}

Test(lapic, icr_modes)
{
	static const uint8_t sent[] = { HV_INTR_FIXED, HV_INTR_LOWEST, HV_INTR_NMI, HV_INTR_INIT,
					HV_INTR_SIPI };
	struct hv_lapic l = ready(0);

	for (unsigned k = 0; k < ARRAY_LEN(sent); k++) {
		cr_assert(wr(&l, ICR, 1ull << 32 | 0x4000 | (uint64_t)sent[k] << 8 | 0x99));
		cr_assert(effect(HV_LAPIC_SEND), "mode %u", sent[k]);
		cr_assert_eq(effect(HV_LAPIC_SEND)->intr.mode, sent[k]);
		cr_assert_not(effect(HV_LAPIC_SEND)->intr.level);
	}
	cr_assert(wr(&l, ICR, 1ull << 32 | 0x8000 | HV_INTR_INIT << 8));
	cr_assert_eq(fx.count, 0, "INIT level de-assert sends nothing");
	cr_assert(wr(&l, ICR, 1ull << 32 | 0xc000 | HV_INTR_INIT << 8));
	cr_assert(effect(HV_LAPIC_SEND), "INIT level assert does");
	cr_assert(wr(&l, ICR, 1ull << 32 | 0x4000 | 3 << 8 | 0x99));
	cr_assert_eq(fx.count, 0, "reserved mode");
}

Test(lapic, illegal_vectors_set_esr_and_raise_the_error_interrupt)
{
	struct hv_lapic l = ready(0);

	wr(&l, LVT_ERROR, 0xfe);
	cr_assert(wr(&l, ICR, 1ull << 32 | 0x4000 | 0x0f));
	cr_assert_not(effect(HV_LAPIC_SEND));
	cr_assert_eq(hv_lapic_pending(&l), 0xfe);
	cr_assert_eq(rd(&l, ESR), 0, "collected, not yet latched");
	cr_assert(wr(&l, ESR, 0));
	cr_assert_eq(rd(&l, ESR), 0x20);
	deliver(&l, HV_INTR_FIXED, 3, false);
	cr_assert(wr(&l, ESR, 0));
	cr_assert_eq(rd(&l, ESR), 0x40);
	cr_assert(wr(&l, ESR, 0));
	cr_assert_eq(rd(&l, ESR), 0);
}

/* --- INIT, SIPI, NMI --- */

Test(lapic, init_sipi_brings_up_a_processor)
{
	struct hv_lapic l;
	uint8_t vector = 0;

	hv_lapic_init(&l, 1, false);
	fx.count = 0;
	cr_assert(l.wait_sipi);
	cr_assert_not(hv_lapic_wants_cpu(&l, true));
	deliver(&l, HV_INTR_INIT, 0, false);
	deliver(&l, HV_INTR_SIPI, 0x9a, false); /* may come before the INIT was taken */
	cr_assert(hv_lapic_wants_cpu(&l, false));
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_INIT);
	cr_assert(l.wait_sipi);
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_SIPI);
	cr_assert_eq(vector, 0x9a);
	cr_assert_not(l.wait_sipi);
	deliver(&l, HV_INTR_SIPI, 0x77, false);
	cr_assert_eq(fx.count, 0, "the second SIPI of the customary two is ignored");
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_NOTHING);
}

Test(lapic, running_processor_is_restarted)
{
	struct hv_lapic l = ready(1);
	uint8_t vector = 0;

	l.apic_base &= ~0x100ull; /* not the boot processor */
	deliver(&l, HV_INTR_SIPI, 0x11, false);
	cr_assert_eq(fx.count, 0, "SIPI alone does nothing to it");
	deliver(&l, HV_INTR_INIT, 0, false);
	deliver(&l, HV_INTR_SIPI, 0x12, false);
	fx.count = 0;
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_INIT);
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_SIPI);
	cr_assert_eq(vector, 0x12);
}

Test(lapic, init_resets_all_but_id_base_and_mode)
{
	struct hv_lapic l = ready(5);
	uint8_t vector;

	l.apic_base &= ~0x100ull; /* not the boot processor */
	deliver(&l, HV_INTR_FIXED, 0x50, false);
	wr(&l, TPR, 0x20);
	wr(&l, LVT_TIMER, 0x40);
	wr(&l, INITIAL, 1000);
	deliver(&l, HV_INTR_NMI, 0, false);
	deliver(&l, HV_INTR_INIT, 0, false);
	fx.count = 0;
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_INIT);
	cr_assert(effect(HV_LAPIC_SET_TIMER));
	cr_assert_eq(effect(HV_LAPIC_SET_TIMER)->deadline, 0);
	cr_assert_eq(rd(&l, ID), 5);
	cr_assert_eq(rd(&l, LDR), 1u << 5);
	cr_assert_eq(rd(&l, TPR), 0);
	cr_assert_eq(rd(&l, SVR), 0xff);
	cr_assert_eq(rd(&l, LVT_TIMER), 0x10000);
	cr_assert_eq(hv_lapic_pending(&l), -1);
	cr_assert_not(l.nmi_pending);
	cr_assert(l.wait_sipi);
	cr_assert_not(hv_lapic_wants_cpu(&l, true));
}

Test(lapic, boot_processor_does_not_wait_after_init)
{
	struct hv_lapic l = ready(0);
	uint8_t vector;

	deliver(&l, HV_INTR_INIT, 0, false);
	fx.count = 0;
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_INIT);
	cr_assert_not(l.wait_sipi);
}

Test(lapic, nmi_waits_until_it_can_be_taken)
{
	struct hv_lapic l = ready(0);
	uint8_t vector;

	deliver(&l, HV_INTR_NMI, 0, false);
	cr_assert(effect(HV_LAPIC_WAKE));
	cr_assert(hv_lapic_wants_cpu(&l, false));
	cr_assert_eq(hv_lapic_take(&l, false, &vector, &fx), HV_LAPIC_NOTHING);
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_TAKE_NMI);
	cr_assert_eq(hv_lapic_take(&l, true, &vector, &fx), HV_LAPIC_NOTHING);
}

/* --- software and global enable --- */

Test(lapic, software_disabled_takes_no_fixed_but_nmi_and_masks_lvts)
{
	struct hv_lapic l = ready(0);

	wr(&l, LVT_TIMER, 0x31);
	wr(&l, SVR, 0xff);
	cr_assert_eq(rd(&l, LVT_TIMER), 0x10031);
	wr(&l, LVT_TIMER, 0x31);
	cr_assert_eq(rd(&l, LVT_TIMER), 0x10031, "mask bit cannot be cleared");
	deliver(&l, HV_INTR_FIXED, 0x66, false);
	cr_assert_eq(hv_lapic_pending(&l), -1);
	deliver(&l, HV_INTR_NMI, 0, false);
	cr_assert(l.nmi_pending);
}

Test(lapic, base_msr_transitions)
{
	struct hv_lapic l;

	hv_lapic_init(&l, 0x23, false);
	cr_assert_eq(rd(&l, HV_MSR_APIC_BASE), HV_LAPIC_BASE | 0x800ull);
	cr_assert(rd_faults(&l, ID), "x2APIC MSRs fault in xAPIC mode");
	cr_assert_not(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0x400ull), "EXTD without EN");
	cr_assert_not(wr(&l, HV_MSR_APIC_BASE, BASE_X2APIC | 1), "reserved bit");
	cr_assert_not(wr(&l, HV_MSR_APIC_BASE, BASE_X2APIC | 1ull << 50), "address too wide");
	cr_assert(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0xc00ull));
	cr_assert(effect(HV_LAPIC_ADDR_CHANGED));
	cr_assert_eq(rd(&l, ID), 0x23);
	cr_assert_eq(rd(&l, LDR), 0x2u << 16 | 1u << 3);
	cr_assert_not(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0x800ull), "x2APIC to xAPIC");
	cr_assert(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE));
	cr_assert_not(hv_lapic_addr(&l).enabled);
	cr_assert_not(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0xc00ull), "disabled to x2APIC");
	cr_assert(wr(&l, HV_MSR_APIC_BASE, HV_LAPIC_BASE | 0x800ull));
	cr_assert(l.wait_sipi, "being disabled does not start a processor");
}

Test(lapic, reserved_bits_and_registers_fault)
{
	static const uint32_t absent[] = { MSR(0),    MSR(1),    MSR(0x0c), MSR(0x0e),
					   MSR(0x2f), MSR(0x31), MSR(0x40), MSR(0xff) };
	static const uint32_t read_only[] = { ID,        MSR(3),    PPR,       LDR,
					      MSR(0x10), MSR(0x18), MSR(0x27), CURRENT };
	struct hv_lapic l = ready(0);

	for (unsigned k = 0; k < ARRAY_LEN(absent); k++) {
		cr_assert(rd_faults(&l, absent[k]), "%#x", absent[k]);
		cr_assert_not(wr(&l, absent[k], 0), "%#x", absent[k]);
	}
	for (unsigned k = 0; k < ARRAY_LEN(read_only); k++)
		cr_assert_not(wr(&l, read_only[k], 0), "%#x", read_only[k]);
	cr_assert(rd_faults(&l, EOI));
	cr_assert(rd_faults(&l, SELF));
	cr_assert_not(wr(&l, EOI, 1));
	cr_assert_not(wr(&l, ESR, 1));
	cr_assert_not(wr(&l, TPR, 0x100));
	cr_assert_not(wr(&l, TPR, 1ull << 32));
	cr_assert_not(wr(&l, SVR, 0x1000), "EOI-broadcast suppression is not offered");
	cr_assert_not(wr(&l, LVT_TIMER, 0x80000));
	cr_assert_not(wr(&l, LVT_TIMER, 0x2000));
	cr_assert(wr(&l, LVT_TIMER, 0x11000), "delivery status is ignored");
	cr_assert(wr(&l, LVT_LINT0, 0x1a700 | 0x4000), "remote IRR is ignored");
	cr_assert_eq(rd(&l, LVT_LINT0), 0x1a700);
	cr_assert_not(wr(&l, DIVIDE, 4));
	cr_assert_not(wr(&l, ICR, 1u << 20));
	cr_assert_not(wr(&l, ICR, 1u << 16));
	cr_assert_not(wr(&l, ICR, 1u << 13));
	cr_assert_not(wr(&l, SELF, 0x100));
	cr_assert_eq(fx.count, 0);
	cr_assert_eq(rd(&l, MSR(3)), 0x50014);
}

/* --- xAPIC page --- */

static void mm(struct hv_lapic *l, uint32_t off, uint32_t v)
{
	fx.count = 0;
	hv_lapic_mmio_write(l, off, 4, v, 0, &fx);
}

Test(lapic, mmio_registers)
{
	struct hv_lapic l;

	hv_lapic_init(&l, 7, true);
	cr_assert(hv_lapic_has_mmio(&l, HV_LAPIC_BASE + 0x30));
	cr_assert_not(hv_lapic_has_mmio(&l, HV_LAPIC_BASE + 0x1000));
	cr_assert_eq(hv_lapic_mmio_read(&l, 0x20, 4, 0), 7u << 24);
	cr_assert_eq(hv_lapic_mmio_read(&l, 0x30, 4, 0), 0x50014);
	cr_assert_eq(hv_lapic_mmio_read(&l, 0x32, 1, 0), 0x05);
	mm(&l, 0xf0, 0x1ff);
	mm(&l, 0xd0, 0x80ffffff);
	cr_assert_eq(hv_lapic_mmio_read(&l, 0xd0, 4, 0), 0x80000000);
	cr_assert(effect(HV_LAPIC_ADDR_CHANGED));
	mm(&l, 0xe0, 0x0fffffff);
	cr_assert_not(hv_lapic_addr(&l).flat);
	deliver(&l, HV_INTR_FIXED, 0x91, true);
	hv_lapic_ack(&l, 0x91);
	mm(&l, 0xb0, 0x1234);
	cr_assert(effect(HV_LAPIC_EOI_BROADCAST), "any value ends");
	mm(&l, 0x310, 0x05ffffff);
	cr_assert_eq(fx.count, 0);
	mm(&l, 0x300, 0x4000 | HV_INTR_NMI << 8);
	cr_assert_eq(effect(HV_LAPIC_SEND)->intr.dest, 5);
	cr_assert_not(effect(HV_LAPIC_SEND)->intr.wide);
	cr_assert_eq(effect(HV_LAPIC_SEND)->intr.mode, HV_INTR_NMI);
	cr_assert_eq(hv_lapic_mmio_read(&l, 0x310, 4, 0), 0x05000000);
	cr_assert(wr(&l, HV_MSR_APIC_BASE, 0xfe000000ull | 0x900));
	cr_assert(hv_lapic_has_mmio(&l, 0xfe000080), "the page can be moved");
	cr_assert_not(hv_lapic_has_mmio(&l, HV_LAPIC_BASE));
	cr_assert(wr(&l, HV_MSR_APIC_BASE, 0xfe000000ull | 0xd00));
	cr_assert_not(hv_lapic_has_mmio(&l, 0xfe000080), "no page in x2APIC mode");
}

Test(lapic, hlt_ends_only_for_what_can_be_taken)
{
	struct hv_lapic l = ready(0);

	cr_assert_not(hv_lapic_wants_cpu(&l, true));
	deliver(&l, HV_INTR_FIXED, 0x40, false);
	cr_assert(hv_lapic_wants_cpu(&l, true));
	cr_assert_not(hv_lapic_wants_cpu(&l, false));
	wr(&l, TPR, 0x40);
	cr_assert_not(hv_lapic_wants_cpu(&l, true));
}
