/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bt/fake_dsm.h - the DSM of one node without the DSM: all rights, always.
 *
 * What      Lets the engine run alone; fake_dsm_drop plays a revocation, and reads of rights can be taken away.
 * Threads   Readers on their own threads; fake_dsm_drop from any.
 */
#ifndef TESTS_BT_FAKE_DSM_H
#define TESTS_BT_FAKE_DSM_H

#include "dsm/dsm.h"

struct dsm *fake_dsm_open(uint64_t ram_bytes);
void fake_dsm_close(struct dsm *d);
/* Every reader drops gfn above right at its next poll or enter; does not wait. */
void fake_dsm_drop(struct dsm *d, gfn_t gfn, enum dsm_right right);

#endif
