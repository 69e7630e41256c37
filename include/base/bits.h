/* SPDX-License-Identifier: Apache-2.0 */
/* base/bits.h - sets of nodes as a bitmap of NODES_MAX bits. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include "base/types.h"

struct nodeset {
	uint64_t w[NODES_MAX / 64];
};

static inline bool nodeset_has(const struct nodeset *s, node_id n)
{
	return (s->w[n / 64] >> (n % 64)) & 1;
}

static inline void nodeset_add(struct nodeset *s, node_id n)
{
	s->w[n / 64] |= 1ull << (n % 64);
}

static inline void nodeset_del(struct nodeset *s, node_id n)
{
	s->w[n / 64] &= ~(1ull << (n % 64));
}

static inline bool nodeset_empty(const struct nodeset *s)
{
	return (s->w[0] | s->w[1]) == 0;
}

static inline unsigned nodeset_count(const struct nodeset *s)
{
	return (unsigned)(__builtin_popcountll(s->w[0]) + __builtin_popcountll(s->w[1]));
}

/* Lowest member at or after `from`, NODE_NONE when there is none. */
static inline node_id nodeset_next(const struct nodeset *s, unsigned from)
{
	for (unsigned n = from; n < NODES_MAX; n++) {
		uint64_t rest = s->w[n / 64] >> (n % 64);

		if (rest)
			return (node_id)(n + (unsigned)__builtin_ctzll(rest));
		n |= 63;
	}
	return NODE_NONE;
}

#endif
