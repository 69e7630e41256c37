/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/msr.c - registers without a CPUID bit that kernels on AMD CPUs touch; see msr.h.  Pure.
 *
 * Spec: AMD BIOS and Kernel Developer's Guides; which ones: what Linux was seen to touch.
 */
#include "hv/core/msr.h"

/* clang-format off */
static const struct {
	uint32_t index;
	uint64_t value;
} fixed_msrs[] = {
	{ 0x8b, 0 },						/* PATCH_LEVEL */
	{ 0x1d9, 0 },						/* DEBUGCTL */
	{ 0x1db, 0 }, { 0x1dc, 0 }, { 0x1dd, 0 }, { 0x1de, 0 }, /* last branch and interrupt records */
	{ 0xc0010010, 0 },					/* SYSCFG */
	{ 0xc0010015, 1u << 24 },				/* HWCR: the TSC counts at P0 rate */
	{ 0xc001001a, 0 }, { 0xc001001d, 0 },			/* TOP_MEM, TOP_MEM2 */
	{ 0xc001001f, 0 },					/* NB_CFG */
	{ 0xc0010055, 0 }, { 0xc0010058, 0 },			/* INT_PENDING, MMIO_CONF_BASE */
	{ 0xc0010140, 0 }, { 0xc0010141, 0 },			/* OSVW */
	{ 0xc0011004, 0 }, { 0xc0011005, 0 },			/* CPUID feature overrides */
	{ 0xc0011020, 0 }, { 0xc0011021, 0 }, { 0xc0011022, 0 }, { 0xc0011023, 0 }, /* LS IC DC BU CFG */
	{ 0xc0011029, 2 },					/* DE_CFG: lfence serialises */
	{ 0xc001102a, 0 }, { 0xc001102b, 0 }, { 0xc001102d, 0 },
};
/* clang-format on */

bool hv_msr_fixed(uint32_t index, uint64_t *value)
{
	for (unsigned k = 0; k < ARRAY_LEN(fixed_msrs); k++) {
		if (fixed_msrs[k].index == index) {
			*value = fixed_msrs[k].value;
			return true;
		}
	}
	return false;
}
