/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus_parse.c - reads tests.txt.
 *
 * What      Close to the x86 syntax of the herd tools.  A test is
 *             X86 NAME
 *             P0 | P1 | ... ;            threads
 *             MOV [x],$1 | MOV EAX,[x] ;   one instruction of each, or nothing
 *             exists (0:EAX=1 /\ x=2)      the outcome that the test asks about
 *           # begins a comment.  Instructions: MOV [v],$n  MOV [v],R  MOV R,[v]  MOV R,$n  MFENCE  XCHG [v],R
 *           LOCK XADD [v],R  LOCK CMPXCHG [v],R.  Variables are whatever is in brackets.
 */
#include "tests/litmus/litmus.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const l_reg_names[L_REGS] = { "EAX", "ECX", "EDX", "EBX" };

struct parser {
	struct l_test *t;
	const char *path;
	unsigned line, errors;
	bool rows; /* after the line of the threads */
};

static void complain(struct parser *p, const char *what, const char *text)
{
	fprintf(stderr, "%s:%u: %s: %s\n", p->path, p->line, what, text);
	p->errors++;
}

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (isspace((unsigned char)*s))
		s++;
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = 0;
	return s;
}

static bool reg_find(const char *name, uint8_t *out)
{
	for (unsigned i = 0; i < L_REGS; i++)
		if (!strcmp(name, l_reg_names[i])) {
			*out = (uint8_t)i;
			return true;
		}
	return false;
}

/* A variable by name; `make`: a new one if there is room. */
static bool var_find(struct l_test *t, const char *name, bool make, uint8_t *out)
{
	for (unsigned i = 0; i < t->vars; i++)
		if (!strcmp(name, t->var[i])) {
			*out = (uint8_t)i;
			return true;
		}
	if (!make || t->vars == L_VARS || !*name || strlen(name) >= sizeof(t->var[0]))
		return false;
	strcpy(t->var[t->vars], name);
	*out = (uint8_t)t->vars++;
	return true;
}

static bool value_parse(const char *text, uint8_t *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*out = (uint8_t)v;
	return end != text && !*end && v < 255;
}

enum operand { BAD, MEM, REG, VALUE };

static enum operand operand_parse(struct l_test *t, char *text, struct l_instr *in)
{
	size_t len;

	text = trim(text);
	len = strlen(text);
	if (len > 2 && *text == '[' && text[len - 1] == ']') {
		text[len - 1] = 0;
		return var_find(t, text + 1, true, &in->var) ? MEM : BAD;
	}
	if (*text == '$')
		return value_parse(text + 1, &in->value) ? VALUE : BAD;
	return reg_find(text, &in->reg) ? REG : BAD;
}

static bool instr_parse(struct l_test *t, char *text, struct l_instr *in)
{
	static const struct {
		const char *name;
		enum operand to, from;
		enum l_op op;
	} forms[] = {
		{ "MOV", MEM, VALUE, L_STORE },
		{ "MOV", MEM, REG, L_STORE_REG },
		{ "MOV", REG, MEM, L_LOAD },
		{ "MOV", REG, VALUE, L_SET },
		{ "XCHG", MEM, REG, L_XCHG },
		{ "LOCK XADD", MEM, REG, L_XADD },
		{ "LOCK CMPXCHG", MEM, REG, L_CMPXCHG },
	};
	char *comma = strchr(text, ','), *space;
	enum operand to, from;

	*in = (struct l_instr){ .op = L_MFENCE };
	if (!strcmp(text, "MFENCE"))
		return true;
	if (!comma)
		return false;
	*comma = 0;
	space = strrchr(text, ' ');
	if (!space)
		return false;
	*space = 0;
	to = operand_parse(t, space + 1, in);
	from = operand_parse(t, comma + 1, in);
	for (unsigned i = 0; i < ARRAY_LEN(forms); i++)
		if (!strcmp(text, forms[i].name) && to == forms[i].to && from == forms[i].from) {
			in->op = (uint8_t)forms[i].op;
			return to != BAD;
		}
	return false;
}

static void row_parse(struct parser *p, char *line)
{
	struct l_test *t = p->t;
	unsigned thread = 0;
	char *cell, *rest = line;

	*strrchr(line, ';') = 0;
	while ((cell = strsep(&rest, "|"))) {
		struct l_instr in;
		char text[64];

		cell = trim(cell);
		if (!p->rows) {
			if (cell[0] != 'P' || atoi(cell + 1) != (int)thread || thread == L_THREADS)
				complain(p, "not the next thread", cell);
			t->threads = ++thread;
			continue;
		}
		snprintf(text, sizeof(text), "%s", cell);
		if (thread >= t->threads || t->length[thread] == L_INSTRS) {
			complain(p, "too much", cell);
			return;
		}
		if (*cell && !instr_parse(t, text, &in)) {
			complain(p, "no instruction", cell);
		} else if (*cell) {
			if (in.op == L_CMPXCHG)
				t->loaded[thread] |= 1; /* EAX */
			else if (in.op == L_LOAD || in.op == L_XCHG || in.op == L_XADD)
				t->loaded[thread] |= (uint8_t)(1u << in.reg);
			t->instr[thread][t->length[thread]++] = in;
		}
		thread++;
	}
	p->rows = true;
}

static void question_parse(struct parser *p, char *line)
{
	struct l_test *t = p->t;
	char *open = strchr(line, '('), *close = strrchr(line, ')'), *save = NULL;

	if (!open || !close) {
		complain(p, "no question", line);
		return;
	}
	*close = 0;
	for (char *w = strtok_r(open + 1, " /\\", &save); w; w = strtok_r(NULL, " /\\", &save)) {
		char *is = strchr(w, '='), *colon = strchr(w, ':');
		struct l_term term = { .thread = L_THREADS };
		bool ok = is && t->terms < L_TERMS;

		if (ok) {
			*is = 0;
			ok = value_parse(is + 1, &term.value);
		}
		if (ok && colon) {
			*colon = 0;
			ok = value_parse(w, &term.thread) && term.thread < t->threads &&
			     reg_find(colon + 1, &term.index);
		} else if (ok) {
			ok = var_find(t, w, false, &term.index);
		}
		if (ok)
			t->term[t->terms++] = term;
		else
			complain(p, "not part of a question", w);
	}
}

int l_parse(const char *path, struct l_test *tests, unsigned *count)
{
	struct parser p = { .path = path };
	FILE *f = fopen(path, "r");
	char buf[256], *line;

	*count = 0;
	if (!f) {
		perror(path);
		return -EINVAL;
	}
	while (fgets(buf, sizeof(buf), f)) {
		p.line++;
		buf[strcspn(buf, "#")] = 0;
		line = trim(buf);
		if (!*line)
			continue;
		if (!strncmp(line, "X86 ", 4) && *count < L_TESTS) {
			p.t = &tests[(*count)++];
			p.rows = false;
			memset(p.t, 0, sizeof(*p.t));
			p.t->line = p.line;
			snprintf(p.t->name, sizeof(p.t->name), "%s", trim(line + 4));
		} else if (!p.t) {
			complain(&p, "outside of a test", line);
		} else if (!strncmp(line, "exists", 6)) {
			question_parse(&p, line);
		} else if (line[strlen(line) - 1] == ';') {
			row_parse(&p, line);
		} else {
			complain(&p, "not understood", line);
		}
	}
	fclose(f);
	for (unsigned i = 0; i < *count; i++)
		if (!tests[i].terms || !tests[i].threads) {
			fprintf(stderr, "%s:%u: %s is not complete\n", path, tests[i].line,
				tests[i].name);
			p.errors++;
		}
	return p.errors || !*count ? -EINVAL : 0;
}

void l_outcome_text(const struct l_test *t, const struct l_outcome *o, char *out, size_t len)
{
	size_t at = 0;

	*out = 0;
	for (unsigned i = 0; i < t->threads; i++)
		for (unsigned r = 0; r < L_REGS; r++)
			if (t->loaded[i] >> r & 1 && at < len)
				at += (size_t)snprintf(out + at, len - at, "%u:%s=%u ", i,
						       l_reg_names[r], o->reg[i][r]);
	for (unsigned v = 0; v < t->vars && at < len; v++)
		at += (size_t)snprintf(out + at, len - at, "%s=%u ", t->var[v], o->var[v]);
}

bool l_asked(const struct l_test *t, const struct l_outcome *o)
{
	for (unsigned i = 0; i < t->terms; i++) {
		const struct l_term *m = &t->term[i];
		uint8_t have =
			m->thread == L_THREADS ? o->var[m->index] : o->reg[m->thread][m->index];

		if (have != m->value)
			return false;
	}
	return true;
}
