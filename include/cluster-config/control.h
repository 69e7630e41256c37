/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/control.h - what `unum`, the agents and the slices tell each other.
 *
 * What      Messages as C structs, their bytes (protobuf inside a length-prefixed frame), and the
 *           slice's end of the channel to its agent.
 * Contract  Start of a VM, in two phases:
 *
 *             unum          agent           slice
 *              | ASK{kernel} ->  | runs the slice program with --host; not when the engine is told
 *              | <- HOST{facts}  |  then unum chooses the engine, or refuses
 *              | PREPARE ->  | spawn, PREPARE -> |  boot node = node 0 loads the kernel (local paths)
 *              | <- PREPARED{fabric address} <-- |  or FAILED{text}, then the slice exits
 *              | CONNECT{all addresses} -------> |  joins the fabric, every node with every other
 *              | <-------------------- READY <-- |  all links are up; or FAILED
 *              | RUN --------------------------> |  vCPUs start
 *              | <-- CONSOLE, PROGRESS --------- |  CONSOLE also downwards
 *              | <-- ENDED --------------------- |  by the slice that knows why
 *              | STOP -------------------------> |  to all slices
 *              | <-- STATS, ENDED -------------- |  ENDED only if not sent yet; then exit 0
 *
 *           After ENDED a slice keeps its fabric and its channel open until STOP, so that no peer
 *           takes an orderly end for a loss.  FAILED and ENDED are sent once.  A slice that dies
 *           without a word is reported by its agent as ENDED{PEER_LOST}.  A slice whose channel
 *           gives -EPIPE has lost its agent: it exits at once.
 *           While it runs: unum - ORDER -> slice of node 0, which answers with any number of ANSWERs, the last
 *           one with `last` set.  `unum migrate` and its like reach `unum run` by the same messages, over
 *           the VM's unix socket (cluster-config/door.h).
 * Threads   cc_chan_send: any.  cc_chan_recv: one.  Encode and decode: any, no shared state.
 * Limits    CC_FRAME_MAX bytes a frame.  Decoders reject, never assert.
 */
#ifndef CLUSTER_CONFIG_CONTROL_H
#define CLUSTER_CONFIG_CONTROL_H

#include "base/err.h"
#include "base/types.h"
#include "cluster-config/topology.h"

#define CC_VERSION 3u
#define CC_FRAME_MAX (1u << 20) /* bytes of one encoded message */
#define CC_FRAME_HEAD 4u        /* bytes of length in front, little-endian */
#define CC_KEY_BYTES 32u
#define CC_SLICE_FD 3         /* the slice's end of the socketpair */
#define CC_CONSOLE_MAX 65536u /* bytes in one CONSOLE */

enum cc_msg_type {
	CC_MSG_NONE,
	CC_MSG_HELLO,    /* first message each way between unum and an agent */
	CC_MSG_PREPARE,  /* down */
	CC_MSG_PREPARED, /* up */
	CC_MSG_FAILED,   /* up: could not start */
	CC_MSG_CONNECT,  /* down */
	CC_MSG_READY,    /* up */
	CC_MSG_RUN,      /* down */
	CC_MSG_CONSOLE,  /* both ways; up: from the node with the console; down: to it */
	CC_MSG_PROGRESS, /* up: one line for a human */
	CC_MSG_ENDED,    /* up */
	CC_MSG_STATS,    /* up */
	CC_MSG_STOP,     /* down */
	CC_MSG_PING,     /* both ways; cc_chan answers by itself */
	CC_MSG_PONG,
	CC_MSG_ASK,  /* down: what can your host do? */
	CC_MSG_HOST, /* up: the answer */
	CC_MSG_ORDER,  /* down, to node 0 of a running VM: change something */
	CC_MSG_ANSWER, /* up: how that goes */
	CC_MSG_TYPES
};

struct cc_hello {
	uint32_t version;
	const char *name; /* of the agent; "" from unum */
};

/* Frames [first, first + count) are homed on `node`; the same meaning as struct dsm_range. */
struct cc_range {
	gfn_t first;
	uint64_t count;
	node_id node;
};
#define CC_RANGES_MAX (2 * NODES_MAX)

enum cc_device_kind {
	CC_DEV_SERIAL,
	CC_DEV_CONSOLE,
	CC_DEV_BLK,
	CC_DEV_RNG,
	CC_DEV_NET,
	CC_DEV_KINDS
};
#define CC_SPEC_DEVICES_MAX (3 + 2 * CC_DEVICES_MAX)

/* Every node is told of every device, in the same order, so that all agree on addresses and
 * interrupt lines; only `node` opens what is behind it. */
struct cc_device {
	enum cc_device_kind kind;
	node_id node;
	bool readonly;
	const char *path; /* BLK: file on that node; NET: tap name; else "" */
};

/* PREPARE: one VM as one of its slices must know it.  Node numbers are those of the VM: 0 .. nodes
 * - 1. */
struct cc_vm_spec {
	const char *name;
	uint64_t vm_id;               /* random, same on all nodes */
	uint8_t vm_key[CC_KEY_BYTES]; /* random, same on all nodes; for the fabric's handshake */
	node_id self;
	unsigned nodes;
	const char *node_name[NODES_MAX];
	struct cc_range range[CC_RANGES_MAX];
	unsigned ranges;
	unsigned vcpus;
	node_id vcpu_node[VCPUS_MAX]; /* where each vCPU starts */
	uint64_t cache_pages;         /* of this node; 0: no bound */
	uint64_t spare_pages; /* of this node: lent by it, and no VM's share */
	enum cc_numa numa;
	enum cc_engine engine;
	enum cc_faults faults;	  /* of the kvm engine */
	bool checksums;		  /* pages travel with a checksum */
	enum cc_placement placement;
	bool ruled; /* may_run counts, whoever decides */
	struct nodeset may_run[VCPUS_MAX]; /* node numbers of the VM, never none */
	const char *place_trace; /* node 0: file to record the inputs of the placement in; "": none */
	bool private_tables;	  /* the kernel promises that no two vCPUs share page tables */
	const char *cpu_features; /* what all nodes can honour beyond the x86-64-v2 model: names as in /proc/cpuinfo, a
				     space between; "": nothing */
	/* Of the plain model: what no node may show, since one with another engine lacks it; same form.  Not on the wire: agents
	 * start one engine on all nodes.  NULL: nothing. */
	const char *cpu_without;
	const char *kernel, *initrd,
		*cmdline; /* "" when there is none; kernel and initrd set on node 0 only */
	struct cc_device device[CC_SPEC_DEVICES_MAX]; /* SERIAL and CONSOLE share one terminal */
	unsigned devices;
	const char *fabric_backend; /* "tcp", ...; what `auto` means is chosen before (cluster-config/core/choose_fabric.h) */
	const char *fabric_device;  /* "" any */
	const char *fabric_listen;  /* "address:0" for ic_open */
	uint64_t chaos;		    /* not 0: seed of a bad network (ic_config.chaos) */
	bool probe; /* no machine: the fabric between two nodes is measured, and the report is the console */
	unsigned dead_after_ms;
};

struct cc_prepared {
	const char *address; /* of the fabric, "address:port"; "" when the VM has one node */
};
struct cc_connect {
	const char *address[NODES_MAX];
	unsigned nodes;
};
struct cc_text {
	const char *text;
};
struct cc_console {
	const uint8_t *data;
	size_t len; /* <= CC_CONSOLE_MAX */
};
struct cc_seq {
	uint64_t seq;
};

struct cc_ask {
	const char *kernel; /* a file on that node that is looked at, too; "": none */
	bool fabric;	    /* only what joins it to other nodes, but that in detail */
};
struct cc_host_text {
	const char *facts; /* one JSON object (docs/running.md, "unum doctor"); "": could not be had */
	const char *why;   /* in that case */
};

enum cc_end {
	CC_END_POWEROFF,  /* the guest switched itself off (or rebooted) */
	CC_END_CRASH,     /* triple fault, or an instruction that cannot be run; dump says where */
	CC_END_PEER_LOST, /* `node` is gone */
	CC_END_ERROR,     /* this node cannot go on; text says why */
	CC_END_STOPPED,   /* answer to STOP */
	CC_ENDS
};

struct cc_ended {
	enum cc_end reason;
	node_id node;     /* the node it happened on; PEER_LOST: the one that is gone */
	const char *text; /* one line, no newline */
	const char *dump; /* CRASH: registers and the like, lines; else "" */
};

enum cc_order_kind {
	CC_ORDER_MOVE,	/* vcpu to node */
	CC_ORDER_DRAIN, /* everything away from node */
	CC_ORDER_JOIN,	/* node may be used again */
	CC_ORDER_PLACE, /* who decides where vCPUs run: mode */
	CC_ORDERS
};
struct cc_order {
	uint64_t id; /* chosen by who asks, < 2^48 */
	enum cc_order_kind kind;
	unsigned vcpu; /* MOVE */
	node_id node;  /* MOVE, DRAIN, JOIN: number within the VM */
	unsigned mode; /* PLACE */
	bool dry_run;
	const char *name; /* of the node, where the number is not known yet: `unum migrate` to `unum run`; else "" */
};
struct cc_answer {
	uint64_t id;
	bool last, ok; /* not last: progress */
	unsigned vcpu;
	node_id from, to;
	uint32_t pause_ns;
	const char *text; /* one line: progress, or why not */
};

#define CC_HOT_PAGES 10
#define CC_LAT_BUCKETS 32
/* One slice; the memory counters as in struct dsm_stats. */
struct cc_stats {
	node_id node;
	unsigned vcpus;
	uint64_t memory_bytes; /* share of guest RAM */
	uint64_t faults_read, faults_write, faults_upgrade, faults_local;
	uint64_t pages_sent, pages_received, invalidations_received;
	uint64_t latency_p50_ns, latency_p99_ns;
	uint64_t latency_hist[CC_LAT_BUCKETS];
	struct {
		gfn_t gfn;
		uint64_t faults;
	} hot[CC_HOT_PAGES]; /* faults 0: end of the list */
	uint64_t ipis_sent_remote, ipis_received_remote;
	uint64_t mmio_remote; /* device accesses that another node served */
	uint64_t exits;       /* of all vCPUs of the slice */
	uint64_t msgs_sent, msgs_received, bytes_sent, bytes_received;
	uint64_t refused;   /* garbage from peers: fabric and memory protocol together */
	uint64_t guest_ns;  /* from RUN to the end */
	const char *engine; /* "bt", "kvm": what it ran on */
	/* vCPUs on the move; ns as in vcpu-migrate/migrate.h, of moves to this node (stop: from it) */
	uint64_t moved_in, moved_out, moves_returned, moves_refused, snapshot_bytes;
	uint64_t round_trip_ns; /* the least of a small message to node 0 and back, at the start; 0 on node 0 */
	uint64_t stop_p50_ns, stop_p99_ns, capture_p50_ns, capture_p99_ns, send_p50_ns, send_p99_ns;
	uint64_t restore_p50_ns, restore_p99_ns, resume_p50_ns, resume_p99_ns, pause_p50_ns, pause_p99_ns;
};

struct cc_msg {
	enum cc_msg_type type;
	union {
		struct cc_hello hello;
		struct cc_vm_spec prepare;
		struct cc_prepared prepared;
		struct cc_text failed, progress;
		struct cc_connect connect;
		struct cc_console console;
		struct cc_ended ended;
		struct cc_stats stats;
		struct cc_seq ping;
		struct cc_ask ask;
		struct cc_host_text host;
		struct cc_order order;
		struct cc_answer answer;
	};
	void *storage; /* behind the pointers of a decoded message; see cc_msg_clear */
};

const char *cc_msg_name(enum cc_msg_type type);
const char *cc_end_name(enum cc_end reason);

/* Frame (head and body) of `msg` in fresh memory, *len bytes long; free() it.  -ENOMEM, -EMSGSIZE.
 */
MUST_CHECK int cc_msg_encode(const struct cc_msg *msg, uint8_t **frame, size_t *len);
/* Body of a frame, untrusted.  False: not one of ours; *out is then untouched.  Everything in range
 * is checked: enums, counts, node numbers below `nodes`, ranges that do not overlap.  Strings are
 * never NULL. */
MUST_CHECK bool cc_msg_decode(const uint8_t *body, size_t len, struct cc_msg *out);
/* Frees what decode made; the strings are gone after it.  Fine on a message that was not decoded
 * with storage NULL. */
void cc_msg_clear(struct cc_msg *msg);

/*
 * The slice's end of the channel.  A thread of its own reads it and answers PING, so a slice may be
 * busy for as long as it likes.  64 messages wait for cc_chan_recv; then the thread stops reading,
 * and a slice that takes none for dead_after counts as dead.  So take CONSOLE at once: hold what the
 * guest does not want yet in a bounded buffer and drop the rest.
 */
struct cc_chan;
/* Takes over `fd`. */
MUST_CHECK int cc_chan_open(int fd, struct cc_chan **out);
/* Any thread.  Blocks while the agent does not read.  -EPIPE: the agent is gone. */
MUST_CHECK int cc_chan_send(struct cc_chan *c, const struct cc_msg *msg);
/* Next message; cc_msg_clear it.  -ETIMEDOUT; -EPIPE: the agent is gone, or spoke garbage.
 * timeout_ns ~0: for ever. */
MUST_CHECK int cc_chan_recv(struct cc_chan *c, struct cc_msg *out, uint64_t timeout_ns);
void cc_chan_close(struct cc_chan *c);

#endif
