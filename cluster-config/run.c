/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/run.c - `unum run`: one VM from start to end on this terminal; see run.h.
 *
 * Owns      The event loop, the terminal, the VM's door, the agents it started.
 * I/O       Terminal, control connections, child processes, the statistics file.
 */
#include "cluster-config/run.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/ctl.h"
#include "cluster-config/door.h"
#include "cluster-config/local.h"
#include "cluster-config/report.h"
#include "cluster-config/term.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define POLL_MS 20
#define FLUSH_MS 1000 /* for console output that waits at the end */

struct run {
	const struct cc_run_options *o;
	struct cc_loop loop;
	struct cc_tls tls;
	struct cc_term term;
	struct cc_ctl *ctl; /* NULL while it is being opened */
	struct cc_door *door; /* NULL: nobody can give orders */
	struct cc_local_agents agents;
	struct cc_watch signals;
	uint64_t begin_ns, run_ns; /* run_ns 0: it never ran */
	char text[CC_VERDICT_TEXT + 128];
};

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	cc_term_write(&((struct run *)arg)->term, data, len);
}

static void on_progress(void *arg, const char *node, const char *text)
{
	if (!((struct run *)arg)->o->quiet)
		fprintf(stderr, "unum: %s%s%s\n", node, *node ? ": " : "", text);
}

/* While joining, the topology file is what can be mended, so its line is named. */
static void on_trouble(void *arg, const struct cc_node *node, const char *text)
{
	struct run *r = arg;
	bool joining = !r->ctl || cc_ctl_phase(r->ctl) == CC_CTL_JOIN;

	if (joining && node->mark.line)
		fprintf(stderr, "%s:%u:%u: error: node '%s' (%s, port %u): %s\n", r->o->t->file,
			node->mark.line, node->mark.col, node->name, node->address, node->port,
			text);
	else
		fprintf(stderr, "unum: error: node '%s': %s\n", node->name, text);
	if (!*r->text)
		snprintf(r->text, sizeof(r->text), "node %s: %s", node->name, text);
}

static const char *node_name(const struct run *r, unsigned i)
{
	return i < r->o->vm->shares ? r->o->t->node[r->o->vm->share[i].node].name : "?";
}

static void on_answer(void *arg, const struct cc_answer *in)
{
	struct run *r = arg;
	struct cc_answer a = *in;
	char text[512];

	a.text = text;
	if (in->ok && in->pause_ns)
		snprintf(text, sizeof(text), "vcpu %u: moved from %s to %s, pause %.0f us", a.vcpu,
			 node_name(r, a.from), node_name(r, a.to), a.pause_ns / 1e3);
	else
		snprintf(text, sizeof(text), "%s", in->text);
	if (r->door)
		cc_door_answer(r->door, &a);
}

static void on_order(void *arg, const struct cc_order *in)
{
	struct run *r = arg;
	struct cc_order o = *in;
	struct cc_answer no = { .id = o.id, .last = true, .vcpu = o.vcpu };
	char text[256];
	unsigned i = 0;

	while (i < r->o->vm->shares && strcmp(node_name(r, i), o.name))
		i++;
	o.node = (node_id)i;
	no.text = text;
	if (*o.name && i == r->o->vm->shares)
		snprintf(text, sizeof(text), "vm %s has no node '%.64s'", r->o->vm->name, o.name);
	else if (o.kind == CC_ORDER_MOVE && o.vcpu >= r->o->vm->vcpus)
		snprintf(text, sizeof(text), "vm %s has no vCPU %u: they are 0 to %u", r->o->vm->name, o.vcpu,
			 r->o->vm->vcpus - 1);
	else if (cc_ctl_order(r->ctl, &o))
		return;
	else
		snprintf(text, sizeof(text), "vm %s does not run", r->o->vm->name);
	cc_door_answer(r->door, &no);
}

/* A VM without a door runs as well. */
static void door_open(struct run *r)
{
	char size[NODES_MAX * (CC_NAME_MAX + 1) + 8];
	size_t at = (size_t)snprintf(size, sizeof(size), "%u", r->o->vm->vcpus);
	int err;

	for (unsigned i = 0; i < r->o->vm->shares; i++)
		at += (size_t)snprintf(size + at, sizeof(size) - at, " %s", node_name(r, i));
	err = cc_door_open(&r->loop, r->o->vm->name, size, on_order, r, &r->door);
	if (err)
		log_warn("run: `unum migrate` will not find this VM: %s", strerror(-err));
	else if (!r->o->quiet && strcmp(cc_door_name(r->door), r->o->vm->name))
		fprintf(stderr, "unum: another vm %s runs: this one is %s to `unum migrate`\n", r->o->vm->name,
			cc_door_name(r->door));
}

static void on_run(void *arg)
{
	struct run *r = arg;

	r->run_ns = clock_now_ns();
	door_open(r);
	if (!r->o->quiet)
		fprintf(stderr, "unum: vm %s runs on %u node%s, started in %.2f s%s\n",
			r->o->vm->name, r->o->vm->shares, r->o->vm->shares == 1 ? "" : "s",
			(double)(r->run_ns - r->begin_ns) / 1e9,
			r->term.is_tty ? "; Ctrl-] leaves" : "");
}

static void on_input(void *arg, const uint8_t *data, size_t len)
{
	cc_ctl_console(((struct run *)arg)->ctl, data, len);
}

static void on_leave(void *arg)
{
	cc_ctl_stop(((struct run *)arg)->ctl);
}

static void on_signal(void *arg, uint32_t events)
{
	struct run *r = arg;
	struct signalfd_siginfo info;

	(void)events;
	if (read(r->signals.fd, &info, sizeof(info)) == sizeof(info) && r->ctl)
		cc_ctl_stop(r->ctl);
}

static int signals_open(struct run *r)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	r->signals = (struct cc_watch){ .fd = fd, .on_event = on_signal, .arg = r };
	return cc_loop_add(&r->loop, &r->signals, EPOLLIN);
}

static void run_loop(struct run *r)
{
	uint64_t ticked_ns = 0;

	while (cc_ctl_phase(r->ctl) != CC_CTL_OVER) {
		uint64_t now;

		cc_loop_once(&r->loop, POLL_MS);
		now = clock_now_ns();
		cc_ctl_console_pause(r->ctl, cc_term_busy(&r->term));
		cc_term_listen(&r->term, !cc_ctl_console_busy(r->ctl));
		if (now - ticked_ns < POLL_MS * NS_PER_MS)
			continue;
		ticked_ns = now;
		cc_term_tick(&r->term);
		cc_ctl_tick(r->ctl);
	}
}

/* What ended it, for people, into r->text; the exit status. */
static int verdict_text(struct run *r)
{
	const struct cc_verdict *v = cc_ctl_verdict(r->ctl);
	const char *node = node_name(r, v->node);

	switch (v->reason) {
	case CC_END_POWEROFF:
		snprintf(r->text, sizeof(r->text), "the guest switched itself off");
		return CC_EXIT_OK;
	case CC_END_CRASH:
		snprintf(r->text, sizeof(r->text), "the guest crashed on node %s: %s", node,
			 v->text);
		return CC_EXIT_CRASH;
	case CC_END_PEER_LOST:
		snprintf(r->text, sizeof(r->text), "node %s is lost: %s", node, v->text);
		return CC_EXIT_LOST;
	case CC_END_STOPPED:
		snprintf(r->text, sizeof(r->text), "%s", v->text);
		return CC_EXIT_LEFT;
	default:
		snprintf(r->text, sizeof(r->text), "node %s gave up: %s", node, v->text);
		return CC_EXIT_INTERNAL;
	}
}

static const struct {
	const char *word;
	int status;
} refusals[] = {
	{ "unsound", CC_EXIT_REFUSED },
	{ "cpu", CC_EXIT_REFUSED },
	{ "unknown", CC_EXIT_REFUSED },
	{ "no-kvm", CC_EXIT_NO_KVM },
	{ "no-permission", CC_EXIT_NO_PERMISSION },
	{ "busy", CC_EXIT_KVM_BUSY },
	{ "too-old", CC_EXIT_KVM_TOO_OLD },
	{ "no-rights", CC_EXIT_NO_RIGHTS },
};

static int refusal_status(const char *word)
{
	for (unsigned i = 0; i < ARRAY_LEN(refusals); i++)
		if (!strcmp(refusals[i].word, word))
			return refusals[i].status;
	return CC_EXIT_REFUSED;
}

static int result_tell(struct run *r, const char **reason)
{
	const struct cc_verdict *v = cc_ctl_verdict(r->ctl);
	int status;

	switch (cc_ctl_result(r->ctl)) {
	case CC_CTL_NOT_JOINED:
		*reason = "not-joined";
		fprintf(stderr, "unum: nothing was started\n");
		return CC_EXIT_USAGE;
	case CC_CTL_REFUSED:
		*reason = "refused";
		fprintf(stderr, "unum: nothing was started\n");
		return refusal_status(cc_ctl_refusal(r->ctl));
	case CC_CTL_NOT_STARTED:
		*reason = "not-started";
		fprintf(stderr, "unum: vm %s could not be started\n", r->o->vm->name);
		return CC_EXIT_NOT_STARTED;
	default:
		status = verdict_text(r);
		*reason = cc_end_name(v->reason);
		if (*v->dump)
			fprintf(stderr, "%s%s", v->dump,
				v->dump[strlen(v->dump) - 1] == '\n' ? "" : "\n");
		if (status != CC_EXIT_OK || !r->o->quiet)
			fprintf(stderr, "unum: vm %s: %s\n", r->o->vm->name, r->text);
		return status;
	}
}

static void stats_tell(struct run *r, const char *reason, int status, uint64_t end_ns)
{
	const struct cc_stats *stats[NODES_MAX];
	struct cc_report report = { .t = r->o->t,
				    .vm = r->o->vm,
				    .stats = stats,
				    .reason = reason,
				    .text = r->text,
				    .status = status,
				    .start_s = -1,
				    .run_s = -1 };
	int err;

	for (unsigned i = 0; i < r->o->vm->shares; i++)
		stats[i] = cc_ctl_stats(r->ctl, i);
	if (r->run_ns) {
		report.start_s = (double)(r->run_ns - r->begin_ns) / 1e9;
		report.run_s = (double)(end_ns - r->run_ns) / 1e9;
	}
	if (r->o->stats && r->run_ns)
		cc_report_print(&report, stderr);
	if (!r->o->stats_json)
		return;
	err = cc_report_json(&report, r->o->stats_json);
	if (err)
		fprintf(stderr, "unum: %s: %s\n", r->o->stats_json, strerror(-err));
}

static int vm_run(struct run *r)
{
	static const struct cc_ctl_ops ctl_ops = { on_console, on_progress, on_trouble, on_run,
						   on_answer };
	static const struct cc_term_ops term_ops = { on_input, on_leave };
	const char *reason = "";
	uint64_t end_ns;
	int status, err;

	err = cc_ctl_open(&r->loop, r->o->t, r->o->vm, CC_CTL_VM, &r->tls, &ctl_ops, r, &r->ctl);
	if (err) {
		fprintf(stderr, "unum: error: %s\n", strerror(-err));
		return CC_EXIT_INTERNAL;
	}
	cc_ctl_chaos(r->ctl, r->o->chaos);
	cc_ctl_place_trace(r->ctl, r->o->place_trace);
	cc_term_open(&r->term, &r->loop, &term_ops, r);
	run_loop(r);
	/* At once: a client that knocks during the rest would wait for nothing, and the next VM wants the name. */
	cc_door_close(r->door);
	r->door = NULL;
	end_ns = clock_now_ns();
	cc_term_close(&r->term, FLUSH_MS);
	/* The agents' last lines, if any, come before the verdict. */
	cc_local_stop(&r->agents);
	status = result_tell(r, &reason);
	stats_tell(r, reason, status, end_ns);
	cc_ctl_close(r->ctl);
	return status;
}

int cc_run(const struct cc_run_options *o)
{
	struct run r = { .o = o, .begin_ns = clock_now_ns() };
	int status = CC_EXIT_INTERNAL, err = cc_loop_open(&r.loop);

	if (err)
		goto fail;
	err = cc_tls_open(&r.tls, &o->key);
	if (err)
		goto close_loop;
	err = signals_open(&r);
	if (err)
		goto close_tls;
	if (o->start_agents && cc_local_start(o->t, o->vm, &o->key, o->slice_path, &r.agents)) {
		fprintf(stderr, "unum: nothing was started\n");
		status = CC_EXIT_USAGE;
	} else {
		status = vm_run(&r);
	}
	cc_local_stop(&r.agents);
	cc_loop_del(&r.loop, &r.signals);
	close(r.signals.fd);
close_tls:
	cc_tls_close(&r.tls);
close_loop:
	cc_loop_close(&r.loop);
fail:
	if (err)
		log_error("unum: %s", strerror(-err));
	return status;
}
