/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/survey_cli.c - `unum doctor` and `unum fabric` as commands: their options, and the pool key.
 *
 * I/O       stdout, stderr, the topology, the key file.
 */
#include "cluster-config/doctor.h"
#include "cluster-config/fabric.h"
#include "cluster-config/run.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

int cc_key_choose(const struct cc_topology *t, const char *path, bool make, struct cc_key *key)
{
	int err;

	if (!path)
		path = t->key;
	if (!path && !make) {
		fprintf(stderr,
			"%s: error: no pool key; add `key: FILE` or give --key FILE (`unum keygen` "
			"makes one)\n",
			t->file);
		return -EINVAL;
	}
	err = path ? cc_key_load(path, key) : cc_key_make(key);
	if (err)
		fprintf(stderr, "unum: key %s: %s\n", path ? path : "",
			err == -EACCES   ? "others may read it too, or we may not; it must be ours "
					   "with mode 0600"
			: err == -EINVAL ? "not a pool key; `unum keygen` makes one"
					 : strerror(-err));
	return err;
}

const char cc_doctor_usage[] =
	"usage: unum doctor [FILE] [--key FILE] [--json] [--slice PROGRAM]\n"
	"\n"
	"Says what this host can do for a VM: KVM and its kind, rights, memory, time, CPU, "
	"network; what is\n"
	"in the way, with the command that mends it; and which engine a VM would get.  With a "
	"topology FILE\n"
	"the agents of its nodes are asked too, and what differs between them is named.\n"
	"\n"
	"  --key FILE       the pool key (default: what the topology says)\n"
	"  --json           for programs\n"
	"  --slice PROGRAM  the slice program that looks at this host (default: unum-slice beside "
	"unum)\n"
	"\n"
	"Exit status: 0 when each of these hosts can run a VM by itself, 6 when one cannot, 2 for "
	"wrong\n"
	"usage, a bad file, or a host that could not be asked.\n";

const char cc_fabric_usage[] =
	"usage: unum fabric [FILE] [--key FILE] [--json] [--slice PROGRAM]\n"
	"\n"
	"Says what can join this host to others: interfaces, RDMA ports, libraries and what they find; what\n"
	"is wrong, with the command that mends it.  With a topology FILE the agents of its nodes are asked,\n"
	"and each pair of nodes is joined by what a VM on them would get, and measured.\n"
	"\n"
	"  --key FILE       the pool key (default: what the topology says)\n"
	"  --json           for programs\n"
	"  --slice PROGRAM  the slice program that looks at this host (default: unum-slice beside unum)\n"
	"\n"
	"Exit status: 0; 1 when two nodes cannot be joined; 2 for wrong usage, a bad file, or a host that\n"
	"could not be asked.\n";

enum { OPT_KEY = 1, OPT_JSON, OPT_SLICE, OPT_HELP };

static const struct option options[] = {
	{ "key", required_argument, NULL, OPT_KEY },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "slice", required_argument, NULL, OPT_SLICE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static int survey(const char *usage, int argc, char **argv, int (*look)(const struct cc_survey_options *o))
{
	struct cc_survey_options o = { 0 };
	struct cc_topology *t = NULL;
	const char *key = NULL;
	int opt, status = CC_EXIT_USAGE;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == OPT_KEY) {
			key = optarg;
		} else if (opt == OPT_JSON) {
			o.json = true;
		} else if (opt == OPT_SLICE) {
			o.slice_path = optarg;
		} else {
			fputs(usage, opt == OPT_HELP ? stdout : stderr);
			return opt == OPT_HELP ? CC_EXIT_OK : CC_EXIT_USAGE;
		}
	}
	if (argc - optind > 1 || (key && argc == optind)) {
		fputs(usage, stderr);
		return CC_EXIT_USAGE;
	}
	if (argc > optind && cc_topology_load(argv[optind], stderr, &t))
		return CC_EXIT_USAGE;
	o.t = t;
	if (!t || !cc_key_choose(t, key, false, &o.key))
		status = look(&o);
	cc_topology_free(t);
	return status;
}

int cc_doctor_main(int argc, char **argv)
{
	return survey(cc_doctor_usage, argc, argv, cc_doctor);
}

int cc_fabric_main(int argc, char **argv)
{
	return survey(cc_fabric_usage, argc, argv, cc_fabric);
}
