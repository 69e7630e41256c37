/* SPDX-License-Identifier: Apache-2.0 */
/*
 * balance.c - tells the policy how vCPUs fare, and has its moves done: the shell around vcpu-migrate/place.h.
 *
 * What      One thread per slice.  While the VM's vCPUs are placed by unum, it tells node 0 each period what the vCPUs
 *           here did, and what they waited for which node; on node 0 it then asks the policy and gives the orders.
 * Prices    page   before there are enough faults: median of timed reads of pages that are homed on other nodes; then the
 *                  median of this node's remote faults, looked at every second.
 *           move   before there was one: MOVE_PAGES pages, since a handoff is four messages there and back in a row,
 *                  each with a thread to wake; then what moves took from order to outcome, the last ones count most.
 *           lost   LOST_GUESS pages before there was a move that paid; the policy learns it from its moves.
 * Owns      What was told since the last step (lock), the policy and its trace (the thread).
 * Threads   on_message: the fabric's; moved: io; mode: any; the rest: its own.
 * Limits    A node that is silent keeps its last load and is not moved from or to for waits that are not told.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "vcpu-migrate/place.h"
#include "vcpu-migrate/place_trace.h"

#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS (10 * NS_PER_MS)
#define LOAD_PERIODS 5u	      /* the host's load is looked at so seldom */
#define COSTS_PERIODS 100u    /* prices, too */
#define SAMPLES 9u	      /* timed reads per peer */
#define SAMPLE_NS (100 * NS_PER_MS)
#define FAULTS_MIN 256u	      /* before their median counts */
#define MOVE_PAGES 4u
#define LOST_GUESS 32u

/* A slice without agents sets no trace at all. */
static bool recorded(const struct cc_vm_spec *spec)
{
	return spec->place_trace && *spec->place_trace;
}

/* What a vCPU's counters were when they were told last. */
struct told {
	uint64_t cpu_ns;
	struct {
		uint64_t waits, reads, bounced, ns;
	} by[NODES_MAX];
};

/* Node 0. */
struct coordinator {
	struct place *place;
	struct place_trace *trace; /* NULL: not recorded */
	struct place_costs costs;
	bool moved;		   /* lock; costs.move_us was measured */
	uint32_t move_us;	   /* lock */
	bool moving[VCPUS_MAX];	   /* lock */
	uint64_t host[NODES_MAX];  /* lock */
	struct place_node node[NODES_MAX];   /* lock */
	struct place_vcpu vcpu[VCPUS_MAX];   /* lock */
	struct place_stall *stall, *sampled; /* [vcpus * nodes]; lock; the thread's */
	uint16_t share[NODES_MAX];
	unsigned steps;
	struct place_output out;
};

struct hv_balance {
	struct hv_slice *s;
	pthread_t thread;
	pthread_mutex_t lock; /* innermost */
	bool runs;
	_Atomic uint32_t on; /* futex; 2: the mode has changed */
	_Atomic uint32_t mode; /* enum cc_placement; node 0 */
	uint64_t host;
	uint16_t cpus;
	uint32_t load; /* runnable threads per 1000 CPUs, times LOAD_WEIGHT */
	unsigned periods;
	uint64_t last_ns;
	struct coordinator *boss; /* NULL: not node 0 */
	struct told told[];
};
#define LOAD_WEIGHT 8u

/* --- what happens here --------------------------------------------------------------------------------------------- */

static void load_look(struct hv_balance *b)
{
	FILE *f = fopen("/proc/loadavg", "re");
	unsigned running = 1;

	if (f && fscanf(f, "%*s %*s %*s %u", &running) != 1)
		running = 1;
	if (f)
		fclose(f);
	/* Not counting this thread, which looks. */
	running = running ? running - 1 : 0;
	b->load += running * 1000 / b->cpus - b->load / LOAD_WEIGHT;
}

static uint64_t thread_cpu_ns(const struct hv_cpu *c)
{
	struct timespec ts;
	clockid_t clock;

	if (!c->runs || pthread_getcpuclockid(c->thread, &clock) || clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint32_t us_of(uint64_t ns)
{
	return ns / NS_PER_US < UINT32_MAX ? (uint32_t)(ns / NS_PER_US) : UINT32_MAX;
}

static void tell(struct hv_balance *b, const struct hv_msg *m)
{
	if (b->boss)
		hv_balance_on_message(b->s, b->s->spec->self, m);
	else
		hv_link_send(b->s, 0, m);
}

/* What it did since the last time, if anything. */
static void cpu_tell(struct hv_balance *b, unsigned v, uint64_t dt_ns)
{
	const struct hv_cpu *c = b->s->cpu[v];
	struct told *t = &b->told[v];
	uint64_t cpu_ns = thread_cpu_ns(c), busy_ns = cpu_ns > t->cpu_ns ? cpu_ns - t->cpu_ns : 0;
	bool any = false;

	t->cpu_ns = cpu_ns;
	for (unsigned n = 0; n < b->s->spec->nodes; n++) {
		struct hv_msg m = { .kind = HV_MSG_LOAD };
		uint64_t waits = atomic_load_explicit(&c->stalls.by[n].waits, memory_order_relaxed);
		uint64_t reads = atomic_load_explicit(&c->stalls.by[n].reads, memory_order_relaxed);
		uint64_t bounced = atomic_load_explicit(&c->stalls.by[n].bounced, memory_order_relaxed);
		uint64_t ns = atomic_load_explicit(&c->stalls.by[n].ns, memory_order_relaxed);

		if (ns == t->by[n].ns || n == b->s->spec->self)
			continue;
		m.load.vcpu = (uint8_t)v;
		m.load.from = (node_id)n;
		m.load.waits = (uint32_t)(waits - t->by[n].waits);
		m.load.reads = (uint32_t)(reads - t->by[n].reads);
		m.load.bounced = (uint32_t)(bounced - t->by[n].bounced);
		m.load.us = us_of(ns - t->by[n].ns);
		/* It waits with a poll for a while, then asleep: so the two overlap, but no more than all the time. */
		busy_ns += ns - t->by[n].ns;
		if (!any)
			m.load.busy_us = us_of(busy_ns < dt_ns ? busy_ns : dt_ns);
		any = true;
		t->by[n].waits = waits;
		t->by[n].reads = reads;
		t->by[n].bounced = bounced;
		t->by[n].ns = ns;
		tell(b, &m);
	}
	if (!any && busy_ns) {
		struct hv_msg m = { .kind = HV_MSG_LOAD };

		m.load.vcpu = (uint8_t)v;
		m.load.from = b->s->spec->self;
		m.load.busy_us = us_of(busy_ns < dt_ns ? busy_ns : dt_ns);
		tell(b, &m);
	}
}

static void node_tell(struct hv_balance *b)
{
	struct hv_msg m = { .kind = HV_MSG_NODE };
	uint32_t load = b->load / LOAD_WEIGHT;

	m.node.leaving = atomic_load(&b->s->moves.leaving);
	m.node.cpus = b->cpus;
	m.node.load = load < UINT16_MAX ? (uint16_t)load : UINT16_MAX;
	m.node.host = b->host;
	tell(b, &m);
}

static void report(struct hv_balance *b)
{
	uint64_t now = clock_now_ns(), dt = now - b->last_ns;

	b->last_ns = now;
	if (!(b->periods++ % LOAD_PERIODS)) {
		load_look(b);
		node_tell(b);
	}
	for (unsigned v = 0; v < b->s->spec->vcpus; v++)
		cpu_tell(b, v, dt);
}

/* --- at node 0: what is told ----------------------------------------------------------------------------------------- */

/* Nodes on one host get the number of the first of them. */
static uint16_t host_number(const struct coordinator *o, unsigned node)
{
	for (unsigned n = 0; n < node; n++)
		if (o->host[n] == o->host[node])
			return (uint16_t)n;
	return (uint16_t)node;
}

static void on_node(struct hv_balance *b, node_id from, const struct hv_msg *m)
{
	struct coordinator *o = b->boss;
	struct place_node *n = &o->node[from];

	o->host[from] = m->node.host;
	n->cpus = m->node.cpus;
	n->load = m->node.load;
	n->closed = m->node.leaving;
	/* Its share it has promised; beyond that what its host can run at the same time. */
	n->room = n->cpus > o->share[from] ? n->cpus : o->share[from];
	n->most = b->s->spec->engine == CC_ENGINE_BT ? CC_BT_VCPUS_MAX : VCPUS_MAX;
	for (unsigned i = 0; i < b->s->spec->nodes; i++)
		o->node[i].host = host_number(o, i);
}

static void add(uint32_t *to, uint32_t v)
{
	*to = v < UINT32_MAX - *to ? *to + v : UINT32_MAX;
}

static void on_load(struct hv_balance *b, const struct hv_msg *m)
{
	struct coordinator *o = b->boss;
	struct place_stall *s = &o->stall[(size_t)m->load.vcpu * b->s->spec->nodes + m->load.from];

	add(&o->vcpu[m->load.vcpu].busy_us, m->load.busy_us);
	add(&s->waits, m->load.waits);
	add(&s->reads, m->load.reads);
	add(&s->bounced, m->load.bounced);
	add(&s->us, m->load.us);
}

static void wake(struct hv_balance *b)
{
	syscall(SYS_futex, &b->on, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void hv_balance_on_message(struct hv_slice *s, node_id from, const struct hv_msg *m)
{
	struct hv_balance *b = s->balance;
	bool fine = b != NULL;

	if (fine && m->kind == HV_MSG_BALANCE) {
		fine = from == 0 && !b->boss;
		if (fine) {
			atomic_store(&b->on, m->balance.on);
			wake(b);
		}
	} else if (fine) {
		fine = b->boss && (m->kind == HV_MSG_NODE ||
				   (m->load.vcpu < s->spec->vcpus && m->load.from < s->spec->nodes));
		pthread_mutex_lock(&b->lock);
		if (fine && m->kind == HV_MSG_NODE)
			on_node(b, from, m);
		else if (fine)
			on_load(b, m);
		pthread_mutex_unlock(&b->lock);
	}
	if (!fine)
		hv_count(&s->refused);
}

/* --- at node 0: prices ------------------------------------------------------------------------------------------------ */

static void sort(uint64_t *v, unsigned count)
{
	for (unsigned i = 1; i < count; i++)
		for (unsigned k = i; k && v[k - 1] > v[k]; k--) {
			uint64_t swap = v[k];

			v[k] = v[k - 1];
			v[k - 1] = swap;
		}
}

/* Timed reads of the last pages of each peer's share, where a guest that has just started has nothing yet. */
static uint32_t page_timed_us(struct hv_balance *b)
{
	const struct cc_vm_spec *spec = b->s->spec;
	uint64_t ns[CC_RANGES_MAX * SAMPLES];
	unsigned count = 0;

	for (unsigned r = 0; r < spec->ranges; r++)
		for (unsigned i = 1; i <= SAMPLES && spec->range[r].node != spec->self; i++) {
			gfn_t gfn = spec->range[r].first + spec->range[r].count - i;
			uint64_t start = clock_now_ns();

			if (i > spec->range[r].count || dsm_right(b->s->dsm, gfn) != DSM_NONE ||
			    dsm_acquire(b->s->dsm, gfn, DSM_READ, start + SAMPLE_NS))
				continue;
			ns[count++] = clock_now_ns() - start;
		}
	sort(ns, count);
	return count ? us_of(ns[count / 2]) : 0;
}

static uint32_t page_seen_us(struct hv_balance *b)
{
	struct dsm_stats st;

	dsm_stats(b->s->dsm, &st);
	return st.faults_read + st.faults_write + st.faults_upgrade < FAULTS_MIN ? 0 : us_of(st.latency_p50_ns);
}

static void costs_look(struct hv_balance *b)
{
	struct coordinator *o = b->boss;
	struct place_costs c = o->costs;
	uint32_t seen = page_seen_us(b);

	if (seen)
		c.page_us = seen;
	pthread_mutex_lock(&b->lock);
	c.move_us = o->moved ? o->move_us : MOVE_PAGES * c.page_us;
	pthread_mutex_unlock(&b->lock);
	if (c.page_us == o->costs.page_us && c.move_us == o->costs.move_us)
		return;
	o->costs = c;
	if (!o->place)
		return;
	place_costs_set(o->place, c.move_us, c.page_us);
	if (o->trace)
		place_trace_costs(o->trace, c.move_us, c.page_us);
}

/* --- at node 0: the policy --------------------------------------------------------------------------------------------- */

static const struct nodeset *rules_of(const struct hv_balance *b)
{
	return b->s->spec->ruled ? b->s->spec->may_run : NULL;
}

static bool pinned(const struct hv_balance *b)
{
	return atomic_load(&b->mode) == CC_PLACEMENT_PINNED;
}

static int policy_open(struct hv_balance *b)
{
	struct coordinator *o = b->boss;
	const struct cc_vm_spec *spec = b->s->spec;
	struct place_config cfg = { .nodes = spec->nodes,
				    .vcpus = spec->vcpus,
				    .period_us = PERIOD_NS / NS_PER_US,
				    .pinned = pinned(b),
				    .allowed = rules_of(b) };
	void *mem = malloc(place_bytes(spec->nodes, spec->vcpus));
	int err = 0;

	if (!mem)
		return -ENOMEM;
	o->costs.lost_pages = LOST_GUESS;
	o->costs.page_us = page_timed_us(b);
	costs_look(b);
	cfg.costs = o->costs;
	log_info("placement: a page costs %u us, a move %u us", o->costs.page_us, o->costs.move_us);
	if (recorded(spec))
		err = place_trace_open(spec->place_trace, &cfg, spec->node_name, &o->trace);
	if (err)
		log_warn("placement: trace %s: %s", spec->place_trace, strerror(-err));
	o->place = place_init(&cfg, mem);
	return 0;
}

/* What was told since the last step. */
static void sample(struct hv_balance *b, struct place_node *node, struct place_vcpu *vcpu)
{
	const struct cc_vm_spec *spec = b->s->spec;
	struct coordinator *o = b->boss;
	struct place_stall *swap = o->sampled;

	pthread_mutex_lock(&b->lock);
	o->sampled = o->stall;
	o->stall = swap;
	memset(o->stall, 0, sizeof(*o->stall) * spec->nodes * spec->vcpus);
	memcpy(node, o->node, sizeof(*node) * spec->nodes);
	for (unsigned v = 0; v < spec->vcpus; v++) {
		vcpu[v] = o->vcpu[v];
		vcpu[v].moving = o->moving[v];
		o->vcpu[v].busy_us = 0;
	}
	pthread_mutex_unlock(&b->lock);
	for (unsigned v = 0; v < spec->vcpus; v++)
		vcpu[v].at = hv_move_where(b->s, v);
}

/* The order's number carries when it was given, in us. */
#define ORDER_TIME (HV_ORDER_OWN - 1)

static void give_orders(struct hv_balance *b, const struct place_output *out)
{
	for (unsigned i = 0; i < out->moves; i++) {
		const struct place_verdict *r = &out->list[i];

		log_info("placement: vCPU %u goes from %s to %s: %s (waited %u us of %u us, price %u us)", r->vcpu,
			 b->s->spec->node_name[r->from], b->s->spec->node_name[r->to], place_why_name(r->why),
			 r->stall_us, r->total_us, r->price_us);
		pthread_mutex_lock(&b->lock);
		b->boss->moving[r->vcpu] = true;
		pthread_mutex_unlock(&b->lock);
		hv_move_order(b->s, r->vcpu, r->to, HV_ORDER_OWN | (clock_now_ns() / NS_PER_US & ORDER_TIME));
	}
}

void hv_balance_moved(struct hv_slice *s, const struct mig_outcome *m)
{
	struct coordinator *o = s->balance->boss;
	uint64_t us = (clock_now_ns() / NS_PER_US - m->order) & ORDER_TIME;

	log_debug("placement: vCPU %u: %s after %" PRIu64 " us", m->vcpu, ho_result_text(m->result), us);
	if (us > PLACE_COST_MAX)
		us = PLACE_COST_MAX;
	pthread_mutex_lock(&s->balance->lock);
	o->moving[m->vcpu] = false;
	if (m->result == HO_MOVED) {
		o->move_us = o->moved ? (uint32_t)((7 * (uint64_t)o->move_us + us) / 8) : (uint32_t)us;
		o->moved = true;
	}
	pthread_mutex_unlock(&s->balance->lock);
}

static void decide(struct hv_balance *b)
{
	struct coordinator *o = b->boss;
	struct place_node node[NODES_MAX];
	struct place_vcpu vcpu[VCPUS_MAX];
	struct place_input in = { .now_us = clock_now_ns() / NS_PER_US, .node = node, .vcpu = vcpu };

	if (!o->place && policy_open(b))
		return;
	if (!(++o->steps % COSTS_PERIODS))
		costs_look(b);
	sample(b, node, vcpu);
	in.stall = o->sampled;
	if (o->trace)
		place_trace_step(o->trace, &in);
	place_rules_set(o->place, pinned(b), rules_of(b));
	place_step(o->place, &in, &o->out);
	give_orders(b, &o->out);
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static bool wanted(const struct hv_balance *b)
{
	return b->boss ? !pinned(b) || recorded(b->s->spec) : atomic_load(&b->on);
}

void hv_balance_mode(struct hv_slice *s, enum cc_placement mode)
{
	if (!s->balance || !s->balance->boss)
		return;
	atomic_store(&s->balance->mode, mode);
	atomic_fetch_add(&s->balance->on, 2);
	wake(s->balance);
}

static void tell_peers(struct hv_balance *b, bool on)
{
	struct hv_msg m = { .kind = HV_MSG_BALANCE };

	m.balance.on = on;
	hv_link_send_all(b->s, &m);
}

static void *balance_thread(void *arg)
{
	struct hv_balance *b = arg;
	struct hv_slice *s = b->s;
	bool told = false;

	log_set_thread("balance");
	while (atomic_load(&s->phase) == HV_PREPARED)
		syscall(SYS_futex, &s->phase, FUTEX_WAIT_PRIVATE, HV_PREPARED, NULL, NULL, 0);
	while (!hv_slice_ending(s)) {
		struct timespec period = { .tv_nsec = PERIOD_NS };
		uint32_t seen = atomic_load(&b->on);
		bool on = wanted(b);

		if (b->boss && on != told) {
			tell_peers(b, on);
			told = on;
		}
		if (on) {
			report(b);
			if (b->boss)
				decide(b);
		}
		syscall(SYS_futex, &b->on, FUTEX_WAIT_PRIVATE, seen, on ? &period : NULL, NULL, 0);
	}
	return NULL;
}

static struct coordinator *coordinator_open(const struct hv_slice *s)
{
	struct coordinator *o = calloc(1, sizeof(*o));
	size_t cells = (size_t)s->spec->nodes * s->spec->vcpus;

	if (!o)
		return NULL;
	o->stall = calloc(cells, sizeof(*o->stall));
	o->sampled = calloc(cells, sizeof(*o->sampled));
	for (unsigned v = 0; v < s->spec->vcpus; v++)
		o->share[s->spec->vcpu_node[v]]++;
	for (unsigned n = 0; n < s->spec->nodes; n++) {
		o->host[n] = n; /* until it is told */
		o->node[n] = (struct place_node){ .cpus = 1, .host = (uint16_t)n };
	}
	return o;
}

static uint16_t cpus_here(void)
{
	cpu_set_t set;
	int count = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return (uint16_t)(count < 1 ? 1 : count);
}

int hv_balance_open(struct hv_slice *s)
{
	struct hv_balance *b;

	if (!s->multi)
		return 0;
	b = calloc(1, sizeof(*b) + s->spec->vcpus * sizeof(b->told[0]));
	if (!b)
		return -ENOMEM;
	b->s = s;
	b->cpus = cpus_here();
	memcpy(&b->host, s->clock.boot_id, sizeof(b->host));
	atomic_store(&b->mode, s->spec->placement);
	pthread_mutex_init(&b->lock, NULL);
	s->balance = b;
	if (s->spec->self)
		return 0;
	b->boss = coordinator_open(s);
	if (b->boss && b->boss->stall && b->boss->sampled)
		return 0;
	hv_balance_close(s);
	return -ENOMEM;
}

int hv_balance_start(struct hv_slice *s)
{
	int err = s->balance ? pthread_create(&s->balance->thread, NULL, balance_thread, s->balance) : 0;

	if (s->balance)
		s->balance->runs = !err;
	return -err;
}

static void coordinator_close(struct coordinator *o)
{
	int err = o->trace ? place_trace_close(o->trace) : 0;

	if (err)
		log_warn("placement: trace: %s", strerror(-err));
	free(o->place);
	free(o->stall);
	free(o->sampled);
	free(o);
}

void hv_balance_close(struct hv_slice *s)
{
	struct hv_balance *b = s->balance;

	if (!b)
		return;
	if (b->runs) {
		atomic_fetch_add(&b->on, 2);
		wake(b);
		pthread_join(b->thread, NULL);
	}
	if (b->boss)
		coordinator_close(b->boss);
	pthread_mutex_destroy(&b->lock);
	free(b);
	s->balance = NULL;
}
