/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu-migrate/place_trace.h - what the policy was told, in a file; and what it would decide, again or with other prices.
 *
 * What      Text, one fact a line, so that it can be read, cut and compared (docs/migration.md, "A trace"):
 *
 *             unum-place 1 nodes N vcpus V period US pinned 0|1 move US page US lost PAGES
 *             name N TEXT                                node N
 *             may V N N ...                              where vCPU V may run; without such lines: anywhere
 *             node N ROOM MOST CPUS HOST LOAD CLOSED          as in struct place_node, when something of it changed
 *             vcpu V AT MOVING BUSY_US [N:WAITS,READS,BOUNCED,US ...]   when it did something, moved or arrived
 *             costs MOVE_US PAGE_US                      measured anew
 *             step NOW_US                                all above counts for this step
 *
 * Threads   One at a time.  I/O: that file.
 * Limits    PLACE_TRACE_LINE_MAX bytes a line.  A trace is untrusted: refused with its line number.
 */
#ifndef VCPU_MIGRATE_PLACE_TRACE_H
#define VCPU_MIGRATE_PLACE_TRACE_H

#include "base/err.h"
#include "vcpu-migrate/place.h"

#include <stdio.h>

#define PLACE_TRACE_LINE_MAX 16384u

struct place_trace;
/* names: [cfg->nodes], may be NULL.  -errno of opening the file. */
MUST_CHECK int place_trace_open(const char *path, const struct place_config *cfg, const char *const *names,
				struct place_trace **out);
void place_trace_costs(struct place_trace *t, uint32_t move_us, uint32_t page_us);
void place_trace_step(struct place_trace *t, const struct place_input *in);
/* -errno: something did not reach the file. */
int place_trace_close(struct place_trace *t);

/* Prices for a second look; 0: as recorded. */
struct place_what_if {
	uint32_t move_us, page_us, lost_pages;
	bool unpinned; /* although they were pinned */
};
/*
 * Prints each decision of the policy with its reasons.  With a what_if that is not all 0 also what those prices would have
 * made of the same inputs: '-' only as recorded, '+' only with them.  `stays`: also why a vCPU does not go, whenever
 * that changes.  -EINVAL: not a trace; `errors` has the line.  -errno of the file; -ENOMEM.
 */
MUST_CHECK int place_replay(const char *path, const struct place_what_if *w, bool stays, FILE *out, FILE *errors);

#endif
