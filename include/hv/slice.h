/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/slice.h - the part of one VM that runs on this node, as a thing that a program can start and end.
 *
 * Life      prepare -> connect -> run -> (end, by whatever reason) -> close.  Close undoes whatever was done, in
 *           reverse order, from any of these states.
 * Threads   prepare, connect, run and close: one thread.  console_in, order, stop, stats: any thread, between prepare and
 *           close.  Sink calls come from threads of the slice, console and ended from one and the same.
 */
#ifndef HV_SLICE_H
#define HV_SLICE_H

#include "base/err.h"
#include "base/types.h"
#include "cluster-config/control.h"
#include "interconnect/fabric.h"

#include <stdio.h>

#define HV_TEXT_MAX 768u /* bytes of a one-line reason, NUL included */

/* Where a slice speaks to.  Calls may block for a bounded time; none may be NULL. */
struct hv_slice_sink {
	void (*console)(void *arg, const uint8_t *data, size_t len);
	void (*progress)(void *arg, const char *text); /* one line */
	/* Once, when the VM is over as far as this slice knows, after the last console bytes.  After run only. */
	void (*ended)(void *arg, const struct cc_ended *ended);
	void *arg;
	/* Of an order, on node 0.  NULL: nobody gives any. */
	void (*answer)(void *arg, const struct cc_answer *answer);
};

struct hv_slice;

/* Opens memory, engine and devices, and reads and checks the kernel on node 0.  `spec` is borrowed until close.
 * Returns -errno with one line in text. */
MUST_CHECK int hv_slice_prepare(const struct cc_vm_spec *spec, const struct hv_slice_sink *sink,
				struct hv_slice **out, char text[static HV_TEXT_MAX]);
/* "address:port" of this slice's fabric; "" when the VM has one node. */
void hv_slice_address(struct hv_slice *s, char out[static IC_ADDR_MAX]);
/* Joins all nodes, measures the clocks and, on node 0, writes the kernel into guest memory. */
MUST_CHECK int hv_slice_connect(struct hv_slice *s, const struct cc_connect *all,
				char text[static HV_TEXT_MAX]);
/* vCPUs go. */
void hv_slice_run(struct hv_slice *s);
/* Node 0: changes something while the VM runs; sink.answer follows, at once if it is refused. */
void hv_slice_order(struct hv_slice *s, const struct cc_order *o);
/* Bytes typed at the terminal; what does not fit is dropped. */
void hv_slice_console_in(struct hv_slice *s, const uint8_t *data, size_t len);
/* Ends the VM here; sink.ended follows if it has not been called (and the slice runs). */
void hv_slice_stop(struct hv_slice *s);
void hv_slice_stats(struct hv_slice *s, struct cc_stats *out);
/* For humans: exits by kind and the like. */
void hv_slice_stats_print(struct hv_slice *s, FILE *to);
/* All threads end; everything is given back. */
void hv_slice_close(struct hv_slice *s);

#endif
