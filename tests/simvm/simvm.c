/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/simvm.c - one run: slices as they are in production on the runtime's threads, an engine that paces the
 *           guest, a simulated network, faults by a plan; and the verdict.
 *
 * What      Each node's main thread does what an agent has its slice do: prepare, connect, run, stop when the VM has
 *           ended somewhere, close.  One more thread, of no node, brings the faults.
 * Owns      The run: one in a process.
 */
#include "tests/simvm/simvm.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "dsm/core/wire.h"
#include "hv/engine.h"
#include "hv/slice.h"
#include "interconnect/sim.h"
#include "tests/simvm/rt_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE_PAGES (8 * CC_MEMORY_UNIT >> PAGE_SHIFT)
#define CONSOLE_MAX 65536u
#define NOWHERE (RT_NODES_MAX - 1) /* node of the thread that brings the faults */

struct node {
	struct cc_vm_spec spec;
	struct hv_slice *slice;
	bool prepared, connected, ended, closed, dead;
	struct cc_ended end;
	char end_text[HV_TEXT_MAX], dump[1024];
};

static struct {
	struct simvm_plan plan;
	struct rng rng;
	void (*done)(const struct simvm_result *) __attribute__((noreturn));
	bool trace;
	struct ic_sim *net;
	struct node node[SIMVM_NODES_MAX];
	struct cc_connect addresses;
	char address[SIMVM_NODES_MAX][IC_ADDR_MAX], kernel[512];
	uint32_t word; /* changes with every flag of a node */
	char console[CONSOLE_MAX];
	size_t console_len;
	uint32_t blocks[VCPUS_MAX]; /* that a vCPU was let go on */
	struct simvm_result result;
} run;

static _Noreturn void fail(const char *text)
{
	run.result.good = false;
	snprintf(run.result.text, sizeof(run.result.text), "%s", text);
	run.result.virtual_ns = rt_now_ns();
	run.done(&run.result);
}

static void trace_line(const char *line)
{
	puts(line);
}

static void tracef(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tracef(const char *fmt, ...)
{
	va_list ap;

	if (!run.trace)
		return;
	printf("%10llu.%03u us node %u ", (unsigned long long)rt_now_ns() / 1000,
	       (unsigned)(rt_now_ns() % 1000), rt_node());
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* --- engine: bt, paced, every exit noted -------------------------------------------------------------------------- */

static struct hv_engine paced;
const struct hv_engine *const hv_engines[] = { &paced, NULL }; /* takes the place of hv/engines.c */

/* Guest SSE state may be in the registers. */
__attribute__((target("general-regs-only"))) static uint32_t pace(unsigned vcpu, uint64_t rip, const uint64_t gpr[static 16])
{
	rt_digest(vcpu);
	rt_digest(rip);
	for (unsigned i = 0; i < 16; i++)
		rt_digest(gpr[i]);
	run.blocks[vcpu] = rt_pace(run.blocks[vcpu]);
	return run.blocks[vcpu];
}

static int paced_vm_open(const struct hv_vm_config *cfg, struct hv_vm **out)
{
	struct hv_vm_config mine = *cfg;

	mine.pace = pace;
	return hv_engine_bt.vm_open(&mine, out);
}

static void exit_trace(const struct hv_exit *e, const struct hv_cpu_state *st)
{
	static const char *const names[] = {
		[HV_EXIT_KICKED] = "kicked",	 [HV_EXIT_MMIO] = "mmio",   [HV_EXIT_PIO] = "pio",
		[HV_EXIT_MSR] = "msr",		 [HV_EXIT_HLT] = "hlt",	    [HV_EXIT_IRQ_WINDOW] = "irq window",
		[HV_EXIT_SHUTDOWN] = "shutdown", [HV_EXIT_LOST] = "lost",   [HV_EXIT_ERROR] = "error",
	};
	bool access = e->reason == HV_EXIT_MMIO || e->reason == HV_EXIT_PIO || e->reason == HV_EXIT_MSR;

	if (access)
		tracef("exit %s %s %#llx data %#llx rip %#llx", names[e->reason], e->write ? "write" : "read",
		       (unsigned long long)e->addr, e->write ? (unsigned long long)e->data : 0,
		       (unsigned long long)st->rip);
	else
		tracef("exit %s rip %#llx", names[e->reason], (unsigned long long)st->rip);
}

static void paced_run(struct hv_vcpu *v, struct hv_exit *e, bool irq_window)
{
	struct hv_cpu_state st;

	hv_engine_bt.run(v, e, irq_window);
	hv_engine_bt.get_state(v, &st);
	run.result.exits++;
	rt_digest(e->reason);
	rt_digest(e->addr);
	rt_digest(e->write ? e->data : 0);
	rt_digest(st.rip);
	rt_digest(st.rflags);
	for (unsigned i = 0; i < 16; i++)
		rt_digest(st.gpr[i]);
	if (run.trace)
		exit_trace(e, &st);
}

static void engine_init(void)
{
	paced = hv_engine_bt;
	paced.vm_open = paced_vm_open;
	paced.run = paced_run;
}

/* --- fabric: every message noted ---------------------------------------------------------------------------------- */

int __wrap_ic_open(const struct ic_config *cfg, struct ic_fabric **out);
int __real_ic_open(const struct ic_config *cfg, struct ic_fabric **out);
void __wrap_ic_deliver(struct ic_fabric *f, node_id from, const struct ic_msg *msg);
void __real_ic_deliver(struct ic_fabric *f, node_id from, const struct ic_msg *msg);
_Noreturn void __wrap_assert_failed(const char *cond, const char *file, int line, const char *func);

int __wrap_ic_open(const struct ic_config *cfg, struct ic_fabric **out)
{
	struct ic_config mine = *cfg;

	mine.sim = run.net;
	return __real_ic_open(&mine, out);
}

static void dsm_message_trace(node_id from, const struct ic_msg *msg)
{
	static const char *const kinds[PROTO_KINDS] = {
		[PROTO_REQ_READ] = "REQ_READ",	 [PROTO_REQ_WRITE] = "REQ_WRITE", [PROTO_EVICT] = "EVICT",
		[PROTO_FWD_READ] = "FWD_READ",	 [PROTO_FWD_WRITE] = "FWD_WRITE", [PROTO_RECALL] = "RECALL",
		[PROTO_INV] = "INV",		 [PROTO_GRANT] = "GRANT",	  [PROTO_ACK] = "ACK",
		[PROTO_DONE] = "DONE",		 [PROTO_RETURN] = "RETURN",
	};

	for (unsigned at = 0; at + WIRE_MSG_BYTES <= msg->body_len; at += WIRE_MSG_BYTES) {
		bool data = msg->data_len && at + 2 * WIRE_MSG_BYTES > msg->body_len;
		struct proto_msg m;

		if (wire_decode((const uint8_t *)msg->body + at, WIRE_MSG_BYTES, data ? PAGE_SIZE : 0, &m))
			tracef("gets from %u: %s page %#x", from, kinds[m.kind], m.page);
	}
}

void __wrap_ic_deliver(struct ic_fabric *f, node_id from, const struct ic_msg *msg)
{
	const uint8_t *body = msg->body;

	run.result.messages++;
	run.result.pages += msg->data_len == IC_DATA_MAX;
	rt_digest((uint64_t)from << 32 | (uint64_t)msg->port << 16 | msg->body_len);
	for (unsigned i = 0; i < msg->body_len; i++)
		rt_digest(body[i]);
	if (run.trace && msg->port == IC_PORT_DSM)
		dsm_message_trace(from, msg);
	else if (run.trace)
		tracef("gets from %u: %u bytes for port %u, kind %u", from, msg->body_len, msg->port,
		       msg->body_len ? body[0] : 0);
	__real_ic_deliver(f, from, msg);
}

_Noreturn void __wrap_assert_failed(const char *cond, const char *file, int line, const char *func)
{
	char text[512];

	snprintf(text, sizeof(text), "node %u: assertion at %s:%d, %s: %s", rt_node(), file, line, func, cond);
	fail(text);
}

/* --- slices ------------------------------------------------------------------------------------------------------- */

static void changed(void)
{
	run.word++;
	rt_wake(&run.word);
}

static void sink_console(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	for (size_t i = 0; i < len; i++) {
		rt_digest(data[i]);
		if (run.console_len < CONSOLE_MAX - 1)
			run.console[run.console_len++] = (char)data[i];
	}
	tracef("console %.*s", (int)len, (const char *)data);
}

static void sink_progress(void *arg, const char *text)
{
	(void)arg;
	tracef("%s", text);
}

static void sink_ended(void *arg, const struct cc_ended *ended)
{
	struct node *n = arg;

	n->end = *ended;
	snprintf(n->end_text, sizeof(n->end_text), "%s", ended->text);
	snprintf(n->dump, sizeof(n->dump), "%s", ended->dump);
	n->ended = true;
	tracef("ended: %s", ended->text);
	changed();
}

static void spec_fill(struct cc_vm_spec *s, unsigned self)
{
	static const char *const names[SIMVM_NODES_MAX] = { "n0", "n1", "n2", "n3" };
	const struct simvm_plan *p = &run.plan;

	s->name = "simvm";
	s->self = (node_id)self;
	s->nodes = p->nodes;
	s->vcpus = p->nodes * p->vcpus;
	s->cache_pages = p->cache_pages;
	s->engine = CC_ENGINE_BT;
	s->kernel = self ? "" : run.kernel;
	s->initrd = s->cpu_features = s->fabric_device = "";
	s->cmdline = p->options;
	s->fabric_backend = s->fabric_listen = "sim";
	s->ranges = p->nodes;
	for (unsigned n = 0; n < p->nodes; n++) {
		s->node_name[n] = names[n];
		s->range[n] = (struct cc_range){ n * NODE_PAGES, NODE_PAGES, (node_id)n };
	}
	for (unsigned v = 0; v < s->vcpus; v++)
		s->vcpu_node[v] = (node_id)(v % p->nodes);
	s->device[s->devices++] = (struct cc_device){ .kind = CC_DEV_SERIAL, .path = "" };
	s->device[s->devices++] =
		(struct cc_device){ .kind = CC_DEV_RNG, .node = (node_id)(p->nodes - 1), .path = "" };
}

/* Until every node that lives has set it. */
static void all(size_t flag)
{
	for (;;) {
		uint32_t seen = run.word;
		bool missing = false;

		for (unsigned n = 0; n < run.plan.nodes; n++)
			missing |= !run.node[n].dead && !*((bool *)&run.node[n] + flag);
		if (!missing)
			return;
		rt_wait(&run.word, seen);
	}
}
#define ALL(field) all(offsetof(struct node, field))

/* Until this slice has ended; it is told when another's guest has switched itself off, and of any other end unless
 * a node is to crash: that it must find out. */
static void until_ended(struct node *self)
{
	bool told = false;

	while (!self->ended) {
		uint32_t seen = run.word;

		for (unsigned n = 0; n < run.plan.nodes && !told; n++)
			if (run.node[n].ended && (run.node[n].end.reason == CC_END_POWEROFF || !run.plan.crash)) {
				struct timespec ts = { .tv_nsec = (long)(rt_random() % NS_PER_MS) };

				nanosleep(&ts, NULL);
				hv_slice_stop(self->slice);
				told = true;
			}
		if (!self->ended && seen == run.word)
			rt_wait(&run.word, seen);
	}
}

static void node_main(unsigned id)
{
	struct node *n = &run.node[id];
	struct hv_slice_sink sink = { sink_console, sink_progress, sink_ended, n, NULL };
	char text[HV_TEXT_MAX] = "";

	spec_fill(&n->spec, id);
	if (hv_slice_prepare(&n->spec, &sink, &n->slice, text))
		fail(text);
	hv_slice_address(n->slice, run.address[id]);
	run.addresses.address[id] = run.address[id];
	n->prepared = true;
	changed();
	ALL(prepared);
	if (hv_slice_connect(n->slice, &run.addresses, text))
		fail(text);
	n->connected = true;
	changed();
	ALL(connected);
	hv_slice_run(n->slice);
	until_ended(n);
	ALL(ended);
	hv_slice_close(n->slice);
	n->closed = true;
	changed();
}

/* --- faults ------------------------------------------------------------------------------------------------------- */

static void *fate(void *arg)
{
	const struct simvm_plan *p = &run.plan;
	unsigned crash_after = p->crash ? (unsigned)rng_below(&run.rng, p->pauses + 1) : ~0u;

	(void)arg;
	for (unsigned i = 0; i <= p->pauses; i++) {
		/* A log scale: many things go wrong early. */
		uint64_t nap = NS_PER_US << rng_below(&run.rng, 16);
		struct timespec ts = { (time_t)(nap / NS_PER_S), (long)(nap % NS_PER_S) };
		unsigned node = (unsigned)rng_below(&run.rng, p->nodes);
		uint64_t pause = NS_PER_US << rng_below(&run.rng, 15);

		nanosleep(&ts, NULL);
		if (i == crash_after) {
			ALL(connected);
			tracef("CRASH of node %u", node);
			run.node[node].dead = true;
			rt_kill(node);
			ic_sim_crash(run.net, (node_id)node);
			changed();
		} else if (i < p->pauses) {
			tracef("pause of node %u for %llu us", node, (unsigned long long)(pause / NS_PER_US));
			rt_pause(node, rt_now_ns() + pause);
		}
	}
	return NULL;
}

/* --- verdict ------------------------------------------------------------------------------------------------------ */

static void node_verdict(const struct node *n, unsigned id, bool off)
{
	char text[SIMVM_TEXT_MAX];
	enum cc_end r = n->end.reason;

	if (r == CC_END_POWEROFF || (off && r == CC_END_STOPPED) ||
	    (run.plan.crash && r == CC_END_PEER_LOST && run.node[n->end.node].dead))
		return;
	snprintf(text, sizeof(text), "node %u ended: %s\n%s%.2000s", id, n->end_text, n->dump, run.console);
	fail(text);
}

static void verdict(void)
{
	char want[64], text[SIMVM_TEXT_MAX];
	bool off = false, lost = false;

	for (unsigned n = 0; n < run.plan.nodes; n++) {
		off |= run.node[n].ended && run.node[n].end.reason == CC_END_POWEROFF;
		lost |= run.node[n].dead;
	}
	for (unsigned n = 0; n < run.plan.nodes; n++)
		if (!run.node[n].dead)
			node_verdict(&run.node[n], n, off);
	snprintf(want, sizeof(want), "PAYLOAD %s: PASS", run.plan.payload);
	if ((off || !lost) && !strstr(run.console, want)) {
		snprintf(text, sizeof(text), "no \"%s\" on the console, but:\n%.3000s", want, run.console);
		fail(text);
	}
}

_Noreturn void simvm_run(const struct simvm_plan *p, const char *payload_dir, bool trace,
			 void (*done)(const struct simvm_result *) __attribute__((noreturn)))
{
	struct ic_sim_config net = { .nodes = p->nodes, .seed = p->seed ^ 0x5eed, .delay_min_ns = p->delay_min_ns,
				     .delay_max_ns = p->delay_max_ns, .stall_every = p->stall_every,
				     .stall_ns = p->stall_ns, .queue = 64, .detect_ns = 5 * NS_PER_MS };
	struct rt_config cfg = { .seed = p->seed, .calls_mean = p->calls_mean, .blocks_mean = p->blocks_mean,
				 .skew = p->skew, .limit_ns = NS_PER_S + p->limit_ns, .fail = fail,
				 .trace = trace ? trace_line : NULL };

	run.plan = *p;
	run.rng.state = p->seed ^ 0xfa7e;
	run.done = done;
	run.trace = trace;
	run.addresses.nodes = p->nodes;
	snprintf(run.kernel, sizeof(run.kernel), "%s/%s.elf", payload_dir, p->payload);
	engine_init();
	rt_init(&cfg);
	if (ic_sim_open(&net, &run.net))
		fail("no network");
	rt_thread_new(NOWHERE, "fate", fate, NULL);
	rt_run(p->nodes, node_main);
	verdict();
	run.result.good = true;
	run.result.digest = rt_digest_now();
	run.result.switches = rt_switches();
	run.result.virtual_ns = rt_now_ns();
	run.done(&run.result);
}
