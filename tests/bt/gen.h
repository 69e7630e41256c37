/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/gen.h - random sequences of valid user instructions and states for them.
 *
 * Threads   One; all randomness comes from gen_rng.
 */
#ifndef TESTS_BT_GEN_H
#define TESTS_BT_GEN_H

#include "base/rng.h"
#include "guest.h"
#include "native.h"

#include <Zydis/Zydis.h>

#define CODE_VA 0x40000000ull
#define CODE_BYTES (256u << 10)
#define DATA_VA 0x50000000ull
#define DATA_BYTES (8 * PAGE_SIZE)
#define DATA_LOW (2 * PAGE_SIZE)  /* targets lie in [LOW, HIGH), so that displacements have room */
#define DATA_HIGH (6 * PAGE_SIZE)
#define CODE_GPA GUEST_FREE
#define DATA_GPA (GUEST_FREE + (2u << 20))
#define SLOT_BYTES 96
#define SLOTS (CODE_BYTES / SLOT_BYTES)
#define SEQ_MAX 4
#define ARITH 0x8d5u

struct test {
	uint8_t bytes[SLOT_BYTES];
	unsigned len, count;
	struct native_state s;
	uint32_t undefined; /* arithmetic flags nobody defines at the end */
	bool x87_undefined;
	uint16_t fixed;	  /* registers an address depends on */
	uint16_t written; /* by an instruction so far */
};

extern struct rng gen_rng;
extern ZydisDecoder gen_decoder;
void gen_init(uint64_t seed);
/* At least one instruction, to run at va. */
void gen_test(struct test *t, uint64_t va);

#endif
