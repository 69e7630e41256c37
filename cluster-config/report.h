/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/report.h - what the slices counted, for people and for programs; see report.c. */
#ifndef CC_REPORT_H
#define CC_REPORT_H

#include "base/err.h"
#include "cluster-config/control.h"

#include <stdio.h>

struct cc_report {
	const struct cc_topology *t;
	const struct cc_vm *vm;
	const struct cc_stats *const *stats; /* per node of the VM; NULL: it told none */
	const char *reason, *text; /* cc_end_name, or "not-started"; and the line a human gets */
	int status;                /* exit status of unum */
	double start_s, run_s; /* to RUN; from there to the end.  Negative: it did not get so far */
};

void cc_report_print(const struct cc_report *r, FILE *out);
/* "-" is stdout. -errno */
MUST_CHECK int cc_report_json(const struct cc_report *r, const char *path);

#endif
