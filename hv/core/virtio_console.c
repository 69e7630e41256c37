/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/virtio_console.c - console; see virtio_console.h.  Pure.
 *
 * Spec: VIRTIO 1.2, 5.3.4 (configuration), 5.3.6 (operation).
 */
#include "hv/core/virtio_console.h"

#include "base/bytes.h"

#define F_SIZE (1ull << 0)

const struct hv_virtio_type hv_virtio_console_type = {
	.device_id = HV_VIRTIO_CONSOLE,
	.queues_count = 2,
	.queue_max = 64,
	.config_len = 12, /* cols, rows, max_nr_ports, emerg_wr */
	.features = F_SIZE,
};

void hv_virtio_console_init(struct hv_virtio_console *c, uint16_t cols, uint16_t rows)
{
	*c = (struct hv_virtio_console){ 0 };
	hv_virtio_mmio_init(&c->mmio, &hv_virtio_console_type, 0);
	put_le16(c->mmio.config, cols);
	put_le16(c->mmio.config + 2, rows);
	put_le32(c->mmio.config + 4, 1);
}

void hv_virtio_console_reset(struct hv_virtio_console *c)
{
	c->tx_busy = false;
	c->tx_off = 0;
}

static struct hv_console_result broke(struct hv_virtio_console *c, size_t bytes)
{
	return (struct hv_console_result){ .bytes = bytes,
					   .irq = hv_virtio_mmio_break(&c->mmio),
					   .broken = true };
}

/* After `pushed` buffers of queue q: the result, with an interrupt when the driver wants one. */
static struct hv_console_result finish(struct hv_virtio_console *c, unsigned q,
				       const struct hv_guest_mem *mem, size_t bytes, bool pushed)
{
	struct hv_console_result r = { .bytes = bytes };

	if (pushed && hv_virtq_wants_irq(&c->mmio.queue[q], mem)) {
		hv_virtio_mmio_interrupt(&c->mmio);
		r.irq = true;
	}
	return c->mmio.queue[q].broken ? broke(c, bytes) : r;
}

struct hv_console_result hv_virtio_console_output(struct hv_virtio_console *c,
						  const struct hv_guest_mem *mem, uint8_t *buf,
						  size_t cap)
{
	struct hv_virtq *q = &c->mmio.queue[HV_CONSOLE_TX];
	size_t done = 0;
	bool pushed = false, bad;

	if (!hv_virtio_mmio_running(&c->mmio))
		return (struct hv_console_result){ 0 };
	while (done < cap) {
		if (!c->tx_busy) {
			enum hv_virtq_pop p = hv_virtq_pop(q, mem, &c->tx);

			if (p == HV_VIRTQ_BROKEN)
				return broke(c, done);
			if (p == HV_VIRTQ_EMPTY)
				break;
			if (!c->tx.read_bytes)
				return broke(
					c, done); /* 5.3.6: and each turn of the loop must get on */
			c->tx_busy = true;
			c->tx_off = 0;
		}
		size_t n =
			hv_virtq_chain_read(&c->tx, mem, c->tx_off, buf + done, cap - done, &bad);

		if (bad)
			return broke(c, done);
		done += n;
		c->tx_off += n;
		if (c->tx_off < c->tx.read_bytes)
			break; /* the caller's buffer is full */
		c->tx_busy = false;
		if (!hv_virtq_push(q, mem, c->tx.head, 0))
			return broke(c, done);
		pushed = true;
	}
	return finish(c, HV_CONSOLE_TX, mem, done, pushed);
}

struct hv_console_result hv_virtio_console_input(struct hv_virtio_console *c,
						 const struct hv_guest_mem *mem, const uint8_t *buf,
						 size_t len)
{
	struct hv_virtq *q = &c->mmio.queue[HV_CONSOLE_RX];
	struct hv_virtq_chain chain;
	size_t done = 0;
	bool pushed = false, bad;

	if (!hv_virtio_mmio_running(&c->mmio))
		return (struct hv_console_result){ 0 };
	while (done < len) {
		enum hv_virtq_pop p = hv_virtq_pop(q, mem, &chain);
		size_t n;

		if (p == HV_VIRTQ_BROKEN)
			return broke(c, done);
		if (p == HV_VIRTQ_EMPTY)
			break;
		n = hv_virtq_chain_write(&chain, mem, 0, buf + done, len - done, &bad);
		if (bad || !n || !hv_virtq_push(q, mem, chain.head, (uint32_t)n))
			return broke(c, done);
		done += n;
		pushed = true;
	}
	return finish(c, HV_CONSOLE_RX, mem, done, pushed);
}
