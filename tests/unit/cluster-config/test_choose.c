/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_choose.c - one engine and one CPU for all nodes of a VM. */
#include "cluster-config/core/choose.h"

#include <criterion/criterion.h>
#include <string.h>

#define OFFER_KVM { CC_HOST_KVM, true, "inline", "", "", "" }
#define OFFER_SLOW { CC_HOST_BT, true, "dispatch", "slow", "it is slow", "" }
#define OFFER_NO { CC_HOST_BT, false, "none", "unsound", "eptad is on", "reload it" }
#define OFFER_NONE { CC_HOST_NONE, false, "none", "cpu", "the CPU lacks it", "" }
#define BOTH_PATHS .inline_faults = { true, "", "" }, .dispatch_faults = { true, "", "" }

static const struct cc_facts good = { .unknown = "", .offer = { OFFER_KVM, OFFER_KVM, OFFER_KVM }, BOTH_PATHS };
static const struct cc_facts one_only = { .unknown = "", .offer = { OFFER_KVM, OFFER_NO, OFFER_KVM }, BOTH_PATHS };
static const struct cc_facts slow = { .unknown = "",
				      .offer = { OFFER_SLOW, OFFER_NO, OFFER_SLOW },
				      .inline_faults = { false, "no trace", "let it" },
				      .dispatch_faults = { true, "", "" } };
static const struct cc_facts none = { .unknown = "", .offer = { OFFER_NONE, OFFER_NONE, OFFER_NONE } };
static const struct cc_facts silent = { .unknown = "it did not say" };

struct choice {
	const struct cc_facts *hosts[3];
	enum cc_span span;
	enum cc_engine wish;
	enum cc_faults faults;
	enum cc_engine engine;
	unsigned node;
	const char *word, *fix;
};

static const struct choice choices[] = {
	/* what the hosts like best */
	{ { &good, &good }, CC_SPAN_SEVERAL, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_KVM, 0, NULL, NULL },
	{ { &one_only }, CC_SPAN_ONE, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_KVM, 0, NULL, NULL },
	/* one host decides for all, and is named with its fix */
	{ { &good, &one_only }, CC_SPAN_SEVERAL, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_BT, 1, "unsound", "reload it" },
	{ { &one_only, &good }, CC_SPAN_SEVERAL, CC_ENGINE_KVM, CC_FAULTS_AUTO, CC_ENGINE_AUTO, 0, "unsound", "reload it" },
	{ { &one_only, &good }, CC_SPAN_PRIVATE, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_KVM, 0, NULL, NULL },
	/* a slow KVM only for who asks for it */
	{ { &slow }, CC_SPAN_ONE, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_BT, 0, "slow", "" },
	{ { &slow }, CC_SPAN_ONE, CC_ENGINE_KVM, CC_FAULTS_AUTO, CC_ENGINE_KVM, 0, NULL, NULL },
	{ { &good, &slow }, CC_SPAN_PRIVATE, CC_ENGINE_KVM, CC_FAULTS_DISPATCH, CC_ENGINE_KVM, 0, NULL, NULL },
	/* a fault path that was asked for */
	{ { &good, &slow }, CC_SPAN_PRIVATE, CC_ENGINE_KVM, CC_FAULTS_INLINE, CC_ENGINE_AUTO, 1, "no-rights", "let it" },
	{ { &slow }, CC_SPAN_SEVERAL, CC_ENGINE_KVM, CC_FAULTS_DISPATCH, CC_ENGINE_AUTO, 0, "unsound", "reload it" },
	/* a host that does not tell gets what needs nothing */
	{ { &good, &silent }, CC_SPAN_SEVERAL, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_BT, 1, "unknown", "" },
	{ { &silent, &good }, CC_SPAN_SEVERAL, CC_ENGINE_KVM, CC_FAULTS_AUTO, CC_ENGINE_AUTO, 0, "unknown", "" },
	/* a host that can do nothing at all is the reason that counts */
	{ { &one_only, &none }, CC_SPAN_SEVERAL, CC_ENGINE_AUTO, CC_FAULTS_AUTO, CC_ENGINE_AUTO, 1, "cpu", "" },
};

Test(choose, engine)
{
	for (unsigned i = 0; i < ARRAY_LEN(choices); i++) {
		const struct choice *c = &choices[i];
		struct cc_wish wish = { c->wish, c->faults, c->span };
		struct cc_refusal no = { 0 };
		unsigned n = 0;

		while (n < ARRAY_LEN(c->hosts) && c->hosts[n])
			n++;
		cr_expect_eq(cc_engine_choose(&wish, c->hosts, n, &no), c->engine, "choice %u", i);
		if (!c->word) {
			cr_expect_eq(c->engine, CC_ENGINE_KVM, "choice %u", i);
			continue;
		}
		cr_expect_eq(no.node, c->node, "choice %u", i);
		cr_expect_str_eq(no.word, c->word, "choice %u", i);
		cr_expect_str_eq(no.fix, c->fix, "choice %u", i);
		cr_expect_gt(strlen(no.why), 0, "choice %u", i);
	}
}

static void common_is(const char *a, const char *b, const char *c, const char *expected)
{
	const char *list[] = { a, b, c };
	char out[CC_FEATURES_MAX];

	cc_words_common(list, c ? 3 : b ? 2 : 1, out);
	cr_expect_str_eq(out, expected);
}

Test(choose, common_words)
{
	common_is("avx avx2 aes", NULL, NULL, "avx avx2 aes");
	common_is("avx avx2 aes", "aes avx2", NULL, "avx2 aes");
	common_is("avx avx2 aes", "aes avx2", "avx2 x", "avx2");
	common_is("avx avx2", "avx512f", NULL, "");
	common_is("avx", "avx2", NULL, ""); /* whole words, from either side */
	common_is("avx2", "avx", NULL, "");
	common_is("", "avx", NULL, "");
	common_is("avx", "", NULL, "");
	common_is("  avx  aes ", "aes avx", NULL, "avx aes");
}

Test(choose, words_less)
{
	char out[CC_FEATURES_MAX];

	cc_words_less("a b c", "b", out);
	cr_expect_str_eq(out, "a c");
	cc_words_less("a b", "b a", out);
	cr_expect_str_eq(out, "");
	cc_words_less("ab", "a b", out);
	cr_expect_str_eq(out, "ab");
}

Test(choose, a_list_too_long_ends_between_words)
{
	char longer[2 * CC_FEATURES_MAX] = "", out[CC_FEATURES_MAX];
	const char *list[] = { longer, longer };

	while (strlen(longer) + 8 < sizeof(longer))
		strcat(longer, "feature ");
	cc_words_common(list, 2, out);
	cr_expect_lt(strlen(out), CC_FEATURES_MAX);
	cr_expect_gt(strlen(out), CC_FEATURES_MAX - 10);
	cr_expect_str_eq(out + strlen(out) - 7, "feature");
}
