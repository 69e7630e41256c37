/* SPDX-License-Identifier: Apache-2.0 */
/* hv/slice_front.h - the two ways to drive a slice: by an agent, or alone with a terminal.  Both give the exit status. */
#ifndef HV_SLICE_FRONT_H
#define HV_SLICE_FRONT_H

#include "cluster-config/control.h"

/* Agent on file descriptor CC_SLICE_FD.  0: orderly; 1: could not start, or the agent is gone. */
int hv_slice_main_agent(void);
/* What it does instead when PREPARE says `probe`, until the end of the channel: it measures the fabric to the other node.
 * 1: orderly; -errno. */
int hv_fabric_probe(struct cc_chan *chan, const struct cc_vm_spec *spec);
/* argv after --standalone.  0: power-off; 1: anything else ended it; 2: bad arguments. */
int hv_slice_main_standalone(int argc, char **argv);

#endif
