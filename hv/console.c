/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c - bytes between the terminal and the slice's console devices, in two bounded rings.
 *
 * Threads   Devices put and peek, the program types, the io thread flushes to the sink.
 * Limits    HV_CONSOLE_RING bytes each way.  Output that does not fit is dropped and counted (the serial port has
 *           no way to wait; the virtio console asks for room first); so is input.
 */
#include "hv/slice_priv.h"

static size_t ring_used(const struct hv_ring *r)
{
	return r->head - r->tail;
}

static size_t ring_put(struct hv_ring *r, const uint8_t *data, size_t len)
{
	size_t n = 0;

	while (n < len && ring_used(r) < HV_CONSOLE_RING)
		r->data[r->head++ % HV_CONSOLE_RING] = data[n++];
	return n;
}

/* Oldest bytes, left in. */
static size_t ring_peek(const struct hv_ring *r, uint8_t *buf, size_t cap)
{
	size_t n = 0;

	for (uint32_t at = r->tail; at != r->head && n < cap; at++)
		buf[n++] = r->data[at % HV_CONSOLE_RING];
	return n;
}

void hv_console_init(struct hv_console *c)
{
	pthread_mutex_init(&c->lock, NULL);
}

size_t hv_console_put(struct hv_slice *s, const uint8_t *data, size_t len)
{
	struct hv_console *c = &s->console;
	size_t n;

	pthread_mutex_lock(&c->lock);
	n = ring_put(&c->out, data, len);
	c->dropped += len - n;
	pthread_mutex_unlock(&c->lock);
	hv_io_wake(s);
	return n;
}

size_t hv_console_room(struct hv_slice *s)
{
	size_t n;

	pthread_mutex_lock(&s->console.lock);
	n = HV_CONSOLE_RING - ring_used(&s->console.out);
	pthread_mutex_unlock(&s->console.lock);
	return n;
}

void hv_console_type(struct hv_slice *s, const uint8_t *data, size_t len)
{
	pthread_mutex_lock(&s->console.lock);
	ring_put(&s->console.in, data, len);
	pthread_mutex_unlock(&s->console.lock);
	for (unsigned i = 0; i < s->virtio_slots; i++)
		if (s->virtio[i] && s->virtio[i]->backend == &hv_backend_console)
			hv_virtio_work(s->virtio[i]);
	hv_io_wake(s);
}

size_t hv_console_peek(struct hv_slice *s, uint8_t *buf, size_t cap)
{
	size_t n;

	pthread_mutex_lock(&s->console.lock);
	n = ring_peek(&s->console.in, buf, cap);
	pthread_mutex_unlock(&s->console.lock);
	return n;
}

void hv_console_taken(struct hv_slice *s, size_t len)
{
	pthread_mutex_lock(&s->console.lock);
	s->console.in.tail += (uint32_t)len;
	pthread_mutex_unlock(&s->console.lock);
}

void hv_console_flush(struct hv_slice *s)
{
	struct hv_console *c = &s->console;
	uint8_t buf[8192];

	for (;;) {
		size_t n;

		pthread_mutex_lock(&c->lock);
		n = ring_peek(&c->out, buf, sizeof(buf));
		c->out.tail += (uint32_t)n;
		pthread_mutex_unlock(&c->lock);
		if (!n)
			return;
		if (!c->any)
			hv_slice_progress(s, "first console output");
		c->any = true;
		s->sink.console(s->sink.arg, buf, n);
	}
}
