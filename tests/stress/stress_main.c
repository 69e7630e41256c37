/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/stress_main.c - unum-stress: one memory over several processes, under everything at once.
 *
 * What      Forks a process for each node (stress_node.c, or stress_bound.c for --bound), watches them, reports.
 *           With --only this program runs once on each of several hosts, and has the one node there.  What the
 *           processes share is then a file that the hosts can all map, coherent as their own memory: emulated hosts
 *           have such a device.
 * Threads   One.  SIGINT and SIGTERM end the run early, with its checks and report; a second one ends it at once.
 * Exit      0 no violation; 1 violations, or a node that died or hung; 2 usage, or the host cannot.
 */
#include "tests/stress/stress.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_NS (10 * NS_PER_S) /* how much longer than one fault may take nothing may happen */

static volatile sig_atomic_t interrupts;

static const char usage[] =
	"usage: unum-stress [options]\n"
	"  --nodes N            processes, 1 to 16 (4)\n"
	"  --threads K          threads in each, 1 to 8 (2)\n"
	"  --transport T        fabric backend (tcp); --transports lists them\n"
	"  --seconds S          how long (10)\n"
	"  --seed N             what the threads draw from (1)\n"
	"  --chaos SEED         messages are held back at random, so that they overtake each other between peers\n"
	"  --region SIZE        memory under test, dealt to all nodes in turn (2MiB)\n"
	"  --cache SIZE         what a node may hold of pages homed elsewhere (no bound)\n"
	"  --hot PAGES          pages of the hot set, which moves ten times a second (6)\n"
	"  --faults inline|dispatch   who resolves a fault: the thread itself, or others (inline)\n"
	"  --drain N@S          after S seconds node N leaves the memory, and is then killed\n"
	"  --join S             it is not killed, and comes back after S seconds\n"
	"  --deadline S         a fault that takes longer is a violation (20)\n"
	"  --bound one|all      instead: one thread, or one on each node, writes and reads a "
	"region of NODES\n"
	"                       shares; what memory each process takes is measured\n"
	"  --share SIZE         with --bound: what each node brings (16MiB)\n"
	"  --only K --shared FILE[+OFFSET] --listen ADDRESS   run node K only; the others run on other hosts, and\n"
	"                       FILE is memory, zeroed, that all of them see; node 0 tells the time and reports\n"
	"  --device D           which of several the transport is to use\n"
	"  --transports         names of the backends; --can: exit 0 when this host can run it\n"
	"Sizes: 4096, 64KiB, 16MiB.  The last line of output is JSON.  Exit: 0 no violation, 1 "
	"violations, 2 usage.\n";

static void on_interrupt(int sig)
{
	(void)sig;
	interrupts++;
}

/* --- options ---------------------------------------------------------------------------------------- */

enum {
	O_NODES = 1,
	O_THREADS,
	O_TRANSPORT,
	O_SECONDS,
	O_SEED,
	O_CHAOS,
	O_REGION,
	O_CACHE,
	O_HOT,
	O_DRAIN,
	O_JOIN,
	O_FAULTS,
	O_DEADLINE,
	O_BOUND,
	O_SHARE,
	O_ONLY,
	O_SHARED,
	O_LISTEN,
	O_DEVICE,
	O_TRANSPORTS,
	O_CAN,
	O_HELP
};

static bool number_parse(const char *text, unsigned min, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (end == text || *end || *text == '-' || v < min || v > max)
		return false;
	*out = (unsigned)v;
	return true;
}

static bool seconds_parse(const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v > 0 && v < 1e6))
		return false;
	*out = v;
	return true;
}

/* "2@1.5" */
static bool drain_parse(const char *text, struct options *o)
{
	char node[8];
	const char *at = strchr(text, '@');

	if (!at || (size_t)(at - text) >= sizeof(node))
		return false;
	snprintf(node, sizeof(node), "%.*s", (int)(at - text), text);
	return number_parse(node, 1, NODES_LIMIT - 1, &o->drain_node) && seconds_parse(at + 1, &o->drain_s);
}

static bool seed_parse(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 0);
	return end != text && !*end && *text != '-';
}

static bool name_known(const char *name)
{
	for (const char *const *n = ic_backend_names(); *n; n++)
		if (!strcmp(*n, name))
			return true;
	return false;
}

/* 0 when this host can run the userfaultfd mapping. */
static int can(void)
{
	struct nodes_meet *meet = shared_alloc(sizeof(*meet));
	struct dsm_range range = { 0, 4, 0 };
	struct nodes_config cfg = { .nodes = 1, .ranges = &range, .ranges_count = 1 };
	struct fault_seat seat = { .patience_ns = NS_PER_S };
	sigjmp_buf out;
	struct node n;

	seat.out = &out;
	if (sigsetjmp(out, 1) || node_open(&n, &cfg, 0, meet))
		return 2;
	node_thread(&seat);
	*(volatile uint8_t *)n.view = 1;
	node_close(&n);
	return 0;
}

static bool option_take(struct options *o, int opt, const char *arg)
{
	switch (opt) {
	case O_NODES:
		return number_parse(arg, 1, NODES_LIMIT, &o->nodes);
	case O_THREADS:
		return number_parse(arg, 1, THREADS_LIMIT, &o->threads);
	case O_TRANSPORT:
		o->backend = arg;
		return name_known(arg);
	case O_SECONDS:
		return seconds_parse(arg, &o->seconds);
	case O_SEED:
		return seed_parse(arg, &o->seed);
	case O_CHAOS:
		return seed_parse(arg, &o->chaos);
	case O_REGION:
		return size_parse(arg, &o->region_bytes) && o->region_bytes >= 64 * PAGE_SIZE &&
		       o->region_bytes >> PAGE_SHIFT <= PAGES_LIMIT;
	case O_CACHE:
		return size_parse(arg, &o->cache_bytes);
	case O_SHARE:
		return size_parse(arg, &o->share_bytes) && o->share_bytes >= PAGE_SIZE;
	case O_ONLY:
		o->apart = true;
		return number_parse(arg, 0, NODES_LIMIT - 1, &o->only);
	case O_SHARED:
		o->shared = arg;
		return true;
	case O_LISTEN:
		o->address = arg;
		return true;
	case O_DEVICE:
		o->device = arg;
		return true;
	case O_HOT:
		return number_parse(arg, 1, PAGES_LIMIT, &o->hot_pages);
	case O_DRAIN:
		return drain_parse(arg, o);
	case O_JOIN:
		return seconds_parse(arg, &o->join_s);
	case O_FAULTS:
		o->faults = strcmp(arg, "dispatch") ? DSM_FAULTS_INLINE : DSM_FAULTS_DISPATCH;
		return !strcmp(arg, "inline") || !strcmp(arg, "dispatch");
	case O_DEADLINE:
		return number_parse(arg, 1, 3600, &o->deadline_s);
	case O_BOUND:
		o->bound = arg;
		return !strcmp(arg, "one") || !strcmp(arg, "all");
	}
	return false;
}

static void options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "nodes", 1, NULL, O_NODES },
		{ "threads", 1, NULL, O_THREADS },
		{ "transport", 1, NULL, O_TRANSPORT },
		{ "seconds", 1, NULL, O_SECONDS },
		{ "seed", 1, NULL, O_SEED },
		{ "chaos", 1, NULL, O_CHAOS },
		{ "region", 1, NULL, O_REGION },
		{ "cache", 1, NULL, O_CACHE },
		{ "hot", 1, NULL, O_HOT },
		{ "drain", 1, NULL, O_DRAIN },
		{ "join", 1, NULL, O_JOIN },
		{ "faults", 1, NULL, O_FAULTS },
		{ "deadline", 1, NULL, O_DEADLINE },
		{ "bound", 1, NULL, O_BOUND },
		{ "share", 1, NULL, O_SHARE },
		{ "only", 1, NULL, O_ONLY },
		{ "shared", 1, NULL, O_SHARED },
		{ "listen", 1, NULL, O_LISTEN },
		{ "device", 1, NULL, O_DEVICE },
		{ "transports", 0, NULL, O_TRANSPORTS },
		{ "can", 0, NULL, O_CAN },
		{ "help", 0, NULL, O_HELP },
		{ NULL, 0, NULL, 0 },
	};
	int opt, at = 0;

	while ((opt = getopt_long(argc, argv, "h", longs, &at)) != -1) {
		if (opt == O_HELP || opt == 'h') {
			fputs(usage, stdout);
			exit(0);
		} else if (opt == O_TRANSPORTS) {
			transports_print();
			exit(0);
		} else if (opt == O_CAN) {
			exit(can());
		} else if (opt == '?' || !option_take(o, opt, optarg)) {
			if (opt != '?')
				fprintf(stderr, "unum-stress: --%s %s is not possible\n",
					longs[at].name, optarg);
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind < argc || o->nodes * o->threads > USERS_LIMIT) {
		fputs(optind < argc ? usage : "unum-stress: more than 64 threads in all\n", stderr);
		exit(2);
	}
	if (o->apart && (o->bound || !o->shared || !o->address || o->only >= o->nodes)) {
		fputs("unum-stress: --only names one of the nodes, and wants --shared and --listen\n", stderr);
		exit(2);
	}
	if ((o->drain_node || o->join_s > 0) &&
	    (o->apart || o->bound || o->drain_node >= o->nodes || !o->drain_node || o->drain_s >= o->seconds ||
	     (o->join_s > 0 && (o->join_s <= o->drain_s || o->join_s >= o->seconds)))) {
		fputs("unum-stress: --drain names a node other than 0 and a time within the run, --join a later one\n", stderr);
		exit(2);
	}
	if (o->bound && o->share_bytes * o->nodes < 3 * (o->share_bytes + o->cache_bytes)) {
		fputs("unum-stress: with --bound the shares of all nodes are at least 3 times "
		      "share + cache of one\n",
		      stderr);
		exit(2);
	}
	if (o->cache_bytes && o->cache_bytes < 16 * PAGE_SIZE) {
		fputs("unum-stress: --cache is at least 64KiB (dsm/cache.c)\n", stderr);
		exit(2);
	}
}

/* --- what the processes share ----------------------------------------------------------------------- */

/* The same place on all hosts: addresses in the memory mean the same everywhere. */
#define AREA_AT ((void *)0x600000000000)

struct area {
	uint8_t *next; /* NULL: this host's memory, for processes forked later */
	size_t left;
};

static struct area area_open(const char *shared)
{
	const char *plus = shared ? strchr(shared, '+') : NULL;
	size_t offset = plus ? strtoull(plus + 1, NULL, 10) : 0;
	struct area a = { 0 };
	struct stat st;
	char path[256];
	int fd;

	if (!shared)
		return a;
	snprintf(path, sizeof(path), "%.*s", plus ? (int)(plus - shared) : (int)strlen(shared), shared);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &st)) {
		a.left = (size_t)st.st_size;
		a.next = mmap(AREA_AT, a.left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	}
	if (fd < 0 || a.next != AREA_AT) {
		perror(path);
		exit(2);
	}
	close(fd);
	offset = offset < a.left ? offset : a.left;
	a.next += offset;
	a.left -= offset;
	return a;
}

static void *area_take(struct area *a, size_t bytes)
{
	uint8_t *p = a->next;

	if (!p)
		return shared_alloc(bytes);
	bytes = (bytes + PAGE_SIZE - 1) & ~(size_t)(PAGE_SIZE - 1);
	if (bytes > a->left) {
		fputs("unum-stress: the --shared file is too small for this --region\n", stderr);
		exit(2);
	}
	a->next += bytes;
	a->left -= bytes;
	return p;
}

/* --- the parent ------------------------------------------------------------------------------------- */

static void kill_all(pid_t *pid, unsigned nodes)
{
	for (unsigned i = 0; i < nodes; i++)
		if (pid[i])
			kill(pid[i], SIGKILL);
}

static uint64_t ops_of(const struct control *ctl, unsigned id)
{
	uint64_t sum = 0;

	for (unsigned op = 0; op < OPS; op++)
		sum += atomic_load_explicit(&ctl->seat[id].ops[op], memory_order_relaxed);
	return sum;
}

/* True when a thread has done nothing for too long; of --bound, whose threads take turns, when none has. */
static bool stuck(const struct options *o, const struct control *ctl, uint64_t done[USERS_LIMIT],
		  uint64_t when[USERS_LIMIT])
{
	uint64_t now = clock_now_ns(), limit = (uint64_t)o->deadline_s * NS_PER_S + GRACE_NS,
		 all = 0;
	unsigned users = o->nodes * o->threads;

	for (unsigned id = 0; id < users; id++)
		all += ops_of(ctl, id);
	for (unsigned id = 0; id < users; id++) {
		uint64_t sum = o->bound ? all : ops_of(ctl, id);

		if (sum != done[id] || atomic_load(&ctl->seat[id].ended) || !when[id]) {
			done[id] = sum;
			when[id] = now;
		} else if (now - when[id] > limit) {
			return true;
		}
	}
	return false;
}

static bool node_reap(struct control *ctl, pid_t *pid, const struct options *o, unsigned *living)
{
	int status;
	pid_t who = waitpid(-1, &status, WNOHANG);

	if (who <= 0)
		return false;
	for (unsigned i = 0; i < o->nodes; i++) {
		if (pid[i] != who)
			continue;
		pid[i] = 0;
		--*living;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		if (WIFSIGNALED(status))
			fprintf(stderr, "node %u died: %s\n", i, strsignal(WTERMSIG(status)));
		else
			fprintf(stderr, "node %u: exit status %d\n", i, WEXITSTATUS(status));
		if (!atomic_load(&ctl->meet.ending) || WIFSIGNALED(status))
			atomic_fetch_add(&ctl->violations, 1);
		atomic_store(&ctl->stop, true);
	}
	return true;
}

/* The first signal ends the run early; true when another came a second later (some senders send two at once). */
static bool interrupted(struct control *ctl, uint64_t *asked_ns)
{
	if (interrupts && !*asked_ns) {
		atomic_store(&ctl->stop, true);
		*asked_ns = clock_now_ns();
	}
	if (clock_now_ns() - *asked_ns < NS_PER_S && interrupts)
		interrupts = 1;
	return interrupts > 1;
}

/* Nobody may notice. */
static void drained_kill(const struct options *o, struct control *ctl, pid_t *pid)
{
	for (unsigned i = 0; i < o->threads; i++)
		atomic_store(&ctl->seat[o->drain_node * o->threads + i].ended, 1);
	kill(*pid, SIGKILL);
	while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
		;
	*pid = 0;
}

static void watch(const struct options *o, struct control *ctl, pid_t *pid)
{
	static uint64_t done[USERS_LIMIT], when[USERS_LIMIT];
	uint64_t asked_ns = 0;
	unsigned living = o->apart ? 1 : o->nodes;
	bool died = false;

	while (living) {
		unsigned before;

		if (!(o->join_s > 0) && atomic_load(&ctl->drained) && pid[o->drain_node]) {
			drained_kill(o, ctl, &pid[o->drain_node]);
			living--;
		}
		before = living;

		while (node_reap(ctl, pid, o, &living))
			;
		died |= living < before && !atomic_load(&ctl->meet.ending);
		if (interrupted(ctl, &asked_ns))
			kill_all(pid, o->nodes);
		if (!died && !stuck(o, ctl, done, when)) {
			usleep(20000);
			continue;
		}
		/* The others see a lost peer, or nothing at all: what they wait for, then the end. */
		if (!died) {
			fprintf(stderr, "nothing moves\n");
			atomic_fetch_add(&ctl->violations, 1);
			for (unsigned i = 0; i < o->nodes; i++)
				atomic_store(&ctl->dump[i], true);
			usleep(300000);
		}
		atomic_store(&ctl->meet.ending, true);
		usleep(500000);
		kill_all(pid, o->nodes);
		while (living && waitpid(-1, NULL, 0) > 0)
			living--;
	}
}

static void nodes_run(const struct options *o, struct control *ctl)
{
	pid_t pid[NODES_LIMIT] = { 0 };

	for (unsigned i = 0; i < o->nodes; i++) {
		if (o->apart && i != o->only)
			continue;
		pid[i] = fork();
		if (!pid[i]) {
			char name[16];
			sigset_t mask;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			/* The parent ends the run.  Blocked, because a fabric's library may set handlers. */
			sigemptyset(&mask);
			sigaddset(&mask, SIGINT);
			sigaddset(&mask, SIGTERM);
			sigprocmask(SIG_BLOCK, &mask, NULL);
			snprintf(name, sizeof(name), "n%u", i);
			log_set_ident(name);
			exit(o->bound ? bound_main(o, ctl, (node_id)i)
				      : node_main(o, ctl, (node_id)i));
		}
	}
	watch(o, ctl, pid);
}

/* --- report ----------------------------------------------------------------------------------------- */

static void drain_report(const struct options *o, const struct control *ctl)
{
	const struct dsm_drain *out = &ctl->drain, *in = &ctl->join;

	if (!o->drain_node)
		return;
	printf("node %u left: gave up others' pages in %.1f ms, all froze for %.1f ms, %llu entries and %llu pages moved\n",
	       o->drain_node, (double)out->leave_ns / 1e6, (double)out->frozen_ns / 1e6,
	       (unsigned long long)out->moved_entries, (unsigned long long)out->moved_pages);
	if (o->join_s > 0)
		printf("node %u came back: all froze for %.1f ms, %llu entries and %llu pages moved\n", o->drain_node,
		       (double)in->frozen_ns / 1e6, (unsigned long long)in->moved_entries,
		       (unsigned long long)in->moved_pages);
}

static void report(const struct options *o, const struct control *ctl, double seconds)
{
	static const char *const classes[] = { "reads", "writes", "atomics" };
	uint64_t by_op[OPS] = { 0 }, by_class[3] = { 0 }, all = 0;
	struct dsm_stats s = { 0 };
	unsigned long long violations = atomic_load(&ctl->violations);

	for (unsigned op = 0; op < OPS; op++) {
		for (unsigned id = 0; id < o->nodes * o->threads; id++)
			by_op[op] += atomic_load(&ctl->seat[id].ops[op]);
		by_class[op_kinds[op].class] += by_op[op];
		all += by_op[op];
	}
	for (unsigned n = 0; n < o->nodes; n++) {
		const struct dsm_stats *a = &ctl->stats[n];

		s.faults_read += a->faults_read;
		s.faults_write += a->faults_write;
		s.faults_upgrade += a->faults_upgrade;
		s.faults_local += a->faults_local;
		s.pages_sent += a->pages_sent;
		s.evictions += a->evictions;
		s.refused += a->refused;
		if (a->latency_p99_ns > s.latency_p99_ns)
			s.latency_p99_ns = a->latency_p99_ns;
		if (a->latency_p50_ns > s.latency_p50_ns)
			s.latency_p50_ns = a->latency_p50_ns;
	}
	if (!o->bound) {
		printf("operations");
		for (unsigned op = 0; op < OPS; op++)
			printf(" %s %llu", op_kinds[op].name, (unsigned long long)by_op[op]);
		printf("\n");
	}
	printf("faults read %llu write %llu upgrade %llu local %llu, p50 %.0f us p99 %.0f us\n",
	       (unsigned long long)s.faults_read, (unsigned long long)s.faults_write,
	       (unsigned long long)s.faults_upgrade, (unsigned long long)s.faults_local,
	       (double)s.latency_p50_ns / 1e3, (double)s.latency_p99_ns / 1e3);
	printf("pages %llu, evictions %llu, refused %llu\nviolations %llu\n",
	       (unsigned long long)s.pages_sent, (unsigned long long)s.evictions,
	       (unsigned long long)s.refused, violations);
	drain_report(o, ctl);
	printf("{\"test\":\"stress\",\"work\":\"%s\",\"transport\":\"%s\",\"nodes\":%u,\"threads\":"
	       "%u,"
	       "\"faults\":\"%s\",\"cache\":%llu,\"seed\":%llu,\"seconds\":%.1f,\"operations\":%"
	       "llu",
	       o->bound ? o->bound : "mixed", o->backend, o->nodes, o->threads,
	       o->faults == DSM_FAULTS_INLINE ? "inline" : "dispatch",
	       (unsigned long long)o->cache_bytes, (unsigned long long)o->seed, seconds,
	       (unsigned long long)all);
	for (unsigned c = 0; c < 3; c++)
		printf(",\"%s\":%llu", classes[c], (unsigned long long)by_class[c]);
	printf(",\"remote_faults\":%llu,\"local_faults\":%llu,\"pages\":%llu,\"evictions\":%llu,"
	       "\"refused\":%llu,\"violations\":%llu}\n",
	       (unsigned long long)(s.faults_read + s.faults_write + s.faults_upgrade),
	       (unsigned long long)s.faults_local, (unsigned long long)s.pages_sent,
	       (unsigned long long)s.evictions, (unsigned long long)s.refused, violations);
}

int main(int argc, char **argv)
{
	struct options o = { .nodes = 4,
			     .threads = 2,
			     .backend = "tcp",
			     .seconds = 10,
			     .seed = 1,
			     .region_bytes = 2 << 20,
			     .share_bytes = 16 << 20,
			     .hot_pages = 6,
			     .deadline_s = 20 };
	struct sigaction sa = { .sa_handler = on_interrupt };
	uint64_t start = clock_now_ns(), pages;
	struct control *ctl;
	struct area area;

	options_parse(argc, argv, &o);
	if (o.bound)
		o.threads = 1;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	pages = o.region_bytes >> PAGE_SHIFT;
	area = area_open(o.shared);
	ctl = area_take(&area, sizeof(*ctl));
	if (!o.bound) {
		ctl->stamp = area_take(&area, pages * WORDS * sizeof(*ctl->stamp));
		ctl->generation = area_take(&area, pages * sizeof(*ctl->generation));
		ctl->tally = area_take(&area, pages * o.nodes * o.threads * sizeof(*ctl->tally));
	}
	nodes_run(&o, ctl);
	if (o.bound)
		atomic_fetch_add(&ctl->violations, bound_report(&o, ctl));
	if (!o.apart || o.only == 0)
		report(&o, ctl, (double)(clock_now_ns() - start) / 1e9);
	return atomic_load(&ctl->violations) ? 1 : 0;
}
