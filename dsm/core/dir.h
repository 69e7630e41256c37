/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/dir.h - which frames are guest RAM, their dense page numbers, and who is home to each.
 *
 * What      Frame (gfn) <-> page number 0 .. pages-1 without the holes, and page -> (home, index at home).
 *           Every node of a VM builds the same table from the same ranges, so page numbers may travel.  Who is home may
 *           change in a VM's life (rehome.h): by another table, with the same numbers.
 * Owns      struct dir, a plain value; copied ranges, no heap.
 * Threads   Const after dir_init; any thread may ask.
 * I/O       None.
 * Limits    DIR_RANGES_MAX ranges, 2^32 - 1 pages (16 TiB).  A look-up is a binary search.
 */
#ifndef DSM_CORE_DIR_H
#define DSM_CORE_DIR_H

#include "base/types.h"

/* Twice what a VM can begin with: the pages of a node that leaves may fall to several others. */
#define DIR_RANGES_MAX (4 * NODES_MAX)
#define DIR_PAGE_NONE (~0u)

/* Frames [first, first + count) are homed on `node`. */
struct dir_range {
	gfn_t first;
	uint64_t count;
	node_id node;
};

struct dir_span {
	gfn_t first;	    /* ascending */
	uint32_t count;
	uint32_t page;	    /* page number of `first` */
	uint32_t home_index; /* index at the home of `first` */
	node_id node;
};

struct dir {
	unsigned spans_count;
	unsigned nodes;
	uint32_t pages;			  /* all of guest RAM */
	uint32_t homed[NODES_MAX];	  /* pages homed on each node */
	struct dir_span span[DIR_RANGES_MAX];
};

/*
 * Any order of ranges; empty ones are skipped.  False when two overlap, a node is not below `nodes`, there
 * are too many, none has a page, or a number overflows; *out is then undefined.
 */
bool dir_init(struct dir *out, unsigned nodes, const struct dir_range *ranges, unsigned count);

/* Page number of a frame, DIR_PAGE_NONE when the frame is not RAM. */
uint32_t dir_page(const struct dir *d, gfn_t gfn);
/* Frame of a page number below d->pages. */
gfn_t dir_gfn(const struct dir *d, uint32_t page);
/* Home of a page number below d->pages; *index is its number among the pages of that home. */
node_id dir_home(const struct dir *d, uint32_t page, uint32_t *index);

#endif
