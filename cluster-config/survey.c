/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/survey.c - what hosts can do; see survey.h.
 *
 * What      This host is asked through a slice program of its own, others through their agents.
 * I/O       stdout; a child process, control connections.
 */
#include "cluster-config/survey.h"

#include "cluster-config/probe.h"
#include "cluster-config/spawn.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define POLL_MS 20

/* --- this host -------------------------------------------------------------------------------- */

struct here {
	struct cc_host *host;
	bool told;
};

static void here_take(void *arg, const char *facts, const char *why)
{
	struct here *h = arg;

	cc_host_read(h->host, facts, why);
	h->told = true;
}

void cc_survey_here(struct cc_loop *loop, const char *slice_path, const struct cc_ask *what, struct cc_host *out)
{
	struct here h = { .host = out };
	struct cc_probe *probe = NULL;
	char path[PATH_MAX];
	int err = 0;

	if (!slice_path)
		err = cc_program_path("unum-slice", path, sizeof(path));
	if (!err)
		err = cc_probe_start(loop, slice_path ? slice_path : path, what, here_take, &h, &probe);
	if (err)
		here_take(&h, "", strerror(-err));
	while (!h.told) {
		cc_loop_once(loop, POLL_MS);
		cc_probe_tick(probe, clock_now_ns());
	}
	cc_probe_free(probe);
}

/* --- hosts of a topology ---------------------------------------------------------------------- */

struct nodes {
	void (*trouble)(void *arg, const struct cc_node *node, const char *text);
	void *arg;
};

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
}

static void on_progress(void *arg, const char *node, const char *text)
{
	(void)arg;
	fprintf(stderr, "unum: %s: %s\n", node, text);
}

static void on_trouble(void *arg, const struct cc_node *node, const char *text)
{
	struct nodes *n = arg;

	n->trouble(n->arg, node, text);
}

static void on_run(void *arg)
{
	(void)arg;
}

struct cc_vm cc_survey_vm(const struct cc_topology *t)
{
	struct cc_vm vm = { .name = "survey", .shares = t->nodes };

	for (unsigned i = 0; i < t->nodes; i++)
		vm.share[i].node = i;
	return vm;
}

int cc_survey_nodes(struct cc_loop *loop, const struct cc_topology *t, const struct cc_vm *vm, enum cc_ctl_mode mode,
		    struct cc_tls *tls, void (*trouble)(void *arg, const struct cc_node *node, const char *text),
		    void *arg, struct cc_ctl **out)
{
	static const struct cc_ctl_ops ops = { on_console, on_progress, on_trouble, on_run, NULL };
	struct nodes n = { trouble, arg };
	int err = cc_ctl_open(loop, t, vm, mode, tls, &ops, &n, out);

	if (err)
		return err;
	while (cc_ctl_phase(*out) != CC_CTL_OVER) {
		cc_loop_once(loop, POLL_MS);
		cc_ctl_tick(*out);
	}
	return 0;
}

/* --- words ------------------------------------------------------------------------------------- */

void cc_findings_print(const json_t *list)
{
	size_t i;
	json_t *f;

	json_array_foreach(list, i, f)
	{
		printf("  %-8s %s\n", cc_json_text(f, "level"), cc_json_text(f, "text"));
		if (*cc_json_text(f, "fix"))
			printf("           fix: %s\n", cc_json_text(f, "fix"));
	}
}
