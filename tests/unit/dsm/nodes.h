/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/dsm/nodes.h - nodes of one memory in one process, joined over a fabric.
 *
 * Threads   nodes_open and nodes_close: one.
 * Limits    A node whose peer is lost stops, unless the test is closing its nodes.
 */
#ifndef TESTS_UNIT_DSM_NODES_H
#define TESTS_UNIT_DSM_NODES_H

#include "base/clock.h"
#include "dsm/dsm.h"

#include <string.h>
#include <unistd.h>

struct node {
	struct ic_fabric *f;
	struct dsm *d; /* NULL: the test speaks for it */
	char address[IC_ADDR_MAX];
	_Atomic unsigned up;
	_Atomic bool closing;
	_Atomic unsigned damaged; /* pages that came with a wrong checksum, and the last one's frame */
	_Atomic gfn_t where;
};

struct nodes_spec {
	unsigned nodes;
	const char *backend;
	const struct dsm_range *ranges;
	unsigned ranges_count;
	uint64_t cache_pages;
	enum dsm_mapping mapping;
	enum dsm_faults faults;
	bool uffd_copy, checksums;
	bool apart;    /* not joined */
	unsigned mute; /* bit of each node that gets a fabric only */
	void (*on_test)(void *node, node_id from, const struct ic_msg *msg); /* IC_PORT_TEST */
};

static inline void nodes_on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct node *n = arg;

	if (event == IC_PEER_UP)
		n->up++;
	else if (n->d && !n->closing)
		dsm_peer_lost(n->d, peer);
}

static inline void nodes_on_damage(void *arg, node_id from, gfn_t gfn)
{
	struct node *n = arg;

	(void)from;
	n->where = gfn;
	n->damaged++;
}

/* 0 or the first error.  All links are up when it returns. */
static inline int nodes_open(struct node *n, const struct nodes_spec *spec)
{
	int err = 0;

	memset(n, 0, spec->nodes * sizeof(*n));
	for (unsigned i = 0; i < spec->nodes && !err; i++) {
		struct ic_config ic = { .self = (node_id)i,
					.nodes = spec->nodes,
					.backend = spec->backend,
					.vm_id = 5,
					.listen = strcmp(spec->backend, "tcp") ? "" : "127.0.0.1:0",
					.on_peer = nodes_on_peer,
					.arg = &n[i] };
		struct dsm_config cfg = { .self = (node_id)i,
					  .nodes = spec->nodes,
					  .ranges = spec->ranges,
					  .ranges_count = spec->ranges_count,
					  .cache_pages = spec->cache_pages,
					  .mapping = spec->mapping,
					  .faults = spec->faults,
					  .uffd_copy = spec->uffd_copy,
					  .checksums = spec->checksums,
					  .on_damage = nodes_on_damage,
					  .arg = &n[i] };

		err = ic_open(&ic, &n[i].f);
		if (err)
			return err;
		ic_address(n[i].f, n[i].address);
		if (spec->on_test)
			ic_set_handler(n[i].f, IC_PORT_TEST, (struct ic_handler){ spec->on_test, &n[i] });
		cfg.fabric = n[i].f;
		if (!(spec->mute >> i & 1))
			err = dsm_open(&cfg, &n[i].d);
	}
	for (unsigned i = 0; i < spec->nodes && !spec->apart; i++)
		for (unsigned k = 0; k < spec->nodes && !err; k++)
			if (i != k)
				err = ic_join(n[i].f, (node_id)k, n[k].address);
	for (unsigned i = 0; i < spec->nodes && !spec->apart && !err;) {
		for (unsigned k = 0; k < spec->nodes; k++)
			if (spec->mute >> k & 1)
				ic_progress(n[k].f, 16);
		if (n[i].up == spec->nodes - 1)
			i++;
		else
			usleep(100);
	}
	return err;
}

static inline void nodes_close(struct node *n, unsigned nodes)
{
	for (unsigned i = 0; i < nodes; i++) {
		n[i].closing = true; /* the others' end is no loss */
		if (n[i].d)
			dsm_stop(n[i].d);
	}
	for (unsigned i = 0; i < nodes; i++)
		if (n[i].d)
			dsm_close(n[i].d);
	for (unsigned i = 0; i < nodes; i++)
		ic_close(n[i].f);
}

static inline struct dsm_stats stats_of(struct node *n)
{
	struct dsm_stats st;

	dsm_stats(n->d, &st);
	return st;
}

#endif
