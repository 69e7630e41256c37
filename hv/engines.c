/* SPDX-License-Identifier: Apache-2.0 */
/* engines.c - the CPU engines that are built in, in order of preference. */
#include "hv/engine.h"

const struct hv_engine *const hv_engines[] = { &hv_engine_kvm, &hv_engine_bt, NULL };
