/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/walk.h - the guest's own page tables, read from outside.
 *
 * Threads   Any that may wait for guest memory (dsm_acquire).
 */
#ifndef HV_WALK_H
#define HV_WALK_H

#include "hv/engine.h"

/*
 * Linear to physical without any check of rights (SDM vol 3, 4.3 to 4.5).  0; -EFAULT: not mapped, or its tables are
 * not in RAM; otherwise as dsm_copy_in.
 */
MUST_CHECK int hv_walk(struct dsm *dsm, const struct hv_cpu_state *st, gva_t va, uint64_t deadline_ns, gpa_t *out);
/* Bytes at linear address va; stops where one cannot be had.  Their count. */
size_t hv_walk_read(struct dsm *dsm, const struct hv_cpu_state *st, gva_t va, uint8_t *buf, size_t len,
		    uint64_t deadline_ns);

#endif
