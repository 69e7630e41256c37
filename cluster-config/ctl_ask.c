/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/ctl_ask.c - asks the hosts of a VM what they can do, chooses its engine and its fabric, and tells the slices; see ctl.h. */
#include "cluster-config/core/spec.h"
#include "cluster-config/ctl_priv.h"

#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES 700

static bool engine_open(const struct cc_ctl *c)
{
	return c->vm->engine != CC_ENGINE_BT;
}

static bool fabric_open(const struct cc_ctl *c)
{
	return c->peers > 1 && !strcmp(cc_spec_backend(c->t, c->vm), "auto");
}

bool cc_ctl_ask(struct cc_ctl *c)
{
	struct cc_msg msg = { .type = CC_MSG_ASK };
	char kernel[PATH_MAX];

	if (!cc_ctl_surveys(c) && !engine_open(c) && !fabric_open(c))
		return false;
	msg.ask.fabric = c->mode == CC_CTL_FABRIC;
	for (unsigned i = 0; i < c->peers; i++) {
		/* The kernel lies on the boot node, node 0. */
		msg.ask.kernel = i || cc_ctl_surveys(c) ? "" : cc_ctl_path(c, c->vm->kernel, kernel);
		cc_peer_send(&c->peer[i], &msg);
	}
	return true;
}

void cc_peer_host(struct peer *p, const struct cc_host_text *text)
{
	cc_host_read(&p->host, text->facts, text->why);
	p->has_host = true;
}

/* Every node that is in the way says so. */
static void refuse(struct cc_ctl *c, const struct cc_wish *wish, const struct cc_refusal *first)
{
	char line[LINE_MAX_BYTES];
	struct cc_refusal no;

	for (unsigned i = 0; i < c->peers; i++) {
		const struct cc_facts *f = &c->peer[i].host.facts;

		if (cc_kvm_possible(wish, f, &no))
			continue;
		/* Where kvm was not asked for, only a host without bt is in the way. */
		if (wish->engine == CC_ENGINE_AUTO &&
		    (*f->unknown || f->offer[wish->span].engine != CC_HOST_NONE))
			continue;
		snprintf(line, sizeof(line), "%s: %s%s%s",
			 wish->engine == CC_ENGINE_KVM ? "engine kvm" : "no engine", no.why,
			 *no.fix ? "; fix: " : "", no.fix);
		c->ops->on_trouble(c->arg, cc_peer_node(&c->peer[i]), line);
	}
	snprintf(c->refusal, sizeof(c->refusal), "%s", first->word);
}

static void choice_tell(struct cc_ctl *c, const struct cc_wish *wish, const struct cc_refusal *no)
{
	static const char *const paths[] = { [CC_FAULTS_INLINE] = "inline", [CC_FAULTS_DISPATCH] = "dispatch" };
	const char *path = wish->faults == CC_FAULTS_AUTO ? c->peer[0].host.facts.offer[wish->span].faults
							  : paths[wish->faults];
	char line[LINE_MAX_BYTES];

	if (c->engine == CC_ENGINE_BT)
		snprintf(line, sizeof(line), "engine bt, not kvm: node %s: %s%s%s",
			 cc_peer_node(&c->peer[no->node])->name, no->why,
			 cc_fix_mends(no->fix) ? "; fix: " : "",
			 cc_fix_mends(no->fix) ? no->fix : "");
	else if (!strcmp(path, "none")) /* one node */
		snprintf(line, sizeof(line), "engine kvm");
	else
		snprintf(line, sizeof(line), "engine kvm, %s faults", path);
	c->ops->on_progress(c->arg, "", line);
}

static void features_choose(struct cc_ctl *c)
{
	const char *list[NODES_MAX];

	for (unsigned i = 0; i < c->peers; i++)
		list[i] = c->peer[i].host.facts.features;
	cc_words_common(list, c->peers, c->features);
}

static bool engine_choose(struct cc_ctl *c)
{
	const struct cc_facts *facts[NODES_MAX] = { &c->peer[0].host.facts };
	struct cc_wish wish = { .engine = c->vm->engine, .faults = c->vm->faults };
	struct cc_refusal no;

	for (unsigned i = 0; i < c->peers; i++)
		facts[i] = &c->peer[i].host.facts;
	c->private_tables = facts[0]->private_tables;
	wish.span = c->peers == 1       ? CC_SPAN_ONE
		    : c->private_tables ? CC_SPAN_PRIVATE
					: CC_SPAN_SEVERAL;
	c->engine = cc_engine_choose(&wish, facts, c->peers, &no);
	if (c->engine == CC_ENGINE_AUTO) {
		refuse(c, &wish, &no);
		return false;
	}
	if (c->engine == CC_ENGINE_KVM)
		features_choose(c);
	choice_tell(c, &wish, &no);
	return true;
}

static void fabric_choose(struct cc_ctl *c)
{
	const struct cc_fabric_facts *facts[NODES_MAX] = { NULL };
	const char *name[NODES_MAX] = { NULL }, *device[NODES_MAX] = { NULL };
	char line[LINE_MAX_BYTES];

	for (unsigned i = 0; i < c->peers; i++) {
		const struct cc_node *node = cc_peer_node(&c->peer[i]);

		facts[i] = &c->peer[i].host.fabric;
		name[i] = node->name;
		device[i] = node->fabric_device ? node->fabric_device : "";
	}
	cc_fabric_choose(facts, name, device, c->peers, &c->fabric);
	snprintf(line, sizeof(line), "fabric: %s (%s)", c->fabric.backend, c->fabric.why);
	c->ops->on_progress(c->arg, "", line);
}

bool cc_ctl_choose(struct cc_ctl *c)
{
	if (engine_open(c) && !engine_choose(c))
		return false;
	if (fabric_open(c))
		fabric_choose(c);
	return true;
}

/* --- what a slice is told ---------------------------------------------------------------------- */

const char *cc_ctl_path(const struct cc_ctl *c, const char *path, char out[static PATH_MAX])
{
	if (*path == '/' || !*path)
		return path;
	if (snprintf(out, PATH_MAX, "%s/%s", c->cwd, path) >= PATH_MAX)
		return path; /* too long to be a path at all: the agent will say so */
	return out;
}

void cc_peer_prepare(struct peer *p)
{
	struct cc_ctl *c = p->ctl;
	struct cc_msg msg = { .type = CC_MSG_PREPARE };
	struct cc_vm_spec *spec = &msg.prepare;
	static const char v4[] = "%s:0", v6[] = "[%s]:0";
	char kernel[PATH_MAX], initrd[PATH_MAX], disk[CC_DEVICES_MAX][PATH_MAX], listen[96];
	unsigned disks = 0;

	cc_spec_make(c->t, c->vm, p->self, spec);
	spec->vm_id = c->vm_id;
	spec->engine = c->engine;
	spec->private_tables = c->private_tables;
	spec->cpu_features = c->features;
	memcpy(spec->vm_key, c->vm_key, CC_KEY_BYTES);
	spec->kernel = cc_ctl_path(c, spec->kernel, kernel);
	spec->initrd = cc_ctl_path(c, spec->initrd, initrd);
	for (unsigned i = 0; i < spec->devices; i++)
		if (spec->device[i].kind == CC_DEV_BLK) {
			spec->device[i].path = cc_ctl_path(c, spec->device[i].path, disk[disks]);
			disks++;
		}
	snprintf(listen, sizeof(listen), strchr(cc_peer_node(p)->address, ':') ? v6 : v4,
		 cc_peer_node(p)->address);
	spec->fabric_listen = listen;
	if (c->fabric.backend) {
		spec->fabric_backend = c->fabric.backend;
		spec->fabric_device = c->fabric.device[p->self];
	}
	spec->chaos = c->chaos;
	if (c->place_trace && !spec->self)
		spec->place_trace = c->place_trace;
	spec->probe = c->mode == CC_CTL_PROBE;
	cc_peer_send(p, &msg);
}
