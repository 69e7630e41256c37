/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus_model.c - the x86-TSO machine, all its runs of a small program.
 *
 * What      Each thread has a FIFO store buffer in front of one memory.  A store goes into the buffer; a load takes the
 *           newest store to its address in its own buffer, else memory; at any time the oldest store of any buffer may
 *           go to memory; MFENCE and locked instructions wait until their thread's buffer is empty, and a locked
 *           instruction reads and writes memory in one step.
 * Source    Sewell, Sarkar, Owens, Zappa Nardelli, Myreen: x86-TSO, CACM 53(7), 2010, section 3.
 * Limits    STATES_MAX states: the largest test in the table has a few thousand.
 */
#include "tests/litmus/litmus.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define STATES_MAX (1u << 20)
#define TABLE (1u << 21)

struct state {
	uint8_t pc[L_THREADS], reg[L_THREADS][L_REGS], mem[L_VARS];
	uint8_t pending[L_THREADS]; /* stores in the buffer */
	struct {
		uint8_t var, value;
	} buffer[L_THREADS][L_INSTRS]; /* oldest first; zero beyond */
};

struct search {
	const struct l_test *t;
	struct state *seen; /* [STATES_MAX]; those from `next` on are still to be looked at */
	uint32_t *table;    /* 1 + index into seen */
	unsigned count, next;
};

static void state_add(struct search *s, const struct state *st)
{
	const uint8_t *b = (const uint8_t *)st;
	uint64_t h = 0xcbf29ce484222325ull;
	uint32_t at;

	for (size_t i = 0; i < sizeof(*st); i++)
		h = (h ^ b[i]) * 0x100000001b3ull;
	for (at = (uint32_t)(h ^ h >> 32) % TABLE; s->table[at]; at = (at + 1) % TABLE)
		if (!memcmp(&s->seen[s->table[at] - 1], st, sizeof(*st)))
			return;
	ASSERT(s->count < STATES_MAX);
	s->seen[s->count++] = *st;
	s->table[at] = s->count;
}

static uint8_t load(const struct state *st, unsigned t, uint8_t var)
{
	for (unsigned i = st->pending[t]; i--;)
		if (st->buffer[t][i].var == var)
			return st->buffer[t][i].value;
	return st->mem[var];
}

static void store(struct state *st, unsigned t, uint8_t var, uint8_t value)
{
	unsigned i = st->pending[t]++;

	st->buffer[t][i].var = var;
	st->buffer[t][i].value = value;
}

/* Memory is read and written in one step; the buffer is empty. */
static void locked(struct state *st, unsigned t, const struct l_instr *in)
{
	uint8_t *reg = st->reg[t], *mem = &st->mem[in->var], old = *mem;

	if (in->op == L_XCHG) {
		*mem = reg[in->reg];
		reg[in->reg] = old;
	} else if (in->op == L_XADD) {
		*mem = (uint8_t)(old + reg[in->reg]);
		reg[in->reg] = old;
	} else if (reg[0] == old) {
		*mem = reg[in->reg];
	} else {
		reg[0] = old;
	}
}

static void step_instr(struct search *s, struct state st, unsigned t)
{
	const struct l_instr *in = &s->t->instr[t][st.pc[t]];

	if (in->op >= L_MFENCE && st.pending[t])
		return;
	st.pc[t]++;
	switch (in->op) {
	case L_STORE:
		store(&st, t, in->var, in->value);
		break;
	case L_STORE_REG:
		store(&st, t, in->var, st.reg[t][in->reg]);
		break;
	case L_LOAD:
		st.reg[t][in->reg] = load(&st, t, in->var);
		break;
	case L_SET:
		st.reg[t][in->reg] = in->value;
		break;
	case L_MFENCE:
		break;
	default:
		locked(&st, t, in);
	}
	state_add(s, &st);
}

static void step_flush(struct search *s, struct state st, unsigned t)
{
	unsigned left = --st.pending[t];

	st.mem[st.buffer[t][0].var] = st.buffer[t][0].value;
	memmove(&st.buffer[t][0], &st.buffer[t][1], left * sizeof(st.buffer[t][0]));
	memset(&st.buffer[t][left], 0, sizeof(st.buffer[t][0]));
	state_add(s, &st);
}

static void outcome_add(const struct l_test *t, const struct state *st, struct l_allowed *out)
{
	struct l_outcome o = { 0 };

	for (unsigned i = 0; i < t->threads; i++)
		for (unsigned r = 0; r < L_REGS; r++)
			o.reg[i][r] = t->loaded[i] >> r & 1 ? st->reg[i][r] : 0;
	memcpy(o.var, st->mem, sizeof(o.var));
	if (l_is_allowed(out, &o))
		return;
	ASSERT(out->count < L_ALLOWED);
	out->outcome[out->count++] = o;
}

bool l_is_allowed(const struct l_allowed *a, const struct l_outcome *o)
{
	for (unsigned i = 0; i < a->count; i++)
		if (!memcmp(&a->outcome[i], o, sizeof(*o)))
			return true;
	return false;
}

void l_model(const struct l_test *t, struct l_allowed *out)
{
	struct search s = { .t = t,
			    .seen = malloc(STATES_MAX * sizeof(struct state)),
			    .table = calloc(TABLE, sizeof(uint32_t)) };
	struct state first;

	ASSERT(s.seen && s.table);
	memset(&first, 0, sizeof(first));
	out->count = 0;
	state_add(&s, &first);
	while (s.next < s.count) {
		struct state st = s.seen[s.next++];
		bool over = true;

		for (unsigned i = 0; i < t->threads; i++) {
			over &= st.pc[i] == t->length[i] && !st.pending[i];
			if (st.pc[i] < t->length[i])
				step_instr(&s, st, i);
			if (st.pending[i])
				step_flush(&s, st, i);
		}
		if (over)
			outcome_add(t, &st, out);
	}
	out->states = s.count;
	free(s.seen);
	free(s.table);
}
