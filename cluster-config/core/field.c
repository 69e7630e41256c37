/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/field.c - numbers, sizes, times, words and texts out of YAML scalars.
 *
 * Limits    Nothing is guessed: a number is digits, a size has a binary unit, true is "true".
 */
#include "cluster-config/core/field.h"

#include <stdio.h>
#include <string.h>

static bool is_word_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

/* A whole number and whatever follows it.  False: no digit first, a leading zero, or more than
 * 2^63. */
static bool number_read(const char *text, uint64_t *value, const char **rest)
{
	uint64_t v = 0;
	const char *p = text;

	if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (v > (1ull << 63) / 10 - 1)
			return false;
		v = v * 10 + (uint64_t)(*p - '0');
	}
	*value = v;
	*rest = p;
	return true;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "KiB", 1ull << 10 },
	{ "MiB", 1ull << 20 },
	{ "GiB", 1ull << 30 },
	{ "TiB", 1ull << 40 },
	{ 0 },
};
static const struct unit duration_units[] = { { "ms", 1 }, { "s", 1000 }, { 0 } };

static bool quantity_read(const char *text, const struct unit *units, uint64_t *value)
{
	const char *rest;
	uint64_t v;

	if (!number_read(text, &v, &rest))
		return false;
	for (; units->name; units++)
		if (!strcmp(rest, units->name)) {
			if (v > (1ull << 62) / units->factor)
				return false;
			*value = v * units->factor;
			return true;
		}
	return false;
}

bool cc_size_parse(const char *text, uint64_t *bytes)
{
	return quantity_read(text, size_units, bytes);
}

/* The largest unit that leaves a whole number, for messages. */
static const char *size_text(uint64_t bytes, char out[static 32])
{
	int u = 3;

	while (u > 0 && bytes % size_units[u].factor)
		u--;
	snprintf(out, 32, "%llu%s", (unsigned long long)(bytes / size_units[u].factor),
		 size_units[u].name);
	return out;
}

static void range_check(struct cc_diags *d, const struct cc_field *f, struct cc_mark at, uint64_t v,
			const char *text)
{
	char min[32], max[32];

	if (v >= f->min && v <= f->max)
		return;
	if (f->type == F_SIZE) {
		size_text(f->min, min);
		size_text(f->max, max);
	} else {
		const char *unit = f->type == F_DURATION ? "ms" : "";

		snprintf(min, sizeof(min), "%llu%s", (unsigned long long)f->min, unit);
		snprintf(max, sizeof(max), "%llu%s", (unsigned long long)f->max, unit);
	}
	cc_diag_add(d, at, "'%s' must be from %s to %s, not %.40s", f->name, min, max, text);
}

static void number_take(struct cc_diags *d, const struct cc_field *f, const struct cc_tree_node *v,
			void *member)
{
	const char *rest;
	uint64_t value;
	bool ok;

	switch (f->type) {
	case F_SIZE:
		ok = quantity_read(v->text, size_units, &value);
		break;
	case F_DURATION:
		ok = quantity_read(v->text, duration_units, &value);
		break;
	default:
		ok = number_read(v->text, &value, &rest) && !*rest;
	}
	if (!ok) {
		const char *what = f->type == F_SIZE       ? "a size like 512MiB or 4GiB"
				   : f->type == F_DURATION ? "a time like 5s or 1500ms"
							   : "a whole number";

		cc_diag_add(d, v->mark, "'%s' must be %s, not '%.40s'", f->name, what, v->text);
		return;
	}
	range_check(d, f, v->mark, value, v->text);
	if (f->type == F_SIZE && value % PAGE_SIZE)
		cc_diag_add(d, v->mark, "'%s' must be a multiple of 4KiB", f->name);
	if (f->type == F_SIZE)
		*(uint64_t *)member = value;
	else if (f->type == F_PORT)
		*(uint16_t *)member = (uint16_t)value;
	else
		*(unsigned *)member = (unsigned)value;
}

static void text_take(struct cc_diags *d, const struct cc_field *f, const struct cc_tree_node *v,
		      void *member)
{
	size_t len = strlen(v->text), max = f->type == F_CMDLINE ? CC_CMDLINE_MAX
					    : f->type == F_TEXT  ? 1024
								 : CC_NAME_MAX;

	if (!len && f->type != F_CMDLINE) {
		cc_diag_add(d, v->mark, "'%s' is empty", f->name);
		return;
	}
	if (len > max) {
		cc_diag_add(d, v->mark, "'%s' is longer than %zu bytes", f->name, max);
		return;
	}
	for (const char *p = v->text; *p; p++) {
		bool fine = f->type == F_NAME      ? is_word_char(*p)
			    : f->type == F_ADDRESS ? is_word_char(*p) || *p == ':'
			    : f->type == F_CMDLINE ? *p >= ' ' && *p <= '~'
						   : (unsigned char)*p >= ' ' && *p != 0x7f;

		if (fine)
			continue;
		if (*p >= ' ' && *p <= '~')
			cc_diag_add(d, v->mark, "'%s' must not hold the character '%c'", f->name,
				    *p);
		else
			cc_diag_add(d, v->mark, "'%s' must not hold the byte 0x%02x", f->name,
				    (uint8_t)*p);
		return;
	}
	*(const char **)member = v->text;
}

static void enum_take(struct cc_diags *d, const struct cc_field *f, const struct cc_tree_node *v,
		      void *member)
{
	static const char *const bools[] = { "false", "true", NULL };
	const char *const *words = f->type == F_BOOL ? bools : f->words;
	char all[80] = "";
	unsigned count = 0;

	for (; words[count]; count++) {
		if (!strcmp(words[count], v->text)) {
			if (f->type == F_BOOL)
				*(bool *)member = count == 1;
			else
				*(unsigned *)member = count;
			return;
		}
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", count ? ", " : "",
			 words[count]);
	}
	cc_diag_add(d, v->mark, "'%s' must be one of %s, not '%.40s'", f->name, all, v->text);
}

void cc_field_scalar(const struct cc_field *f, const struct cc_tree_node *v, void *member,
		     struct cc_diags *d)
{
	switch (f->type) {
	case F_UINT:
	case F_PORT:
	case F_SIZE:
	case F_DURATION:
		number_take(d, f, v, member);
		break;
	case F_BOOL:
	case F_ENUM:
		enum_take(d, f, v, member);
		break;
	default:
		text_take(d, f, v, member);
	}
}
