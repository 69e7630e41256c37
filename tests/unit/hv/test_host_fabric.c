/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hv/test_host_fabric.c - RDMA ports as sysfs tells of them: folders made here, with what real devices write. */
#include "hv/host_facts.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char sys[64];

static int gone(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void begin(void)
{
	strcpy(sys, "/tmp/unum-sys-XXXXXX");
	cr_assert_not_null(mkdtemp(sys));
}

static void end(void)
{
	nftw(sys, gone, 8, FTW_DEPTH | FTW_PHYS);
}

/* A file of one line, with the folders on its way. */
__attribute__((format(printf, 2, 3))) static void file(const char *text, const char *format, ...)
{
	char path[256];
	va_list args;
	size_t len = strlen(sys) + 1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/", sys);
	va_start(args, format);
	vsnprintf(path + len, sizeof(path) - len, format, args);
	va_end(args);
	for (char *slash = strchr(path + len, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	f = fopen(path, "w");
	cr_assert_not_null(f, "%s", path);
	fprintf(f, "%s\n", text);
	fclose(f);
}

static void port(const char *device, unsigned number, const char *layer, const char *state)
{
	file(layer, "class/infiniband/%s/ports/%u/link_layer", device, number);
	file(state, "class/infiniband/%s/ports/%u/state", device, number);
	file("100 Gb/sec (4X EDR)", "class/infiniband/%s/ports/%u/rate", device, number);
}

static void gid(const char *device, unsigned number, unsigned i, const char *text, const char *type, const char *interface)
{
	file(text, "class/infiniband/%s/ports/%u/gids/%u", device, number, i);
	file(type, "class/infiniband/%s/ports/%u/gid_attrs/types/%u", device, number, i);
	file(interface, "class/infiniband/%s/ports/%u/gid_attrs/ndevs/%u", device, number, i);
}

#define LOCAL "fe80:0000:0000:0000:5054:00ff:fe12:3456"
#define V4_LOOPBACK "0000:0000:0000:0000:0000:ffff:7f00:0001" /* 127.0.0.1, in 127.0.0.0/8 wherever there is a lo */
#define V4_ELSEWHERE "0000:0000:0000:0000:0000:ffff:cb00:7109" /* 203.0.113.9, which no interface has */

static struct hv_host_fabric *look(void)
{
	struct hv_host_fabric *f = malloc(sizeof(*f));

	cr_assert_not_null(f);
	hv_host_fabric_take(sys, f);
	return f;
}

TestSuite(host_fabric, .init = begin, .fini = end);

Test(host_fabric, nothing_there)
{
	struct hv_host_fabric *f = look();

	cr_expect_eq(f->nics, 0);
	cr_expect_eq(f->rdmas, 0);
	cr_expect(strchr(f->host, '/'), "%s", f->host);
	free(f);
}

Test(host_fabric, interfaces)
{
	struct hv_host_fabric *f;

	file("65536", "class/net/lo/mtu");
	file("9000", "class/net/ens1/mtu");
	file("100000", "class/net/ens1/speed");
	file("up", "class/net/ens1/operstate");
	file("1500", "class/net/ens2/mtu");
	file("down", "class/net/ens2/operstate");
	f = look();
	cr_assert_eq(f->nics, 2, "loopback joins no nodes of several hosts");
	cr_expect_str_eq(f->nic[0].name, "ens1");
	cr_expect_eq(f->nic[0].mtu, 9000);
	cr_expect_eq(f->nic[0].speed_mbit, 100000);
	cr_expect(f->nic[0].up);
	cr_expect_eq(f->nic[1].speed_mbit, -1);
	cr_expect_not(f->nic[1].up);
	free(f);
}

Test(host_fabric, roce_takes_a_version_2_ipv4_address)
{
	struct hv_host_fabric *f;

	file("4200", "class/net/ens1/mtu");
	port("mlx5_0", 1, "Ethernet", "4: ACTIVE");
	gid("mlx5_0", 1, 0, LOCAL, "IB/RoCE v1", "ens1");
	gid("mlx5_0", 1, 1, LOCAL, "RoCE v2", "ens1");
	gid("mlx5_0", 1, 2, V4_ELSEWHERE, "IB/RoCE v1", "ens1");
	gid("mlx5_0", 1, 3, V4_LOOPBACK, "RoCE v2", "ens1");
	gid("mlx5_0", 1, 4, "0000:0000:0000:0000:0000:0000:0000:0000", "", "");
	f = look();
	cr_assert_eq(f->rdmas, 1);
	cr_expect_str_eq(f->rdma[0].device, "mlx5_0");
	cr_expect_str_eq(f->rdma[0].interface, "ens1");
	cr_expect_str_eq(f->rdma[0].address, "127.0.0.1");
	cr_expect_str_eq(f->rdma[0].network, "127.0.0.0/8");
	cr_expect(f->rdma[0].active && f->rdma[0].ethernet);
	cr_expect_eq(f->rdma[0].mtu, 4096);
	/* All files are fine, but there is no such device: it was tried. */
	cr_expect_not(f->rdma[0].usable.ok);
	cr_expect_str_neq(f->rdma[0].usable.why, "");
	free(f);
}

Test(host_fabric, an_address_of_no_interface_is_a_network_of_its_own)
{
	struct hv_host_fabric *f;

	file("1500", "class/net/ens1/mtu");
	port("rxe0", 1, "Ethernet", "4: ACTIVE");
	gid("rxe0", 1, 0, V4_ELSEWHERE, "RoCE v2", "ens1");
	f = look();
	cr_expect_str_eq(f->rdma[0].network, "203.0.113.9/32");
	cr_expect_eq(f->rdma[0].mtu, 1024);
	free(f);
}

Test(host_fabric, what_is_wrong_and_what_mends_it)
{
	struct hv_host_fabric *f;

	port("a", 1, "Ethernet", "4: ACTIVE");
	gid("a", 1, 0, LOCAL, "RoCE v2", "ens1");
	port("b", 1, "Ethernet", "1: DOWN");
	gid("b", 1, 0, V4_LOOPBACK, "RoCE v2", "ens2");
	port("c", 1, "InfiniBand", "2: INIT");
	f = look();
	cr_assert_eq(f->rdmas, 3);
	for (unsigned i = 0; i < 3; i++)
		cr_expect_not(f->rdma[i].usable.ok);
	cr_expect_str_eq(f->rdma[0].usable.why, "port 1 is active, but ens1 has no IP address, and RoCE needs one");
	cr_expect_str_eq(f->rdma[0].usable.fix, "ip address add ADDRESS/LENGTH dev ens1");
	cr_expect_str_eq(f->rdma[1].usable.why, "port 1 is not active (DOWN)");
	cr_expect_str_eq(f->rdma[1].usable.fix, "ip link set ens2 up");
	cr_expect(strstr(f->rdma[2].usable.why, "subnet manager"), "%s", f->rdma[2].usable.why);
	free(f);
}

Test(host_fabric, infiniband_and_the_first_port_that_is_up)
{
	struct hv_host_fabric *f;

	port("mlx4_0", 1, "InfiniBand", "1: DOWN");
	port("mlx4_0", 2, "InfiniBand", "4: ACTIVE");
	gid("mlx4_0", 2, 0, "fe80:0000:0000:0001:0002:c903:0000:1492", "IB/RoCE v1", "");
	port("mlx4_0", 3, "InfiniBand", "4: ACTIVE");
	gid("mlx4_0", 3, 0, "fe80:0000:0000:0001:0002:c903:0000:1493", "IB/RoCE v1", "");
	f = look();
	cr_assert_eq(f->rdmas, 3);
	cr_expect_str_eq(f->rdma[1].network, "InfiniBand-subnet-fe80000000000001");
	cr_expect_str_eq(f->rdma[1].interface, "");
	cr_expect_eq(f->rdma[1].mtu, 0);
	cr_expect_str_eq(f->rdma[2].usable.why, "port 2 of this device is active, too, and comes first");
	free(f);
}

/* Whatever is in those files. */
Test(host_fabric, files_of_another_kind)
{
	char text[600];
	struct hv_host_fabric *f;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	port("rxe0", 1, text, text);
	gid("rxe0", 1, 0, text, text, text);
	file(text, "class/net/ens1/mtu");
	file(text, "class/net/ens1/operstate");
	f = look();
	cr_assert_eq(f->rdmas, 1);
	cr_expect_not(f->rdma[0].usable.ok);
	free(f);
}
