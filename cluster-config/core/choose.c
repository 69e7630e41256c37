/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/core/choose.c - which engine a VM runs on; see choose.h. Pure. */
#include "cluster-config/core/choose.h"

#include <string.h>

bool cc_kvm_possible(const struct cc_wish *wish, const struct cc_facts *f, struct cc_refusal *no)
{
	const struct cc_offer *offer = &f->offer[wish->span];
	bool offered =
		offer->engine == CC_HOST_KVM || (offer->kvm && wish->engine == CC_ENGINE_KVM);

	if (*f->unknown)
		*no = (struct cc_refusal){ .word = "unknown", .why = f->unknown, .fix = "" };
	else if (!offered)
		*no = (struct cc_refusal){ .word = offer->refusal,
					   .why = offer->why,
					   .fix = offer->fix };
	else if (wish->faults == CC_FAULTS_INLINE && !f->inline_faults.ok)
		*no = (struct cc_refusal){ .word = "no-rights",
					   .why = f->inline_faults.why,
					   .fix = f->inline_faults.fix };
	else if (wish->faults == CC_FAULTS_DISPATCH && !f->dispatch_faults.ok)
		*no = (struct cc_refusal){ .word = "no-rights",
					   .why = f->dispatch_faults.why,
					   .fix = f->dispatch_faults.fix };
	else
		return true;
	return false;
}

enum cc_engine cc_engine_choose(const struct cc_wish *wish, const struct cc_facts *const *facts,
				unsigned count, struct cc_refusal *no)
{
	struct cc_refusal first = { 0 };
	bool all = true;

	for (unsigned i = 0; i < count; i++) {
		if (cc_kvm_possible(wish, facts[i], no))
			continue;
		no->node = i;
		/* A host that has no engine at all is the reason that counts. */
		if (!*facts[i]->unknown && facts[i]->offer[wish->span].engine == CC_HOST_NONE)
			return CC_ENGINE_AUTO;
		if (all)
			first = *no;
		all = false;
	}
	*no = first;
	if (all)
		return CC_ENGINE_KVM;
	return wish->engine == CC_ENGINE_KVM ? CC_ENGINE_AUTO : CC_ENGINE_BT;
}

/* --- words ------------------------------------------------------------------------------------ */

/* The next word from *at on, its length in *len; NULL: no more. */
static const char *word_next(const char **at, size_t *len)
{
	const char *word = *at;

	while (*word == ' ')
		word++;
	*len = 0;
	while (word[*len] && word[*len] != ' ')
		(*len)++;
	*at = word + *len;
	return *len ? word : NULL;
}

static bool has_word(const char *list, const char *word, size_t len)
{
	const char *w;
	size_t n;

	while ((w = word_next(&list, &n)))
		if (n == len && !memcmp(w, word, len))
			return true;
	return false;
}

/* What does not fit is left out: one feature less, never half a name. */
static void word_add(char *out, size_t *used, const char *word, size_t len)
{
	if (*used + !!*used + len + 1 > CC_FEATURES_MAX)
		return;
	if (*used)
		out[(*used)++] = ' ';
	memcpy(out + *used, word, len);
	*used += len;
	out[*used] = 0;
}

void cc_words_common(const char *const *list, unsigned count, char out[static CC_FEATURES_MAX])
{
	const char *at = count ? list[0] : "", *word;
	size_t used = 0, len;

	out[0] = 0;
	while ((word = word_next(&at, &len))) {
		bool all = true;

		for (unsigned i = 1; i < count && all; i++)
			all = has_word(list[i], word, len);
		if (all)
			word_add(out, &used, word, len);
	}
}

void cc_words_less(const char *a, const char *b, char out[static CC_FEATURES_MAX])
{
	const char *word;
	size_t used = 0, len;

	out[0] = 0;
	while ((word = word_next(&a, &len)))
		if (!has_word(b, word, len))
			word_add(out, &used, word, len);
}
