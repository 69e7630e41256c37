/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.c - device accesses on their way: from a vCPU to the device, wherever that lives.
 *
 * What      Every node knows every region and the node behind it.  A local access takes the device's lock and calls it; an
 *           access to another node is a message, and the vCPU waits for its answer (writes too: device accesses
 *           of one vCPU keep their order that way).  Nothing there: reads give all ones, writes vanish.
 * Threads   vCPU threads ask.  Requests of peers are served inside ic_progress when the device is free, else by
 *           the io thread.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/clock.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct hv_bus_request {
	struct hv_bus_request *next;
	node_id from;
	struct hv_msg msg;
};

void hv_bus_init(struct hv_slice *s)
{
	pthread_mutex_init(&s->bus.lock, NULL);
	s->bus.tail = &s->bus.head;
}

void hv_bus_fini(struct hv_slice *s)
{
	while (s->bus.head) {
		struct hv_bus_request *r = s->bus.head;

		s->bus.head = r->next;
		free(r);
	}
	pthread_mutex_destroy(&s->bus.lock);
}

void hv_device_init(struct hv_device *d, struct hv_slice *s, const struct hv_device_ops *ops)
{
	d->ops = ops;
	d->slice = s;
	pthread_mutex_init(&d->lock, NULL);
}

void hv_bus_add(struct hv_slice *s, enum hv_io_space space, uint64_t first, uint64_t count,
		node_id node, struct hv_device *device)
{
	ASSERT(s->bus.regions < HV_REGIONS_MAX);
	s->bus.region[s->bus.regions++] = (struct hv_region){
		.space = space, .first = first, .count = count, .node = node, .device = device
	};
}

static const struct hv_region *find(struct hv_slice *s, enum hv_io_space space, uint64_t addr)
{
	for (unsigned i = 0; i < s->bus.regions; i++) {
		const struct hv_region *r = &s->bus.region[i];

		if (r->space == space && addr - r->first < r->count)
			return r;
	}
	return NULL;
}

static uint64_t ones(unsigned size)
{
	return size == 8 ? ~0ull : (1ull << (8 * size)) - 1;
}

/* Under the device's lock. */
static uint64_t call(const struct hv_region *r, uint64_t addr, unsigned size, bool write,
		     uint64_t data)
{
	if (!write)
		return r->device->ops->read(r->device, addr, size) & ones(size);
	r->device->ops->write(r->device, addr, size, data);
	return 0;
}

static bool call_fast(const struct hv_region *r, uint64_t addr, unsigned size, bool write,
		      uint64_t data)
{
	const struct hv_device_ops *ops = r->device->ops;

	return write && ops->write_fast && ops->write_fast(r->device, addr, size, data);
}

/* --- to another node ------------------------------------------------------------------------------------------ */

static int access_remote(struct hv_cpu *c, const struct hv_region *r, uint64_t addr, unsigned size,
			 bool write, uint64_t *data)
{
	struct hv_slice *s = c->slice;
	struct hv_msg m = { .kind = HV_MSG_IO };
	uint32_t seq = ++c->io_seq;

	m.io.id = (uint64_t)c->id << 32 | seq;
	m.io.space = r->space;
	m.io.write = write;
	m.io.size = (uint8_t)size;
	m.io.addr = addr;
	m.io.data = write ? *data : 0;
	hv_count(&s->bus.remote);
	hv_link_send(s, r->node, &m);
	for (;;) {
		uint32_t done = atomic_load(&c->io_word);
		struct timespec tick = { .tv_nsec = 100 * NS_PER_MS };

		if (done == seq)
			break;
		if (hv_slice_ending(s)) /* every loss of a peer ends here too */
			return -EPIPE;
		syscall(SYS_futex, &c->io_word, FUTEX_WAIT_PRIVATE, done, &tick, NULL, 0);
	}
	if (!write)
		*data = atomic_load(&c->io_data) & ones(size);
	return 0;
}

static void answered(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	uint64_t vcpu = msg->io_done.id >> 32;
	struct hv_cpu *c = vcpu < VCPUS_MAX ? s->cpu[vcpu] : NULL;

	(void)from;
	/* One request at a time: only the next id is awaited. */
	if (!c || (uint32_t)msg->io_done.id != atomic_load(&c->io_word) + 1) {
		hv_count(&s->refused);
		return;
	}
	atomic_store(&c->io_data, msg->io_done.data);
	atomic_store(&c->io_word, (uint32_t)msg->io_done.id);
	syscall(SYS_futex, &c->io_word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* --- for another node ----------------------------------------------------------------------------------------- */

static void answer(struct hv_slice *s, node_id to, uint64_t id, uint64_t data)
{
	struct hv_msg m = { .kind = HV_MSG_IO_DONE, .io_done = { .id = id, .data = data } };

	hv_link_send(s, to, &m);
}

static void defer(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	struct hv_bus_request *r = malloc(sizeof(*r));

	if (!r) {
		hv_slice_end(s, CC_END_ERROR, s->spec->self, NULL, "out of memory");
		return;
	}
	*r = (struct hv_bus_request){ .from = from, .msg = *msg };
	pthread_mutex_lock(&s->bus.lock);
	*s->bus.tail = r;
	s->bus.tail = &r->next;
	pthread_mutex_unlock(&s->bus.lock);
	hv_io_wake(s);
}

void hv_bus_on_message(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	const struct hv_region *r;

	if (msg->kind == HV_MSG_IO_DONE) {
		answered(s, from, msg);
		return;
	}
	r = find(s, msg->io.space, msg->io.addr);
	if (!r || !r->device) {
		hv_count(&s->refused);
		return;
	}
	if (call_fast(r, msg->io.addr, msg->io.size, msg->io.write, msg->io.data)) {
		answer(s, from, msg->io.id, 0);
	} else if (!pthread_mutex_trylock(&r->device->lock)) {
		uint64_t data = call(r, msg->io.addr, msg->io.size, msg->io.write, msg->io.data);

		pthread_mutex_unlock(&r->device->lock);
		answer(s, from, msg->io.id, data);
	} else {
		defer(s, from,
		      msg); /* its holder may wait for memory, hence for this very thread */
	}
}

void hv_bus_serve(struct hv_slice *s)
{
	for (;;) {
		struct hv_bus_request *r;
		const struct hv_region *g;
		uint64_t data;

		pthread_mutex_lock(&s->bus.lock);
		r = s->bus.head;
		if (r && !(s->bus.head = r->next))
			s->bus.tail = &s->bus.head;
		pthread_mutex_unlock(&s->bus.lock);
		if (!r)
			return;
		g = find(s, r->msg.io.space, r->msg.io.addr);
		pthread_mutex_lock(&g->device->lock);
		data = call(g, r->msg.io.addr, r->msg.io.size, r->msg.io.write, r->msg.io.data);
		pthread_mutex_unlock(&g->device->lock);
		answer(s, r->from, r->msg.io.id, data);
		free(r);
	}
}

/* --------------------------------------------------------------------------------------------------------------- */

int hv_bus_access(struct hv_cpu *c, enum hv_io_space space, uint64_t addr, unsigned size,
		  bool write, uint64_t *data)
{
	const struct hv_region *r = find(c->slice, space, addr);
	uint64_t answer_data;

	if (!r) {
		if (!write)
			*data = ones(size);
		return 0;
	}
	if (!r->device)
		return access_remote(c, r, addr, size, write, data);
	if (call_fast(r, addr, size, write, *data))
		return 0;
	pthread_mutex_lock(&r->device->lock);
	answer_data = call(r, addr, size, write, write ? *data : 0);
	pthread_mutex_unlock(&r->device->lock);
	if (!write)
		*data = answer_data;
	return 0;
}
