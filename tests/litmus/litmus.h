/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus.h - litmus tests as data: what the parts of the litmus tool share.
 *
 * Reading order  tests.txt (the tests), litmus_parse.c, litmus_model.c (what x86-TSO allows), litmus_code.c (machine
 *           code), litmus_run.c (native threads on the nodes of a memory), guest.c (the same in a guest),
 *           litmus_main.c (batches, counts, verdict).
 * Values    Memory starts at 0; values are below 255.  Registers start at 0.
 */
#ifndef TESTS_LITMUS_LITMUS_H
#define TESTS_LITMUS_LITMUS_H

#include "tests/stress/nodes.h"

#define L_TESTS 64u
#define L_THREADS 4u
#define L_VARS 4u
#define L_REGS 4u /* EAX ECX EDX EBX, as the processor numbers them */
#define L_INSTRS 8u
#define L_CODE 192u /* bytes of machine code per thread */
#define L_TERMS 8u

enum l_op { L_STORE, L_STORE_REG, L_LOAD, L_SET, L_MFENCE, L_XCHG, L_XADD, L_CMPXCHG };

struct l_instr {
	uint8_t op; /* enum l_op */
	uint8_t var, reg, value;
};

/* What is looked at when all threads are done; all zero where a register is never loaded. */
struct l_outcome {
	uint8_t reg[L_THREADS][L_REGS];
	uint8_t var[L_VARS];
};

/* What is kept of 32 bits: no test has 255, so what is too large for a test stays wrong. */
static inline uint8_t l_value(uint32_t v)
{
	return v < 255 ? (uint8_t)v : 255;
}

/* One conjunct of the test's question: a register of a thread, or (thread == L_THREADS) a variable. */
struct l_term {
	uint8_t thread, index, value;
};

struct l_test {
	char name[24];
	unsigned threads, vars, terms, line;
	char var[L_VARS][8];
	unsigned length[L_THREADS];
	struct l_instr instr[L_THREADS][L_INSTRS];
	uint8_t loaded[L_THREADS]; /* bit per register */
	struct l_term term[L_TERMS];
};

/* What a thread's machine code is called with: long (*)(struct l_args *). */
struct l_args {
	uint64_t addr[L_VARS];
	uint32_t reg[L_REGS]; /* out */
};

/* litmus_parse.c: all tests of a file; 0 or -EINVAL, each mistake said with its line. */
MUST_CHECK int l_parse(const char *path, struct l_test *tests, unsigned *count);
extern const char *const l_reg_names[L_REGS];
/* "0:EAX=1 1:EAX=0 x=1 y=1" */
void l_outcome_text(const struct l_test *t, const struct l_outcome *o, char *out, size_t len);
bool l_asked(const struct l_test *t, const struct l_outcome *o);

/* litmus_model.c */
#define L_ALLOWED 256u
struct l_allowed {
	unsigned count, states;
	struct l_outcome outcome[L_ALLOWED];
};
/* Every outcome that the x86-TSO machine can have. */
void l_model(const struct l_test *t, struct l_allowed *out);
bool l_is_allowed(const struct l_allowed *a, const struct l_outcome *o);

/* litmus_code.c: bytes written, at most L_CODE. */
unsigned l_code(const struct l_test *t, unsigned thread, uint8_t out[static L_CODE]);
/* All tests as a C source for the guest. */
void l_code_emit(const struct l_test *tests, unsigned count);

/* --- running: litmus_run.c --- */
#define L_BATCH 16u /* instances in a row without a visit to the parent */
#define L_PAGES 16u /* that the variables move among */
#define L_FIRST_GFN 32u

enum l_place { L_SPREAD, L_PAIRS, L_TOGETHER, L_PLACES };
enum l_layout { L_APART, L_CROSSED, L_SAME, L_LINE, L_LAYOUTS };
extern const char *const l_place_names[L_PLACES], *const l_layout_names[L_LAYOUTS];

/* One batch: where its threads run and where its variables lie. */
struct l_job {
	uint32_t test;
	uint32_t arrived; /* l_control.arrived when it begins */
	uint8_t place, layout;
	uint8_t node[L_THREADS]; /* of each thread */
	uint8_t init[L_VARS];    /* thread that clears it first */
	uint8_t reader;          /* thread that looks at memory in the end */
	uint32_t page[L_VARS];
	uint32_t jitter_cycles;
	uint64_t seed;
};

struct l_result {
	struct l_outcome outcome;
	uint64_t begin[L_THREADS], end[L_THREADS]; /* TSC */
};

struct l_control {
	struct nodes_meet meet;
	_Atomic uint32_t job_number; /* futex */
	_Atomic uint32_t jobs_done;
	_Atomic uint32_t arrived; /* threads at meetings, since the beginning */
	_Atomic bool failed;
	struct l_job job
		[2]; /* by number; that of the next batch is written while late threads look at this */
	struct l_result result[L_BATCH];
	struct dsm_stats stats[NODES_LIMIT];
};

struct l_setup {
	const struct l_test *tests;
	const uint8_t *code; /* executable: [test][thread][L_CODE] */
	unsigned nodes;
	const char *backend;
	enum dsm_faults faults;
	uint64_t cache_pages, seed;
	unsigned deadline_s;
	struct l_control *ctl;
};

/* A child process: one node with a thread for each thread of a test. */
int l_node_main(const struct l_setup *s, node_id self);
/* The parent: one batch; false when it failed or took too long. */
bool l_batch(const struct l_setup *s, struct l_job *job);

#endif
