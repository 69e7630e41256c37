/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/agent_slice.c - one slice process as its agent sees it; see agent_slice.h.
 *
 * Owns      The child process, our end of its socketpair.
 */
#include "cluster-config/agent_slice.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/conn.h"
#include "cluster-config/core/member.h"
#include "cluster-config/spawn.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_NS NS_PER_S /* between closing its channel and ending */

struct cc_slice {
	struct cc_loop *loop;
	struct cc_child child;
	struct cc_watch watch; /* of child.pidfd */
	struct cc_conn *conn;  /* NULL: closed */
	struct cc_member member;
	const struct cc_slice_ops *ops;
	void *arg;
	bool paused, killed;
	uint64_t linger_end_ns; /* 0: not lingering */
	uint64_t ping_seq;
	char how[CC_EXIT_TEXT_MAX];
};

/* It is dead for its session only when both the process and what it said have come to an end. */
static void dead_check(struct cc_slice *s)
{
	if (s->conn || s->child.pidfd >= 0)
		return;
	s->ops->on_dead(s->arg, s->how);
	free(s);
}

static void on_exit_event(void *arg, uint32_t events)
{
	struct cc_slice *s = arg;
	int pidfd = s->child.pidfd;

	(void)events;
	cc_loop_del(s->loop, &s->watch);
	if (cc_child_reap(&s->child, 0, s->how))
		log_error("agent: pidfd %d was not ready",
			  pidfd); /* cannot be: the event said so */
	dead_check(s);
}

static void on_message(void *arg, const struct cc_msg *msg)
{
	struct cc_slice *s = arg;

	cc_member_step(&s->member, CC_MEMBER_HEARD, clock_now_ns());
	if (msg->type != CC_MSG_PONG)
		s->ops->on_message(s->arg, msg);
}

static void on_close(void *arg, const char *why, bool garbage)
{
	struct cc_slice *s = arg;

	cc_conn_free(s->conn);
	s->conn = NULL;
	if (garbage) {
		log_warn("agent: slice pid %d: %s", s->child.pid, why);
		cc_slice_kill(s);
	}
	s->linger_end_ns = clock_now_ns() + LINGER_NS;
	dead_check(s);
}

static const struct cc_conn_ops conn_ops = { .on_message = on_message, .on_close = on_close };

int cc_slice_start(struct cc_loop *loop, const char *path, const char *vm_name, uint64_t dead_ns,
		   const struct cc_slice_ops *ops, void *arg, struct cc_slice **out)
{
	char *argv[] = { (char *)path, (char *)vm_name, NULL };
	struct cc_slice *s = calloc(1, sizeof(*s));
	int pair[2], err;

	if (!s)
		return -ENOMEM;
	*s = (struct cc_slice){ .loop = loop, .ops = ops, .arg = arg };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		err = -errno;
		free(s);
		return err;
	}
	err = cc_spawn(argv, &pair[1], 1, &s->child);
	close(pair[1]);
	if (err) {
		close(pair[0]);
		free(s);
		return err;
	}
	err = cc_conn_make(loop, pair[0], CC_CONN_PLAIN, NULL, &conn_ops, s, &s->conn);
	s->watch = (struct cc_watch){ .fd = s->child.pidfd, .on_event = on_exit_event, .arg = s };
	if (!err) {
		err = cc_loop_add(loop, &s->watch, EPOLLIN);
		if (err)
			cc_conn_free(s->conn);
	}
	if (err) {
		cc_child_signal(&s->child, SIGKILL);
		if (cc_child_reap(&s->child, 2000, s->how))
			log_error("agent: slice pid %d does not end", s->child.pid);
		free(s);
		return err;
	}
	cc_member_init(&s->member, dead_ns, clock_now_ns());
	*out = s;
	return 0;
}

void cc_slice_send(struct cc_slice *s, const struct cc_msg *msg)
{
	if (s->conn)
		cc_conn_send(s->conn, msg);
}

bool cc_slice_busy(const struct cc_slice *s)
{
	return s->conn && cc_conn_busy(s->conn);
}

void cc_slice_pause(struct cc_slice *s, bool pause)
{
	s->paused = pause;
	if (s->conn)
		cc_conn_pause(s->conn, pause);
}

void cc_slice_kill(struct cc_slice *s)
{
	s->killed = true;
	cc_child_signal(&s->child, SIGKILL);
}

pid_t cc_slice_pid(const struct cc_slice *s)
{
	return s->child.pid;
}

void cc_slice_tick(struct cc_slice *s, uint64_t now_ns)
{
	unsigned effects;

	if (s->linger_end_ns) {
		if (now_ns > s->linger_end_ns && !s->killed)
			cc_slice_kill(s);
		return;
	}
	effects = cc_member_step(&s->member, s->paused ? CC_MEMBER_DEAF : CC_MEMBER_TICK, now_ns);
	if (effects & CC_MEMBER_PING)
		cc_slice_send(s,
			      &(struct cc_msg){ .type = CC_MSG_PING, .ping = { ++s->ping_seq } });
	if (effects & CC_MEMBER_SILENT)
		log_warn("agent: slice pid %d is silent", s->child.pid);
	if (effects & CC_MEMBER_LOST) {
		log_error("agent: slice pid %d is silent for too long, killed", s->child.pid);
		cc_slice_kill(s);
	}
}
