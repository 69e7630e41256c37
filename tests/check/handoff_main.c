/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/handoff_main.c - every reachable state of a vCPU that moves among a few nodes (core/handoff).
 *
 * What      Breadth first from the initial state over all moves of tests/check/handoff.h.  After each move the
 *           invariants must hold; and from each state the world, once nothing goes wrong any more, must come
 *           to rest as it should.
 * Owns      All memory of the search.   Threads  One.   I/O  stdout.
 * Limits    --states (default 20 million); memory.
 *
 *   handoff                       the worlds of `make check`;  --deep: those of `make test`;  --small: for mutants
 *   handoff --nodes N --orders O [--wild] [--cuts] [--kills K] [--ticks T] [--ipis I] [--refuse] [--fail]
 *           [--greet] [--states N]
 */
#include "base/clock.h"
#include "tests/check/search.h"
#include "tests/check/handoff.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct search {
	struct hw w;
	struct hw_bag bag;
	uint8_t *bytes; /* encodings, one after the other */
	size_t bytes_used, bytes_max;
	uint64_t *at;	  /* [state] offset into bytes */
	uint32_t *parent; /* [state] */
	struct hw_move *by; /* [state] move from the parent */
	uint32_t count, max;
	uint32_t *table; /* state + 1, open addressing */
	uint64_t table_size;
	uint64_t moves;
	unsigned depth, hops;
	const char *broken;
	uint32_t broken_from;
	struct hw_move broken_by; /* kind 0xff: none, the state itself */
};

static void table_grow(struct search *s)
{
	s->table_size = s->table_size ? s->table_size * 2 : 1u << 16;
	s->table = grow(s->table, s->table_size * sizeof(*s->table));
	memset(s->table, 0, s->table_size * sizeof(*s->table));
	for (uint32_t i = 0; i < s->count; i++) {
		uint64_t h = hash(s->bytes + s->at[i], s->at[i + 1] - s->at[i]);

		while (s->table[h & (s->table_size - 1)])
			h++;
		s->table[h & (s->table_size - 1)] = i + 1;
	}
}

static void states_grow(struct search *s)
{
	s->max = s->max ? s->max * 2 : 1u << 16;
	s->at = grow(s->at, sizeof(*s->at) * (s->max + 1ul));
	s->parent = grow(s->parent, sizeof(*s->parent) * s->max);
	s->by = grow(s->by, sizeof(*s->by) * s->max);
	s->at[0] = 0;
}

/* Adds the world's present state if it is new. */
static void state_intern(struct search *s, uint32_t parent, struct hw_move by)
{
	uint8_t enc[HW_BYTES];
	size_t len = hw_encode(&s->w, enc);
	uint64_t h = hash(enc, len);
	uint32_t i;

	if (s->count * 2ull >= s->table_size)
		table_grow(s);
	for (; (i = s->table[h & (s->table_size - 1)]) != 0; h++)
		if (s->at[i] - s->at[i - 1] == len && !memcmp(s->bytes + s->at[i - 1], enc, len))
			return;
	if (s->count == s->max)
		states_grow(s);
	if (s->bytes_used + len > s->bytes_max) {
		s->bytes_max = s->bytes_max ? s->bytes_max * 2 : 1u << 22;
		s->bytes = grow(s->bytes, s->bytes_max);
	}
	memcpy(s->bytes + s->bytes_used, enc, len);
	s->bytes_used += len;
	s->parent[s->count] = parent;
	s->by[s->count] = by;
	s->at[s->count + 1] = s->bytes_used;
	s->table[h & (s->table_size - 1)] = ++s->count;
}

static void state_load(struct search *s, uint32_t i)
{
	uint8_t enc[HW_BYTES] = { 0 };

	memcpy(enc, s->bytes + s->at[i], s->at[i + 1] - s->at[i]);
	hw_decode(&s->w, enc);
}

static bool is_broken(struct search *s, const char *what, uint32_t from, struct hw_move by)
{
	s->broken = what;
	s->broken_from = from;
	s->broken_by = by;
	return what != NULL;
}

static void state_expand(struct search *s, uint32_t i)
{
	static const struct hw_move none = { .kind = 0xff };
	struct hw_move moves[HW_MOVES];
	struct hw state;
	unsigned count;

	state_load(s, i);
	if (is_broken(s, hw_ending(&s->w), i, none))
		return;
	count = hw_moves(&s->w, moves);
	state = s->w;
	for (unsigned k = 0; k < count; k++) {
		s->w = state;
		hw_move(&s->w, moves[k]);
		s->moves++;
		if (is_broken(s, s->w.broken, i, moves[k]))
			return;
		if (s->hops < s->w.hops)
			s->hops = s->w.hops;
		s->w.hops = 0;
		state_intern(s, i, moves[k]);
	}
	is_broken(s, state.broken, i, none);
}

static void trace_print(struct search *s)
{
	uint32_t *path = NULL;
	unsigned len = 0;

	for (uint32_t i = s->broken_from; i != 0; i = s->parent[i]) {
		path = grow(path, sizeof(*path) * (len + 1));
		path[len++] = i;
	}
	printf("VIOLATION %s, after %u moves:\n", s->broken, len + (s->broken_by.kind != 0xff));
	state_load(s, 0);
	for (;;) {
		struct hw_move m = len ? s->by[path[len - 1]] : s->broken_by;

		if (m.kind == 0xff)
			break;
		hw_move_print(&s->w, m);
		hw_move(&s->w, m);
		hw_print(&s->w);
		if (len-- == 0)
			break;
	}
	free(path);
}

static void result_print(const struct search *s, bool whole, double seconds)
{
	const struct hw_config *c = s->w.cfg;

	printf("%u nodes, %u moves, %s%s%s%s", c->nodes, c->orders, c->wild ? "wild" : "in order",
	       c->refuse ? ", refusals" : "", c->fail ? ", failing installs" : "", c->cuts ? ", cuts" : "");
	if (c->greet)
		printf(", greetings");
	if (c->kills)
		printf(", %u killed", c->kills);
	if (c->ticks)
		printf(", %u ticks", c->ticks);
	if (c->ipis)
		printf(", %u interrupts (passed on %u times at most)", c->ipis, s->hops);
	printf(": %u states, %llu steps, depth %u%s, %.1f s\n", s->count, (unsigned long long)s->moves, s->depth,
	       whole ? "" : " (cut off)", seconds);
}

/* 0 or 1 violations (the search stops at the first, which has the shortest trace). */
static int world_check(const struct hw_config *cfg, uint64_t states_max)
{
	struct search s = { 0 };
	uint64_t began_ns = clock_now_ns();
	uint32_t level_end = 1;
	bool whole = true;

	if (cfg->nodes > HW_NODES || cfg->orders > HW_GENS || cfg->ipis > HW_IPIS) {
		fprintf(stderr, "handoff: no such world\n");
		exit(2);
	}
	hw_init(&s.w, cfg, &s.bag);
	table_grow(&s);
	states_grow(&s);
	state_intern(&s, 0, (struct hw_move){ 0 });
	for (uint32_t i = 0; i < s.count && !s.broken; i++) {
		if (i == level_end) {
			s.depth++;
			level_end = s.count;
		}
		if (s.count >= states_max) {
			whole = false;
			break;
		}
		state_expand(&s, i);
	}
	result_print(&s, whole && !s.broken, (double)(clock_now_ns() - began_ns) / 1e9);
	if (s.broken)
		trace_print(&s);
	fflush(stdout);
	free(s.bytes);
	free(s.at);
	free(s.parent);
	free(s.by);
	free(s.table);
	return s.broken != NULL;
}

#define ALL_REFUSALS .refuse = true, .fail = true

/* For every `make check`: seconds. */
static const struct hw_config worlds[] = {
	{ .nodes = 2, .orders = 4, .wild = true, ALL_REFUSALS, .cuts = true, .greet = true },
	{ .nodes = 3, .orders = 3, .wild = true, ALL_REFUSALS, .greet = true },
	{ .nodes = 3, .orders = 2, .wild = true, ALL_REFUSALS, .cuts = true },
	{ .nodes = 2, .orders = 3, ALL_REFUSALS, .kills = 1, .ticks = 2, .ipis = 1 },
	{ .nodes = 2, .orders = 3, ALL_REFUSALS, .ticks = 1, .ipis = 2, .greet = true },
	{ .nodes = 3, .orders = 2, ALL_REFUSALS, .kills = 1, .ticks = 1, .ipis = 1 },
	{ .nodes = 3, .orders = 3, ALL_REFUSALS, .ipis = 2 },
};

/* For the mutants: a quarter of a second. */
static const struct hw_config worlds_small[] = {
	{ .nodes = 2, .orders = 3, .wild = true, ALL_REFUSALS, .cuts = true, .greet = true },
	{ .nodes = 3, .orders = 2, .wild = true, ALL_REFUSALS, .greet = true },
	{ .nodes = 2, .orders = 2, ALL_REFUSALS, .kills = 1, .ticks = 1, .ipis = 1 },
	{ .nodes = 3, .orders = 2, .fail = true, .ipis = 1 },
};

/* For `make test`. */
static const struct hw_config worlds_deep[] = {
	{ .nodes = 2, .orders = 5, .wild = true, ALL_REFUSALS, .cuts = true, .greet = true },
	{ .nodes = 3, .orders = 4, .wild = true, ALL_REFUSALS, .greet = true },
	{ .nodes = 3, .orders = 3, .wild = true, ALL_REFUSALS, .cuts = true },
	{ .nodes = 3, .orders = 3, ALL_REFUSALS, .kills = 1, .ticks = 1, .ipis = 1, .greet = true },
	{ .nodes = 3, .orders = 4, .fail = true, .ipis = 2 },
	{ .nodes = 3, .orders = 3, ALL_REFUSALS, .ticks = 1, .ipis = 2 },
	{ .nodes = 3, .orders = 2, ALL_REFUSALS, .kills = 2, .ticks = 1, .ipis = 2 },
};

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "nodes", required_argument, NULL, 'n' }, { "orders", required_argument, NULL, 'o' },
		{ "ipis", required_argument, NULL, 'i' },  { "ticks", required_argument, NULL, 't' },
		{ "kills", required_argument, NULL, 'k' }, { "states", required_argument, NULL, 's' },
		{ "wild", no_argument, NULL, 'w' },	   { "cuts", no_argument, NULL, 'c' },
		{ "refuse", no_argument, NULL, 'r' },	   { "fail", no_argument, NULL, 'f' },
		{ "greet", no_argument, NULL, 'g' },
		{ "deep", no_argument, NULL, 'D' },	   { "small", no_argument, NULL, 'S' },
		{ NULL, 0, NULL, 0 },
	};
	struct hw_config c = { .nodes = 2, .orders = 2 };
	unsigned long long states = 20000000;
	const struct hw_config *list = &c;
	size_t count = 1;
	int opt, violations = 0;

	if (argc == 1) {
		list = worlds;
		count = ARRAY_LEN(worlds);
	}
	while ((opt = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (opt) {
		case 'n': c.nodes = (unsigned)atoi(optarg); break;
		case 'o': c.orders = (unsigned)atoi(optarg); break;
		case 'i': c.ipis = (unsigned)atoi(optarg); break;
		case 't': c.ticks = (unsigned)atoi(optarg); break;
		case 'k': c.kills = (unsigned)atoi(optarg); break;
		case 's': states = strtoull(optarg, NULL, 0); break;
		case 'w': c.wild = true; break;
		case 'c': c.cuts = true; break;
		case 'r': c.refuse = true; break;
		case 'f': c.fail = true; break;
		case 'g': c.greet = true; break;
		case 'D': list = worlds_deep; count = ARRAY_LEN(worlds_deep); break;
		case 'S': list = worlds_small; count = ARRAY_LEN(worlds_small); break;
		default: return 2;
		}
	}
	for (size_t i = 0; i < count; i++)
		violations += world_check(&list[i], states);
	printf("%d passed, %d failed, 0 skipped\n%d violations\n", (int)count - violations, violations, violations);
	return violations != 0;
}
