/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/topology_yaml.c - YAML text to a tree, by libyaml's events.
 *
 * What      Only the plain part of YAML: one document, mappings, lists, scalars. Anchors, aliases,
 *           tags and a second document are mistakes; a scalar is text, whatever it looks like.
 * Owns      The tree and all its texts, until cc_yaml_free.
 * I/O       None.
 * Limits    CC_FILE_MAX bytes, DEPTH_MAX levels, UTF-8 only.
 */
#include "cluster-config/topology_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 16u

struct cc_yaml {
	struct cc_tree_node *node;
	unsigned count, room;
};

struct level {
	unsigned node, last; /* the open mapping or list, and its newest child */
};

struct builder {
	struct cc_yaml *y;
	struct cc_diags *d;
	struct level level[DEPTH_MAX];
	unsigned depth, documents;
	bool stop;
};

static struct cc_mark mark_of(yaml_mark_t m)
{
	return (struct cc_mark){ .line = (unsigned)m.line + 1, .col = (unsigned)m.column + 1 };
}

/* Length of the UTF-8 sequence at p (RFC 3629), 0 when it is not one. */
static unsigned utf8_len(const uint8_t *p, size_t left)
{
	unsigned len = p[0] < 0x80                   ? 1
		       : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
		       : (p[0] & 0xf0) == 0xe0       ? 3
		       : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
						     : 0;

	if (!len || len > left)
		return 0;
	for (unsigned i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return len;
}

static bool text_check(const uint8_t *p, size_t len, struct cc_diags *d)
{
	struct cc_mark mark = { 1, 1 };
	unsigned step;

	if (len > CC_FILE_MAX) {
		cc_diag_add(d, mark, "the file is longer than 1MiB");
		return false;
	}
	if (len >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) {
		cc_diag_add(d, mark, "the file begins with a byte order mark; save it without one");
		return false;
	}
	for (size_t i = 0; i < len; i += step) {
		step = utf8_len(p + i, len - i);
		if (!step) {
			cc_diag_add(d, mark, "byte 0x%02x is not UTF-8", p[i]);
			return false;
		}
		if (p[i] < ' ' && p[i] != '\n' && p[i] != '\r' && p[i] != '\t') {
			cc_diag_add(d, mark, "control character 0x%02x", p[i]);
			return false;
		}
		mark.col++;
		if (p[i] == '\n') {
			mark.line++;
			mark.col = 1;
		}
	}
	return true;
}

static int node_add(struct builder *b, enum cc_tree_kind kind, yaml_mark_t mark, char *text,
		    unsigned *index)
{
	struct cc_yaml *y = b->y;
	struct level *up = b->depth ? &b->level[b->depth - 1] : NULL;

	if (y->count == y->room) {
		unsigned room = y->room ? y->room * 2 : 256;
		void *grown = realloc(y->node, room * sizeof(*y->node));

		if (!grown) {
			free(text);
			return -ENOMEM;
		}
		y->node = grown;
		y->room = room;
	}
	y->node[y->count] = (struct cc_tree_node){
		.kind = kind,
		.mark = mark_of(mark),
		.text = text,
		.first = CC_TREE_NONE,
		.next = CC_TREE_NONE,
	};
	if (up) {
		if (up->last == CC_TREE_NONE)
			y->node[up->node].first = y->count;
		else
			y->node[up->last].next = y->count;
		up->last = y->count;
	}
	*index = y->count++;
	return 0;
}

static int open_add(struct builder *b, enum cc_tree_kind kind, const yaml_event_t *e)
{
	unsigned index;
	int err;

	if (b->depth == DEPTH_MAX) {
		cc_diag_add(b->d, mark_of(e->start_mark), "nested more than %u levels deep",
			    DEPTH_MAX);
		b->stop = true;
		return 0;
	}
	err = node_add(b, kind, e->start_mark, NULL, &index);
	if (err)
		return err;
	b->level[b->depth++] = (struct level){ .node = index, .last = CC_TREE_NONE };
	return 0;
}

static int scalar_add(struct builder *b, const yaml_event_t *e, const char *value, size_t len)
{
	unsigned index;
	char *text;

	if (memchr(value, 0, len)) {
		cc_diag_add(b->d, mark_of(e->start_mark), "a text must not hold a NUL");
		return node_add(b, CC_TREE_BAD, e->start_mark, NULL, &index);
	}
	text = strndup(value, len);
	return text ? node_add(b, CC_TREE_SCALAR, e->start_mark, text, &index) : -ENOMEM;
}

static void frills_refuse(struct builder *b, const yaml_event_t *e, const void *anchor,
			  const void *tag)
{
	if (anchor)
		cc_diag_add(b->d, mark_of(e->start_mark), "anchors (&) are not used here");
	if (tag)
		cc_diag_add(b->d, mark_of(e->start_mark), "tags (!) are not used here");
}

static int event_take(struct builder *b, const yaml_event_t *e)
{
	unsigned index;

	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (++b->documents > 1) {
			cc_diag_add(b->d, mark_of(e->start_mark),
				    "a second document; the file must hold one");
			b->stop = true;
		}
		return 0;
	case YAML_ALIAS_EVENT:
		cc_diag_add(b->d, mark_of(e->start_mark), "aliases (*) are not used here");
		return node_add(b, CC_TREE_BAD, e->start_mark, NULL, &index);
	case YAML_SCALAR_EVENT:
		frills_refuse(b, e, e->data.scalar.anchor, e->data.scalar.tag);
		return scalar_add(b, e, (const char *)e->data.scalar.value, e->data.scalar.length);
	case YAML_SEQUENCE_START_EVENT:
		frills_refuse(b, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
		return open_add(b, CC_TREE_SEQ, e);
	case YAML_MAPPING_START_EVENT:
		frills_refuse(b, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
		return open_add(b, CC_TREE_MAP, e);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		return 0;
	default:
		return 0;
	}
}

static int events_read(struct builder *b, yaml_parser_t *parser)
{
	bool done = false;
	int err = 0;

	while (!done && !b->stop && !err) {
		yaml_event_t e;

		if (!yaml_parser_parse(parser, &e)) {
			if (parser->error == YAML_MEMORY_ERROR)
				return -ENOMEM;
			cc_diag_add(b->d, mark_of(parser->problem_mark), "not YAML: %s%s%s",
				    parser->context ? parser->context : "",
				    parser->context ? ", " : "",
				    parser->problem ? parser->problem : "cannot be read");
			b->stop = true;
			break;
		}
		done = e.type == YAML_STREAM_END_EVENT;
		err = event_take(b, &e);
		yaml_event_delete(&e);
	}
	return err;
}

int cc_yaml_read(const void *text, size_t len, struct cc_diags *d, struct cc_yaml **out)
{
	struct builder b = { .d = d };
	yaml_parser_t parser;
	int err;

	if (!text_check(text, len, d))
		return -EINVAL;
	b.y = calloc(1, sizeof(*b.y));
	if (!b.y)
		return -ENOMEM;
	if (!yaml_parser_initialize(&parser)) {
		free(b.y);
		return -ENOMEM;
	}
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, text, len);
	err = events_read(&b, &parser);
	yaml_parser_delete(&parser);
	if (!err && !b.stop && !b.y->count) {
		cc_diag_add(d, (struct cc_mark){ 1, 1 }, "the file is empty");
		b.stop = true;
	}
	if (err || b.stop) { /* half a tree would only give wrong mistakes */
		cc_yaml_free(b.y);
		return err ? err : -EINVAL;
	}
	*out = b.y;
	return 0;
}

struct cc_tree cc_yaml_tree(const struct cc_yaml *y)
{
	return (struct cc_tree){ .node = y->node, .count = y->count };
}

void cc_yaml_free(struct cc_yaml *y)
{
	if (!y)
		return;
	for (unsigned i = 0; i < y->count; i++)
		free((char *)y->node[i].text);
	free(y->node);
	free(y);
}
