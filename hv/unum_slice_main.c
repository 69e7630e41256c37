/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unum_slice_main.c - the program unum-slice: the part of one VM that runs on one node.
 *
 * Usage     Started by an agent with its channel on file descriptor 3 and, for who looks at processes, the VM's name; or by
 *           a developer with --standalone and a machine of one node on the terminal.
 */
#include "base/log.h"
#include "hv/slice_front.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	log_set_ident("slice");
	if (argc == 1 || argv[1][0] != '-')
		return hv_slice_main_agent();
	if (!strcmp(argv[1], "--standalone"))
		return hv_slice_main_standalone(argc - 2, argv + 2);
	fprintf(stderr,
		"usage: unum-slice             (by unumd, with its channel on descriptor 3)\n"
		"       unum-slice --standalone --help\n");
	return 2;
}
