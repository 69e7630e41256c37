/* SPDX-License-Identifier: Apache-2.0 */
/* test_place_trace.c - what was recorded decides the same again; other prices differ; damaged files are refused. */
#include "vcpu-migrate/place_trace.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODES 2u
#define VCPUS 3u

static char path[] = "/tmp/test_place_trace.XXXXXX";

/* vCPU 0 waits for node 1 until it gets there.  Moves that the policy made, one "vcpu at to" each. */
static unsigned record(const char *file)
{
	struct place_config cfg = { .nodes = NODES, .vcpus = VCPUS, .period_us = 10000, .costs = { 300, 60, 40 } };
	static const char *const names[] = { "alpha", "beta" };
	struct place_node node[NODES] = { { 3, 3, 4, 0, 200, false }, { 3, 3, 4, 1, 200, false } };
	struct place_vcpu vcpu[VCPUS] = { { 0, false, 0 }, { 0, false, 0 }, { 1, false, 0 } };
	struct place_stall stall[VCPUS * NODES];
	struct place_output *out = malloc(sizeof(*out));
	struct place *p = place_init(&cfg, malloc(place_bytes(NODES, VCPUS)));
	struct place_trace *t;
	unsigned moves = 0;

	cr_assert_eq(place_trace_open(file, &cfg, names, &t), 0);
	for (unsigned i = 1; i <= 100; i++) {
		struct place_input in = { 5000000 + i * 10000, node, vcpu, stall };

		memset(stall, 0, sizeof(stall));
		vcpu[0].busy_us = 10000;
		node[1].load = (uint16_t)(i / 50);
		if (vcpu[0].at == 0)
			stall[1] = (struct place_stall){ .waits = 120, .reads = 3, .bounced = 2, .us = 7000 };
		if (i == 60) {
			place_costs_set(p, 400, 70);
			place_trace_costs(t, 400, 70);
		}
		place_trace_step(t, &in);
		place_step(p, &in, out);
		for (unsigned k = 0; k < out->moves; k++) {
			vcpu[out->list[k].vcpu].at = out->list[k].to;
			moves++;
		}
	}
	cr_assert_eq(place_trace_close(t), 0);
	free(out);
	free(p);
	return moves;
}

static void make(void)
{
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
}

static void drop(void)
{
	unlink(path);
}

static int replay(struct place_what_if w, char **text)
{
	size_t len, errors_len;
	char *errors = NULL;
	FILE *out = open_memstream(text, &len), *err = open_memstream(&errors, &errors_len);
	int status = place_replay(path, &w, false, out, err);

	fclose(out);
	fclose(err);
	if (status) {
		cr_expect_eq(strncmp(errors, path, strlen(path)), 0, "the file is named: %s", errors);
		free(*text);
		*text = errors;
	} else {
		free(errors);
	}
	return status;
}

Test(place_trace, decides_the_same_again, .init = make, .fini = drop)
{
	unsigned moves = record(path);
	char want[64], *text;

	cr_assert_eq(moves, 1);
	cr_assert_eq(replay((struct place_what_if){ 0 }, &text), 0);
	cr_expect(strstr(text, "vCPU 0 at alpha -> beta, scan"), "%s", text);
	snprintf(want, sizeof(want), "lost: %u moves", moves);
	cr_expect(strstr(text, want), "%s", text);
	cr_expect(strstr(text, "100 steps in 0.990 s"), "%s", text);
	free(text);
}

Test(place_trace, other_prices, .init = make, .fini = drop)
{
	char *text;

	record(path);
	cr_assert_eq(replay((struct place_what_if){ .move_us = 900000 }, &text), 0);
	cr_expect_eq(text[0], '-', "the move is made as recorded only: %s", text);
	cr_expect(strstr(text, "with a move 900000 us, a page 70 us, 40 pages lost: 0 moves"), "%s", text);
	free(text);
}

Test(place_trace, damaged_files, .init = make, .fini = drop)
{
	static const char *const bad[] = {
		"",
		"hello\n",
		"unum-place 2 nodes 2 vcpus 3 period 1 pinned 0 move 1 page 1 lost 1\n",
		"unum-place 1 nodes 0 vcpus 3 period 1 pinned 0 move 1 page 1 lost 1\n",
		"unum-place 1 nodes 129 vcpus 3 period 1 pinned 0 move 1 page 1 lost 1\n",
		"unum-place 1 nodes 2 vcpus 3 period 1 pinned 0 move 1 page 1 lost 1\nstep 5\n",
		"unum-place 1 nodes 1 vcpus 1 period 1 pinned 0 move 1 page 1 lost 1\nnode 1 1 1 1 1 1 1\n",
		"unum-place 1 nodes 1 vcpus 1 period 1 pinned 0 move 1 page 1 lost 1\nvcpu 0 0 0 0 0:1,1\n",
		"unum-place 1 nodes 1 vcpus 1 period 1 pinned 0 move 1 page 1 lost 1\nvcpu 0 1 0 0\n",
		"unum-place 1 nodes 1 vcpus 1 period 1 pinned 0 move 1 page 1 lost 1\nnode 0 1 1 1 0 0 0\nstep 9\nstep 8\n",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		FILE *f = fopen(path, "w");
		char *text;

		fputs(bad[i], f);
		fclose(f);
		cr_expect_eq(replay((struct place_what_if){ 0 }, &text), -EINVAL, "%u: %s", i, bad[i]);
		free(text);
	}
}

/* Whatever bytes are changed: refused or read, never more. */
Test(place_trace, any_damage, .init = make, .fini = drop)
{
	struct rng r = { 11 };
	char *all = NULL, *text;
	size_t len = 0;
	FILE *f;

	record(path);
	f = fopen(path, "r");
	cr_assert_gt(getdelim(&all, &len, EOF, f), 1000);
	len = strlen(all);
	fclose(f);
	for (unsigned i = 0; i < 300; i++) {
		char *copy = strdup(all);

		for (unsigned k = 0; k < 3; k++)
			copy[rng_below(&r, len)] = (char)(1 + rng_below(&r, 126));
		f = fopen(path, "w");
		fwrite(copy, 1, len, f);
		fclose(f);
		if (replay((struct place_what_if){ .page_us = 5 }, &text))
			cr_expect(strstr(text, "error:"));
		free(text);
		free(copy);
	}
	free(all);
}
