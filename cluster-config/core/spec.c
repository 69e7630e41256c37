/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/core/spec.c - lays a VM's memory, vCPUs and devices over its nodes; see spec.h. */
#include "cluster-config/core/spec.h"

#include <string.h>

node_id cc_spec_node(const struct cc_vm *vm, unsigned node)
{
	for (unsigned i = 0; i < vm->shares; i++)
		if (vm->share[i].node == node)
			return (node_id)i;
	return NODE_NONE;
}

/* The shares one after the other from address 0; the one that meets the hole goes on behind it. */
static void ranges_lay(const struct cc_vm *vm, struct cc_vm_spec *spec)
{
	gpa_t at = 0;

	for (unsigned i = 0; i < vm->shares; i++) {
		uint64_t left = vm->share[i].memory;

		while (left) {
			uint64_t len = left;

			if (at == CC_HOLE_START)
				at = CC_HOLE_END;
			if (at < CC_HOLE_START && len > CC_HOLE_START - at)
				len = CC_HOLE_START - at;
			spec->range[spec->ranges++] = (struct cc_range){
				.first = at >> PAGE_SHIFT,
				.count = len >> PAGE_SHIFT,
				.node = (node_id)i,
			};
			at += len;
			left -= len;
		}
	}
}

static void device_put(struct cc_vm_spec *spec, enum cc_device_kind kind, node_id node,
		       bool readonly, const char *path)
{
	spec->device[spec->devices++] = (struct cc_device){ kind, node, readonly, path };
}

static void devices_lay(const struct cc_vm *vm, struct cc_vm_spec *spec)
{
	node_id console = cc_spec_node(vm, vm->console_node);

	device_put(spec, CC_DEV_SERIAL, console, false, "");
	device_put(spec, CC_DEV_CONSOLE, console, false, "");
	device_put(spec, CC_DEV_RNG, cc_spec_node(vm, vm->rng_node), false, "");
	for (unsigned i = 0; i < vm->disks; i++)
		device_put(spec, CC_DEV_BLK, cc_spec_node(vm, vm->disk[i].node),
			   vm->disk[i].readonly, vm->disk[i].path);
	for (unsigned i = 0; i < vm->nics; i++)
		device_put(spec, CC_DEV_NET, cc_spec_node(vm, vm->nic[i].node), false,
			   vm->nic[i].tap);
}

static void rules_lay(const struct cc_vm *vm, struct cc_vm_spec *spec)
{
	spec->ruled = vm->rules_mark.line > 0;
	for (unsigned v = 0; v < spec->vcpus && spec->ruled; v++)
		for (unsigned i = 0; i < vm->shares; i++)
			if (nodeset_empty(&vm->may_run[v]) || nodeset_has(&vm->may_run[v], (node_id)vm->share[i].node))
				nodeset_add(&spec->may_run[v], (node_id)i);
}

/* The schema allows only one choice beside auto among the nodes of a VM. */
const char *cc_spec_backend(const struct cc_topology *t, const struct cc_vm *vm)
{
	for (unsigned i = 0; i < vm->shares; i++)
		if (strcmp(t->node[vm->share[i].node].fabric_backend, "auto"))
			return t->node[vm->share[i].node].fabric_backend;
	return "auto";
}

/* What a node lends and no VM has a share in. */
static uint64_t spare_bytes(const struct cc_topology *t, unsigned node)
{
	uint64_t used = 0;

	for (unsigned v = 0; v < t->vms; v++)
		for (unsigned i = 0; i < t->vm[v].shares; i++)
			if (t->vm[v].share[i].node == node)
				used += t->vm[v].share[i].memory;
	return used < t->node[node].memory ? t->node[node].memory - used : 0;
}

void cc_spec_make(const struct cc_topology *t, const struct cc_vm *vm, node_id self,
		  struct cc_vm_spec *spec)
{
	const struct cc_node *node = &t->node[vm->share[self].node];

	memset(spec, 0, sizeof(*spec));
	spec->name = vm->name;
	spec->self = self;
	spec->nodes = vm->shares;
	for (unsigned i = 0; i < vm->shares; i++) {
		spec->node_name[i] = t->node[vm->share[i].node].name;
		for (unsigned k = 0; k < vm->share[i].vcpus; k++)
			spec->vcpu_node[spec->vcpus++] = (node_id)i;
	}
	ranges_lay(vm, spec);
	devices_lay(vm, spec);
	spec->cache_pages = node->cache >> PAGE_SHIFT;
	spec->spare_pages = spare_bytes(t, vm->share[self].node) >> PAGE_SHIFT;
	spec->numa = vm->numa;
	spec->engine = vm->engine;
	spec->faults = vm->faults;
	spec->checksums = vm->checksums;
	spec->placement = vm->placement;
	spec->place_trace = "";
	rules_lay(vm, spec);
	spec->cpu_features = "";
	spec->kernel = self == 0 ? vm->kernel : "";
	spec->initrd = self == 0 && vm->initrd ? vm->initrd : "";
	spec->cmdline = vm->cmdline;
	spec->fabric_backend = cc_spec_backend(t, vm);
	spec->fabric_device = node->fabric_device ? node->fabric_device : "";
	spec->fabric_listen = "";
	spec->dead_after_ms = t->dead_after_ms;
}
