/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress_options.c - the command line of unum-stress.
 *
 * I/O       stdout, stderr; ends the program for what needs no run.
 */
#include "tests/stress/stress.h"

#include "base/clock.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char usage[] =
	"usage: unum-stress [options]\n"
	"  --nodes N            processes, 1 to 16 (4)\n"
	"  --threads K          threads in each, 1 to 8 (2)\n"
	"  --transport T        fabric backend (tcp); --transports lists them\n"
	"  --seconds S          how long (10)\n"
	"  --seed N             what the threads draw from (1)\n"
	"  --chaos SEED         messages are held back at random, so that they overtake each other between peers\n"
	"  --region SIZE        memory under test, dealt to all nodes in turn (2MiB)\n"
	"  --cache SIZE         what a node may hold of pages homed elsewhere (no bound)\n"
	"  --hot PAGES          pages of the hot set, which moves ten times a second (6)\n"
	"  --faults inline|dispatch   who resolves a fault: the thread itself, or others (inline)\n"
	"  --drain N@S          after S seconds node N leaves the memory, and is then killed\n"
	"  --join S             it is not killed, and comes back after S seconds\n"
	"  --deadline S         a fault that takes longer is a violation (20)\n"
	"  --bound one|all      instead: one thread, or one on each node, writes and reads a "
	"region of NODES\n"
	"                       shares; what memory each process takes is measured\n"
	"  --share SIZE         with --bound: what each node brings (16MiB)\n"
	"  --only K --shared FILE[+OFFSET] --listen ADDRESS   run node K only; the others run on other hosts, and\n"
	"                       FILE is memory, zeroed, that all of them see; node 0 tells the time and reports\n"
	"  --device D           which of several the transport is to use\n"
	"  --transports         names of the backends; --can: exit 0 when this host can run it\n"
	"Sizes: 4096, 64KiB, 16MiB.  The last line of output is JSON.  Exit: 0 no violation, 1 "
	"violations, 2 usage.\n";

enum {
	O_NODES = 1,
	O_THREADS,
	O_TRANSPORT,
	O_SECONDS,
	O_SEED,
	O_CHAOS,
	O_REGION,
	O_CACHE,
	O_HOT,
	O_DRAIN,
	O_JOIN,
	O_FAULTS,
	O_DEADLINE,
	O_BOUND,
	O_SHARE,
	O_ONLY,
	O_SHARED,
	O_LISTEN,
	O_DEVICE,
	O_TRANSPORTS,
	O_CAN,
	O_HELP
};

static bool number_parse(const char *text, unsigned min, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (end == text || *end || *text == '-' || v < min || v > max)
		return false;
	*out = (unsigned)v;
	return true;
}

static bool seconds_parse(const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v > 0 && v < 1e6))
		return false;
	*out = v;
	return true;
}

/* "2@1.5" */
static bool drain_parse(const char *text, struct options *o)
{
	char node[8];
	const char *at = strchr(text, '@');

	if (!at || (size_t)(at - text) >= sizeof(node))
		return false;
	snprintf(node, sizeof(node), "%.*s", (int)(at - text), text);
	return number_parse(node, 1, NODES_LIMIT - 1, &o->drain_node) && seconds_parse(at + 1, &o->drain_s);
}

static bool seed_parse(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 0);
	return end != text && !*end && *text != '-';
}

static bool name_known(const char *name)
{
	for (const char *const *n = ic_backend_names(); *n; n++)
		if (!strcmp(*n, name))
			return true;
	return false;
}

/* 0 when this host can run the userfaultfd mapping. */
static int can(void)
{
	struct nodes_meet *meet = shared_alloc(sizeof(*meet));
	struct dsm_range range = { 0, 4, 0 };
	struct nodes_config cfg = { .nodes = 1, .ranges = &range, .ranges_count = 1 };
	struct fault_seat seat = { .patience_ns = NS_PER_S };
	sigjmp_buf out;
	struct node n;

	seat.out = &out;
	if (sigsetjmp(out, 1) || node_open(&n, &cfg, 0, meet))
		return 2;
	node_thread(&seat);
	*(volatile uint8_t *)n.view = 1;
	node_close(&n);
	return 0;
}

static bool option_take(struct options *o, int opt, const char *arg)
{
	switch (opt) {
	case O_NODES:
		return number_parse(arg, 1, NODES_LIMIT, &o->nodes);
	case O_THREADS:
		return number_parse(arg, 1, THREADS_LIMIT, &o->threads);
	case O_TRANSPORT:
		o->backend = arg;
		return name_known(arg);
	case O_SECONDS:
		return seconds_parse(arg, &o->seconds);
	case O_SEED:
		return seed_parse(arg, &o->seed);
	case O_CHAOS:
		return seed_parse(arg, &o->chaos);
	case O_REGION:
		return size_parse(arg, &o->region_bytes) && o->region_bytes >= 64 * PAGE_SIZE &&
		       o->region_bytes >> PAGE_SHIFT <= PAGES_LIMIT;
	case O_CACHE:
		return size_parse(arg, &o->cache_bytes);
	case O_SHARE:
		return size_parse(arg, &o->share_bytes) && o->share_bytes >= PAGE_SIZE;
	case O_ONLY:
		o->apart = true;
		return number_parse(arg, 0, NODES_LIMIT - 1, &o->only);
	case O_SHARED:
		o->shared = arg;
		return true;
	case O_LISTEN:
		o->address = arg;
		return true;
	case O_DEVICE:
		o->device = arg;
		return true;
	case O_HOT:
		return number_parse(arg, 1, PAGES_LIMIT, &o->hot_pages);
	case O_DRAIN:
		return drain_parse(arg, o);
	case O_JOIN:
		return seconds_parse(arg, &o->join_s);
	case O_FAULTS:
		o->faults = strcmp(arg, "dispatch") ? DSM_FAULTS_INLINE : DSM_FAULTS_DISPATCH;
		return !strcmp(arg, "inline") || !strcmp(arg, "dispatch");
	case O_DEADLINE:
		return number_parse(arg, 1, 3600, &o->deadline_s);
	case O_BOUND:
		o->bound = arg;
		return !strcmp(arg, "one") || !strcmp(arg, "all");
	}
	return false;
}

void options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "nodes", 1, NULL, O_NODES },
		{ "threads", 1, NULL, O_THREADS },
		{ "transport", 1, NULL, O_TRANSPORT },
		{ "seconds", 1, NULL, O_SECONDS },
		{ "seed", 1, NULL, O_SEED },
		{ "chaos", 1, NULL, O_CHAOS },
		{ "region", 1, NULL, O_REGION },
		{ "cache", 1, NULL, O_CACHE },
		{ "hot", 1, NULL, O_HOT },
		{ "drain", 1, NULL, O_DRAIN },
		{ "join", 1, NULL, O_JOIN },
		{ "faults", 1, NULL, O_FAULTS },
		{ "deadline", 1, NULL, O_DEADLINE },
		{ "bound", 1, NULL, O_BOUND },
		{ "share", 1, NULL, O_SHARE },
		{ "only", 1, NULL, O_ONLY },
		{ "shared", 1, NULL, O_SHARED },
		{ "listen", 1, NULL, O_LISTEN },
		{ "device", 1, NULL, O_DEVICE },
		{ "transports", 0, NULL, O_TRANSPORTS },
		{ "can", 0, NULL, O_CAN },
		{ "help", 0, NULL, O_HELP },
		{ NULL, 0, NULL, 0 },
	};
	int opt, at = 0;

	while ((opt = getopt_long(argc, argv, "h", longs, &at)) != -1) {
		if (opt == O_HELP || opt == 'h') {
			fputs(usage, stdout);
			exit(0);
		} else if (opt == O_TRANSPORTS) {
			transports_print();
			exit(0);
		} else if (opt == O_CAN) {
			exit(can());
		} else if (opt == '?' || !option_take(o, opt, optarg)) {
			if (opt != '?')
				fprintf(stderr, "unum-stress: --%s %s is not possible\n",
					longs[at].name, optarg);
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind < argc || o->nodes * o->threads > USERS_LIMIT) {
		fputs(optind < argc ? usage : "unum-stress: more than 64 threads in all\n", stderr);
		exit(2);
	}
	if (o->apart && (o->bound || !o->shared || !o->address || o->only >= o->nodes)) {
		fputs("unum-stress: --only names one of the nodes, and wants --shared and --listen\n", stderr);
		exit(2);
	}
	if ((o->drain_node || o->join_s > 0) &&
	    (o->apart || o->bound || o->drain_node >= o->nodes || !o->drain_node || o->drain_s >= o->seconds ||
	     (o->join_s > 0 && (o->join_s <= o->drain_s || o->join_s >= o->seconds)))) {
		fputs("unum-stress: --drain names a node other than 0 and a time within the run, --join a later one\n", stderr);
		exit(2);
	}
	if (o->bound && o->share_bytes * o->nodes < 3 * (o->share_bytes + o->cache_bytes)) {
		fputs("unum-stress: with --bound the shares of all nodes are at least 3 times "
		      "share + cache of one\n",
		      stderr);
		exit(2);
	}
	if (o->cache_bytes && o->cache_bytes < 16 * PAGE_SIZE) {
		fputs("unum-stress: --cache is at least 64KiB (dsm/cache.c)\n", stderr);
		exit(2);
	}
}
