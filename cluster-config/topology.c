/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/topology.c - reads a topology file, reports its mistakes, looks at the files it
 *            names.
 *
 * Owns      The text and all strings of a topology, freed together.
 * I/O       Reads the topology, the first bytes of kernels; opens initrds and disks; no network.
 */
#include "base/assert.h"
#include "cluster-config/core/schema.h"
#include "cluster-config/files.h"
#include "cluster-config/topology_yaml.h"
#include "interconnect/fabric.h"

#include <stdlib.h>
#include <string.h>

#define STRINGS_MAX (CC_VMS_MAX * (2 + CC_DEVICES_MAX) + 2)

/* What a topology's strings live in. */
struct storage {
	struct cc_yaml *yaml;
	char *string[STRINGS_MAX];
	unsigned strings;
	char text[NODES_MAX][16]; /* names that cc_topology_local makes */
};

static int topology_new(struct cc_topology **out)
{
	struct cc_topology *t = calloc(1, sizeof(*t));
	struct storage *s = calloc(1, sizeof(*s));

	if (!t || !s) {
		free(t);
		free(s);
		return -ENOMEM;
	}
	t->storage = s;
	*out = t;
	return 0;
}

void cc_topology_free(struct cc_topology *t)
{
	struct storage *s;

	if (!t)
		return;
	s = t->storage;
	cc_yaml_free(s->yaml);
	for (unsigned i = 0; i < s->strings; i++)
		free(s->string[i]);
	free(s);
	free(t);
}

static void diags_print(const char *file, struct cc_diags *d, FILE *errors)
{
	cc_diags_sort(d);
	for (unsigned i = 0; i < d->count; i++) {
		const struct cc_diag *g = &d->diag[i];

		if (g->mark.line)
			fprintf(errors, "%s:%u:%u: error: %s\n", file, g->mark.line, g->mark.col,
				g->text);
		else
			fprintf(errors, "%s: error: %s\n", file, g->text);
	}
	if (d->dropped)
		fprintf(errors, "%s: error: and %u more\n", file, d->dropped);
}

/* Keeps `text` (heap) until the topology goes. */
static const char *string_keep(struct cc_topology *t, char *text)
{
	struct storage *s = t->storage;

	ASSERT(s->strings < STRINGS_MAX);
	if (text)
		s->string[s->strings++] = text;
	return text;
}

/* A path of the file as seen from here. -ENOMEM */
static int path_resolve(struct cc_topology *t, const char **path)
{
	const char *slash = strrchr(t->file, '/');
	char *full;

	if (!*path || **path == '/' || !slash)
		return 0;
	if (asprintf(&full, "%.*s/%s", (int)(slash - t->file), t->file, *path) < 0)
		return -ENOMEM;
	*path = string_keep(t, full);
	return 0;
}

static int paths_resolve(struct cc_topology *t)
{
	int err = path_resolve(t, &t->key);

	for (unsigned i = 0; i < t->vms && !err; i++) {
		struct cc_vm *vm = &t->vm[i];

		err = path_resolve(t, &vm->kernel);
		if (!err)
			err = path_resolve(t, &vm->initrd);
		for (unsigned k = 0; k < vm->disks && !err; k++)
			err = path_resolve(t, &vm->disk[k].path);
	}
	return err;
}

/* Files of nodes that are this host: they can be looked at before anything starts. */
static void files_check(const struct cc_topology *t, const struct cc_sound *sound,
			struct cc_diags *d)
{
	char why[CC_FILES_WHY_MAX];

	for (unsigned i = 0; i < t->vms; i++) {
		const struct cc_vm *vm = &t->vm[i];
		const char *boot = vm->shares ? t->node[vm->share[0].node].address : NULL;

		if (!sound->vm[i])
			continue;
		if (boot && cc_address_is_local(boot)) {
			if (cc_kernel_check(vm->kernel, why))
				cc_diag_add(d, vm->kernel_mark, "kernel %s: %s", vm->kernel, why);
			if (vm->initrd && cc_file_check(vm->initrd, false, why))
				cc_diag_add(d, vm->initrd_mark, "initrd %s: %s", vm->initrd, why);
		}
		for (unsigned k = 0; k < vm->disks; k++)
			if (cc_address_is_local(t->node[vm->disk[k].node].address) &&
			    cc_file_check(vm->disk[k].path, !vm->disk[k].readonly, why))
				cc_diag_add(d, vm->disk[k].mark, "disk %s: %s", vm->disk[k].path,
					    why);
	}
}

static bool backend_built(const char *name)
{
	for (const char *const *b = ic_backend_names(); *b; b++)
		if (!strcmp(*b, name))
			return true;
	return !strcmp(name, "auto");
}

static void node_start_check(const struct cc_topology *t, const struct cc_vm *vm,
			     const struct cc_share *share, struct cc_diags *d)
{
	const struct cc_node *n = &t->node[share->node];

	if (vm->engine != CC_ENGINE_KVM && share->vcpus > CC_BT_VCPUS_MAX)
		cc_diag_add(d, vm->mark,
			    "vm '%s' has %u vCPUs on node '%s'; the bt engine runs %u on a node, "
			    "`engine: kvm` more",
			    vm->name, share->vcpus, n->name, CC_BT_VCPUS_MAX);
	if (vm->shares < 2)
		return;
	if (!backend_built(n->fabric_backend))
		cc_diag_add(d, n->mark, "node '%s': the fabric %s is not built in", n->name,
			    n->fabric_backend);
	else if (!strcmp(n->fabric_backend, "shm") && !cc_address_is_local(n->address))
		cc_diag_add(d, n->mark,
			    "node '%s': the fabric shm joins nodes of one host, and %s is not an "
			    "address of this host",
			    n->name, n->address);
}

/* What a file may say, and no start of a VM would take: better told now. */
static void start_check(const struct cc_topology *t, const struct cc_sound *sound,
			struct cc_diags *d)
{
	for (unsigned i = 0; i < t->vms; i++) {
		const struct cc_vm *vm = &t->vm[i];

		if (!sound->vm[i])
			continue;
		for (unsigned k = 0; k < vm->shares; k++)
			node_start_check(t, vm, &vm->share[k], d);
		for (unsigned k = 0; k < vm->nics; k++)
			cc_diag_add(d, vm->nic[k].mark,
				    "vm '%s': there are no network cards for guests yet", vm->name);
		if (vm->memory > CC_MEMORY_MODEL_MAX)
			cc_diag_add(d, vm->mark,
				    "vm '%s' wants %lluGiB; the guest's CPUs reach %lluGiB",
				    vm->name, (unsigned long long)vm->memory >> 30,
				    CC_MEMORY_MODEL_MAX >> 30);
	}
}

static int topology_read(const char *file, const void *text, size_t len, bool look,
			 struct cc_diags *d, struct cc_topology *t)
{
	struct storage *s = t->storage;
	struct cc_sound sound;
	struct cc_tree tree;
	int err;

	t->file = string_keep(t, strdup(file));
	if (!t->file)
		return -ENOMEM;
	err = cc_yaml_read(text, len, d, &s->yaml);
	if (err)
		return err;
	tree = cc_yaml_tree(s->yaml);
	cc_schema_read(&tree, t, &sound, d);
	cc_schema_check(t, &sound, d);
	err = paths_resolve(t);
	if (err)
		return err;
	if (look && sound.nodes) {
		start_check(t, &sound, d);
		files_check(t, &sound, d);
	}
	return d->count ? -EINVAL : 0;
}

static int topology_make(const char *file, const void *text, size_t len, bool look, FILE *errors,
			 struct cc_topology **out)
{
	struct cc_diags *d = calloc(1, sizeof(*d));
	struct cc_topology *t = NULL;
	int err = d ? topology_new(&t) : -ENOMEM;

	if (!err)
		err = topology_read(file, text, len, look, d, t);
	if (d)
		diags_print(file, d, errors);
	free(d);
	if (err) {
		cc_topology_free(t);
		return err;
	}
	*out = t;
	return 0;
}

int cc_topology_parse(const char *file, const void *text, size_t len, FILE *errors,
		      struct cc_topology **out)
{
	return topology_make(file, text, len, false, errors, out);
}

int cc_topology_load(const char *file, FILE *errors, struct cc_topology **out)
{
	char *text;
	size_t len;
	int err = cc_file_read(file, CC_FILE_MAX + 1, &text, &len);

	if (err) {
		fprintf(errors, "%s: error: %s\n", file, strerror(-err));
		return err == -ENOMEM ? err : -EINVAL;
	}
	err = topology_make(file, text, len, true, errors, out);
	free(text);
	return err;
}

const struct cc_vm *cc_topology_vm(const struct cc_topology *t, const char *name)
{
	for (unsigned i = 0; i < t->vms; i++)
		if (!strcmp(t->vm[i].name, name))
			return &t->vm[i];
	return NULL;
}

/* --- --local ---------------------------------------------------------------------------------- */

static void local_fill(const struct cc_local *spec, struct cc_topology *t)
{
	struct storage *s = t->storage;
	struct cc_vm *vm = &t->vm[0];

	t->file = "--local";
	t->pool = "local";
	t->dead_after_ms = CC_DEAD_AFTER_MS;
	t->nodes = spec->nodes;
	for (unsigned i = 0; i < spec->nodes; i++) {
		snprintf(s->text[i], sizeof(s->text[i]), "n%u", i);
		t->node[i] = (struct cc_node){
			.name = s->text[i],
			.address = "127.0.0.1",
			.port = (uint16_t)(i +
					   1), /* only to be unlike; the agents take free ones */
			.cpus = (spec->vcpus + spec->nodes - 1) / spec->nodes,
			.memory = spec->memory,
			.fabric_backend = spec->fabric ? spec->fabric : "auto",
		};
	}
	t->vms = 1;
	vm->name = "local";
	vm->vcpus = spec->vcpus;
	vm->memory = spec->memory;
	vm->numa = spec->numa;
	vm->engine = spec->engine;
	vm->faults = spec->faults;
	vm->checksums = spec->checksums;
	vm->placement = spec->placement;
	vm->kernel = spec->kernel;
	vm->initrd = spec->initrd;
	vm->cmdline = spec->cmdline ? spec->cmdline : "";
	vm->console_node = NODES_MAX;
	vm->rng_node = NODES_MAX;
	vm->disks = spec->disks_count;
	for (unsigned i = 0; i < vm->disks; i++)
		vm->disk[i].path = spec->disks[i];
}

/* Numbers that the file's schema would have refused. */
static void local_check(const struct cc_local *spec, struct cc_diags *d)
{
	struct cc_mark nowhere = { 0 };

	if (spec->nodes < 1 || spec->nodes > NODES_MAX)
		cc_diag_add(d, nowhere, "the number of nodes must be from 1 to %d", NODES_MAX);
	if (spec->vcpus < 1 || spec->vcpus > VCPUS_MAX)
		cc_diag_add(d, nowhere, "--vcpus must be from 1 to %d", VCPUS_MAX);
	if (spec->memory < 32ull << 20 || spec->memory > 64ull << 40)
		cc_diag_add(d, nowhere, "--memory must be from 32MiB to 64TiB");
	if (!spec->kernel)
		cc_diag_add(d, nowhere, "--kernel is missing");
	if (spec->cmdline && strlen(spec->cmdline) > CC_CMDLINE_MAX)
		cc_diag_add(d, nowhere, "--cmdline is longer than %u bytes", CC_CMDLINE_MAX);
	if (spec->disks_count > CC_DEVICES_MAX)
		cc_diag_add(d, nowhere, "more than %u disks", CC_DEVICES_MAX);
}

int cc_topology_local(const struct cc_local *spec, FILE *errors, struct cc_topology **out)
{
	static const struct cc_sound sound = { .nodes = true, .vm[0] = true };
	struct cc_diags *d = calloc(1, sizeof(*d));
	struct cc_topology *t = NULL;
	int err = d ? topology_new(&t) : -ENOMEM;

	if (!err) {
		local_check(spec, d);
		if (!d->count) {
			local_fill(spec, t);
			cc_schema_check(t, &sound, d);
		}
		if (!d->count)
			start_check(t, &sound, d);
		if (!d->count)
			files_check(t, &sound, d);
		err = d->count ? -EINVAL : 0;
		diags_print("unum", d, errors);
	}
	free(d);
	if (err) {
		cc_topology_free(t);
		return err;
	}
	*out = t;
	return 0;
}
