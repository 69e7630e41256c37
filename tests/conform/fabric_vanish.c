/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_vanish.c - a host vanishes without a word: no FIN, no reset, nothing.
 *
 * In a process with a network of its own, whose only interface is then taken down: what is sent goes nowhere.  Backends
 * with a path of their own learn of it by the control stream, even where the path still works (the fake libibverbs
 * does not use that network).
 */
#include "tests/conform/fabric_conform.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEAD_AFTER_MS 1500u
#define SLACK_NS (3 * NS_PER_S) /* probes leave once a second, and this machine may be busy */
#define LONG_NS (20 * NS_PER_S)

static bool loopback(bool up)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = up ? IFF_UP | IFF_RUNNING : 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool done = fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &r);

	if (fd >= 0)
		close(fd);
	return done;
}

void host_vanishes(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
			_exit(CASE_SKIPPED);
		execl("/proc/self/exe", "fabric_conform", "vanish", backend_arg, (char *)NULL);
		_exit(127);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CASE_SKIPPED)
		case_skip = "no right to a network of its own";
	else
		CHECK(!status);
}

/* Node 0 and 1 have nothing to say, 0 and 2 talk all the time. */
int vanish_main(void)
{
	uint64_t start, took;
	struct end e[3];

	if (!loopback(true))
		return CASE_SKIPPED;
	dead_after_ms = DEAD_AFTER_MS;
	ends_open(e, 3);
	for (unsigned i = 0; i < 500; i++) {
		PUMP_FOR(e, 3, send_next(&e[0], 2) != -EAGAIN, LONG_NS);
		PUMP_FOR(e, 3, send_next(&e[2], 0) != -EAGAIN, LONG_NS);
	}
	PUMP_FOR(e, 3, e[0].got[2] == 500 && e[2].got[0] == 500, LONG_NS);
	CHECK(loopback(false));
	start = clock_now_ns();
	PUMP_FOR(e, 3, (send_next(&e[0], 2), send_next(&e[2], 0), e[0].downs == 2 && e[1].downs == 2 && e[2].downs == 2),
		 DEAD_AFTER_MS * NS_PER_MS + SLACK_NS);
	took = clock_now_ns() - start;
	CHECK(took > NS_PER_S / 2); /* else somebody was told */
	CHECK(send_next(&e[0], 1) == -ENOTCONN && send_next(&e[2], 0) == -ENOTCONN);
	/* It comes back: a new epoch. */
	CHECK(loopback(true));
	for (unsigned i = 0; i < 3; i++) {
		e[i].ups = e[i].downs = 0;
		memset(e[i].sent, 0, sizeof(e[i].sent));
		memset(e[i].got, 0, sizeof(e[i].got));
	}
	ends_join(e, 3);
	for (unsigned i = 0; i < 100; i++)
		PUMP_FOR(e, 3, send_next(&e[0], 2) != -EAGAIN, LONG_NS);
	PUMP_FOR(e, 3, e[2].got[0] == 100, LONG_NS);
	CHECK(!e[0].downs && !e[1].downs && !e[2].downs);
	ends_close(e, 3);
	return 0;
}
