/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_topology.c - files that are right, and what is made of them. */
#include "cluster-config/core/schema.h"
#include "cluster-config/core/spec.h"
#include "interconnect/fabric.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL "pool: lab\n"
#define NODES                                                                                      \
	"nodes:\n"                                                                                 \
	"  - { name: alpha, address: 198.51.100.1, cpus: 4, memory: 4GiB }\n"                      \
	"  - { name: beta, address: 198.51.100.2, cpus: 2, memory: 2GiB, cache: 1GiB, port: 99,\n" \
	"      fabric: { backend: verbs, device: rxe0 } }\n"
#define VM(more) "vms:\n  - { name: big, vcpus: 6, memory: 6GiB, kernel: k, initrd: i" more " }\n"

static struct cc_topology *parse(const char *text)
{
	struct cc_topology *t = NULL;
	char *errors = NULL;
	size_t len;
	FILE *f = open_memstream(&errors, &len);
	int err = cc_topology_parse("dir/lab.yaml", text, strlen(text), f, &t);

	fclose(f);
	cr_assert_eq(err, 0, "%s", errors);
	free(errors);
	return t;
}

Test(topology, all_fields)
{
	struct cc_topology *t = parse("key: secret\ndead_after: 1500ms\n" POOL NODES VM(
		", numa: flat, engine: bt, cmdline: 'a b', console: { node: beta }, rng: { node: "
		"beta },"
		" disks: [ { node: beta, path: d, readonly: true }, { node: alpha, path: /abs } ],"
		" nics: [ { node: alpha, tap: tap0 } ]"));
	const struct cc_vm *vm = cc_topology_vm(t, "big");

	cr_assert_not_null(vm);
	cr_expect_null(cc_topology_vm(t, "small"));
	cr_expect_str_eq(t->pool, "lab");
	cr_expect_str_eq(t->key, "dir/secret");
	cr_expect_eq(t->dead_after_ms, 1500);
	cr_assert_eq(t->nodes, 2);
	cr_expect_str_eq(t->node[0].name, "alpha");
	cr_expect_eq(t->node[0].port, CC_PORT_DEFAULT);
	cr_expect_str_eq(t->node[0].fabric_backend, "auto");
	cr_expect_eq(t->node[0].cache, 0);
	cr_expect_eq(t->node[1].mark.line, 6);
	cr_expect_eq(t->node[1].mark.col, 5);
	cr_expect_eq(t->node[1].port, 99);
	cr_expect_eq(t->node[1].cache, 1ull << 30);
	cr_expect_str_eq(t->node[1].fabric_backend, "verbs");
	cr_expect_str_eq(t->node[1].fabric_device, "rxe0");
	cr_expect_eq(vm->vcpus, 6);
	cr_expect_eq(vm->memory, 6ull << 30);
	cr_expect_eq(vm->numa, CC_NUMA_FLAT);
	cr_expect_eq(vm->engine, CC_ENGINE_BT);
	cr_expect_str_eq(vm->kernel, "dir/k");
	cr_expect_str_eq(vm->initrd, "dir/i");
	cr_expect_str_eq(vm->cmdline, "a b");
	cr_expect_eq(vm->console_node, 1);
	cr_expect_eq(vm->rng_node, 1);
	cr_assert_eq(vm->disks, 2);
	cr_expect_str_eq(vm->disk[0].path, "dir/d");
	cr_expect(vm->disk[0].readonly);
	cr_expect_str_eq(vm->disk[1].path, "/abs");
	cr_expect_not(vm->disk[1].readonly);
	cr_expect_eq(vm->disk[1].node, 0);
	cr_assert_eq(vm->nics, 1);
	cr_expect_str_eq(vm->nic[0].tap, "tap0");
	cc_topology_free(t);
}

Test(topology, vms_may_come_first_and_shares_are_split_by_what_is_lent)
{
	struct cc_topology *t = parse(VM("") NODES POOL);
	const struct cc_vm *vm = &t->vm[0];

	cr_assert_eq(vm->shares, 2);
	cr_expect_eq(vm->share[0].vcpus, 4);
	cr_expect_eq(vm->share[0].memory, 4ull << 30);
	cr_expect_eq(vm->share[1].vcpus, 2);
	cr_expect_eq(vm->share[1].memory, 2ull << 30);
	cr_expect_eq(vm->console_node, 0);
	cr_expect_str_eq(vm->cmdline, "");
	cc_topology_free(t);
}

Test(topology, shares_are_kept_in_pool_order)
{
	struct cc_topology *t = parse(
		POOL NODES "vms:\n  - name: big\n    vcpus: 3\n    memory: 3GiB\n    kernel: k\n"
			   "    shares: { beta: { vcpus: 2, memory: 1GiB }, alpha: { vcpus: 1, "
			   "memory: 2GiB } }\n");
	const struct cc_vm *vm = &t->vm[0];

	cr_assert_eq(vm->shares, 2);
	cr_expect_eq(vm->share[0].node, 0);
	cr_expect_eq(vm->share[0].vcpus, 1);
	cr_expect_eq(vm->share[1].node, 1);
	cr_expect_eq(vm->share[1].memory, 1ull << 30);
	cr_expect_null(vm->initrd);
	cc_topology_free(t);
}

Test(topology, a_vm_may_leave_nodes_out)
{
	struct cc_topology *t = parse(
		POOL NODES "vms:\n  - name: big\n    vcpus: 2\n    memory: 1GiB\n    kernel: k\n"
			   "    shares: { beta: { vcpus: 2, memory: 1GiB } }\n");
	struct cc_vm_spec *spec = malloc(sizeof(*spec));

	cc_spec_make(t, &t->vm[0], 0, spec);
	cr_expect_eq(spec->nodes, 1);
	cr_expect_str_eq(spec->node_name[0], "beta");
	cr_expect_eq(cc_spec_node(&t->vm[0], 0), NODE_NONE);
	cr_expect_eq(cc_spec_node(&t->vm[0], 1), 0);
	cr_expect_eq(t->vm[0].console_node, 1);
	free(spec);
	cc_topology_free(t);
}

Test(spec, memory_steps_over_the_hole)
{
	struct cc_topology *t = parse(POOL NODES VM(""));
	struct cc_vm_spec *spec = malloc(sizeof(*spec));
	uint64_t frames = 0;

	cc_spec_make(t, &t->vm[0], 1, spec);
	cr_assert_eq(spec->ranges, 3); /* alpha below the hole, its rest, beta */
	cr_expect_eq(spec->range[0].first, 0);
	cr_expect_eq(spec->range[0].count, CC_HOLE_START >> PAGE_SHIFT);
	cr_expect_eq(spec->range[1].first, CC_HOLE_END >> PAGE_SHIFT);
	cr_expect_eq(spec->range[1].node, 0);
	cr_expect_eq(spec->range[2].first, spec->range[1].first + spec->range[1].count);
	cr_expect_eq(spec->range[2].node, 1);
	for (unsigned i = 0; i < spec->ranges; i++)
		frames += spec->range[i].count;
	cr_expect_eq(frames, (6ull << 30) >> PAGE_SHIFT);
	cr_expect_eq(spec->self, 1);
	cr_expect_eq(spec->vcpus, 6);
	cr_expect_eq(spec->vcpu_node[3], 0);
	cr_expect_eq(spec->vcpu_node[4], 1);
	cr_expect_eq(spec->cache_pages, (1ull << 30) >> PAGE_SHIFT);
	cr_expect_str_eq(spec->kernel, "", "only the boot node loads");
	cr_expect_str_eq(spec->initrd, "");
	cr_expect_str_eq(spec->fabric_backend, "verbs", "alpha says auto, beta decides");
	cr_expect_str_eq(spec->fabric_device, "rxe0");
	cc_spec_make(t, &t->vm[0], 0, spec);
	cr_expect_str_eq(spec->kernel, "dir/k");
	cr_expect_str_eq(spec->initrd, "dir/i");
	cr_expect_eq(spec->cache_pages, 0);
	free(spec);
	cc_topology_free(t);
}

Test(spec, every_node_sees_the_same_devices)
{
	struct cc_topology *t = parse(
		POOL NODES VM(", console: { node: beta }, disks: [ { node: beta, path: /d } ]"));
	struct cc_vm_spec *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
	static const enum cc_device_kind kinds[] = { CC_DEV_SERIAL, CC_DEV_CONSOLE, CC_DEV_RNG,
						     CC_DEV_BLK };
	static const node_id nodes[] = { 1, 1, 0, 1 };

	cc_spec_make(t, &t->vm[0], 0, a);
	cc_spec_make(t, &t->vm[0], 1, b);
	cr_assert_eq(a->devices, 4);
	cr_assert_eq(b->devices, 4);
	for (unsigned i = 0; i < 4; i++) {
		cr_expect_eq(a->device[i].kind, kinds[i]);
		cr_expect_eq(a->device[i].node, nodes[i]);
		cr_expect_eq(b->device[i].kind, kinds[i]);
		cr_expect_eq(b->device[i].node, nodes[i]);
	}
	cr_expect_str_eq(b->device[3].path, "/d");
	free(a);
	free(b);
	cc_topology_free(t);
}

Test(split, proportional_complete_and_within_what_is_lent)
{
	/* all small cases at once: sums hold, nobody gives more than he has */
	for (uint64_t a = 0; a <= 6; a++)
		for (uint64_t b = 0; b <= 6; b++)
			for (uint64_t c = 0; c <= 6; c++)
				for (uint64_t total = 0; total <= a + b + c; total++) {
					uint64_t weight[3] = { a, b, c }, part[3];

					cc_split(total, weight, 3, part);
					cr_assert_eq(part[0] + part[1] + part[2], total);
					for (unsigned i = 0; i < 3; i++)
						cr_assert_leq(part[i], weight[i]);
				}
}

Test(split, even_shares_stay_even)
{
	uint64_t weight[4] = { 8, 8, 8, 8 }, part[4];

	cc_split(12, weight, 4, part);
	for (unsigned i = 0; i < 4; i++)
		cr_expect_eq(part[i], 3);
	cc_split(5, weight, 4, part);
	cr_expect_eq(part[0], 2);
	cr_expect_eq(part[3], 1);
}

Test(size, units)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} cases[] = {
		{ "1KiB", 1024 },
		{ "512MiB", 512ull << 20 },
		{ "4GiB", 4ull << 30 },
		{ "2TiB", 2ull << 40 },
		{ "4GB", 0 },
		{ "4G", 0 },
		{ "4", 0 },
		{ "GiB", 0 },
		{ "-1GiB", 0 },
		{ "1.5GiB", 0 },
		{ "01GiB", 0 },
		{ "4 GiB", 0 },
		{ "4GiB ", 0 },
		{ "", 0 },
		{ "99999999TiB", 0 },
		{ "18446744073709551617KiB", 0 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t bytes = 0;
		bool ok = cc_size_parse(cases[i].text, &bytes);

		cr_expect_eq(ok, cases[i].bytes != 0, "%s", cases[i].text);
		cr_expect_eq(bytes, cases[i].bytes, "%s", cases[i].text);
	}
}

Test(nearest, guesses)
{
	static const char *const words[] = { "vcpus", "memory", "kernel" };

	cr_expect_str_eq(cc_nearest("vcpu", words, 3), "vcpus");
	cr_expect_str_eq(cc_nearest("memroy", words, 3), "memory");
	cr_expect_null(cc_nearest("colour", words, 3));
	cr_expect_null(cc_nearest("", words, 3));
	cr_expect_null(cc_nearest("a-word-that-is-far-longer-than-any-key-could-be", words, 3));
}

Test(local, splits_evenly)
{
	struct cc_local spec = {
		.nodes = 3, .vcpus = 4, .memory = 64ull << 20, .kernel = "/proc/self/exe"
	};
	struct cc_topology *t = NULL;

	cr_assert_eq(cc_topology_local(&spec, stderr, &t), 0);
	cr_assert_eq(t->vm[0].shares, 3);
	cr_expect_eq(t->vm[0].share[0].vcpus, 2);
	cr_expect_eq(t->vm[0].share[2].vcpus, 1);
	cr_expect_eq(t->vm[0].share[0].memory + t->vm[0].share[1].memory + t->vm[0].share[2].memory,
		     64ull << 20);
	cr_expect_str_eq(t->node[2].name, "n2");
	cc_topology_free(t);
}

/* A fabric that the schema knows and this build lacks is a mistake for who wants to start, and no other is. */
Test(topology, fabrics_that_are_not_built_in)
{
	static const char *const names[] = { "auto", "tcp", "verbs", "ofi", "ucx" };
	static const char form[] = "pool: lab\nnodes:\n"
				   "  - { name: a, address: 198.51.100.1, cpus: 2, memory: 1GiB, fabric: { backend: %s } }\n"
				   "  - { name: b, address: 198.51.100.2, cpus: 2, memory: 1GiB }\n"
				   "vms: [ { name: v, vcpus: 4, memory: 2GiB, kernel: k } ]\n";
	char path[] = "/tmp/unum-topology-XXXXXX", expected[160];
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		FILE *file = fopen(path, "w");
		struct cc_topology *t = NULL;
		bool built = !strcmp(names[i], "auto");
		char *said = NULL;
		size_t len;
		FILE *errors = open_memstream(&said, &len);

		for (const char *const *b = ic_backend_names(); *b; b++)
			built = built || !strcmp(*b, names[i]);
		fprintf(file, form, names[i]);
		fclose(file);
		cr_expect_eq(cc_topology_load(path, errors, &t), built ? 0 : -EINVAL, "%s", names[i]);
		fclose(errors);
		snprintf(expected, sizeof(expected), "%s:3:5: error: node 'a': the fabric %s is not built in\n", path,
			 names[i]);
		cr_expect_str_eq(said, built ? "" : expected);
		free(said);
		cc_topology_free(t);
	}
	close(fd);
	unlink(path);
}
