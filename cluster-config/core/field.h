/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/field.h - one key of a mapping: what it may hold and where it goes; private
 *            to the schema.
 *
 * What      schema.c has the tables and walks the mappings, field.c reads the single values.
 */
#ifndef CC_CORE_FIELD_H
#define CC_CORE_FIELD_H

#include "cluster-config/core/schema.h"

enum cc_field_type {
	F_NAME,     /* letters, digits, - _ . */
	F_ADDRESS,  /* IPv4, IPv6 or host name */
	F_TEXT,     /* anything printable, not empty */
	F_CMDLINE,  /* printable ASCII, may be empty, CC_CMDLINE_MAX */
	F_UINT,     /* unsigned */
	F_PORT,     /* uint16_t */
	F_SIZE,     /* uint64_t bytes, with a unit */
	F_DURATION, /* unsigned, milliseconds, with a unit */
	F_BOOL,
	F_ENUM,  /* unsigned, index into words */
	F_NODE,  /* unsigned, index of the node of that name */
	F_OTHER, /* `take` does it */
};

struct cc_walk {
	const struct cc_tree *tree;
	struct cc_topology *t;
	struct cc_sound *sound;
	struct cc_diags *d;
};

struct cc_field {
	const char *name;
	enum cc_field_type type;
	bool required;
	size_t offset;            /* of the member in the object */
	uint64_t min, max;        /* F_UINT F_PORT F_SIZE F_DURATION */
	const char *const *words; /* F_ENUM, NULL-terminated */
	void (*take)(struct cc_walk *w, const struct cc_tree_node *value, void *object);
};

/* Reads a scalar of any type but F_NODE and F_OTHER into *member; mistakes go to `d`. */
void cc_field_scalar(const struct cc_field *f, const struct cc_tree_node *v, void *member,
		     struct cc_diags *d);

#endif
