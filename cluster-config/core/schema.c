/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/schema.c - which keys a topology file has, and what each may hold.
 *
 * What      One const table per kind of mapping; one walker reads them all.
 */
#include "cluster-config/core/field.h"

#include <string.h>

#define FIELDS_MAX 24u
#define MEMORY_MIN (32ull << 20)
#define MEMORY_MAX (64ull << 40)

static const struct cc_tree_node *child(const struct cc_walk *w, const struct cc_tree_node *n)
{
	return n->first == CC_TREE_NONE ? NULL : &w->tree->node[n->first];
}

static const struct cc_tree_node *sibling(const struct cc_walk *w, const struct cc_tree_node *n)
{
	return n->next == CC_TREE_NONE ? NULL : &w->tree->node[n->next];
}

/* --- references and kinds --------------------------------------------------------------------- */

static bool node_find(const struct cc_topology *t, const char *name, unsigned *index)
{
	for (unsigned i = 0; i < t->nodes; i++)
		if (t->node[i].name && !strcmp(t->node[i].name, name)) {
			*index = i;
			return true;
		}
	return false;
}

static void node_take(struct cc_walk *w, const struct cc_tree_node *v, unsigned *member)
{
	const char *names[NODES_MAX], *near;
	unsigned count = 0;

	if (node_find(w->t, v->text, member))
		return;
	for (unsigned i = 0; i < w->t->nodes; i++)
		if (w->t->node[i].name)
			names[count++] = w->t->node[i].name;
	near = cc_nearest(v->text, names, count);
	cc_diag_add(w->d, v->mark, "there is no node '%.63s'%s%s%s", v->text,
		    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* --- mappings and sequences ------------------------------------------------------------------- */

static const char *const kind_names[] = { "a single value", "a mapping of keys to values",
					  "a list" };

static bool kind_check(struct cc_walk *w, const char *name, const struct cc_tree_node *v,
		       enum cc_tree_kind kind)
{
	if (v->kind == kind)
		return true;
	if (v->kind == CC_TREE_BAD)
		return false;
	cc_diag_add(w->d, v->mark, "'%s' must be %s, not %s", name, kind_names[kind],
		    v->kind == CC_TREE_SCALAR && !*v->text ? "empty" : kind_names[v->kind]);
	return false;
}

static void field_take(struct cc_walk *w, const struct cc_field *f, const struct cc_tree_node *v,
		       void *object)
{
	void *member = (char *)object + f->offset;

	if (f->type == F_OTHER) {
		f->take(w, v, object);
		return;
	}
	if (!kind_check(w, f->name, v, CC_TREE_SCALAR))
		return;
	if (f->type == F_NODE)
		node_take(w, v, member);
	else
		cc_field_scalar(f, v, member, w->d);
}

static void unknown_key(struct cc_walk *w, const struct cc_field *fields, unsigned count,
			const struct cc_tree_node *key)
{
	const char *names[FIELDS_MAX], *near;

	for (unsigned i = 0; i < count; i++)
		names[i] = fields[i].name;
	near = cc_nearest(key->text, names, count);
	cc_diag_add(w->d, key->mark, "unknown key '%.40s'%s%s%s", key->text,
		    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* Reads the mapping `n` into `object`.  `only` and `but`: take that field alone, or all but it
 * (NULL: no such limit). */
static void map_take(struct cc_walk *w, const struct cc_field *fields, unsigned count,
		     const struct cc_tree_node *n, void *object, const char *only, const char *but)
{
	struct cc_mark seen[FIELDS_MAX] = { 0 };

	for (const struct cc_tree_node *key = child(w, n), *v; key; key = sibling(w, v)) {
		unsigned i = 0;

		v = sibling(w, key);
		while (i < count &&
		       (key->kind != CC_TREE_SCALAR || strcmp(fields[i].name, key->text)))
			i++;
		if (i < count &&
		    ((only && strcmp(only, key->text)) || (but && !strcmp(but, key->text)))) {
			seen[i] = key->mark;
			continue;
		}
		if (only && i == count)
			continue;
		if (key->kind == CC_TREE_BAD)
			continue;
		if (key->kind != CC_TREE_SCALAR) {
			cc_diag_add(w->d, key->mark, "a key must be a word");
		} else if (i == count) {
			unknown_key(w, fields, count, key);
		} else if (seen[i].line) {
			cc_diag_add(w->d, key->mark, "key '%s' is here twice, first in line %u",
				    key->text, seen[i].line);
		} else {
			seen[i] = key->mark;
			field_take(w, &fields[i], v, object);
		}
	}
	for (unsigned i = 0; i < count && !only; i++)
		if (fields[i].required && !seen[i].line)
			cc_diag_add(w->d, n->mark, "missing key '%s'", fields[i].name);
}

#define MAP_TAKE(w, fields, n, object) map_take(w, fields, ARRAY_LEN(fields), n, object, NULL, NULL)

static unsigned mistakes(const struct cc_diags *d)
{
	return d->count + d->dropped;
}

/* --- nodes ------------------------------------------------------------------------------------ */

#define NODE_AT(member) offsetof(struct cc_node, member)
#define VM_AT(member) offsetof(struct cc_vm, member)
#define TOP_AT(member) offsetof(struct cc_topology, member)

static const char *const backend_words[] = { "auto", "tcp", "shm", "verbs", "ofi", "ucx", NULL };

struct fabric_object {
	unsigned backend;
	const char *device;
};
static const struct cc_field fabric_fields[] = {
	{ "backend", F_ENUM, .required = true, offsetof(struct fabric_object, backend),
	  .words = backend_words },
	{ "device", F_TEXT, .offset = offsetof(struct fabric_object, device) },
};

static void fabric_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_node *node = object;
	struct fabric_object fabric = { 0 };

	if (!kind_check(w, "fabric", v, CC_TREE_MAP))
		return;
	MAP_TAKE(w, fabric_fields, v, &fabric);
	node->fabric_backend = backend_words[fabric.backend];
	node->fabric_device = fabric.device;
}

static const struct cc_field node_fields[] = {
	{ "name", F_NAME, .required = true, .offset = NODE_AT(name) },
	{ "address", F_ADDRESS, .required = true, .offset = NODE_AT(address) },
	{ "port", F_PORT, .offset = NODE_AT(port), .min = 1, .max = 65535 },
	{ "cpus", F_UINT, .required = true, .offset = NODE_AT(cpus), .min = 1, .max = 4096 },
	{ "memory", F_SIZE, .required = true, .offset = NODE_AT(memory), .min = MEMORY_MIN,
	  .max = MEMORY_MAX },
	{ "cache", F_SIZE, .offset = NODE_AT(cache), .min = 1 << 20, .max = MEMORY_MAX },
	{ "fabric", F_OTHER, .take = fabric_take },
};

static void nodes_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_topology *t = object;

	if (!kind_check(w, "nodes", v, CC_TREE_SEQ))
		return;
	if (!child(w, v))
		cc_diag_add(w->d, v->mark, "'nodes' is empty");
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		struct cc_node *node = &t->node[t->nodes];

		if (!kind_check(w, "nodes[]", n, CC_TREE_MAP))
			continue;
		if (t->nodes == NODES_MAX) {
			cc_diag_add(w->d, n->mark, "more than %d nodes", NODES_MAX);
			return;
		}
		t->nodes++;
		node->mark = n->mark;
		node->port = CC_PORT_DEFAULT;
		node->fabric_backend = backend_words[0];
		MAP_TAKE(w, node_fields, n, node);
	}
}

/* --- VMs -------------------------------------------------------------------------------------- */

#define SHARE_AT(member) offsetof(struct cc_share, member)
static const struct cc_field share_fields[] = {
	{ "vcpus", F_UINT, .required = true, .offset = SHARE_AT(vcpus), .max = VCPUS_MAX },
	{ "memory", F_SIZE, .required = true, .offset = SHARE_AT(memory), .max = MEMORY_MAX },
};

static void shares_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_vm *vm = object;
	unsigned line_of[NODES_MAX] = { 0 };

	if (!kind_check(w, "shares", v, CC_TREE_MAP))
		return;
	if (!child(w, v))
		cc_diag_add(w->d, v->mark, "'shares' is empty");
	for (const struct cc_tree_node *key = child(w, v), *value; key; key = sibling(w, value)) {
		struct cc_share share = { .node = NODES_MAX };

		value = sibling(w, key);
		if (!kind_check(w, "shares", key, CC_TREE_SCALAR) ||
		    !kind_check(w, key->text, value, CC_TREE_MAP))
			continue;
		node_take(w, key, &share.node);
		MAP_TAKE(w, share_fields, value, &share);
		if (share.node == NODES_MAX)
			continue;
		if (line_of[share.node]) {
			cc_diag_add(w->d, key->mark, "key '%s' is here twice, first in line %u",
				    key->text, line_of[share.node]);
			continue;
		}
		line_of[share.node] = key->mark.line;
		vm->share[vm->shares++] = share;
	}
}

static const struct cc_field place_fields[] = { { "node", F_NODE, .required = true } };

static void place_take(struct cc_walk *w, const char *name, const struct cc_tree_node *v,
		       unsigned *node)
{
	if (kind_check(w, name, v, CC_TREE_MAP))
		MAP_TAKE(w, place_fields, v, node);
}

static void console_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	place_take(w, "console", v, &((struct cc_vm *)object)->console_node);
}

static void rng_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	place_take(w, "rng", v, &((struct cc_vm *)object)->rng_node);
}

static const struct cc_field disk_fields[] = {
	{ "node", F_NODE, .required = true, .offset = offsetof(struct cc_disk, node) },
	{ "path", F_TEXT, .required = true, .offset = offsetof(struct cc_disk, path) },
	{ "readonly", F_BOOL, .offset = offsetof(struct cc_disk, readonly) },
};

static void disks_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_vm *vm = object;

	if (!kind_check(w, "disks", v, CC_TREE_SEQ))
		return;
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		if (!kind_check(w, "disks[]", n, CC_TREE_MAP))
			continue;
		if (vm->disks == CC_DEVICES_MAX) {
			cc_diag_add(w->d, n->mark, "more than %u disks", CC_DEVICES_MAX);
			return;
		}
		vm->disk[vm->disks].mark = n->mark;
		MAP_TAKE(w, disk_fields, n, &vm->disk[vm->disks++]);
	}
}

static const struct cc_field nic_fields[] = {
	{ "node", F_NODE, .required = true, .offset = offsetof(struct cc_nic, node) },
	{ "tap", F_NAME, .required = true, .offset = offsetof(struct cc_nic, tap) },
};

static void nics_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_vm *vm = object;

	if (!kind_check(w, "nics", v, CC_TREE_SEQ))
		return;
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		if (!kind_check(w, "nics[]", n, CC_TREE_MAP))
			continue;
		if (vm->nics == CC_DEVICES_MAX) {
			cc_diag_add(w->d, n->mark, "more than %u nics", CC_DEVICES_MAX);
			return;
		}
		vm->nic[vm->nics].mark = n->mark;
		MAP_TAKE(w, nic_fields, n, &vm->nic[vm->nics++]);
	}
}

static void kernel_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	static const struct cc_field f = { "kernel", F_TEXT, .offset = VM_AT(kernel) };

	((struct cc_vm *)object)->kernel_mark = v->mark;
	field_take(w, &f, v, object);
}

static void initrd_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	static const struct cc_field f = { "initrd", F_TEXT, .offset = VM_AT(initrd) };

	((struct cc_vm *)object)->initrd_mark = v->mark;
	field_take(w, &f, v, object);
}

/* "0-3,6" to bits.  False: a mistake, which is told. */
static bool vcpus_take(struct cc_walk *w, const struct cc_tree_node *v, bool bit[VCPUS_MAX])
{
	const char *at = v->text;

	for (;;) {
		unsigned n[2] = { 0, 0 };

		for (unsigned i = 0; i < 2; i++) {
			const char *digits = at;

			for (; *at >= '0' && *at <= '9' && at - digits < 3; at++)
				n[i] = n[i] * 10 + (unsigned)(*at - '0');
			if (at == digits)
				goto bad;
			if (i || *at != '-') {
				n[1] = i ? n[1] : n[0];
				break;
			}
			at++;
		}
		if (n[0] > n[1] || n[1] >= VCPUS_MAX)
			goto bad;
		for (unsigned i = n[0]; i <= n[1]; i++)
			bit[i] = true;
		if (!*at)
			return true;
		if (*at++ != ',')
			goto bad;
	}
bad:
	cc_diag_add(w->d, v->mark, "'vcpus' must be numbers and ranges of vCPUs like 0-3,6, not '%.40s'", v->text);
	return false;
}

struct rule_object {
	bool vcpu[VCPUS_MAX];
	struct nodeset nodes;
};

static void rule_vcpus_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct rule_object *rule = object;

	if (kind_check(w, "vcpus", v, CC_TREE_SCALAR) && !vcpus_take(w, v, rule->vcpu))
		memset(rule->vcpu, 0, sizeof(rule->vcpu));
}

static void rule_nodes_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct rule_object *rule = object;

	if (!kind_check(w, "nodes", v, CC_TREE_SEQ))
		return;
	if (!child(w, v))
		cc_diag_add(w->d, v->mark, "'nodes' is empty");
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		unsigned node = NODES_MAX;

		if (!kind_check(w, "nodes[]", n, CC_TREE_SCALAR))
			continue;
		node_take(w, n, &node);
		if (node < NODES_MAX)
			nodeset_add(&rule->nodes, (node_id)node);
	}
}

static const struct cc_field rule_fields[] = {
	{ "vcpus", F_OTHER, .required = true, .take = rule_vcpus_take },
	{ "nodes", F_OTHER, .required = true, .take = rule_nodes_take },
};

static void rules_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_vm *vm = object;

	vm->rules_mark = v->mark;
	if (!kind_check(w, "rules", v, CC_TREE_SEQ))
		return;
	if (!child(w, v))
		cc_diag_add(w->d, v->mark, "'rules' is empty");
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		struct rule_object rule = { 0 };

		if (!kind_check(w, "rules[]", n, CC_TREE_MAP))
			continue;
		MAP_TAKE(w, rule_fields, n, &rule);
		for (unsigned i = 0; i < VCPUS_MAX && !nodeset_empty(&rule.nodes); i++) {
			if (!rule.vcpu[i])
				continue;
			if (!nodeset_empty(&vm->may_run[i])) {
				cc_diag_add(w->d, n->mark, "vCPU %u is in an earlier rule, too", i);
				break;
			}
			vm->may_run[i] = rule.nodes;
		}
	}
}

static const char *const placement_words[] = { "pinned", "auto", "rules", NULL };
static const char *const numa_words[] = { "expose", "flat", NULL };
static const char *const engine_words[] = { "auto", "bt", "kvm", NULL };
static const char *const faults_words[] = { "auto", "inline", "dispatch", NULL };

static const struct cc_field vm_fields[] = {
	{ "name", F_NAME, .required = true, .offset = VM_AT(name) },
	{ "vcpus", F_UINT, .required = true, .offset = VM_AT(vcpus), .min = 1, .max = VCPUS_MAX },
	{ "memory", F_SIZE, .required = true, .offset = VM_AT(memory), .min = MEMORY_MIN,
	  .max = MEMORY_MAX },
	{ "numa", F_ENUM, .offset = VM_AT(numa), .words = numa_words },
	{ "engine", F_ENUM, .offset = VM_AT(engine), .words = engine_words },
	{ "faults", F_ENUM, .offset = VM_AT(faults), .words = faults_words },
	{ "checksums", F_BOOL, .offset = VM_AT(checksums) },
	{ "placement", F_ENUM, .offset = VM_AT(placement), .words = placement_words },
	{ "rules", F_OTHER, .take = rules_take },
	{ "kernel", F_OTHER, .required = true, .take = kernel_take },
	{ "initrd", F_OTHER, .take = initrd_take },
	{ "cmdline", F_CMDLINE, .offset = VM_AT(cmdline) },
	{ "shares", F_OTHER, .take = shares_take },
	{ "console", F_OTHER, .take = console_take },
	{ "rng", F_OTHER, .take = rng_take },
	{ "disks", F_OTHER, .take = disks_take },
	{ "nics", F_OTHER, .take = nics_take },
};

static void vms_take(struct cc_walk *w, const struct cc_tree_node *v, void *object)
{
	struct cc_topology *t = object;
	unsigned before;

	if (!kind_check(w, "vms", v, CC_TREE_SEQ))
		return;
	for (const struct cc_tree_node *n = child(w, v); n; n = sibling(w, n)) {
		struct cc_vm *vm = &t->vm[t->vms];

		if (!kind_check(w, "vms[]", n, CC_TREE_MAP))
			continue;
		if (t->vms == CC_VMS_MAX) {
			cc_diag_add(w->d, n->mark, "more than %u vms", CC_VMS_MAX);
			return;
		}
		t->vms++;
		vm->mark = n->mark;
		vm->cmdline = "";
		vm->placement = CC_PLACEMENT_DEFAULT;
		vm->console_node = NODES_MAX; /* not told: cc_schema_check takes the boot node */
		vm->rng_node = NODES_MAX;
		before = mistakes(w->d);
		MAP_TAKE(w, vm_fields, n, vm);
		w->sound->vm[vm - t->vm] = mistakes(w->d) == before;
	}
}

/* --- the file --------------------------------------------------------------------------------- */

static const struct cc_field top_fields[] = {
	{ "pool", F_NAME, .required = true, .offset = TOP_AT(pool) },
	{ "key", F_TEXT, .offset = TOP_AT(key) },
	{ "dead_after", F_DURATION, .offset = TOP_AT(dead_after_ms), .min = 1000, .max = 60000 },
	{ "nodes", F_OTHER, .required = true, .take = nodes_take },
	{ "vms", F_OTHER, .required = true, .take = vms_take },
};

void cc_schema_read(const struct cc_tree *tree, struct cc_topology *t, struct cc_sound *sound,
		    struct cc_diags *d)
{
	struct cc_walk w = { .tree = tree, .t = t, .sound = sound, .d = d };
	const struct cc_tree_node *root = &tree->node[0];
	unsigned before = mistakes(d);

	t->dead_after_ms = CC_DEAD_AFTER_MS;
	*sound = (struct cc_sound){ 0 };
	if (root->kind != CC_TREE_MAP) {
		cc_diag_add(d, root->mark,
			    "the file must be a mapping with the keys pool, nodes and vms");
		return;
	}
	/* Nodes first, wherever they stand: VMs name them. */
	map_take(&w, top_fields, ARRAY_LEN(top_fields), root, t, "nodes", NULL);
	sound->nodes = t->nodes > 0 && mistakes(d) == before;
	map_take(&w, top_fields, ARRAY_LEN(top_fields), root, t, NULL, "nodes");
	if (before) /* parts were left out without a word, so nothing can be compared */
		*sound = (struct cc_sound){ 0 };
}
