/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/tree.h - a parsed YAML text as plain data, and the list of mistakes found in
 *            it.
 *
 * What      The seam between libyaml (topology_yaml.c fills a tree) and the schema (core only reads
 *           it).
 * Owns      Nothing; nodes and texts belong to whoever filled the tree.
 */
#ifndef CC_CORE_TREE_H
#define CC_CORE_TREE_H

#include "base/types.h"
#include "cluster-config/topology.h"

/* BAD: something was refused here already; whoever meets it says no more. */
enum cc_tree_kind { CC_TREE_SCALAR, CC_TREE_MAP, CC_TREE_SEQ, CC_TREE_BAD };

#define CC_TREE_NONE (~0u)

/* Children form a list; those of a map are key, value, key, value. */
struct cc_tree_node {
	enum cc_tree_kind kind;
	struct cc_mark mark;
	const char *text;     /* scalar: NUL-terminated, no NUL inside */
	unsigned first, next; /* index in the tree, CC_TREE_NONE: none */
};

struct cc_tree {
	const struct cc_tree_node *node; /* [0] is the root */
	unsigned count;
};

#define CC_DIAGS_MAX 100u
#define CC_DIAG_TEXT_MAX 240u

struct cc_diag {
	struct cc_mark mark;
	char text[CC_DIAG_TEXT_MAX];
};

struct cc_diags {
	struct cc_diag diag[CC_DIAGS_MAX];
	unsigned count, dropped;
};

void cc_diag_add(struct cc_diags *d, struct cc_mark mark, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* By place in the file; equal places keep the order in which they were found. */
void cc_diags_sort(struct cc_diags *d);

/* The candidate that `word` was probably meant to be, NULL when none is near. */
const char *cc_nearest(const char *word, const char *const *candidates, unsigned count);

#endif
