/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/control.c - control messages: C structs to protobuf bytes and back.
 *
 * What      The only file that knows protobuf-c; users see struct cc_msg.
 * Threads   Any; no shared state.
 * Limits    CC_FRAME_MAX bytes; a message outside the limits of control.h is rejected as a whole.
 */
#include "cluster-config/control.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "cluster-config/control.pb-c.h"

#include <stdlib.h>
#include <string.h>

STATIC_ASSERT(VCPUS_MAX <= 255 && NODES_MAX <= 255, "vcpu_node travels as bytes");

static const char *const msg_names[CC_MSG_TYPES] = {
	[CC_MSG_NONE] = "none",         [CC_MSG_HELLO] = "hello",   [CC_MSG_PREPARE] = "prepare",
	[CC_MSG_PREPARED] = "prepared", [CC_MSG_FAILED] = "failed", [CC_MSG_CONNECT] = "connect",
	[CC_MSG_READY] = "ready",       [CC_MSG_RUN] = "run",       [CC_MSG_CONSOLE] = "console",
	[CC_MSG_PROGRESS] = "progress", [CC_MSG_ENDED] = "ended",   [CC_MSG_STATS] = "stats",
	[CC_MSG_STOP] = "stop",         [CC_MSG_PING] = "ping",     [CC_MSG_PONG] = "pong",
	[CC_MSG_ASK] = "ask",           [CC_MSG_HOST] = "host",     [CC_MSG_ORDER] = "order",
	[CC_MSG_ANSWER] = "answer",
};

static const char *const end_names[CC_ENDS] = {
	[CC_END_POWEROFF] = "poweroff",   [CC_END_CRASH] = "crash",
	[CC_END_PEER_LOST] = "peer-lost", [CC_END_ERROR] = "error",
	[CC_END_STOPPED] = "stopped",
};

const char *cc_msg_name(enum cc_msg_type type)
{
	return type < CC_MSG_TYPES ? msg_names[type] : "?";
}

const char *cc_end_name(enum cc_end reason)
{
	return reason < CC_ENDS ? end_names[reason] : "?";
}

/* --- encode ----------------------------------------------------------------------------------- */

/* protobuf-c takes char *, and never writes through it when it packs. */
static char *str(const char *s)
{
	return (char *)(s ? s : "");
}

static int frame_pack(const Unum__Msg *pb, uint8_t **frame, size_t *len)
{
	size_t body = unum__msg__get_packed_size(pb);
	uint8_t *buf;

	if (body > CC_FRAME_MAX)
		return -EMSGSIZE;
	buf = malloc(CC_FRAME_HEAD + body);
	if (!buf)
		return -ENOMEM;
	put_le32(buf, (uint32_t)body);
	unum__msg__pack(pb, buf + CC_FRAME_HEAD);
	*frame = buf;
	*len = CC_FRAME_HEAD + body;
	return 0;
}

#define RULE_WORDS (NODES_MAX / 64)
struct prepare_parts {
	Unum__Prepare pb;
	Unum__Range range[CC_RANGES_MAX], *ranges[CC_RANGES_MAX];
	Unum__Device device[CC_SPEC_DEVICES_MAX], *devices[CC_SPEC_DEVICES_MAX];
	char *names[NODES_MAX];
	uint8_t may_run[VCPUS_MAX * RULE_WORDS * 8];
};

static void prepare_lists(const struct cc_vm_spec *s, struct prepare_parts *p)
{
	for (unsigned i = 0; i < s->nodes; i++)
		p->names[i] = str(s->node_name[i]);
	for (unsigned i = 0; i < s->ranges; i++) {
		unum__range__init(&p->range[i]);
		p->range[i].first = s->range[i].first;
		p->range[i].count = s->range[i].count;
		p->range[i].node = s->range[i].node;
		p->ranges[i] = &p->range[i];
	}
	for (unsigned i = 0; i < s->devices; i++) {
		unum__device__init(&p->device[i]);
		p->device[i].kind = s->device[i].kind;
		p->device[i].node = s->device[i].node;
		p->device[i].readonly = s->device[i].readonly;
		p->device[i].path = str(s->device[i].path);
		p->devices[i] = &p->device[i];
	}
}

static int prepare_encode(const struct cc_vm_spec *s, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	struct prepare_parts *p;
	int err;

	ASSERT(s->nodes <= NODES_MAX && s->ranges <= CC_RANGES_MAX && s->vcpus <= VCPUS_MAX &&
	       s->devices <= CC_SPEC_DEVICES_MAX);
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	unum__prepare__init(&p->pb);
	prepare_lists(s, p);
	p->pb.name = str(s->name);
	p->pb.vm_id = s->vm_id;
	p->pb.vm_key = (ProtobufCBinaryData){ CC_KEY_BYTES, (uint8_t *)s->vm_key };
	p->pb.self = s->self;
	p->pb.n_node_name = s->nodes;
	p->pb.node_name = p->names;
	p->pb.n_range = s->ranges;
	p->pb.range = p->ranges;
	p->pb.vcpu_node = (ProtobufCBinaryData){ s->vcpus, (uint8_t *)s->vcpu_node };
	p->pb.cache_pages = s->cache_pages;
	p->pb.spare_pages = s->spare_pages;
	p->pb.numa = s->numa;
	p->pb.engine = s->engine;
	p->pb.faults = s->faults;
	p->pb.private_tables = s->private_tables;
	p->pb.checksums = s->checksums;
	p->pb.placement = s->placement;
	p->pb.place_trace = str(s->place_trace);
	for (unsigned i = 0; i < s->vcpus && s->ruled; i++)
		for (unsigned w = 0; w < RULE_WORDS; w++)
			put_le64(p->may_run + (i * RULE_WORDS + w) * 8, s->may_run[i].w[w]);
	p->pb.may_run = (ProtobufCBinaryData){ s->ruled ? s->vcpus * RULE_WORDS * 8 : 0, p->may_run };
	p->pb.cpu_features = str(s->cpu_features);
	p->pb.kernel = str(s->kernel);
	p->pb.initrd = str(s->initrd);
	p->pb.cmdline = str(s->cmdline);
	p->pb.n_device = s->devices;
	p->pb.device = p->devices;
	p->pb.fabric_backend = str(s->fabric_backend);
	p->pb.fabric_device = str(s->fabric_device);
	p->pb.fabric_listen = str(s->fabric_listen);
	p->pb.chaos = s->chaos;
	p->pb.probe = s->probe;
	p->pb.dead_after_ms = s->dead_after_ms;
	msg->prepare = &p->pb;
	err = frame_pack(msg, frame, len);
	free(p);
	return err;
}

static int connect_encode(const struct cc_connect *c, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Connect pb = UNUM__CONNECT__INIT;
	char *address[NODES_MAX];

	ASSERT(c->nodes <= NODES_MAX);
	for (unsigned i = 0; i < c->nodes; i++)
		address[i] = str(c->address[i]);
	pb.n_address = c->nodes;
	pb.address = address;
	msg->connect = &pb;
	return frame_pack(msg, frame, len);
}

/* Counters have the same names on both sides; the list is written once. */
#define STATS_COUNTERS(X)                                                                       \
	X(node)                                                                                 \
	X(vcpus)                                                                                \
	X(memory_bytes)                                                                         \
	X(faults_read) X(faults_write) X(faults_upgrade) X(faults_local) X(pages_sent)          \
		X(pages_received) X(invalidations_received) X(latency_p50_ns) X(latency_p99_ns) \
			X(ipis_sent_remote) X(ipis_received_remote) X(mmio_remote) X(exits)     \
				X(msgs_sent) X(msgs_received) X(bytes_sent) X(bytes_received)   \
					X(refused) X(guest_ns)                                  \
	X(moved_in) X(moved_out) X(moves_returned) X(moves_refused) X(snapshot_bytes)           \
	X(stop_p50_ns) X(stop_p99_ns) X(capture_p50_ns) X(capture_p99_ns) X(send_p50_ns)        \
	X(send_p99_ns) X(restore_p50_ns) X(restore_p99_ns) X(resume_p50_ns) X(resume_p99_ns)    \
	X(pause_p50_ns) X(pause_p99_ns) X(round_trip_ns)

static int stats_encode(const struct cc_stats *s, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Stats pb = UNUM__STATS__INIT;
	Unum__HotPage hot[CC_HOT_PAGES], *hots[CC_HOT_PAGES];

#define COPY(field) pb.field = s->field;
	STATS_COUNTERS(COPY)
#undef COPY
	pb.engine = str(s->engine);
	pb.n_latency_hist = CC_LAT_BUCKETS;
	pb.latency_hist = (uint64_t *)s->latency_hist;
	pb.hot = hots;
	for (unsigned i = 0; i < CC_HOT_PAGES && s->hot[i].faults; i++) {
		unum__hot_page__init(&hot[i]);
		hot[i].gfn = s->hot[i].gfn;
		hot[i].faults = s->hot[i].faults;
		hots[pb.n_hot++] = &hot[i];
	}
	msg->stats = &pb;
	return frame_pack(msg, frame, len);
}

static int text_encode(const char *text, Unum__Text **slot, Unum__Msg *msg, uint8_t **frame,
		       size_t *len)
{
	Unum__Text pb = UNUM__TEXT__INIT;

	pb.text = str(text);
	*slot = &pb;
	return frame_pack(msg, frame, len);
}

static int seq_encode(uint64_t seq, Unum__Seq **slot, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Seq pb = UNUM__SEQ__INIT;

	pb.seq = seq;
	*slot = &pb;
	return frame_pack(msg, frame, len);
}

static int empty_encode(Unum__Empty **slot, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Empty pb = UNUM__EMPTY__INIT;

	*slot = &pb;
	return frame_pack(msg, frame, len);
}

static int order_encode(const struct cc_order *o, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Order pb = UNUM__ORDER__INIT;

	pb.id = o->id;
	pb.kind = o->kind;
	pb.vcpu = o->vcpu;
	pb.node = o->node;
	pb.mode = o->mode;
	pb.dry_run = o->dry_run;
	pb.name = str(o->name);
	msg->order = &pb;
	return frame_pack(msg, frame, len);
}

static int answer_encode(const struct cc_answer *a, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Answer pb = UNUM__ANSWER__INIT;

	pb.id = a->id;
	pb.last = a->last;
	pb.ok = a->ok;
	pb.vcpu = a->vcpu;
	pb.from = a->from;
	pb.to = a->to;
	pb.pause_ns = a->pause_ns;
	pb.text = str(a->text);
	msg->answer = &pb;
	return frame_pack(msg, frame, len);
}

static int small_encode(const struct cc_msg *in, Unum__Msg *msg, uint8_t **frame, size_t *len)
{
	Unum__Hello hello = UNUM__HELLO__INIT;
	Unum__Prepared prepared = UNUM__PREPARED__INIT;
	Unum__Console console = UNUM__CONSOLE__INIT;
	Unum__Ended ended = UNUM__ENDED__INIT;
	Unum__Ask ask = UNUM__ASK__INIT;
	Unum__Host host = UNUM__HOST__INIT;

	switch (in->type) {
	case CC_MSG_HELLO:
		hello.version = in->hello.version;
		hello.name = str(in->hello.name);
		msg->hello = &hello;
		break;
	case CC_MSG_PREPARED:
		prepared.address = str(in->prepared.address);
		msg->prepared = &prepared;
		break;
	case CC_MSG_CONSOLE:
		console.data =
			(ProtobufCBinaryData){ in->console.len, (uint8_t *)in->console.data };
		msg->console = &console;
		break;
	case CC_MSG_ASK:
		ask.kernel = str(in->ask.kernel);
		ask.fabric = in->ask.fabric;
		msg->ask = &ask;
		break;
	case CC_MSG_HOST:
		host.facts = str(in->host.facts);
		host.why = str(in->host.why);
		msg->host = &host;
		break;
	default:
		ASSERT(in->type == CC_MSG_ENDED);
		ended.reason = in->ended.reason;
		ended.node = in->ended.node;
		ended.text = str(in->ended.text);
		ended.dump = str(in->ended.dump);
		msg->ended = &ended;
	}
	return frame_pack(msg, frame, len);
}

static const Unum__Msg__KindCase kind_of[CC_MSG_TYPES] = {
	[CC_MSG_HELLO] = UNUM__MSG__KIND_HELLO,       [CC_MSG_PREPARE] = UNUM__MSG__KIND_PREPARE,
	[CC_MSG_PREPARED] = UNUM__MSG__KIND_PREPARED, [CC_MSG_FAILED] = UNUM__MSG__KIND_FAILED,
	[CC_MSG_CONNECT] = UNUM__MSG__KIND_CONNECT,   [CC_MSG_READY] = UNUM__MSG__KIND_READY,
	[CC_MSG_RUN] = UNUM__MSG__KIND_RUN,           [CC_MSG_CONSOLE] = UNUM__MSG__KIND_CONSOLE,
	[CC_MSG_PROGRESS] = UNUM__MSG__KIND_PROGRESS, [CC_MSG_ENDED] = UNUM__MSG__KIND_ENDED,
	[CC_MSG_STATS] = UNUM__MSG__KIND_STATS,       [CC_MSG_STOP] = UNUM__MSG__KIND_STOP,
	[CC_MSG_PING] = UNUM__MSG__KIND_PING,         [CC_MSG_PONG] = UNUM__MSG__KIND_PONG,
	[CC_MSG_ASK] = UNUM__MSG__KIND_ASK,           [CC_MSG_HOST] = UNUM__MSG__KIND_HOST,
	[CC_MSG_ORDER] = UNUM__MSG__KIND_ORDER,       [CC_MSG_ANSWER] = UNUM__MSG__KIND_ANSWER,
};

int cc_msg_encode(const struct cc_msg *in, uint8_t **frame, size_t *len)
{
	Unum__Msg msg = UNUM__MSG__INIT;

	ASSERT(in->type > CC_MSG_NONE && in->type < CC_MSG_TYPES);
	msg.kind_case = kind_of[in->type];
	switch (in->type) {
	case CC_MSG_PREPARE:
		return prepare_encode(&in->prepare, &msg, frame, len);
	case CC_MSG_CONNECT:
		return connect_encode(&in->connect, &msg, frame, len);
	case CC_MSG_STATS:
		return stats_encode(&in->stats, &msg, frame, len);
	case CC_MSG_FAILED:
		return text_encode(in->failed.text, &msg.failed, &msg, frame, len);
	case CC_MSG_PROGRESS:
		return text_encode(in->progress.text, &msg.progress, &msg, frame, len);
	case CC_MSG_ORDER:
		return order_encode(&in->order, &msg, frame, len);
	case CC_MSG_ANSWER:
		return answer_encode(&in->answer, &msg, frame, len);
	case CC_MSG_PING:
		return seq_encode(in->ping.seq, &msg.ping, &msg, frame, len);
	case CC_MSG_PONG:
		return seq_encode(in->ping.seq, &msg.pong, &msg, frame, len);
	case CC_MSG_READY:
		return empty_encode(&msg.ready, &msg, frame, len);
	case CC_MSG_RUN:
		return empty_encode(&msg.run, &msg, frame, len);
	case CC_MSG_STOP:
		return empty_encode(&msg.stop, &msg, frame, len);
	default:
		return small_encode(in, &msg, frame, len);
	}
}

/* --- decode ----------------------------------------------------------------------------------- */

#define FRAMES_LIMIT \
	(1ull << 40) /* frames a VM could have at all: keeps sums of range fields in bounds */

static bool ranges_decode(const Unum__Prepare *pb, struct cc_vm_spec *s)
{
	gfn_t end = 0;

	if (pb->n_range < 1 || pb->n_range > CC_RANGES_MAX)
		return false;
	for (size_t i = 0; i < pb->n_range; i++) {
		const Unum__Range *r = pb->range[i];

		/* ascending, so that none overlap */
		if (r->node >= s->nodes || !r->count || r->first < end || r->first > FRAMES_LIMIT ||
		    r->count > FRAMES_LIMIT)
			return false;
		end = r->first + r->count;
		s->range[i] = (struct cc_range){ r->first, r->count, (node_id)r->node };
	}
	s->ranges = (unsigned)pb->n_range;
	return true;
}

static bool devices_decode(const Unum__Prepare *pb, struct cc_vm_spec *s)
{
	if (pb->n_device > CC_SPEC_DEVICES_MAX)
		return false;
	for (size_t i = 0; i < pb->n_device; i++) {
		const Unum__Device *d = pb->device[i];

		if (d->kind >= CC_DEV_KINDS || d->node >= s->nodes)
			return false;
		s->device[i] = (struct cc_device){ (enum cc_device_kind)d->kind, (node_id)d->node,
						   d->readonly, d->path };
	}
	s->devices = (unsigned)pb->n_device;
	return true;
}

/* Words of lower-case letters, digits and _, one space between two. */
static bool features_check(const char *s)
{
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '_' ||
		      (*s == ' ' && s[1] && s[1] != ' ')))
			return false;
	return true;
}

static bool placement_decode(const Unum__Prepare *pb, struct cc_vm_spec *s)
{
	if (pb->placement > CC_PLACEMENT_RULES ||
	    (pb->may_run.len && pb->may_run.len != (size_t)s->vcpus * RULE_WORDS * 8))
		return false;
	s->placement = (enum cc_placement)pb->placement;
	s->ruled = pb->may_run.len > 0;
	for (unsigned i = 0; i < s->vcpus && s->ruled; i++) {
		for (unsigned w = 0; w < RULE_WORDS; w++)
			s->may_run[i].w[w] = get_le64(pb->may_run.data + (i * RULE_WORDS + w) * 8);
		if (nodeset_empty(&s->may_run[i]) || nodeset_next(&s->may_run[i], s->nodes) != NODE_NONE)
			return false;
	}
	return true;
}

static bool prepare_decode(const Unum__Prepare *pb, struct cc_vm_spec *s)
{
	if (pb->n_node_name < 1 || pb->n_node_name > NODES_MAX || pb->self >= pb->n_node_name ||
	    pb->vm_key.len != CC_KEY_BYTES || pb->vcpu_node.len < 1 ||
	    pb->vcpu_node.len > VCPUS_MAX || pb->numa > CC_NUMA_FLAT ||
	    pb->engine > CC_ENGINE_KVM || pb->faults > CC_FAULTS_DISPATCH ||
	    !features_check(pb->cpu_features))
		return false;
	s->nodes = (unsigned)pb->n_node_name;
	s->self = (node_id)pb->self;
	for (unsigned i = 0; i < s->nodes; i++)
		s->node_name[i] = pb->node_name[i];
	s->vcpus = (unsigned)pb->vcpu_node.len;
	for (unsigned i = 0; i < s->vcpus; i++) {
		if (pb->vcpu_node.data[i] >= s->nodes)
			return false;
		s->vcpu_node[i] = pb->vcpu_node.data[i];
	}
	memcpy(s->vm_key, pb->vm_key.data, CC_KEY_BYTES);
	s->name = pb->name;
	s->vm_id = pb->vm_id;
	s->cache_pages = pb->cache_pages;
	s->spare_pages = pb->spare_pages;
	s->numa = (enum cc_numa)pb->numa;
	s->engine = (enum cc_engine)pb->engine;
	s->faults = (enum cc_faults)pb->faults;
	s->private_tables = pb->private_tables;
	s->checksums = pb->checksums;
	s->place_trace = pb->place_trace;
	s->cpu_features = pb->cpu_features;
	s->kernel = pb->kernel;
	s->initrd = pb->initrd;
	s->cmdline = pb->cmdline;
	s->fabric_backend = pb->fabric_backend;
	s->fabric_device = pb->fabric_device;
	s->fabric_listen = pb->fabric_listen;
	s->chaos = pb->chaos;
	s->probe = pb->probe;
	s->dead_after_ms = pb->dead_after_ms;
	return placement_decode(pb, s) && ranges_decode(pb, s) && devices_decode(pb, s);
}

static bool connect_decode(const Unum__Connect *pb, struct cc_connect *c)
{
	if (pb->n_address < 1 || pb->n_address > NODES_MAX)
		return false;
	c->nodes = (unsigned)pb->n_address;
	for (unsigned i = 0; i < c->nodes; i++)
		c->address[i] = pb->address[i];
	return true;
}

static bool stats_decode(const Unum__Stats *pb, struct cc_stats *s)
{
	if (pb->node >= NODES_MAX || pb->vcpus > VCPUS_MAX || pb->n_hot > CC_HOT_PAGES ||
	    pb->n_latency_hist != CC_LAT_BUCKETS)
		return false;
#define COPY(field) s->field = (__typeof__(s->field))pb->field;
	STATS_COUNTERS(COPY)
#undef COPY
	s->engine = pb->engine;
	memcpy(s->latency_hist, pb->latency_hist, sizeof(s->latency_hist));
	for (size_t i = 0; i < pb->n_hot; i++) {
		s->hot[i].gfn = pb->hot[i]->gfn;
		s->hot[i].faults = pb->hot[i]->faults;
	}
	return true;
}

static bool ended_decode(const Unum__Ended *pb, struct cc_ended *e)
{
	if (pb->reason >= CC_ENDS || pb->node >= NODES_MAX)
		return false;
	*e = (struct cc_ended){ (enum cc_end)pb->reason, (node_id)pb->node, pb->text, pb->dump };
	return true;
}

static bool order_decode(const Unum__Order *pb, struct cc_order *o)
{
	if (pb->kind >= CC_ORDERS || pb->vcpu >= VCPUS_MAX || pb->node >= NODES_MAX || pb->id >> 48)
		return false;
	*o = (struct cc_order){ pb->id,	  (enum cc_order_kind)pb->kind, pb->vcpu, (node_id)pb->node,
				pb->mode, pb->dry_run,			pb->name };
	return true;
}

static bool answer_decode(const Unum__Answer *pb, struct cc_answer *a)
{
	if (pb->vcpu >= VCPUS_MAX || pb->from >= NODES_MAX || pb->to >= NODES_MAX || pb->id >> 48)
		return false;
	*a = (struct cc_answer){ pb->id,	    pb->last,		pb->ok,	      pb->vcpu,
				 (node_id)pb->from, (node_id)pb->to, pb->pause_ns, pb->text };
	return true;
}

static enum cc_msg_type type_of(const Unum__Msg *pb)
{
	for (unsigned i = CC_MSG_NONE + 1; i < CC_MSG_TYPES; i++)
		if (kind_of[i] == pb->kind_case)
			return (enum cc_msg_type)i;
	return CC_MSG_NONE;
}

static bool kind_decode(const Unum__Msg *pb, struct cc_msg *m)
{
	switch (m->type) {
	case CC_MSG_NONE:
		return false;
	case CC_MSG_HELLO:
		m->hello = (struct cc_hello){ pb->hello->version, pb->hello->name };
		return true;
	case CC_MSG_PREPARE:
		return prepare_decode(pb->prepare, &m->prepare);
	case CC_MSG_PREPARED:
		m->prepared.address = pb->prepared->address;
		return true;
	case CC_MSG_FAILED:
		m->failed.text = pb->failed->text;
		return true;
	case CC_MSG_PROGRESS:
		m->progress.text = pb->progress->text;
		return true;
	case CC_MSG_CONNECT:
		return connect_decode(pb->connect, &m->connect);
	case CC_MSG_CONSOLE:
		m->console = (struct cc_console){ pb->console->data.data, pb->console->data.len };
		return m->console.len <= CC_CONSOLE_MAX;
	case CC_MSG_ENDED:
		return ended_decode(pb->ended, &m->ended);
	case CC_MSG_STATS:
		return stats_decode(pb->stats, &m->stats);
	case CC_MSG_ASK:
		m->ask = (struct cc_ask){ pb->ask->kernel, pb->ask->fabric };
		return true;
	case CC_MSG_HOST:
		m->host = (struct cc_host_text){ pb->host->facts, pb->host->why };
		return true;
	case CC_MSG_ORDER:
		return order_decode(pb->order, &m->order);
	case CC_MSG_ANSWER:
		return answer_decode(pb->answer, &m->answer);
	case CC_MSG_PING:
		m->ping.seq = pb->ping->seq;
		return true;
	case CC_MSG_PONG:
		m->ping.seq = pb->pong->seq;
		return true;
	default:
		return true; /* READY, RUN, STOP carry nothing */
	}
}

bool cc_msg_decode(const uint8_t *body, size_t len, struct cc_msg *out)
{
	Unum__Msg *pb = len <= CC_FRAME_MAX ? unum__msg__unpack(NULL, len, body) : NULL;
	struct cc_msg *m = pb ? calloc(1, sizeof(*m)) : NULL;
	bool ok = false;

	if (m) {
		m->type = type_of(pb);
		ok = kind_decode(pb, m);
	}
	if (ok) {
		*out = *m;
		out->storage = pb;
	} else if (pb) {
		unum__msg__free_unpacked(pb, NULL);
	}
	free(m);
	return ok;
}

void cc_msg_clear(struct cc_msg *msg)
{
	if (msg->storage)
		unum__msg__free_unpacked(msg->storage, NULL);
	msg->storage = NULL;
	msg->type = CC_MSG_NONE;
}
