/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz.h - what all targets share: the entry that libFuzzer calls, and bytes that run out.
 *
 * A target gives untrusted bytes to one decoder and ASSERTs what its header promises of the result; the
 * sanitizers watch the rest.  It keeps nothing between two calls.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/assert.h"
#include "base/bytes.h"
#include "base/types.h"

/* libFuzzer's; always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static inline struct reader fuzz_reader(const uint8_t *data, size_t len)
{
	return (struct reader){ data, data + len, false };
}

#endif
