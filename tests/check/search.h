/* SPDX-License-Identifier: Apache-2.0 */
/* tests/check/search.h - what every search through states needs: memory or the end, and a hash of a state's bytes. */
#ifndef TESTS_CHECK_SEARCH_H
#define TESTS_CHECK_SEARCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void *grow(void *mem, size_t bytes)
{
	void *p = realloc(mem, bytes);

	if (!p) {
		fprintf(stderr, "checker: out of memory (%zu bytes)\n", bytes);
		exit(2);
	}
	return p;
}

static inline uint64_t hash(const uint8_t *b, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull ^ len;

	for (; len >= 8; b += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, b, 8);
		h = (h ^ v) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 32;
	}
	while (len--)
		h = (h ^ *b++) * 0x100000001b3ull;
	h *= 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

#endif
