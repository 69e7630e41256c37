/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/facts.h - what a host told of itself, read from the JSON of the slice program.
 *
 * Threads   Any one at a time.
 */
#ifndef CC_FACTS_H
#define CC_FACTS_H

#include "cluster-config/core/choose.h"
#include "cluster-config/core/choose_fabric.h"

#include <jansson.h>

struct cc_host {
	json_t *json;          /* what was said; NULL: nothing that can be read */
	char unknown[160];     /* why, then */
	struct cc_facts facts; /* points into the two above */
	struct cc_fabric_facts fabric; /* the same */
};

/* From the two texts of CC_MSG_HOST; what a peer sent may be anything.  cc_host_clear it. */
void cc_host_read(struct cc_host *h, const char *facts, const char *why);
void cc_host_clear(struct cc_host *h);
/* The string at a path like "cpu.model"; "" when there is none. */
const char *cc_json_text(const json_t *json, const char *path);

#endif
