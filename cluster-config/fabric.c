/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/fabric.c - `unum fabric`; see fabric.h.
 *
 * What      Hosts are asked as `unum doctor` does.  Then, for each pair of nodes, what a VM on the two would be joined by is
 *           started between two probe slices (hv/fabric_probe.c) and measured; tcp beside it, for comparison.
 * Owns      The event loop, the connections.
 * I/O       stdout; a child process, control connections.
 * Limits    One pair at a time, PAIR_NS for each; beyond ALL_PAIRS_MAX nodes only those with the first node.
 */
#include "cluster-config/fabric.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/core/spec.h"
#include "cluster-config/fabric_tell.h"
#include "cluster-config/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS 20
#define PAIR_NS (40 * NS_PER_S) /* longer than the probe's own deadlines together, so that it says what is wrong */
#define ALL_PAIRS_MAX 8u

struct fabric {
	const struct cc_survey_options *o;
	struct cc_loop loop;
	struct cc_tls tls;
	struct cc_ctl *survey; /* has the hosts */
	json_t *hosts, *pairs;
	int status;
};

static void status_raise(struct fabric *f, int status)
{
	if (f->status != CC_EXIT_USAGE)
		f->status = status;
}

/* --- one pair ---------------------------------------------------------------------------------- */

struct measured {
	char report[512]; /* JSON */
	char trouble[400];
};

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	struct measured *m = arg;

	snprintf(m->report, sizeof(m->report), "%.*s", (int)(len < sizeof(m->report) ? len : 0), (const char *)data);
}

static void on_progress(void *arg, const char *node, const char *text)
{
	(void)arg;
	(void)node;
	(void)text;
}

static void on_trouble(void *arg, const struct cc_node *node, const char *text)
{
	struct measured *m = arg;

	if (!*m->trouble)
		snprintf(m->trouble, sizeof(m->trouble), "node %s: %s", node->name, text);
}

static void on_run(void *arg)
{
	(void)arg;
}

/* The two nodes, by that backend, with nothing on them. */
static void pair_topology(const struct cc_topology *t, unsigned a, unsigned b, const struct cc_fabric_choice *by,
			  struct cc_topology *out)
{
	const unsigned node[2] = { a, b };
	struct cc_vm *vm = &out->vm[0];

	*out = *t;
	*vm = (struct cc_vm){ .name = "fabric", .vcpus = 2, .memory = 2 * CC_MEMORY_UNIT, .shares = 2,
			      .engine = CC_ENGINE_BT, .kernel = "", .cmdline = "", .console_node = a, .rng_node = a };
	for (unsigned i = 0; i < 2; i++) {
		vm->share[i] = (struct cc_share){ node[i], 1, CC_MEMORY_UNIT };
		out->node[node[i]].fabric_backend = by->backend;
		out->node[node[i]].fabric_device = by->device[i];
	}
}

static void pair_measure(struct fabric *f, struct cc_topology *t, struct measured *m)
{
	static const struct cc_ctl_ops ops = { on_console, on_progress, on_trouble, on_run, NULL };
	uint64_t end_ns = clock_now_ns() + PAIR_NS;
	struct cc_ctl *c;
	int err = cc_ctl_open(&f->loop, t, &t->vm[0], CC_CTL_PROBE, &f->tls, &ops, m, &c);

	if (err) {
		snprintf(m->trouble, sizeof(m->trouble), "%s", strerror(-err));
		return;
	}
	while (cc_ctl_phase(c) != CC_CTL_OVER) {
		cc_loop_once(&f->loop, POLL_MS);
		cc_ctl_tick(c);
		if (clock_now_ns() > end_ns && !*m->trouble) {
			snprintf(m->trouble, sizeof(m->trouble), "not measured in time");
			cc_ctl_stop(c);
		}
	}
	if (!*m->report && !*m->trouble && cc_ctl_verdict(c)->reason != CC_END_POWEROFF)
		snprintf(m->trouble, sizeof(m->trouble), "%.300s", cc_ctl_verdict(c)->text);
	cc_ctl_close(c);
}

/* What joins them and how fast: an object for `pairs`. */
static json_t *measure_by(struct fabric *f, unsigned a, unsigned b, const struct cc_fabric_choice *by)
{
	struct cc_topology *t = malloc(sizeof(*t));
	struct measured m = { 0 };
	json_t *out;

	if (t) {
		pair_topology(f->o->t, a, b, by, t);
		pair_measure(f, t, &m);
	}
	free(t);
	out = *m.report ? json_loads(m.report, 0, NULL) : NULL;
	if (!json_is_object(out)) { /* what a peer sent may be anything */
		json_decref(out);
		out = json_object();
		if (!*m.trouble)
			snprintf(m.trouble, sizeof(m.trouble), "no figures came");
	}
	json_object_set_new(out, "backend", json_string(by->backend));
	json_object_set_new(out, "trouble", json_string(m.trouble));
	return out;
}

/* --- what is chosen ------------------------------------------------------------------------------ */

/* For a VM on these nodes: what their file names, else what `auto` makes of it. */
static void choose(const struct fabric *f, const unsigned *node, unsigned count, struct cc_fabric_choice *out)
{
	const struct cc_fabric_facts *facts[NODES_MAX] = { NULL };
	const char *name[NODES_MAX] = { NULL }, *device[NODES_MAX] = { NULL };
	const struct cc_topology *t = f->o->t;
	struct cc_vm vm = { .shares = count };
	const char *told;

	for (unsigned i = 0; i < count; i++) {
		const struct cc_node *n = &t->node[node[i]];

		vm.share[i].node = node[i];
		facts[i] = &cc_ctl_host(f->survey, node[i])->fabric;
		name[i] = n->name;
		device[i] = n->fabric_device ? n->fabric_device : "";
	}
	cc_fabric_choose(facts, name, device, count, out);
	told = cc_spec_backend(t, &vm);
	if (!strcmp(told, "auto"))
		return;
	out->backend = told;
	snprintf(out->why, sizeof(out->why), "the file says so");
	memcpy(out->device, device, sizeof(out->device));
}

static void pair_add(struct fabric *f, unsigned a, unsigned b)
{
	static const struct cc_fabric_choice tcp = { .backend = "tcp", .device = { "", "" } };
	const struct cc_topology *t = f->o->t;
	const unsigned node[2] = { a, b };
	struct cc_fabric_choice by;
	json_t *measured = json_array(), *pair;

	choose(f, node, 2, &by);
	json_array_append_new(measured, measure_by(f, a, b, &by));
	if (*cc_json_text(json_array_get(measured, 0), "trouble"))
		status_raise(f, CC_EXIT_INTERNAL);
	if (strcmp(by.backend, "tcp"))
		json_array_append_new(measured, measure_by(f, a, b, &tcp));
	pair = json_pack("{s:s, s:s, s:s, s:s, s:o}", "from", t->node[a].name, "to", t->node[b].name, "backend", by.backend,
			 "why", by.why, "measured", measured);
	json_array_append_new(f->pairs, pair);
	if (!f->o->json)
		cc_fabric_pair_print(pair);
}

static json_t *together_make(struct fabric *f, const unsigned *node, unsigned count)
{
	const struct cc_topology *t = f->o->t;
	struct cc_fabric_choice all;
	json_t *findings = json_array();

	choose(f, node, count, &all);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < i; k++)
			cc_fabric_compare(&t->node[node[k]], cc_ctl_host(f->survey, node[k])->json, &t->node[node[i]],
					  cc_ctl_host(f->survey, node[i])->json, findings);
	return json_pack("{s:s, s:s, s:o}", "backend", all.backend, "why", all.why, "findings", findings);
}

/* --- hosts --------------------------------------------------------------------------------------- */

static void host_add(struct fabric *f, const char *node, const struct cc_host *h)
{
	json_t *copy = h->json ? json_deep_copy(h->json) : json_object();

	json_object_set_new(copy, "node", node ? json_string(node) : json_null());
	if (*h->fabric.unknown) {
		json_object_set_new(copy, "unknown", json_string(h->fabric.unknown));
		status_raise(f, CC_EXIT_USAGE);
	}
	json_array_append_new(f->hosts, copy);
	if (!f->o->json)
		cc_fabric_host_print(copy);
}

static void node_trouble(void *arg, const struct cc_node *node, const char *text)
{
	struct fabric *f = arg;

	fprintf(stderr, "%s:%u:%u: error: node '%s' (%s, port %u): %s\n", f->o->t->file, node->mark.line, node->mark.col,
		node->name, node->address, node->port, text);
	json_array_append_new(f->hosts, json_pack("{s:s, s:s}", "node", node->name, "unknown", text));
	status_raise(f, CC_EXIT_USAGE);
}

static void here_tell(struct fabric *f)
{
	static const struct cc_ask ask = { .kernel = "", .fabric = true };
	struct cc_host here;

	cc_survey_here(&f->loop, f->o->slice_path, &ask, &here);
	host_add(f, NULL, &here);
	cc_host_clear(&here);
}

/* Numbers of the nodes whose hosts have told. */
static unsigned nodes_tell(struct fabric *f, unsigned node[static NODES_MAX])
{
	unsigned count = 0;

	for (unsigned i = 0; i < f->o->t->nodes; i++) {
		const struct cc_host *h = cc_ctl_host(f->survey, i);

		if (!h)
			continue;
		host_add(f, f->o->t->node[i].name, h);
		node[count++] = i;
	}
	return count;
}

/* --- all of it ------------------------------------------------------------------------------------ */

static json_t *nodes_look(struct fabric *f, const struct cc_vm *vm)
{
	unsigned node[NODES_MAX], count;
	json_t *together = NULL;

	if (cc_survey_nodes(&f->loop, f->o->t, vm, CC_CTL_FABRIC, &f->tls, node_trouble, f, &f->survey)) {
		status_raise(f, CC_EXIT_INTERNAL);
		return NULL;
	}
	count = nodes_tell(f, node);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = i + 1; k < count && (!i || count <= ALL_PAIRS_MAX); k++)
			pair_add(f, node[i], node[k]);
	if (count > 1)
		together = together_make(f, node, count);
	if (together && !f->o->json)
		cc_fabric_together_print(together);
	return together;
}

static int fabric_run(struct fabric *f)
{
	struct cc_vm *vm = calloc(1, sizeof(*vm));
	json_t *together = NULL, *all;
	int err = vm && f->o->t ? cc_tls_open(&f->tls, &f->o->key) : vm ? 0 : -ENOMEM;

	if (!err && f->o->t) {
		*vm = cc_survey_vm(f->o->t);
		together = nodes_look(f, vm);
		cc_ctl_close(f->survey);
		cc_tls_close(&f->tls);
	} else if (!err) {
		here_tell(f);
	}
	if (!err && f->o->json) {
		all = json_pack("{s:O, s:O, s:O?, s:i}", "hosts", f->hosts, "pairs", f->pairs, "together", together, "status",
				f->status);
		if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') == EOF)
			status_raise(f, CC_EXIT_INTERNAL);
		json_decref(all);
	}
	json_decref(together);
	free(vm);
	return err;
}

int cc_fabric(const struct cc_survey_options *o)
{
	struct fabric f = { .o = o, .hosts = json_array(), .pairs = json_array() };
	int err = f.hosts && f.pairs ? cc_loop_open(&f.loop) : -ENOMEM;

	signal(SIGPIPE, SIG_IGN);
	if (!err) {
		err = fabric_run(&f);
		cc_loop_close(&f.loop);
	}
	json_decref(f.hosts);
	json_decref(f.pairs);
	if (!err)
		return f.status;
	log_error("unum: fabric: %s", strerror(-err));
	return CC_EXIT_INTERNAL;
}
