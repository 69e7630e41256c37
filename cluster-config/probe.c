/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/probe.c - asks the slice program what this host can do; see probe.h.
 *
 * Owns      The child process, the pipe to its stdout, what it said.
 */
#include "cluster-config/probe.h"

#include "base/log.h"
#include "cluster-config/spawn.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAP_MS 2000 /* after its output has ended, or SIGKILL */

struct cc_probe {
	struct cc_loop *loop;
	struct cc_child child;
	struct cc_watch watch; /* of the pipe; fd -1: closed */
	void (*on_done)(void *arg, const char *facts, const char *why);
	void *arg;
	uint64_t end_ns;
	bool done;
	size_t len;
	char text[CC_PROBE_MAX + 1];
};

static void pipe_close(struct cc_probe *p)
{
	if (p->watch.fd < 0)
		return;
	cc_loop_del(p->loop, &p->watch);
	close(p->watch.fd);
	p->watch.fd = -1;
}

/* why NULL: its output has ended, so it will too. */
static void finish(struct cc_probe *p, const char *why)
{
	char how[CC_EXIT_TEXT_MAX] = "does not end", text[CC_EXIT_TEXT_MAX + 32];

	pipe_close(p);
	if (why)
		cc_child_signal(&p->child, SIGKILL);
	if (cc_child_reap(&p->child, REAP_MS, how))
		log_error("probe: pid %d does not end", p->child.pid);
	if (!why && (!p->len || strcmp(how, "exited with status 0"))) {
		snprintf(text, sizeof(text), "the slice program %s%s",
			 p->len ? "" : "said nothing and ", how);
		why = text;
	}
	p->done = true;
	p->text[p->len] = 0;
	p->on_done(p->arg, why ? "" : p->text, why ? why : "");
}

static void on_output(void *arg, uint32_t events)
{
	struct cc_probe *p = arg;
	ssize_t n = read(p->watch.fd, p->text + p->len, CC_PROBE_MAX - p->len);

	(void)events;
	if (n > 0) {
		p->len += (size_t)n;
		if (p->len == CC_PROBE_MAX)
			finish(p, "the slice program says too much");
	} else if (n == 0) {
		finish(p, NULL);
	} else if (errno != EAGAIN && errno != EINTR) {
		finish(p, strerror(errno));
	}
}

int cc_probe_start(struct cc_loop *loop, const char *slice_path, const struct cc_ask *what,
		   void (*on_done)(void *arg, const char *facts, const char *why), void *arg,
		   struct cc_probe **out)
{
	const char *kernel = what->fabric || !*what->kernel ? NULL : what->kernel;
	char *argv[] = { (char *)slice_path, what->fabric ? "--fabric" : "--host", (char *)kernel, NULL };
	struct cc_probe *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->loop = loop;
	p->on_done = on_done;
	p->arg = arg;
	p->end_ns = clock_now_ns() + CC_PROBE_NS;
	p->watch = (struct cc_watch){ .fd = -1, .on_event = on_output, .arg = p };
	err = cc_spawn_reading(argv, &p->child, &p->watch.fd);
	if (err) {
		free(p);
		return err;
	}
	err = cc_loop_add(loop, &p->watch, EPOLLIN);
	if (err) {
		close(p->watch.fd);
		p->watch.fd = -1;
		cc_probe_free(p);
		return err;
	}
	*out = p;
	return 0;
}

void cc_probe_tick(struct cc_probe *p, uint64_t now_ns)
{
	if (!p->done && now_ns > p->end_ns)
		finish(p, "the slice program took too long");
}

void cc_probe_free(struct cc_probe *p)
{
	char how[CC_EXIT_TEXT_MAX];

	if (!p)
		return;
	pipe_close(p);
	if (p->child.pidfd >= 0) {
		cc_child_signal(&p->child, SIGKILL);
		if (cc_child_reap(&p->child, REAP_MS, how))
			log_error("probe: pid %d does not end", p->child.pid);
	}
	free(p);
}
