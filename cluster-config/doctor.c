/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/doctor.c - `unum doctor`; see doctor.h.
 *
 * What      The slice program has found words for each host; what only shows when hosts lie side by side
 *           is found here.
 * Owns      The event loop, the connections.
 * I/O       stdout; a child process, control connections.
 */
#include "cluster-config/doctor.h"

#include "base/log.h"
#include "cluster-config/files.h"
#include "cluster-config/run.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TSC_TOLERANCE 1000u /* 1 / this part; hv/time.c refuses more */

struct doctor {
	const struct cc_survey_options *o;
	struct cc_loop loop;
	json_t *hosts; /* what is told in the end */
	struct cc_facts facts[NODES_MAX];
	const char *name[NODES_MAX]; /* of the host that told facts[i] */
	unsigned count;
	int status;
	struct cc_host here;
};

static void status_raise(struct doctor *d, int status)
{
	if (d->status != CC_EXIT_USAGE)
		d->status = status;
}

/* --- one host --------------------------------------------------------------------------------- */

static void engine_print(const char *what, const struct cc_offer *o)
{
	static const char *const engines[] = { "none", "bt", "kvm" };

	printf("%s: engine %s", what, engines[o->engine]);
	if (o->engine == CC_HOST_KVM && !strcmp(o->faults, "none"))
		printf("\n");
	else if (o->engine == CC_HOST_KVM)
		printf(", %s faults\n", o->faults);
	else
		printf(" (because %s%s%s)\n", o->why, cc_fix_mends(o->fix) ? "; fix: " : "",
		       cc_fix_mends(o->fix) ? o->fix : "");
}

/* `lead` is what is printed of it before its own name. */
static void host_show(struct doctor *d, const char *lead, const struct cc_host *h)
{
	const struct cc_facts *f = &h->facts;

	if (!d->o->json)
		printf("%s%s (Linux %s)\n", lead, cc_json_text(h->json, "host"),
		       cc_json_text(h->json, "release"));
	if (*f->unknown) {
		if (!d->o->json)
			printf("  problem  %s\n", f->unknown);
		status_raise(d, CC_EXIT_USAGE);
		return;
	}
	if (!d->o->json) {
		cc_findings_print(json_object_get(h->json, "findings"));
		engine_print("one node", &f->offer[CC_SPAN_ONE]);
		engine_print("several nodes", &f->offer[CC_SPAN_SEVERAL]);
		engine_print("several nodes, no shared page tables", &f->offer[CC_SPAN_PRIVATE]);
		putchar('\n');
	}
	if (f->offer[CC_SPAN_ONE].engine == CC_HOST_NONE)
		status_raise(d, CC_EXIT_REFUSED);
}

/* node: its name in the topology, NULL: this host. */
static void host_add(struct doctor *d, const char *node, const struct cc_host *h)
{
	json_t *copy = h->json ? json_deep_copy(h->json) : json_object();

	json_object_set_new(copy, "node", node ? json_string(node) : json_null());
	if (*h->facts.unknown)
		json_object_set_new(copy, "unknown", json_string(h->facts.unknown));
	json_array_append_new(d->hosts, copy);
	if (*h->facts.unknown)
		return;
	d->facts[d->count] = h->facts;
	d->name[d->count++] = node;
}

/* --- this host -------------------------------------------------------------------------------- */

static void here_ask(struct doctor *d)
{
	static const struct cc_ask host = { .kernel = "" };

	cc_survey_here(&d->loop, d->o->slice_path, &host, &d->here);
	host_add(d, NULL, &d->here);
	host_show(d, "this host: ", &d->here);
}

/* --- hosts of a topology ---------------------------------------------------------------------- */

static void on_trouble(void *arg, const struct cc_node *node, const char *text)
{
	struct doctor *d = arg;

	fprintf(stderr, "%s:%u:%u: error: node '%s' (%s, port %u): %s\n", d->o->t->file,
		node->mark.line, node->mark.col, node->name, node->address, node->port, text);
	json_array_append_new(d->hosts,
			      json_pack("{s:s, s:s}", "node", node->name, "unknown", text));
	status_raise(d, CC_EXIT_USAGE);
}

static int agents_ask(struct doctor *d, const struct cc_vm *vm, struct cc_tls *tls,
		      struct cc_ctl **out)
{
	const struct cc_topology *t = d->o->t;
	char lead[CC_NAME_MAX + 16];
	int err = cc_survey_nodes(&d->loop, t, vm, CC_CTL_SURVEY, tls, on_trouble, d, out);

	if (err)
		return err;
	for (unsigned i = 0; i < vm->shares; i++) {
		const struct cc_host *h = cc_ctl_host(*out, i);

		if (!h)
			continue;
		snprintf(lead, sizeof(lead), "node %s: ", t->node[i].name);
		host_add(d, t->node[i].name, h);
		host_show(d, lead, h);
	}
	return 0;
}

static bool here_is_node(const struct cc_topology *t)
{
	for (unsigned i = 0; i < t->nodes; i++)
		if (cc_address_is_local(t->node[i].address))
			return true;
	return false;
}

/* --- side by side ----------------------------------------------------------------------------- */

static const char *host_name(const struct doctor *d, unsigned i)
{
	return d->name[i] ? d->name[i] : "this host";
}

__attribute__((format(printf, 3, 4))) static void together_add(json_t *list, const char *level,
							       const char *format, ...)
{
	char text[CC_FEATURES_MAX + 256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_array_append_new(
		list, json_pack("{s:s, s:s, s:s}", "level", level, "text", text, "fix", ""));
}

static void features_compare(const struct doctor *d, json_t *list,
			     char common[static CC_FEATURES_MAX])
{
	const char *words[NODES_MAX];
	char more[CC_FEATURES_MAX];
	bool same = true;

	for (unsigned i = 0; i < d->count; i++)
		words[i] = d->facts[i].features;
	cc_words_common(words, d->count, common);
	for (unsigned i = 0; i < d->count; i++) {
		cc_words_less(words[i], common, more);
		if (!*more)
			continue;
		same = false;
		together_add(list, "note",
			     "CPU: %s has what not all have, so guests on kvm do not see it: %s",
			     host_name(d, i), more);
	}
	if (same)
		together_add(list, "ok", "CPU: guests on kvm see the same features on all nodes");
}

static void tsc_compare(const struct doctor *d, json_t *list)
{
	uint64_t low = UINT64_MAX, high = 0;
	unsigned low_at = 0, high_at = 0;

	for (unsigned i = 0; i < d->count; i++) {
		uint64_t khz = d->facts[i].tsc_khz;

		if (khz < low) {
			low = khz;
			low_at = i;
		}
		if (khz > high) {
			high = khz;
			high_at = i;
		}
	}
	if (high - low > high / TSC_TOLERANCE)
		together_add(list, "problem",
			     "TSC: %s has %llu kHz and %s has %llu kHz; a VM cannot span both",
			     host_name(d, low_at), (unsigned long long)low, host_name(d, high_at),
			     (unsigned long long)high);
	else
		together_add(list, "ok", "TSC: %llu to %llu kHz", (unsigned long long)low,
			     (unsigned long long)high);
}

static json_t *together_make(const struct doctor *d)
{
	static const struct cc_wish wish = { .span = CC_SPAN_SEVERAL };
	static const char *const engines[] = { "none", "bt", "kvm" };
	const struct cc_facts *facts[NODES_MAX] = { &d->facts[0] };
	char common[CC_FEATURES_MAX];
	json_t *list = json_array();
	struct cc_refusal no = { .word = "", .why = "", .fix = "" };
	enum cc_engine engine;

	for (unsigned i = 0; i < d->count; i++)
		facts[i] = &d->facts[i];
	features_compare(d, list, common);
	tsc_compare(d, list);
	engine = cc_engine_choose(&wish, facts, d->count, &no);
	if (engine == CC_ENGINE_KVM)
		no = (struct cc_refusal){ .word = "", .why = "", .fix = "" };
	return json_pack("{s:s, s:o, s:{s:s, s:o, s:s, s:s, s:s}}", "features", common, "findings",
			 list, "several", "engine", engines[engine], "node",
			 *no.word ? json_string(host_name(d, no.node)) : json_null(), "refusal",
			 no.word, "why", no.why, "fix", no.fix);
}

static void together_print(const json_t *together)
{
	const json_t *several = json_object_get(together, "several");
	const char *fix;

	printf("all of them\n");
	cc_findings_print(json_object_get(together, "findings"));
	printf("a VM on several of these nodes: engine %s", cc_json_text(several, "engine"));
	fix = cc_json_text(several, "fix");
	if (*cc_json_text(several, "refusal"))
		printf(" (because %s: %s%s%s)", cc_json_text(several, "node"),
		       cc_json_text(several, "why"), cc_fix_mends(fix) ? "; fix: " : "",
		       cc_fix_mends(fix) ? fix : "");
	putchar('\n');
}

/* --- all of it -------------------------------------------------------------------------------- */

static void doctor_tell(struct doctor *d)
{
	json_t *together = d->o->t && d->count > 1 ? together_make(d) : NULL, *all;

	if (d->o->json) {
		all = json_pack("{s:O, s:O?, s:i}", "hosts", d->hosts, "together", together,
				"status", d->status);
		if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) || putchar('\n') == EOF)
			status_raise(d, CC_EXIT_INTERNAL);
		json_decref(all);
	} else if (together) {
		together_print(together);
	}
	json_decref(together);
}

static int doctor_run(struct doctor *d)
{
	struct cc_ctl *ctl = NULL;
	struct cc_tls tls;
	struct cc_vm vm;
	int err = 0;

	if (!d->o->t || !here_is_node(d->o->t))
		here_ask(d);
	if (d->o->t) {
		vm = cc_survey_vm(d->o->t);
		err = cc_tls_open(&tls, &d->o->key);
		if (err)
			return err;
		err = agents_ask(d, &vm, &tls, &ctl);
	}
	if (!err)
		doctor_tell(d);
	cc_ctl_close(ctl);
	if (d->o->t)
		cc_tls_close(&tls);
	cc_host_clear(&d->here);
	return err;
}

int cc_doctor(const struct cc_survey_options *o)
{
	struct doctor d = { .o = o, .hosts = json_array() };
	int err = d.hosts ? cc_loop_open(&d.loop) : -ENOMEM;

	signal(SIGPIPE, SIG_IGN);
	if (!err) {
		err = doctor_run(&d);
		cc_loop_close(&d.loop);
	}
	json_decref(d.hosts);
	if (!err)
		return d.status;
	log_error("unum: doctor: %s", strerror(-err));
	return CC_EXIT_INTERNAL;
}
