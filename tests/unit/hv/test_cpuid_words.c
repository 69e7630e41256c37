/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features by name: what a host offers, what a VM is shown, and that unknown words are refused. */
#include <criterion/criterion.h>
#include <string.h>

#include "hv/core/cpuid_words.h"

static struct hv_cpuid_entry table[HV_CPUID_MAX];
static unsigned count;

static void build(const char *features, const char *without)
{
	struct hv_cpuid_config cfg = { .vcpus = 2, .features = features, .without = without };

	count = hv_cpuid_build(&cfg, table);
}

static struct hv_cpuid_regs get(uint32_t leaf, uint32_t sub)
{
	return hv_cpuid_lookup(table, count, 0, leaf, sub);
}

/* A host that has every bit of the table. */
static unsigned rich_host(struct hv_cpuid_entry host[static HV_CPUID_HOST_MAX])
{
	static const uint32_t leaves[][2] = { { 1, 0 }, { 7, 0 }, { 0xd, 1 }, { 0x80000001, 0 } };

	for (unsigned k = 0; k < ARRAY_LEN(leaves); k++)
		host[k] = (struct hv_cpuid_entry){ .leaf = leaves[k][0],
						   .subleaf = leaves[k][1],
						   .by_subleaf = leaves[k][0] != 1,
						   .eax = ~0u,
						   .ebx = ~0u,
						   .ecx = ~0u,
						   .edx = ~0u };
	return ARRAY_LEN(leaves);
}

Test(cpuid_words, all_names_fit_and_are_accepted_together)
{
	struct hv_cpuid_entry host[HV_CPUID_HOST_MAX];
	char words[HV_CPUID_WORDS_MAX];
	const char *bad, *why;
	unsigned n = rich_host(host);

	hv_cpuid_offered(host, n, words);
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++)
		cr_assert_eq(hv_cpuid_has_word(words, hv_cpuid_bits[k].name),
			     hv_cpuid_bits[k].model == HV_CPUID_BY_NAME, "%s", hv_cpuid_bits[k].name);
	cr_assert(hv_cpuid_features_check(words, &bad, &why));
	build(words, "");
	/* What is shown is what was named: the host's view of our table names the same words. */
	{
		char again[HV_CPUID_WORDS_MAX];

		hv_cpuid_offered(table, count, again);
		cr_assert_str_eq(again, words);
	}
	hv_cpuid_lacking(host, n, words);
	cr_assert_str_eq(words, "");
}

Test(cpuid_words, no_words_is_the_plain_model)
{
	static struct hv_cpuid_entry plain[HV_CPUID_MAX];
	struct hv_cpuid_config cfg = { .vcpus = 2 };
	unsigned n = hv_cpuid_build(&cfg, plain);

	build("", NULL);
	cr_assert_eq(n, count);
	cr_assert_eq(memcmp(plain, table, n * sizeof(plain[0])), 0);
	cr_assert_eq(get(0, 0).eax, 0xb);
}

Test(cpuid_words, names_are_the_bits_of_the_manual)
{
	build("fma xsave avx rdrand avx2 bmi2 fsrm umip pdpe1gb abm xsaveopt", "");
	cr_assert_eq(get(1, 0).ecx & (1u << 12 | 1u << 26 | 1u << 28 | 1u << 30),
		     1u << 12 | 1u << 26 | 1u << 28 | 1u << 30);
	cr_assert_eq(get(7, 0).ebx, 1u << 5 | 1u << 8 | 1u << 9 /* erms, always */);
	cr_assert_eq(get(7, 0).ecx, 1u << 2);
	cr_assert_eq(get(7, 0).edx, 1u << 4);
	cr_assert(get(0x80000001, 0).ecx & 1u << 5);
	cr_assert(get(0x80000001, 0).edx & 1u << 26);
	/* Leaf 0xd, SDM vol 1, 13.2. */
	cr_assert_eq(get(0, 0).eax, 0xd);
	cr_assert_eq(get(0xd, 0).eax, 7);
	cr_assert_eq(get(0xd, 0).ecx, 576 + 256);
	cr_assert_eq(get(0xd, 1).eax, 1);
	cr_assert_eq(get(0xd, 2).eax, 256);
	cr_assert_eq(get(0xd, 2).ebx, 576);
}

Test(cpuid_words, bad_words)
{
	static const struct {
		const char *words, *bad;
	} rows[] = {
		{ "avx512f", "avx512f" },  { "xsave avx pku", "pku" },	{ "avx2 xsave avx", NULL },
		{ "avx", "avx" },	   { "xsave avx2", "avx2" },	{ "sse2", "sse2" },
		{ "  movbe   aes  ", NULL }, { "movbe,aes", "movbe,aes" }, { "mov", "mov" },
		{ "movbe2", "movbe2" },
	};

	for (unsigned k = 0; k < ARRAY_LEN(rows); k++) {
		const char *bad = NULL, *why;
		bool fine = hv_cpuid_features_check(rows[k].words, &bad, &why);

		cr_assert_eq(fine, !rows[k].bad, "\"%s\"", rows[k].words);
		if (rows[k].bad)
			cr_assert_eq(strncmp(bad, rows[k].bad, strlen(rows[k].bad)), 0, "\"%s\": %s", rows[k].words,
				     bad);
	}
}

Test(cpuid_words, a_feature_is_not_offered_without_what_it_needs)
{
	struct hv_cpuid_entry host[HV_CPUID_HOST_MAX];
	unsigned n = rich_host(host);
	char words[HV_CPUID_WORDS_MAX];

	host[0].ecx &= ~(1u << 26); /* no xsave */
	hv_cpuid_offered(host, n, words);
	cr_assert_not(hv_cpuid_has_word(words, "avx"));
	cr_assert_not(hv_cpuid_has_word(words, "avx2"));
	cr_assert_not(hv_cpuid_has_word(words, "xsaveopt"));
	cr_assert(hv_cpuid_has_word(words, "bmi1"));
}

Test(cpuid_words, a_poor_host)
{
	struct hv_cpuid_entry host[HV_CPUID_HOST_MAX];
	unsigned n = rich_host(host);
	char words[HV_CPUID_WORDS_MAX];

	host[0].ecx &= ~(1u << 9 | 1u << 20 | 1u << 21); /* x2apic is the monitor's own */
	hv_cpuid_lacking(host, n, words);
	cr_assert_str_eq(words, "ssse3 sse4_2");
	build("", words);
	cr_assert_eq(get(1, 0).ecx & (1u << 9 | 1u << 20 | 1u << 21), 1u << 21);
	hv_cpuid_lacking(table, count, words);
	cr_assert_str_eq(words, "ssse3 sse4_2");
}

Test(cpuid_words, the_deadline_by_word)
{
	struct hv_cpuid_config cfg = { .vcpus = 1, .deadline_by_word = true };

	count = hv_cpuid_build(&cfg, table);
	cr_assert_not(get(1, 0).ecx >> 24 & 1);
	cfg.features = "tsc_deadline_timer";
	count = hv_cpuid_build(&cfg, table);
	cr_assert(get(1, 0).ecx >> 24 & 1);
}

Test(cpuid_words, missing)
{
	char out[HV_CPUID_WORDS_MAX];

	hv_cpuid_words_missing("avx bmi1 aes", "bmi1 xsave", out);
	cr_assert_str_eq(out, "avx aes");
	hv_cpuid_words_missing("", "bmi1", out);
	cr_assert_str_eq(out, "");
	hv_cpuid_words_missing("bmi", "bmi1 bmi2", out);
	cr_assert_str_eq(out, "bmi");
}
