/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/topology.h - what the cluster is: the topology file, and how VMs lie on its nodes.
 *
 * What      Reads a pool and its VMs from YAML, reports every mistake at once, each as
 *           "file:line:col: error: ...".
 * Owns      All strings of a topology live in it and go with cc_topology_free.
 * Threads   None; a topology is const once loaded.
 * Limits    1 MiB of text, depth 16, NODES_MAX nodes, CC_VMS_MAX VMs, CC_DEVICES_MAX disks and nics
 *           each per VM.
 */
#ifndef CLUSTER_CONFIG_TOPOLOGY_H
#define CLUSTER_CONFIG_TOPOLOGY_H

#include "base/err.h"
#include "base/bits.h"
#include "base/types.h"

#include <stdio.h>

#define CC_FILE_MAX (1u << 20)
#define CC_VMS_MAX 32u
#define CC_DEVICES_MAX 8u
#define CC_NAME_MAX 63u             /* bytes of a node, VM or pool name */
#define CC_CMDLINE_MAX 2047u        /* bytes; Linux's COMMAND_LINE_SIZE is 2048 with the NUL */
#define CC_MEMORY_UNIT (2ull << 20) /* shares are whole multiples of this many bytes */
#define CC_BT_VCPUS_MAX 63u           /* of one VM on one node, engine bt (hv/bt/engine.c) */
/* 40 physical address bits (hv/core/cpuid.h) less the hole below */
#define CC_MEMORY_MODEL_MAX ((1ull << 40) - (CC_HOLE_END - CC_HOLE_START))
#define CC_PORT_DEFAULT 7701u
#define CC_DEAD_AFTER_MS 5000u

/* Guest-physical layout: RAM from 0 up to the hole, the rest from the hole's end. */
#define CC_HOLE_START 0xc0000000ull
#define CC_HOLE_END 0x100000000ull

enum cc_engine { CC_ENGINE_AUTO, CC_ENGINE_BT, CC_ENGINE_KVM };
/* How a page that is not here comes to a vCPU of the kvm engine; auto: what the host's probe likes best. */
enum cc_faults { CC_FAULTS_AUTO, CC_FAULTS_INLINE, CC_FAULTS_DISPATCH };
enum cc_numa { CC_NUMA_EXPOSE, CC_NUMA_FLAT };
/* Who decides where vCPUs run: nobody, they stay; unum; unum within the VM's rules. */
enum cc_placement { CC_PLACEMENT_PINNED, CC_PLACEMENT_AUTO, CC_PLACEMENT_RULES };
#define CC_PLACEMENT_DEFAULT CC_PLACEMENT_PINNED

/* A place in the file, both counted from 1; line 0: nowhere (a default or the command line). */
struct cc_mark {
	unsigned line, col;
};

struct cc_node {
	struct cc_mark mark;
	const char *name, *address; /* address: IPv4, IPv6 or host name */
	uint16_t port;              /* of the agent */
	unsigned cpus;              /* lent */
	uint64_t memory, cache; /* bytes lent for guest RAM, bytes beside it for remote pages; cache
				   0: no bound */
	const char *fabric_backend; /* "auto", "tcp", ... */
	const char *fabric_device;  /* NULL: any */
};

struct cc_share {
	unsigned node; /* index into cc_topology.node */
	unsigned vcpus;
	uint64_t memory; /* bytes */
};

struct cc_disk {
	struct cc_mark mark;
	unsigned node;
	const char
		*path; /* absolute, or relative to the folder unum runs in; a path on that node */
	bool readonly;
};

struct cc_nic {
	struct cc_mark mark;
	unsigned node;
	const char *tap;
};

struct cc_vm {
	struct cc_mark mark, kernel_mark, initrd_mark;
	const char *name;
	unsigned vcpus;
	uint64_t memory; /* bytes, sum of the shares */
	enum cc_numa numa;
	enum cc_engine engine;
	enum cc_faults faults;
	bool checksums; /* pages travel with a checksum */
	enum cc_placement placement;
	struct cc_mark rules_mark;	       /* line 0: no rules */
	struct nodeset may_run[VCPUS_MAX];     /* where each vCPU may, indexes into cc_topology.node; empty: anywhere */
	const char *kernel, *initrd, *cmdline; /* initrd NULL: none; cmdline never NULL */
	struct cc_share
		share[NODES_MAX]; /* nodes that take part, in pool order; [0] is the boot node */
	unsigned shares;
	struct cc_disk disk[CC_DEVICES_MAX];
	unsigned disks;
	struct cc_nic nic[CC_DEVICES_MAX];
	unsigned nics;
	unsigned console_node, rng_node; /* index into cc_topology.node; default the boot node */
};

struct cc_topology {
	const char *file; /* as given */
	const char *pool;
	const char *key; /* path of the pool key, NULL: not told */
	unsigned dead_after_ms;
	struct cc_node node[NODES_MAX];
	unsigned nodes;
	struct cc_vm vm[CC_VMS_MAX];
	unsigned vms;
	void *storage;
};

/*
 * Reads and checks `file`; every mistake goes to `errors` as one line, at most 100 of them.
 * Relative paths in the file are resolved against its folder.  What no start would take (a fabric that is
 * not built in, network cards, more than the engines and the CPU model reach) is a mistake, too.  Also opens the kernel, initrd and
 * disks of nodes whose address is this host's: they must exist, and the kernel must be a bzImage or
 * an x86 ELF file. -EINVAL: mistakes were reported (a file that cannot be read is one); -ENOMEM.
 * Blocks on file I/O.
 */
MUST_CHECK int cc_topology_load(const char *file, FILE *errors, struct cc_topology **out);
/* The same for text in memory, by its schema alone, without a look at any file or at what is built in. `file` is the name in messages. */
MUST_CHECK int cc_topology_parse(const char *file, const void *text, size_t len, FILE *errors,
				 struct cc_topology **out);
void cc_topology_free(struct cc_topology *t); /* NULL is fine */
/* NULL when there is none of that name. */
const struct cc_vm *cc_topology_vm(const struct cc_topology *t, const char *name);

/* What `--local N` makes: N nodes on 127.0.0.1, one VM split evenly.  Strings are borrowed, not
 * copied. */
struct cc_local {
	unsigned nodes, vcpus;
	uint64_t memory; /* bytes */
	enum cc_numa numa;
	enum cc_engine engine;
	enum cc_faults faults;
	bool checksums; /* pages travel with a checksum */
	enum cc_placement placement;
	const char *kernel, *initrd, *cmdline; /* initrd may be NULL */
	const char *const *disks;              /* paths, all on the boot node */
	unsigned disks_count;
	const char *fabric; /* NULL: "auto" */
};
/* -EINVAL with one line per mistake in `errors`. */
MUST_CHECK int cc_topology_local(const struct cc_local *spec, FILE *errors,
				 struct cc_topology **out);

/* "512MiB", "4GiB", "64KiB", "2TiB": a whole number and a binary unit, nothing else.  False: not
 * one. */
bool cc_size_parse(const char *text, uint64_t *bytes);

#endif
