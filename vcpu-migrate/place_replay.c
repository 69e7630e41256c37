/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_replay.c - reads a trace and runs the policy on it, once or twice; vcpu-migrate/place_trace.h.
 *
 * What      The inputs are what they were: a decision that differs from the recorded one does not change what vCPUs waited
 *           afterwards.  So with other prices it is the first difference of a vCPU that counts most.
 */
#include "vcpu-migrate/place_trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64u

/* One policy under way. */
struct run {
	struct place *place;
	void *mem;
	struct place_output out;
	struct place_verdict said[VCPUS_MAX]; /* what it said of each vCPU last */
	bool spoke[VCPUS_MAX];
	unsigned moves;
};

struct replay {
	const char *path;
	unsigned line;
	FILE *out, *errors;
	bool stays, ruled;
	struct place_what_if what_if;
	struct place_config cfg;
	struct nodeset may[VCPUS_MAX];
	char name[NODES_MAX][NAME_MAX_BYTES];
	struct place_node node[NODES_MAX];
	struct place_vcpu vcpu[VCPUS_MAX];
	struct place_stall *stall;
	unsigned runs;
	struct run run[2]; /* as recorded; with other prices */
	uint64_t first_us, last_us;
	unsigned steps;
	bool begun;
};

static int bad(struct replay *r, const char *why)
{
	fprintf(r->errors, "%s:%u: error: %s\n", r->path, r->line, why);
	return -EINVAL;
}

/* The next number of the line, up to `max`; ends at a space, ':' or ',' or the end.  False: none. */
static bool number(char **at, uint64_t max, uint64_t *out)
{
	char *end;

	while (**at == ' ')
		++*at;
	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*out = strtoull(*at, &end, 10);
	if (errno || *out > max)
		return false;
	*at = end;
	return true;
}

/* "WORD NUMBER" */
static bool named(char **at, const char *word, uint64_t max, uint64_t *out)
{
	size_t len = strlen(word);

	while (**at == ' ')
		++*at;
	if (strncmp(*at, word, len) || (*at)[len] != ' ')
		return false;
	*at += len;
	return number(at, max, out);
}

/* --- lines ------------------------------------------------------------------------------------------------------- */

static int on_head(struct replay *r, char *at)
{
	uint64_t version, nodes, vcpus, period, pinned, move, page, lost;

	if (!number(&at, 1, &version) || version != 1)
		return bad(r, "not version 1 of a trace");
	if (!named(&at, "nodes", NODES_MAX, &nodes) || !nodes || !named(&at, "vcpus", VCPUS_MAX, &vcpus) || !vcpus ||
	    !named(&at, "period", UINT32_MAX, &period) || !named(&at, "pinned", 1, &pinned) ||
	    !named(&at, "move", PLACE_COST_MAX, &move) || !named(&at, "page", PLACE_COST_MAX, &page) ||
	    !named(&at, "lost", PLACE_COST_MAX, &lost))
		return bad(r, "the first line of a trace is damaged");
	r->cfg = (struct place_config){ .nodes = (unsigned)nodes,
					.vcpus = (unsigned)vcpus,
					.period_us = (uint32_t)period,
					.pinned = pinned,
					.costs = { (uint32_t)move, (uint32_t)page, (uint32_t)lost } };
	r->stall = calloc((size_t)nodes * vcpus, sizeof(*r->stall));
	for (unsigned n = 0; n < nodes; n++)
		snprintf(r->name[n], NAME_MAX_BYTES, "%u", n);
	return r->stall ? 0 : -ENOMEM;
}

static int on_name(struct replay *r, char *at)
{
	uint64_t n;

	if (!number(&at, r->cfg.nodes - 1, &n) || *at != ' ')
		return bad(r, "a name of no node");
	snprintf(r->name[n], NAME_MAX_BYTES, "%s", at + 1);
	return 0;
}

static int on_may(struct replay *r, char *at)
{
	uint64_t v, n;

	if (r->begun || !number(&at, r->cfg.vcpus - 1, &v))
		return bad(r, "a rule of no vCPU, or after the first step");
	r->ruled = true;
	while (number(&at, r->cfg.nodes - 1, &n))
		nodeset_add(&r->may[v], (node_id)n);
	return *at ? bad(r, "a rule of no node") : 0;
}

static int on_node(struct replay *r, char *at)
{
	uint64_t n, room, most, cpus, host, load, closed;

	if (!number(&at, r->cfg.nodes - 1, &n) || !number(&at, UINT16_MAX, &room) || !number(&at, UINT16_MAX, &most) ||
	    !number(&at, UINT16_MAX, &cpus) ||
	    !number(&at, UINT16_MAX, &host) || !number(&at, UINT16_MAX, &load) || !number(&at, 1, &closed) || *at)
		return bad(r, "a node's line is damaged");
	r->node[n] = (struct place_node){ (uint16_t)room, (uint16_t)most, (uint16_t)cpus, (uint16_t)host, (uint16_t)load, closed };
	return 0;
}

static int on_vcpu(struct replay *r, char *at)
{
	uint64_t v, node, moving, busy, n, waits, reads, bounced, us;

	if (!number(&at, r->cfg.vcpus - 1, &v) || !number(&at, r->cfg.nodes - 1, &node) || !number(&at, 1, &moving) ||
	    !number(&at, UINT32_MAX, &busy))
		return bad(r, "a vCPU's line is damaged");
	r->vcpu[v] = (struct place_vcpu){ (node_id)node, moving, (uint32_t)busy };
	while (number(&at, r->cfg.nodes - 1, &n)) {
		if (*at++ != ':' || !number(&at, UINT32_MAX, &waits) || *at++ != ',' ||
		    !number(&at, UINT32_MAX, &reads) || *at++ != ',' || !number(&at, UINT32_MAX, &bounced) ||
		    *at++ != ',' || !number(&at, UINT32_MAX, &us))
			return bad(r, "a vCPU's waits are damaged");
		r->stall[v * r->cfg.nodes + n] = (struct place_stall){ (uint32_t)waits, (uint32_t)reads,
								       (uint32_t)bounced, (uint32_t)us };
	}
	return *at ? bad(r, "a vCPU's waits are damaged") : 0;
}

static int on_costs(struct replay *r, char *at)
{
	uint64_t move, page;

	if (!number(&at, PLACE_COST_MAX, &move) || !number(&at, PLACE_COST_MAX, &page) || *at)
		return bad(r, "a line of costs is damaged");
	r->cfg.costs.move_us = (uint32_t)move;
	r->cfg.costs.page_us = (uint32_t)page;
	for (unsigned i = 0; i < r->runs && r->begun; i++)
		place_costs_set(r->run[i].place, i && r->what_if.move_us ? r->what_if.move_us : (uint32_t)move,
				i && r->what_if.page_us ? r->what_if.page_us : (uint32_t)page);
	return 0;
}

/* --- what it says ------------------------------------------------------------------------------------------------ */

static void say(struct replay *r, uint64_t now_us, char mark, const struct place_verdict *v)
{
	fprintf(r->out,
		"%c %9.3f s  vCPU %u at %s%s%s, %s: %s (waited %u us for it of %u us; would save %u, lack %" PRId32
		" of CPU; price %u",
		mark, (double)(now_us - r->first_us) / 1e6, v->vcpu, r->name[v->from],
		place_moves(v->why) ? " -> " : ", not to ", r->name[v->to], place_why_name(v->why), place_why_text(v->why),
		v->stall_us, v->total_us, v->saved_us, v->lack_us, v->price_us);
	fprintf(r->out, v->burden ? ", %u moves did not pay)\n" : ")\n", v->burden);
}

static const struct place_verdict *of_vcpu(const struct run *u, unsigned v)
{
	for (unsigned i = 0; i < u->out.count; i++)
		if (u->out.list[i].vcpu == v)
			return &u->out.list[i];
	return NULL;
}

static bool same(const struct place_verdict *a, const struct place_verdict *b)
{
	return a->why == b->why && a->to == b->to && a->from == b->from;
}

/* Worth a line: a move, or another reason to stay than before. */
static bool news(struct replay *r, struct run *u, const struct place_verdict *v)
{
	bool is;

	if (!v)
		return false;
	is = place_moves(v->why) || (r->stays && (!u->spoke[v->vcpu] || !same(&u->said[v->vcpu], v)));
	u->said[v->vcpu] = *v;
	u->spoke[v->vcpu] = true;
	return is;
}

static void compare(struct replay *r, uint64_t now_us)
{
	for (unsigned v = 0; v < r->cfg.vcpus; v++) {
		const struct place_verdict *a = of_vcpu(&r->run[0], v);
		const struct place_verdict *b = r->runs > 1 ? of_vcpu(&r->run[1], v) : NULL;
		bool is_a = news(r, &r->run[0], a), is_b = r->runs > 1 && news(r, &r->run[1], b);

		if (r->runs == 1 || (is_a && is_b && same(a, b))) {
			if (is_a)
				say(r, now_us, ' ', a);
			continue;
		}
		if (is_a)
			say(r, now_us, '-', a);
		if (is_b)
			say(r, now_us, '+', b);
	}
}

static int begin(struct replay *r)
{
	r->begun = true;
	r->cfg.allowed = r->ruled ? r->may : NULL;
	for (unsigned i = 0; i < r->runs; i++) {
		struct place_config cfg = r->cfg;

		if (i && r->what_if.move_us)
			cfg.costs.move_us = r->what_if.move_us;
		if (i && r->what_if.page_us)
			cfg.costs.page_us = r->what_if.page_us;
		if (i && r->what_if.unpinned)
			cfg.pinned = false;
		if (i && r->what_if.lost_pages)
			cfg.costs.lost_pages = r->what_if.lost_pages;
		r->run[i].mem = malloc(place_bytes(cfg.nodes, cfg.vcpus));
		if (!r->run[i].mem)
			return -ENOMEM;
		r->run[i].place = place_init(&cfg, r->run[i].mem);
	}
	return 0;
}

static int on_step(struct replay *r, char *at)
{
	struct place_input in = { .node = r->node, .vcpu = r->vcpu, .stall = r->stall };
	int err = r->begun ? 0 : begin(r);

	if (err)
		return err;
	if (!number(&at, UINT64_MAX / 2, &in.now_us) || *at || in.now_us < r->last_us || !in.now_us)
		return bad(r, "a step without its time, or before the last one");
	for (unsigned n = 0; n < r->cfg.nodes; n++)
		if (!r->node[n].cpus)
			return bad(r, "a step before all nodes were told");
	if (!r->steps++)
		r->first_us = in.now_us;
	r->last_us = in.now_us;
	for (unsigned i = 0; i < r->runs; i++) {
		place_step(r->run[i].place, &in, &r->run[i].out);
		r->run[i].moves += r->run[i].out.moves;
	}
	compare(r, in.now_us);
	memset(r->stall, 0, (size_t)r->cfg.nodes * r->cfg.vcpus * sizeof(*r->stall));
	for (unsigned v = 0; v < r->cfg.vcpus; v++)
		r->vcpu[v].busy_us = 0;
	return 0;
}

/* --- the file ---------------------------------------------------------------------------------------------------- */

static int on_line(struct replay *r, char *text)
{
	static const struct {
		const char *word;
		int (*take)(struct replay *r, char *at);
	} lines[] = { { "name ", on_name }, { "may ", on_may },	    { "node ", on_node },
		      { "vcpu ", on_vcpu }, { "costs ", on_costs }, { "step ", on_step } };

	text[strcspn(text, "\n")] = 0;
	if (!r->stall)
		return strncmp(text, "unum-place ", 11) ? bad(r, "not a trace of the placement") : on_head(r, text + 11);
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++)
		if (!strncmp(text, lines[i].word, strlen(lines[i].word)))
			return lines[i].take(r, text + strlen(lines[i].word));
	return bad(r, "not a line of a trace");
}

static void sum_up(const struct replay *r)
{
	const struct place_costs *c = &r->cfg.costs;
	const struct place_what_if *w = &r->what_if;

	fprintf(r->out, "%u steps in %.3f s; a move %u us, a page %u us, %u pages lost: %u moves\n", r->steps,
		(double)(r->last_us - r->first_us) / 1e6, c->move_us, c->page_us, c->lost_pages, r->run[0].moves);
	if (r->runs > 1)
		fprintf(r->out, "with a move %u us, a page %u us, %u pages lost%s: %u moves\n",
			w->move_us ? w->move_us : c->move_us, w->page_us ? w->page_us : c->page_us,
			w->lost_pages ? w->lost_pages : c->lost_pages, w->unpinned ? ", not pinned" : "", r->run[1].moves);
}

int place_replay(const char *path, const struct place_what_if *w, bool stays, FILE *out, FILE *errors)
{
	struct replay *r = calloc(1, sizeof(*r));
	char *line = malloc(PLACE_TRACE_LINE_MAX);
	FILE *f = fopen(path, "re");
	int err = !f ? -errno : !r || !line ? -ENOMEM : 0;

	if (!err) {
		*r = (struct replay){ .path = path, .out = out, .errors = errors, .stays = stays, .what_if = *w };
		r->runs = w->move_us || w->page_us || w->lost_pages || w->unpinned ? 2 : 1;
	}
	while (!err && fgets(line, PLACE_TRACE_LINE_MAX, f)) {
		r->line++;
		/* A last line without its end was cut off when the slice was killed. */
		err = strchr(line, '\n') ? on_line(r, line) : feof(f) ? 0 : bad(r, "the line is too long");
	}
	if (!err && !r->stall)
		err = bad(r, "not a trace of the placement");
	if (!err)
		sum_up(r);
	if (r) {
		free(r->run[0].mem);
		free(r->run[1].mem);
		free(r->stall);
	}
	free(r);
	free(line);
	if (f)
		fclose(f);
	return err;
}
