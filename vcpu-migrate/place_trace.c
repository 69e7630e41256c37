/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place_trace.c - writes the policy's inputs to a file; the format is in vcpu-migrate/place_trace.h.
 *
 * Owns      The file.  Buffered: a slice that is killed loses the last lines.
 */
#include "vcpu-migrate/place_trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct place_trace {
	FILE *f;
	unsigned nodes, vcpus;
	struct place_node node[NODES_MAX]; /* as last told */
	struct {
		node_id at;
		bool moving;
	} vcpu[VCPUS_MAX];
	bool begun;
};

int place_trace_open(const char *path, const struct place_config *cfg, const char *const *names, struct place_trace **out)
{
	struct place_trace *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->f = fopen(path, "we");
	if (!t->f) {
		int err = -errno;

		free(t);
		return err;
	}
	t->nodes = cfg->nodes;
	t->vcpus = cfg->vcpus;
	fprintf(t->f, "unum-place 1 nodes %u vcpus %u period %u pinned %u move %u page %u lost %u\n", cfg->nodes, cfg->vcpus,
		cfg->period_us, cfg->pinned, cfg->costs.move_us, cfg->costs.page_us, cfg->costs.lost_pages);
	for (unsigned n = 0; n < cfg->nodes && names; n++)
		fprintf(t->f, "name %u %s\n", n, names[n]);
	for (unsigned v = 0; v < cfg->vcpus && cfg->allowed; v++) {
		fprintf(t->f, "may %u", v);
		for (unsigned n = 0; n < cfg->nodes; n++)
			if (nodeset_has(&cfg->allowed[v], (node_id)n))
				fprintf(t->f, " %u", n);
		fputc('\n', t->f);
	}
	*out = t;
	return 0;
}

void place_trace_costs(struct place_trace *t, uint32_t move_us, uint32_t page_us)
{
	fprintf(t->f, "costs %u %u\n", move_us, page_us);
}

static void vcpu_tell(struct place_trace *t, unsigned v, const struct place_input *in)
{
	const struct place_stall *s = &in->stall[(size_t)v * t->nodes];
	const struct place_vcpu *now = &in->vcpu[v];
	bool any = now->busy_us || !t->begun || now->at != t->vcpu[v].at || now->moving != t->vcpu[v].moving;

	for (unsigned n = 0; n < t->nodes && !any; n++)
		any = s[n].waits || s[n].us;
	if (!any)
		return;
	t->vcpu[v].at = now->at;
	t->vcpu[v].moving = now->moving;
	fprintf(t->f, "vcpu %u %u %u %u", v, now->at, now->moving, now->busy_us);
	for (unsigned n = 0; n < t->nodes; n++)
		if (s[n].waits || s[n].us)
			fprintf(t->f, " %u:%u,%u,%u,%u", n, s[n].waits, s[n].reads, s[n].bounced, s[n].us);
	fputc('\n', t->f);
}

static bool node_same(const struct place_node *a, const struct place_node *b)
{
	return a->room == b->room && a->most == b->most && a->cpus == b->cpus && a->host == b->host && a->load == b->load &&
	       a->closed == b->closed;
}

void place_trace_step(struct place_trace *t, const struct place_input *in)
{
	for (unsigned n = 0; n < t->nodes; n++) {
		const struct place_node *now = &in->node[n];

		if (t->begun && node_same(now, &t->node[n]))
			continue;
		t->node[n] = *now;
		fprintf(t->f, "node %u %u %u %u %u %u %u\n", n, now->room, now->most, now->cpus, now->host, now->load, now->closed);
	}
	for (unsigned v = 0; v < t->vcpus; v++)
		vcpu_tell(t, v, in);
	fprintf(t->f, "step %llu\n", (unsigned long long)in->now_us);
	t->begun = true;
}

int place_trace_close(struct place_trace *t)
{
	bool bad = ferror(t->f);
	int err = fclose(t->f) ? -errno : bad ? -EIO : 0;

	free(t);
	return err;
}
