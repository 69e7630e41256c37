/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/agent.c - sessions of `unum` with this node and the slices behind them; agent.h.
 *
 * Owns      The listening socket, all sessions, all slices.
 * I/O       Sockets and child processes, never blocking, but for cc_agent_close.
 * Limits    SESSIONS_MAX connections; HELLO_NS to prove the key and say hello.
 */
#include "cluster-config/agent.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/agent_slice.h"
#include "cluster-config/conn.h"
#include "cluster-config/core/member.h"
#include "cluster-config/probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSIONS_MAX 256u
#define HELLO_NS (5 * NS_PER_S)
#define REFUSED_LOG_NS NS_PER_S
#define CLOSE_NS (3 * NS_PER_S)

enum session_phase {
	SESSION_NEW,      /* no HELLO yet */
	SESSION_IDLE,     /* no VM yet: only ASK and PREPARE are taken */
	SESSION_STARTING, /* a slice is there, RUN was not given */
	SESSION_RUNNING,
	SESSION_OVER, /* STOP was given, or the slice said FAILED or ENDED, or is dead */
};

struct cc_agent {
	struct cc_loop *loop;
	struct cc_agent_config cfg;
	struct cc_tls tls;
	struct cc_watch watch;
	struct session *session[SESSIONS_MAX]; /* NULL: free */
	unsigned slices;                       /* processes not yet reaped */
	unsigned cpus_used;
	uint64_t memory_used, refused, refused_logged_ns;
};

/* Lives until both the connection and the slice are gone. */
struct session {
	struct cc_agent *agent;
	enum session_phase phase;
	bool reported;          /* FAILED or ENDED went up */
	struct cc_conn *conn;   /* NULL: gone */
	struct cc_slice *slice; /* NULL: none, or dead */
	struct cc_probe *probe; /* NULL: nobody asked */
	struct cc_member member;
	uint64_t hello_end_ns, ping_seq;
	node_id self;
	char vm_name[CC_NAME_MAX + 1], node_name[CC_NAME_MAX + 1];
	unsigned cpus; /* taken from the agent */
	uint64_t memory;
};

static void refuse(struct cc_agent *a, const char *why)
{
	uint64_t now = clock_now_ns();

	a->refused++;
	if (a->refused_logged_ns && now - a->refused_logged_ns < REFUSED_LOG_NS)
		return;
	a->refused_logged_ns = now;
	log_warn("agent: refused a connection: %s (%llu so far)", why,
		 (unsigned long long)a->refused);
}

static void session_release(struct session *s)
{
	if (s->conn || s->slice)
		return;
	s->agent->cpus_used -= s->cpus;
	s->agent->memory_used -= s->memory;
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (s->agent->session[i] == s)
			s->agent->session[i] = NULL;
	free(s);
}

/* The connection goes, and the slice with it. */
static void session_drop(struct session *s)
{
	cc_conn_free(s->conn);
	s->conn = NULL;
	cc_probe_free(s->probe);
	s->probe = NULL;
	if (s->slice)
		cc_slice_kill(s->slice);
	session_release(s);
}

static void session_tell(struct session *s, const struct cc_msg *msg)
{
	if (s->conn)
		cc_conn_send(s->conn, msg);
}

static void session_failed(struct session *s, const char *text)
{
	s->phase = SESSION_OVER;
	s->reported = true;
	log_error("agent: vm %s: %s", s->vm_name, text);
	session_tell(s, &(struct cc_msg){ .type = CC_MSG_FAILED, .failed = { text } });
}

/* --- from the slice --------------------------------------------------------------------------- */

static void slice_message(void *arg, const struct cc_msg *msg)
{
	struct session *s = arg;

	switch (msg->type) {
	case CC_MSG_FAILED:
	case CC_MSG_ENDED:
		s->phase = SESSION_OVER;
		s->reported = true;
		break;
	case CC_MSG_PREPARED:
	case CC_MSG_READY:
	case CC_MSG_CONSOLE:
	case CC_MSG_PROGRESS:
	case CC_MSG_STATS:
	case CC_MSG_ANSWER:
		break;
	default:
		log_warn("agent: vm %s: the slice sent %s", s->vm_name, cc_msg_name(msg->type));
		return;
	}
	session_tell(s, msg);
	if (s->conn && cc_conn_busy(s->conn))
		cc_slice_pause(s->slice, true); /* session_tick lifts it */
}

static void slice_dead(void *arg, const char *how)
{
	struct session *s = arg;
	char text[256];

	s->slice = NULL;
	s->agent->slices--;
	log_info("agent: vm %s: slice %s", s->vm_name, how);
	snprintf(text, sizeof(text), "the slice on node %s %s%s", s->node_name,
		 !strncmp(how, "killed", 6) ? "was " : "", how);
	if (!s->conn) {
		/* we killed it, since nobody wants it any more */
	} else if (s->phase == SESSION_STARTING) {
		session_failed(s, text);
	} else if (!s->reported) {
		bool lost = s->phase == SESSION_RUNNING;

		if (lost)
			log_error("agent: vm %s: %s", s->vm_name, text);
		s->phase = SESSION_OVER;
		s->reported = true;
		session_tell(s, &(struct cc_msg){
					.type = CC_MSG_ENDED,
					.ended = { lost ? CC_END_PEER_LOST : CC_END_STOPPED,
						   s->self, text, "" },
				});
	}
	session_release(s);
}

static const struct cc_slice_ops slice_ops = { .on_message = slice_message, .on_dead = slice_dead };

/* --- from unum -------------------------------------------------------------------------------- */

static uint64_t spec_memory(const struct cc_vm_spec *spec)
{
	uint64_t frames = 0;

	for (unsigned i = 0; i < spec->ranges; i++)
		if (spec->range[i].node == spec->self)
			frames += spec->range[i].count;
	return frames << PAGE_SHIFT;
}

static unsigned spec_vcpus(const struct cc_vm_spec *spec)
{
	unsigned n = 0;

	for (unsigned i = 0; i < spec->vcpus; i++)
		n += spec->vcpu_node[i] == spec->self;
	return n;
}

/* Takes what the VM needs from what this node lends.  False: there is not enough, `text` says of
 * what. */
static bool lend(struct session *s, const struct cc_vm_spec *spec, char *text, size_t size)
{
	struct cc_agent *a = s->agent;
	uint64_t memory = spec_memory(spec);
	unsigned cpus = spec_vcpus(spec);

	if (a->cfg.cpus && a->cpus_used + cpus > a->cfg.cpus) {
		snprintf(text, size, "node %s has %u CPUs left, the vm wants %u", s->node_name,
			 a->cfg.cpus - a->cpus_used, cpus);
		return false;
	}
	if (a->cfg.memory && a->memory_used + memory > a->cfg.memory) {
		snprintf(text, size, "node %s has %lluMiB left, the vm wants %lluMiB", s->node_name,
			 (unsigned long long)(a->cfg.memory - a->memory_used) >> 20,
			 (unsigned long long)memory >> 20);
		return false;
	}
	a->cpus_used += s->cpus = cpus;
	a->memory_used += s->memory = memory;
	return true;
}

static void prepare(struct session *s, const struct cc_msg *msg)
{
	const struct cc_vm_spec *spec = &msg->prepare;
	uint64_t dead_ns =
		(spec->dead_after_ms ? spec->dead_after_ms : CC_DEAD_AFTER_MS) * NS_PER_MS;
	char text[200];
	int err;

	s->self = spec->self;
	snprintf(s->vm_name, sizeof(s->vm_name), "%s", spec->name);
	snprintf(s->node_name, sizeof(s->node_name), "%s", spec->node_name[spec->self]);
	cc_member_init(&s->member, dead_ns, clock_now_ns());
	if (*s->agent->cfg.name && strcmp(s->agent->cfg.name, s->node_name)) {
		snprintf(text, sizeof(text), "this is the agent of node %s, not %s",
			 s->agent->cfg.name, s->node_name);
		session_failed(s, text);
		return;
	}
	if (!spec->probe && !lend(s, spec, text, sizeof(text))) {
		session_failed(s, text);
		return;
	}
	err = cc_slice_start(s->agent->loop, s->agent->cfg.slice_path, s->vm_name, dead_ns,
			     &slice_ops, s, &s->slice);
	if (err) {
		snprintf(text, sizeof(text), "node %s cannot start a slice: %s", s->node_name,
			 strerror(-err));
		session_failed(s, text);
		return;
	}
	s->agent->slices++;
	s->phase = SESSION_STARTING;
	log_info("agent: vm %s: node %u of %u, slice pid %d", s->vm_name, spec->self, spec->nodes,
		 cc_slice_pid(s->slice));
	cc_slice_send(s->slice, msg);
}

static void host_tell(void *arg, const char *facts, const char *why)
{
	struct session *s = arg;

	if (*why)
		log_warn("agent: what this host can do is not known: %s", why);
	session_tell(s, &(struct cc_msg){ .type = CC_MSG_HOST, .host = { facts, why } });
	cc_probe_free(s->probe);
	s->probe = NULL;
}

/* Looks anew each time: rights and module parameters are mended while agents run. */
static void ask(struct session *s, const struct cc_ask *a)
{
	int err = cc_probe_start(s->agent->loop, s->agent->cfg.slice_path, a, host_tell, s,
				 &s->probe);

	if (err)
		host_tell(s, "", strerror(-err));
}

static void forward(struct session *s, const struct cc_msg *msg)
{
	if (!s->slice)
		return; /* it has just died; unum learns of it by another message */
	cc_slice_send(s->slice, msg);
	if (cc_slice_busy(s->slice))
		cc_conn_pause(s->conn, true); /* session_tick lifts it */
}

/* False: not a message for this phase. */
static bool session_step(struct session *s, const struct cc_msg *msg)
{
	switch (msg->type) {
	case CC_MSG_PREPARE:
		if (s->phase != SESSION_IDLE || s->probe)
			return false;
		prepare(s, msg);
		return true;
	case CC_MSG_ASK:
		if (s->phase != SESSION_IDLE || s->probe)
			return false;
		ask(s, &msg->ask);
		return true;
	case CC_MSG_CONNECT:
	case CC_MSG_RUN:
		if (s->phase != SESSION_STARTING && s->phase != SESSION_OVER)
			return false;
		if (s->phase == SESSION_STARTING && msg->type == CC_MSG_RUN)
			s->phase = SESSION_RUNNING;
		forward(s, msg);
		return true;
	case CC_MSG_CONSOLE:
	case CC_MSG_ORDER:
	case CC_MSG_STOP:
		if (s->phase < SESSION_STARTING)
			return false;
		if (msg->type == CC_MSG_STOP && s->phase != SESSION_OVER)
			s->phase = SESSION_OVER; /* from here on its end is no surprise */
		forward(s, msg);
		return true;
	case CC_MSG_PING:
		session_tell(s, &(struct cc_msg){ .type = CC_MSG_PONG, .ping = msg->ping });
		return true;
	case CC_MSG_PONG:
		return true;
	default:
		return false;
	}
}

static void conn_message(void *arg, const struct cc_msg *msg)
{
	struct session *s = arg;
	char text[80];

	cc_member_step(&s->member, CC_MEMBER_HEARD, clock_now_ns());
	if (s->phase != SESSION_NEW) {
		if (session_step(s, msg))
			return;
		snprintf(text, sizeof(text), "%s out of turn", cc_msg_name(msg->type));
		refuse(s->agent, text);
		session_drop(s);
		return;
	}
	if (msg->type != CC_MSG_HELLO) {
		refuse(s->agent, "no hello");
		session_drop(s);
		return;
	}
	session_tell(s, &(struct cc_msg){ .type = CC_MSG_HELLO,
					  .hello = { CC_VERSION, s->agent->cfg.name } });
	s->phase = SESSION_IDLE;
	if (msg->hello.version == CC_VERSION)
		return;
	snprintf(text, sizeof(text), "version %u, ours is %u", msg->hello.version, CC_VERSION);
	refuse(s->agent, text);
	session_drop(s);
}

static void conn_close(void *arg, const char *why, bool garbage)
{
	struct session *s = arg;

	if (garbage)
		refuse(s->agent, why);
	else if (s->phase == SESSION_RUNNING)
		log_warn("agent: vm %s: unum is gone (%s), the slice is killed", s->vm_name, why);
	session_drop(s);
}

static const struct cc_conn_ops conn_ops = { .on_message = conn_message, .on_close = conn_close };

static void on_accept(void *arg, uint32_t events)
{
	struct cc_agent *a = arg;
	int fd = accept4(a->watch.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1, err;
	struct session *s;
	unsigned slot = 0;

	(void)events;
	if (fd < 0)
		return;
	while (slot < SESSIONS_MAX && a->session[slot])
		slot++;
	s = slot < SESSIONS_MAX ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		refuse(a, "too many connections");
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	s->agent = a;
	s->hello_end_ns = clock_now_ns() + HELLO_NS;
	cc_member_init(&s->member, CC_DEAD_AFTER_MS * NS_PER_MS, clock_now_ns());
	err = cc_conn_make(a->loop, fd, CC_CONN_TLS_SERVER, &a->tls, &conn_ops, s, &s->conn);
	if (err) {
		log_error("agent: accept: %s", strerror(-err));
		free(s);
		return;
	}
	a->session[slot] = s;
}

/* --- time ------------------------------------------------------------------------------------- */

static void session_tick(struct session *s, uint64_t now_ns)
{
	bool down_busy = s->slice && cc_slice_busy(s->slice);
	unsigned effects;

	if (s->slice) {
		cc_slice_pause(s->slice, s->conn && cc_conn_busy(s->conn));
		cc_slice_tick(s->slice, now_ns);
	}
	if (s->probe)
		cc_probe_tick(s->probe, now_ns);
	if (!s->conn)
		return;
	if (s->phase == SESSION_NEW) {
		if (now_ns > s->hello_end_ns) {
			refuse(s->agent, "no hello in time");
			session_drop(s);
		}
		return;
	}
	cc_conn_pause(s->conn, down_busy);
	effects = cc_member_step(&s->member, down_busy ? CC_MEMBER_DEAF : CC_MEMBER_TICK, now_ns);
	if (effects & CC_MEMBER_PING)
		session_tell(s, &(struct cc_msg){ .type = CC_MSG_PING, .ping = { ++s->ping_seq } });
	if (effects & CC_MEMBER_LOST) {
		log_warn("agent: vm %s: unum is silent for too long, the slice is killed",
			 s->vm_name);
		session_drop(s);
	}
}

void cc_agent_tick(struct cc_agent *a)
{
	uint64_t now = clock_now_ns();

	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (a->session[i])
			session_tick(a->session[i], now);
}

/* --- life ------------------------------------------------------------------------------------- */

int cc_agent_open(struct cc_loop *loop, const struct cc_agent_config *cfg, struct cc_agent **out)
{
	struct cc_agent *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return -ENOMEM;
	a->loop = loop;
	a->cfg = *cfg;
	err = cc_tls_open(&a->tls, &cfg->key);
	if (err)
		goto free_agent;
	a->watch = (struct cc_watch){ .fd = cfg->listen_fd, .on_event = on_accept, .arg = a };
	err = cc_loop_add(loop, &a->watch, EPOLLIN);
	if (err)
		goto close_tls;
	*out = a;
	return 0;

close_tls:
	cc_tls_close(&a->tls);
free_agent:
	free(a);
	return err;
}

void cc_agent_close(struct cc_agent *a)
{
	uint64_t end = clock_now_ns() + CLOSE_NS;

	cc_loop_del(a->loop, &a->watch);
	close(a->watch.fd);
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (a->session[i])
			session_drop(a->session[i]);
	while (a->slices && clock_now_ns() < end)
		cc_loop_once(a->loop, CC_AGENT_TICK_MS);
	if (a->slices)
		log_error("agent: %u slices do not end", a->slices);
	log_info("agent: closed, %llu connections refused", (unsigned long long)a->refused);
	cc_tls_close(&a->tls);
	free(a);
}
