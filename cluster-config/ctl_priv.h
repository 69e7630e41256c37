/* SPDX-License-Identifier: Apache-2.0 */
/* cluster-config/ctl_priv.h - what ctl.c (life of a VM) and ctl_ask.c (what its hosts can do) share. */
#ifndef CC_CTL_PRIV_H
#define CC_CTL_PRIV_H

#include "cluster-config/conn.h"
#include "cluster-config/core/member.h"
#include "cluster-config/ctl.h"
#include "cluster-config/facts.h"

#include <limits.h>

enum peer_state {
	PEER_JOINING, /* TLS, then HELLO */
	PEER_JOINED,
	PEER_TOLD, /* what its host can do */
	PEER_PREPARED,
	PEER_READY, /* and running */
	PEER_DONE,  /* has told all it had to tell */
	PEER_GONE,  /* no connection */
};

struct peer {
	struct cc_ctl *ctl;
	node_id self;
	enum peer_state state;
	struct cc_conn *conn; /* NULL when GONE */
	struct cc_member member;
	bool paused, ended, has_stats;
	bool left;	       /* drained: its loss is not the VM's end */
	bool leaves;	       /* what `order` is about: it leaves, or comes back */
	uint64_t order;	       /* id of the DRAIN or JOIN that is not answered; 0: none */
	uint64_t ping_seq;
	struct cc_stats stats;
	char address[128], engine[16];
	bool has_host;
	struct cc_host host; /* when has_host */
};

struct cc_ctl {
	struct cc_loop *loop;
	const struct cc_topology *t;
	const struct cc_vm *vm;
	enum cc_ctl_mode mode;
	uint64_t chaos; /* 0: none */
	const char *place_trace; /* NULL: none */
	struct cc_tls *tls;
	const struct cc_ctl_ops *ops;
	void *arg;
	enum cc_ctl_phase phase;
	enum cc_ctl_result result;
	bool failed; /* while joining or starting */
	uint64_t phase_end_ns;
	uint64_t vm_id;
	uint8_t vm_key[CC_KEY_BYTES];
	char cwd[PATH_MAX];
	struct cc_verdict verdict;
	/* chosen once all hosts have told; until then as the VM wants it */
	enum cc_engine engine;
	bool private_tables;
	char features[CC_FEATURES_MAX];
	struct cc_fabric_choice fabric; /* backend NULL: as the topology says */
	char refusal[32]; /* CC_CTL_REFUSED: the word */
	unsigned peers;
	struct peer peer[NODES_MAX];
};

static inline const struct cc_node *cc_peer_node(const struct peer *p)
{
	return &p->ctl->t->node[p->ctl->vm->share[p->self].node];
}

static inline void cc_peer_send(struct peer *p, const struct cc_msg *msg)
{
	if (p->conn)
		cc_conn_send(p->conn, msg);
}

/* Trouble before RUN.  While joining, the others go on, so that all troubles are told at once. */
void cc_peer_failed(struct peer *p, const char *text);
/* No VM is wanted, only what the hosts can do. */
static inline bool cc_ctl_surveys(const struct cc_ctl *c)
{
	return c->mode == CC_CTL_SURVEY || c->mode == CC_CTL_FABRIC;
}
/* Absolute, as this process sees it; "" stays.  The result may be `path` or `out`. */
const char *cc_ctl_path(const struct cc_ctl *c, const char *path, char out[static PATH_MAX]);

/* Asks all peers that are there.  False: there is nothing to ask, engine and fabric are told. */
bool cc_ctl_ask(struct cc_ctl *c);
void cc_peer_host(struct peer *p, const struct cc_host_text *text);
/* Once all have told.  False: no engine can be had; the troubles are told. */
bool cc_ctl_choose(struct cc_ctl *c);
/* PREPARE. */
void cc_peer_prepare(struct peer *p);

#endif
