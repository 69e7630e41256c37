/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/pit.c - 8254; see pit.h.  Pure: counts follow from the time that is passed in.
 */
#include "hv/core/pit.h"

#define PORT_CHANNEL 0x40
#define PORT_CONTROL 0x43
#define PORT_B 0x61

#define B_GATE2 0x01
#define B_SPEAKER 0x02
#define B_REFRESH 0x10 /* toggles every 15 us on a PC */
#define B_OUT2 0x20

#define READ_BACK 3
#define NS_PER_S 1000000000ull
#define REFRESH_NS 15085u

static uint64_t ticks_between(uint64_t start_ns, uint64_t now_ns)
{
	uint64_t ns = now_ns > start_ns ? now_ns - start_ns : 0;

	/* Split, so that years of uptime do not overflow. */
	return ns / NS_PER_S * HV_PIT_HZ + ns % NS_PER_S * HV_PIT_HZ / NS_PER_S;
}

static bool is_periodic(const struct hv_pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 are started by a rising gate; in the others a low gate stops the count. */
static bool gate_starts(const struct hv_pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

static uint16_t count_at(const struct hv_pit_channel *c, uint64_t now_ns)
{
	uint64_t ticks;

	if (!c->counting)
		return 0;
	if (!c->gate && !gate_starts(c))
		return (uint16_t)c->held;
	ticks = ticks_between(c->start_ns, now_ns);
	if (c->mode == 3) { /* counts down by two, twice per period */
		uint32_t half = (uint32_t)(ticks * 2 % c->reload);

		return (uint16_t)((c->reload - half) & ~1u);
	}
	if (is_periodic(c))
		return (uint16_t)(c->reload - ticks % c->reload);
	return (uint16_t)(c->reload - ticks); /* goes on through 0 to 0xffff */
}

static bool out_at(const struct hv_pit_channel *c, uint64_t now_ns)
{
	uint64_t ticks;

	if (!c->counting)
		return c->mode != 0;
	ticks = ticks_between(c->start_ns, now_ns);
	if (!c->gate && !gate_starts(c)) {
		if (is_periodic(c))
			return true;
		ticks = c->reload - c->held;
	}
	switch (c->mode) {
	case 0:
	case 1:
		return ticks >= c->reload;
	case 3:
		return ticks % c->reload < (c->reload + 1) / 2;
	default: /* low for one tick at the end */
		return (is_periodic(c) ? ticks % c->reload + 1 : ticks) != c->reload;
	}
}

void hv_pit_init(struct hv_pit *p)
{
	*p = (struct hv_pit){ 0 };
	for (unsigned k = 0; k < 3; k++) {
		p->ch[k].access = 3;
		p->ch[k].gate = k != 2;
	}
}

bool hv_pit_has_port(uint16_t port)
{
	return (port >= PORT_CHANNEL && port <= PORT_CONTROL) || port == PORT_B;
}

static void load(struct hv_pit_channel *c, uint16_t count, uint64_t now_ns)
{
	c->reload = count ? count : 0x10000;
	c->counting = true;
	c->start_ns = now_ns;
	c->held = c->reload;
}

static void channel_write(struct hv_pit_channel *c, uint8_t v, uint64_t now_ns)
{
	switch (c->access) {
	case 1:
		load(c, v, now_ns);
		break;
	case 2:
		load(c, (uint16_t)(v << 8), now_ns);
		break;
	default:
		if (c->write_high) {
			load(c, (uint16_t)(v << 8 | c->write_lsb), now_ns);
		} else {
			c->write_lsb = v;
			if (c->mode == 0)
				c->counting = false; /* the first byte stops a mode 0 count */
		}
		c->write_high = !c->write_high;
		break;
	}
}

static uint8_t channel_read(struct hv_pit_channel *c, uint64_t now_ns)
{
	uint16_t v;
	bool high;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	v = c->latched ? c->latch : count_at(c, now_ns);
	high = c->access == 2 || (c->access == 3 && c->read_high);
	if (c->access == 3)
		c->read_high = !c->read_high;
	if (c->access != 3 || high)
		c->latched = false;
	return (uint8_t)(high ? v >> 8 : v);
}

static void latch_count(struct hv_pit_channel *c, uint64_t now_ns)
{
	if (c->latched)
		return;
	c->latch = count_at(c, now_ns);
	c->latched = true;
}

static void latch_status(struct hv_pit_channel *c, uint64_t now_ns)
{
	if (c->status_latched)
		return;
	c->status = (uint8_t)(out_at(c, now_ns) << 7 | !c->counting << 6 | c->access << 4 |
			      c->mode << 1);
	c->status_latched = true;
}

static void control_write(struct hv_pit *p, uint8_t v, uint64_t now_ns)
{
	unsigned which = v >> 6, access = (v >> 4) & 3, mode = (v >> 1) & 7;
	struct hv_pit_channel *c;

	if (which == READ_BACK) {
		for (unsigned k = 0; k < 3; k++) {
			if (!(v & (2u << k)))
				continue;
			if (!(v & 0x20))
				latch_count(&p->ch[k], now_ns);
			if (!(v & 0x10))
				latch_status(&p->ch[k], now_ns);
		}
		return;
	}
	c = &p->ch[which];
	if (!access) {
		latch_count(c, now_ns);
		return;
	}
	*c = (struct hv_pit_channel){ .access = (uint8_t)access, .gate = c->gate };
	c->mode = (uint8_t)(mode > 5 ? mode - 4 : mode); /* 6 and 7 are 2 and 3 */
}

static void gate_write(struct hv_pit_channel *c, bool gate, uint64_t now_ns)
{
	if (gate == c->gate)
		return;
	if (!gate) {
		c->held = count_at(c, now_ns);
		if (!c->held && c->counting)
			c->held = c->reload;
	} else if (gate_starts(c) || is_periodic(c)) {
		c->start_ns = now_ns; /* a rising gate starts these anew */
	} else {
		/* Goes on where it was held; rounded up, so that no tick is counted twice. */
		c->start_ns =
			now_ns - ((c->reload - c->held) * NS_PER_S + HV_PIT_HZ - 1) / HV_PIT_HZ;
	}
	c->gate = gate;
}

uint8_t hv_pit_read(struct hv_pit *p, uint16_t port, uint64_t now_ns)
{
	if (port == PORT_B)
		return (p->ch[2].gate ? B_GATE2 : 0) | (p->speaker ? B_SPEAKER : 0) |
		       (now_ns / REFRESH_NS % 2 ? B_REFRESH : 0) |
		       (out_at(&p->ch[2], now_ns) ? B_OUT2 : 0);
	if (port == PORT_CONTROL)
		return 0xff;
	return channel_read(&p->ch[(port - PORT_CHANNEL) & 3], now_ns);
}

void hv_pit_write(struct hv_pit *p, uint16_t port, uint8_t value, uint64_t now_ns)
{
	if (port == PORT_B) {
		gate_write(&p->ch[2], value & B_GATE2, now_ns);
		p->speaker = value & B_SPEAKER;
	} else if (port == PORT_CONTROL) {
		control_write(p, value, now_ns);
	} else {
		channel_write(&p->ch[(port - PORT_CHANNEL) & 3], value, now_ns);
	}
}
