/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - codec of hv/wire.h.  Pure. */
#include "hv/wire.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "hv/core/ioapic.h"

static bool reader_bool(struct reader *r)
{
	uint8_t v = reader_u8(r);

	if (v > 1)
		r->bad = true;
	return v == 1;
}

unsigned hv_msg_encode(const struct hv_msg *m, uint8_t out[static HV_MSG_BYTES_MAX])
{
	struct writer w = { out, out + HV_MSG_BYTES_MAX, false };

	writer_u8(&w, (uint8_t)m->kind);
	switch (m->kind) {
	case HV_MSG_IPI:
		writer_u8(&w, m->ipi.mode);
		writer_u8(&w, m->ipi.vector);
		writer_u8(&w, m->ipi.level);
		for (unsigned i = 0; i < 4; i++)
			writer_u64(&w, m->ipi.to.w[i]);
		break;
	case HV_MSG_ADDR:
		writer_u8(&w, m->addr.vcpu);
		writer_u32(&w, m->addr.seq);
		writer_u32(&w, m->addr.addr.id);
		writer_u32(&w, m->addr.addr.ldr);
		writer_u8(&w, m->addr.addr.enabled);
		writer_u8(&w, m->addr.addr.x2apic);
		writer_u8(&w, m->addr.addr.flat);
		break;
	case HV_MSG_PULSE:
		writer_u8(&w, m->pulse.gsi);
		break;
	case HV_MSG_EOI:
		writer_u8(&w, m->eoi.vector);
		break;
	case HV_MSG_IO:
		writer_u64(&w, m->io.id);
		writer_u8(&w, (uint8_t)m->io.space);
		writer_u8(&w, m->io.write);
		writer_u8(&w, m->io.size);
		writer_u64(&w, m->io.addr);
		writer_u64(&w, m->io.data);
		break;
	case HV_MSG_IO_DONE:
		writer_u64(&w, m->io_done.id);
		writer_u64(&w, m->io_done.data);
		break;
	case HV_MSG_PROBE:
		writer_u32(&w, m->probe.seq);
		break;
	case HV_MSG_CLOCK:
		writer_u32(&w, m->clock.seq);
		writer_u64(&w, m->clock.tsc_khz);
		writer_u64(&w, m->clock.guest_tsc);
		writer_u64(&w, m->clock.offset);
		writer_bytes(&w, m->clock.boot_id, sizeof(m->clock.boot_id));
		break;
	case HV_MSG_BALANCE:
		writer_u8(&w, m->balance.on);
		break;
	case HV_MSG_LEAVE:
		writer_u8(&w, m->leave.on);
		break;
	case HV_MSG_LOAD:
		writer_u8(&w, m->load.vcpu);
		writer_u8(&w, m->load.from);
		writer_u32(&w, m->load.busy_us);
		writer_u32(&w, m->load.waits);
		writer_u32(&w, m->load.reads);
		writer_u32(&w, m->load.bounced);
		writer_u32(&w, m->load.us);
		break;
	case HV_MSG_NODE:
		writer_u8(&w, m->node.leaving);
		writer_u16(&w, m->node.cpus);
		writer_u16(&w, m->node.load);
		writer_u64(&w, m->node.host);
		break;
	case HV_MSG_KINDS:
		break;
	}
	ASSERT(!w.bad && w.p - out > 1);
	return (unsigned)(w.p - out);
}

/* How vCPUs and nodes fare.  False: no such kind, or values out of range. */
static bool placement_decode(struct reader *r, struct hv_msg *m)
{
	switch (m->kind) {
	case HV_MSG_BALANCE:
		m->balance.on = reader_bool(r);
		break;
	case HV_MSG_LEAVE:
		m->leave.on = reader_bool(r);
		break;
	case HV_MSG_LOAD:
		m->load.vcpu = reader_u8(r);
		m->load.from = reader_u8(r);
		m->load.busy_us = reader_u32(r);
		m->load.waits = reader_u32(r);
		m->load.reads = reader_u32(r);
		m->load.bounced = reader_u32(r);
		m->load.us = reader_u32(r);
		break;
	case HV_MSG_NODE:
		m->node.leaving = reader_bool(r);
		m->node.cpus = reader_u16(r);
		m->node.load = reader_u16(r);
		m->node.host = reader_u64(r);
		return m->node.cpus != 0;
	default:
		return false;
	}
	return true;
}

bool hv_msg_decode(const void *body, size_t len, struct hv_msg *m)
{
	const uint8_t *p = body;
	struct reader r = { p, p + len, false };
	bool good = true;

	*m = (struct hv_msg){ .kind = reader_u8(&r) };
	switch (m->kind) {
	case HV_MSG_IPI:
		m->ipi.mode = reader_u8(&r);
		m->ipi.vector = reader_u8(&r);
		m->ipi.level = reader_bool(&r);
		for (unsigned i = 0; i < 4; i++)
			m->ipi.to.w[i] = reader_u64(&r);
		good = m->ipi.mode < 8;
		break;
	case HV_MSG_ADDR:
		m->addr.vcpu = reader_u8(&r);
		m->addr.seq = reader_u32(&r);
		m->addr.addr.id = reader_u32(&r);
		m->addr.addr.ldr = reader_u32(&r);
		m->addr.addr.enabled = reader_bool(&r);
		m->addr.addr.x2apic = reader_bool(&r);
		m->addr.addr.flat = reader_bool(&r);
		break;
	case HV_MSG_PULSE:
		m->pulse.gsi = reader_u8(&r);
		good = m->pulse.gsi < HV_IOAPIC_PINS;
		break;
	case HV_MSG_EOI:
		m->eoi.vector = reader_u8(&r);
		break;
	case HV_MSG_IO:
		m->io.id = reader_u64(&r);
		m->io.space = reader_u8(&r);
		m->io.write = reader_bool(&r);
		m->io.size = reader_u8(&r);
		m->io.addr = reader_u64(&r);
		m->io.data = reader_u64(&r);
		good = m->io.space < HV_IO_SPACES &&
		       (m->io.size == 1 || m->io.size == 2 || m->io.size == 4 || m->io.size == 8);
		break;
	case HV_MSG_IO_DONE:
		m->io_done.id = reader_u64(&r);
		m->io_done.data = reader_u64(&r);
		break;
	case HV_MSG_PROBE:
		m->probe.seq = reader_u32(&r);
		break;
	case HV_MSG_CLOCK:
		m->clock.seq = reader_u32(&r);
		m->clock.tsc_khz = reader_u64(&r);
		m->clock.guest_tsc = reader_u64(&r);
		m->clock.offset = reader_u64(&r);
		reader_bytes(&r, m->clock.boot_id, sizeof(m->clock.boot_id));
		good = m->clock.tsc_khz != 0;
		break;
	default:
		good = placement_decode(&r, m);
	}
	return good && !r.bad && r.p == r.end;
}
