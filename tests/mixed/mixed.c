/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/mixed/mixed.c - one VM of two slices with different engines, bt and kvm, whose vCPUs move between them.
 *
 * Use       mixed KERNEL ENGINE0 ENGINE1 RATE [CMDLINE [WITHOUT]]: two processes, each one slice with one of the engines; while the
 *           payload runs, vCPUs are moved at random, RATE a second.  Last line: JSON {"moves":..,"returned":..}.
 *           Exit status: 0 the guest switched itself off, 1 anything else, 77 an engine cannot be had here.
 * What      The slices themselves, as unum-slice has them, without agents: there both slices would get one engine.
 * I/O       Loopback, pipes between the two processes.
 */
#include "hv/slice.h"

#include "base/clock.h"
#include "base/rng.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define VCPUS 4u
#define NODES 2u
#define NODE_FRAMES 8192ull /* 32 MiB */
#define LIMIT_NS (150 * NS_PER_S)
#define SKIP 77

static struct {
	_Atomic bool over;
	_Atomic enum cc_end reason;
	_Atomic uint64_t moved, refused;
	_Atomic bool busy[VCPUS];
	_Atomic unsigned where[VCPUS];
} seen; /* sinks are called by threads of the slice */

static void on_console(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	fwrite(data, 1, len, stdout);
	fflush(stdout);
}

static void on_progress(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static void on_ended(void *arg, const struct cc_ended *e)
{
	(void)arg;
	if (e->reason != CC_END_POWEROFF && e->reason != CC_END_PEER_LOST)
		fprintf(stderr, "mixed: ended: %s\n%s", e->text, e->dump);
	atomic_store(&seen.reason, e->reason);
	atomic_store(&seen.over, true);
}

static void on_answer(void *arg, const struct cc_answer *a)
{
	(void)arg;
	if (a->ok)
		atomic_store(&seen.where[a->vcpu], a->to);
	else
		fprintf(stderr, "mixed: vCPU %u: %s\n", a->vcpu, a->text);
	atomic_fetch_add(a->ok ? &seen.moved : &seen.refused, 1);
	atomic_store(&seen.busy[a->vcpu], false);
}

static void spec_make(struct cc_vm_spec *s, node_id self, enum cc_engine engine, const char *kernel,
		      const char *cmdline, const char *without)
{
	*s = (struct cc_vm_spec){
		.name = "mixed",
		.vm_id = 1,
		.self = self,
		.nodes = NODES,
		.ranges = NODES,
		.vcpus = VCPUS,
		.numa = CC_NUMA_FLAT,
		.engine = engine,
		.private_tables = true,
		.cpu_features = "", .cpu_without = without,
		.kernel = self ? "" : kernel,
		.initrd = "",
		.cmdline = cmdline,
		.devices = 1,
		.fabric_backend = "tcp",
		.fabric_device = "",
		.fabric_listen = "127.0.0.1:0",
	};
	memset(s->vm_key, 3, sizeof(s->vm_key));
	for (unsigned n = 0; n < NODES; n++) {
		s->node_name[n] = n ? "n1" : "n0";
		s->range[n] = (struct cc_range){ n * NODE_FRAMES, NODE_FRAMES, (node_id)n };
	}
	for (unsigned v = 0; v < VCPUS; v++)
		s->vcpu_node[v] = (node_id)(v * NODES / VCPUS);
	s->device[0] = (struct cc_device){ .kind = CC_DEV_SERIAL, .node = 0, .path = "" };
}

/* Node 0: orders, until the guest ends. */
static void churn(struct hv_slice *s, double rate)
{
	uint64_t start = clock_now_ns(), given = 0;
	struct rng r = { 1 };

	for (unsigned v = 0; v < VCPUS; v++)
		atomic_store(&seen.where[v], v * NODES / VCPUS);
	while (!atomic_load(&seen.over) && clock_now_ns() - start < LIMIT_NS) {
		unsigned v = (unsigned)rng_below(&r, VCPUS);
		struct cc_order o = {
			.id = given + 1, .kind = CC_ORDER_MOVE, .vcpu = v, .name = ""
		};

		if ((double)(clock_now_ns() - start) / 1e9 * rate > (double)given &&
		    !atomic_load(&seen.busy[v])) {
			o.node = (node_id)!atomic_load(&seen.where[v]);
			atomic_store(&seen.busy[v], true);
			given++;
			hv_slice_order(s, &o);
		}
		usleep(200);
	}
}

/* Exit status.  in, out: pipes with the other node's address and ours. */
static int node(const struct cc_vm_spec *spec, int in, int out, double rate)
{
	struct hv_slice_sink sink = { on_console, on_progress, on_ended, NULL, on_answer };
	char text[HV_TEXT_MAX] = "", address[NODES][IC_ADDR_MAX] = { "", "" };
	struct cc_connect all = { .nodes = NODES };
	struct cc_stats st;
	struct hv_slice *s;

	if (hv_slice_prepare(spec, &sink, &s, text)) {
		fprintf(stderr, "mixed: node %u: %s\n", spec->self, text);
		return SKIP;
	}
	hv_slice_address(s, address[spec->self]);
	if (write(out, address[spec->self], IC_ADDR_MAX) != IC_ADDR_MAX ||
	    read(in, address[!spec->self], IC_ADDR_MAX) != IC_ADDR_MAX)
		return SKIP; /* the other one has said why */
	for (unsigned n = 0; n < NODES; n++)
		all.address[n] = address[n];
	if (hv_slice_connect(s, &all, text)) {
		fprintf(stderr, "mixed: node %u: %s\n", spec->self, text);
		return 1;
	}
	hv_slice_run(s);
	if (spec->self)
		while (!atomic_load(&seen.over))
			usleep(1000);
	else
		churn(s, rate);
	hv_slice_stats(s, &st);
	hv_slice_close(s);
	if (spec->self) /* what it ended by, node 0 tells */
		return 0;
	printf("{\"moves\":%llu,\"refused\":%llu,\"in\":%llu,\"returned\":%llu}\n",
	       (unsigned long long)atomic_load(&seen.moved),
	       (unsigned long long)atomic_load(&seen.refused), (unsigned long long)st.moved_in,
	       (unsigned long long)st.moves_returned);
	return atomic_load(&seen.over) && atomic_load(&seen.reason) == CC_END_POWEROFF ? 0 : 1;
}

static enum cc_engine engine_of(const char *word)
{
	return !strcmp(word, "kvm") ? CC_ENGINE_KVM : CC_ENGINE_BT;
}

int main(int argc, char **argv)
{
	static struct cc_vm_spec spec[NODES];
	int to0[2], to1[2], status = 1, child;
	pid_t pid;

	if (argc < 5 || pipe(to0) || pipe(to1)) {
		fprintf(stderr, "usage: mixed KERNEL ENGINE0 ENGINE1 RATE [CMDLINE [WITHOUT]]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	for (unsigned n = 0; n < NODES; n++)
		spec_make(&spec[n], (node_id)n, engine_of(argv[2 + n]), argv[1], argc > 5 ? argv[5] : "", argc > 6 ? argv[6] : "");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(to0[0]);
		close(to1[1]);
		_exit(node(&spec[1], to1[0], to0[1], 0));
	}
	close(to0[1]);
	close(to1[0]);
	status = node(&spec[0], to0[0], to1[1], atof(argv[4]));
	if (status == SKIP)
		kill(pid, SIGKILL);
	if (pid > 0 && waitpid(pid, &child, 0) == pid && WIFEXITED(child) && WEXITSTATUS(child) &&
	    !status)
		status = WEXITSTATUS(child);
	return status;
}
