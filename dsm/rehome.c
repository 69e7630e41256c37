/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/rehome.c - a node leaves the memory while the VM runs, or comes back: dsm_drain, dsm_join.
 *
 * What      Drives core/rehome.h: freezes what threads ask for, sends and takes directory entries with their pages, changes
 *           the table of homes.  A node that leaves first gives back what it holds of others' pages, while all run.
 * Owns      struct rehoming, the tables of homes after the first, home[] and copyset[] of the core from then on.
 * Threads   dsm_drain, dsm_join: one at a time, on node 0; they sleep and look.  Everything else happens under dsm.lock in
 *           rehome_pump, which whoever drives the fabric calls.
 * I/O       Messages; memory of a node that left is given back.
 * Limits    From the freeze on a switch cannot be called off, and loss of a node in it ends the VM.
 */
#include "dsm/dsm_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LOOK_US 100u	/* how often a waiting dsm_drain looks */
#define AT_ONCE 64u	/* pages of one kind of work before the lock is given to others */
#define SCAN (64 * AT_ONCE) /* pages looked at meanwhile */

static void say(struct dsm *d, node_id to, const struct rehome_msg *m, const void *data)
{
	uint8_t body[REHOME_MSG_BYTES];

	rehome_encode(m, body);
	drive_send(d, to, body, sizeof(body), data);
}

static void say_all(struct dsm *d, const struct nodeset *to, const struct rehome_msg *m, const void *data)
{
	for (node_id n = nodeset_next(to, 0); n != NODE_NONE; n = nodeset_next(to, n + 1u))
		if (n != d->self)
			say(d, n, m, data);
}

static bool is_gone(const struct rehoming *re, node_id node)
{
	return atomic_load_explicit(&re->gone[node], memory_order_acquire);
}

/* Nodes that are in the memory now. */
static struct nodeset members(const struct dsm *d)
{
	struct nodeset set = { 0 };

	for (unsigned n = 0; n < d->nodes; n++)
		if (!is_gone(&d->rehoming, (node_id)n))
			nodeset_add(&set, (node_id)n);
	return set;
}

/* --- leaving: what this node holds of others' pages goes back ------------------------------------------ */

/* Goes round over all pages, some at a time; after each round node 0 hears what is left. */
static void leave_some(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;
	struct proto *p = drive_proto(d);

	for (unsigned looked = 0, asked = 0; looked < SCAN && asked < AT_ONCE; looked++) {
		uint32_t page = re->at++, index;

		if (page == d->dir.pages) {
			say(d, 0, &(struct rehome_msg){ .kind = REHOME_LEFT, .number = re->held }, NULL);
			re->empty = re->held == 0;
			re->at = re->held = 0;
			return;
		}
		if (p->page[page].right == PROTO_NONE && !p->page[page].busy)
			continue;
		if (dir_home(p->cfg.dir, page, &index) == d->self)
			continue;
		re->held++;
		if (p->mine < p->cfg.requests / 2) {
			drive_evict(d, page);
			asked++;
		}
	}
}

/* --- the steps ------------------------------------------------------------------------------------------ */

/* What this node still has to send: the pages of its ranges in the present table, in order. */
static void move_begin(struct dsm *d)
{
	d->rehoming.span = d->rehoming.at = 0;
	d->rehoming.entries = d->rehoming.pages = 0;
}

static bool page_move(struct dsm *d, uint32_t page, node_id to)
{
	struct rehoming *re = &d->rehoming;
	struct proto *p = drive_proto(d);
	gfn_t gfn = dir_gfn(&d->dir, page);
	struct proto_entry e;
	struct rehome_msg m;

	if (nodeset_has(&re->steps.gone, d->self) && p->page[page].right != PROTO_NONE) {
		proto_right_end(p, page);
		if (!d->map->revoke(d, gfn, page, DSM_NONE)) {
			re->unmapping++;
			return false; /* this page again, when its last user has let go */
		}
	}
	if (!proto_entry_take(p, page, to, &e))
		return true;
	m = (struct rehome_msg){ .kind = REHOME_ENTRY, .bytes = e.bytes, .written = e.written, .mig = e.mig,
				 .node = e.owner, .number = page, .set = e.copyset };
	re->entries++;
	re->pages += e.bytes;
	say(d, to, &m, e.bytes ? frame_of(d, gfn) : NULL);
	return true;
}

/* True when all is sent. */
static bool move_some(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;
	const struct dir *now = drive_proto(d)->cfg.dir;
	uint64_t sent = re->entries;

	for (unsigned looked = 0; re->span < now->spans_count; re->at++, looked++) {
		const struct dir_span *sp = &now->span[re->span];
		uint32_t index;
		node_id to;

		if (sp->node != d->self || re->at == sp->count) {
			re->span++;
			re->at = UINT32_MAX; /* the loop makes it 0 */
			continue;
		}
		to = dir_home(re->next.dir, sp->page + re->at, &index);
		if (to == d->self)
			continue;
		if (looked >= SCAN || re->entries - sent >= AT_ONCE || re->unmapping || drive_backed_up(d, to))
			return false;
		if (!page_move(d, sp->page + re->at, to))
			return false;
	}
	return true;
}

/* Frames that were reserved here for pages homed elsewhere now. */
static void frames_pass_on(struct dsm *d, const struct dir *old)
{
	for (unsigned i = 0; i < old->spans_count; i++) {
		const struct dir_span *sp = &old->span[i];

		for (uint32_t k = 0; sp->node == d->self && k < sp->count; k++)
			cache_passed_on(d, sp->first + k, sp->page + k);
	}
}

static void homes_switch(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;
	struct proto *p = drive_proto(d);

	re->old = p->cfg.dir;
	if (!proto_homes_switch(p, &re->next, &re->steps.gone)) {
		log_error("dsm: a node left and kept the only copy of a page");
		atomic_store(&re->broken, true);
	}
	d->homes = p->cfg.dir;
	if (re->mem)
		munmap(re->mem, re->mem_bytes);
	re->mem = re->next_mem;
	re->mem_bytes = re->next_bytes;
	re->next_mem = NULL;
	cache_rehomed(d);
}

static void thaw(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;
	struct rehome_msg m = { .kind = REHOME_MARK, .phase = 4, .number = re->steps.version,
				.set = { { re->entries, re->pages } } };

	for (unsigned n = 0; n < d->nodes; n++)
		atomic_store_explicit(&re->gone[n], nodeset_has(&re->steps.gone, (node_id)n), memory_order_release);
	if (d->self == 0) {
		re->moved_entries += re->entries;
		re->moved_pages += re->pages;
		re->thawed_ns = clock_now_ns();
	} else {
		say(d, 0, &m, NULL);
	}
	/* Not before: it takes time, and all others wait for the last word. */
	if (is_gone(re, d->self))
		cache_forget(d);
	else
		frames_pass_on(d, re->old);
	re->leaving = false;
	re->frozen = false;
	atomic_store(&re->active, false);
	waiters_room(d);
}

static bool ready(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;

	if (re->steps.phase == REHOME_FREEZING)
		return proto_quiet(drive_proto(d)) && !d->collections &&
		       (!nodeset_has(&re->steps.gone, d->self) || re->empty);
	return re->steps.phase == REHOME_MOVING && move_some(d);
}

bool rehome_pump(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;
	uint64_t entries = re->entries;
	struct rehome_msg mark = { .kind = REHOME_MARK };

	if (re->leaving && re->steps.phase <= REHOME_FREEZING)
		leave_some(d);
	for (;;) {
		switch (rehome_next(&re->steps, ready(d))) {
		case REHOME_WAIT:
			return re->entries != entries;
		case REHOME_SAY:
			mark.phase = re->steps.reached[d->self];
			mark.number = re->steps.version;
			say_all(d, &re->steps.part, &mark, NULL);
			break;
		case REHOME_MOVE:
			move_begin(d);
			break;
		case REHOME_SWITCH:
			homes_switch(d);
			break;
		case REHOME_THAW:
			thaw(d);
			break;
		}
	}
}

/* --- messages --------------------------------------------------------------------------------------------- */

/* The switch to `map` begins here.  False: not now. */
static bool plan_take(struct dsm *d, uint64_t version, const struct nodeset *part, node_id leaver, const struct dir *map)
{
	struct rehoming *re = &d->rehoming;
	struct dir *dir = &re->map[d->homes == &re->map[0]];
	void *mem;

	if (!rehome_begin(&re->steps, version, part, leaver))
		return false;
	*dir = *map;
	re->next_bytes = proto_homes_bytes(dir, d->self);
	/* One byte more: there may be none. */
	mem = mmap(NULL, ++re->next_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT(mem != MAP_FAILED);
	re->next_mem = mem;
	proto_homes_init(&re->next, dir, d->self, mem);
	re->frozen = true;
	re->leaving |= leaver == d->self;
	atomic_store(&re->active, true);
	return true;
}

static bool on_plan(struct dsm *d, node_id from, const struct rehome_msg *m, const void *data)
{
	struct dir map;

	return from == 0 && rehome_map_decode(data, &d->dir, &map) && (m->node == NODE_NONE || m->node < d->nodes) &&
	       (m->node == NODE_NONE || map.homed[m->node] == 0) &&
	       plan_take(d, m->number, &m->set, m->node, &map);
}

static bool on_entry(struct dsm *d, node_id from, const struct rehome_msg *m, const void *data)
{
	struct rehoming *re = &d->rehoming;
	struct proto *p = drive_proto(d);
	struct proto_entry e = { .owner = m->node, .written = m->written, .bytes = m->bytes, .mig = m->mig,
				 .copyset = m->set };
	uint32_t page = (uint32_t)m->number, index;

	if (!rehome_entry_due(&re->steps, from) || page >= d->dir.pages || dir_home(d->homes, page, &index) != from ||
	    !proto_entry_put(p, &re->next, page, &e))
		return false;
	if (e.bytes && p->page[page].right == PROTO_NONE)
		cache_homecoming(d, dir_gfn(&d->dir, page), data);
	return true;
}

static bool on_leave(struct dsm *d, node_id from, bool leave)
{
	struct rehoming *re = &d->rehoming;

	if (from != 0 || d->self == 0 || re->steps.phase != REHOME_IDLE || is_gone(re, d->self))
		return false;
	re->leaving = leave;
	re->empty = false;
	re->at = re->held = 0;
	atomic_store(&re->active, leave);
	if (!leave)
		waiters_room(d);
	return true;
}

static bool on_mark(struct dsm *d, node_id from, const struct rehome_msg *m)
{
	struct rehoming *re = &d->rehoming;

	if (!rehome_mark(&re->steps, from, m->number, m->phase))
		return false;
	re->moved_entries += m->set.w[0];
	re->moved_pages += m->set.w[1];
	return true;
}

static bool message_take(struct dsm *d, node_id from, const struct rehome_msg *m, const void *data)
{
	struct rehoming *re = &d->rehoming;
	uint64_t room = re->spare + d->dir.homed[d->self] - d->homes->homed[d->self];

	switch (m->kind) {
	case REHOME_ASK:
		if (from == 0)
			say(d, 0, &(struct rehome_msg){ .kind = REHOME_ROOM, .number = room }, NULL);
		return from == 0;
	case REHOME_ROOM: /* of no use to anybody else */
		re->room[from] = m->number;
		nodeset_add(&re->answered, from);
		return d->self == 0;
	case REHOME_LEAVE:
	case REHOME_STAY:
		return on_leave(d, from, m->kind == REHOME_LEAVE);
	case REHOME_LEFT:
		re->left = m->number;
		re->left_known = true;
		return d->self == 0;
	case REHOME_PLAN:
		return on_plan(d, from, m, data);
	case REHOME_MARK:
		return on_mark(d, from, m);
	case REHOME_ENTRY:
		return on_entry(d, from, m, data);
	}
	return false;
}

bool rehome_withholds(const struct dsm *d, const struct waiter *w)
{
	return rehome_away(d) || (d->rehoming.frozen && !(w && w->pin_for));
}

void rehome_message(struct dsm *d, node_id from, const void *body, size_t body_len, const void *data)
{
	struct rehome_msg m;

	if (!rehome_decode(body, body_len, data ? PAGE_SIZE : 0, &m) || !message_take(d, from, &m, data))
		count_one(&d->count.refused);
}

/* --- node 0: the calls -------------------------------------------------------------------------------- */

/* Sleeps until `done` says so.  -ETIMEDOUT, -EPIPE. */
static int wait_until(struct dsm *d, bool (*done)(struct dsm *d), uint64_t deadline_ns)
{
	for (;;) {
		bool is;

		dsm_lock(d);
		is = done(d);
		dsm_unlock(d);
		if (is)
			return 0;
		if (atomic_load(&d->stopping))
			return -EPIPE;
		if (clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		usleep(LOOK_US);
	}
}

static bool all_answered(struct dsm *d)
{
	struct nodeset set = members(d);

	for (node_id n = nodeset_next(&set, 1); n != NODE_NONE; n = nodeset_next(&set, n + 1u))
		if (!nodeset_has(&d->rehoming.answered, n))
			return false;
	return true;
}

static bool has_left(struct dsm *d)
{
	return d->rehoming.left_known && d->rehoming.left == 0;
}

static bool is_over(struct dsm *d)
{
	return rehome_over(&d->rehoming.steps);
}

/* One call at a time; -EBUSY, and what the arguments alone say. */
static int call_begin(struct dsm *d, node_id node)
{
	int err = 0;

	if (!d->drive)
		return -EOPNOTSUPP;
	if (d->self != 0)
		return -EPERM;
	if (node == 0 || node >= d->nodes)
		return -EINVAL;
	dsm_lock(d);
	if (atomic_load(&d->stopping))
		err = -EPIPE;
	else if (d->rehoming.called)
		err = -EBUSY;
	else
		d->rehoming.called = true;
	dsm_unlock(d);
	return err;
}

static void call_end(struct dsm *d)
{
	dsm_lock(d);
	d->rehoming.called = false;
	dsm_unlock(d);
}

/* How much room there is, and the table of homes without `node`. */
static int drain_plan(struct dsm *d, node_id node, uint64_t deadline_ns, struct dsm_drain *out, struct dir *map)
{
	struct rehoming *re = &d->rehoming;
	struct nodeset takers;
	int err;

	if (is_gone(re, node))
		return -EALREADY;
	dsm_lock(d);
	takers = members(d);
	nodeset_del(&takers, node);
	re->answered = (struct nodeset){ 0 };
	re->room[0] = re->spare + d->dir.homed[0] - d->homes->homed[0];
	nodeset_add(&takers, node);
	say_all(d, &takers, &(struct rehome_msg){ .kind = REHOME_ASK }, NULL);
	nodeset_del(&takers, node);
	dsm_unlock(d);
	err = wait_until(d, all_answered, deadline_ns);
	if (err)
		return err;
	out->need_pages = d->homes->homed[node];
	for (node_id n = nodeset_next(&takers, 0); n != NODE_NONE; n = nodeset_next(&takers, n + 1u))
		out->room_pages += re->room[n];
	return rehome_plan_drain(d->homes, node, &takers, re->room, map);
}

static int leave(struct dsm *d, node_id node, uint64_t deadline_ns)
{
	int err;

	dsm_lock(d);
	d->rehoming.left_known = false;
	say(d, node, &(struct rehome_msg){ .kind = REHOME_LEAVE }, NULL);
	dsm_unlock(d);
	err = wait_until(d, has_left, deadline_ns);
	if (err) {
		dsm_lock(d);
		say(d, node, &(struct rehome_msg){ .kind = REHOME_STAY }, NULL);
		dsm_unlock(d);
	}
	return err;
}

/* The switch itself; there is no way back. */
static int all_switch(struct dsm *d, const struct nodeset *part, node_id leaver, const struct dir *map,
		      struct dsm_drain *out)
{
	struct rehoming *re = &d->rehoming;
	uint64_t start = clock_now_ns();
	uint8_t wire[PAGE_SIZE];
	bool ok = rehome_map_encode(map, wire);
	struct rehome_msg m = { .kind = REHOME_PLAN, .node = leaver, .set = *part };
	int err;

	ASSERT(ok); /* REHOME_SPANS bounds every plan */
	dsm_lock(d);
	m.number = re->steps.version + 1;
	re->moved_entries = re->moved_pages = 0;
	say_all(d, part, &m, wire);
	ok = plan_take(d, m.number, part, leaver, map);
	ASSERT(ok);
	dsm_unlock(d);
	err = wait_until(d, is_over, UINT64_MAX);
	out->frozen_ns = re->thawed_ns - start;
	out->moved_entries = re->moved_entries;
	out->moved_pages = re->moved_pages;
	return err;
}

int dsm_drain_ask(struct dsm *d, node_id node, uint64_t deadline_ns, struct dsm_drain *out)
{
	int err = call_begin(d, node);
	struct dir map;

	*out = (struct dsm_drain){ 0 };
	if (err)
		return err;
	err = drain_plan(d, node, deadline_ns, out, &map);
	call_end(d);
	return err;
}

int dsm_drain(struct dsm *d, node_id node, uint64_t deadline_ns, struct dsm_drain *out)
{
	int err = call_begin(d, node);
	struct nodeset part;
	uint64_t start;
	struct dir map;

	*out = (struct dsm_drain){ 0 };
	if (err)
		return err;
	err = drain_plan(d, node, deadline_ns, out, &map);
	start = clock_now_ns();
	if (!err)
		err = leave(d, node, deadline_ns);
	out->leave_ns = clock_now_ns() - start;
	part = members(d);
	if (!err)
		err = all_switch(d, &part, node, &map, out);
	call_end(d);
	return err;
}

int dsm_join(struct dsm *d, node_id node, struct dsm_drain *out)
{
	int err = call_begin(d, node);
	struct nodeset part = members(d);
	struct dir map;

	*out = (struct dsm_drain){ 0 };
	if (err)
		return err;
	if (!is_gone(&d->rehoming, node))
		err = -EALREADY;
	else if (atomic_load(&d->rehoming.dead[node]))
		err = -ENOTCONN;
	nodeset_add(&part, node);
	if (!err)
		err = rehome_plan_join(d->homes, &d->dir, node, &map);
	if (!err)
		err = all_switch(d, &part, NODE_NONE, &map, out);
	call_end(d);
	return err;
}

bool rehome_away(const struct dsm *d)
{
	return d->rehoming.leaving || is_gone(&d->rehoming, d->self);
}

bool rehome_bereaved(struct dsm *d, node_id peer)
{
	atomic_store(&d->rehoming.dead[peer], true);
	return !is_gone(&d->rehoming, peer);
}

bool dsm_drained(const struct dsm *d, node_id node)
{
	return node < d->nodes && is_gone(&d->rehoming, node);
}

/* --- open and close ----------------------------------------------------------------------------------- */

void rehome_open(struct dsm *d, uint64_t spare_pages)
{
	d->rehoming.spare = spare_pages;
	rehome_init(&d->rehoming.steps, d->self, d->nodes);
}

void rehome_close(struct dsm *d)
{
	struct rehoming *re = &d->rehoming;

	if (re->mem)
		munmap(re->mem, re->mem_bytes);
	if (re->next_mem)
		munmap(re->next_mem, re->next_bytes);
}
