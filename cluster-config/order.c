/* SPDX-License-Identifier: Apache-2.0 */
/*
 * order.c - orders to a running VM; order.h.
 *
 * I/O       The VM's door, stdout, stderr.
 */
#include "cluster-config/order.h"

#include "base/clock.h"
#include "base/rng.h"
#include "cluster-config/conn.h"
#include "cluster-config/door.h"
#include "cluster-config/run.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define WAIT_MS 1
#define HELLO_NS (5 * NS_PER_S)
#define ANSWER_NS (20 * NS_PER_S) /* of a churn's last moves */
#define PAUSES 65536u

struct caller {
	struct cc_loop loop;
	struct cc_conn *conn;
	bool greeted, closed;
	unsigned vcpus, nodes;
	char node[NODES_MAX][CC_NAME_MAX + 1];
	void (*on_answer)(struct caller *c, const struct cc_answer *a);
	void *arg;
};

/* "4 n0 n1" */
static void size_take(struct caller *c, const char *text)
{
	char *copy = strdup(text), *save = NULL;
	char *word = copy ? strtok_r(copy, " ", &save) : NULL;

	c->vcpus = word ? (unsigned)strtoul(word, NULL, 10) : 0;
	while ((word = word ? strtok_r(NULL, " ", &save) : NULL) && c->nodes < NODES_MAX)
		snprintf(c->node[c->nodes++], sizeof(c->node[0]), "%s", word);
	free(copy);
	c->greeted = true;
}

static void on_message(void *arg, const struct cc_msg *msg)
{
	struct caller *c = arg;

	if (msg->type == CC_MSG_HELLO)
		size_take(c, msg->hello.name);
	else if (msg->type == CC_MSG_ANSWER)
		c->on_answer(c, &msg->answer);
}

static void on_close(void *arg, const char *why, bool garbage)
{
	struct caller *c = arg;

	(void)why;
	(void)garbage;
	cc_conn_free(c->conn);
	c->conn = NULL;
	c->closed = true;
}

/* Exit status, CC_EXIT_OK: it is connected and has said how large it is. */
static int caller_open(struct caller *c, const char *vm)
{
	static const struct cc_conn_ops ops = { .on_message = on_message, .on_close = on_close };
	uint64_t end = clock_now_ns() + HELLO_NS;
	int fd, err = cc_door_dial(vm, &fd);

	if (err) {
		fprintf(stderr, "unum: no VM '%s' runs here (or it is another user's): %s\n", vm,
			strerror(-err));
		return CC_EXIT_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	err = cc_loop_open(&c->loop);
	if (!err)
		err = cc_conn_make(&c->loop, fd, CC_CONN_PLAIN, NULL, &ops, c, &c->conn);
	if (err) {
		fprintf(stderr, "unum: %s\n", strerror(-err));
		return CC_EXIT_INTERNAL;
	}
	while (!c->greeted && !c->closed && clock_now_ns() < end)
		cc_loop_once(&c->loop, 50);
	if (c->greeted)
		return CC_EXIT_OK;
	fprintf(stderr, "unum: VM '%s' does not answer\n", vm);
	return CC_EXIT_INTERNAL;
}

static void caller_close(struct caller *c)
{
	cc_conn_free(c->conn);
	cc_loop_close(&c->loop);
}

/* --- one order ------------------------------------------------------------------------------------ */

struct single {
	bool over, ok;
};

static void single_answer(struct caller *c, const struct cc_answer *a)
{
	struct single *s = c->arg;

	fprintf(a->last && !a->ok ? stderr : stdout, "%s%s\n", a->last && !a->ok ? "unum: " : "",
		a->text);
	fflush(stdout);
	s->over = a->last;
	s->ok = a->ok;
}

int cc_order_give(const char *vm, const struct cc_order *o)
{
	struct single s = { 0 };
	struct caller c = { .on_answer = single_answer, .arg = &s };
	int status = caller_open(&c, vm);

	if (status != CC_EXIT_OK)
		return status;
	cc_conn_send(c.conn, &(struct cc_msg){ .type = CC_MSG_ORDER, .order = *o });
	while (!s.over && !c.closed)
		cc_loop_once(&c.loop, 50);
	if (!s.over)
		fprintf(stderr, "unum: VM '%s' ended meanwhile\n", vm);
	caller_close(&c);
	return s.over && s.ok ? CC_EXIT_OK : CC_EXIT_INTERNAL;
}

/* --- many moves ----------------------------------------------------------------------------------- */

struct churn {
	const struct cc_churn *o;
	uint64_t given, moved, refused;
	bool busy[VCPUS_MAX];
	node_id where[VCPUS_MAX];
	uint32_t pause[PAUSES];
};

/* A refusal says why, in words of a move that was not made; all of them leave the vCPU where it was. */
static void churn_answer(struct caller *c, const struct cc_answer *a)
{
	struct churn *k = c->arg;

	if (!a->last || a->vcpu >= VCPUS_MAX)
		return;
	k->busy[a->vcpu] = false;
	if (!a->ok) {
		k->refused++;
		k->where[a->vcpu] = NODE_NONE;
		return;
	}
	k->where[a->vcpu] = a->to;
	k->pause[k->moved++ % PAUSES] = a->pause_ns;
}

static unsigned under_way(const struct churn *k)
{
	return (unsigned)(k->given - k->moved - k->refused);
}

/* One more, of a vCPU that stands still; false: all move. */
static bool churn_give(struct caller *c, struct churn *k, struct rng *rng)
{
	unsigned first = (unsigned)rng_below(rng, c->vcpus);

	for (unsigned i = 0; i < c->vcpus; i++) {
		unsigned v = (first + i) % c->vcpus;
		unsigned to = (unsigned)rng_below(rng, c->nodes);
		struct cc_order o = { .id = ++k->given, .kind = CC_ORDER_MOVE, .vcpu = v };

		if (k->busy[v]) {
			k->given--;
			continue;
		}
		if (to == k->where[v])
			to = (to + 1) % c->nodes;
		o.name = c->node[to];
		k->busy[v] = true;
		cc_conn_send(c->conn, &(struct cc_msg){ .type = CC_MSG_ORDER, .order = o });
		return true;
	}
	return false;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static bool signalled(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info);
}

static void churn_loop(struct caller *c, struct churn *k, int signals)
{
	uint64_t start = clock_now_ns(), end = 0;
	struct rng rng = { k->o->seed };
	bool stop = false;

	memset(k->where, NODE_NONE, sizeof(k->where));
	while (!c->closed && !(stop && (!under_way(k) || clock_now_ns() > end))) {
		uint64_t due = (uint64_t)((double)(clock_now_ns() - start) / 1e9 * k->o->rate);

		if (!stop && k->o->count && due > k->o->count)
			due = k->o->count;
		while (!stop && k->given < due && churn_give(c, k, &rng))
			;
		if (!stop && (signalled(signals) || (k->o->count && k->given >= k->o->count))) {
			stop = true;
			end = clock_now_ns() + ANSWER_NS;
		}
		cc_loop_once(&c->loop, WAIT_MS);
	}
}

int cc_order_churn(const struct cc_churn *o)
{
	struct churn *k = calloc(1, sizeof(*k));
	struct caller c = { .on_answer = churn_answer, .arg = k };
	size_t n;
	sigset_t set;
	int status, signals;

	if (!k)
		return CC_EXIT_INTERNAL;
	k->o = o;
	status = caller_open(&c, o->vm);
	if (status == CC_EXIT_OK && c.nodes < 2) {
		fprintf(stderr, "unum: VM '%s' has one node: nothing can move\n", o->vm);
		status = CC_EXIT_USAGE;
	}
	if (status != CC_EXIT_OK) {
		free(k);
		return status;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	churn_loop(&c, k, signals);
	close(signals);
	n = k->moved < PAUSES ? (size_t)k->moved : PAUSES;
	qsort(k->pause, n, sizeof(k->pause[0]), by_value);
	printf("{\"moves\":%llu,\"refused\":%llu,\"failed\":%u,\"pause_p50_us\":%.1f,\"pause_p99_"
	       "us\":%.1f}\n",
	       (unsigned long long)k->moved, (unsigned long long)k->refused, under_way(k),
	       n ? k->pause[n / 2] / 1e3 : 0, n ? k->pause[n * 99 / 100] / 1e3 : 0);
	status = under_way(k) ? CC_EXIT_INTERNAL : CC_EXIT_OK;
	caller_close(&c);
	free(k);
	return status;
}

/* --- unum migrate ---------------------------------------------------------------------------------- */

const char cc_migrate_usage[] =
	"usage: unum migrate VM --vcpu K --to NODE\n"
	"       unum migrate VM --random RATE [--count N] [--seed S]\n"
	"\n"
	"Moves vCPU K of the running VM to another of its nodes; the guest goes on there and does "
	"not notice.\n"
	"The VM is one that `unum run` of the same user, on this host, has started.\n"
	"\n"
	"  --vcpu K       which, from 0\n"
	"  --to NODE      a node of the VM, by name\n"
	"  --random RATE  moves vCPUs at random, RATE moves a second, until Ctrl-C or the end of "
	"the VM\n"
	"  --count N      ends after N orders\n"
	"  --seed S       another sequence\n"
	"\n"
	"Exit status: 0 moved, 1 refused (the vCPU goes on where it was), 2 wrong usage or no such "
	"VM.\n";

enum { OPT_VCPU = 1, OPT_TO, OPT_RANDOM, OPT_COUNT, OPT_SEED, OPT_HELP };

static bool number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *out <= max;
}

int cc_migrate_main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "vcpu", required_argument, NULL, OPT_VCPU },
		{ "to", required_argument, NULL, OPT_TO },
		{ "random", required_argument, NULL, OPT_RANDOM },
		{ "count", required_argument, NULL, OPT_COUNT },
		{ "seed", required_argument, NULL, OPT_SEED },
		{ "help", no_argument, NULL, OPT_HELP },
		{ 0 },
	};
	struct cc_order o = { .id = 1, .kind = CC_ORDER_MOVE };
	struct cc_churn churn = { .seed = 1 };
	uint64_t n = 0;
	bool fine = true, vcpu = false;
	int opt;

	while (fine && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		char *end = NULL;

		switch (opt) {
		case OPT_VCPU:
			fine = vcpu = number(optarg, VCPUS_MAX - 1, &n);
			o.vcpu = (unsigned)n;
			break;
		case OPT_TO:
			o.name = optarg;
			break;
		case OPT_RANDOM:
			churn.rate = strtod(optarg, &end);
			fine = !*end && churn.rate > 0 && churn.rate <= 1e6;
			break;
		case OPT_COUNT:
			fine = number(optarg, 1u << 30, &churn.count);
			break;
		case OPT_SEED:
			fine = number(optarg, UINT64_MAX, &churn.seed);
			break;
		case OPT_HELP:
			fputs(cc_migrate_usage, stdout);
			return CC_EXIT_OK;
		default:
			fputs(cc_migrate_usage, stderr);
			return CC_EXIT_USAGE;
		}
	}
	if (!fine)
		fprintf(stderr, "unum: '%s' is not a value for this option\n", optarg);
	if (!fine || argc - optind != 1 || (churn.rate > 0) == (vcpu && o.name) ||
	    (churn.rate > 0 && (vcpu || o.name))) {
		fputs(cc_migrate_usage, stderr);
		return CC_EXIT_USAGE;
	}
	churn.vm = argv[optind];
	return churn.rate > 0 ? cc_order_churn(&churn) : cc_order_give(argv[optind], &o);
}

/* --- unum drain, unum join -------------------------------------------------------------------------- */

const char cc_drain_usage[] =
	"usage: unum drain VM NODE [--dry-run]\n"
	"\n"
	"Empties a node of the running VM, so that it may go: its vCPUs move to the other nodes, and its guest memory\n"
	"falls to those that lend more than the VMs of the topology have shares in.  When that is said to be done, the\n"
	"node may die and the VM does not notice.  The boot node, and one with devices of the VM, cannot leave.\n"
	"\n"
	"  --dry-run  only says what would happen, with numbers\n"
	"\n"
	"Exit status: 0 done, 1 refused (the VM goes on as before), 2 wrong usage or no such VM.\n";

const char cc_join_usage[] =
	"usage: unum join VM NODE [--dry-run]\n"
	"\n"
	"A node that was drained, and whose slice lives, gets its share of guest memory back and takes vCPUs again.\n"
	"\n"
	"Exit status: 0 done, 1 refused, 2 wrong usage or no such VM.\n";

static int node_main(enum cc_order_kind kind, const char *usage, int argc, char **argv)
{
	static const struct option options[] = {
		{ "dry-run", no_argument, NULL, 1 },
		{ "help", no_argument, NULL, 2 },
		{ 0 },
	};
	struct cc_order o = { .id = 1, .kind = kind };
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 1) {
			fputs(usage, opt == 2 ? stdout : stderr);
			return opt == 2 ? CC_EXIT_OK : CC_EXIT_USAGE;
		}
		o.dry_run = true;
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return CC_EXIT_USAGE;
	}
	o.name = argv[optind + 1];
	return cc_order_give(argv[optind], &o);
}

int cc_drain_main(int argc, char **argv)
{
	return node_main(CC_ORDER_DRAIN, cc_drain_usage, argc, argv);
}

int cc_join_main(int argc, char **argv)
{
	return node_main(CC_ORDER_JOIN, cc_join_usage, argc, argv);
}
