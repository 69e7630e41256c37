/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dsm/core/collect.c - see collect.h.
 *
 * Owns nothing; one thread at a time; no I/O.
 */
#include "dsm/core/collect.h"

#include "base/assert.h"

void collect_add(struct collect *c, uint32_t page, uint8_t right)
{
	unsigned i = c->count;

	ASSERT(c->pins == 0);
	for (unsigned k = 0; k < c->count; k++)
		if (c->page[k] == page) {
			c->right[k] = c->right[k] > right ? c->right[k] : right;
			return;
		}
	if (c->count == COLLECT_MAX)
		return;
	/* I10: ascending. */
	for (c->count++; i > 0 && c->page[i - 1] > page; i--) {
		c->page[i] = c->page[i - 1];
		c->right[i] = c->right[i - 1];
	}
	c->page[i] = page;
	c->right[i] = right;
}

unsigned collect_next(const struct collect *c)
{
	return c->pins;
}

bool collect_granted(struct collect *c, uint32_t page, uint8_t right)
{
	if (c->pins == c->count || c->page[c->pins] != page || c->right[c->pins] > right)
		return false;
	c->pins++;
	return true;
}

bool collect_pins(const struct collect *c, uint32_t page)
{
	for (unsigned i = 0; i < c->pins; i++)
		if (c->page[i] == page)
			return true;
	return false;
}
