/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/guest.h - a bare guest in 64-bit mode for the tests of the bt engine.
 *
 * What      RAM, page tables that map what the test asks for, a GDT, and an IDT whose handlers halt at an address
 *           that tells the vector.
 * Layout    [0, 1 MiB) tables, handlers and stacks; the rest is the test's.
 */
#ifndef TESTS_BT_GUEST_H
#define TESTS_BT_GUEST_H

#include "hv/engine.h"

#define GUEST_FREE 0x100000ull	   /* first gpa that the test may use */
#define GUEST_HANDLERS 0x80000ull  /* va and gpa: 16 bytes a vector */
#define GUEST_IST_TOP 0x90000ull   /* exception stack */

struct guest {
	struct dsm *dsm;
	uint8_t *ram;
	struct hv_vm *vm;
	struct hv_vcpu *vcpu[4];
	unsigned vcpus;
	uint64_t next_table;
};

void guest_open(struct guest *g, uint64_t ram_bytes, unsigned vcpus);
void guest_close(struct guest *g);
void guest_map(struct guest *g, gva_t va, gpa_t gpa, uint64_t bytes, uint64_t flags);
#define GUEST_RW 0x3ull
#define GUEST_RWU 0x7ull
/* 64-bit ring 0 (or 3) state at rip, interrupts off. */
void guest_state(struct guest *g, struct hv_cpu_state *s, uint64_t rip, uint64_t rsp, bool user);
/* Runs until hlt; answers the vector when it stopped in a handler, -1 at any other hlt, -2 else. */
int guest_run(struct guest *g, unsigned cpu, const struct hv_cpu_state *in, struct hv_cpu_state *out);
/* Error code, rip, cs, rflags, rsp that the exception pushed. */
void guest_frame(struct guest *g, int vector, uint64_t *rip, uint64_t *rflags, uint64_t *rsp, uint64_t *error);

#endif
