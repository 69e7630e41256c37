/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/report.c - what the slices counted, for people and for programs.
 *
 * I/O       Writes one table or one JSON file. JSON keys are a promise: they are only ever added.
 */
#include "cluster-config/report.h"

#include <jansson.h>
#include <string.h>

static unsigned long long ull(uint64_t v)
{
	return v;
}

static void node_print(const struct cc_report *r, unsigned i, FILE *out)
{
	const struct cc_share *share = &r->vm->share[i];
	const struct cc_stats *s = r->stats[i];

	fprintf(out, "node %s: ", r->t->node[share->node].name);
	if (!s) {
		fprintf(out, "%u vCPUs, %llu MiB; no statistics\n", share->vcpus,
			ull(share->memory >> 20));
		return;
	}
	fprintf(out, "%u vCPUs, %llu MiB, engine %s\n", s->vcpus, ull(s->memory_bytes >> 20),
		s->engine);
	fprintf(out, "  remote faults   read %llu, write %llu, upgrade %llu (local %llu)\n",
		ull(s->faults_read), ull(s->faults_write), ull(s->faults_upgrade),
		ull(s->faults_local));
	fprintf(out, "  fault latency   p50 %.1f us, p99 %.1f us\n",
		(double)s->latency_p50_ns / 1e3, (double)s->latency_p99_ns / 1e3);
	fprintf(out, "  pages           sent %llu, received %llu, invalidated %llu\n",
		ull(s->pages_sent), ull(s->pages_received), ull(s->invalidations_received));
	fprintf(out, "  IPIs across     sent %llu, received %llu; device accesses across %llu\n",
		ull(s->ipis_sent_remote), ull(s->ipis_received_remote), ull(s->mmio_remote));
	fprintf(out,
		"  fabric          messages sent %llu, received %llu; MiB sent %.1f, received "
		"%.1f\n",
		ull(s->msgs_sent), ull(s->msgs_received), (double)s->bytes_sent / 1048576.0,
		(double)s->bytes_received / 1048576.0);
	if (s->moved_in || s->moved_out || s->moves_returned)
		fprintf(out,
			"  vCPU moves      in %llu, out %llu, come back %llu; pause p50 %.1f us, p99 %.1f us\n",
			ull(s->moved_in), ull(s->moved_out), ull(s->moves_returned),
			(double)s->pause_p50_ns / 1e3, (double)s->pause_p99_ns / 1e3);
	if (s->refused)
		fprintf(out, "  refused         %llu messages that were not ours\n",
			ull(s->refused));
	fprintf(out, "  hottest pages  ");
	for (unsigned k = 0; k < CC_HOT_PAGES && s->hot[k].faults; k++)
		fprintf(out, " 0x%llx:%llu", ull(s->hot[k].gfn << PAGE_SHIFT),
			ull(s->hot[k].faults));
	fprintf(out, "%s\n", s->hot[0].faults ? "  (address:faults)" : " none");
}

void cc_report_print(const struct cc_report *r, FILE *out)
{
	for (unsigned i = 0; i < r->vm->shares; i++)
		node_print(r, i, out);
	if (r->run_s >= 0)
		fprintf(out, "vm %s: started in %.2f s, ran for %.2f s\n", r->vm->name, r->start_s,
			r->run_s);
}

static json_t *hot_json(const struct cc_stats *s)
{
	json_t *list = json_array();

	for (unsigned k = 0; k < CC_HOT_PAGES && s->hot[k].faults; k++)
		json_array_append_new(list, json_pack("{s:I, s:I}", "gpa",
						      (json_int_t)(s->hot[k].gfn << PAGE_SHIFT),
						      "faults", (json_int_t)s->hot[k].faults));
	return list;
}

static json_t *hist_json(const struct cc_stats *s)
{
	json_t *list = json_array();

	for (unsigned k = 0; k < CC_LAT_BUCKETS; k++)
		json_array_append_new(list, json_integer((json_int_t)s->latency_hist[k]));
	return list;
}

static void counters_json(json_t *node, const struct cc_stats *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} counter[] = {
		{ "faults_read", s->faults_read },
		{ "faults_write", s->faults_write },
		{ "faults_upgrade", s->faults_upgrade },
		{ "faults_local", s->faults_local },
		{ "remote_faults", s->faults_read + s->faults_write + s->faults_upgrade },
		{ "pages_sent", s->pages_sent },
		{ "pages_received", s->pages_received },
		{ "invalidations_received", s->invalidations_received },
		{ "latency_p50_ns", s->latency_p50_ns },
		{ "latency_p99_ns", s->latency_p99_ns },
		{ "ipis_sent_remote", s->ipis_sent_remote },
		{ "ipis_received_remote", s->ipis_received_remote },
		{ "mmio_remote", s->mmio_remote },
		{ "moved_in", s->moved_in },
		{ "moved_out", s->moved_out },
		{ "moves_returned", s->moves_returned },
		{ "moves_refused", s->moves_refused },
		{ "snapshot_bytes", s->snapshot_bytes },
		{ "round_trip_ns", s->round_trip_ns },
		{ "stop_p50_ns", s->stop_p50_ns },
		{ "stop_p99_ns", s->stop_p99_ns },
		{ "capture_p50_ns", s->capture_p50_ns },
		{ "capture_p99_ns", s->capture_p99_ns },
		{ "send_p50_ns", s->send_p50_ns },
		{ "send_p99_ns", s->send_p99_ns },
		{ "restore_p50_ns", s->restore_p50_ns },
		{ "restore_p99_ns", s->restore_p99_ns },
		{ "resume_p50_ns", s->resume_p50_ns },
		{ "resume_p99_ns", s->resume_p99_ns },
		{ "pause_p50_ns", s->pause_p50_ns },
		{ "pause_p99_ns", s->pause_p99_ns },
		{ "exits", s->exits },
		{ "msgs_sent", s->msgs_sent },
		{ "msgs_received", s->msgs_received },
		{ "bytes_sent", s->bytes_sent },
		{ "bytes_received", s->bytes_received },
		{ "refused", s->refused },
		{ "guest_ns", s->guest_ns },
	};

	for (unsigned i = 0; i < ARRAY_LEN(counter); i++)
		json_object_set_new(node, counter[i].name,
				    json_integer((json_int_t)counter[i].value));
	json_object_set_new(node, "engine", json_string(s->engine));
	json_object_set_new(node, "hot_pages", hot_json(s));
	json_object_set_new(node, "latency_hist_ns_log2", hist_json(s));
}

static json_t *node_json(const struct cc_report *r, unsigned i)
{
	const struct cc_share *share = &r->vm->share[i];
	json_t *node =
		json_pack("{s:s, s:i, s:I, s:b}", "name", r->t->node[share->node].name, "vcpus",
			  (int)share->vcpus, "memory_kib", (json_int_t)(share->memory >> 10),
			  "reported", r->stats[i] != NULL);

	if (node && r->stats[i])
		counters_json(node, r->stats[i]);
	return node;
}

int cc_report_json(const struct cc_report *r, const char *path)
{
	json_t *nodes = json_array(), *root;
	int bad;

	for (unsigned i = 0; i < r->vm->shares; i++)
		json_array_append_new(nodes, node_json(r, i));
	root = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:o}", "pool", r->t->pool,
			 "vm", r->vm->name, "reason", r->reason, "text", r->text, "status",
			 r->status, "vcpus", (int)r->vm->vcpus, "memory_kib",
			 (json_int_t)(r->vm->memory >> 10), "start_s", r->start_s, "run_s",
			 r->run_s, "nodes", nodes);
	if (!root)
		return -ENOMEM;
	if (!strcmp(path, "-"))
		bad = json_dumpf(root, stdout, JSON_INDENT(2)) || fputs("\n", stdout) < 0;
	else
		bad = json_dump_file(root, path, JSON_INDENT(2));
	json_decref(root);
	return bad ? -EIO : 0;
}
