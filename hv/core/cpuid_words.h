/* SPDX-License-Identifier: Apache-2.0 */
/* hv/core/cpuid_words.h - CPU features by name; internal to hv/core. */
#ifndef HV_CORE_CPUID_WORDS_H
#define HV_CORE_CPUID_WORDS_H

#include "hv/core/cpuid.h"

enum hv_cpuid_reg_index { HV_EAX, HV_EBX, HV_ECX, HV_EDX };
enum hv_cpuid_model {
	HV_CPUID_BY_NAME, /* a VM has it when its words say so */
	HV_CPUID_PLAIN,	  /* part of the plain model, and asked of the host */
};

struct hv_cpuid_bit {
	const char *name; /* as in /proc/cpuinfo */
	uint32_t leaf, subleaf;
	enum hv_cpuid_reg_index reg;
	uint8_t bit;
	enum hv_cpuid_model model;
	const char *needs; /* another name, or NULL */
};

extern const struct hv_cpuid_bit hv_cpuid_bits[];
extern const unsigned hv_cpuid_bits_count;

bool hv_cpuid_has_word(const char *words, const char *name);

static inline uint32_t *hv_cpuid_reg(struct hv_cpuid_entry *e, enum hv_cpuid_reg_index reg)
{
	switch (reg) {
	case HV_EAX:
		return &e->eax;
	case HV_EBX:
		return &e->ebx;
	case HV_ECX:
		return &e->ecx;
	default:
		return &e->edx;
	}
}

#endif
