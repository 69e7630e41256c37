/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/model_int.h - what model.c (moves, effects) and model_check.c (invariants) share.
 */
#ifndef TESTS_CHECK_MODEL_INT_H
#define TESTS_CHECK_MODEL_INT_H

#include "tests/check/model.h"

static inline void broken(struct model *w, const char *what)
{
	if (!w->broken)
		w->broken = what;
}

static inline node_id home_node(const struct model *w, unsigned page, uint32_t *index)
{
	return dir_home(&w->dir, page, index);
}

struct queue_shot {
	unsigned count;
	struct proto_wait w[MODEL_WAITS];
};

/* model_check.c */
void check_page(struct model *w, unsigned p);
void queue_shoot(const struct model *w, unsigned p, struct queue_shot *out);
void check_order(struct model *w, const struct queue_shot *old, const struct queue_shot *now);
void check_ahead(struct model *w, unsigned p);
void check_pins(struct model *w);

#endif
