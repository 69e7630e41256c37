/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/drive.c - steps the protocol core and performs its effects.
 *
 * What      Events come from users (REQUEST), the fabric (MESSAGE), mappings (UNMAPPED) and time (TIMER).  Each
 *           is one proto_step under dsm.lock, and its effects are performed in order before the next.
 * Owns      struct proto and its memory, the timers (timers.c), messages that the fabric pushed back (unsent.c).
 * Threads   Any; see dsm_priv.h for the lock.  Timers and pushed-back messages are looked after by whoever
 *           calls drive_poll: waiting users, else the net thread, which is woken when it sleeps too long.
 * Checksums Only where the user asks for them (dsm_config.checksums): CRC-32 of a page and of its message.
 * I/O       ic_send, under dsm.lock: it does not block.
 * Limits    Nothing is allocated after drive_open; timers.c and unsent.c say why what is there suffices.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "dsm/core/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

#define BUDGET 32 /* messages per poll */
#define EVICT_AT_ONCE 8
#define REQUESTS 128 /* in flight per node; half of them more than the 63 vCPUs of a node */
#define RESEND_NS (100 * NS_PER_US) /* how soon a pushed-back message is tried again */

/* Messages to one peer that leave together: up to BATCH bodies, a page only beside the last, and then perhaps its sum. */
#define SUM_BYTES 4u
#define BATCH ((IC_BODY_MAX - SUM_BYTES) / WIRE_MSG_BYTES)
struct batch {
	node_id to;
	uint16_t body_len;
	uint8_t body[BATCH * WIRE_MSG_BYTES + SUM_BYTES];
};

struct drive {
	struct proto proto;
	void *mem; /* of proto */
	size_t mem_bytes;
	/* All below: dsm.lock, unless atomic. */
	struct proto_effects fx;
	const void *data;     /* page of the message that is being stepped */
	struct waiter *asker; /* of the REQUEST that is being stepped */
	uint32_t *unmapped;   /* [flights]: UNMAPPED events to step next, oldest first */
	unsigned unmapped_count;
	uint32_t pin; /* to be pinned after the effects of this step; DIR_PAGE_NONE: none */
	struct timers timers;
	struct batch batch; /* empty between events */
	struct unsent unsent;
	_Atomic unsigned overrun; /* a peer that this node owes more than the rules allow, plus 1 */
	_Atomic uint64_t next_timer_ns; /* heap[0], UINT64_MAX when empty */
	_Atomic uint64_t net_until_ns;  /* net thread sleeps until; 0: awake */
	_Atomic unsigned pollers;
};

/* --- when ------------------------------------------------------------------------------------------------ */

uint64_t drive_next_due(struct dsm *d)
{
	struct drive *dr = d->drive;
	uint64_t due = atomic_load(&dr->next_timer_ns);

	if ((atomic_load(&dr->unsent.count) || atomic_load(&d->rehoming.active)) && due > clock_now_ns() + RESEND_NS)
		due = clock_now_ns() + RESEND_NS;
	return due;
}

void drive_net_sleeps(struct dsm *d, uint64_t until_ns)
{
	atomic_store(&d->drive->net_until_ns, until_ns);
}

void drive_poller_enter(struct dsm *d)
{
	if (!atomic_fetch_add(&d->drive->pollers, 1))
		ic_hush(d->fabric, true);
}

/*
 * Something is due before the net thread wakes, and no poller will see to it: wake it.  Sequentially consistent
 * against drive_net_sleeps followed by drive_next_due: one of the two sides sees the other.
 */
static void net_hurry(struct dsm *d)
{
	struct drive *dr = d->drive;
	uint64_t until = atomic_load(&dr->net_until_ns);

	if (until && drive_next_due(d) < until)
		ic_wake(d->fabric);
}

void drive_poller_leave(struct dsm *d)
{
	if (atomic_fetch_sub(&d->drive->pollers, 1) > 1)
		return;
	/* A hush of a poller that came just now may be undone by this: it costs a wake-up, no more. */
	ic_hush(d->fabric, false);
	net_hurry(d);
}

static void timer_arm(struct dsm *d, uint32_t page, uint64_t at_ns)
{
	struct drive *dr = d->drive;

	const struct proto_flight *fl = proto_flight_of(&dr->proto, page);

	ASSERT(fl); /* of the revocation that waits */
	timers_set(&dr->timers, (struct timer){ at_ns, page, (uint32_t)(fl - dr->proto.flight) });
	atomic_store(&dr->next_timer_ns, timers_next_ns(&dr->timers));
	if (!atomic_load(&dr->pollers))
		net_hurry(d);
}

/* --- sending ----------------------------------------------------------------------------------------- */

static int fabric_send(struct dsm *d, node_id to, const void *body, uint16_t body_len,
		       const void *data, uint16_t data_len)
{
	struct ic_msg msg = { .port = IC_PORT_DSM,
			      .body_len = body_len,
			      .data_len = data_len,
			      .body = body,
			      .data = data };

	return ic_send(d->fabric, to, &msg);
}

/* Under dsm.lock.  A peer that is down gets nothing: the VM is ending. */
static void unsent_flush(struct dsm *d)
{
	struct drive *dr = d->drive;
	struct ic_msg msg;

	for (unsigned n = 0; n < d->nodes && atomic_load(&dr->unsent.count); n++)
		while (unsent_first(&dr->unsent, (node_id)n, &msg)) {
			if (fabric_send(d, (node_id)n, msg.body, msg.body_len, msg.data, msg.data_len) == -EAGAIN)
				break;
			unsent_pop(&dr->unsent, (node_id)n);
		}
}

/* Of a page and of the message that it belongs to. */
static uint32_t page_sum(const uint8_t *message, const void *page)
{
	return (uint32_t)crc32(crc32(0, page, PAGE_SIZE), message, WIRE_MSG_BYTES);
}

/* `whole`: of another kind than the messages that can travel together. */
static void batch_leave(struct dsm *d, const void *data, uint16_t data_len, bool whole)
{
	struct drive *dr = d->drive;
	struct batch *b = &dr->batch;

	if (!b->body_len)
		return;
	if (data && d->checksums) {
		put_le32(b->body + b->body_len, page_sum(b->body + b->body_len - WIRE_MSG_BYTES, data));
		b->body_len += SUM_BYTES;
	}
	/* Order per peer: nothing overtakes what was pushed back before. */
	if ((drive_backed_up(d, b->to) ||
	     fabric_send(d, b->to, b->body, b->body_len, data, data_len) == -EAGAIN) &&
	    !unsent_add(&dr->unsent, b->to, b->body, b->body_len, data, whole))
		atomic_store(&dr->overrun, b->to + 1u);
	b->body_len = 0;
}

static void batch_send(struct dsm *d, const void *data, uint16_t data_len)
{
	batch_leave(d, data, data_len, false);
}

/* A page leaves at once, as it is now; other messages wait for company until the event is done. */
static void fx_send(struct dsm *d, const struct proto_effect *fx)
{
	struct batch *b = &d->drive->batch;

	if (b->body_len == BATCH * WIRE_MSG_BYTES || (b->body_len && b->to != fx->to))
		batch_send(d, NULL, 0);
	b->to = fx->to;
	wire_encode(&fx->msg, b->body + b->body_len);
	b->body_len += WIRE_MSG_BYTES;
	if (fx->msg.bytes != PROTO_BYTES_PAGE)
		return;
	count_one(&d->count.pages_sent);
	batch_send(d, frame_of(d, dir_gfn(&d->dir, fx->msg.page)), PAGE_SIZE);
}

void drive_send(struct dsm *d, node_id to, const void *body, uint16_t body_len, const void *page)
{
	struct batch *b = &d->drive->batch;

	batch_send(d, NULL, 0);
	b->to = to;
	memcpy(b->body, body, body_len);
	b->body_len = body_len;
	batch_leave(d, page, page ? PAGE_SIZE : 0, true);
}

bool drive_backed_up(const struct dsm *d, node_id to)
{
	return d->drive->unsent.to[to].count != 0;
}

/* --- effects ----------------------------------------------------------------------------------------- */

static void fx_fill(struct dsm *d, gfn_t gfn, uint32_t page)
{
	ASSERT(d->drive->data);
	memcpy(frame_of(d, gfn), d->drive->data, PAGE_SIZE);
	cache_filled(d, gfn, page);
	count_one(&d->count.pages_received);
}

static void fx_zero(struct dsm *d, gfn_t gfn)
{
	if (atomic_load_explicit(&d->state[gfn], memory_order_relaxed) & ST_BYTES)
		memset(frame_of(d, gfn), 0, PAGE_SIZE);
}

static void fx_map(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right)
{
	/* A page of zeros, too: its first touch makes the frame. */
	cache_filled(d, gfn, page);
	d->map->grant(d, gfn, right);
}

static void fx_unmap(struct dsm *d, gfn_t gfn, uint32_t page, enum dsm_right right)
{
	struct drive *dr = d->drive;

	if (d->map->revoke(d, gfn, page, right)) {
		ASSERT(dr->unmapped_count < dr->proto.flights);
		dr->unmapped[dr->unmapped_count++] = page;
	}
}

static void effect_perform(struct dsm *d, const struct proto_effect *fx)
{
	gfn_t gfn = fx->kind == PROTO_FX_SEND || fx->kind == PROTO_FX_ROOM ||
				    fx->kind == PROTO_FX_BUSY || fx->kind == PROTO_FX_REFUSED
			    ? 0
			    : dir_gfn(&d->dir, fx->page);

	switch (fx->kind) {
	case PROTO_FX_SEND:
		fx_send(d, fx);
		break;
	case PROTO_FX_FILL:
		fx_fill(d, gfn, fx->page);
		break;
	case PROTO_FX_ZERO:
		fx_zero(d, gfn);
		break;
	case PROTO_FX_MAP:
		fx_map(d, gfn, fx->page, fx->right);
		break;
	case PROTO_FX_UNMAP:
		fx_unmap(d, gfn, fx->page, fx->right);
		break;
	case PROTO_FX_WAKE:
		waiters_wake(d, fx->page, fx->right);
		break;
	case PROTO_FX_TIMER:
		timer_arm(d, fx->page, fx->at_ns);
		break;
	case PROTO_FX_DROP:
		cache_dropped(d, gfn);
		if (d->cache.limit)
			waiters_room(d);
		break;
	case PROTO_FX_BUSY:
		if (d->drive->asker) /* NULL: an EVICT, which is as well left for later */
			d->drive->asker->no_room = true;
		break;
	case PROTO_FX_ROOM:
		waiters_room(d);
		break;
	case PROTO_FX_REFUSED:
		count_one(&d->count.refused);
		break;
	default:
		ASSERT(!"known effect");
	}
}

static void step_one(struct dsm *d, struct proto_event *ev)
{
	struct drive *dr = d->drive;

	ev->now_ns = clock_now_ns();
	record_event(d, ev);
	proto_step(&dr->proto, ev, &dr->fx);
	for (unsigned i = 0; i < dr->fx.count; i++) {
		record_effect(d, ev->now_ns, &dr->fx.fx[i]);
		effect_perform(d, &dr->fx.fx[i]);
	}
	if (dr->pin != DIR_PAGE_NONE) {
		struct proto_event hold = { .kind = PROTO_EV_HOLD,
					    .page = dr->pin,
					    .until_ns = PROTO_HOLD_PINNED };

		dr->pin = DIR_PAGE_NONE;
		step_one(d, &hold);
	}
}

/* One event, and the UNMAPPED events of revocations that were complete at once. */
static void step(struct dsm *d, struct proto_event *ev)
{
	struct drive *dr = d->drive;

	d->serving = ev->kind == PROTO_EV_MESSAGE ? ev->from : d->self;
	step_one(d, ev);
	dr->data = NULL;
	dr->asker = NULL;
	for (unsigned i = 0; i < dr->unmapped_count; i++) {
		struct proto_event done = { .kind = PROTO_EV_UNMAPPED, .page = dr->unmapped[i] };

		step_one(d, &done);
	}
	dr->unmapped_count = 0;
}

/* The same, and what it had to say leaves.  For events that come alone. */
static void event(struct dsm *d, struct proto_event *ev)
{
	step(d, ev);
	batch_send(d, NULL, 0);
}

/* --- events ------------------------------------------------------------------------------------------ */

/* True when a request may go out.  False: frames are on their way out; DROP calls waiters_room. */
static bool cache_make_room(struct dsm *d)
{
	const struct proto *p = &d->drive->proto;
	bool none = false;

	/* Evictions leave half of the requests in flight to threads: what is evicted may wait for a page that is pinned for
	 * one of them (I10). */
	for (unsigned i = 0; cache_full(d) && i < EVICT_AT_ONCE && p->evicting < p->cfg.requests / 2; i++) {
		struct proto_event ev = { .kind = PROTO_EV_EVICT, .page = cache_victim(d) };

		none = ev.page == DIR_PAGE_NONE;
		if (none)
			break;
		step(d, &ev);
	}
	/* With nothing on its way out, and nothing that could be, there is nothing to wait for. */
	return !cache_full(d) || (none && !p->evicting);
}

void drive_request(struct dsm *d, struct waiter *w, unsigned retry)
{
	struct proto_event ev = { .kind = PROTO_EV_REQUEST,
				  .right = (uint8_t)w->right,
				  .retry = (uint8_t)retry,
				  .page = w->page };

	if (rehome_withholds(d, w) || !cache_make_room(d)) {
		w->no_room = true;
		batch_send(d, NULL, 0);
		return;
	}
	d->drive->asker = w;
	event(d, &ev);
}

void drive_pin(struct dsm *d, uint32_t page)
{
	ASSERT(d->drive->pin == DIR_PAGE_NONE || d->drive->pin == page); /* a step is about one page */
	d->drive->pin = page;
}

void drive_hold(struct dsm *d, uint32_t page, uint64_t until_ns)
{
	struct proto_event ev = { .kind = PROTO_EV_HOLD, .page = page, .until_ns = until_ns };

	event(d, &ev);
}

void map_revoked(struct dsm *d, uint32_t page)
{
	struct proto_event ev = { .kind = PROTO_EV_UNMAPPED, .page = page };

	/* While rights end for good, nothing else is in flight (I11). */
	if (d->rehoming.unmapping) {
		d->rehoming.unmapping--;
		return;
	}
	event(d, &ev);
}

struct proto *drive_proto(struct dsm *d)
{
	return &d->drive->proto;
}

void drive_evict(struct dsm *d, uint32_t page)
{
	struct proto_event ev = { .kind = PROTO_EV_EVICT, .page = page };

	event(d, &ev);
}

void drive_peer_lost(struct dsm *d, node_id peer)
{
	struct proto_event ev = { .kind = PROTO_EV_PEER_LOST, .from = peer };

	if (peer >= d->nodes || peer == d->self)
		return;
	dsm_lock(d);
	event(d, &ev);
	while (drive_backed_up(d, peer))
		unsent_pop(&d->drive->unsent, peer);
	dsm_unlock(d);
}

/* One message of a batch; `data` is the page beside it, if any. */
static void message_step(struct dsm *d, node_id from, const uint8_t *body, const void *data)
{
	struct proto_event ev = { .kind = PROTO_EV_MESSAGE, .from = from };

	if (!wire_decode(body, WIRE_MSG_BYTES, data ? PAGE_SIZE : 0, &ev.msg) ||
	    ev.msg.page >= d->dir.pages) {
		count_one(&d->count.refused);
		return;
	}
	if (ev.msg.kind == PROTO_INV || ev.msg.kind == PROTO_FWD_WRITE)
		count_one(&d->count.invalidations_received);
	d->drive->data = data;
	step(d, &ev);
}

/* Which page a damaged message was about, if that part of it can be believed. */
static gfn_t damaged_gfn(const struct dsm *d, const uint8_t *message)
{
	struct proto_msg m;

	return wire_decode(message, WIRE_MSG_BYTES, PAGE_SIZE, &m) && m.page < d->dir.pages ? dir_gfn(&d->dir, m.page) :
											       0;
}

static void on_message(void *arg, node_id from, const struct ic_msg *msg)
{
	struct dsm *d = arg;
	const uint8_t *body = msg->body, *last;
	unsigned sum = d->checksums && msg->data_len ? SUM_BYTES : 0;

	if (msg->body_len <= sum || (msg->body_len - sum) % WIRE_MSG_BYTES ||
	    (msg->data_len && msg->data_len != PAGE_SIZE)) {
		count_one(&d->count.refused);
		return;
	}
	last = body + msg->body_len - sum - WIRE_MSG_BYTES;
	if (sum && get_le32(last + WIRE_MSG_BYTES) != page_sum(last, msg->data)) {
		d->on_damage(d->damage_arg, from, damaged_gfn(d, last));
		return;
	}
	dsm_lock(d);
	if (body[0] == REHOME_WIRE)
		rehome_message(d, from, body, msg->body_len - sum, msg->data_len ? msg->data : NULL);
	else
		for (; body <= last; body += WIRE_MSG_BYTES)
			message_step(d, from, body, body == last && msg->data_len ? msg->data : NULL);
	batch_send(d, NULL, 0);
	if (atomic_load_explicit(&d->rehoming.active, memory_order_relaxed))
		rehome_pump(d);
	dsm_unlock(d);
}

/* Under dsm.lock. */
static void timers_fire(struct dsm *d)
{
	struct drive *dr = d->drive;
	uint64_t now = clock_now_ns();

	while (timers_next_ns(&dr->timers) <= now) {
		struct timer t = timers_pop(&dr->timers);
		struct proto_event ev = { .kind = PROTO_EV_TIMER, .page = t.page };

		step(d, &ev);
	}
	batch_send(d, NULL, 0);
	atomic_store(&dr->next_timer_ns, timers_next_ns(&dr->timers));
}

/* No honest peer gets here (unsent.c). */
static void overrun_end(struct dsm *d)
{
	unsigned peer = atomic_exchange(&d->drive->overrun, 0);

	if (!peer)
		return;
	log_error("dsm: node %u asked for more than it may, and does not take it", peer - 1);
	dsm_peer_lost(d, (node_id)(peer - 1));
}

bool drive_poll(struct dsm *d)
{
	struct drive *dr = d->drive;
	int delivered = ic_progress(d->fabric, BUDGET);
	uint64_t due = atomic_load_explicit(&dr->next_timer_ns, memory_order_relaxed);
	uint64_t now = clock_now_ns();
	bool fire = due <= now;
	bool rehoming = atomic_load_explicit(&d->rehoming.active, memory_order_relaxed);

	if (delivered > 0)
		atomic_store_explicit(&d->traffic_ns, now, memory_order_relaxed);
	if (fire || rehoming || atomic_load_explicit(&dr->unsent.count, memory_order_relaxed)) {
		dsm_lock(d);
		timers_fire(d);
		unsent_flush(d);
		if (rehoming)
			fire |= rehome_pump(d);
		dsm_unlock(d);
		if (rehoming && atomic_exchange(&d->rehoming.broken, false))
			dsm_stop(d);
	}
	if (atomic_load_explicit(&dr->overrun, memory_order_relaxed))
		overrun_end(d);
	return fire || delivered > 0;
}

/* --- open and close ---------------------------------------------------------------------------------- */

unsigned drive_flights(const struct dsm *d)
{
	return d->drive ? d->drive->proto.flights : 0;
}

int drive_open(struct dsm *d, const struct dsm_config *cfg)
{
	struct proto_config pc = { .self = cfg->self, .nodes = cfg->nodes, .dir = d->homes };
	struct drive *dr = calloc(1, sizeof(*dr));

	if (!dr)
		return -ENOMEM;
	proto_config_default(&pc);
	pc.requests = REQUESTS;
	dr->mem_bytes = proto_bytes(&pc);
	if (!dr->mem_bytes) {
		free(dr);
		return -EINVAL;
	}
	dr->mem = mmap(NULL, dr->mem_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (dr->mem == MAP_FAILED) {
		free(dr);
		return -ENOMEM;
	}
	proto_init(&dr->proto, &pc, dr->mem);
	dr->next_timer_ns = UINT64_MAX;
	dr->pin = DIR_PAGE_NONE;
	dr->unmapped = calloc(dr->proto.flights, sizeof(*dr->unmapped));
	d->drive = dr; /* from here drive_close undoes it */
	if (timers_open(&dr->timers, dr->proto.flights + 1) || !dr->unmapped ||
	    unsent_open(&dr->unsent, cfg->nodes, pc.requests))
		return -ENOMEM;
	ic_set_handler(d->fabric, IC_PORT_DSM, (struct ic_handler){ on_message, d });
	return 0;
}

void drive_close(struct dsm *d)
{
	struct drive *dr = d->drive;

	ic_set_handler(d->fabric, IC_PORT_DSM, (struct ic_handler){ NULL, NULL });
	unsent_close(&dr->unsent);
	munmap(dr->mem, dr->mem_bytes);
	free(dr->unmapped);
	timers_close(&dr->timers);
	free(dr);
	d->drive = NULL;
}
