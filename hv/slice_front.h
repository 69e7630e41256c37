/* SPDX-License-Identifier: Apache-2.0 */
/* hv/slice_front.h - the two ways to drive a slice: by an agent, or alone with a terminal.  Both give the exit status. */
#ifndef HV_SLICE_FRONT_H
#define HV_SLICE_FRONT_H

/* Agent on file descriptor CC_SLICE_FD.  0: orderly; 1: could not start, or the agent is gone. */
int hv_slice_main_agent(void);
/* argv after --standalone.  0: power-off; 1: anything else ended it; 2: bad arguments. */
int hv_slice_main_standalone(int argc, char **argv);

#endif
