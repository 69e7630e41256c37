/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/unumd_main.c - the agent program: one per node.
 *
 * What      Parses options, opens the socket, runs the agent until SIGTERM or SIGINT.
 * Threads   One: its slices die with it (PR_SET_PDEATHSIG follows the thread that made them).
 */
#include "base/log.h"
#include "cluster-config/agent.h"
#include "cluster-config/local.h"
#include "cluster-config/run.h"
#include "cluster-config/version.h"

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const char usage[] =
	"usage: unumd --listen ADDRESS:PORT --key FILE [options]\n"
	"\n"
	"The agent of one node: lends its CPUs and memory to the VMs that unum starts.\n"
	"\n"
	"  --listen ADDRESS:PORT  where unum finds this agent ([ADDRESS]:PORT for IPv6)\n"
	"  --key FILE             the pool key, from `unum keygen`, mode 0600\n"
	"  --name NAME            name of this node; a topology that calls it otherwise is "
	"refused\n"
	"  --cpus N               CPUs lent to all VMs together (default: no bound)\n"
	"  --memory SIZE          memory lent to all VMs together, like 8GiB (default: no bound)\n"
	"  --slice PROGRAM        the slice program (default: unum-slice beside unumd)\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 after SIGTERM or SIGINT, 1 when it cannot go on, 2 for wrong usage or a "
	"port in use.\n"
	"UNUM_LOG=error|warn|info|debug says how much it logs to stderr.\n";

enum { OPT_LISTEN = 1, OPT_KEY, OPT_NAME, OPT_CPUS, OPT_MEMORY, OPT_SLICE, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "slice", required_argument, NULL, OPT_SLICE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

struct unumd {
	struct cc_agent_config cfg;
	const char *listen, *key;
	char slice[PATH_MAX];
	bool stop; /* a signal came */
	struct cc_watch signals;
};

/* "fd:N": inherited from unum, which opened it. */
static int fd_parse(const char *text)
{
	char *end;
	long fd;

	if (strncmp(text, "fd:", 3))
		return -1;
	fd = strtol(text + 3, &end, 10);
	return *end || end == text + 3 || fd < 3 || fd > INT_MAX ? -1 : (int)fd;
}

static bool count_parse(const char *text, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || n > 4096)
		return false;
	*out = (unsigned)n;
	return true;
}

/* -1: go on; else the exit status. */
static int options_parse(struct unumd *d, int argc, char **argv)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		bool fine = true;

		switch (opt) {
		case OPT_LISTEN:
			d->listen = optarg;
			break;
		case OPT_KEY:
			d->key = optarg;
			break;
		case OPT_NAME:
			d->cfg.name = optarg;
			fine = strlen(optarg) <= CC_NAME_MAX;
			break;
		case OPT_CPUS:
			fine = count_parse(optarg, &d->cfg.cpus);
			break;
		case OPT_MEMORY:
			fine = cc_size_parse(optarg, &d->cfg.memory);
			break;
		case OPT_SLICE:
			d->cfg.slice_path = optarg;
			break;
		case OPT_HELP:
			fputs(usage, stdout);
			return CC_EXIT_OK;
		case OPT_VERSION:
			puts("unumd " CC_VERSION_TEXT);
			return CC_EXIT_OK;
		default:
			return CC_EXIT_USAGE; /* getopt has said why */
		}
		if (!fine) {
			fprintf(stderr, "unumd: '%s' is not a value for this option\n", optarg);
			return CC_EXIT_USAGE;
		}
	}
	if (optind < argc || !d->listen || !d->key) {
		fputs(usage, stderr);
		return CC_EXIT_USAGE;
	}
	return -1;
}

static int listen_open(struct unumd *d)
{
	int fd = fd_parse(d->listen);
	const char *colon = strrchr(d->listen, ':');
	char address[256];
	unsigned port;
	int err;

	if (fd >= 0) {
		d->cfg.listen_fd = fd;
		return 0;
	}
	if (!colon || (size_t)(colon - d->listen) >= sizeof(address)) {
		fprintf(stderr, "unumd: --listen wants ADDRESS:PORT, not '%s'\n", d->listen);
		return -EINVAL;
	}
	port = (unsigned)strtoul(colon + 1, NULL, 10);
	snprintf(address, sizeof(address), "%.*s", (int)(colon - d->listen), d->listen);
	if (address[0] == '[' && strchr(address, ']')) {
		memmove(address, address + 1, strlen(address));
		*strchr(address, ']') = 0;
	}
	if (!port || port > 65535 || !*address) {
		fprintf(stderr, "unumd: --listen wants ADDRESS:PORT, not '%s'\n", d->listen);
		return -EINVAL;
	}
	err = cc_listen(address, (uint16_t)port, &d->cfg.listen_fd);
	if (err)
		fprintf(stderr, "unumd: %s: %s\n", d->listen, strerror(-err));
	return err;
}

static int key_open(struct unumd *d)
{
	int fd = fd_parse(d->key), err;

	if (fd >= 0) {
		err = cc_key_read(fd, &d->cfg.key);
		close(fd);
	} else {
		err = cc_key_load(d->key, &d->cfg.key);
	}
	if (err)
		fprintf(stderr, "unumd: key %s: %s\n", d->key,
			err == -EACCES   ? "others may read it too, or we may not; it must be ours "
					   "with mode 0600"
			: err == -EINVAL ? "not a pool key; `unum keygen` makes one"
					 : strerror(-err));
	return err;
}

static void on_signal(void *arg, uint32_t events)
{
	(void)events;
	((struct unumd *)arg)->stop = true;
}

static int signals_open(struct unumd *d, struct cc_loop *loop)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signals = (struct cc_watch){ .fd = signalfd(-1, &set, SFD_CLOEXEC),
					.on_event = on_signal,
					.arg = d };
	return d->signals.fd < 0 ? -errno : cc_loop_add(loop, &d->signals, EPOLLIN);
}

static int serve(struct unumd *d)
{
	struct cc_agent *agent;
	struct cc_loop loop;
	int err = cc_loop_open(&loop);

	if (!err)
		err = signals_open(d, &loop);
	if (!err)
		err = cc_agent_open(&loop, &d->cfg, &agent);
	if (err) {
		fprintf(stderr, "unumd: %s\n", strerror(-err));
		return CC_EXIT_INTERNAL;
	}
	log_info("agent: listens on %s", d->listen);
	while (!d->stop) {
		cc_loop_once(&loop, CC_AGENT_TICK_MS);
		cc_agent_tick(agent);
	}
	cc_agent_close(agent);
	cc_loop_close(&loop);
	return CC_EXIT_OK;
}

int main(int argc, char **argv)
{
	struct unumd d = { .cfg = { .name = "" } };
	char ident[80];
	int status = options_parse(&d, argc, argv);

	if (status >= 0)
		return status;
	snprintf(ident, sizeof(ident), "agent%s%s", *d.cfg.name ? " " : "", d.cfg.name);
	log_set_ident(ident);
	if (!d.cfg.slice_path) {
		if (cc_program_path("unum-slice", d.slice, sizeof(d.slice)))
			return CC_EXIT_INTERNAL;
		d.cfg.slice_path = d.slice;
	}
	if (key_open(&d) || listen_open(&d))
		return CC_EXIT_USAGE;
	return serve(&d);
}
