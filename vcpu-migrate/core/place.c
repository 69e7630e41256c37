/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/core/place.c - see vcpu-migrate/place.h: one step of the policy.
 *
 * What      absorb (counters into evidence, the last move judged), then the moves that must be, then the best that pay.
 *           Why it comes to rest, with the numbers P1 to P5 of docs/migration.md:
 *           P1 a move spends its evidence, and that of whoever might want to come the other way: no two vCPUs swap;
 *           P2 after a move a vCPU stays until the move is judged;
 *           P3 one that did not pay is remembered (past), and not undone for a hope that it has disproved;
 *           P4 each one that did not pay doubles the price of the next (burden); evidence is bounded by the horizon,
 *              so the price grows out of its reach;
 *           P5 burden and memory are taken back only when what the vCPU waits changes while nobody moves.
 * Owns nothing; pure.
 */
#include "vcpu-migrate/place.h"

#include "base/assert.h"

#include <string.h>

#define HORIZON 64u	   /* prices; so a vCPU that waits less than PLACE_MARGIN / HORIZON of its time never moves */
#define HORIZON_PERIODS 8u /* at least */
#define SETTLE_PERIODS 2u
#define SETTLE_MOVES 4u	   /* in prices of the bare move; the larger of the two */
#define BURDEN_MAX 10u
#define QUIET 4u	   /* horizons; then evidence is of the present to 98 % */
#define NOISE 20u	   /* per mille */
#define WAIT_PAGES 8u	   /* prices of a page that one wait counts at most: the rest is for want of CPUs, there or here */
#define STEADY 3u	   /* so many periods with waits, less those without: what is over sooner is not worth a move */
#define STEADY_MAX 8u
#define LOST_WEIGHT 8u	   /* a new sample counts for one in so many */
#define MILLE 1000u
#define ROOM_SLACK 250u	   /* per mille of a CPU: what halted vCPUs use for their ticks */
#define DEMAND_PERIODS 4u  /* before it is known */

/* What one vCPU waited for one node; us, forgotten over the horizon. */
struct evidence {
	uint32_t us, reads_us, bounced_us;
	uint16_t past; /* per mille + 1 that it waited in all when it was there last; 0: not known */
	uint8_t steady;
};

struct vcpu {
	uint32_t time_us, total_us, busy_us; /* gathered over, waits for all nodes, not halted; forgotten like evidence */
	node_id at, from, to;		     /* to: ordered, not there yet, else NODE_NONE */
	node_id left;			     /* where it was before its last move of ours; NODE_NONE */
	bool paying, judging;		     /* ordered because it should pay; arrived, and that is looked at */
	bool known;			     /* usual */
	uint16_t demand;		     /* per mille of its time that it is not halted */
	uint8_t burden;
	uint16_t before, usual; /* per mille that it waited before the move; when nobody had moved for long */
	uint32_t before_all;	/* the same of all vCPUs together */
	uint32_t refetched;	/* pages from where it came, since it arrived */
	uint64_t waited_us, since_us; /* place.waited_us and the time when it had settled; since 0: not yet */
	uint64_t until_us;	/* `to`: given up then; else settles until then */
	uint64_t left_us;
};

struct place {
	unsigned nodes, vcpus;
	uint32_t period_us;
	bool pinned, ruled;
	struct place_costs costs; /* lost_pages: as learnt, times LOST_WEIGHT */
	uint64_t last_us;	  /* time of the last step; 0: none */
	uint64_t waited_us;	  /* by all vCPUs, ever */
	uint32_t all_us, time_us; /* the same and its time, forgotten over the horizon */
	uint64_t moved_us;	  /* when anybody arrived anywhere */
	uint64_t load_until_us;	  /* no moves for load before */
	struct nodeset allowed[VCPUS_MAX];
	struct vcpu vcpu[VCPUS_MAX];
	uint16_t has[NODES_MAX];    /* vCPUs there or on their way there */
	uint32_t demand[NODES_MAX]; /* of them together */
	uint32_t load[NODES_MAX];
	struct evidence evidence[]; /* [vcpus * nodes] */
};

/* --- set up ------------------------------------------------------------------------------------------------------ */

size_t place_bytes(unsigned nodes, unsigned vcpus)
{
	return sizeof(struct place) + (size_t)nodes * vcpus * sizeof(struct evidence);
}

struct place *place_init(const struct place_config *cfg, void *mem)
{
	struct place *p = mem;

	ASSERT(cfg->nodes >= 1 && cfg->nodes <= NODES_MAX);
	ASSERT(cfg->vcpus >= 1 && cfg->vcpus <= VCPUS_MAX);
	memset(p, 0, place_bytes(cfg->nodes, cfg->vcpus));
	p->nodes = cfg->nodes;
	p->vcpus = cfg->vcpus;
	p->period_us = cfg->period_us ? cfg->period_us : 1;
	p->costs.lost_pages = cfg->costs.lost_pages < PLACE_COST_MAX ? cfg->costs.lost_pages : PLACE_COST_MAX;
	p->costs.lost_pages *= LOST_WEIGHT;
	place_costs_set(p, cfg->costs.move_us, cfg->costs.page_us);
	place_rules_set(p, cfg->pinned, cfg->allowed);
	for (unsigned v = 0; v < p->vcpus; v++)
		p->vcpu[v] = (struct vcpu){ .at = NODE_NONE, .to = NODE_NONE, .left = NODE_NONE, .demand = MILLE };
	return p;
}

void place_costs_set(struct place *p, uint32_t move_us, uint32_t page_us)
{
	p->costs.move_us = move_us < PLACE_COST_MAX ? move_us : PLACE_COST_MAX;
	p->costs.page_us = page_us < PLACE_COST_MAX ? page_us : PLACE_COST_MAX;
}

void place_rules_set(struct place *p, bool pinned, const struct nodeset *allowed)
{
	p->pinned = pinned;
	p->ruled = allowed != NULL;
	if (allowed)
		memcpy(p->allowed, allowed, p->vcpus * sizeof(*allowed));
}

/* --- prices ------------------------------------------------------------------------------------------------------ */

static uint32_t bounded(uint64_t us)
{
	return us < INT32_MAX ? (uint32_t)us : INT32_MAX;
}

static uint32_t price(const struct place *p, unsigned burden)
{
	uint64_t pages_us = (uint64_t)p->costs.lost_pages * p->costs.page_us / LOST_WEIGHT;

	return bounded((p->costs.move_us + pages_us + 1) << burden);
}

static uint32_t horizon(const struct place *p)
{
	uint64_t by_price = (uint64_t)price(p, 0) * HORIZON, by_period = (uint64_t)p->period_us * HORIZON_PERIODS;

	return bounded(by_price > by_period ? by_price : by_period);
}

static uint64_t settle(const struct place *p)
{
	uint64_t by_move = (uint64_t)p->costs.move_us * SETTLE_MOVES, by_period = (uint64_t)p->period_us * SETTLE_PERIODS;

	return by_move > by_period ? by_move : by_period;
}

/* --- evidence ---------------------------------------------------------------------------------------------------- */

static struct evidence *evidence_of(struct place *p, unsigned v)
{
	return &p->evidence[(size_t)v * p->nodes];
}

static void fade(uint32_t *us, uint32_t dt, uint32_t over)
{
	*us -= (uint32_t)((uint64_t)*us * (dt < over ? dt : over) / over);
}

static void add(uint32_t *to, uint32_t us)
{
	*to = bounded((uint64_t)*to + us);
}

/* Evidence of v, or only that about one node. */
static void forget(struct place *p, unsigned v)
{
	struct evidence *e = evidence_of(p, v);
	struct vcpu *x = &p->vcpu[v];

	for (unsigned n = 0; n < p->nodes; n++)
		e[n].us = e[n].reads_us = e[n].bounced_us = e[n].steady = 0;
	x->time_us = x->total_us = x->busy_us = 0;
}

static void forget_past(struct place *p, unsigned v)
{
	struct evidence *e = evidence_of(p, v);

	for (unsigned n = 0; n < p->nodes; n++)
		e[n].past = 0;
}

/* Share of its time that it waits for pages. */
static uint16_t waiting(const struct vcpu *x)
{
	uint64_t mille = x->time_us ? (uint64_t)x->total_us * MILLE / x->time_us : 0;

	return (uint16_t)(mille < MILLE ? mille : MILLE);
}

static void gather(struct place *p, unsigned v, const struct place_input *in, uint32_t dt)
{
	const struct place_stall *s = &in->stall[(size_t)v * p->nodes];
	struct evidence *e = evidence_of(p, v);
	struct vcpu *x = &p->vcpu[v];
	uint32_t over = horizon(p);

	fade(&x->time_us, dt, over);
	fade(&x->total_us, dt, over);
	fade(&x->busy_us, dt, over);
	add(&x->time_us, dt);
	add(&x->busy_us, in->vcpu[v].busy_us);
	if (x->time_us >= DEMAND_PERIODS * p->period_us)
		x->demand = x->busy_us < x->time_us ? (uint16_t)((uint64_t)x->busy_us * MILLE / x->time_us) : MILLE;
	for (unsigned n = 0; n < p->nodes; n++) {
		uint32_t waits = s[n].waits ? s[n].waits : 1;
		uint64_t most = (uint64_t)waits * WAIT_PAGES * (p->costs.page_us + 1);
		uint32_t us = s[n].us < most ? s[n].us : (uint32_t)most;

		if (n != x->at && (uint64_t)us * HORIZON > (uint64_t)dt * PLACE_MARGIN)
			e[n].steady += e[n].steady < STEADY_MAX;
		else
			e[n].steady -= e[n].steady > 0;
		fade(&e[n].us, dt, over);
		fade(&e[n].reads_us, dt, over);
		fade(&e[n].bounced_us, dt, over);
		if (n == x->at || !us)
			continue;
		us = us < dt ? us : dt; /* a wait that began long ago is told in one period */
		add(&e[n].us, us);
		add(&x->total_us, us);
		add(&e[n].reads_us, (uint32_t)((uint64_t)us * s[n].reads / waits));
		add(&e[n].bounced_us, (uint32_t)((uint64_t)us * s[n].bounced / waits));
	}
}

/* What all vCPUs together wait. */
static void tally(struct place *p, const struct place_input *in, uint32_t dt)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < p->vcpus; v++)
		for (unsigned n = 0; n < p->nodes; n++)
			sum += n == in->vcpu[v].at ? 0 : in->stall[(size_t)v * p->nodes + n].us;
	fade(&p->all_us, dt, horizon(p));
	fade(&p->time_us, dt, horizon(p));
	add(&p->all_us, bounded(sum));
	add(&p->time_us, dt);
	p->waited_us += sum;
}

/* The move to where it is has had its time: did it pay? */
static void judge(struct place *p, unsigned v, uint64_t now_us)
{
	struct vcpu *x = &p->vcpu[v];
	uint16_t now = waiting(x);
	uint64_t all = (p->waited_us - x->waited_us) * MILLE / (now_us - x->since_us);
	/* A vCPU that pleases itself by running away from one that follows it has won nothing. */
	bool back = x->at == x->left && now_us - x->left_us < 4ull * horizon(p);
	bool paid = 2u * now <= x->before && all + (x->before - now) / 4u <= x->before_all;

	x->judging = false;
	if (paid && !back) {
		/* What it had to fetch again is known only now that its waits are not of another kind. */
		p->costs.lost_pages -= p->costs.lost_pages / LOST_WEIGHT;
		p->costs.lost_pages += x->refetched < PLACE_COST_MAX ? x->refetched : PLACE_COST_MAX;
		x->burden -= x->burden > 0;
		forget_past(p, v);
	} else {
		x->burden += x->burden < BURDEN_MAX;
		if (x->from != NODE_NONE)
			evidence_of(p, v)[x->from].past = (uint16_t)(x->before + 1);
	}
	x->left = x->from;
	x->left_us = now_us;
}

/*
 * P5: while nobody moves, waits change only because the guest does something else.  Then what was learnt of the vCPU is
 * of no use.  `usual` is taken when its waits have had the time to show that nobody moves.
 */
static void forgive(struct place *p, unsigned v, uint64_t now_us)
{
	struct vcpu *x = &p->vcpu[v];
	uint16_t now = waiting(x);

	if (now_us - p->moved_us < QUIET * (uint64_t)horizon(p)) {
		x->known = false;
	} else if (!x->known) {
		x->known = true;
		x->usual = now;
	} else if (now > 2u * x->usual + NOISE || 2u * now + NOISE < x->usual) {
		x->usual = now;
		x->burden = 0;
		forget_past(p, v);
	}
}

/* P1: somebody goes, or went, from `from` to `to`.  What would bring others the other way is not worth anything any more. */
static void spend(struct place *p, node_id from, node_id to, uint64_t now_us)
{
	for (unsigned u = 0; u < p->vcpus; u++) {
		struct evidence *e = &evidence_of(p, u)[from];
		struct vcpu *x = &p->vcpu[u];

		if (x->at != to || x->to != NODE_NONE || x->judging || e->us < price(p, 0))
			continue;
		x->total_us -= e->us < x->total_us ? e->us : x->total_us;
		e->us = e->reads_us = e->bounced_us = e->steady = 0;
		if (x->until_us < now_us + settle(p))
			x->until_us = now_us + settle(p);
	}
}

/* Somebody is on the way from `from` to `to`. */
static bool coming(const struct place *p, node_id from, node_id to)
{
	for (unsigned u = 0; u < p->vcpus; u++)
		if (p->vcpu[u].at == from && p->vcpu[u].to == to)
			return true;
	return false;
}

static void arrived(struct place *p, unsigned v, node_id at, uint64_t now_us)
{
	struct vcpu *x = &p->vcpu[v];

	x->judging = x->to == at && x->paying;
	x->from = x->at;
	x->at = at;
	x->to = NODE_NONE;
	x->refetched = 0;
	x->until_us = x->since_us = 0;
	forget(p, v);
	if (x->from == NODE_NONE)
		return;
	x->until_us = p->moved_us = now_us + settle(p);
	spend(p, x->from, at, now_us);
}

static void absorb(struct place *p, unsigned v, const struct place_input *in, uint32_t dt)
{
	const struct place_vcpu *now = &in->vcpu[v];
	struct vcpu *x = &p->vcpu[v];

	if (now->at != x->at) {
		arrived(p, v, now->at, in->now_us);
		return;
	}
	if (now->moving)
		return;
	if (x->to != NODE_NONE) {
		if (in->now_us < x->until_us)
			return;
		/* Refused, or it came to nothing. */
		x->to = NODE_NONE;
		x->burden += x->burden < BURDEN_MAX;
		forget(p, v);
	}
	if (in->now_us <= x->until_us) {
		if (x->judging)
			x->refetched += in->stall[(size_t)v * p->nodes + x->from].waits;
		return;
	}
	if (x->judging && !x->since_us) {
		x->waited_us = p->waited_us;
		x->since_us = in->now_us;
	}
	gather(p, v, in, dt);
	if (x->judging && in->now_us >= x->since_us + settle(p))
		judge(p, v, in->now_us);
	else if (!x->judging && in->now_us > p->moved_us)
		forgive(p, v, in->now_us);
}

/* --- decisions --------------------------------------------------------------------------------------------------- */

/* Share of its time that a thread lacks for want of CPUs, per mille. */
static uint32_t lack(uint32_t load)
{
	return load > MILLE ? MILLE - MILLE * MILLE / load : 0;
}

static int32_t lack_more(const struct place *p, const struct place_input *in, const struct vcpu *x, node_id to)
{
	const struct place_node *there = &in->node[to], *here = &in->node[x->at];
	uint32_t demand_us = x->busy_us < x->time_us ? x->busy_us : x->time_us;
	int64_t mille;

	if (there->host == here->host)
		return 0;
	mille = (int64_t)lack(p->load[to] + MILLE / (there->cpus ? there->cpus : 1)) - lack(p->load[x->at]);
	return (int32_t)(mille * (int64_t)demand_us / MILLE);
}

static bool may_run(const struct place *p, const struct place_input *in, unsigned v, node_id n)
{
	return !in->node[n].closed && (!p->ruled || nodeset_has(&p->allowed[v], n));
}

/* Could be ordered somewhere now. */
static bool movable(const struct place *p, const struct place_input *in, unsigned v)
{
	return p->vcpu[v].to == NODE_NONE && !in->vcpu[v].moving && p->vcpu[v].at == in->vcpu[v].at;
}

/* What it would mean for v to go to `to`. */
static struct place_verdict weigh(struct place *p, const struct place_input *in, unsigned v, node_id to)
{
	const struct evidence *e = &evidence_of(p, v)[to];
	const struct vcpu *x = &p->vcpu[v];
	struct place_verdict r = { .vcpu = (uint8_t)v, .from = x->at, .to = to, .burden = x->burden };
	uint32_t known = e->past ? (uint32_t)((uint64_t)(e->past - 1u) * x->time_us / MILLE) : 0;
	int64_t need;

	r.stall_us = r.saved_us = e->us;
	r.total_us = x->total_us;
	if (e->past && x->total_us < known + r.saved_us)
		r.saved_us = x->total_us > known ? x->total_us - known : 0;
	r.lack_us = lack_more(p, in, x, to);
	r.price_us = price(p, x->burden);
	need = (int64_t)PLACE_MARGIN * r.price_us;
	if (2 * (uint64_t)e->bounced_us > e->us)
		r.why = PLACE_PINGPONG;
	else
		r.why = e->us ? PLACE_SCAN : PLACE_LOAD;
	if (in->now_us < x->until_us || x->judging || coming(p, to, x->at))
		r.why = PLACE_HELD;
	else if ((e->us < need || e->steady < STEADY) && (r.lack_us >= 0 || in->now_us < p->load_until_us))
		r.why = 2 * (uint64_t)e->reads_us > e->us ? PLACE_COPY : PLACE_FETCH;
	else if ((int64_t)r.saved_us - r.lack_us < need)
		r.why = r.saved_us < r.stall_us ? PLACE_KNOWN : r.lack_us > 0 ? PLACE_BUSY : PLACE_FETCH;
	else if (p->has[to] >= in->node[to].most ||
		 p->demand[to] + x->demand > in->node[to].room * MILLE + ROOM_SLACK)
		r.why = PLACE_FULL;
	else if (e->us < need)
		r.why = PLACE_LOAD;
	return r;
}

static int64_t net(const struct place_verdict *r)
{
	return (int64_t)r->saved_us - r->lack_us;
}

/* The best place for v to go to, or the best reason to stay.  False: nothing to say. */
static bool consider(struct place *p, const struct place_input *in, unsigned v, struct place_verdict *out)
{
	const struct vcpu *x = &p->vcpu[v];
	bool any = false;

	for (unsigned n = 0; n < p->nodes; n++) {
		struct place_verdict r;

		if (n == x->at || !may_run(p, in, v, (node_id)n))
			continue;
		r = weigh(p, in, v, (node_id)n);
		if (!r.stall_us && !place_moves(r.why))
			continue;
		if (!any || place_moves(r.why) > place_moves(out->why) ||
		    (place_moves(r.why) == place_moves(out->why) && net(&r) > net(out)))
			*out = r;
		any = true;
	}
	return any;
}

/* Where v must go because it cannot stay: most waits, then most room for more. */
static bool evict(struct place *p, const struct place_input *in, unsigned v, struct place_verdict *out)
{
	const struct vcpu *x = &p->vcpu[v];
	int best_room = 0;
	bool any = false;

	for (unsigned n = 0; n < p->nodes; n++) {
		int room = (int)in->node[n].most - p->has[n];
		struct place_verdict r;

		if (n == x->at || !may_run(p, in, v, (node_id)n) || room <= 0)
			continue;
		r = weigh(p, in, v, (node_id)n);
		if (!any || r.stall_us > out->stall_us || (r.stall_us == out->stall_us && room > best_room)) {
			*out = r;
			best_room = room;
		}
		any = true;
	}
	out->why = in->node[x->at].closed ? PLACE_LEAVING : PLACE_RULE;
	return any;
}

static void order(struct place *p, const struct place_input *in, const struct place_verdict *r)
{
	struct vcpu *x = &p->vcpu[r->vcpu];

	x->before = waiting(x);
	x->before_all = p->time_us ? (uint32_t)((uint64_t)p->all_us * MILLE / p->time_us) : 0;
	x->paying = r->why == PLACE_SCAN || r->why == PLACE_PINGPONG;
	x->to = r->to;
	x->until_us = in->now_us + SETTLE_MOVES * settle(p);
	p->has[r->from] -= p->has[r->from] > 0;
	p->has[r->to]++;
	p->demand[r->from] -= x->demand < p->demand[r->from] ? x->demand : p->demand[r->from];
	p->demand[r->to] += x->demand;
	if (r->why == PLACE_LOAD)
		p->load_until_us = in->now_us + horizon(p);
	if (in->node[r->to].host != in->node[r->from].host) {
		uint32_t gone = MILLE / (in->node[r->from].cpus ? in->node[r->from].cpus : 1);

		p->load[r->to] += MILLE / (in->node[r->to].cpus ? in->node[r->to].cpus : 1);
		p->load[r->from] -= gone < p->load[r->from] ? gone : p->load[r->from];
	}
	spend(p, r->from, r->to, in->now_us);
}

static void say(struct place_output *out, const struct place_verdict *r)
{
	out->list[out->count++] = *r;
}

static void must_moves(struct place *p, const struct place_input *in, struct place_output *out)
{
	for (unsigned v = 0; v < p->vcpus && out->count < PLACE_MOVES_MAX; v++) {
		struct place_verdict r;

		if (!movable(p, in, v) || may_run(p, in, v, p->vcpu[v].at) || !evict(p, in, v, &r))
			continue;
		order(p, in, &r);
		say(out, &r);
	}
}

/* Best first; of equals the lower vCPU goes. */
static void paying_moves(struct place *p, const struct place_input *in, struct place_output *out)
{
	while (out->count < PLACE_MOVES_MAX) {
		struct place_verdict best, r;
		bool any = false;

		for (unsigned v = 0; v < p->vcpus; v++) {
			if (!movable(p, in, v) || !consider(p, in, v, &r) || !place_moves(r.why))
				continue;
			if (!any || net(&r) > net(&best))
				best = r;
			any = true;
		}
		if (!any)
			return;
		order(p, in, &best);
		say(out, &best);
	}
}

void place_step(struct place *p, const struct place_input *in, struct place_output *out)
{
	uint64_t dt = p->last_us ? in->now_us - p->last_us : p->period_us;

	memset(p->has, 0, sizeof(p->has));
	memset(p->demand, 0, sizeof(p->demand));
	for (unsigned n = 0; n < p->nodes; n++)
		p->load[n] = in->node[n].load;
	tally(p, in, bounded(dt));
	for (unsigned v = 0; v < p->vcpus; v++) {
		node_id at;

		absorb(p, v, in, bounded(dt));
		at = p->vcpu[v].to != NODE_NONE ? p->vcpu[v].to : in->vcpu[v].at;
		p->has[at]++;
		p->demand[at] += p->vcpu[v].demand;
	}
	p->last_us = in->now_us;
	out->count = out->moves = 0;
	out->lost_pages = p->costs.lost_pages / LOST_WEIGHT;
	out->horizon_us = horizon(p);
	if (p->pinned)
		return;
	must_moves(p, in, out);
	paying_moves(p, in, out);
	out->moves = out->count;
	for (unsigned v = 0; v < p->vcpus; v++) {
		struct place_verdict r;

		if (movable(p, in, v) && consider(p, in, v, &r) && !place_moves(r.why))
			say(out, &r);
	}
}
