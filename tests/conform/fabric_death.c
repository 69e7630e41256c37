/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/fabric_death.c - a peer dies: while it sends, while it is sent to, while it connects.
 *
 * Node 1 is the victim, a process of its own made by exec (libraries below may not survive a fork); 0 and 2, to which
 * it is the one that connects and the one that accepts, are here.
 */
#include "tests/conform/fabric_conform.h"

#include "base/rng.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONG_NS (20 * NS_PER_S)

enum { V_BACKEND = 2, V_SENDS, V_FD, V_ADDRESS_0, V_ADDRESS_2, V_ARGS };

/* Runs until it is killed. */
int victim_main(int argc, char **argv)
{
	struct end v;
	bool sends;
	int fd;

	if (argc != V_ARGS)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sends = !strcmp(argv[V_SENDS], "sends");
	fd = atoi(argv[V_FD]);
	end_open(&v, 1, 3, 1, 77);
	if (write(fd, v.address, sizeof(v.address)) != sizeof(v.address))
		return 1;
	CHECK(!ic_join(v.f, 0, argv[V_ADDRESS_0]) && !ic_join(v.f, 2, argv[V_ADDRESS_2]));
	for (;;) {
		if (sends && v.ups == 2) {
			send_next(&v, 0);
			send_next(&v, 2);
		}
		pump_once(&v, 1);
	}
}

static pid_t victim_start(struct end *e, const char *sends)
{
	char number[16];
	int fd[2];
	pid_t pid;

	CHECK(!pipe(fd));
	snprintf(number, sizeof(number), "%d", fd[1]);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "fabric_conform", "victim", backend_arg, sends, number, e[0].address, e[2].address,
		      (char *)NULL);
		_exit(127);
	}
	close(fd[1]);
	CHECK(pid > 0 && read(fd[0], e[1].address, IC_ADDR_MAX) == IC_ADDR_MAX);
	close(fd[0]);
	CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[2].f, 1, e[1].address));
	return pid;
}

static void victim_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static void survivors_open(struct end e[3])
{
	memset(e, 0, 3 * sizeof(*e));
	end_open(&e[0], 0, 3, 1, 77);
	end_open(&e[2], 2, 3, 1, 77);
	CHECK(!ic_join(e[0].f, 2, e[2].address) && !ic_join(e[2].f, 0, e[0].address));
	PUMP_FOR(e, 3, e[0].is_up[2] && e[2].is_up[0], LONG_NS);
}

/* The victim is gone, once, and nothing else has happened to the two. */
static void survivors_check(struct end *e)
{
	uint32_t others = e[2].got[0], of_victim[2] = { e[0].got[1], e[2].got[1] };

	CHECK(!e[0].is_up[1] && !e[2].is_up[1] && e[0].is_up[2] && e[2].is_up[0]);
	CHECK(send_next(&e[0], 1) == -ENOTCONN && send_next(&e[2], 1) == -ENOTCONN);
	for (unsigned i = 0; i < 1000; i++)
		PUMP_FOR(e, 3, send_next(&e[0], 2) != -EAGAIN, LONG_NS);
	PUMP_FOR(e, 3, e[2].got[0] == others + 1000, LONG_NS);
	CHECK(e[0].downs == 1 && e[2].downs == 1);
	CHECK(e[0].got[1] == of_victim[0] && e[2].got[1] == of_victim[1]);
}

void death_while_sending(void)
{
	struct end e[3];
	pid_t pid;

	survivors_open(e);
	pid = victim_start(e, "sends");
	PUMP_FOR(e, 3, e[0].got[1] > 1000 && e[2].got[1] > 1000, LONG_NS);
	victim_kill(pid);
	PUMP_FOR(e, 3, e[0].downs && e[2].downs, LONG_NS);
	survivors_check(e);
	ends_close(e, 3);
}

void death_while_receiving(void)
{
	struct end e[3];
	pid_t pid;

	survivors_open(e);
	pid = victim_start(e, "receives");
	PUMP_FOR(e, 3, e[0].is_up[1] && e[2].is_up[1], LONG_NS);
	for (unsigned i = 0; i < 2000; i++) {
		PUMP_FOR(e, 3, send_next(&e[0], 1) != -EAGAIN, LONG_NS);
		PUMP_FOR(e, 3, send_next(&e[2], 1) != -EAGAIN, LONG_NS);
	}
	kill(pid, SIGSTOP); /* nothing is taken any more: everything in between fills */
	while (!send_next(&e[0], 1) || !send_next(&e[2], 1))
		pump_once(e, 3);
	victim_kill(pid);
	PUMP_FOR(e, 3, (send_next(&e[0], 1), e[0].downs && e[2].downs), LONG_NS);
	survivors_check(e);
	ends_close(e, 3);
}

/* Killed at any moment of the handshake, again and again; the next one that lives is let in. */
void death_while_connecting(void)
{
	struct rng r = { .state = 3 };
	struct end e[3], *next = &e[1];

	survivors_open(e);
	for (unsigned round = 0; round < 6; round++) {
		pid_t pid = victim_start(e, "sends");
		uint64_t until = clock_now_ns() + rng_below(&r, 8 * NS_PER_MS);

		while (clock_now_ns() < until)
			pump_once(e, 3);
		victim_kill(pid);
		until = clock_now_ns() + 20 * NS_PER_MS;
		PUMP_FOR(e, 3, clock_now_ns() > until && !e[0].is_up[1] && !e[2].is_up[1], LONG_NS);
		e[0].got[1] = e[2].got[1] = 0;
	}
	end_open(next, 1, 3, 1, 77);
	for (unsigned i = 0; i < 3; i += 2) {
		e[i].sent[1] = 0;
		CHECK(!ic_join(e[i].f, 1, next->address) && !ic_join(next->f, (node_id)i, e[i].address));
	}
	PUMP_FOR(e, 3, next->ups == 2 && e[0].is_up[1] && e[2].is_up[1], LONG_NS);
	for (unsigned i = 0; i < 100; i++) {
		PUMP_FOR(e, 3, send_next(next, 0) != -EAGAIN, LONG_NS);
		PUMP_FOR(e, 3, send_next(&e[2], 1) != -EAGAIN, LONG_NS);
	}
	PUMP_FOR(e, 3, e[0].got[1] == 100 && next->got[2] == 100, LONG_NS);
	CHECK(e[0].is_up[2] && e[2].is_up[0] && !next->downs);
	ends_close(e, 3);
}

#define PAIRS 12u
#define GIVEN_UP_NS (4 * NS_PER_S) /* longer than a handshake may take */

/* A side that had come up when the other gave up has lost it, and is asked to join again. */
static bool pair_is_up(struct end *e)
{
	for (unsigned i = 0; i < 2; i++)
		if (e[i].downs) {
			e[i].downs = 0;
			CHECK(!ic_join(e[i].f, (node_id)!i, e[!i].address));
		}
	return e[0].is_up[1] && e[1].is_up[0];
}

/* One side of each pair stands still after so many steps of the handshake; the other gives up, and tries again. */
void standstill_while_connecting(void)
{
	static struct end e[PAIRS][2];
	bool all = false;
	uint64_t until;

	for (unsigned i = 0; i < PAIRS; i++) {
		end_open(&e[i][0], 0, 2, 1, 77);
		end_open(&e[i][1], 1, 2, 1, 77);
		CHECK(!ic_join(e[i][0].f, 1, e[i][1].address) && !ic_join(e[i][1].f, 0, e[i][0].address));
	}
	for (unsigned step = 0; step < PAIRS; step++)
		for (unsigned i = 0; i < PAIRS; i++) {
			pump_once(&e[i][i & 1], 1);
			if (step < i)
				pump_once(&e[i][!(i & 1)], 1);
			usleep(200);
		}
	until = clock_now_ns() + GIVEN_UP_NS;
	while (clock_now_ns() < until)
		for (unsigned i = 0; i < PAIRS; i++) {
			pump_once(&e[i][i & 1], 1);
			usleep(100);
		}
	until = clock_now_ns() + LONG_NS;
	while (!all) {
		CHECK(clock_now_ns() < until);
		all = true;
		for (unsigned i = 0; i < PAIRS; i++) {
			pump_once(e[i], 2);
			all &= pair_is_up(e[i]);
		}
	}
	for (unsigned i = 0; i < PAIRS; i++) {
		e[i][0].sent[1] = e[i][1].got[0] = 0;
		CHECK(!send_next(&e[i][0], 1));
		PUMP_FOR(e[i], 2, e[i][1].got[0] == 1, LONG_NS);
		ends_close(e[i], 2);
	}
}

#define STEPS 24u

/* One side is closed after so many steps of the handshake; the other does not mind, and can be closed. */
void closing_while_connecting(void)
{
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned goes = step & 1;
		struct end e[2];

		end_open(&e[0], 0, 2, 1, 77);
		end_open(&e[1], 1, 2, 1, 77);
		CHECK(!ic_join(e[0].f, 1, e[1].address) && !ic_join(e[1].f, 0, e[0].address));
		for (unsigned i = 0; i < 3 * step; i++)
			pump_once(&e[i / 2 & 1], 1);
		ic_close(e[goes].f);
		for (unsigned i = 0; i < 50; i++)
			pump_once(&e[!goes], 1);
		ic_close(e[!goes].f);
	}
}
