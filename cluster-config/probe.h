/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/probe.h - asks the slice program what this host can do, in a process of its own.
 *
 * Contract  on_done is called once, from the loop or cc_probe_tick: with the program's output, or
 *           with "" and why there is none.  After it the probe only waits for cc_probe_free, which
 *           may be called from within.
 * Threads   The loop's.
 * Limits    CC_PROBE_NS, then the program is killed; CC_PROBE_MAX bytes of output.
 */
#ifndef CC_PROBE_H
#define CC_PROBE_H

#include "base/clock.h"
#include "cluster-config/control.h"
#include "cluster-config/loop.h"

#define CC_PROBE_NS (120 * NS_PER_S) /* a tenth of a second on a real host; emulated ones are slow */
#define CC_PROBE_MAX (256u << 10)

struct cc_probe;

MUST_CHECK int cc_probe_start(struct cc_loop *loop, const char *slice_path, const struct cc_ask *what,
			      void (*on_done)(void *arg, const char *facts, const char *why),
			      void *arg, struct cc_probe **out);
void cc_probe_tick(struct cc_probe *p, uint64_t now_ns);
/* Ends it if it still runs; NULL is fine. */
void cc_probe_free(struct cc_probe *p);

#endif
