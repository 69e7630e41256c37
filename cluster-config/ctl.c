/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/ctl.c - one VM over its nodes, as `unum` controls it; see ctl.h.
 *
 * Owns      A connection per node, the VM's identity and key.
 * I/O       Non-blocking sockets; host names are looked up at open, which may block.
 */
#include "cluster-config/ctl_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "cluster-config/core/spec.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define JOIN_NS (5 * NS_PER_S)
#define ASK_NS (130 * NS_PER_S)   /* more than CC_PROBE_NS, so that an agent says what is wrong */
#define START_NS (120 * NS_PER_S) /* per phase: kernels are read and unpacked in it */
#define STOP_NS (3 * NS_PER_S)    /* for statistics */
#define STOP_LOSS_NS \
	(800 * NS_PER_MS) /* the same when a node is lost: all must be over within 2 s */

static bool all_in(const struct cc_ctl *c, enum peer_state state)
{
	for (unsigned i = 0; i < c->peers; i++)
		if (c->peer[i].state != state)
			return false;
	return true;
}

/* --- end -------------------------------------------------------------------------------------- */

static void over(struct cc_ctl *c)
{
	c->phase = CC_CTL_OVER;
	for (unsigned i = 0; i < c->peers; i++) {
		cc_conn_free(c->peer[i].conn);
		c->peer[i].conn = NULL;
		c->peer[i].state = PEER_GONE;
	}
}

static void stop_check(struct cc_ctl *c)
{
	for (unsigned i = 0; i < c->peers; i++)
		if (c->peer[i].state != PEER_DONE && c->peer[i].state != PEER_GONE)
			return;
	over(c);
}

static void stop_begin(struct cc_ctl *c)
{
	bool loss = c->verdict.reason == CC_END_PEER_LOST;

	c->phase = CC_CTL_STOP;
	c->phase_end_ns = clock_now_ns() + (loss ? STOP_LOSS_NS : STOP_NS);
	for (unsigned i = 0; i < c->peers; i++) {
		cc_peer_send(&c->peer[i], &(struct cc_msg){ .type = CC_MSG_STOP });
		/* A dead slice has nothing more to say. */
		if (loss && i == c->verdict.node)
			c->peer[i].state = PEER_DONE;
	}
	stop_check(c);
}

static void verdict_report(struct cc_ctl *c, node_id from, const struct cc_ended *e)
{
	if (c->phase != CC_CTL_RUN)
		return;
	cc_verdict_report(&c->verdict, from, e, clock_now_ns());
	if (c->verdict.settled)
		stop_begin(c);
}

void cc_ctl_stop(struct cc_ctl *c)
{
	struct cc_ended e = { CC_END_STOPPED, 0, "stopped by the user", "" };

	if (c->phase == CC_CTL_RUN) {
		verdict_report(c, 0, &e);
	} else if (c->phase < CC_CTL_RUN) {
		cc_verdict_report(&c->verdict, 0, &e, 0);
		c->result = CC_CTL_ENDED;
		over(c);
	} else if (c->phase == CC_CTL_STOP) {
		over(c); /* the second time: at once */
	}
}

void cc_peer_failed(struct peer *p, const char *text)
{
	struct cc_ctl *c = p->ctl;

	c->ops->on_trouble(c->arg, cc_peer_node(p), text);
	c->failed = true;
	if (c->phase == CC_CTL_JOIN || cc_ctl_surveys(c))
		return;
	c->result = CC_CTL_NOT_STARTED;
	over(c);
}

/* --- start ------------------------------------------------------------------------------------ */

static void phase_enter(struct cc_ctl *c, enum cc_ctl_phase phase)
{
	struct cc_msg connect = { .type = CC_MSG_CONNECT, .connect = { .nodes = c->peers } };

	c->phase = phase;
	c->phase_end_ns = clock_now_ns() + START_NS;
	switch (phase) {
	case CC_CTL_PREPARE:
		for (unsigned i = 0; i < c->peers; i++)
			cc_peer_prepare(&c->peer[i]);
		break;
	case CC_CTL_CONNECT:
		for (unsigned i = 0; i < c->peers; i++)
			connect.connect.address[i] = c->peer[i].address;
		for (unsigned i = 0; i < c->peers; i++)
			cc_peer_send(&c->peer[i], &connect);
		break;
	default:
		ASSERT(phase == CC_CTL_RUN);
		c->result = CC_CTL_ENDED;
		for (unsigned i = 0; i < c->peers; i++)
			cc_peer_send(&c->peer[i], &(struct cc_msg){ .type = CC_MSG_RUN });
		c->ops->on_run(c->arg);
	}
}

/* All that will tell have told. */
static void ask_check(struct cc_ctl *c)
{
	for (unsigned i = 0; i < c->peers; i++)
		if (c->peer[i].state == PEER_JOINED)
			return;
	if (cc_ctl_surveys(c)) {
		c->result = CC_CTL_SURVEYED;
		over(c);
	} else if (cc_ctl_choose(c)) {
		phase_enter(c, CC_CTL_PREPARE);
	} else {
		c->result = CC_CTL_REFUSED;
		over(c);
	}
}

static void join_check(struct cc_ctl *c)
{
	for (unsigned i = 0; i < c->peers; i++)
		if (c->peer[i].state == PEER_JOINING)
			return;
	if (c->failed && !cc_ctl_surveys(c)) {
		over(c);
	} else if (cc_ctl_ask(c)) {
		c->phase = CC_CTL_ASK;
		c->phase_end_ns = clock_now_ns() + ASK_NS;
		ask_check(c);
	} else {
		phase_enter(c, CC_CTL_PREPARE);
	}
}

static void hello_take(struct peer *p, const struct cc_hello *hello)
{
	const struct cc_node *node = cc_peer_node(p);
	char text[160];

	p->state = PEER_JOINED;
	if (hello->version != CC_VERSION) {
		snprintf(text, sizeof(text), "the agent speaks version %u, this unum %u",
			 hello->version, CC_VERSION);
		cc_peer_failed(p, text);
	} else if (*hello->name && strcmp(hello->name, node->name)) {
		snprintf(text, sizeof(text), "the agent at this address is that of node %.63s",
			 hello->name);
		cc_peer_failed(p, text);
	}
	join_check(p->ctl);
}

/* --- messages --------------------------------------------------------------------------------- */

static void stats_take(struct peer *p, const struct cc_stats *s)
{
	p->stats = *s;
	snprintf(p->engine, sizeof(p->engine), "%s", s->engine);
	p->stats.engine = p->engine;
	p->stats.node = p->self;
	p->has_stats = true;
}

/* Nothing of the VM was on it. */
static void unneeded_gone(struct peer *p)
{
	p->state = PEER_DONE;
	p->ctl->ops->on_progress(p->ctl->arg, cc_peer_node(p)->name, "is gone; the VM had left it");
}

/* A node has left, or is back. */
static void answer_note(struct cc_ctl *c, const struct cc_answer *a)
{
	for (unsigned i = 0; i < c->peers && a->last; i++) {
		struct peer *p = &c->peer[i];

		if (!p->order || p->order != a->id)
			continue;
		p->order = 0;
		if (a->ok)
			p->left = p->leaves;
	}
}

static void run_message(struct peer *p, const struct cc_msg *msg)
{
	struct cc_ctl *c = p->ctl;
	bool dead;

	switch (msg->type) {
	case CC_MSG_CONSOLE:
		c->ops->on_console(c->arg, msg->console.data, msg->console.len);
		break;
	case CC_MSG_ENDED:
		p->ended = true;
		if (p->left && c->phase == CC_CTL_RUN)
			unneeded_gone(p);
		else
			verdict_report(c, p->self, &msg->ended);
		break;
	case CC_MSG_STATS:
		stats_take(p, &msg->stats);
		break;
	case CC_MSG_ANSWER:
		answer_note(c, &msg->answer);
		if (c->ops->on_answer)
			c->ops->on_answer(c->arg, &msg->answer);
		break;
	default:
		log_warn("ctl: node %s sent %s out of turn", cc_peer_node(p)->name,
			 cc_msg_name(msg->type));
	}
	/* Statistics precede the answer to STOP; a slice that is dead (told by its agent) has none.
	 */
	dead = msg->type == CC_MSG_ENDED &&
	       (msg->ended.reason == CC_END_STOPPED ||
		(msg->ended.reason == CC_END_PEER_LOST && msg->ended.node == p->self));
	if (c->phase == CC_CTL_STOP && ((p->ended && p->has_stats) || dead)) {
		p->state = PEER_DONE;
		stop_check(c);
	}
}

static void start_message(struct peer *p, const struct cc_msg *msg)
{
	struct cc_ctl *c = p->ctl;

	if (c->phase == CC_CTL_JOIN && msg->type == CC_MSG_HELLO && p->state == PEER_JOINING) {
		hello_take(p, &msg->hello);
	} else if (c->phase == CC_CTL_ASK && msg->type == CC_MSG_HOST && p->state == PEER_JOINED) {
		cc_peer_host(p, &msg->host);
		p->state = PEER_TOLD;
		ask_check(c);
	} else if (c->phase == CC_CTL_PREPARE && msg->type == CC_MSG_PREPARED) {
		snprintf(p->address, sizeof(p->address), "%s", msg->prepared.address);
		p->state = PEER_PREPARED;
		if (all_in(c, PEER_PREPARED))
			phase_enter(c, CC_CTL_CONNECT);
	} else if (c->phase == CC_CTL_CONNECT && msg->type == CC_MSG_READY) {
		p->state = PEER_READY;
		if (all_in(c, PEER_READY))
			phase_enter(c, CC_CTL_RUN);
	} else if (msg->type == CC_MSG_ENDED) {
		cc_peer_failed(p, msg->ended.text);
	} else {
		log_warn("ctl: node %s sent %s out of turn", cc_peer_node(p)->name,
			 cc_msg_name(msg->type));
	}
}

static void on_message(void *arg, const struct cc_msg *msg)
{
	struct peer *p = arg;
	struct cc_ctl *c = p->ctl;

	if (cc_member_step(&p->member, CC_MEMBER_HEARD, clock_now_ns()) & CC_MEMBER_BACK)
		c->ops->on_progress(c->arg, cc_peer_node(p)->name, "answers again");
	switch (msg->type) {
	case CC_MSG_PING:
		cc_peer_send(p, &(struct cc_msg){ .type = CC_MSG_PONG, .ping = msg->ping });
		break;
	case CC_MSG_PONG:
		break;
	case CC_MSG_PROGRESS:
		c->ops->on_progress(c->arg, cc_peer_node(p)->name, msg->progress.text);
		break;
	case CC_MSG_FAILED:
		if (c->phase < CC_CTL_RUN)
			cc_peer_failed(p, msg->failed.text);
		break;
	default:
		if (c->phase >= CC_CTL_RUN)
			run_message(p, msg);
		else
			start_message(p, msg);
	}
}

/* --- connections ------------------------------------------------------------------------------ */

static void peer_gone(struct peer *p, const char *why, bool refused)
{
	struct cc_ctl *c = p->ctl;
	bool joining = p->state == PEER_JOINING;
	char text[256];

	cc_conn_free(p->conn);
	p->conn = NULL;
	p->state = PEER_GONE;
	if (c->phase == CC_CTL_OVER)
		return;
	if (c->phase == CC_CTL_STOP) {
		stop_check(c);
	} else if (c->phase == CC_CTL_RUN && p->left) {
		c->ops->on_progress(c->arg, cc_peer_node(p)->name, "is gone; the VM had left it");
	} else if (c->phase == CC_CTL_RUN) {
		snprintf(text, sizeof(text), "the agent of node %s is gone: %s",
			 cc_peer_node(p)->name, why);
		verdict_report(c, p->self,
			       &(struct cc_ended){ CC_END_PEER_LOST, p->self, text, "" });
	} else if (joining) {
		snprintf(text, sizeof(text),
			 refused ? "not our agent, or another pool key (%s)" : "%s", why);
		cc_peer_failed(p, text);
		join_check(c);
	} else {
		cc_peer_failed(p, why);
		if (c->phase == CC_CTL_JOIN)
			join_check(c);
		else if (c->phase == CC_CTL_ASK)
			ask_check(c);
	}
}

static void on_open(void *arg)
{
	struct peer *p = arg;

	cc_peer_send(p, &(struct cc_msg){ .type = CC_MSG_HELLO, .hello = { CC_VERSION, "" } });
}

static void on_close(void *arg, const char *why, bool garbage)
{
	peer_gone(arg, why, garbage);
}

static const struct cc_conn_ops conn_ops = { .on_open = on_open,
					     .on_message = on_message,
					     .on_close = on_close };

static int peer_connect(struct peer *p, const char **why)
{
	const struct cc_node *node = cc_peer_node(p);
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	int fd, one = 1, err;
	char port[8];

	snprintf(port, sizeof(port), "%u", node->port);
	err = getaddrinfo(node->address, port, &hints, &found);
	if (err) {
		*why = gai_strerror(err);
		return -EHOSTUNREACH;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) && errno != EINPROGRESS)) {
		err = -errno;
		freeaddrinfo(found);
		if (fd >= 0)
			close(fd);
		*why = strerror(-err);
		return err;
	}
	freeaddrinfo(found);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	err = cc_conn_make(p->ctl->loop, fd, CC_CONN_TLS_CLIENT, p->ctl->tls, &conn_ops, p,
			   &p->conn);
	if (err)
		*why = strerror(-err);
	return err;
}

int cc_ctl_open(struct cc_loop *loop, const struct cc_topology *t, const struct cc_vm *vm,
		enum cc_ctl_mode mode, struct cc_tls *tls, const struct cc_ctl_ops *ops, void *arg,
		struct cc_ctl **out)
{
	struct cc_ctl *c = calloc(1, sizeof(*c));
	const char *why = "";

	if (!c)
		return -ENOMEM;
	*c = (struct cc_ctl){
		.loop = loop, .t = t, .vm = vm, .mode = mode, .tls = tls, .ops = ops, .arg = arg
	};
	if (getrandom(&c->vm_id, sizeof(c->vm_id), 0) != sizeof(c->vm_id) ||
	    getrandom(c->vm_key, CC_KEY_BYTES, 0) != CC_KEY_BYTES ||
	    !getcwd(c->cwd, sizeof(c->cwd))) {
		free(c);
		return -EIO;
	}
	c->result = CC_CTL_NOT_JOINED;
	c->engine = vm->engine;
	c->phase_end_ns = clock_now_ns() + JOIN_NS;
	c->peers = vm->shares;
	for (unsigned i = 0; i < c->peers; i++) {
		struct peer *p = &c->peer[i];

		p->ctl = c;
		p->self = (node_id)i;
		cc_member_init(&p->member, t->dead_after_ms * NS_PER_MS, clock_now_ns());
		if (peer_connect(p, &why)) {
			p->state = PEER_GONE;
			cc_peer_failed(p, why);
		}
	}
	join_check(c);
	*out = c;
	return 0;
}

void cc_ctl_place_trace(struct cc_ctl *c, const char *path)
{
	c->place_trace = path;
}

void cc_ctl_chaos(struct cc_ctl *c, uint64_t seed)
{
	c->chaos = seed;
}

void cc_ctl_close(struct cc_ctl *c)
{
	if (!c)
		return;
	over(c);
	for (unsigned i = 0; i < c->peers; i++)
		if (c->peer[i].has_host)
			cc_host_clear(&c->peer[i].host);
	free(c);
}

/* --- time ------------------------------------------------------------------------------------- */

static void peer_tick(struct peer *p, uint64_t now_ns)
{
	struct cc_ctl *c = p->ctl;
	unsigned effects;
	char text[64];

	if (!p->conn || p->state == PEER_JOINING)
		return; /* JOIN_NS watches those */
	effects = cc_member_step(&p->member, p->paused ? CC_MEMBER_DEAF : CC_MEMBER_TICK, now_ns);
	if (effects & CC_MEMBER_PING)
		cc_peer_send(p, &(struct cc_msg){ .type = CC_MSG_PING, .ping = { ++p->ping_seq } });
	if (effects & CC_MEMBER_SILENT)
		c->ops->on_progress(c->arg, cc_peer_node(p)->name, "is silent; waiting");
	if (effects & CC_MEMBER_LOST) {
		snprintf(text, sizeof(text), "silent for %u ms", c->t->dead_after_ms);
		peer_gone(p, text, false);
	}
}

static void phase_timeout(struct cc_ctl *c)
{
	static const char *const waits_for[] = {
		[CC_CTL_JOIN] = "no answer in time",
		[CC_CTL_ASK] = "its agent does not say in time what the host can do",
		[CC_CTL_PREPARE] = "the slice is not prepared in time",
		[CC_CTL_CONNECT] = "the slice does not reach its peers in time"
	};
	static const enum peer_state state_after[] = { [CC_CTL_JOIN] = PEER_JOINED,
						       [CC_CTL_ASK] = PEER_TOLD,
						       [CC_CTL_PREPARE] = PEER_PREPARED,
						       [CC_CTL_CONNECT] = PEER_READY };
	enum cc_ctl_phase phase = c->phase;

	if (phase == CC_CTL_STOP) {
		over(c);
		return;
	}
	for (unsigned i = 0; i < c->peers && c->phase == phase; i++)
		if (c->peer[i].state < state_after[phase])
			peer_gone(&c->peer[i], waits_for[phase], false);
}

void cc_ctl_tick(struct cc_ctl *c)
{
	uint64_t now = clock_now_ns();

	for (unsigned i = 0; i < c->peers && c->phase != CC_CTL_OVER; i++)
		peer_tick(&c->peer[i], now);
	if (c->phase == CC_CTL_RUN) {
		cc_verdict_tick(&c->verdict, now);
		if (c->verdict.settled)
			stop_begin(c);
	} else if (c->phase != CC_CTL_OVER && now > c->phase_end_ns) {
		phase_timeout(c);
	}
}

/* --- console and what is known ---------------------------------------------------------------- */

static struct peer *console_peer(const struct cc_ctl *c)
{
	return (struct peer *)&c->peer[cc_spec_node(c->vm, c->vm->console_node)];
}

bool cc_ctl_order(struct cc_ctl *c, const struct cc_order *o)
{
	struct peer *p = &c->peer[o->node < c->peers ? o->node : 0];

	/* One at a time; node 0 refuses others. */
	if ((o->kind == CC_ORDER_DRAIN || o->kind == CC_ORDER_JOIN) && !o->dry_run && !p->order) {
		p->order = o->id;
		p->leaves = o->kind == CC_ORDER_DRAIN;
	}
	if (c->phase == CC_CTL_RUN)
		cc_peer_send(&c->peer[0], &(struct cc_msg){ .type = CC_MSG_ORDER, .order = *o });
	return c->phase == CC_CTL_RUN;
}

void cc_ctl_console(struct cc_ctl *c, const uint8_t *data, size_t len)
{
	while (c->phase == CC_CTL_RUN && len) {
		size_t part = len > CC_CONSOLE_MAX ? CC_CONSOLE_MAX : len;

		cc_peer_send(console_peer(c),
			     &(struct cc_msg){ .type = CC_MSG_CONSOLE, .console = { data, part } });
		data += part;
		len -= part;
	}
}

bool cc_ctl_console_busy(const struct cc_ctl *c)
{
	const struct peer *p = console_peer(c);

	return c->phase != CC_CTL_RUN || (p->conn && cc_conn_busy(p->conn));
}

void cc_ctl_console_pause(struct cc_ctl *c, bool pause)
{
	struct peer *p = console_peer(c);

	p->paused = pause;
	if (p->conn)
		cc_conn_pause(p->conn, pause);
}

enum cc_ctl_phase cc_ctl_phase(const struct cc_ctl *c)
{
	return c->phase;
}

enum cc_ctl_result cc_ctl_result(const struct cc_ctl *c)
{
	return c->result;
}

const struct cc_verdict *cc_ctl_verdict(const struct cc_ctl *c)
{
	return &c->verdict;
}

const struct cc_stats *cc_ctl_stats(const struct cc_ctl *c, unsigned i)
{
	return c->peer[i].has_stats ? &c->peer[i].stats : NULL;
}

const char *cc_ctl_refusal(const struct cc_ctl *c)
{
	return c->refusal;
}

const struct cc_host *cc_ctl_host(const struct cc_ctl *c, unsigned i)
{
	return c->peer[i].has_host ? &c->peer[i].host : NULL;
}
