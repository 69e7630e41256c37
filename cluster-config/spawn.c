/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/spawn.c - child processes that cannot outlive us; see spawn.h. */
#include "cluster-config/spawn.h"

#include "base/assert.h"
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FD_FIRST 3
#define FD_ASIDE 64 /* above every target, so that none is overwritten before it is moved */
#define EXIT_EXEC 127

/* Between fork and exec: only calls that are safe there, no log. */
static _Noreturn void child_main(char *const argv[], const int *fd, unsigned fds, int stdout_fd,
				 pid_t parent)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	int aside[CC_SPAWN_FDS_MAX], null;
	sigset_t none;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(EXIT_EXEC); /* the parent was gone before the promise held */
	/*
	 * Out of the terminal's group, whose Ctrl-C is for us alone.  Not a session of its own: the kernel's autogroups
	 * give each session an equal share of the CPU, whatever the scheduling class of its threads, so the thread that
	 * idles in one slice (dsm/node.c, keeper) would take half a CPU from the vCPUs of another.
	 */
	setpgid(0, 0);
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (unsigned i = 0; i < fds; i++)
		if ((aside[i] = fcntl(fd[i], F_DUPFD, FD_ASIDE)) < 0)
			_exit(EXIT_EXEC);
	if (dup2(stdout_fd, STDOUT_FILENO) < 0)
		_exit(EXIT_EXEC);
	for (unsigned i = 0; i < fds; i++)
		if (dup2(aside[i], FD_FIRST + (int)i) < 0)
			_exit(EXIT_EXEC);
	syscall(SYS_close_range, FD_FIRST + fds, ~0u, 0);
	null = open("/dev/null", O_RDONLY);
	if (null >= 0 && null != STDIN_FILENO) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	execv(argv[0], argv);
	_exit(EXIT_EXEC);
}

static int spawn(char *const argv[], const int *fd, unsigned fds, int stdout_fd,
		 struct cc_child *out)
{
	pid_t parent = getpid(), pid;
	int pidfd, err;

	ASSERT(fds <= CC_SPAWN_FDS_MAX);
	if (access(argv[0], X_OK)) {
		err = -errno;
		log_error("spawn: %s: %s", argv[0], strerror(-err));
		return err;
	}
	pid = fork();
	if (pid == 0)
		child_main(argv, fd, fds, stdout_fd, parent);
	if (pid < 0) {
		err = -errno;
		log_error("spawn: fork: %s", strerror(-err));
		return err;
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		err = -errno;
		log_error("spawn: pidfd_open: %s", strerror(-err));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return err;
	}
	*out = (struct cc_child){ pid, pidfd };
	return 0;
}

int cc_spawn(char *const argv[], const int *fd, unsigned fds, struct cc_child *out)
{
	return spawn(argv, fd, fds, STDERR_FILENO, out);
}

int cc_spawn_reading(char *const argv[], struct cc_child *out, int *out_fd)
{
	int end[2], err;

	if (pipe2(end, O_CLOEXEC))
		return -errno;
	err = fcntl(end[0], F_SETFL, O_NONBLOCK) ? -errno : spawn(argv, NULL, 0, end[1], out);
	close(end[1]);
	if (err)
		close(end[0]);
	else
		*out_fd = end[0];
	return err;
}

void cc_child_signal(const struct cc_child *c, int sig)
{
	if (c->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0);
}

int cc_child_reap(struct cc_child *c, int timeout_ms, char text[static CC_EXIT_TEXT_MAX])
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };
	siginfo_t info = { 0 };

	ASSERT(c->pidfd >= 0);
	while (poll(&p, 1, timeout_ms) < 0 && errno == EINTR)
		;
	if (!(p.revents & POLLIN))
		return -ETIMEDOUT;
	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED))
		snprintf(text, CC_EXIT_TEXT_MAX, "ended");
	else if (info.si_code == CLD_EXITED && info.si_status == EXIT_EXEC)
		snprintf(text, CC_EXIT_TEXT_MAX, "could not be started");
	else if (info.si_code == CLD_EXITED)
		snprintf(text, CC_EXIT_TEXT_MAX, "exited with status %d", info.si_status);
	else
		snprintf(text, CC_EXIT_TEXT_MAX, "killed by signal %d (%s)", info.si_status,
			 strsignal(info.si_status));
	close(c->pidfd);
	c->pidfd = -1;
	return 0;
}

int cc_program_path(const char *name, char *out, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", out, size - 1);
	char *slash;

	if (len < 0)
		return -errno;
	out[len] = 0;
	slash = strrchr(out, '/');
	ASSERT(slash);
	if ((size_t)(slash - out) + 1 + strlen(name) + 1 > size)
		return -ENAMETOOLONG;
	memcpy(slash + 1, name, strlen(name) + 1);
	return 0;
}
