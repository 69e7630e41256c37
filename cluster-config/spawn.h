/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/spawn.h - child processes that cannot outlive us.
 *
 * Contract  A child gets SIGKILL when its parent dies, however that dies (PR_SET_PDEATHSIG); it has
 *           its own session, so keys of our terminal do not reach it; it inherits stderr and the
 *           descriptors it is given, no others.
 * Threads   The thread that spawns must live as long as the child is wanted: the kernel watches the
 *           thread.
 */
#ifndef CC_SPAWN_H
#define CC_SPAWN_H

#include "base/err.h"
#include "base/types.h"

#include <sys/types.h>

#define CC_SPAWN_FDS_MAX 4u
#define CC_EXIT_TEXT_MAX 80

struct cc_child {
	pid_t pid;
	int pidfd; /* readable when it has ended; -1: reaped */
};

/* argv[0] is the path.  fd[i] becomes descriptor 3 + i of the child. */
MUST_CHECK int cc_spawn(char *const argv[], const int *fd, unsigned fds, struct cc_child *out);
/* The same without descriptors, its stdout a pipe: *out_fd, non-blocking, is our end to read. */
MUST_CHECK int cc_spawn_reading(char *const argv[], struct cc_child *out, int *out_fd);
/* Sends a signal; nothing happens when it has ended already. */
void cc_child_signal(const struct cc_child *c, int sig);
/* Waits up to timeout_ms for its end, then closes pidfd and says in `text` how it ended.
 * -ETIMEDOUT. */
MUST_CHECK int cc_child_reap(struct cc_child *c, int timeout_ms,
			     char text[static CC_EXIT_TEXT_MAX]);
/* Path of a program that lies beside the running one.  -errno */
MUST_CHECK int cc_program_path(const char *name, char *out, size_t size);

#endif
