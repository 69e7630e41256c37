/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/conform/dsm_nodes.c - several nodes as processes, native threads on their shared memory.
 *
 * What      usage: dsm_nodes MAPPING BACKEND NODES THREADS OPERATIONS SEED [THINK_NS [CACHE]], or probe MAPPING
 *           THINK_NS: what each thread computes between two operations, as a vCPU would.
 *           CACHE: frames a node may fill with pages homed elsewhere.
 *           Every thread of every node does random reads, writes and atomic additions on few pages that all
 *           share.  Checked while it runs: a word that only one thread writes has, for that thread, always
 *           its last value and for the others never goes back; data written before a flag is seen by who
 *           sees the flag.  Checked at the end: the atomic counters add up.
 *           tlb: the thread keeps rights itself and follows the reader contract of dsm.h.
 *           uffd: the MMU keeps them; a SIGBUS handler resolves faults.  uffd-copy: readable pages as on Linux
 *           before 6.4.  dispatch, dispatch-copy: the kernel parks the thread instead.
 * Exit      0 when all held; prints one line of JSON.
 */
#include "base/assert.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "dsm/dsm.h"
#include "dsm/uffd.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define NODES 8u
#define THREADS 8u
#define PAGES 48u   /* homed in turns; a few frames apart, so that ranges are many */
#define STRIDE 8u   /* frames between two of them */
#define COUNTERS 4u /* pages 0 .. 3 begin with a contended counter each */
#define OP_DEADLINE (20 * NS_PER_S)

/* What the processes share beside the memory under test. */
struct control {
	_Atomic unsigned ready, joined, done, failed, left;
	char address[NODES][IC_ADDR_MAX];
	uint64_t added[NODES][COUNTERS];
	struct dsm_stats stats[NODES];
};

static struct control *ctl;
static struct dsm *dsm; /* of this process */
static struct ic_fabric *fabric;
static bool tlb;
static const struct mapping {
	const char *name;
	enum dsm_mapping mapping;
	enum dsm_faults faults;
	bool copy;
} mappings[] = {
	{ "tlb", DSM_MAP_TLB, DSM_FAULTS_INLINE, false },
	{ "uffd", DSM_MAP_UFFD, DSM_FAULTS_INLINE, false },
	{ "uffd-copy", DSM_MAP_UFFD, DSM_FAULTS_INLINE, true },
	{ "dispatch", DSM_MAP_UFFD, DSM_FAULTS_DISPATCH, false },
	{ "dispatch-copy", DSM_MAP_UFFD, DSM_FAULTS_DISPATCH, true },
};
static const struct mapping *mapping;
static unsigned nodes, threads, operations;
static uint64_t seed, think_ns, cache_pages;
static node_id self;
static _Atomic unsigned ups, downs;

struct user {
	unsigned id; /* across all nodes */
	struct rng rng;
	struct dsm_reader *reader;
	_Atomic uint32_t kick;
	uint8_t cached[PAGES * STRIDE]; /* enum dsm_right: the software TLB */
	uint64_t added[COUNTERS];
	uint64_t last[PAGES]; /* this thread's own word in each page */
	uint64_t seen[PAGES][NODES * THREADS];
};

static void fail(const char *what, uint64_t a, uint64_t b)
{
	fprintf(stderr, "node %u: %s: %llu %llu\n", self, what, (unsigned long long)a,
		(unsigned long long)b);
	atomic_fetch_add(&ctl->failed, 1);
	_exit(1);
}

static gfn_t gfn_of(unsigned page)
{
	return (gfn_t)page * STRIDE;
}

/* --- access ----------------------------------------------------------------------------------------- */

static void on_drop(void *arg, gfn_t gfn, enum dsm_right right)
{
	struct user *u = arg;

	if (gfn == DSM_ALL)
		memset(u->cached, 0, sizeof(u->cached));
	else if (u->cached[gfn] > right)
		u->cached[gfn] = (uint8_t)right;
}

/* The word at `offset` of a page, usable with `right` until the next call.  tlb: the thread stays active. */
static uint64_t *word(struct user *u, unsigned page, unsigned offset, enum dsm_right right)
{
	gfn_t gfn = gfn_of(page);
	int err;

	if (!tlb)
		return (uint64_t *)(dsm_view(dsm) + gfn * PAGE_SIZE + offset);
	for (;;) {
		if (atomic_exchange(&u->kick, 0))
			dsm_reader_poll(u->reader, on_drop, u);
		if (u->cached[gfn] >= right)
			return (uint64_t *)(dsm_alias(dsm) + gfn * PAGE_SIZE + offset);
		u->cached[gfn] = (uint8_t)dsm_reader_right(u->reader, gfn);
		if (u->cached[gfn] >= right)
			continue;
		dsm_reader_leave(u->reader);
		err = dsm_acquire(dsm, gfn, right, clock_now_ns() + OP_DEADLINE);
		if (err)
			fail("acquire", gfn, (uint64_t)-err);
		dsm_reader_enter(u->reader, on_drop, u);
	}
}

static void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	bool write = uc->uc_mcontext.gregs[REG_ERR] & 2; /* page fault error code, SDM vol 3, 4.7 */
	int err = dsm_view_fault(dsm, si->si_addr, write, clock_now_ns() + OP_DEADLINE);

	(void)sig;
	if (err)
		fail("fault", (uint64_t)(uintptr_t)si->si_addr, (uint64_t)-err);
}

static uint64_t load(struct user *u, unsigned page, unsigned slot)
{
	return __atomic_load_n(word(u, page, slot * 8, DSM_READ), __ATOMIC_SEQ_CST);
}

static void store(struct user *u, unsigned page, unsigned slot, uint64_t value)
{
	__atomic_store_n(word(u, page, slot * 8, DSM_WRITE), value, __ATOMIC_SEQ_CST);
}

static void add(struct user *u, unsigned page, unsigned slot, uint64_t value)
{
	__atomic_fetch_add(word(u, page, slot * 8, DSM_WRITE), value, __ATOMIC_SEQ_CST);
}

/* Frames of pages homed elsewhere that take memory now, by what the kernel says.  The bound may be passed by
 * what is in flight. */
static void check_cache(void)
{
	uint8_t in_core[PAGES * STRIDE];
	unsigned resident = 0, frames = (PAGES - 1) * STRIDE + 1;

	if (!cache_pages || mincore(dsm_alias(dsm), (size_t)frames * PAGE_SIZE, in_core))
		return;
	for (unsigned i = 0; i < PAGES; i++)
		resident += i % nodes != self && (in_core[gfn_of(i)] & 1);
	if (resident > cache_pages + threads)
		fail("cache", resident, cache_pages);
}

/* --- the work --------------------------------------------------------------------------------------- */

/* Slot 0: counter; 1 + id: the word of user `id`; 256 + id: its second one, written after the first. */
static void own_write(struct user *u, unsigned page)
{
	uint64_t *at = word(u, page, (1 + u->id) * 8, DSM_WRITE);
	uint64_t mine = __atomic_load_n(at, __ATOMIC_SEQ_CST);

	/* A while between the look at the right and its use: it must not go to another node meanwhile. */
	for (unsigned i = (unsigned)rng_below(&u->rng, 64); i; i--)
		__builtin_ia32_pause();
	if (mine != u->last[page])
		fail("own word lost", mine, u->last[page]);
	u->last[page]++;
	__atomic_store_n(at, u->last[page], __ATOMIC_SEQ_CST);
	/* The second word lives in the next page: message passing between two pages. */
	store(u, (page + 1) % PAGES, 256 + u->id, u->last[page]);
}

static void other_read(struct user *u, unsigned page, unsigned who)
{
	uint64_t flag = load(u, (page + 1) % PAGES, 256 + who);
	uint64_t data = load(u, page, 1 + who);

	if (data < flag)
		fail("flag before data", data, flag);
	if (data < u->seen[page][who])
		fail("word went back", data, u->seen[page][who]);
	u->seen[page][who] = data;
}

static void think(struct user *u)
{
	uint64_t until = clock_now_ns() + think_ns;

	while (clock_now_ns() < until)
		if (tlb && atomic_exchange(&u->kick, 0))
			dsm_reader_poll(u->reader, on_drop, u);
}

static void *user_run(void *arg)
{
	struct user *u = arg;

	log_set_thread("user");
	if (tlb) {
		if (dsm_reader_open(dsm, &u->kick, &u->reader))
			fail("reader", 0, 0);
		dsm_reader_enter(u->reader, on_drop, u);
	}
	for (unsigned i = 0; i < operations; i++) {
		uint64_t r;
		unsigned page, counter;

		if (think_ns)
			think(u);
		if (u->id % threads == 0 && i % 64 == 0)
			check_cache();
		r = rng_next(&u->rng);
		page = (unsigned)(r >> 8) % PAGES;
		counter = (unsigned)(r >> 8) % COUNTERS;

		switch (r % 4) {
		case 0:
			u->added[counter] += r >> 40;
			add(u, counter, 0, r >> 40);
			break;
		case 1:
			own_write(u, page);
			break;
		default:
			other_read(u, page, (unsigned)(r >> 32) % (nodes * threads));
		}
	}
	if (tlb)
		dsm_reader_leave(u->reader);
	return NULL;
}

/* --- one node --------------------------------------------------------------------------------------- */

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	(void)arg;
	atomic_fetch_add(event == IC_PEER_UP ? &ups : &downs, 1);
	if (event == IC_PEER_DOWN && atomic_load(&ctl->done) < nodes && dsm) {
		fprintf(stderr, "node %u: lost node %u\n", self, peer);
		dsm_peer_lost(dsm, peer);
	}
}

static void meet(_Atomic unsigned *at)
{
	atomic_fetch_add(at, 1);
	while (atomic_load(at) < nodes && !atomic_load(&ctl->failed))
		usleep(200);
}

static void node_open(const char *backend)
{
	struct dsm_range ranges[PAGES];
	struct ic_config ic = { .self = self,
				.nodes = nodes,
				.backend = backend,
				.listen = "127.0.0.1:0",
				.vm_id = seed,
				.on_peer = on_peer };
	struct dsm_config cfg = {
		.self = self, .nodes = nodes, .ranges = ranges, .ranges_count = PAGES
	};

	memset(ic.key, 0x5a, sizeof(ic.key));
	if (ic_open(&ic, &fabric))
		fail("ic_open", 0, 0);
	for (unsigned i = 0; i < PAGES; i++)
		ranges[i] = (struct dsm_range){ gfn_of(i), STRIDE / 2, (node_id)(i % nodes) };
	cfg.mapping = mapping->mapping;
	cfg.faults = mapping->faults;
	cfg.uffd_copy = mapping->copy;
	cfg.fabric = fabric;
	cfg.cache_pages = cache_pages;
	if (dsm_open(&cfg, &dsm))
		fail("dsm_open", 0, 0);
	ic_address(fabric, ctl->address[self]);
	meet(&ctl->ready);
	for (unsigned i = 0; i < nodes; i++)
		if (i != self && ic_join(fabric, (node_id)i, ctl->address[i]))
			fail("join", i, 0);
	while (atomic_load(&ups) < nodes - 1)
		usleep(200); /* the dsm's net thread makes progress */
	meet(&ctl->joined);
}

static void node_run(const char *backend)
{
	struct user *users = calloc(threads, sizeof(*users));
	pthread_t tid[THREADS];

	node_open(backend);
	for (unsigned i = 0; i < threads; i++) {
		users[i].id = self * threads + i;
		users[i].rng.state = seed * 1000 + users[i].id;
		pthread_create(&tid[i], NULL, user_run, &users[i]);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(tid[i], NULL);
		for (unsigned c = 0; c < COUNTERS; c++)
			ctl->added[self][c] += users[i].added[c];
	}
	check_cache();
	meet(&ctl->done);
	if (self == 0) { /* as a device would: through the copy calls */
		for (unsigned c = 0; c < COUNTERS; c++) {
			uint64_t want = 0, have = 0;

			for (unsigned n = 0; n < nodes; n++)
				want += ctl->added[n][c];
			if (dsm_copy_in(dsm, &have, gfn_of(c) * PAGE_SIZE, sizeof(have),
					clock_now_ns() + OP_DEADLINE))
				fail("copy_in", c, 0);
			if (want != have)
				fail("counter", have, want);
		}
	}
	dsm_stats(dsm, &ctl->stats[self]);
	meet(&ctl->left);
	dsm_stop(dsm);
	for (unsigned i = 0; tlb && i < threads; i++)
		dsm_reader_close(users[i].reader);
	dsm_close(dsm);
	ic_close(fabric);
	free(users);
}

static void report(const char *backend, uint64_t ns)
{
	uint64_t rd = 0, wr = 0, up = 0, pages = 0, refused = 0, p50 = 0, p99 = 0;

	for (unsigned n = 0; n < nodes; n++) {
		struct dsm_stats *s = &ctl->stats[n];

		rd += s->faults_read;
		wr += s->faults_write;
		up += s->faults_upgrade;
		pages += s->pages_sent;
		refused += s->refused;
		p50 = s->latency_p50_ns > p50 ? s->latency_p50_ns : p50;
		p99 = s->latency_p99_ns > p99 ? s->latency_p99_ns : p99;
	}
	printf("{\"test\":\"dsm_nodes\",\"mapping\":\"%s\",\"backend\":\"%s\",\"nodes\":%u,"
	       "\"threads\":%u,"
	       "\"operations\":%u,\"seed\":%llu,\"faults_read\":%llu,\"faults_write\":%llu,"
	       "\"faults_upgrade\":%llu,\"pages_sent\":%llu,\"refused\":%llu,\"p50_us\":%.1f,"
	       "\"p99_us\":%.1f,\"seconds\":%.2f,\"failed\":%u}\n",
	       mapping->name, backend, nodes, threads, operations * nodes * threads,
	       (unsigned long long)seed, (unsigned long long)rd, (unsigned long long)wr,
	       (unsigned long long)up, (unsigned long long)pages, (unsigned long long)refused,
	       (double)p50 / 1000.0, (double)p99 / 1000.0, (double)ns / 1e9, ctl->failed);
}

/* 0 when this host can run the mapping. */
static int probe(void)
{
	struct dsm_uffd_config cfg = { .bytes = PAGE_SIZE, .faults = mapping->faults, .copy = mapping->copy };
	struct dsm_uffd_why why;
	struct dsm_uffd u;
	void *p;

	if (tlb)
		return 0;
	cfg.memfd = memfd_create("probe", MFD_CLOEXEC);
	ASSERT(cfg.memfd >= 0 && !ftruncate(cfg.memfd, PAGE_SIZE));
	p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, cfg.memfd, 0);
	ASSERT(p != MAP_FAILED);
	cfg.alias = p;
	if (dsm_uffd_open(&u, &cfg, &why)) {
		fprintf(stderr, "dsm_nodes: %s; %s\n", why.why, why.fix);
		return 1;
	}
	dsm_uffd_close(&u);
	return 0;
}

static bool mapping_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(mappings); i++)
		if (!strcmp(name, mappings[i].name))
			mapping = &mappings[i];
	tlb = mapping && mapping->mapping == DSM_MAP_TLB;
	return mapping;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	uint64_t start = clock_now_ns();
	bool ok = true;
	int status;

	sigaction(SIGBUS, &sa, NULL);
	if (argc == 3 && !strcmp(argv[1], "probe") && mapping_find(argv[2]))
		return probe();
	if (argc < 7 || argc > 9 || !mapping_find(argv[1])) {
		fprintf(stderr, "usage: %s MAPPING BACKEND NODES THREADS OPERATIONS SEED [THINK_NS [CACHE]]\n"
				"MAPPING is one of tlb, uffd, uffd-copy, dispatch, dispatch-copy\n", argv[0]);
		return 2;
	}
	nodes = (unsigned)atoi(argv[3]);
	threads = (unsigned)atoi(argv[4]);
	operations = (unsigned)atoi(argv[5]);
	seed = strtoull(argv[6], NULL, 0);
	think_ns = argc > 7 ? strtoull(argv[7], NULL, 0) : 0;
	cache_pages = argc > 8 ? strtoull(argv[8], NULL, 0) : 0;
	ASSERT(nodes >= 1 && nodes <= NODES && threads >= 1 && threads <= THREADS);
	ctl = mmap(NULL, sizeof(*ctl), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT(ctl != MAP_FAILED);
	for (unsigned i = 0; i < nodes; i++)
		if (!fork()) {
			char name[16];

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			self = (node_id)i;
			snprintf(name, sizeof(name), "n%u", i);
			log_set_ident(name);
			node_run(argv[2]);
			_exit(atomic_load(&ctl->failed) != 0);
		}
	for (unsigned i = 0; i < nodes; i++)
		if (wait(&status) > 0)
			ok &= status == 0;
	report(argv[2], clock_now_ns() - start);
	return !ok;
}
