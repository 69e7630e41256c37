/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/doctor.h - `unum doctor`: what this host, and those of a topology, can do for a VM.
 *
 * Threads   The main thread.
 */
#ifndef CC_DOCTOR_H
#define CC_DOCTOR_H

#include "cluster-config/survey.h"

/* Exit status: CC_EXIT_OK when a VM can run on each of these hosts by itself, CC_EXIT_REFUSED when not,
 * CC_EXIT_USAGE when one could not be asked. */
int cc_doctor(const struct cc_survey_options *o);

#endif
