/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_fabric.c - what joins this host to others: interfaces, RDMA ports, backends; see host_facts.h.
 *
 * I/O       Small files of sysfs, the interfaces' addresses; a backend that is tried opens its library and device.
 * Sources   Documentation/ABI/stable/sysfs-class-infiniband of Linux 6.1; ip(8) for the words.
 */
#include "hv/host_facts.h"

#include "interconnect/fabric.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 256u
#define GIDS_MAX 64u
#define RDMA_HEADERS 96u /* of IP, UDP and RDMA, at most, in an Ethernet frame (RoCE version 2, annex A17) */

__attribute__((format(printf, 3, 4))) static void line_at(char *out, size_t size, const char *format, ...)
{
	char path[PATH_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	if (hv_host_line(path, out, size))
		out[0] = 0;
}

/* Names in a folder, in order, so that the same host tells the same each time. */
static unsigned folder_read(const char *path, char name[][32], unsigned max)
{
	struct dirent **e;
	int count = scandir(path, &e, NULL, alphasort);
	unsigned n = 0;

	for (int i = 0; i < count; i++) {
		if (e[i]->d_name[0] != '.' && strlen(e[i]->d_name) < 32 && n < max)
			strcpy(name[n++], e[i]->d_name);
		free(e[i]);
	}
	if (count >= 0)
		free(e);
	return n;
}

/* --- addresses ------------------------------------------------------------------------------------------------ */

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static bool is_v4(const uint8_t ip[static 16])
{
	return !memcmp(ip, v4_prefix, sizeof(v4_prefix));
}

static bool is_link_local(const uint8_t ip[static 16])
{
	return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

/* As an IPv6 address, IPv4 mapped; -1: of no other kind. */
static int ip_of(const struct sockaddr *sa, uint8_t ip[static 16])
{
	if (sa && sa->sa_family == AF_INET) {
		memcpy(ip, v4_prefix, sizeof(v4_prefix));
		memcpy(ip + 12, &((const struct sockaddr_in *)sa)->sin_addr, 4);
		return 0;
	}
	if (!sa || sa->sa_family != AF_INET6)
		return -1;
	memcpy(ip, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
	return 0;
}

/* Bits of the prefix, in the address's own size. */
static unsigned prefix_bits(const struct ifaddrs *a)
{
	const uint8_t *mask;
	unsigned bytes, bits = 0;

	if (!a->ifa_netmask)
		return a->ifa_addr->sa_family == AF_INET ? 32 : 128;
	if (a->ifa_addr->sa_family == AF_INET) {
		mask = (const uint8_t *)&((const struct sockaddr_in *)a->ifa_netmask)->sin_addr;
		bytes = 4;
	} else {
		mask = (const uint8_t *)&((const struct sockaddr_in6 *)a->ifa_netmask)->sin6_addr;
		bytes = 16;
	}
	for (unsigned i = 0; i < bytes; i++)
		bits += (unsigned)__builtin_popcount(mask[i]);
	return bits;
}

static void ip_text(const uint8_t ip[static 16], unsigned bits, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (is_v4(ip))
		inet_ntop(AF_INET, ip + 12, text, sizeof(text));
	else
		inet_ntop(AF_INET6, ip, text, sizeof(text));
	snprintf(out, size, "%s/%u", text, bits);
}

/* The network that an address of this host is in; one that no interface has is a network of its own. */
static void network_of(const struct ifaddrs *all, const uint8_t ip[static 16], char *out, size_t size)
{
	unsigned bits = is_v4(ip) ? 32 : 128, skip = is_v4(ip) ? 96 : 0;
	uint8_t other[16], net[16];

	for (const struct ifaddrs *a = all; a; a = a->ifa_next)
		if (!ip_of(a->ifa_addr, other) && !memcmp(other, ip, 16)) {
			bits = prefix_bits(a);
			break;
		}
	memcpy(net, ip, 16);
	for (unsigned i = skip + bits; i < 128; i++)
		net[i / 8] &= (uint8_t)~(0x80 >> i % 8);
	ip_text(net, bits, out, size);
}

/* --- interfaces ----------------------------------------------------------------------------------------------- */

static void addresses_take(const struct ifaddrs *all, struct hv_nic *nic)
{
	size_t used = 0;

	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		uint8_t ip[16];
		char text[64];

		if (strcmp(a->ifa_name, nic->name) || ip_of(a->ifa_addr, ip) || is_link_local(ip))
			continue;
		ip_text(ip, prefix_bits(a), text, sizeof(text));
		if (used + strlen(text) + 2 > sizeof(nic->addresses))
			break;
		used += (size_t)sprintf(nic->addresses + used, "%s%s", used ? " " : "", text);
	}
}

static void nics_take(const char *sys, const struct ifaddrs *all, struct hv_host_fabric *f)
{
	char name[HV_NICS_MAX][32], text[PATH_BYTES];
	unsigned n;

	snprintf(text, sizeof(text), "%s/class/net", sys);
	n = folder_read(text, name, HV_NICS_MAX);
	for (unsigned i = 0; i < n; i++) {
		struct hv_nic *nic = &f->nic[f->nics];

		if (!strcmp(name[i], "lo"))
			continue;
		f->nics++;
		strcpy(nic->name, name[i]);
		line_at(text, sizeof(text), "%s/class/net/%.31s/mtu", sys, name[i]);
		nic->mtu = (unsigned)strtoul(text, NULL, 10);
		line_at(text, sizeof(text), "%s/class/net/%.31s/speed", sys, name[i]);
		nic->speed_mbit = *text ? (int)strtol(text, NULL, 10) : -1;
		line_at(text, sizeof(text), "%s/class/net/%.31s/operstate", sys, name[i]);
		nic->up = !strcmp(text, "up");
		addresses_take(all, nic);
	}
}

/* --- RDMA ports ----------------------------------------------------------------------------------------------- */

/* As interconnect/paths/verbs.c: RoCE version 2 before 1, IPv4 before others, link-local last. */
static int gid_rank(const uint8_t gid[static 16], const char *type)
{
	return (strcmp(type, "IB/RoCE v1") ? 4 : 1) + (is_v4(gid) ? 2 : is_link_local(gid) ? 0 : 1);
}

static bool gid_take(const char *dir, uint8_t best[static 16], char interface[static 32])
{
	char text[64], type[32];
	uint8_t gid[16];
	static const uint8_t zero[16];
	int rank = -1;

	for (unsigned i = 0; i < GIDS_MAX; i++) {
		line_at(text, sizeof(text), "%s/gids/%u", dir, i);
		/* Entries that are not in use have no type. */
		line_at(type, sizeof(type), "%s/gid_attrs/types/%u", dir, i);
		if (!*type || inet_pton(AF_INET6, text, gid) != 1 || !memcmp(gid, zero, 16) || gid_rank(gid, type) <= rank)
			continue;
		rank = gid_rank(gid, type);
		memcpy(best, gid, 16);
		line_at(interface, 32, "%s/gid_attrs/ndevs/%u", dir, i);
	}
	return rank >= 0;
}

/* The largest packet that fits the interface's frames. */
static unsigned roce_mtu(const char *sys, const char *interface)
{
	unsigned mtu = 4096, frame;
	char text[32];

	line_at(text, sizeof(text), "%s/class/net/%.31s/mtu", sys, interface);
	frame = (unsigned)strtoul(text, NULL, 10);
	while (mtu > 256 && mtu + RDMA_HEADERS > frame)
		mtu /= 2;
	return *interface && frame ? mtu : 0;
}

static void port_refuse(struct hv_rdma_port *p, const char *fix, const char *why, const char *more)
{
	p->usable.ok = false;
	snprintf(p->usable.why, sizeof(p->usable.why), "%s%s", why, more);
	snprintf(p->usable.fix, sizeof(p->usable.fix), "%s", fix);
}

/* What the files say of it, without a look at the device. */
static void port_judge(struct hv_rdma_port *p)
{
	char why[96], fix[96] = "";

	p->usable.ok = p->active && *p->network;
	if (!p->active) {
		snprintf(why, sizeof(why), "port %u is not active (%s)", p->number, *p->state ? p->state : "?");
		if (p->ethernet && *p->interface)
			snprintf(fix, sizeof(fix), "ip link set %s up", p->interface);
		port_refuse(p, fix, why, p->ethernet ? "" : "; it takes a cable and a subnet manager (opensm)");
	} else if (!*p->network) {
		snprintf(why, sizeof(why), "port %u is active, but %s has no IP address, and RoCE needs one", p->number,
			 *p->interface ? p->interface : "its interface");
		snprintf(fix, sizeof(fix), "ip address add ADDRESS/LENGTH dev %s",
			 *p->interface ? p->interface : "INTERFACE");
		port_refuse(p, fix, why, "");
	}
}

static void port_take(const char *sys, const char *device, const char *number, const struct ifaddrs *all,
		      struct hv_rdma_port *p)
{
	char dir[PATH_BYTES], text[64];
	uint8_t gid[16];

	snprintf(dir, sizeof(dir), "%.100s/class/infiniband/%.31s/ports/%.31s", sys, device, number);
	snprintf(p->device, sizeof(p->device), "%.31s", device);
	p->number = (unsigned)strtoul(number, NULL, 10);
	line_at(text, sizeof(text), "%s/link_layer", dir);
	p->ethernet = !strcmp(text, "Ethernet");
	line_at(text, sizeof(text), "%s/state", dir); /* "4: ACTIVE" */
	p->active = strstr(text, "ACTIVE") && !strstr(text, "DEFER");
	snprintf(p->state, sizeof(p->state), "%.15s", strchr(text, ' ') ? strchr(text, ' ') + 1 : text);
	line_at(p->rate, sizeof(p->rate), "%s/rate", dir);
	if (gid_take(dir, gid, p->interface)) {
		if (!p->ethernet) {
			snprintf(p->network, sizeof(p->network), "InfiniBand-subnet-%02x%02x%02x%02x%02x%02x%02x%02x", gid[0],
				 gid[1], gid[2], gid[3], gid[4], gid[5], gid[6], gid[7]);
		} else if (!is_link_local(gid)) {
			network_of(all, gid, p->network, sizeof(p->network));
		}
		inet_ntop(is_v4(gid) ? AF_INET : AF_INET6, is_v4(gid) ? gid + 12 : gid, p->address, sizeof(p->address));
	}
	if (!p->ethernet)
		p->interface[0] = 0;
	else
		p->mtu = roce_mtu(sys, p->interface);
	port_judge(p);
}

/* verbs takes the first port of a device that is up. */
static void ports_compare(struct hv_host_fabric *f)
{
	char text[96];

	for (unsigned i = 0; i < f->rdmas; i++)
		for (unsigned k = 0; k < i; k++)
			if (f->rdma[k].active && f->rdma[i].usable.ok && !strcmp(f->rdma[k].device, f->rdma[i].device)) {
				snprintf(text, sizeof(text), "port %u of this device is active, too, and comes first",
					 f->rdma[k].number);
				port_refuse(&f->rdma[i], "", text, "");
			}
}

static void rdma_take(const char *sys, const struct ifaddrs *all, struct hv_host_fabric *f)
{
	char device[HV_RDMA_MAX][32], number[HV_RDMA_MAX][32], path[PATH_BYTES];
	unsigned devices, ports;

	snprintf(path, sizeof(path), "%s/class/infiniband", sys);
	devices = folder_read(path, device, HV_RDMA_MAX);
	for (unsigned i = 0; i < devices; i++) {
		snprintf(path, sizeof(path), "%s/class/infiniband/%.31s/ports", sys, device[i]);
		ports = folder_read(path, number, HV_RDMA_MAX);
		for (unsigned k = 0; k < ports && f->rdmas < HV_RDMA_MAX; k++)
			port_take(sys, device[i], number[k], all, &f->rdma[f->rdmas++]);
	}
	ports_compare(f);
}

/* --- backends ------------------------------------------------------------------------------------------------- */

static const struct {
	const char *backend, *packages;
} packages[] = {
	{ "verbs", "apt-get install libibverbs1 ibverbs-providers" },
	{ "ofi", "apt-get install libfabric1" },
	{ "ucx", "apt-get install libucx0" },
};

static void backend_try(const char *name, const char *device, struct kvm_verdict *v, char *offers, size_t size)
{
	int err = ic_backend_try(name, device, offers, size);

	*v = (struct kvm_verdict){ .ok = !err };
	if (!err)
		return;
	snprintf(v->why, sizeof(v->why), "%s", err == -ENODEV ? "no device for it" : *offers ? offers : strerror(-err));
	for (size_t i = 0; err == -ELIBACC && i < ARRAY_LEN(packages); i++)
		if (!strcmp(packages[i].backend, name))
			snprintf(v->fix, sizeof(v->fix), "%s", packages[i].packages);
	if (err == -EACCES || err == -EPERM)
		snprintf(v->fix, sizeof(v->fix), "let the agent's user read and write /dev/infiniband");
	*offers = 0;
}

unsigned hv_host_backends_try(const struct hv_host_fabric *f, struct hv_backend out[static HV_BACKENDS_MAX])
{
	const char *const *name = ic_backend_names();
	unsigned n = 0;

	for (; name[n] && n < HV_BACKENDS_MAX; n++) {
		out[n] = (struct hv_backend){ .name = name[n], .works.why = "there is no RDMA device" };
		if (f->rdmas || strcmp(name[n], "verbs"))
			backend_try(name[n], "", &out[n].works, out[n].offers, sizeof(out[n].offers));
	}
	return n;
}

/* --- all of it ------------------------------------------------------------------------------------------------ */

/* Abstract unix sockets live in a network namespace, memory in a kernel. */
static void host_take(struct hv_host_fabric *f)
{
	char boot[48];
	struct stat net = { 0 };

	if (hv_host_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) || !*boot || stat("/proc/self/ns/net", &net))
		return;
	snprintf(f->host, sizeof(f->host), "%s/%llu", boot, (unsigned long long)net.st_ino);
}

void hv_host_fabric_take(const char *sys, struct hv_host_fabric *f)
{
	struct ifaddrs *all = NULL;
	char text[256];

	*f = (struct hv_host_fabric){ 0 };
	if (getifaddrs(&all))
		all = NULL;
	host_take(f);
	nics_take(sys, all, f);
	rdma_take(sys, all, f);
	if (all)
		freeifaddrs(all);
	for (unsigned i = 0; i < f->rdmas; i++)
		if (f->rdma[i].usable.ok)
			backend_try("verbs", f->rdma[i].device, &f->rdma[i].usable, text, sizeof(text));
}
