/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/diag.c - the list of mistakes, and the guess at what a misspelt word was
 *            meant to be.
 *
 * Limits    CC_DIAGS_MAX mistakes, then they are only counted; words longer than 32 bytes get no
 *           guess.
 */
#include "cluster-config/core/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORD_MAX 32u

void cc_diag_add(struct cc_diags *d, struct cc_mark mark, const char *fmt, ...)
{
	va_list ap;

	if (d->count == CC_DIAGS_MAX) {
		d->dropped++;
		return;
	}
	d->diag[d->count].mark = mark;
	va_start(ap, fmt);
	vsnprintf(d->diag[d->count].text, CC_DIAG_TEXT_MAX, fmt, ap);
	va_end(ap);
	d->count++;
}

static bool mark_after(struct cc_mark a, struct cc_mark b)
{
	return a.line != b.line ? a.line > b.line : a.col > b.col;
}

void cc_diags_sort(struct cc_diags *d)
{
	for (unsigned i = 1; i < d->count; i++) {
		struct cc_diag moving = d->diag[i];
		unsigned at = i;

		for (; at > 0 && mark_after(d->diag[at - 1].mark, moving.mark); at--)
			d->diag[at] = d->diag[at - 1];
		d->diag[at] = moving;
	}
}

/* Insertions, deletions and substitutions between two words of at most WORD_MAX bytes. */
static unsigned word_distance(const char *a, const char *b)
{
	unsigned row[WORD_MAX + 1];
	size_t len_a = strlen(a), len_b = strlen(b);

	for (unsigned j = 0; j <= len_b; j++)
		row[j] = j;
	for (unsigned i = 1; i <= len_a; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= len_b; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[len_b];
}

const char *cc_nearest(const char *word, const char *const *candidates, unsigned count)
{
	const char *best = NULL;
	unsigned best_distance = 4; /* more than three slips are another word */
	size_t len = strlen(word);

	if (len > WORD_MAX)
		return NULL;
	for (unsigned i = 0; i < count; i++) {
		unsigned distance;

		if (strlen(candidates[i]) > WORD_MAX)
			continue;
		distance = word_distance(word, candidates[i]);
		if (distance < best_distance && distance * 3 <= len + 1) {
			best = candidates[i];
			best_distance = distance;
		}
	}
	return best;
}
