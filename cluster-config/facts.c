/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/facts.c - what a host told of itself; see facts.h. */
#include "cluster-config/facts.h"

#include <stdio.h>
#include <string.h>

static const json_t *json_at(const json_t *json, const char *path)
{
	char key[32];

	while (json && *path) {
		size_t len = strcspn(path, ".");

		if (len >= sizeof(key))
			return NULL;
		memcpy(key, path, len);
		key[len] = 0;
		json = json_object_get(json, key); /* NULL when it is no object */
		path += len + (path[len] == '.');
	}
	return json;
}

const char *cc_json_text(const json_t *json, const char *path)
{
	const char *s = json_string_value(json_at(json, path));

	return s ? s : "";
}

/* False: there is an engine that this unum does not know. */
static bool offer_read(const json_t *json, const char *span, struct cc_offer *o)
{
	static const char *const engines[] = { "none", "bt", "kvm" };
	const json_t *verdict = json_at(json_at(json, "verdict"), span);
	const char *engine = cc_json_text(verdict, "engine");

	for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
		if (!strcmp(engines[i], engine)) {
			*o = (struct cc_offer){ (enum cc_host_engine)i,
						json_is_true(json_at(verdict, "kvm")),
						cc_json_text(verdict, "faults"),
						cc_json_text(verdict, "refusal"),
						cc_json_text(verdict, "why"),
						cc_json_text(verdict, "fix") };
			return true;
		}
	return false;
}

static void fabric_read(const struct cc_host *h, struct cc_fabric_facts *f)
{
	const json_t *ports = json_at(h->json, "fabric.ports"), *p;
	size_t i;

	f->host = cc_json_text(h->json, "fabric.host");
	f->unknown = *f->host ? "" : *h->unknown ? h->unknown : "what joins it to others is not known";
	json_array_foreach(ports, i, p)
	{
		if (f->rdmas == CC_RDMA_PORTS_MAX)
			break;
		f->rdma[f->rdmas++] = (struct cc_rdma_port){ .device = cc_json_text(p, "device"),
							     .network = cc_json_text(p, "network"),
							     .ok = json_is_true(json_at(p, "usable.ok")) &&
								   *cc_json_text(p, "network"),
							     .why = cc_json_text(p, "usable.why") };
	}
}

void cc_host_read(struct cc_host *h, const char *facts, const char *why)
{
	static const char *const spans[CC_SPANS] = { "one", "several", "several_private" };
	struct cc_facts *f = &h->facts;
	bool fine = true;

	*h = (struct cc_host){ 0 };
	f->unknown = h->unknown;
	h->json = *facts ? json_loads(facts, 0, NULL) : NULL;
	for (unsigned i = 0; i < CC_SPANS; i++)
		fine = offer_read(h->json, spans[i], &f->offer[i]) && fine;
	f->inline_faults.ok = json_is_true(json_at(h->json, "kvm.inline.ok"));
	f->inline_faults.why = cc_json_text(h->json, "kvm.inline.why");
	f->inline_faults.fix = cc_json_text(h->json, "kvm.inline.fix");
	f->dispatch_faults.ok = json_is_true(json_at(h->json, "kvm.dispatch.ok"));
	f->dispatch_faults.why = cc_json_text(h->json, "kvm.dispatch.why");
	f->dispatch_faults.fix = cc_json_text(h->json, "kvm.dispatch.fix");
	f->features = cc_json_text(h->json, "cpu.features");
	f->tsc_khz = (uint64_t)json_integer_value(json_at(h->json, "tsc.khz"));
	f->private_tables = json_is_true(json_at(h->json, "kernel.private_tables"));
	if (!fine)
		snprintf(h->unknown, sizeof(h->unknown), "what it can do is not known: %s",
			 *why ? why : "it says so in a way that this unum does not read");
	fabric_read(h, &h->fabric);
}

void cc_host_clear(struct cc_host *h)
{
	json_decref(h->json);
	*h = (struct cc_host){ 0 };
}
