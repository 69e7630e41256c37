/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/dsm/test_record.c - a failed assertion tells the last protocol events of the node. */
#include "base/assert.h"
#include "tests/unit/dsm/nodes.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>

/* Two nodes over shared memory; node 1 writes a page of node 0, then an assertion fails. */
static void fail_after_a_write(void)
{
	static const struct dsm_range ranges[] = { { 0, 8, 0 }, { 8, 8, 1 } };
	static struct node n[2];
	uint64_t value = 1;
	int err = nodes_open(n, &(struct nodes_spec){ .nodes = 2, .backend = "shm", .ranges = ranges,
						      .ranges_count = 2, .mapping = DSM_MAP_TLB });

	if (!err)
		err = dsm_copy_out(n[1].d, 3 << PAGE_SHIFT, &value, sizeof(value), clock_now_ns() + 5 * NS_PER_S);
	ASSERT(err); /* fails */
}

Test(record, the_last_events_come_with_a_failed_assertion, .timeout = 30)
{
	static char text[1 << 20];
	size_t len = 0;
	ssize_t n;
	int fds[2], status;
	pid_t child;

	cr_assert_eq(pipe(fds), 0);
	child = fork();
	if (!child) {
		dup2(fds[1], STDERR_FILENO);
		fail_after_a_write();
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert(strstr(text, "assert: tests/unit/dsm/test_record.c"), "%s", text);
	cr_assert(strstr(text, "dsm: node 0, its last"), "%s", text);
	cr_assert(strstr(text, "dsm: node 1, its last"), "%s", text);
	/* Node 1 asked, node 0 got it and granted, node 1 mapped. */
	cr_assert(strstr(text, "request   page 3 w"), "%s", text);
	cr_assert(strstr(text, "SEND      page 3 REQ_WRITE"), "%s", text);
	cr_assert(strstr(text, "message   page 3 GRANT w"), "%s", text);
	cr_assert(strstr(text, "MAP       page 3 w"), "%s", text);
}
