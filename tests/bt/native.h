/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/native.h - runs instructions on the host CPU with a complete register state.
 *
 * What      The code must end in a jump to native_exit; a fault ends it too.  FS is the test's own (TLS), GS is free.
 * Threads   One at a time.
 */
#ifndef TESTS_BT_NATIVE_H
#define TESTS_BT_NATIVE_H

#include "base/types.h"

struct native_state {
	uint64_t gpr[16];
	uint64_t rflags;
	uint64_t gs_base;
	uint8_t fx[512] __attribute__((aligned(16)));
};

void native_init(void);
/* Where the code has to jump to in the end. */
void *native_exit_address(void);
/* Runs code; answers -1 or the vector of the exception that the host's signal stands for, *rip where. */
int native_run(struct native_state *s, void *code, uint64_t *rip);

#endif
