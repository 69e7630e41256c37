/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/interconnect/test_dead_after.c - how long a silent peer is waited for: what the links' sockets are told. */
#include "interconnect/fabric.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define FDS_MAX 256

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	(void)peer;
	*(unsigned *)arg += event == IC_PEER_UP;
}

/* Connected TCP sockets of this process; all must have this timeout. */
static unsigned links_with(unsigned timeout_ms)
{
	unsigned links = 0;

	for (int fd = 0; fd < FDS_MAX; fd++) {
		struct sockaddr_storage peer;
		socklen_t len = sizeof(peer), size = sizeof(unsigned);
		unsigned got = 0;

		if (getpeername(fd, (struct sockaddr *)&peer, &len) || peer.ss_family != AF_INET)
			continue;
		cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &got, &size), 0);
		cr_expect_eq(got, timeout_ms, "%u, not %u", got, timeout_ms);
		links++;
	}
	return links;
}

static void pair_with(unsigned dead_after_ms, unsigned timeout_ms)
{
	struct ic_fabric *f[2];
	char address[2][IC_ADDR_MAX];
	uint64_t end_ns = clock_now_ns() + 10 * NS_PER_S;
	unsigned ups[2] = { 0, 0 };

	for (unsigned i = 0; i < 2; i++) {
		struct ic_config cfg = { .self = (node_id)i, .nodes = 2, .backend = "tcp", .listen = "127.0.0.1:0",
					 .on_peer = on_peer, .arg = &ups[i], .dead_after_ms = dead_after_ms };

		cr_assert_eq(ic_open(&cfg, &f[i]), 0);
		ic_address(f[i], address[i]);
	}
	cr_assert_eq(ic_join(f[0], 1, address[1]), 0);
	cr_assert_eq(ic_join(f[1], 0, address[0]), 0);
	while ((!ups[0] || !ups[1]) && clock_now_ns() < end_ns)
		for (unsigned i = 0; i < 2; i++)
			ic_progress(f[i], 8);
	cr_assert(ups[0] && ups[1]);
	cr_expect_eq(links_with(timeout_ms), 2);
	ic_close(f[0]);
	ic_close(f[1]);
}

Test(dead_after, follows_the_configuration)
{
	pair_with(1500, 1500);
	pair_with(60000, 60000);
}

Test(dead_after, has_a_default)
{
	pair_with(0, IC_DEAD_AFTER_MS);
}
