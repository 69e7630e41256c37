/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/cpuid_words.c - CPU features by the names of /proc/cpuinfo; see cpuid.h.  Pure.
 *
 * What      One table: which bit a name is, whether the plain model has it, and what it needs.  A name is in the table only
 *           when a guest may have it on nodes that share memory by pages and on a monitor that keeps x87, SSE and
 *           AVX state: so no AVX-512, no AMX, no protection keys, no transactions (they abort at every page that comes).
 * Spec      Intel SDM vol 2A, CPUID; AMD64 APM vol 3, appendix E.
 */
#include "hv/core/cpuid_words.h"

#define PLAIN HV_CPUID_PLAIN, NULL
#define NAMED HV_CPUID_BY_NAME, NULL
#define NEEDS(other) HV_CPUID_BY_NAME, other

/* clang-format off */
const struct hv_cpuid_bit hv_cpuid_bits[] = {
	{ "fpu",	1, 0, HV_EDX, 0, PLAIN },
	{ "tsc",	1, 0, HV_EDX, 4, PLAIN },
	{ "msr",	1, 0, HV_EDX, 5, PLAIN },
	{ "pae",	1, 0, HV_EDX, 6, PLAIN },
	{ "cx8",	1, 0, HV_EDX, 8, PLAIN },
	{ "sep",	1, 0, HV_EDX, 11, PLAIN },
	{ "pge",	1, 0, HV_EDX, 13, PLAIN },
	{ "cmov",	1, 0, HV_EDX, 15, PLAIN },
	{ "pat",	1, 0, HV_EDX, 16, PLAIN },
	{ "clflush",	1, 0, HV_EDX, 19, PLAIN },
	{ "mmx",	1, 0, HV_EDX, 23, PLAIN },
	{ "fxsr",	1, 0, HV_EDX, 24, PLAIN },
	{ "sse",	1, 0, HV_EDX, 25, PLAIN },
	{ "sse2",	1, 0, HV_EDX, 26, PLAIN },
	{ "pni",	1, 0, HV_ECX, 0, PLAIN }, /* SSE3 */
	{ "ssse3",	1, 0, HV_ECX, 9, PLAIN },
	{ "cx16",	1, 0, HV_ECX, 13, PLAIN },
	{ "sse4_1",	1, 0, HV_ECX, 19, PLAIN },
	{ "sse4_2",	1, 0, HV_ECX, 20, PLAIN },
	{ "popcnt",	1, 0, HV_ECX, 23, PLAIN },
	{ "lahf_lm",	0x80000001, 0, HV_ECX, 0, PLAIN },
	{ "syscall",	0x80000001, 0, HV_EDX, 11, PLAIN },
	{ "nx",		0x80000001, 0, HV_EDX, 20, PLAIN },
	{ "rdtscp",	0x80000001, 0, HV_EDX, 27, PLAIN },
	{ "lm",		0x80000001, 0, HV_EDX, 29, PLAIN },

	{ "tsc_deadline_timer", 1, 0, HV_ECX, 24, NAMED },
	{ "pclmulqdq",	1, 0, HV_ECX, 1, NAMED },
	{ "movbe",	1, 0, HV_ECX, 22, NAMED },
	{ "aes",	1, 0, HV_ECX, 25, NAMED },
	{ "rdrand",	1, 0, HV_ECX, 30, NAMED },
	{ "pcid",	1, 0, HV_ECX, 17, NAMED },
	{ "xsave",	1, 0, HV_ECX, 26, NAMED },
	{ "avx",	1, 0, HV_ECX, 28, NEEDS("xsave") },
	{ "fma",	1, 0, HV_ECX, 12, NEEDS("avx") },
	{ "f16c",	1, 0, HV_ECX, 29, NEEDS("avx") },
	{ "fsgsbase",	7, 0, HV_EBX, 0, NAMED },
	{ "bmi1",	7, 0, HV_EBX, 3, NAMED },
	{ "avx2",	7, 0, HV_EBX, 5, NEEDS("avx") },
	{ "smep",	7, 0, HV_EBX, 7, NAMED },
	{ "bmi2",	7, 0, HV_EBX, 8, NAMED },
	{ "invpcid",	7, 0, HV_EBX, 10, NEEDS("pcid") },
	{ "rdseed",	7, 0, HV_EBX, 18, NAMED },
	{ "adx",	7, 0, HV_EBX, 19, NAMED },
	{ "smap",	7, 0, HV_EBX, 20, NAMED },
	{ "clflushopt",	7, 0, HV_EBX, 23, NAMED },
	{ "clwb",	7, 0, HV_EBX, 24, NAMED },
	{ "sha_ni",	7, 0, HV_EBX, 29, NAMED },
	{ "umip",	7, 0, HV_ECX, 2, NAMED },
	{ "vaes",	7, 0, HV_ECX, 9, NEEDS("avx") },
	{ "vpclmulqdq",	7, 0, HV_ECX, 10, NEEDS("avx") },
	{ "rdpid",	7, 0, HV_ECX, 22, NAMED },
	{ "fsrm",	7, 0, HV_EDX, 4, NAMED },
	{ "xsaveopt",	0xd, 1, HV_EAX, 0, NEEDS("xsave") },
	{ "xsavec",	0xd, 1, HV_EAX, 1, NEEDS("xsave") },
	{ "xgetbv1",	0xd, 1, HV_EAX, 2, NEEDS("xsave") },
	{ "abm",	0x80000001, 0, HV_ECX, 5, NAMED }, /* LZCNT */
	{ "sse4a",	0x80000001, 0, HV_ECX, 6, NAMED },
	{ "misalignsse", 0x80000001, 0, HV_ECX, 7, NAMED },
	{ "3dnowprefetch", 0x80000001, 0, HV_ECX, 8, NAMED },
	{ "pdpe1gb",	0x80000001, 0, HV_EDX, 26, NAMED },
};
/* clang-format on */
const unsigned hv_cpuid_bits_count = ARRAY_LEN(hv_cpuid_bits);

/* --- words ---------------------------------------------------------------------------------------------------- */

static size_t word_len(const char *p)
{
	size_t n = 0;

	while (p[n] && p[n] != ' ')
		n++;
	return n;
}

static bool word_is(const char *word, size_t len, const char *name)
{
	size_t k = 0;

	while (k < len && name[k] && name[k] == word[k])
		k++;
	return k == len && !name[k];
}

/* The next word from *at on; its length, 0 at the end. */
static size_t word_next(const char **at)
{
	while (**at == ' ')
		(*at)++;
	return word_len(*at);
}

bool hv_cpuid_has_word(const char *words, const char *name)
{
	size_t len;

	for (const char *p = words; (len = word_next(&p)); p += len)
		if (word_is(p, len, name))
			return true;
	return false;
}

/* All names of the table fit: a unit test adds them up. */
static void word_add(char *out, const char *word, size_t len)
{
	size_t at = 0;

	while (out[at])
		at++;
	if (at + len + 2 > HV_CPUID_WORDS_MAX)
		return;
	if (at)
		out[at++] = ' ';
	for (size_t k = 0; k < len; k++)
		out[at + k] = word[k];
	out[at + len] = 0;
}

static const struct hv_cpuid_bit *bit_find(const char *word, size_t len)
{
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++)
		if (word_is(word, len, hv_cpuid_bits[k].name))
			return &hv_cpuid_bits[k];
	return NULL;
}

bool hv_cpuid_features_check(const char *features, const char **bad, const char **why)
{
	size_t len;

	for (const char *p = features; (len = word_next(&p)); p += len) {
		const struct hv_cpuid_bit *b = bit_find(p, len);

		*bad = p;
		*why = "not a CPU feature that a guest can be given by name";
		if (!b || b->model == HV_CPUID_PLAIN)
			return false;
		*why = "needs another CPU feature that is not named";
		if (b->needs && !hv_cpuid_has_word(features, b->needs))
			return false;
	}
	return true;
}

/* --- hosts ---------------------------------------------------------------------------------------------------- */

static bool host_has(const struct hv_cpuid_entry *host, unsigned count, const struct hv_cpuid_bit *b)
{
	for (unsigned k = 0; k < count; k++) {
		struct hv_cpuid_entry e = host[k];

		if (e.leaf == b->leaf && (!e.by_subleaf || e.subleaf == b->subleaf))
			return *hv_cpuid_reg(&e, b->reg) >> b->bit & 1;
	}
	return false;
}

void hv_cpuid_offered(const struct hv_cpuid_entry *host, unsigned count,
		      char out[static HV_CPUID_WORDS_MAX])
{
	out[0] = 0;
	/* In the table what a feature needs comes before it. */
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++) {
		const struct hv_cpuid_bit *b = &hv_cpuid_bits[k];

		if (b->model == HV_CPUID_BY_NAME && host_has(host, count, b) &&
		    (!b->needs || hv_cpuid_has_word(out, b->needs)))
			word_add(out, b->name, word_len(b->name));
	}
}

void hv_cpuid_lacking(const struct hv_cpuid_entry *host, unsigned count,
		      char out[static HV_CPUID_WORDS_MAX])
{
	out[0] = 0;
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++) {
		const struct hv_cpuid_bit *b = &hv_cpuid_bits[k];

		if (b->model == HV_CPUID_PLAIN && !host_has(host, count, b))
			word_add(out, b->name, word_len(b->name));
	}
}

void hv_cpuid_shown(const struct hv_cpuid_entry *table, unsigned count, char out[static HV_CPUID_WORDS_MAX])
{
	out[0] = 0;
	for (unsigned k = 0; k < hv_cpuid_bits_count; k++)
		if (host_has(table, count, &hv_cpuid_bits[k]))
			word_add(out, hv_cpuid_bits[k].name, word_len(hv_cpuid_bits[k].name));
}

void hv_cpuid_words_missing(const char *wanted, const char *offered,
			    char out[static HV_CPUID_WORDS_MAX])
{
	size_t len;

	out[0] = 0;
	for (const char *p = wanted; (len = word_next(&p)); p += len) {
		bool found = false;
		size_t n;

		for (const char *q = offered; (n = word_next(&q)); q += n) {
			size_t k = 0;

			while (n == len && k < n && p[k] == q[k])
				k++;
			found |= n == len && k == n;
		}
		if (!found)
			word_add(out, p, len);
	}
}
