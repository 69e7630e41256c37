/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/ctl.h - one VM over its nodes, as `unum` controls it.
 *
 * What      Joins the agents, starts the VM in two phases, carries its console, finds out why it
 *           ended, gathers the statistics.  One connection per node.
 *
 *             JOIN -> ASK -> PREPARE -> CONNECT -> RUN -> STOP -> OVER
 *
 * Threads   The loop's.
 */
#ifndef CC_CTL_H
#define CC_CTL_H

#include "cluster-config/core/verdict.h"
#include "cluster-config/facts.h"
#include "cluster-config/loop.h"
#include "cluster-config/tls.h"

/* What is wanted of the nodes of a VM. */
enum cc_ctl_mode {
	CC_CTL_VM,     /* that they run it */
	CC_CTL_SURVEY, /* only that their hosts tell what they can do; a node that fails is no reason to end */
	CC_CTL_FABRIC, /* the same, of what joins them, in detail */
	CC_CTL_PROBE,  /* that the fabric between them is measured: the report is the console */
};

enum cc_ctl_phase {
	CC_CTL_JOIN,
	CC_CTL_ASK, /* what can the hosts do? */
	CC_CTL_PREPARE,
	CC_CTL_CONNECT,
	CC_CTL_RUN,
	CC_CTL_STOP,
	CC_CTL_OVER
};

/* How it all went, once the phase is OVER. */
enum cc_ctl_result {
	CC_CTL_ENDED,       /* it ran: the verdict says how it ended */
	CC_CTL_NOT_JOINED,  /* an agent could not be reached or would not talk to us; nothing was
			       started */
	CC_CTL_NOT_STARTED, /* a slice could not start */
	CC_CTL_REFUSED,     /* no engine can be had on these hosts; nothing was started */
	CC_CTL_SURVEYED,    /* no VM was wanted: all hosts have told that would */
};

#define CC_CTL_TICK_MS 50

struct cc_ctl_ops {
	void (*on_console)(void *arg, const uint8_t *data, size_t len);
	/* One line for a human. node: its name, or "" */
	void (*on_progress)(void *arg, const char *node, const char *text);
	/* A line about what is wrong at a node; mark: its place in the topology file. */
	void (*on_trouble)(void *arg, const struct cc_node *node, const char *text);
	void (*on_run)(void *arg); /* the guest runs from now on */
	void (*on_answer)(void *arg, const struct cc_answer *a); /* to cc_ctl_order; NULL: none are given */
};

struct cc_ctl;

/* All borrowed until cc_ctl_close. */
MUST_CHECK int cc_ctl_open(struct cc_loop *loop, const struct cc_topology *t,
			   const struct cc_vm *vm, enum cc_ctl_mode mode, struct cc_tls *tls,
			   const struct cc_ctl_ops *ops, void *arg, struct cc_ctl **out);
/* Node 0 records there what the placement is told; a path on its host, borrowed.  NULL: nowhere.  Before the first tick. */
void cc_ctl_place_trace(struct cc_ctl *c, const char *path);
/* The network between the nodes is to be bad, by this seed (ic_config.chaos); before the first tick. */
void cc_ctl_chaos(struct cc_ctl *c, uint64_t seed);
/* At least every CC_CTL_TICK_MS. */
void cc_ctl_tick(struct cc_ctl *c);
/* Ends the VM, or the start of it, because the user wants so. */
void cc_ctl_stop(struct cc_ctl *c);
/* Something is to change while the VM runs; answered by on_answer unless the VM ends.  False: it does not run. */
bool cc_ctl_order(struct cc_ctl *c, const struct cc_order *o);
/* To the guest; before RUN it is dropped. */
void cc_ctl_console(struct cc_ctl *c, const uint8_t *data, size_t len);
/* So much console input waits that no more should be read from the terminal for a while. */
bool cc_ctl_console_busy(const struct cc_ctl *c);
/* Stops or goes on taking console output. */
void cc_ctl_console_pause(struct cc_ctl *c, bool pause);

enum cc_ctl_phase cc_ctl_phase(const struct cc_ctl *c);
enum cc_ctl_result cc_ctl_result(const struct cc_ctl *c);
const struct cc_verdict *cc_ctl_verdict(const struct cc_ctl *c);
/* REFUSED: why, as a word. */
const char *cc_ctl_refusal(const struct cc_ctl *c);
/* What the host of node i of the VM told; NULL: it was not asked, or gave no answer. */
const struct cc_host *cc_ctl_host(const struct cc_ctl *c, unsigned i);
/* Statistics of node i of the VM, NULL: it did not tell any. */
const struct cc_stats *cc_ctl_stats(const struct cc_ctl *c, unsigned i);
void cc_ctl_close(struct cc_ctl *c);

#endif
