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

static void on_interrupt(int sig)
{
	(void)sig;
	interrupts++;
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
