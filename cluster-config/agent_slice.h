/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/agent_slice.h - one slice process as its agent sees it.
 *
 * What      The process, its channel and its heartbeat. Reports upwards by ops; `on_dead` is the
 *           last and comes when the process is reaped and all it ever said was delivered.
 * Threads   The loop's.
 */
#ifndef CC_AGENT_SLICE_H
#define CC_AGENT_SLICE_H

#include "cluster-config/control.h"
#include "cluster-config/loop.h"

struct cc_slice;

struct cc_slice_ops {
	void (*on_message)(void *arg, const struct cc_msg *msg);
	/* `how`: "killed by signal 9 (Killed)".  The slice is freed afterwards. */
	void (*on_dead)(void *arg, const char *how);
};

MUST_CHECK int cc_slice_start(struct cc_loop *loop, const char *path, const char *vm_name,
			      uint64_t dead_ns, const struct cc_slice_ops *ops, void *arg,
			      struct cc_slice **out);
void cc_slice_send(struct cc_slice *s, const struct cc_msg *msg);
bool cc_slice_busy(const struct cc_slice *s); /* see cc_conn_busy */
void cc_slice_pause(struct cc_slice *s, bool pause);
void cc_slice_tick(struct cc_slice *s, uint64_t now_ns);
/* SIGKILL; on_dead follows. */
void cc_slice_kill(struct cc_slice *s);
pid_t cc_slice_pid(const struct cc_slice *s);

#endif
