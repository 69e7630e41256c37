/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/survey.h - what hosts can do: this one, and those of a topology; for `unum doctor` and `unum fabric`.
 *
 * Threads   The main thread; the functions return when all is told, or the deadlines of ctl.h and probe.h have passed.
 */
#ifndef CC_SURVEY_H
#define CC_SURVEY_H

#include "cluster-config/ctl.h"

struct cc_survey_options {
	const struct cc_topology *t; /* NULL: this host only */
	struct cc_key key;           /* of the agents of `t` */
	const char *slice_path;      /* NULL: beside unum */
	bool json;
};

/* Asks the slice program of this host; cc_host_clear it. */
void cc_survey_here(struct cc_loop *loop, const char *slice_path, const struct cc_ask *what, struct cc_host *out);

/* A VM on all nodes, that is never started. */
struct cc_vm cc_survey_vm(const struct cc_topology *t);
/* Asks the agents of `vm`; cc_ctl_host of *out has what they told.  All is borrowed until it is closed.  `trouble`: with
 * `arg`, for each node that does not tell. */
MUST_CHECK int cc_survey_nodes(struct cc_loop *loop, const struct cc_topology *t, const struct cc_vm *vm,
			       enum cc_ctl_mode mode, struct cc_tls *tls,
			       void (*trouble)(void *arg, const struct cc_node *node, const char *text), void *arg,
			       struct cc_ctl **out);
/* The pool key, from `path` or else from the file that the topology names; none at all is fine when one may be made up
 * (`make`), for agents that nobody else uses.  -errno: said on stderr. */
MUST_CHECK int cc_key_choose(const struct cc_topology *t, const char *path, bool make, struct cc_key *key);

/* `unum doctor` and `unum fabric`: argv[0] is the word itself. */
extern const char cc_doctor_usage[], cc_fabric_usage[];
int cc_doctor_main(int argc, char **argv);
int cc_fabric_main(int argc, char **argv);

/* The findings of a host, or of several, on stdout. */
void cc_findings_print(const json_t *list);

#endif
