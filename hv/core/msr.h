/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/msr.h - registers that kernels touch though CPUID does not promise them.
 *
 * What      They go with the CPU model (cpuid.h: an AMD CPU): each reads as a fixed value and takes any write.
 */
#ifndef HV_CORE_MSR_H
#define HV_CORE_MSR_H

#include "base/types.h"

/* True: *value is what it reads as. */
bool hv_msr_fixed(uint32_t index, uint64_t *value);

#endif
