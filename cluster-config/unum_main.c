/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/unum_main.c - the command line.
 *
 * What      A const table of commands; each parses its own options and ends in a library call.
 * I/O       stdin, stdout, stderr.
 */
#include "cluster-config/order.h"
#include "cluster-config/run.h"
#include "cluster-config/survey.h"
#include "cluster-config/version.h"
#include "vcpu-migrate/place_trace.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
	const char *name, *summary, *usage;
	int (*run)(const struct command *self, int argc, char **argv); /* exit status */
};

#define EXIT_STATUSES                                                                              \
	"Exit status:\n"                                                                           \
	"  0    the guest switched itself off\n"                                                   \
	"  1    unum or a slice gave up\n"                                                         \
	"  2    bad file or usage, or a node that cannot be reached; nothing was started\n"        \
	"  3    the guest crashed\n"                                                               \
	"  4    a node was lost\n"                                                                 \
	"  5    a slice could not start\n"                                                         \
	"  6    a host would run it wrongly, or cannot run it at all; nothing was started\n"       \
	"  7    with --engine kvm: a host has no /dev/kvm; 8 it may not be opened; 9 it is "       \
	"busy;\n"                                                                                  \
	"       10 it is too old; 11 a right to see page faults is missing; nothing was started\n" \
	"  130  left with Ctrl-] or Ctrl-C\n"

static const char run_usage[] =
	"usage: unum run FILE [--vm NAME] [options]\n"
	"       unum run --local N --vcpus V --memory SIZE --kernel K [--initrd I] [options]\n"
	"\n"
	"Runs a VM of the topology FILE, its console on this terminal; Ctrl-] leaves and ends it.\n"
	"\n"
	"  --vm NAME          which VM of the file (needed when it has several)\n"
	"  --key FILE         the pool key (default: what the file says)\n"
	"  --start-agents     start the nodes' agents too, and end them afterwards: for files "
	"whose\n"
	"                     addresses are all loopback; without a key they get a throw-away one\n"
	"  --stats            at the end, print what each node counted\n"
	"  --stats-json FILE  the same for programs\n"
	"  --quiet            no progress on stderr\n"
	"\n"
	"Without a file:\n"
	"  --local N          N nodes on this host, started and ended by unum itself\n"
	"  --vcpus V          vCPUs in all, split evenly\n"
	"  --memory SIZE      memory in all, split evenly, like 1GiB\n"
	"  --kernel K         a bzImage or an ELF kernel\n"
	"  --initrd I         its initial RAM file system\n"
	"  --cmdline C        kernel command line (default: console=ttyS0)\n"
	"  --disk PATH        a raw file as a disk, on the first node; may be given again\n"
	"  --numa expose|flat whether the guest sees the nodes (default: expose)\n"
	"  --engine auto|bt|kvm\n"
	"  --faults auto|inline|dispatch  how the kvm engine fetches pages\n"
	"  --placement pinned|auto  whether vCPUs move to the pages they wait for\n"
	"  --checksums          every page is checked when it arrives from another node\n"
	"  --fabric BACKEND   auto, tcp, shm, verbs, ofi or ucx: what joins the nodes (default: auto)\n"
	"\n"
	"For both:\n"
	"  --place-trace FILE on the first node's host: what decides where vCPUs run, for `unum place "
	"--replay`\n"
	"  --chaos SEED       for tests: messages between the nodes are held back at random, so that they\n"
	"                     overtake each other between nodes; the guest must not notice\n"
	"  --slice PROGRAM    slice program of agents started here (default: unum-slice beside "
	"unum)\n"
	"\n" EXIT_STATUSES;

enum {
	OPT_VM = 1,
	OPT_KEY,
	OPT_START,
	OPT_STATS,
	OPT_STATS_JSON,
	OPT_QUIET,
	OPT_LOCAL,
	OPT_VCPUS,
	OPT_MEMORY,
	OPT_KERNEL,
	OPT_INITRD,
	OPT_CMDLINE,
	OPT_DISK,
	OPT_NUMA,
	OPT_ENGINE,
	OPT_FAULTS,
	OPT_CHECKSUMS,
	OPT_PLACEMENT,
	OPT_PLACE_TRACE,
	OPT_REPLAY,
	OPT_MOVE_US,
	OPT_PAGE_US,
	OPT_LOST,
	OPT_UNPINNED,
	OPT_ALL,
	OPT_FABRIC,
	OPT_CHAOS,
	OPT_SLICE,
	OPT_HELP,
};

static const struct option run_options[] = {
	{ "vm", required_argument, NULL, OPT_VM },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "start-agents", no_argument, NULL, OPT_START },
	{ "stats", no_argument, NULL, OPT_STATS },
	{ "stats-json", required_argument, NULL, OPT_STATS_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "local", required_argument, NULL, OPT_LOCAL },
	{ "vcpus", required_argument, NULL, OPT_VCPUS },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "initrd", required_argument, NULL, OPT_INITRD },
	{ "cmdline", required_argument, NULL, OPT_CMDLINE },
	{ "disk", required_argument, NULL, OPT_DISK },
	{ "numa", required_argument, NULL, OPT_NUMA },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "faults", required_argument, NULL, OPT_FAULTS },
	{ "checksums", no_argument, NULL, OPT_CHECKSUMS },
	{ "placement", required_argument, NULL, OPT_PLACEMENT },
	{ "place-trace", required_argument, NULL, OPT_PLACE_TRACE },
	{ "fabric", required_argument, NULL, OPT_FABRIC },
	{ "chaos", required_argument, NULL, OPT_CHAOS },
	{ "slice", required_argument, NULL, OPT_SLICE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static const char *const numa_words[] = { "expose", "flat", NULL };
static const char *const engine_words[] = { "auto", "bt", "kvm", NULL };
static const char *const faults_words[] = { "auto", "inline", "dispatch", NULL };
static const char *const placement_words[] = { "pinned", "auto", "rules", NULL }; /* enum cc_placement */

struct run_args {
	struct cc_run_options o;
	struct cc_local local;
	bool is_local, local_only; /* local_only: an option was given that only --local knows */
	const char *file, *vm, *key;
	const char *disk[CC_DEVICES_MAX];
};

static bool count_parse(const char *text, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || n > 1000000)
		return false;
	*out = (unsigned)n;
	return true;
}

static bool word_parse(const char *text, const char *const *words, unsigned *out)
{
	for (unsigned i = 0; words[i]; i++)
		if (!strcmp(words[i], text)) {
			*out = i;
			return true;
		}
	return false;
}

/* Options that describe a VM without a file.  False: not a value for it. */
static bool local_option(struct run_args *a, int opt, const char *value)
{
	unsigned word = 0;
	bool fine = true;

	switch (opt) {
	case OPT_LOCAL:
		a->is_local = true;
		return count_parse(value, &a->local.nodes);
	case OPT_VCPUS:
		fine = count_parse(value, &a->local.vcpus);
		break;
	case OPT_MEMORY:
		fine = cc_size_parse(value, &a->local.memory);
		break;
	case OPT_KERNEL:
		a->local.kernel = value;
		break;
	case OPT_INITRD:
		a->local.initrd = value;
		break;
	case OPT_CMDLINE:
		a->local.cmdline = value;
		break;
	case OPT_DISK:
		fine = a->local.disks_count < CC_DEVICES_MAX;
		if (fine)
			a->disk[a->local.disks_count++] = value;
		break;
	case OPT_NUMA:
		fine = word_parse(value, numa_words, &word);
		a->local.numa = (enum cc_numa)word;
		break;
	case OPT_ENGINE:
		fine = word_parse(value, engine_words, &word);
		a->local.engine = (enum cc_engine)word;
		break;
	case OPT_FAULTS:
		fine = word_parse(value, faults_words, &word);
		a->local.faults = (enum cc_faults)word;
		break;
	case OPT_CHECKSUMS:
		a->local.checksums = true;
		break;
	case OPT_PLACEMENT:
		fine = word_parse(value, placement_words, &word) && word != CC_PLACEMENT_RULES;
		a->local.placement = (enum cc_placement)word;
		break;
	default:
		a->local.fabric = value;
	}
	a->local_only = true;
	return fine;
}

static bool seed_parse(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 0);
	return *text >= '0' && *text <= '9' && !*end && *out;
}

/* -1: go on; else the exit status. */
static int run_parse(const struct command *self, struct run_args *a, int argc, char **argv)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "", run_options, NULL)) != -1) {
		switch (opt) {
		case OPT_VM:
			a->vm = optarg;
			break;
		case OPT_KEY:
			a->key = optarg;
			break;
		case OPT_START:
			a->o.start_agents = true;
			break;
		case OPT_STATS:
			a->o.stats = true;
			break;
		case OPT_STATS_JSON:
			a->o.stats_json = optarg;
			break;
		case OPT_QUIET:
			a->o.quiet = true;
			break;
		case OPT_SLICE:
			a->o.slice_path = optarg;
			break;
		case OPT_PLACE_TRACE:
			a->o.place_trace = optarg;
			break;
		case OPT_CHAOS:
			if (seed_parse(optarg, &a->o.chaos))
				break;
			fprintf(stderr, "unum: '%s' is not a seed: a number above 0\n", optarg);
			return CC_EXIT_USAGE;
		case OPT_HELP:
			fputs(self->usage, stdout);
			return CC_EXIT_OK;
		case '?':
			fprintf(stderr, "unum: `unum run --help` shows the options\n");
			return CC_EXIT_USAGE;
		default:
			if (local_option(a, opt, optarg))
				break;
			fprintf(stderr, "unum: '%s' is not a value for this option\n", optarg);
			return CC_EXIT_USAGE;
		}
	}
	if (argc - optind == (a->is_local ? 0 : 1)) {
		a->file = argv[optind];
		return -1;
	}
	fprintf(stderr, "%s", self->usage);
	return CC_EXIT_USAGE;
}

static const struct cc_vm *vm_choose(const struct cc_topology *t, const char *name)
{
	const struct cc_vm *vm = name ? cc_topology_vm(t, name) : t->vms == 1 ? &t->vm[0] : NULL;

	if (vm)
		return vm;
	if (!t->vms)
		fprintf(stderr, "%s: error: there is no vm in this file\n", t->file);
	else if (name)
		fprintf(stderr, "%s: error: there is no vm '%s'; there is", t->file, name);
	else
		fprintf(stderr, "%s: error: which vm? --vm takes one of", t->file);
	for (unsigned i = 0; i < t->vms; i++)
		fprintf(stderr, "%s '%s'%s", i ? "," : "", t->vm[i].name,
			i + 1 == t->vms ? "\n" : "");
	return NULL;
}

static int run_command(const struct command *self, int argc, char **argv)
{
	struct run_args a = { .local = { .cmdline = "console=ttyS0", .placement = CC_PLACEMENT_DEFAULT } };
	int status = run_parse(self, &a, argc, argv), err;

	if (status >= 0)
		return status;
	if (a.local_only && !a.is_local) {
		fprintf(stderr, "unum: an option was given that goes with --local only\n");
		return CC_EXIT_USAGE;
	}
	a.local.disks = a.disk;
	err = a.is_local ? cc_topology_local(&a.local, stderr, &a.o.t)
			 : cc_topology_load(a.file, stderr, &a.o.t);
	if (err) {
		fprintf(stderr, "unum: nothing was started\n");
		return err == -EINVAL ? CC_EXIT_USAGE : CC_EXIT_INTERNAL;
	}
	if (a.is_local) {
		a.o.start_agents = true;
		for (unsigned i = 0; i < a.o.t->nodes; i++)
			a.o.t->node[i].port = 0;
	}
	a.o.vm = vm_choose(a.o.t, a.vm);
	status = a.o.vm && !cc_key_choose(a.o.t, a.key, a.o.start_agents, &a.o.key) ? cc_run(&a.o)
										 : CC_EXIT_USAGE;
	cc_topology_free(a.o.t);
	return status;
}

static const char check_usage[] = "usage: unum check FILE\n"
				  "\n"
				  "Reads a topology file, prints every mistake as "
				  "FILE:LINE:COLUMN, or how its VMs lie on its nodes.\n"
				  "Exit status: 0 when it is fine, 2 when it is not.\n";

static void vm_show(const struct cc_topology *t, const struct cc_vm *vm)
{
	printf("vm %s: %u vCPUs, %llu MiB, numa %s, engine %s\n", vm->name, vm->vcpus,
	       (unsigned long long)(vm->memory >> 20), numa_words[vm->numa],
	       engine_words[vm->engine]);
	for (unsigned i = 0; i < vm->shares; i++)
		printf("  node %s (%s, port %u): %u vCPUs, %llu MiB%s\n",
		       t->node[vm->share[i].node].name, t->node[vm->share[i].node].address,
		       t->node[vm->share[i].node].port, vm->share[i].vcpus,
		       (unsigned long long)(vm->share[i].memory >> 20), i ? "" : ", boot node");
}

/* -1: go on with the one argument; else the exit status. */
static int one_argument(const struct command *self, int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--help")) {
		fputs(self->usage, stdout);
		return CC_EXIT_OK;
	}
	if (argc == 2 && argv[1][0] != '-')
		return -1;
	fputs(self->usage, stderr);
	return CC_EXIT_USAGE;
}

static int check_command(const struct command *self, int argc, char **argv)
{
	int status = one_argument(self, argc, argv);
	struct cc_topology *t;

	if (status >= 0)
		return status;
	if (cc_topology_load(argv[1], stderr, &t))
		return CC_EXIT_USAGE;
	printf("pool %s: %u nodes, %u vms\n", t->pool, t->nodes, t->vms);
	for (unsigned i = 0; i < t->vms; i++)
		vm_show(t, &t->vm[i]);
	cc_topology_free(t);
	return CC_EXIT_OK;
}

static int doctor_command(const struct command *self, int argc, char **argv)
{
	(void)self;
	return cc_doctor_main(argc, argv);
}

static int fabric_command(const struct command *self, int argc, char **argv)
{
	(void)self;
	return cc_fabric_main(argc, argv);
}

static const char keygen_usage[] =
	"usage: unum keygen FILE\n"
	"\n"
	"Makes a new pool key, readable by its owner only.  Copy it to every node, and to where "
	"unum runs.\n"
	"Exit status: 0, or 2 when the file cannot be made or is there already.\n";

static int keygen_command(const struct command *self, int argc, char **argv)
{
	int status = one_argument(self, argc, argv), err;
	struct cc_key key;

	if (status >= 0)
		return status;
	err = cc_key_make(&key);
	if (!err)
		err = cc_key_save(&key, argv[1]);
	if (!err)
		return CC_EXIT_OK;
	fprintf(stderr, "unum: %s: %s\n", argv[1], strerror(-err));
	return CC_EXIT_USAGE;
}

static int drain_command(const struct command *self, int argc, char **argv)
{
	(void)self;
	return cc_drain_main(argc, argv);
}

static int join_command(const struct command *self, int argc, char **argv)
{
	(void)self;
	return cc_join_main(argc, argv);
}

static int migrate_command(const struct command *self, int argc, char **argv)
{
	(void)self;
	return cc_migrate_main(argc, argv);
}

static const char place_usage[] =
	"usage: unum place VM pinned|auto|rules\n"
	"       unum place --replay FILE [--move-us US] [--page-us US] [--lost-pages N] [--unpinned] [--all]\n"
	"\n"
	"Says who decides where the vCPUs of the running VM go from now on: nobody, they stay; or unum, which moves a\n"
	"vCPU to the pages that it waits for when that pays, within the rules of the topology if it has some.\n"
	"\n"
	"With --replay: what unum decided, and why, from what `unum run --place-trace FILE` recorded.\n"
	"  --move-us US, --page-us US, --lost-pages N, --unpinned\n"
	"                 also what it would have decided, had a move or a page cost this, a move lost so many\n"
	"                 pages, or had the vCPUs not been pinned; '-' marks what was decided only as recorded, '+'\n"
	"                 what would have been decided only so\n"
	"  --all          also why vCPUs stay\n"
	"\n"
	"Exit status: 0; 1 refused; 2 wrong usage, no such VM, or a file that is no trace.\n";

static const struct option place_options[] = {
	{ "replay", required_argument, NULL, OPT_REPLAY },    { "move-us", required_argument, NULL, OPT_MOVE_US },
	{ "page-us", required_argument, NULL, OPT_PAGE_US },  { "lost-pages", required_argument, NULL, OPT_LOST },
	{ "unpinned", no_argument, NULL, OPT_UNPINNED },      { "all", no_argument, NULL, OPT_ALL },
	{ "help", no_argument, NULL, OPT_HELP },	      { 0 },
};

static int place_order(const struct command *self, const char *vm, const char *mode)
{
	struct cc_order o = { .id = 1, .kind = CC_ORDER_PLACE };

	if (word_parse(mode, placement_words, &o.mode))
		return cc_order_give(vm, &o);
	fputs(self->usage, stderr);
	return CC_EXIT_USAGE;
}

static int place_replay_file(const char *file, const struct place_what_if *w, bool all)
{
	int err = place_replay(file, w, all, stdout, stderr);

	if (err && err != -EINVAL)
		fprintf(stderr, "unum: %s: %s\n", file, strerror(-err));
	return err ? CC_EXIT_USAGE : CC_EXIT_OK;
}

static int place_command(const struct command *self, int argc, char **argv)
{
	struct place_what_if w = { 0 };
	const char *file = NULL;
	bool fine = true, all = false;
	int opt;

	while (fine && (opt = getopt_long(argc, argv, "", place_options, NULL)) != -1) {
		if (opt == OPT_REPLAY)
			file = optarg;
		else if (opt == OPT_ALL)
			all = true;
		else if (opt == OPT_UNPINNED)
			w.unpinned = true;
		else if (opt == OPT_MOVE_US || opt == OPT_PAGE_US || opt == OPT_LOST)
			fine = count_parse(optarg, opt == OPT_MOVE_US ? &w.move_us
						   : opt == OPT_PAGE_US ? &w.page_us
									: &w.lost_pages);
		else {
			fputs(self->usage, opt == OPT_HELP ? stdout : stderr);
			return opt == OPT_HELP ? CC_EXIT_OK : CC_EXIT_USAGE;
		}
	}
	if (fine && file && argc == optind)
		return place_replay_file(file, &w, all);
	if (fine && !file && argc - optind == 2)
		return place_order(self, argv[optind], argv[optind + 1]);
	fputs(self->usage, stderr);
	return CC_EXIT_USAGE;
}

static const struct command commands[] = {
	{ "run", "run a VM, its console on this terminal", run_usage, run_command },
	{ "check", "look for mistakes in a topology file", check_usage, check_command },
	{ "doctor", "what hosts can do, and what is in the way", cc_doctor_usage, doctor_command },
	{ "migrate", "move a vCPU of a running VM", cc_migrate_usage, migrate_command },
	{ "drain", "empty a node of a running VM, so that it may go", cc_drain_usage, drain_command },
	{ "join", "use a drained node again", cc_join_usage, join_command },
	{ "place", "who decides where vCPUs run, and what was decided", place_usage, place_command },
	{ "fabric", "what joins hosts, how fast it is, and what is in the way", cc_fabric_usage, fabric_command },
	{ "keygen", "make a pool key", keygen_usage, keygen_command },
};

static void help(FILE *out)
{
	fprintf(out, "usage: unum COMMAND ...\n\nOne virtual machine over several hosts.\n\n");
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "\n`unum COMMAND --help` tells more.  unum --version prints the version.\n");
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		help(stderr);
		return CC_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("unum " CC_VERSION_TEXT);
		return CC_EXIT_OK;
	}
	if (!strcmp(argv[1], "--help")) {
		help(stdout);
		return CC_EXIT_OK;
	}
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(&commands[i], argc - 1, argv + 1);
	fprintf(stderr, "unum: there is no command '%s'\n", argv[1]);
	help(stderr);
	return CC_EXIT_USAGE;
}
