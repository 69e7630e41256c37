/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_topology.c - cluster-config/topology: the text of a topology file.
 *
 * Input     The text.  Either it is refused with a message, or what it makes is a sound cluster, whose VMs
 *           can be told to their slices.
 */
#include "cluster-config/control.h"
#include "cluster-config/core/spec.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

static void vm_check(const struct cc_topology *t, const struct cc_vm *vm)
{
	static struct cc_msg m;
	uint64_t memory = 0;
	unsigned vcpus = 0;

	ASSERT(vm->name && vm->kernel && vm->cmdline && vm->shares >= 1 && vm->shares <= t->nodes);
	for (unsigned i = 0; i < vm->shares; i++) {
		ASSERT(vm->share[i].node < t->nodes);
		memory += vm->share[i].memory;
		vcpus += vm->share[i].vcpus;
	}
	ASSERT(memory == vm->memory && vcpus == vm->vcpus);
	for (unsigned i = 0; i < vm->disks; i++)
		ASSERT(vm->disk[i].node < t->nodes && vm->disk[i].path);
	for (unsigned i = 0; i < vm->shares; i++) {
		uint8_t *frame;
		size_t len;
		int err;

		m = (struct cc_msg){ .type = CC_MSG_PREPARE };
		cc_spec_make(t, vm, (node_id)i, &m.prepare);
		m.prepare.fabric_listen = "";
		err = cc_msg_encode(&m, &frame, &len);
		ASSERT(!err);
		ASSERT(cc_msg_decode(frame + CC_FRAME_HEAD, len - CC_FRAME_HEAD, &m));
		cc_msg_clear(&m);
		free(frame);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cc_topology *t;
	char *text = NULL;
	size_t text_len = 0;
	FILE *errors = open_memstream(&text, &text_len);
	int err;

	ASSERT(errors);
	err = cc_topology_parse("lab/t.yaml", data, len, errors, &t);
	fclose(errors);
	ASSERT(err == 0 || err == -EINVAL);
	/* Refused if and only if there is something to read about it. */
	ASSERT((err == 0) == (text_len == 0));
	free(text);
	if (err)
		return 0;
	ASSERT(t->nodes >= 1 && t->nodes <= NODES_MAX && t->vms <= CC_VMS_MAX);
	for (unsigned i = 0; i < t->vms; i++)
		vm_check(t, &t->vm[i]);
	cc_topology_free(t);
	return 0;
}
