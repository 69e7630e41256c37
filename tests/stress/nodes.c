/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/stress/nodes.c - see nodes.h.
 *
 * Owns      The SIGBUS handler of its process, and for it a pointer to the process's only node.
 * I/O       The fabric, over loopback where nothing else is asked for.
 */
#include "tests/stress/nodes.h"

#include "base/assert.h"
#include "base/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define JOIN_NS (20 * NS_PER_S)

/* A signal handler has no argument of its own. */
static struct node *of_process;
static _Thread_local struct fault_seat *seat_of_thread;

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	struct fault_seat *seat = seat_of_thread;
	bool write = ((ucontext_t *)ctx)->uc_mcontext.gregs[REG_ERR] & 2; /* SDM vol 3, 4.7 */
	uint64_t now = clock_now_ns();
	int err;

	(void)sig;
	if (!seat || !of_process) {
		fprintf(stderr, "bus error at %p outside of the guest view\n", si->si_addr);
		abort();
	}
	atomic_store(&seat->gfn,
		     (uint64_t)((uint8_t *)si->si_addr - of_process->view) >> PAGE_SHIFT);
	atomic_store(&seat->since_ns, now);
	err = dsm_view_fault(of_process->dsm, si->si_addr, write, now + seat->patience_ns);
	if (err) /* the seat still tells for what it waited */
		siglongjmp(*seat->out, -err);
	atomic_store(&seat->since_ns, 0);
}

/* When the memory has been stopped, its view cannot be touched any more. */
static void on_sigsegv(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	if (seat_of_thread && of_process &&
	    (uintptr_t)si->si_addr - (uintptr_t)of_process->view < of_process->view_bytes)
		siglongjmp(*seat_of_thread->out, EPIPE);
	signal(sig, SIG_DFL); /* a mistake of ours: again, and for good */
}

void node_thread(struct fault_seat *seat)
{
	seat_of_thread = seat;
}

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct node *n = arg;

	if (event == IC_PEER_UP) {
		atomic_fetch_add(&n->ups, 1);
	} else if (n->dsm && !atomic_load(&n->meet->ending)) {
		if (!dsm_drained(n->dsm, peer))
			fprintf(stderr, "node %u: lost node %u\n", n->self, peer);
		dsm_peer_lost(n->dsm, peer);
	}
}

bool nodes_meet_at(struct nodes_meet *meet, _Atomic unsigned *place, unsigned nodes)
{
	atomic_fetch_add(place, 1);
	while (atomic_load(place) < nodes) {
		if (atomic_load(&meet->ending))
			return false;
		usleep(200);
	}
	return true;
}

static int links_join(struct node *n)
{
	uint64_t until = clock_now_ns() + JOIN_NS;
	int err = 0;

	ic_address(n->fabric, n->meet->address[n->self]);
	if (!nodes_meet_at(n->meet, &n->meet->opened, n->nodes))
		return -EPIPE;
	for (unsigned i = 0; i < n->nodes && !err; i++)
		if (i != n->self)
			err = ic_join(n->fabric, (node_id)i, n->meet->address[i]);
	/* The dsm's own thread moves the fabric. */
	while (!err && atomic_load(&n->ups) < n->nodes - 1) {
		if (clock_now_ns() > until)
			return -ETIMEDOUT;
		usleep(200);
	}
	if (!err && !nodes_meet_at(n->meet, &n->meet->joined, n->nodes))
		err = -EPIPE;
	return err;
}

/* Hosts that are apart are emulated ones: on a busy machine they stand still for longer than real ones do. */
#define APART_DEAD_AFTER_MS 30000

int node_open(struct node *n, const struct nodes_config *cfg, node_id self, struct nodes_meet *meet)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct ic_config ic = { .self = self,
				.nodes = cfg->nodes,
				.backend = cfg->backend,
				.device = cfg->device,
				.listen = cfg->listen ? cfg->listen : "127.0.0.1:0",
				.dead_after_ms = cfg->listen ? APART_DEAD_AFTER_MS : 0,
				.vm_id = cfg->vm_id,
				.on_peer = on_peer,
				.arg = n,
				.chaos = { .seed = cfg->chaos } };
	struct dsm_config dc = { .self = self,
				 .nodes = cfg->nodes,
				 .ranges = cfg->ranges,
				 .ranges_count = cfg->ranges_count,
				 .cache_pages = cfg->cache_pages,
				 .spare_pages = cfg->spare_pages,
				 .mapping = DSM_MAP_UFFD,
				 .faults = cfg->faults };
	int err = 0;

	*n = (struct node){ .self = self, .nodes = cfg->nodes, .meet = meet };
	memset(ic.key, 0x75, sizeof(ic.key));
	if (cfg->nodes > 1)
		err = ic_open(&ic, &n->fabric);
	if (err)
		return err;
	dc.fabric = n->fabric;
	err = dsm_open(&dc, &n->dsm);
	if (err) {
		if (n->fabric)
			ic_close(n->fabric);
		return err;
	}
	n->view = dsm_view(n->dsm);
	of_process = n;
	for (unsigned i = 0; i < cfg->ranges_count; i++) {
		uint64_t end = (cfg->ranges[i].first + cfg->ranges[i].count) << PAGE_SHIFT;

		n->view_bytes = end > n->view_bytes ? end : n->view_bytes;
	}
	sigaction(SIGBUS, &sa, NULL);
	sa.sa_sigaction = on_sigsegv;
	sigaction(SIGSEGV, &sa, NULL);
	err = cfg->nodes > 1 ? links_join(n) : 0;
	if (err)
		node_close(n);
	return err;
}

void node_close(struct node *n)
{
	dsm_stop(n->dsm);
	dsm_close(n->dsm);
	if (n->fabric)
		ic_close(n->fabric);
	of_process = NULL;
}

void transports_print(void)
{
	for (const char *const *name = ic_backend_names(); *name; name++) {
		struct ic_config cfg = { .nodes = 2, .backend = *name, .listen = "127.0.0.1:0" };
		struct ic_fabric *f;
		int err = ic_open(&cfg, &f);

		if (err == -ENODEV || err == -ELIBACC) { /* no device, no library */
			fprintf(stderr, "  SKIP  transport %s: %s\n", *name, strerror(-err));
			continue;
		}
		if (!err)
			ic_close(f);
		puts(*name);
	}
}

void *shared_alloc(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("shared memory");
		exit(2);
	}
	return p;
}

bool size_parse(const char *text, uint64_t *out_bytes)
{
	static const struct {
		const char *name;
		unsigned shift;
	} units[] = { { "", 0 }, { "B", 0 }, { "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 } };
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	if (end == text || *text == '-')
		return false;
	for (unsigned i = 0; i < ARRAY_LEN(units); i++)
		if (!strcmp(end, units[i].name) && value < 1ull << (63 - units[i].shift)) {
			*out_bytes = value << units[i].shift;
			return true;
		}
	return false;
}

unsigned ranges_deal(struct dsm_range *out, gfn_t first, uint64_t pages, uint64_t run,
		     unsigned nodes)
{
	unsigned count = 0;

	while ((pages + run - 1) / run > DSM_RANGES_MAX)
		run *= 2;
	for (uint64_t at = 0; at < pages; at += run) {
		out[count] = (struct dsm_range){ first + at, pages - at < run ? pages - at : run,
						 (node_id)(count % nodes) };
		count++;
	}
	return count;
}
