/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unum_slice_main.c - the program unum-slice: the part of one VM that runs on one node.
 *
 * Usage     Started by an agent with its channel on file descriptor 3 and, for who looks at processes, the VM's name; by
 *           an agent or `unum doctor` with --host, to say what this host can do, as one JSON object on stdout, or for
 *           `unum fabric` with --fabric, only what joins it to others, with every backend tried; or by a
 *           developer with --standalone and a machine of one node on the terminal.
 */
#include "base/log.h"
#include "hv/host_facts.h"
#include "hv/slice_front.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *host_json(const char *kernel)
{
	struct hv_host_facts *f = calloc(1, sizeof(*f));
	json_t *all = NULL;

	if (f) {
		hv_host_facts_take(f);
		all = hv_host_json(f, kernel);
	}
	free(f);
	return all;
}

static int host_tell(json_t *all)
{
	int status = 1;

	/* Strings of firmware and files may be no UTF-8: then there is no JSON of them. */
	if (all && !json_dumpf(all, stdout, JSON_INDENT(2)) && putchar('\n') != EOF && !fflush(stdout))
		status = 0;
	else
		fprintf(stderr, "unum-slice: what this host can do could not be told\n");
	json_decref(all);
	return status;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	log_set_ident("slice");
	if (argc == 1 || argv[1][0] != '-')
		return hv_slice_main_agent();
	if (!strcmp(argv[1], "--standalone"))
		return hv_slice_main_standalone(argc - 2, argv + 2);
	if (!strcmp(argv[1], "--host") && argc <= 3)
		return host_tell(host_json(argv[2]));
	if (!strcmp(argv[1], "--fabric") && argc == 2)
		return host_tell(hv_host_fabric_json());
	fprintf(stderr,
		"usage: unum-slice             (by unumd, with its channel on descriptor 3)\n"
		"       unum-slice --host [KERNEL]\n"
		"       unum-slice --fabric\n"
		"       unum-slice --standalone --help\n");
	return 2;
}
