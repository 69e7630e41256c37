/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/check.c - what the parts of a topology owe each other: unique names, shares
 *            that add up, nothing lent twice, devices on nodes that take part.
 */
#include "cluster-config/core/schema.h"

#include <stdio.h>
#include <string.h>

#define TAP_MAX 15u /* IFNAMSIZ without the NUL */

static unsigned long long mib(uint64_t bytes)
{
	return (unsigned long long)(bytes >> 20);
}

static void nodes_unique(const struct cc_topology *t, struct cc_diags *d)
{
	for (unsigned i = 0; i < t->nodes; i++)
		for (unsigned j = 0; j < i; j++) {
			const struct cc_node *a = &t->node[j], *b = &t->node[i];

			if (!a->name || !b->name)
				continue;
			if (!strcmp(a->name, b->name))
				cc_diag_add(d, b->mark, "node '%s' is here twice, first in line %u",
					    b->name, a->mark.line);
			else if (a->address && b->address && !strcmp(a->address, b->address) &&
				 a->port == b->port)
				cc_diag_add(d, b->mark,
					    "node '%s' has the address and port of node '%s' "
					    "(%.63s, port %u)",
					    b->name, a->name, b->address, b->port);
		}
}

static void vms_unique(const struct cc_topology *t, struct cc_diags *d)
{
	for (unsigned i = 0; i < t->vms; i++)
		for (unsigned j = 0; j < i; j++)
			if (t->vm[i].name && t->vm[j].name &&
			    !strcmp(t->vm[i].name, t->vm[j].name)) {
				cc_diag_add(d, t->vm[i].mark,
					    "vm '%s' is here twice, first in line %u",
					    t->vm[i].name, t->vm[j].mark.line);
				break;
			}
}

void cc_split(uint64_t total, const uint64_t *weight, unsigned count, uint64_t *part)
{
	uint64_t sum = 0, left = total;

	for (unsigned i = 0; i < count; i++)
		sum += weight[i];
	for (unsigned i = 0; i < count; i++) {
		part[i] = sum ? (uint64_t)((unsigned __int128)total * weight[i] / sum) : 0;
		left -= part[i];
	}
	/* Rounding leaves less than `count` units, and fewer than there is room for when total <=
	 * sum. */
	for (unsigned i = 0; left; i = (i + 1) % count)
		if (part[i] < weight[i] || total > sum) {
			part[i]++;
			left--;
		}
}

static void shares_default(const struct cc_topology *t, struct cc_vm *vm)
{
	uint64_t cpus[NODES_MAX] = { 0 }, memory[NODES_MAX] = { 0 };
	uint64_t vcpus_of[NODES_MAX], memory_of[NODES_MAX];

	for (unsigned i = 0; i < t->nodes; i++) {
		cpus[i] = t->node[i].cpus;
		memory[i] = t->node[i].memory / CC_MEMORY_UNIT;
	}
	cc_split(vm->vcpus, cpus, t->nodes, vcpus_of);
	cc_split(vm->memory / CC_MEMORY_UNIT, memory, t->nodes, memory_of);
	for (unsigned i = 0; i < t->nodes; i++) {
		if (!vcpus_of[i] && !memory_of[i])
			continue;
		vm->share[vm->shares++] = (struct cc_share){
			.node = i,
			.vcpus = (unsigned)vcpus_of[i],
			.memory = memory_of[i] * CC_MEMORY_UNIT,
		};
	}
}

static void shares_sort(struct cc_vm *vm)
{
	for (unsigned i = 1; i < vm->shares; i++)
		for (unsigned j = i; j > 0 && vm->share[j - 1].node > vm->share[j].node; j--) {
			struct cc_share swap = vm->share[j];

			vm->share[j] = vm->share[j - 1];
			vm->share[j - 1] = swap;
		}
}

static void shares_check(const struct cc_topology *t, const struct cc_vm *vm, struct cc_diags *d)
{
	uint64_t memory = 0, vcpus = 0;

	for (unsigned i = 0; i < vm->shares; i++) {
		const struct cc_share *s = &vm->share[i];

		memory += s->memory;
		vcpus += s->vcpus;
		if (!s->memory && !s->vcpus)
			cc_diag_add(d, vm->mark, "vm '%s': the share of node '%s' is nothing",
				    vm->name, t->node[s->node].name);
		if (s->memory % CC_MEMORY_UNIT)
			cc_diag_add(d, vm->mark,
				    "vm '%s': the memory share of node '%s' must be a multiple of "
				    "%lluMiB",
				    vm->name, t->node[s->node].name, mib(CC_MEMORY_UNIT));
	}
	/* The first node of a VM loads the kernel, and its first vCPU starts it. */
	if (vm->shares && !vm->share[0].vcpus)
		cc_diag_add(d, vm->mark, "vm '%s': its first node, '%s', needs a vCPU at least",
			    vm->name, t->node[vm->share[0].node].name);
	if (vcpus != vm->vcpus)
		cc_diag_add(d, vm->mark, "vm '%s': the shares have %llu vCPUs, the vm has %u",
			    vm->name, (unsigned long long)vcpus, vm->vcpus);
	if (memory != vm->memory)
		cc_diag_add(d, vm->mark, "vm '%s': the shares have %lluMiB, the vm has %lluMiB",
			    vm->name, mib(memory), mib(vm->memory));
}

/* False: even the whole pool is too small, so that a split would only add noise. */
static bool vm_fits(const struct cc_topology *t, const struct cc_vm *vm, struct cc_diags *d)
{
	uint64_t memory = 0, cpus = 0;
	bool fits = true;

	for (unsigned i = 0; i < t->nodes; i++) {
		memory += t->node[i].memory / CC_MEMORY_UNIT * CC_MEMORY_UNIT;
		cpus += t->node[i].cpus;
	}
	if (vm->vcpus > cpus) {
		cc_diag_add(d, vm->mark, "vm '%s' wants %u vCPUs; the nodes lend %llu", vm->name,
			    vm->vcpus, (unsigned long long)cpus);
		fits = false;
	}
	if (vm->memory > memory) {
		cc_diag_add(d, vm->mark, "vm '%s' wants %lluMiB; the nodes lend %lluMiB", vm->name,
			    mib(vm->memory), mib(memory));
		fits = false;
	}
	if (vm->memory % CC_MEMORY_UNIT) {
		cc_diag_add(d, vm->mark, "vm '%s': 'memory' must be a multiple of %lluMiB",
			    vm->name, mib(CC_MEMORY_UNIT));
		fits = false;
	}
	return fits;
}

static bool takes_part(const struct cc_vm *vm, unsigned node)
{
	for (unsigned i = 0; i < vm->shares; i++)
		if (vm->share[i].node == node)
			return true;
	return false;
}

static void device_check(const struct cc_topology *t, const struct cc_vm *vm, struct cc_mark mark,
			 const char *what, unsigned node, struct cc_diags *d)
{
	if (!takes_part(vm, node))
		cc_diag_add(d, mark, "vm '%s': node '%s' of the %s has no share in the vm",
			    vm->name, t->node[node].name, what);
}

static void devices_check(const struct cc_topology *t, struct cc_vm *vm, struct cc_diags *d)
{
	if (vm->console_node == NODES_MAX)
		vm->console_node = vm->share[0].node;
	if (vm->rng_node == NODES_MAX)
		vm->rng_node = vm->share[0].node;
	device_check(t, vm, vm->mark, "console", vm->console_node, d);
	device_check(t, vm, vm->mark, "rng", vm->rng_node, d);
	for (unsigned i = 0; i < vm->disks; i++)
		device_check(t, vm, vm->disk[i].mark, "disk", vm->disk[i].node, d);
	for (unsigned i = 0; i < vm->nics; i++) {
		device_check(t, vm, vm->nic[i].mark, "nic", vm->nic[i].node, d);
		if (strlen(vm->nic[i].tap) > TAP_MAX)
			cc_diag_add(d, vm->nic[i].mark, "'tap' is longer than %u bytes", TAP_MAX);
	}
}

/* One fabric joins all nodes of a VM, so they must name the same one, or leave the choice open. */
static void fabric_check(const struct cc_topology *t, const struct cc_vm *vm, struct cc_diags *d)
{
	const struct cc_node *chosen = NULL;

	for (unsigned i = 0; i < vm->shares; i++) {
		const struct cc_node *n = &t->node[vm->share[i].node];

		if (!strcmp(n->fabric_backend, "auto"))
			continue;
		if (chosen && strcmp(n->fabric_backend, chosen->fabric_backend))
			cc_diag_add(d, vm->mark,
				    "vm '%s': node '%s' has the fabric %s, but node '%s' has %s",
				    vm->name, chosen->name, chosen->fabric_backend, n->name,
				    n->fabric_backend);
		else
			chosen = n;
	}
}

/* Rules are about vCPUs that there are and nodes that take part, and somebody must follow them. */
static void rules_check(const struct cc_topology *t, const struct cc_vm *vm, struct cc_diags *d)
{
	struct cc_mark mark = vm->rules_mark;

	if (vm->placement == CC_PLACEMENT_RULES && !mark.line)
		cc_diag_add(d, vm->mark, "vm '%s': 'placement: rules' needs the key 'rules'", vm->name);
	if (vm->placement != CC_PLACEMENT_RULES && mark.line)
		cc_diag_add(d, mark, "vm '%s': 'rules' go with 'placement: rules'", vm->name);
	for (unsigned v = vm->vcpus; v < VCPUS_MAX; v++)
		if (!nodeset_empty(&vm->may_run[v])) {
			cc_diag_add(d, mark, "vm '%s': a rule names vCPU %u, the vm has 0 to %u", vm->name, v,
				    vm->vcpus - 1);
			break;
		}
	for (unsigned n = 0; n < t->nodes; n++)
		for (unsigned v = 0; v < vm->vcpus && !takes_part(vm, n); v++)
			if (nodeset_has(&vm->may_run[v], (node_id)n)) {
				cc_diag_add(d, mark, "vm '%s': a rule names node '%s', which has no share in the vm",
					    vm->name, t->node[n].name);
				break;
			}
}

/* All VMs of a file may run at once, so together they must fit each node. */
static void nodes_lend(const struct cc_topology *t, struct cc_diags *d)
{
	for (unsigned i = 0; i < t->nodes; i++) {
		const struct cc_node *n = &t->node[i];
		uint64_t memory = 0, vcpus = 0;

		for (unsigned v = 0; v < t->vms; v++)
			for (unsigned s = 0; s < t->vm[v].shares; s++)
				if (t->vm[v].share[s].node == i) {
					memory += t->vm[v].share[s].memory;
					vcpus += t->vm[v].share[s].vcpus;
				}
		if (vcpus > n->cpus)
			cc_diag_add(d, n->mark, "node '%s' lends %u CPUs; the vms take %llu",
				    n->name, n->cpus, (unsigned long long)vcpus);
		if (memory > n->memory)
			cc_diag_add(d, n->mark, "node '%s' lends %lluMiB; the vms take %lluMiB",
				    n->name, mib(n->memory), mib(memory));
	}
}

void cc_schema_check(struct cc_topology *t, const struct cc_sound *sound, struct cc_diags *d)
{
	bool all_fit = true;

	nodes_unique(t, d);
	vms_unique(t, d);
	if (!sound->nodes)
		return;
	for (unsigned i = 0; i < t->vms; i++) {
		struct cc_vm *vm = &t->vm[i];

		if (!sound->vm[i] || !vm_fits(t, vm, d)) {
			all_fit = false;
			continue;
		}
		if (!vm->shares)
			shares_default(t, vm);
		shares_sort(vm);
		shares_check(t, vm, d);
		devices_check(t, vm, d);
		fabric_check(t, vm, d);
		rules_check(t, vm, d);
	}
	if (all_fit)
		nodes_lend(t, d);
}
