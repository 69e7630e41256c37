/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/guest.c - the litmus tests in a guest whose processors lie on several slices.
 *
 * What      The machine code of each test comes from the tool on the host (litmus_code.c), so the memory accesses are the
 *           same instructions as there.  A batch gives the threads to processors and the variables to pages, both at
 *           random; the pages lie all over memory, so they have different homes.  Before an instance its threads meet
 *           and agree on a time to begin, because who learns of a meeting later has to fetch its page first.
 * Prints    For each test and outcome "litmus: NAME COUNT W0 .. W4", the words of a struct l_outcome, which the tool judges;
 *           "litmus: overlaps NAME N"; at the end "litmus: done".
 *           Tests of more threads than there are processors are left out.
 * Options   rounds=N batches of each test (10), lead=N thousand cycles from meeting to beginning (300).
 */
#include "rt/rt.h"

#define THREADS 4u
#define VARS 4u
#define REGS 4u
#define CODE 192u
#define BATCH 16u
#define PAGES 16u
#define OUTCOMES 96u

struct guest_test {
	const char *name;
	unsigned threads, vars;
	uint8_t loaded[THREADS];
	uint8_t code[THREADS][CODE];
};
#include "litmus_tests.h"

const char payload_name[] = "litmus";

struct args {
	uint64_t addr[VARS];
	uint32_t reg[REGS];
};

struct outcome {
	uint8_t reg[THREADS][REGS];
	uint8_t var[VARS];
};

enum layout { APART, CROSSED, SAME, LINE, LAYOUTS };

/* Written by the boot processor between two meetings. */
static struct {
	const struct guest_test *test;
	uint8_t thread[CPUS_MAX]; /* of each processor; THREADS: none */
	uint8_t init[VARS], reader;
	uint8_t page[VARS];
	enum layout layout;
	uint64_t jitter, seed;
} job __attribute__((aligned(4096)));

/* Of each thread, on a page of its own, so that nobody is in the others' way. */
static struct result {
	uint64_t begin[BATCH], end[BATCH];
	uint8_t reg[BATCH][REGS], var[BATCH][VARS];
} __attribute__((aligned(4096))) own[THREADS];

static struct barrier meet __attribute__((aligned(4096)));
static struct {
	uint32_t arrived, opened; /* of this batch: threads, instances */
	uint64_t start;           /* TSC */
} gate __attribute__((aligned(4096)));
static struct {
	struct outcome outcome;
	uint32_t count;
} seen[OUTCOMES] __attribute__((aligned(4096)));
static unsigned kinds, lost, overlaps, rounds;
static uint64_t lead, pages[PAGES], draws = 1;

static uint64_t draw(uint64_t *state, uint64_t n)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % n;
}

/* --- memory: the largest range of RAM behind the image, its pages spread over it ------------------------ */
static void pages_find(void)
{
	uint64_t from = 0, size = 0;

	for (unsigned i = 0; i < boot.ranges; i++) {
		const struct boot_range *r = &boot.range[i];
		uint64_t begin = r->addr, end = r->addr + r->len;

		if (begin < (uint64_t)image_end)
			begin = (uint64_t)image_end;
		begin = (begin + 4095) & ~4095ull;
		end &= ~4095ull;
		if (end > 1ull << 32)
			end = 1ull << 32;
		if (r->type == 1 && end > begin && end - begin > size) {
			from = begin;
			size = end - begin;
		}
	}
	CHECK(size >= PAGES * 8192, "no %u pages of RAM", PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		pages[i] = from + (size / PAGES * i & ~4095ull);
}

static volatile uint32_t *var_at(unsigned i, unsigned v)
{
	unsigned of = job.layout == CROSSED ? (v + i) % job.test->vars : v;
	unsigned offset = i * 256 + (job.layout == SAME ? v * 64 : v * 4);

	if (job.layout == SAME || job.layout == LINE)
		of = 0;
	return (volatile uint32_t *)(pages[job.page[of]] + offset);
}

/* --- a batch -------------------------------------------------------------------------------------------- */
/* What is kept of 32 bits; see litmus.h. */
static uint8_t value(uint32_t v)
{
	return v < 255 ? (uint8_t)v : 255;
}

/* The threads of the batch meet for instance i; when it begins. */
static uint64_t gate_wait(unsigned i)
{
	if (add(&gate.arrived, 1) == (i + 1) * job.test->threads) {
		gate.start = rdtsc() + lead;
		store(&gate.opened, i + 1);
	} else {
		WAIT_FOR(load(&gate.opened) > i, "cpu %u alone in a test", cpu_id());
	}
	return gate.start;
}

static void instance_run(unsigned thread, unsigned i, uint64_t *rng)
{
	const struct guest_test *t = job.test;
	struct result *r = &own[thread];
	struct args args;
	uint64_t until;

	for (unsigned v = 0; v < t->vars; v++)
		args.addr[v] = (uint64_t)var_at(i, v);
	until = gate_wait(i) + draw(rng, job.jitter + 1);
	while (rdtsc() < until)
		pause();
	r->begin[i] = rdtsc();
	((long (*)(struct args *))t->code[thread])(&args);
	r->end[i] = rdtsc();
	for (unsigned g = 0; g < REGS; g++)
		r->reg[i][g] = t->loaded[thread] >> g & 1 ? value(args.reg[g]) : 0;
}

static void thread_run(unsigned thread)
{
	const struct guest_test *t = job.test;
	uint64_t rng = job.seed + thread;

	for (unsigned v = 0; v < t->vars; v++)
		for (unsigned i = 0; i < BATCH && job.init[v] == thread; i++)
			*var_at(i, v) = 0;
	barrier_wait(&meet);
	for (unsigned i = 0; i < BATCH; i++)
		instance_run(thread, i, &rng);
	barrier_wait(&meet);
	for (unsigned i = 0; i < BATCH && job.reader == thread; i++)
		for (unsigned v = 0; v < t->vars; v++)
			own[thread].var[i][v] = value(*var_at(i, v));
}

static void count(const struct outcome *o)
{
	for (unsigned k = 0; k < kinds; k++)
		if (!memcmp(&seen[k].outcome, o, sizeof(*o))) {
			seen[k].count++;
			return;
		}
	if (kinds == OUTCOMES) {
		lost++;
		return;
	}
	seen[kinds].outcome = *o;
	seen[kinds++].count = 1;
}

static bool overlapped(unsigned i)
{
	for (unsigned a = 0; a < job.test->threads; a++)
		for (unsigned b = a + 1; b < job.test->threads; b++)
			if (own[a].begin[i] < own[b].end[i] && own[b].begin[i] < own[a].end[i])
				return true;
	return false;
}

static void batch_count(void)
{
	for (unsigned i = 0; i < BATCH; i++) {
		struct outcome o = { 0 };

		for (unsigned t = 0; t < job.test->threads; t++)
			memcpy(o.reg[t], own[t].reg[i], REGS);
		memcpy(o.var, own[job.reader].var[i], job.test->vars);
		count(&o);
		overlaps += overlapped(i);
	}
}

static void job_draw(const struct guest_test *t)
{
	static const uint64_t jitters[] = { 0, 500, 10000, 200000 };
	unsigned page = (unsigned)draw(&draws, PAGES);

	job.test = t;
	memset(job.thread, THREADS, sizeof(job.thread));
	for (unsigned i = 0; i < t->threads; i++) {
		unsigned cpu;

		do
			cpu = (unsigned)draw(&draws, platform.cpus);
		while (job.thread[cpu] != THREADS);
		job.thread[cpu] = (uint8_t)i;
	}
	for (unsigned v = 0; v < t->vars; v++) {
		job.init[v] = (uint8_t)draw(&draws, t->threads);
		job.page[v] =
			(uint8_t)((page + 5 * v) % PAGES); /* 5: never the same for four of them */
	}
	job.reader = (uint8_t)draw(&draws, t->threads);
	job.layout = (enum layout)draw(&draws, LAYOUTS);
	job.jitter = jitters[draw(&draws, ARRAY_LEN(jitters))];
	job.seed = draws;
	gate.arrived = gate.opened = 0;
}

static void batches_run(unsigned cpu)
{
	for (unsigned test = 0; test < ARRAY_LEN(guest_tests); test++) {
		if (guest_tests[test].threads > platform.cpus)
			continue;
		for (unsigned i = 0; i < rounds; i++) {
			if (cpu == 0)
				job_draw(&guest_tests[test]);
			barrier_wait(&meet);
			if (job.thread[cpu] < THREADS) {
				thread_run(job.thread[cpu]);
			} else {
				barrier_wait(&meet);
				barrier_wait(&meet);
			}
			barrier_wait(&meet);
			if (cpu == 0)
				batch_count();
		}
		if (cpu != 0)
			continue;
		for (unsigned k = 0; k < kinds; k++) {
			uint32_t w[5];

			memcpy(w, &seen[k].outcome, sizeof(w));
			print("litmus: %s %u %x %x %x %x %x\n", guest_tests[test].name,
			      seen[k].count, w[0], w[1], w[2], w[3], w[4]);
		}
		print("litmus: overlaps %s %u\n", guest_tests[test].name, overlaps);
		CHECK(!lost, "%u outcomes of %s not counted", lost, guest_tests[test].name);
		kinds = lost = overlaps = 0;
	}
}

void payload_main(void)
{
	rounds = (unsigned)option("rounds", 10);
	lead = option("lead", 300) * 1000;
	pages_find();
	cpus_start();
	cpus_run(batches_run);
	print("litmus: done\n");
}
