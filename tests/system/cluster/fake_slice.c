/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/system/cluster/fake_slice.c - TEST DOUBLE of unum-slice: only the control protocol.
 *
 * What      No guest and no memory: lets the tests of agents and command line run without a
 *           monitor.  Speaks the real protocol, joins its peers by plain TCP (so that a lost peer is
 *           noticed as a fabric would notice it), holds a memfd like a guest's RAM.  The VM's
 *           command line says what it does:
 *             fake=poweroff, crash, error, die, exit   at once after RUN, on the boot node
 *             fake=fail     FAILED instead of PREPARED, on the last node
 *             fake=hang     never PREPARED
 *             fake=flood    1 MiB of console, then poweroff
 *           Else the console echoes lines, and "poweroff" ends the guest.
 *           With --host it tells what UNUM_FAKE_HOST holds, as JSON, or does as it says:
 *             kvm         a host that any VM may run kvm on
 *             eptad       one that has kvm for one node only, and a command that mends it
 *             hang, die, garbage
 *             no-permission, busy, too-old, no-rights, cpu  one that has no kvm, with this word for it
 *           Without UNUM_FAKE_HOST it tells of a host without KVM.  Started with --host and a kernel file with "private"
 *           in its beginning, it says that vCPUs of that kernel share no page tables.  UNUM_FAKE_FABRIC, words:
 *             HOST [rdma NETWORK | bare]  which host it is on, and its RDMA device rdma0: on a network, or without address
 *             mtu N     of its interface eth0, which has 127.0.0.1
 *           With --fabric it tells the same.  As a probe slice it tells of made-up figures, or UNUM_FAKE_PROBE:
 *             silent (no report), garbage (one that is no JSON), lost (its peer), fail (FAILED on the last node)
 * Threads   main, and the reader of cc_chan.
 */
#include "base/bytes.h"
#include "base/clock.h"
#include "cluster-config/control.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECV_NS (20 * NS_PER_MS)

struct fake {
	struct cc_chan *chan;
	struct cc_msg spec; /* PREPARE, kept */
	int listen_fd, peer_fd[NODES_MAX];
	bool running, ended;
	char line[256];
	size_t line_len;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static void tell(struct fake *f, const struct cc_msg *msg)
{
	if (cc_chan_send(f->chan, msg))
		exit(1);
}

static void tell_end(struct fake *f, enum cc_end reason, node_id node, const char *text,
		     const char *dump)
{
	if (f->ended)
		return;
	f->ended = true;
	tell(f, &(struct cc_msg){ .type = CC_MSG_ENDED, .ended = { reason, node, text, dump } });
}

static void tell_console(struct fake *f, const void *data, size_t len)
{
	tell(f, &(struct cc_msg){ .type = CC_MSG_CONSOLE, .console = { data, len } });
}

static bool told(const struct fake *f, const char *what)
{
	return strstr(f->spec.prepare.cmdline, what) != NULL;
}

static void prepare(struct fake *f)
{
	const struct cc_vm_spec *s = &f->spec.prepare;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	char address[64], line[300];
	const char *probe = getenv("UNUM_FAKE_PROBE");
	int ram = memfd_create("unum-fake-ram", MFD_CLOEXEC);

	must(ram >= 0 && !ftruncate(ram, 1 << 20), "memfd");
	if (told(f, "fake=hang"))
		return;
	if ((told(f, "fake=fail") || (s->probe && probe && !strcmp(probe, "fail"))) && s->self == s->nodes - 1) {
		tell(f, &(struct cc_msg){ .type = CC_MSG_FAILED,
					  .failed = { "the fake was told to fail" } });
		exit(0);
	}
	f->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
	must(!bind(f->listen_fd, (struct sockaddr *)&a, sizeof(a)) && !listen(f->listen_fd, 64),
	     "listen");
	must(!getsockname(f->listen_fd, (struct sockaddr *)&a, &len), "getsockname");
	snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(a.sin_port));
	snprintf(line, sizeof(line),
		 "fake slice prepared, engine %d, faults %d, private %d, features '%s', fabric '%s', device '%s', chaos %llu",
		 s->engine, s->faults, s->private_tables, s->cpu_features, s->fabric_backend, s->fabric_device,
		 (unsigned long long)s->chaos);
	tell(f, &(struct cc_msg){ .type = CC_MSG_PROGRESS, .progress = { line } });
	tell(f, &(struct cc_msg){ .type = CC_MSG_PREPARED, .prepared = { address } });
}

/* The higher number connects, the lower accepts. */
static void join_peers(struct fake *f, const struct cc_connect *c)
{
	node_id self = f->spec.prepare.self;

	for (unsigned i = 0; i < self; i++) {
		const char *colon = strchr(c->address[i], ':');
		struct sockaddr_in a = { .sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					 .sin_port = htons((uint16_t)atoi(colon + 1)) };

		f->peer_fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		must(!connect(f->peer_fd[i], (struct sockaddr *)&a, sizeof(a)), "connect");
		must(write(f->peer_fd[i], &self, 1) == 1, "write");
	}
	for (unsigned i = self + 1u; i < c->nodes; i++) {
		int fd = accept(f->listen_fd, NULL, NULL);
		node_id who;

		must(fd >= 0 && read(fd, &who, 1) == 1, "accept");
		f->peer_fd[who] = fd;
	}
	tell(f, &(struct cc_msg){ .type = CC_MSG_READY });
}

static void flood(struct fake *f)
{
	static char page[4096];

	for (unsigned i = 0; i < 256; i++) {
		memset(page, 'a' + (int)(i % 26), sizeof(page) - 1);
		page[sizeof(page) - 1] = '\n';
		tell_console(f, page, sizeof(page));
	}
	tell_end(f, CC_END_POWEROFF, 0, "poweroff", "");
}

static void probe_run(struct fake *f)
{
	static const char report[] = "{ \"round_trips\": 100, \"p50_ns\": 12300, \"p99_ns\": 45600, \"min_ns\": 9000, "
				     "\"bytes_per_s\": 789000000 }\n";
	const char *probe = getenv("UNUM_FAKE_PROBE");

	if (probe && !strcmp(probe, "lost")) {
		tell_end(f, CC_END_PEER_LOST, 1, "the fake lost it", "");
		return;
	}
	if (!probe || strcmp(probe, "silent"))
		tell_console(f, probe ? "garbage\n" : report, probe ? 8 : strlen(report));
	tell_end(f, CC_END_POWEROFF, 0, "measured", "");
}

static void run(struct fake *f)
{
	node_id self = f->spec.prepare.self;

	f->running = true;
	if (self != 0)
		return;
	if (f->spec.prepare.probe) {
		probe_run(f);
		return;
	}
	tell_console(f, "fake guest up\n", 14);
	if (told(f, "fake=poweroff"))
		tell_end(f, CC_END_POWEROFF, self, "poweroff", "");
	else if (told(f, "fake=crash"))
		tell_end(f, CC_END_CRASH, self, "triple fault", "rip 0xdead\nrsp 0xbeef");
	else if (told(f, "fake=error"))
		tell_end(f, CC_END_ERROR, self, "the fake was told so", "");
	else if (told(f, "fake=die"))
		raise(SIGKILL);
	else if (told(f, "fake=exit"))
		exit(7);
	else if (told(f, "fake=flood"))
		flood(f);
}

static void console(struct fake *f, const struct cc_console *in)
{
	for (size_t i = 0; i < in->len; i++) {
		if (f->line_len < sizeof(f->line) - 1)
			f->line[f->line_len++] = (char)in->data[i];
		if (in->data[i] != '\n' && in->data[i] != '\r')
			continue;
		f->line[f->line_len] = 0;
		if (!strncmp(f->line, "poweroff", 8))
			tell_end(f, CC_END_POWEROFF, f->spec.prepare.self, "poweroff", "");
		else
			tell_console(f, f->line, f->line_len);
		f->line_len = 0;
	}
}

static void stop(struct fake *f)
{
	const struct cc_vm_spec *s = &f->spec.prepare;
	struct cc_msg msg = { .type = CC_MSG_STATS,
			      .stats = { .node = s->self, .engine = "fake" } };

	for (unsigned i = 0; i < s->vcpus; i++)
		msg.stats.vcpus += s->vcpu_node[i] == s->self;
	for (unsigned i = 0; i < s->ranges; i++)
		if (s->range[i].node == s->self)
			msg.stats.memory_bytes += s->range[i].count << PAGE_SHIFT;
	msg.stats.faults_read = 11;
	msg.stats.hot[0].gfn = 0x123;
	msg.stats.hot[0].faults = 7;
	tell(f, &msg);
	tell_end(f, CC_END_STOPPED, s->self, "stopped", "");
	cc_chan_close(f->chan);
	exit(0);
}

static void peers_look(struct fake *f)
{
	char text[80];

	for (unsigned i = 0; f->running && i < f->spec.prepare.nodes; i++) {
		struct pollfd p = { .fd = f->peer_fd[i], .events = POLLIN };

		if (p.fd < 0 || poll(&p, 1, 0) != 1)
			continue;
		close(f->peer_fd[i]);
		f->peer_fd[i] = -1;
		snprintf(text, sizeof(text), "the link to node %s is gone",
			 f->spec.prepare.node_name[i]);
		tell_end(f, CC_END_PEER_LOST, (node_id)i, text, "");
	}
}

static void step(struct fake *f, struct cc_msg *msg)
{
	switch (msg->type) {
	case CC_MSG_PREPARE:
		f->spec = *msg;
		msg->storage = NULL;
		prepare(f);
		break;
	case CC_MSG_CONNECT:
		join_peers(f, &msg->connect);
		break;
	case CC_MSG_RUN:
		run(f);
		break;
	case CC_MSG_CONSOLE:
		console(f, &msg->console);
		break;
	case CC_MSG_STOP:
		stop(f);
		break;
	default:
		break;
	}
	cc_msg_clear(msg);
}

#define OFFER(engine, kvm, refusal, why, fix)                                                          \
	"{ \"engine\": \"" engine "\", \"kvm\": " kvm ", \"faults\": \"inline\", \"refusal\": \"" refusal \
	"\", \"why\": \"" why "\", \"fix\": \"" fix "\" }"
#define OFFER_KVM OFFER("kvm", "true", "", "", "")
#define OFFER_EPTAD OFFER("bt", "false", "unsound", "walks are writes", "reload it")
#define OFFER_WORD(word) OFFER("bt", "false", word, "this is " word, "mend " word)
#define NONE_FOR(word) OFFER_WORD(word), OFFER_WORD(word), OFFER_WORD(word), ""
#define OFFER_CPU OFFER("none", "false", "cpu", "no popcnt", "")
#define OFFER_NO OFFER("bt", "false", "no-kvm", "there is no /dev/kvm", "")

static const struct {
	const char *name, *one, *several, *private, *features;
} fake_hosts[] = {
	{ "", OFFER_NO, OFFER_NO, OFFER_NO, "" },
	{ "kvm", OFFER_KVM, OFFER_KVM, OFFER_KVM, "avx avx2" },
	{ "eptad", OFFER_KVM, OFFER_EPTAD, OFFER_KVM, "avx aes" },
	{ "no-permission", NONE_FOR("no-permission") },
	{ "busy", NONE_FOR("busy") },
	{ "too-old", NONE_FOR("too-old") },
	{ "no-rights", NONE_FOR("no-rights") },
	{ "cpu", OFFER_CPU, OFFER_CPU, OFFER_CPU, "" },
};

static bool kernel_is_private(const char *path)
{
	FILE *k = path ? fopen(path, "r") : NULL;
	char begin[4096] = "";
	size_t n = k ? fread(begin, 1, sizeof(begin) - 1, k) : 0;

	if (k)
		fclose(k);
	return memmem(begin, n, "private", 7);
}

/* The object `fabric`. */
static void fabric_text(char *out, size_t size)
{
	const char *env = getenv("UNUM_FAKE_FABRIC"), *word;
	char host[32] = "fake", network[32] = "";
	unsigned mtu = 1500;
	int port = 0;

	if (env && sscanf(env, "%31s", host) == 1) {
		word = strstr(env, " rdma ");
		port = (word && sscanf(word, " rdma %31s", network) == 1) || strstr(env, " bare");
		word = strstr(env, " mtu ");
		if (word && sscanf(word, " mtu %u", &mtu) != 1)
			mtu = 0;
	}
	snprintf(out, size,
		 "{ \"host\": \"%s\", \"interfaces\": [ { \"name\": \"eth0\", \"mtu\": %u, \"speed_mbit\": -1, \"up\": "
		 "true, \"addresses\": [ \"127.0.0.1/8\" ] } ], \"ports\": [",
		 host, mtu);
	if (port)
		snprintf(out + strlen(out), size - strlen(out),
			 "{ \"device\": \"rdma0\", \"port\": 1, \"mtu\": %u, \"network\": \"%s\", \"usable\": { \"ok\": %s, "
			 "\"why\": \"%s\", \"fix\": \"\" } }",
			 mtu > 4200 ? 4096 : 1024, network, *network ? "true" : "false", *network ? "" : "it has no address");
	snprintf(out + strlen(out), size - strlen(out), "] }");
}

/* Hosts that do not speak as they should, for --host and --fabric. */
static bool host_misbehaves(void)
{
	const char *name = getenv("UNUM_FAKE_HOST");

	name = name ? name : "";
	if (!strcmp(name, "hang"))
		pause();
	if (!strcmp(name, "die"))
		raise(SIGKILL);
	return !strcmp(name, "garbage") && puts("garbage") >= 0;
}

static int fabric_tell(void)
{
	char fabric[1024];

	fabric_text(fabric, sizeof(fabric));
	return printf("{ \"host\": \"fake\", \"release\": \"0\", \"fabric\": %s, \"tried\": [ { \"name\": \"tcp\", \"ok\": true, "
		      "\"why\": \"\", \"fix\": \"\", \"offers\": [] }, { \"name\": \"ofi\", \"ok\": false, \"why\": \"no "
		      "library\", \"fix\": \"install it\", \"offers\": [] } ], \"findings\": [ { \"level\": \"ok\", \"text\": "
		      "\"network eth0\", \"fix\": \"\" } ] }\n",
		      fabric) < 0;
}

static int host_tell(const char *kernel)
{
	const char *name = getenv("UNUM_FAKE_HOST");
	const char *tsc = getenv("UNUM_FAKE_TSC_KHZ");
	char fabric[1024];

	name = name ? name : "";
	fabric_text(fabric, sizeof(fabric));
	for (unsigned i = 0; i < ARRAY_LEN(fake_hosts); i++)
		if (!strcmp(fake_hosts[i].name, name))
			return printf("{ \"host\": \"fake\", \"release\": \"0\", \"verdict\": { \"one\": %s, "
				      "\"several\": %s, \"several_private\": %s }, \"cpu\": { \"features\": \"%s\" }, "
				      "\"kvm\": { \"inline\": { \"ok\": true }, \"dispatch\": { \"ok\": false, \"why\": "
				      "\"no reader\", \"fix\": \"\" } }, \"tsc\": { \"khz\": %s }, \"findings\": [], "
				      "\"kernel\": { \"private_tables\": %s }, \"fabric\": %s }\n",
				      fake_hosts[i].one, fake_hosts[i].several, fake_hosts[i].private,
				      fake_hosts[i].features, tsc ? tsc : "2000000",
				      kernel_is_private(kernel) ? "true" : "false", fabric) < 0;
	return puts("garbage") < 0;
}

int main(int argc, char **argv)
{
	struct fake f = { .listen_fd = -1 };

	if (argc > 1 && *argv[1] == '-' && host_misbehaves())
		return 0;
	if (argc > 1 && !strcmp(argv[1], "--host"))
		return host_tell(argv[2]);
	if (argc > 1 && !strcmp(argv[1], "--fabric"))
		return fabric_tell();

	memset(f.peer_fd, -1, sizeof(f.peer_fd));
	must(!cc_chan_open(CC_SLICE_FD, &f.chan), "channel");
	for (;;) {
		struct cc_msg msg;
		int err = cc_chan_recv(f.chan, &msg, RECV_NS);

		if (err == -EPIPE)
			return 1;
		if (!err)
			step(&f, &msg);
		peers_look(&f);
	}
}
