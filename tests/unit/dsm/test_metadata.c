/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/test_metadata.c - what a node spends on a page of guest RAM beside the page: at most 24 bytes.
 *
 * What      Opens memories of two sizes and takes the difference of all private anonymous memory that the process has
 *           mapped, touched or not: an upper bound on what it can ever take.  Every table of the dsm is in it, whoever
 *           allocated it.  The kernel's page tables are not.
 */
#include "base/types.h"
#include "dsm/dsm.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define SMALL (1u << 20) /* pages */
#define LARGE (9u << 20)

/* Bytes of all mappings without a file that can be read. */
static uint64_t private_bytes(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long from, to, inode;
	char line[512], rights[8];
	uint64_t sum = 0;

	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &from, &to, rights, &inode) == 4 &&
		    inode == 0 && rights[0] == 'r' && rights[3] == 'p')
			sum += to - from;
	fclose(f);
	return sum;
}

/* What opening node 0 of two takes, when it homes `homed` of `pages`; 0: this host cannot. */
static uint64_t cost(enum dsm_mapping mapping, uint64_t pages, uint64_t homed)
{
	struct dsm_range ranges[] = { { 0, homed, 0 }, { homed, pages - homed, 1 } };
	struct dsm_config cfg = { .nodes = 2,
				  .ranges = ranges,
				  .ranges_count = 2,
				  .cache_pages = pages / 16,
				  .mapping = mapping };
	struct ic_config ic = { .nodes = 2, .backend = "tcp", .vm_id = 1, .listen = "127.0.0.1:0" };
	uint64_t before, bytes = 0;
	struct dsm *d;

	cr_assert_eq(ic_open(&ic, &cfg.fabric), 0);
	before = private_bytes();
	if (!dsm_open(&cfg, &d)) {
		bytes = private_bytes() - before;
		dsm_stop(d);
		dsm_close(d);
	}
	ic_close(cfg.fabric);
	return bytes;
}

/* Bytes for each page of guest RAM, on a node that homes 1 in `part` of them (or all but 1 in `part`). */
static double per_page(enum dsm_mapping mapping, uint64_t part, bool most)
{
	uint64_t small, large;

	if (!cost(mapping, SMALL, SMALL / 2)) /* and the threads' stacks are there from now on */
		return 0;
	small = cost(mapping, SMALL, most ? SMALL - SMALL / part : SMALL / part);
	large = cost(mapping, LARGE, most ? LARGE - LARGE / part : LARGE / part);
	return (double)(large - small) / (LARGE - SMALL);
}

static void check(enum dsm_mapping mapping)
{
	static const struct {
		uint64_t part;
		bool most;
	} shares[] = { { 2, false }, { 4, false }, { 64, false }, { 4, true }, { 16, true } };

	for (unsigned i = 0; i < ARRAY_LEN(shares); i++) {
		double bytes = per_page(mapping, shares[i].part, shares[i].most);

		if (bytes == 0)
			cr_skip_test("the mapping cannot be had here");
		fprintf(stderr, "metadata: %.2f bytes a page when a node homes %s1/%u\n", bytes,
			shares[i].most ? "all but " : "", (unsigned)shares[i].part);
		cr_assert_leq(bytes, 24.0);
		cr_assert_geq(bytes, 4.0); /* rights and state, at least: it was measured */
	}
}

Test(metadata, at_most_24_bytes_a_page_with_tlb)
{
	check(DSM_MAP_TLB);
}

Test(metadata, at_most_24_bytes_a_page_with_uffd)
{
	check(DSM_MAP_UFFD);
}
