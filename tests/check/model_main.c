/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model_main.c - every reachable state of small VMs around the production protocol core.
 *
 * What      Breadth first from the initial state over all moves.  After each move the invariants must hold;
 *           where nothing moves by itself nobody may wait; and moves that happen by themselves must come to
 *           an end from everywhere (no cycle among them), so every request is served whatever the order.
 * Owns      All memory of the search.   Threads  One.   I/O  stdout.
 * Limits    --states (default 40 million); memory.
 *
 *   model                         the worlds of `make check`;  --deep: those of `make test`;  --small: for mutants
 *   model --nodes 3 --pages 1 [--requests R] [--migratory E,P] [--no-evict] [--no-hold] [--writes] [--loss] [--collect THREADS] [--collect-only]
 *         [--depth D] [--states N] [--observe FILE: the states, as observe.h has them]
 */
#include "base/clock.h"
#include "tests/check/search.h"
#include "tests/check/model.h"
#include "tests/check/observe.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct search {
	struct model w;
	uint8_t *bytes; /* encodings, one after the other */
	size_t bytes_used, bytes_max;
	uint64_t *at;	  /* [state] offset into bytes */
	uint32_t *parent; /* [state] */
	struct move *by;  /* [state] move from the parent */
	uint64_t *edges_at; /* [state] first of its own-motion edges; [count]: end */
	uint32_t *edges;    /* states reached by moves that happen by themselves */
	uint64_t edges_used, edges_max;
	uint32_t count, max;
	uint32_t *table; /* state + 1, open addressing */
	uint64_t table_size;
	uint64_t moves;
	unsigned depth;
	uint32_t longest; /* moves that happen by themselves until rest, at most */
	const char *broken;
	uint32_t broken_from;
	struct move broken_by;
};

static void table_grow(struct search *s)
{
	s->table_size = s->table_size ? s->table_size * 2 : 1u << 16;
	free(s->table);
	s->table = calloc(s->table_size, sizeof(*s->table));
	if (!s->table) {
		fprintf(stderr, "model: out of memory\n");
		exit(2);
	}
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
	s->edges_at = grow(s->edges_at, sizeof(*s->edges_at) * (s->max + 1ul));
	s->parent = grow(s->parent, sizeof(*s->parent) * s->max);
	s->by = grow(s->by, sizeof(*s->by) * s->max);
	s->at[0] = s->edges_at[0] = 0;
}

/* The number of the model's present state, known or new. */
static uint32_t state_intern(struct search *s, uint32_t parent, struct move by)
{
	uint8_t enc[MODEL_BYTES];
	size_t len = model_encode(&s->w, enc);
	uint64_t h = hash(enc, len);
	uint32_t i;

	if (s->count * 2ull >= s->table_size)
		table_grow(s);
	for (; (i = s->table[h & (s->table_size - 1)]) != 0; h++)
		if (s->at[i] - s->at[i - 1] == len && !memcmp(s->bytes + s->at[i - 1], enc, len))
			return i - 1;
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
	return s->count - 1;
}

static void edge_add(struct search *s, uint32_t to)
{
	if (s->edges_used == s->edges_max) {
		s->edges_max = s->edges_max ? s->edges_max * 2 : 1u << 20;
		s->edges = grow(s->edges, sizeof(*s->edges) * s->edges_max);
	}
	s->edges[s->edges_used++] = to;
}

static void state_load(struct search *s, uint32_t i)
{
	uint8_t enc[MODEL_BYTES] = { 0 };

	memcpy(enc, s->bytes + s->at[i], s->at[i + 1] - s->at[i]);
	model_decode(&s->w, enc);
}

static void state_expand(struct search *s, uint32_t i)
{
	struct proto_effects fx;
	struct move moves[MODEL_MOVES];
	unsigned count;
	uint64_t edges = s->edges_used;

	state_load(s, i);
	count = model_moves(&s->w, moves);
	for (unsigned k = 0; k < count; k++) {
		uint32_t to;

		if (k > 0)
			state_load(s, i);
		model_move(&s->w, moves[k], &fx);
		s->moves++;
		if (s->w.broken) {
			s->broken = s->w.broken;
			s->broken_from = i;
			s->broken_by = moves[k];
			return;
		}
		to = state_intern(s, i, moves[k]);
		if (moves[k].kind < MOVE_FREE && to != i)
			edge_add(s, to);
	}
	/* Nothing leads on by itself: then everything must be at rest. */
	if (edges == s->edges_used) {
		state_load(s, i);
		s->broken = model_rest(&s->w);
		s->broken_from = i;
		s->broken_by = (struct move){ .kind = 0xff };
	}
}

/*
 * Depth first over the moves that happen by themselves: a cycle would be a schedule on which somebody waits
 * for ever.  Also the longest such path, the bound on moves until all requests are served.
 */
static void check_endings(struct search *s)
{
	uint32_t *stack = grow(NULL, sizeof(*stack) * (s->count + 1ul));
	uint64_t *next = grow(NULL, sizeof(*next) * (s->count + 1ul));
	uint32_t *rank = grow(NULL, sizeof(*rank) * (s->count + 1ul));
	uint8_t *seen = calloc(1, s->count + 1ul); /* 1: on the stack, 2: done */

	memset(rank, 0, sizeof(*rank) * (s->count + 1ul));
	for (uint32_t root = 0; seen && root < s->count && !s->broken; root++) {
		uint32_t top = 0;

		if (seen[root])
			continue;
		stack[0] = root;
		next[root] = s->edges_at[root];
		seen[root] = 1;
		for (;;) {
			uint32_t i = stack[top], to;

			if (next[i] == s->edges_at[i + 1]) {
				seen[i] = 2;
				if (rank[i] > s->longest)
					s->longest = rank[i];
				if (top == 0)
					break;
				top--;
				if (rank[stack[top]] < rank[i] + 1)
					rank[stack[top]] = rank[i] + 1;
				continue;
			}
			to = s->edges[next[i]++];
			if (seen[to] == 1) {
				s->broken = "I8: moves that happen by themselves go round in a circle";
				s->broken_from = i;
				s->broken_by = (struct move){ .kind = 0xff };
				break;
			}
			if (seen[to] == 2) {
				if (rank[i] < rank[to] + 1)
					rank[i] = rank[to] + 1;
				continue;
			}
			seen[to] = 1;
			next[to] = s->edges_at[to];
			stack[++top] = to;
		}
	}
	free(stack);
	free(next);
	free(rank);
	free(seen);
}

static void trace_print(struct search *s)
{
	struct proto_effects fx;
	uint32_t *path = NULL;
	unsigned len = 0;

	for (uint32_t i = s->broken_from; i != 0; i = s->parent[i]) {
		path = grow(path, sizeof(*path) * (len + 1));
		path[len++] = i;
	}
	printf("VIOLATION %s, after %u moves:\n", s->broken, len + (s->broken_by.kind != 0xff));
	state_load(s, 0);
	while (len--) {
		model_move(&s->w, s->by[path[len]], &fx);
		model_move_print(&s->w, s->by[path[len]], &fx);
		model_print(&s->w);
	}
	if (s->broken_by.kind != 0xff) {
		model_move(&s->w, s->broken_by, &fx);
		model_move_print(&s->w, s->broken_by, &fx);
		model_print(&s->w);
	}
	free(path);
}

static void states_write(struct search *s, const char *path)
{
	struct observed_set *all = observed_open();
	FILE *f = fopen(path, "w");
	struct observed o;

	for (uint32_t i = 0; i < s->count; i++) {
		state_load(s, i);
		model_observe(&s->w, &o);
		observed_add(all, &o);
	}
	if (!f || (observed_write(all, f), fclose(f))) {
		perror(path);
		exit(2);
	}
	observed_close(all);
}

static void search_free(struct search *s)
{
	model_free(&s->w);
	free(s->bytes);
	free(s->at);
	free(s->parent);
	free(s->by);
	free(s->edges_at);
	free(s->edges);
	free(s->table);
}

static void result_print(const struct search *s, bool whole, double seconds)
{
	const struct model_config *c = &s->w.cfg;
	const struct model_seen *seen = &s->w.seen;

	printf("%u nodes x %u pages, %u requests%s%s%s%s, %u collect, migratory %u,%u: %u states, %llu moves, depth %u%s, ",
	       c->nodes, c->pages, c->requests, c->evict ? ", evict" : "", c->hold ? ", hold" : "",
	       c->loss ? ", loss" : "", c->writes_only ? ", writes only" : c->collect_only ? ", collectors only" : "", c->collectors, c->mig_evidence, c->mig_probe,
	       s->count, (unsigned long long)s->moves, s->depth, whole ? "" : " (cut off)");
	if (whole && !s->broken)
		printf("served within %u moves, ", s->longest);
	printf("passed %u times, messages of a grant", seen->ahead);
	for (unsigned k = 0; k < c->nodes; k++)
		printf(" %u", seen->grant_cost[k]);
	printf(", of an eviction %u, %.1f s\n", seen->evict_cost, seconds);
}

/* 0 or 1 violations (the search stops at the first, which has the shortest trace). */
static int world_check(const struct model_config *cfg, uint64_t states_max, const char *observe)
{
	struct search s = { 0 };
	uint64_t began_ns = clock_now_ns();
	uint32_t level_end = 1, i;
	bool whole = true;

	if (!model_init(&s.w, cfg)) {
		fprintf(stderr, "model: no such world\n");
		exit(2);
	}
	table_grow(&s);
	states_grow(&s);
	state_intern(&s, 0, (struct move){ 0 });
	for (i = 0; i < s.count && !s.broken; i++) {
		if (i == level_end) {
			s.depth++;
			level_end = s.count;
		}
		if ((cfg->depth && s.depth >= cfg->depth) || s.count >= states_max) {
			whole = false;
			break;
		}
		state_expand(&s, i);
		s.edges_at[i + 1] = s.edges_used;
	}
	if (!s.broken && whole)
		check_endings(&s);
	result_print(&s, whole, (double)(clock_now_ns() - began_ns) / 1e9);
	if (s.broken)
		trace_print(&s);
	fflush(stdout);
	if (observe && !s.broken)
		states_write(&s, observe);
	search_free(&s);
	return s.broken != NULL;
}

/* For every `make check`: seconds. */
static const struct model_config worlds[] = {
	{ .nodes = 1, .pages = 2, .requests = 4, .evict = true, .hold = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 2, .pages = 1, .requests = 2, .evict = true, .hold = true, .mig_evidence = 2, .mig_probe = 3 },
	{ .nodes = 3, .pages = 1, .requests = 2, .evict = true, .hold = true, .mig_evidence = 2, .mig_probe = 2 },
	{ .nodes = 3, .pages = 1, .requests = 1, .evict = true, .hold = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 2, .pages = 2, .requests = 4, .hold = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 2, .pages = 1, .requests = 2, .evict = true, .hold = true, .loss = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 2, .pages = 2, .requests = 4, .loss = true },
	{ .nodes = 2, .pages = 2, .requests = 8, .evict = true, .hold = true, .writes_only = true, .collectors = 1 },
	{ .nodes = 2, .pages = 2, .requests = 8, .hold = true, .writes_only = true, .collectors = 2 },
	{ .nodes = 2, .pages = 2, .requests = 8, .evict = true, .hold = true, .collect_only = true, .collectors = 1 },
};

/* For the mutants: under a second. */
static const struct model_config worlds_small[] = {
	{ .nodes = 2, .pages = 1, .requests = 2, .evict = true, .hold = true, .mig_evidence = 2, .mig_probe = 3 },
	{ .nodes = 2, .pages = 1, .requests = 1, .evict = true, .hold = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 3, .pages = 1, .requests = 2, .evict = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 2, .pages = 2, .requests = 8, .hold = true, .collect_only = true, .collectors = 1 },
	{ .nodes = 2, .pages = 2, .requests = 8, .hold = true, .collect_only = true, .collectors = 2, .depth = 12 },
	{ .nodes = 2, .pages = 2, .requests = 8, .hold = true, .collectors = 1, .depth = 6 },
};

/* For `make test`, beside the first. */
static const struct model_config worlds_deep[] = {
	{ .nodes = 2, .pages = 2, .requests = 4, .evict = true, .hold = true, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 3, .pages = 1, .requests = 2, .loss = true },
	{ .nodes = 2, .pages = 2, .requests = 4, .hold = true, .loss = true },
	{ .nodes = 2, .pages = 2, .requests = 1, .loss = true },
	{ .nodes = 3, .pages = 2, .requests = 4, .evict = true, .loss = true, .depth = 7 },
	{ .nodes = 3, .pages = 2, .requests = 8, .hold = true, .writes_only = true, .collectors = 1 },
	{ .nodes = 2, .pages = 2, .requests = 8, .hold = true, .collect_only = true, .collectors = 2, .depth = 15 },
	{ .nodes = 2, .pages = 2, .requests = 8, .evict = true, .hold = true, .collectors = 1, .depth = 8 },
	{ .nodes = 4, .pages = 1, .requests = 2, .mig_evidence = 1, .mig_probe = 1 },
	{ .nodes = 4, .pages = 1, .requests = 2, .evict = true, .hold = true, .mig_evidence = 1, .mig_probe = 1, .depth = 13 },
};

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "nodes", required_argument, NULL, 'n' },     { "pages", required_argument, NULL, 'p' },
		{ "requests", required_argument, NULL, 'r' },  { "migratory", required_argument, NULL, 'm' },
		{ "no-evict", no_argument, NULL, 'e' },	       { "no-hold", no_argument, NULL, 'h' },
		{ "writes", no_argument, NULL, 'w' },	       { "depth", required_argument, NULL, 'd' },
		{ "states", required_argument, NULL, 's' },    { "deep", no_argument, NULL, 'D' },
		{ "small", no_argument, NULL, 'S' },	       { "loss", no_argument, NULL, 'l' },
		{ "observe", required_argument, NULL, 'o' },    { "collect", required_argument, NULL, 'c' },
		{ "collect-only", no_argument, NULL, 'C' },
		{ NULL, 0, NULL, 0 },
	};
	struct model_config c = { .nodes = 3, .pages = 1, .evict = true, .hold = true };
	unsigned long long states = 40000000;
	const struct model_config *list = NULL;
	const char *observe = NULL;
	size_t count = 0;
	int opt, violations = 0;

	while ((opt = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (opt) {
		case 'n': c.nodes = (unsigned)atoi(optarg); break;
		case 'p': c.pages = (unsigned)atoi(optarg); break;
		case 'r': c.requests = (unsigned)atoi(optarg); break;
		case 'm':
			if (sscanf(optarg, "%u,%u", &c.mig_evidence, &c.mig_probe) != 2)
				return 2;
			break;
		case 'e': c.evict = false; break;
		case 'h': c.hold = false; break;
		case 'w': c.writes_only = true; break;
		case 'D': list = worlds_deep; count = ARRAY_LEN(worlds_deep); break;
		case 'S': list = worlds_small; count = ARRAY_LEN(worlds_small); break;
		case 'd': c.depth = (unsigned)atoi(optarg); break;
		case 'l': c.loss = true; break;
		case 'C': c.collect_only = true; break;
		case 'c': c.collectors = (unsigned)atoi(optarg); break;
		case 'o': observe = optarg; break;
		case 's': states = strtoull(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	if (c.requests == 0)
		c.requests = 2 * c.pages;
	if (!list && argc == 1) {
		list = worlds;
		count = ARRAY_LEN(worlds);
	}
	if (!list) {
		list = &c;
		count = 1;
	}
	for (size_t i = 0; i < count; i++)
		violations += world_check(&list[i], states, observe);
	printf("%d passed, %d failed, 0 skipped\n%d violations\n", (int)count - violations, violations, violations);
	return violations != 0;
}
