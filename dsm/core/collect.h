/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/collect.h - the pages of one instruction, taken in ascending order and pinned, each with its grant.
 *
 * What      Which page a thread that collects asks for next, and what is pinned for it: docs/protocol.md, section 6 and I10.
 *           Whoever drives it asks the core for collect_next(), and, when collect_granted() says so, pins the page
 *           (PROTO_EV_HOLD) in the step that granted it; with the last one there, all holds get an end.
 * Owns      Plain values.   Threads  As the caller's lock has it.   I/O  None.
 * Limits    COLLECT_MAX pages.
 */
#ifndef DSM_CORE_COLLECT_H
#define DSM_CORE_COLLECT_H

#include "base/types.h"

#define COLLECT_MAX 16u

struct collect {
	unsigned count, pins; /* page[0 .. pins) are pinned, with the right that is wanted */
	uint32_t page[COLLECT_MAX]; /* ascending */
	uint8_t right[COLLECT_MAX]; /* enum proto_right */
};

/* Before the first is asked for: this one, too, with the strongest right that was named.  Further pages are left out. */
void collect_add(struct collect *c, uint32_t page, uint8_t right);
/* Index of the page to ask for next; c->count: all are there. */
unsigned collect_next(const struct collect *c);
/* `page` was granted with `right`.  True: it was waited for, and is to be pinned now. */
bool collect_granted(struct collect *c, uint32_t page, uint8_t right);
/* It has `page` pinned.  Not one that it still waits for: it may want a stronger right than this node holds, and be queued
 * behind somebody who waits for the weaker one to go. */
bool collect_pins(const struct collect *c, uint32_t page);

#endif
