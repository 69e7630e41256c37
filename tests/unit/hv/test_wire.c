/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire.c - messages between slices: what is encoded decodes to the same; damaged bytes are refused. */
#include "hv/wire.h"

#include "base/rng.h"
#include "hv/core/ioapic.h"

#include <criterion/criterion.h>
#include <string.h>

static struct hv_msg sample(enum hv_msg_kind kind, struct rng *r)
{
	struct hv_msg m;

	memset(&m, 0, sizeof(m));
	m.kind = kind;
	switch (kind) {
	case HV_MSG_IPI:
		m.ipi.mode = rng_below(r, 8);
		m.ipi.vector = (uint8_t)rng_next(r);
		m.ipi.level = rng_below(r, 2);
		for (unsigned i = 0; i < 4; i++)
			m.ipi.to.w[i] = rng_next(r);
		break;
	case HV_MSG_ADDR:
		m.addr.vcpu = (uint8_t)rng_next(r);
		m.addr.seq = (uint32_t)rng_next(r);
		m.addr.addr.id = (uint32_t)rng_next(r);
		m.addr.addr.ldr = (uint32_t)rng_next(r);
		m.addr.addr.enabled = rng_below(r, 2);
		m.addr.addr.x2apic = rng_below(r, 2);
		m.addr.addr.flat = rng_below(r, 2);
		break;
	case HV_MSG_PULSE:
		m.pulse.gsi = (uint8_t)rng_below(r, HV_IOAPIC_PINS);
		break;
	case HV_MSG_EOI:
		m.eoi.vector = (uint8_t)rng_next(r);
		break;
	case HV_MSG_IO:
		m.io.id = rng_next(r);
		m.io.space = (enum hv_io_space)rng_below(r, HV_IO_SPACES);
		m.io.write = rng_below(r, 2);
		m.io.size = (uint8_t)(1u << rng_below(r, 4));
		m.io.addr = rng_next(r);
		m.io.data = rng_next(r);
		break;
	case HV_MSG_IO_DONE:
		m.io_done.id = rng_next(r);
		m.io_done.data = rng_next(r);
		break;
	case HV_MSG_PROBE:
		m.probe.seq = (uint32_t)rng_next(r);
		break;
	case HV_MSG_CLOCK:
		m.clock.seq = (uint32_t)rng_next(r);
		m.clock.tsc_khz = rng_next(r) | 1;
		m.clock.guest_tsc = rng_next(r);
		m.clock.offset = rng_next(r);
		for (unsigned i = 0; i < 16; i++)
			m.clock.boot_id[i] = (uint8_t)rng_next(r);
		break;
	case HV_MSG_LEAVE:
		m.leave.on = rng_below(r, 2);
		break;
	case HV_MSG_BALANCE:
		m.balance.on = rng_below(r, 2);
		break;
	case HV_MSG_LOAD:
		m.load.vcpu = (uint8_t)rng_next(r);
		m.load.from = (node_id)rng_next(r);
		m.load.busy_us = (uint32_t)rng_next(r);
		m.load.waits = (uint32_t)rng_next(r);
		m.load.reads = (uint32_t)rng_next(r);
		m.load.bounced = (uint32_t)rng_next(r);
		m.load.us = (uint32_t)rng_next(r);
		break;
	case HV_MSG_NODE:
		m.node.leaving = rng_below(r, 2);
		m.node.cpus = (uint16_t)(1 + rng_below(r, 65535));
		m.node.load = (uint16_t)rng_next(r);
		m.node.host = rng_next(r);
		break;
	case HV_MSG_KINDS:
		break;
	}
	return m;
}

Test(wire, encoded_messages_decode_to_the_same_bytes)
{
	struct rng r = { 1 };

	for (unsigned k = HV_MSG_IPI; k < HV_MSG_KINDS; k++) {
		for (unsigned n = 0; n < 200; n++) {
			struct hv_msg m = sample((enum hv_msg_kind)k, &r), back;
			uint8_t bytes[HV_MSG_BYTES_MAX], again[HV_MSG_BYTES_MAX];
			unsigned len = hv_msg_encode(&m, bytes);

			cr_assert(hv_msg_decode(bytes, len, &back), "kind %u", k);
			cr_assert_eq(back.kind, m.kind);
			cr_assert_eq(hv_msg_encode(&back, again), len);
			cr_assert_eq(memcmp(bytes, again, len), 0, "kind %u", k);
		}
	}
}

Test(wire, fields_survive)
{
	struct hv_msg m = { .kind = HV_MSG_IO }, back;
	uint8_t bytes[HV_MSG_BYTES_MAX];

	m.io.id = 0x100000002;
	m.io.space = HV_IO_PORT;
	m.io.write = true;
	m.io.size = 4;
	m.io.addr = 0xcf8;
	m.io.data = 0xdeadbeef;
	cr_assert(hv_msg_decode(bytes, hv_msg_encode(&m, bytes), &back));
	cr_assert_eq(back.io.id, 0x100000002);
	cr_assert_eq(back.io.space, HV_IO_PORT);
	cr_assert(back.io.write);
	cr_assert_eq(back.io.size, 4);
	cr_assert_eq(back.io.addr, 0xcf8);
	cr_assert_eq(back.io.data, 0xdeadbeef);
}

Test(wire, wrong_lengths_are_refused)
{
	struct rng r = { 2 };

	for (unsigned k = HV_MSG_IPI; k < HV_MSG_KINDS; k++) {
		struct hv_msg m = sample((enum hv_msg_kind)k, &r), back;
		uint8_t bytes[HV_MSG_BYTES_MAX + 1] = { 0 };
		unsigned len = hv_msg_encode(&m, bytes);

		for (unsigned cut = 0; cut < len; cut++)
			cr_assert_not(hv_msg_decode(bytes, cut, &back), "kind %u cut %u", k, cut);
		cr_assert_not(hv_msg_decode(bytes, len + 1, &back), "kind %u with a byte too many",
			      k);
	}
}

Test(wire, values_out_of_range_are_refused)
{
	struct hv_msg m = { .kind = HV_MSG_PULSE, .pulse = { .gsi = HV_IOAPIC_PINS } }, back;
	uint8_t bytes[HV_MSG_BYTES_MAX];
	unsigned len = hv_msg_encode(&m, bytes);

	cr_assert_not(hv_msg_decode(bytes, len, &back), "no such pin");
	m = (struct hv_msg){ .kind = HV_MSG_IO, .io = { .size = 3 } };
	len = hv_msg_encode(&m, bytes);
	cr_assert_not(hv_msg_decode(bytes, len, &back), "size 3");
	m = (struct hv_msg){ .kind = HV_MSG_IPI, .ipi = { .mode = 8 } };
	len = hv_msg_encode(&m, bytes);
	cr_assert_not(hv_msg_decode(bytes, len, &back), "mode 8");
	m = (struct hv_msg){ .kind = HV_MSG_CLOCK };
	len = hv_msg_encode(&m, bytes);
	cr_assert_not(hv_msg_decode(bytes, len, &back), "0 kHz");
	bytes[0] = 0;
	cr_assert_not(hv_msg_decode(bytes, len, &back), "kind 0");
	bytes[0] = HV_MSG_KINDS;
	cr_assert_not(hv_msg_decode(bytes, len, &back), "kind too high");
}

Test(wire, noise_never_crashes)
{
	struct rng r = { 3 };
	unsigned good = 0;

	for (unsigned n = 0; n < 100000; n++) {
		uint8_t bytes[HV_MSG_BYTES_MAX];
		struct hv_msg back;
		size_t len = rng_below(&r, sizeof(bytes) + 1);

		for (size_t i = 0; i < len; i++)
			bytes[i] = (uint8_t)rng_next(&r);
		if (len)
			bytes[0] = (uint8_t)rng_below(&r, HV_MSG_KINDS + 1);
		good += hv_msg_decode(bytes, len, &back);
	}
	cr_assert_gt(good, 0);
	cr_assert_lt(good, 100000);
}
