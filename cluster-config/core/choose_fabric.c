/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/core/choose_fabric.c - what joins the nodes of a VM; see choose_fabric.h. Pure. */
#include "cluster-config/core/choose_fabric.h"

#include <stdio.h>
#include <string.h>

struct nodes {
	const struct cc_fabric_facts *const *facts;
	const char *const *name, *const *device;
	unsigned count;
};

static bool one_host(const struct nodes *n)
{
	for (unsigned i = 0; i < n->count; i++)
		if (*n->facts[i]->unknown || !*n->facts[i]->host || strcmp(n->facts[i]->host, n->facts[0]->host))
			return false;
	return true;
}

static bool port_named(const struct nodes *n, unsigned i, unsigned k)
{
	return !*n->device[i] || !strcmp(n->device[i], n->facts[i]->rdma[k].device);
}

/* Node i may and can use its port k. */
static bool port_fits(const struct nodes *n, unsigned i, unsigned k)
{
	return n->facts[i]->rdma[k].ok && port_named(n, i, k);
}

static bool port_any(const struct nodes *n, unsigned i)
{
	for (unsigned k = 0; !*n->facts[i]->unknown && k < n->facts[i]->rdmas; k++)
		if (port_fits(n, i, k))
			return true;
	return false;
}

/* Why node i has no port to use. */
static void no_port(const struct nodes *n, unsigned i, char out[static CC_FABRIC_WHY_MAX])
{
	const struct cc_fabric_facts *f = n->facts[i];
	const struct cc_rdma_port *bad = NULL;

	for (unsigned k = 0; !*f->unknown && !bad && k < f->rdmas; k++)
		if (port_named(n, i, k))
			bad = &f->rdma[k];
	if (*f->unknown)
		snprintf(out, CC_FABRIC_WHY_MAX, "node %s: %s", n->name[i], f->unknown);
	else if (bad)
		snprintf(out, CC_FABRIC_WHY_MAX, "node %s: RDMA device %s: %s", n->name[i], bad->device, bad->why);
	else
		snprintf(out, CC_FABRIC_WHY_MAX, "node %s: no RDMA device%s%s", n->name[i], *n->device[i] ? " " : "",
			 n->device[i]);
}

/* The device of node i on that network; NULL: none. */
static const char *device_on(const struct nodes *n, unsigned i, const char *network)
{
	for (unsigned k = 0; k < n->facts[i]->rdmas; k++)
		if (port_fits(n, i, k) && !strcmp(n->facts[i]->rdma[k].network, network))
			return n->facts[i]->rdma[k].device;
	return NULL;
}

/* All nodes have a port on this one. */
static bool network_take(const struct nodes *n, const char *network, struct cc_fabric_choice *out)
{
	for (unsigned i = 0; i < n->count; i++) {
		out->device[i] = device_on(n, i, network);
		if (!out->device[i])
			return false;
	}
	out->backend = "verbs";
	snprintf(out->why, sizeof(out->why), "RDMA on %s", network);
	return true;
}

static bool verbs_take(const struct nodes *n, struct cc_fabric_choice *out)
{
	for (unsigned i = 0; i < n->count; i++)
		if (!port_any(n, i)) {
			no_port(n, i, out->why);
			return false;
		}
	for (unsigned k = 0; k < n->facts[0]->rdmas; k++)
		if (port_fits(n, 0, k) && network_take(n, n->facts[0]->rdma[k].network, out))
			return true;
	snprintf(out->why, sizeof(out->why), "the nodes' RDMA ports have no network in common");
	return false;
}

void cc_fabric_choose(const struct cc_fabric_facts *const *facts, const char *const *name, const char *const *device,
		      unsigned count, struct cc_fabric_choice *out)
{
	const struct nodes n = { facts, name, device, count };

	*out = (struct cc_fabric_choice){ .backend = "tcp" };
	if (one_host(&n)) {
		out->backend = "shm";
		snprintf(out->why, sizeof(out->why), "all nodes on one host");
	} else if (verbs_take(&n, out)) {
		return;
	}
	for (unsigned i = 0; i < count; i++)
		out->device[i] = "";
}
