/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_control.c - cluster-config/control: the body of a frame between unum, agent and slice.
 *
 * Input     The body.  What is taken can be encoded, and what that makes is taken, too.
 */
#include "cluster-config/control.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

static void prepare_check(const struct cc_vm_spec *s)
{
	gfn_t end = 0;

	ASSERT(s->nodes >= 1 && s->nodes <= NODES_MAX && s->self < s->nodes && s->ranges >= 1);
	for (unsigned i = 0; i < s->ranges; i++) {
		ASSERT(s->range[i].node < s->nodes && s->range[i].count > 0 && s->range[i].first >= end);
		end = s->range[i].first + s->range[i].count;
		ASSERT(end > s->range[i].first);
	}
	for (unsigned i = 0; i < s->vcpus; i++)
		ASSERT(s->vcpu_node[i] < s->nodes);
	for (unsigned i = 0; i < s->nodes; i++)
		ASSERT(s->node_name[i]);
	for (unsigned i = 0; i < s->devices; i++)
		ASSERT(s->device[i].node < s->nodes && s->device[i].kind < CC_DEV_KINDS && s->device[i].path);
	ASSERT(s->name && s->kernel && s->initrd && s->cmdline && s->fabric_backend && s->fabric_device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cc_msg m, second;
	uint8_t *frame;
	size_t frame_len;

	if (!cc_msg_decode(data, len, &m))
		return 0;
	ASSERT(m.type > CC_MSG_NONE && m.type < CC_MSG_TYPES && cc_msg_name(m.type));
	if (m.type == CC_MSG_PREPARE)
		prepare_check(&m.prepare);
	if (m.type == CC_MSG_ENDED)
		ASSERT(m.ended.reason < CC_ENDS && m.ended.node < NODES_MAX && cc_end_name(m.ended.reason));
	if (cc_msg_encode(&m, &frame, &frame_len) == 0) {
		ASSERT(frame_len >= CC_FRAME_HEAD && get_le32(frame) == frame_len - CC_FRAME_HEAD);
		ASSERT(cc_msg_decode(frame + CC_FRAME_HEAD, frame_len - CC_FRAME_HEAD, &second));
		ASSERT(second.type == m.type);
		cc_msg_clear(&second);
		free(frame);
	}
	cc_msg_clear(&m);
	return 0;
}
