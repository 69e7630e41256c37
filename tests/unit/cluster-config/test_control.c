/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cluster-config/test_control.c - messages there and back, bytes that are not messages,
 * the slice's channel. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cluster-config/control.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fill_spec(struct cc_vm_spec *s)
{
	*s = (struct cc_vm_spec){ .name = "big",
				  .vm_id = 0x1122334455667788,
				  .self = 1,
				  .nodes = 3,
				  .node_name = { "alpha", "beta", "gamma" },
				  .range = { { 0, 100, 0 }, { 100, 50, 1 }, { 1 << 20, 7, 2 } },
				  .ranges = 3,
				  .vcpus = 4,
				  .vcpu_node = { 0, 0, 1, 2 },
				  .cache_pages = 77,
				  .numa = CC_NUMA_FLAT,
				  .engine = CC_ENGINE_KVM,
				  .faults = CC_FAULTS_DISPATCH,
				  .private_tables = true,
				  .placement = CC_PLACEMENT_RULES,
				  .ruled = true,
				  .place_trace = "/t",
				  .cpu_features = "avx sse4a avx512_bf16",
				  .kernel = "/k",
				  .initrd = "",
				  .cmdline = "a=b",
				  .device = { { CC_DEV_BLK, 2, true, "/d" } },
				  .devices = 1,
				  .fabric_backend = "tcp",
				  .fabric_device = "",
				  .fabric_listen = "127.0.0.1:0",
				  .chaos = 0xfedcba9876543210,
				  .probe = true,
				  .dead_after_ms = 5000 };
	memset(s->vm_key, 0xa5, sizeof(s->vm_key));
	for (unsigned i = 0; i < s->vcpus; i++)
		nodeset_add(&s->may_run[i], (node_id)(i % 3));
}

/* Through bytes and back; the caller clears it. */
static void round_trip(const struct cc_msg *in, struct cc_msg *out)
{
	uint8_t *frame;
	size_t len;

	cr_assert_eq(cc_msg_encode(in, &frame, &len), 0);
	cr_assert_eq(get_le32(frame), len - CC_FRAME_HEAD);
	cr_assert(cc_msg_decode(frame + CC_FRAME_HEAD, len - CC_FRAME_HEAD, out));
	cr_assert_eq(out->type, in->type);
	free(frame);
}

Test(control, prepare)
{
	struct cc_msg *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));

	in->type = CC_MSG_PREPARE;
	fill_spec(&in->prepare);
	round_trip(in, out);
	cr_expect_str_eq(out->prepare.name, "big");
	cr_expect_eq(out->prepare.vm_id, 0x1122334455667788);
	cr_expect_arr_eq(out->prepare.vm_key, in->prepare.vm_key, CC_KEY_BYTES);
	cr_expect_eq(out->prepare.self, 1);
	cr_expect_eq(out->prepare.nodes, 3);
	cr_expect_str_eq(out->prepare.node_name[2], "gamma");
	cr_expect_eq(out->prepare.ranges, 3);
	cr_expect_eq(out->prepare.range[2].first, 1 << 20);
	cr_expect_eq(out->prepare.range[2].count, 7);
	cr_expect_eq(out->prepare.range[2].node, 2);
	cr_expect_eq(out->prepare.vcpus, 4);
	cr_expect_arr_eq(out->prepare.vcpu_node, in->prepare.vcpu_node, 4);
	cr_expect_eq(out->prepare.cache_pages, 77);
	cr_expect_eq(out->prepare.numa, CC_NUMA_FLAT);
	cr_expect_eq(out->prepare.engine, CC_ENGINE_KVM);
	cr_expect_eq(out->prepare.faults, CC_FAULTS_DISPATCH);
	cr_expect(out->prepare.private_tables);
	cr_expect_eq(out->prepare.placement, CC_PLACEMENT_RULES);
	cr_expect(out->prepare.ruled);
	cr_expect_arr_eq((const uint8_t *)out->prepare.may_run, (const uint8_t *)in->prepare.may_run,
			 sizeof(in->prepare.may_run));
	cr_expect_str_eq(out->prepare.place_trace, "/t");
	cr_expect_str_eq(out->prepare.cpu_features, "avx sse4a avx512_bf16");
	cr_expect_str_eq(out->prepare.kernel, "/k");
	cr_expect_str_eq(out->prepare.initrd, "");
	cr_expect_str_eq(out->prepare.cmdline, "a=b");
	cr_expect_eq(out->prepare.devices, 1);
	cr_expect_eq(out->prepare.device[0].kind, CC_DEV_BLK);
	cr_expect_eq(out->prepare.device[0].node, 2);
	cr_expect(out->prepare.device[0].readonly);
	cr_expect_str_eq(out->prepare.device[0].path, "/d");
	cr_expect_str_eq(out->prepare.fabric_backend, "tcp");
	cr_expect_eq(out->prepare.chaos, 0xfedcba9876543210);
	cr_expect(out->prepare.probe);
	cr_expect_str_eq(out->prepare.fabric_listen, "127.0.0.1:0");
	cr_expect_eq(out->prepare.dead_after_ms, 5000);
	cc_msg_clear(out);
	cr_expect_eq(out->type, CC_MSG_NONE);
	cc_msg_clear(out); /* twice is fine */
	free(in);
	free(out);
}

Test(control, statistics)
{
	struct cc_msg *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));
	uint64_t *counter = &in->stats.faults_read;

	in->type = CC_MSG_STATS;
	in->stats.node = 5;
	in->stats.vcpus = 3;
	in->stats.memory_bytes = 1ull << 33;
	for (unsigned i = 0; counter + i < &in->stats.latency_hist[CC_LAT_BUCKETS]; i++)
		counter[i] = 1000 + i * 0x100000001ull; /* each its own value, so that none can
							   stand for another */
	in->stats.hot[0].gfn = 9;
	in->stats.hot[0].faults = 8;
	for (unsigned i = 0; &in->stats.ipis_sent_remote + i <= &in->stats.guest_ns; i++)
		(&in->stats.ipis_sent_remote)[i] = 5000 + i;
	in->stats.engine = "bt";
	round_trip(in, out);
	cr_expect_str_eq(out->stats.engine, "bt");
	in->stats.engine = out->stats.engine;
	cr_expect_eq(memcmp(&in->stats, &out->stats, sizeof(in->stats)), 0);
	cc_msg_clear(out);
	free(in);
	free(out);
}

Test(control, small_messages)
{
	static const struct cc_msg msgs[] = {
		{ .type = CC_MSG_HELLO, .hello = { 7, "alpha" } },
		{ .type = CC_MSG_PREPARED, .prepared = { "127.0.0.1:5" } },
		{ .type = CC_MSG_FAILED, .failed = { "why" } },
		{ .type = CC_MSG_CONNECT, .connect = { { "a:1", "b:2" }, 2 } },
		{ .type = CC_MSG_READY },
		{ .type = CC_MSG_RUN },
		{ .type = CC_MSG_CONSOLE, .console = { (const uint8_t *)"x\0y", 3 } },
		{ .type = CC_MSG_PROGRESS, .progress = { "half way" } },
		{ .type = CC_MSG_ENDED, .ended = { CC_END_CRASH, 3, "bad", "rip" } },
		{ .type = CC_MSG_STOP },
		{ .type = CC_MSG_PING, .ping = { 99 } },
		{ .type = CC_MSG_PONG, .ping = { 98 } },
		{ .type = CC_MSG_ASK, .ask = { "/k" } },
		{ .type = CC_MSG_HOST, .host = { "{}", "no" } },
	};
	struct cc_msg out[ARRAY_LEN(msgs)];

	for (unsigned i = 0; i < ARRAY_LEN(msgs); i++)
		round_trip(&msgs[i], &out[i]);
	cr_expect_eq(out[0].hello.version, 7);
	cr_expect_str_eq(out[0].hello.name, "alpha");
	cr_expect_str_eq(out[1].prepared.address, "127.0.0.1:5");
	cr_expect_str_eq(out[2].failed.text, "why");
	cr_expect_eq(out[3].connect.nodes, 2);
	cr_expect_str_eq(out[3].connect.address[1], "b:2");
	cr_expect_eq(out[6].console.len, 3);
	cr_expect_arr_eq(out[6].console.data, "x\0y", 3);
	cr_expect_str_eq(out[7].progress.text, "half way");
	cr_expect_eq(out[8].ended.reason, CC_END_CRASH);
	cr_expect_eq(out[8].ended.node, 3);
	cr_expect_str_eq(out[8].ended.dump, "rip");
	cr_expect_eq(out[10].ping.seq, 99);
	cr_expect_eq(out[11].ping.seq, 98);
	cr_expect_str_eq(out[12].ask.kernel, "/k");
	cr_expect_str_eq(out[13].host.facts, "{}");
	cr_expect_str_eq(out[13].host.why, "no");
	for (unsigned i = 0; i < ARRAY_LEN(msgs); i++)
		cc_msg_clear(&out[i]);
}

/* Encodes a PREPARE after `spoil` had its way; whether the decoder takes it. */
static bool spoilt_is_taken(void (*spoil)(struct cc_vm_spec *s))
{
	struct cc_msg *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));
	uint8_t *frame;
	size_t len;
	bool taken;

	in->type = CC_MSG_PREPARE;
	fill_spec(&in->prepare);
	spoil(&in->prepare);
	cr_assert_eq(cc_msg_encode(in, &frame, &len), 0);
	taken = cc_msg_decode(frame + CC_FRAME_HEAD, len - CC_FRAME_HEAD, out);
	cc_msg_clear(out);
	free(frame);
	free(in);
	free(out);
	return taken;
}

static void spoil_nothing(struct cc_vm_spec *s)
{
	(void)s;
}
static void spoil_self(struct cc_vm_spec *s)
{
	s->self = 3;
}
static void spoil_nodes(struct cc_vm_spec *s)
{
	s->nodes = 0;
}
static void spoil_range_node(struct cc_vm_spec *s)
{
	s->range[1].node = 3;
}
static void spoil_range_overlap(struct cc_vm_spec *s)
{
	s->range[1].first = 99;
}
static void spoil_range_empty(struct cc_vm_spec *s)
{
	s->range[1].count = 0;
}
static void spoil_range_huge(struct cc_vm_spec *s)
{
	s->range[2].count = ~0ull;
}
static void spoil_ranges(struct cc_vm_spec *s)
{
	s->ranges = 0;
}
static void spoil_vcpu(struct cc_vm_spec *s)
{
	s->vcpu_node[3] = 3;
}
static void spoil_vcpus(struct cc_vm_spec *s)
{
	s->vcpus = 0;
}
static void spoil_numa(struct cc_vm_spec *s)
{
	s->numa = (enum cc_numa)2;
}
static void spoil_engine(struct cc_vm_spec *s)
{
	s->engine = (enum cc_engine)3;
}
static void spoil_faults(struct cc_vm_spec *s)
{
	s->faults = (enum cc_faults)3;
}

static void spoil_features_case(struct cc_vm_spec *s)
{
	s->cpu_features = "avx AVX2";
}

static void spoil_features_space(struct cc_vm_spec *s)
{
	s->cpu_features = "avx  avx2";
}

static void spoil_features_end(struct cc_vm_spec *s)
{
	s->cpu_features = "avx ";
}

static void spoil_device_kind(struct cc_vm_spec *s)
{
	s->device[0].kind = CC_DEV_KINDS;
}
static void spoil_device_node(struct cc_vm_spec *s)
{
	s->device[0].node = 3;
}

Test(control, a_prepare_out_of_range_is_rejected)
{
	static void (*const spoils[])(struct cc_vm_spec *) = {
		spoil_self,        spoil_nodes,      spoil_range_node, spoil_range_overlap,
		spoil_range_empty, spoil_range_huge, spoil_ranges,     spoil_vcpu,
		spoil_vcpus,       spoil_numa,       spoil_engine,     spoil_device_kind,
		spoil_faults,      spoil_features_case, spoil_features_space, spoil_features_end,
		spoil_device_node,
	};

	cr_assert(spoilt_is_taken(spoil_nothing));
	for (unsigned i = 0; i < ARRAY_LEN(spoils); i++)
		cr_expect_not(spoilt_is_taken(spoils[i]), "case %u", i);
}

Test(control, what_is_too_long_is_not_encoded)
{
	size_t big = CC_FRAME_MAX + 1;
	char *text = malloc(big + 1);
	struct cc_msg in = { .type = CC_MSG_PROGRESS, .progress = { text } };
	uint8_t *frame;
	size_t len;

	memset(text, 'x', big);
	text[big] = 0;
	cr_expect_eq(cc_msg_encode(&in, &frame, &len), -EMSGSIZE);
	in = (struct cc_msg){ .type = CC_MSG_CONSOLE,
			      .console = { (uint8_t *)text, CC_CONSOLE_MAX + 1 } };
	cr_assert_eq(cc_msg_encode(&in, &frame, &len), 0);
	cr_expect_not(cc_msg_decode(frame + CC_FRAME_HEAD, len - CC_FRAME_HEAD, &in));
	free(frame);
	free(text);
}

/* Random bytes, and real messages with a few bytes changed: nothing but a clean yes or no may come
 * of it. */
Test(control, garbage)
{
	struct rng rng = { 42 };
	struct cc_msg *in = calloc(1, sizeof(*in)), *out = calloc(1, sizeof(*out));
	unsigned taken = 0, rejected = 0;
	uint8_t *frame, bytes[512];
	size_t len;

	in->type = CC_MSG_PREPARE;
	fill_spec(&in->prepare);
	cr_assert_eq(cc_msg_encode(in, &frame, &len), 0);
	cr_assert_leq(len, sizeof(bytes));
	for (unsigned round = 0; round < 200000; round++) {
		size_t n = len - CC_FRAME_HEAD;

		if (round % 4 == 0) {
			n = rng_below(&rng, sizeof(bytes));
			for (size_t i = 0; i < n; i++)
				bytes[i] = (uint8_t)rng_next(&rng);
		} else {
			memcpy(bytes, frame + CC_FRAME_HEAD, n);
			for (uint64_t k = rng_below(&rng, 4) + 1; k; k--)
				bytes[rng_below(&rng, n)] = (uint8_t)rng_next(&rng);
			if (round % 4 == 1)
				n = rng_below(&rng, n);
		}
		if (cc_msg_decode(bytes, n, out)) {
			taken++;
			if (out->type == CC_MSG_PREPARE)
				cr_assert_lt(out->prepare.self, out->prepare.nodes);
			cc_msg_clear(out);
		} else {
			rejected++;
		}
	}
	cr_expect_gt(taken, 0u);
	cr_expect_gt(rejected, 0u);
	free(frame);
	free(in);
	free(out);
}

Test(control, names)
{
	for (unsigned i = 0; i < CC_MSG_TYPES; i++)
		cr_expect_not_null(cc_msg_name((enum cc_msg_type)i));
	for (unsigned i = 0; i < CC_ENDS; i++)
		cr_expect_not_null(cc_end_name((enum cc_end)i));
	cr_expect_str_eq(cc_msg_name(CC_MSG_TYPES), "?");
}

/* --- the slice's channel ---------------------------------------------------------------------- */

static void frame_write(int fd, const struct cc_msg *msg)
{
	uint8_t *frame;
	size_t len;

	cr_assert_eq(cc_msg_encode(msg, &frame, &len), 0);
	cr_assert_eq(write(fd, frame, len), (ssize_t)len);
	free(frame);
}

static void frame_read(int fd, struct cc_msg *out)
{
	uint8_t head[CC_FRAME_HEAD], body[4096];
	size_t have = 0;

	cr_assert_eq(recv(fd, head, sizeof(head), MSG_WAITALL), (ssize_t)sizeof(head));
	cr_assert_leq(get_le32(head), sizeof(body));
	have = get_le32(head);
	cr_assert_eq(recv(fd, body, have, MSG_WAITALL), (ssize_t)have);
	cr_assert(cc_msg_decode(body, have, out));
}

static struct cc_chan *chan_make(int *agent_fd)
{
	struct cc_chan *c;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(cc_chan_open(pair[1], &c), 0);
	*agent_fd = pair[0];
	return c;
}

Test(chan, answers_ping_by_itself_and_keeps_the_rest, .timeout = 20)
{
	struct cc_msg msg;
	int fd;
	struct cc_chan *c = chan_make(&fd);

	cr_expect_eq(cc_chan_recv(c, &msg, 10 * NS_PER_MS), -ETIMEDOUT);
	frame_write(fd, &(struct cc_msg){ .type = CC_MSG_RUN });
	frame_write(fd, &(struct cc_msg){ .type = CC_MSG_PING, .ping = { 17 } });
	frame_write(fd, &(struct cc_msg){ .type = CC_MSG_STOP });
	frame_read(fd, &msg);
	cr_expect_eq(msg.type, CC_MSG_PONG);
	cr_expect_eq(msg.ping.seq, 17);
	cc_msg_clear(&msg);
	cr_assert_eq(cc_chan_recv(c, &msg, ~0ull), 0);
	cr_expect_eq(msg.type, CC_MSG_RUN);
	cc_msg_clear(&msg);
	cr_assert_eq(cc_chan_recv(c, &msg, ~0ull), 0);
	cr_expect_eq(msg.type, CC_MSG_STOP);
	cc_msg_clear(&msg);
	cr_assert_eq(cc_chan_send(c, &(struct cc_msg){ .type = CC_MSG_READY }), 0);
	frame_read(fd, &msg);
	cr_expect_eq(msg.type, CC_MSG_READY);
	cc_msg_clear(&msg);
	cc_chan_close(c);
	close(fd);
}

Test(chan, tells_when_the_agent_is_gone, .timeout = 20)
{
	struct cc_msg msg;
	int fd;
	struct cc_chan *c = chan_make(&fd);

	frame_write(fd, &(struct cc_msg){ .type = CC_MSG_RUN });
	close(fd);
	cr_assert_eq(cc_chan_recv(c, &msg, ~0ull), 0); /* what came before it is still delivered */
	cc_msg_clear(&msg);
	cr_expect_eq(cc_chan_recv(c, &msg, ~0ull), -EPIPE);
	cr_expect_eq(cc_chan_send(c, &(struct cc_msg){ .type = CC_MSG_READY }), -EPIPE);
	cc_chan_close(c);
}

Test(chan, garbage_ends_it, .timeout = 20)
{
	static const uint8_t bytes[2][8] = { { 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff },
					     { 0xff, 0xff, 0xff, 0xff } };
	struct cc_msg msg;
	int fd;

	for (unsigned i = 0; i < 2; i++) {
		struct cc_chan *c = chan_make(&fd);

		cr_assert_eq(write(fd, bytes[i], 8), 8);
		cr_expect_eq(cc_chan_recv(c, &msg, ~0ull), -EPIPE);
		cc_chan_close(c);
		close(fd);
	}
}

Test(chan, closes_with_messages_that_nobody_took, .timeout = 20)
{
	int fd;
	struct cc_chan *c = chan_make(&fd);

	for (unsigned i = 0; i < 200; i++) /* more than it keeps */
		frame_write(fd, &(struct cc_msg){ .type = CC_MSG_PROGRESS, .progress = { "x" } });
	usleep(50000);
	cc_chan_close(c);
	close(fd);
}

static void *sender_main(void *arg)
{
	for (unsigned i = 0; i < 500; i++)
		cr_assert_eq(cc_chan_send(arg, &(struct cc_msg){ .type = CC_MSG_PROGRESS,
								 .progress = { "line" } }),
			     0);
	return NULL;
}

Test(chan, many_senders_never_mix_their_frames, .timeout = 20)
{
	struct cc_msg msg;
	pthread_t t[4];
	int fd;
	struct cc_chan *c = chan_make(&fd);

	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, sender_main, c), 0);
	for (unsigned i = 0; i < 2000; i++) {
		frame_read(fd, &msg);
		cr_assert_eq(msg.type, CC_MSG_PROGRESS);
		cc_msg_clear(&msg);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cc_chan_close(c);
	close(fd);
}
