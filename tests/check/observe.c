/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/observe.c - see observe.h: states as text, and a set of texts.
 *
 * Owns struct observed_set; one thread; out of memory ends the program.
 */
#include "tests/check/observe.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 2048

struct observed_set {
	char **text; /* open addressing, NULL: free */
	unsigned long used, size;
};

struct text {
	char *at, *end;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->at, (size_t)(t->end - t->at), format, args);
	va_end(args);
	if (n < 0 || n >= t->end - t->at)
		abort();
	t->at += n;
}

static const char *const kinds[] = { "", "REQ_READ", "REQ_WRITE", "EVICT", "FWD_READ", "FWD_WRITE", "RECALL",
				     "INV", "GRANT", "ACK", "DONE", "RETURN" };
static const char *const bytes_names[] = { "", "+keep", "+zero", "+page" };
static const char rights[] = "-rw?";

static void node_text(struct text *t, unsigned n, const struct observed_node *o)
{
	put(t, "n%u:%c", n, rights[o->right]);
	if (o->mapped != o->right)
		put(t, ",mapped=%c", rights[o->mapped]);
	if (o->unmapping)
		put(t, ",unmapping=%c", rights[o->target]);
	put(t, "%s%s", o->own ? ",own" : "", o->fresh ? ",fresh" : "");
	if (o->waiting)
		put(t, ",waits=%s%s", o->waiting & 2 ? "r" : "", o->waiting & 4 ? "w" : "");
	if (o->want)
		put(t, ",asked=%c", rights[o->want]);
	if (o->next)
		put(t, ",next=%c", rights[o->next]);
	if (o->granted)
		put(t, ",granted=%c(n%u,needs=%u)", rights[o->granted], o->from, o->need);
	if (o->got)
		put(t, ",acks=%u", o->got);
	if (o->evict)
		put(t, ",%s", o->evict == 1 ? "evict-asked" : "dropping");
	if (o->revoke)
		put(t, ",%s(%s,n%u,acks=%u%s)", o->revoke == 1 ? "held" : "revoking", kinds[o->cause], o->to, o->acks,
		    bytes_names[o->bytes]);
	put(t, " ");
}

static void links_text(struct text *t, const struct observed *o)
{
	for (unsigned f = 0; f < o->nodes; f++) {
		for (unsigned to = 0; to < o->nodes; to++) {
			for (unsigned i = 0; i < o->used[f][to]; i++) {
				const struct observed_msg *m = &o->link[f][to][i];

				if (i == 0)
					put(t, "| n%u>n%u:", f, to);
				put(t, "%s%s", i ? "," : "", kinds[m->kind]);
				if (m->right)
					put(t, "(%c)", rights[m->right]);
				put(t, "%s%s", bytes_names[m->bytes], m->fresh ? "*" : "");
				if (m->who || m->acks)
					put(t, "[n%u,%u]", m->who, m->acks);
				if (m->copy)
					put(t, "+copy");
			}
			if (o->used[f][to])
				put(t, " ");
		}
	}
}

static void state_text(struct text *t, const struct observed *o)
{
	for (unsigned n = 0; n < o->nodes; n++)
		node_text(t, n, &o->node[n]);
	put(t, "| home:n%u,copies=%x,mig=%u%s%s ", o->owner, o->copies, o->mig, o->written ? ",written" : "",
	    o->ever ? ",ever" : "");
	for (unsigned i = 0; i < o->waits; i++)
		put(t, "%s(n%u%s) ", kinds[o->wait[i].kind], o->wait[i].node, o->wait[i].copy ? "+copy" : "");
	links_text(t, o);
}

static unsigned long hash(const char *s)
{
	unsigned long h = 0xcbf29ce484222325ul;

	while (*s)
		h = (h ^ (unsigned char)*s++) * 0x100000001b3ul;
	return h ^ h >> 29;
}

static char **slot(char **text, unsigned long size, const char *s)
{
	unsigned long i = hash(s) & (size - 1);

	while (text[i] && strcmp(text[i], s))
		i = (i + 1) & (size - 1);
	return &text[i];
}

static void *must(void *p)
{
	if (!p) {
		fprintf(stderr, "observe: out of memory\n");
		exit(2);
	}
	return p;
}

struct observed_set *observed_open(void)
{
	struct observed_set *s = must(calloc(1, sizeof(*s)));

	s->size = 1ul << 16;
	s->text = must(calloc(s->size, sizeof(*s->text)));
	return s;
}

void observed_add(struct observed_set *s, const struct observed *o)
{
	char line[TEXT_MAX], **at;
	struct text t = { line, line + sizeof(line) };

	state_text(&t, o);
	at = slot(s->text, s->size, line);
	if (*at)
		return;
	*at = must(strdup(line));
	if (++s->used * 2 > s->size) {
		char **grown = must(calloc(s->size * 2, sizeof(*grown)));

		for (unsigned long i = 0; i < s->size; i++)
			if (s->text[i])
				*slot(grown, s->size * 2, s->text[i]) = s->text[i];
		free(s->text);
		s->text = grown;
		s->size *= 2;
	}
}

static int order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

unsigned long observed_write(struct observed_set *s, FILE *f)
{
	char **list = must(calloc(s->used + 1, sizeof(*list)));
	unsigned long n = 0;

	for (unsigned long i = 0; i < s->size; i++)
		if (s->text[i])
			list[n++] = s->text[i];
	qsort(list, n, sizeof(*list), order);
	for (unsigned long i = 0; i < n; i++)
		fprintf(f, "%s\n", list[i]);
	free(list);
	return n;
}

void observed_close(struct observed_set *s)
{
	for (unsigned long i = 0; i < s->size; i++)
		free(s->text[i]);
	free(s->text);
	free(s);
}
