/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_choose_fabric.c - what `auto` makes of what the nodes have. */
#include "cluster-config/core/choose_fabric.h"

#include <criterion/criterion.h>
#include <string.h>

#define RDMA(device, network) { device, network, true, "" }
#define NO_ADDRESS(device) { device, "", false, "port 1 has no IP address" }

static const struct cc_fabric_facts here = { .unknown = "", .host = "a/1" };
static const struct cc_fabric_facts container = { .unknown = "", .host = "a/2" }; /* same kernel, other network */
static const struct cc_fabric_facts there = { .unknown = "", .host = "b/1" };
static const struct cc_fabric_facts silent = { .unknown = "it did not say", .host = "a/1" };
static const struct cc_fabric_facts nowhere = { .unknown = "", .host = "" };
static const struct cc_fabric_facts roce_a = { .unknown = "", .host = "a/1", .rdma = { RDMA("rxe0", "10.1.0.0/24") }, .rdmas = 1 };
static const struct cc_fabric_facts roce_b = { .unknown = "",
					       .host = "b/1",
					       .rdma = { RDMA("mlx5_0", "10.2.0.0/24"), RDMA("mlx5_1", "10.1.0.0/24") },
					       .rdmas = 2 };
static const struct cc_fabric_facts roce_c = { .unknown = "", .host = "c/1", .rdma = { RDMA("rxe0", "10.3.0.0/24") }, .rdmas = 1 };
static const struct cc_fabric_facts bare = { .unknown = "", .host = "d/1", .rdma = { NO_ADDRESS("rxe0") }, .rdmas = 1 };
static const struct cc_fabric_facts both = { .unknown = "",
					     .host = "e/1",
					     .rdma = { NO_ADDRESS("mlx5_0"), RDMA("mlx5_1", "10.1.0.0/24") },
					     .rdmas = 2 };

static const struct {
	const struct cc_fabric_facts *hosts[3];
	const char *named[3]; /* devices in the file */
	const char *backend, *device[3], *why;
} cases[] = {
	{ { &here, &here }, { 0 }, "shm", { "", "" }, "one host" },
	{ { &roce_a, &roce_a, &here }, { "rxe0" }, "shm", { "", "", "" }, "one host" }, /* even with RDMA */
	{ { &here, &container }, { 0 }, "tcp", { "", "" }, "node n0: no RDMA device" },
	{ { &here, &there }, { 0 }, "tcp", { "", "" }, "node n0: no RDMA device" },
	{ { &here, &silent }, { 0 }, "tcp", { "", "" }, "node n0: no RDMA device" },
	{ { &silent, &silent }, { 0 }, "tcp", { "", "" }, "node n0: it did not say" },
	{ { &nowhere, &nowhere }, { 0 }, "tcp", { "", "" }, "node n0" },
	{ { &roce_a, &roce_b }, { 0 }, "verbs", { "rxe0", "mlx5_1" }, "RDMA on 10.1.0.0/24" },
	{ { &roce_b, &roce_a, &both }, { 0 }, "verbs", { "mlx5_1", "rxe0", "mlx5_1" }, "RDMA on 10.1.0.0/24" },
	{ { &roce_a, &roce_b, &there }, { 0 }, "tcp", { "", "", "" }, "node n2: no RDMA device" },
	{ { &roce_a, &roce_c }, { 0 }, "tcp", { "", "" }, "no network in common" },
	{ { &roce_a, &roce_b, &roce_c }, { 0 }, "tcp", { "", "", "" }, "no network in common" },
	{ { &roce_a, &bare }, { 0 }, "tcp", { "", "" }, "node n1: RDMA device rxe0: port 1 has no IP address" },
	/* the file names devices */
	{ { &roce_a, &roce_b }, { "rxe0", "mlx5_1" }, "verbs", { "rxe0", "mlx5_1" }, "RDMA on" },
	{ { &roce_a, &roce_b }, { NULL, "mlx5_0" }, "tcp", { "", "" }, "no network in common" },
	{ { &roce_a, &roce_b }, { "rxe7" }, "tcp", { "", "" }, "node n0: no RDMA device rxe7" },
	{ { &roce_a, &both }, { NULL, "mlx5_0" }, "tcp", { "", "" }, "node n1: RDMA device mlx5_0: port 1 has no IP" },
};

Test(choose_fabric, what_auto_means)
{
	static const char *const name[3] = { "n0", "n1", "n2" };

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		unsigned count = cases[i].hosts[2] ? 3 : 2;
		const char *device[3];
		struct cc_fabric_choice got;

		for (unsigned k = 0; k < 3; k++)
			device[k] = cases[i].named[k] ? cases[i].named[k] : "";
		memset(&got, 0xa5, sizeof(got));
		cc_fabric_choose(cases[i].hosts, name, device, count, &got);
		cr_expect_str_eq(got.backend, cases[i].backend, "case %u: %s (%s)", i, got.backend, got.why);
		cr_expect(strstr(got.why, cases[i].why), "case %u: %s", i, got.why);
		for (unsigned k = 0; k < count; k++)
			cr_expect_str_eq(got.device[k], cases[i].device[k], "case %u node %u: %s", i, k, got.device[k]);
	}
}
