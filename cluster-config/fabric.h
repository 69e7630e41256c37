/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/fabric.h - `unum fabric`: what joins this host, or those of a topology, and how fast it is.
 *
 * Threads   The main thread.
 */
#ifndef CC_FABRIC_H
#define CC_FABRIC_H

#include "cluster-config/survey.h"

/* Exit status: CC_EXIT_OK; CC_EXIT_INTERNAL when two nodes could not be joined as chosen; CC_EXIT_USAGE when a host
 * could not be asked. */
int cc_fabric(const struct cc_survey_options *o);

#endif
