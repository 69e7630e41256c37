/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/runtime.c - green threads, their scheduler and virtual time: tests/simvm/runtime.h.
 *
 * What      Switching, the clock, and who runs next.  The calls that come here instead of the C library's are in wrap.c.
 * Owns      The one runtime: stacks, each thread's copy of the program's thread-local bytes, the clock, the seed's rng.
 * Limits    Compiled for general registers only, and calls nothing of the C library on its way to a switch: a guest's SSE
 *           state may be in the registers (hv/bt/cpu.h), until rt_swap has put it away.
 */
#include "tests/simvm/rt_priv.h"

#include "base/rng.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define STACK_BYTES (1u << 20)
#define CALL_NS 40u   /* that a wrapped call takes */
#define BLOCK_NS 8u   /* that a block of guest code takes */
#define SWAP_AREA 528u

static struct {
	struct rt_config cfg;
	struct rng rng;
	uint64_t now, digest, switches;
	uint64_t tsc_skew[RT_NODES_MAX];
	struct rt_thread *threads[RT_THREADS_MAX];
	unsigned count, mains;
	struct rt_thread *current; /* NULL: the program's own thread */
	void *home;		   /* its stack */
	uint64_t calls_left;
	struct {
		uint64_t paused_until;
		bool dead;
	} node[RT_NODES_MAX];
	/* the program's thread-local bytes */
	uint8_t *tls;
	const uint8_t *tls_image;
	size_t tls_bytes, tls_image_bytes;
} rt;

void rt_swap(void **save, void *load);

static void copy(uint8_t *to, const uint8_t *from, size_t len)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}

/* 1 .. 3 * mean, about `mean` on average. */
static uint64_t draw(unsigned mean)
{
	uint64_t most = (uint64_t)mean << (rng_next(&rt.rng) & 1 ? 1 : 0);

	return 1 + rng_below(&rt.rng, most + most / 2 + 1);
}

void rt_digest(uint64_t value)
{
	rt.digest = (rt.digest ^ value) * 0x9e3779b97f4a7c15ull;
	rt.digest ^= rt.digest >> 29;
}

uint64_t rt_digest_now(void)
{
	return rt.digest;
}

uint64_t rt_switches(void)
{
	return rt.switches;
}

uint64_t rt_now_ns(void)
{
	return rt.now;
}

uint64_t rt_random(void)
{
	return rng_next(&rt.rng);
}

struct rt_thread *rt_current(void)
{
	return rt.current;
}

unsigned rt_node(void)
{
	return rt.current ? rt.current->node : 0;
}

bool rt_skewed(void)
{
	return rt.cfg.skew;
}

uint64_t rt_tsc(void)
{
	rt.now += 10; /* so that no two reads are the same */
	return rt.now * RT_TSC_PER_NS + (rt.cfg.skew ? rt.tsc_skew[rt_node()] : 0);
}

_Noreturn void rt_fail(const char *text)
{
	rt.cfg.fail(text);
}

/* --- who runs next ------------------------------------------------------------------------------------------------ */

/* When the thread can run: now, later, or UINT64_MAX. */
static uint64_t ready_at(const struct rt_thread *t)
{
	uint64_t at = t->state == RT_READY ? 0 : t->state == RT_ASLEEP ? t->until : UINT64_MAX;

	if (t->state == RT_ENDED || (!t->held && rt.node[t->node].dead))
		return UINT64_MAX;
	if (!t->held && at < rt.node[t->node].paused_until)
		at = rt.node[t->node].paused_until;
	return at;
}

static _Noreturn void hang(const char *why)
{
	static char text[4096];
	int n = snprintf(text, sizeof(text), "%s at %llu us:", why, (unsigned long long)rt.now / 1000);

	for (unsigned i = 0; i < rt.count && n < (int)sizeof(text) - 80; i++) {
		const struct rt_thread *t = rt.threads[i];
		static const char *const words[] = { "ready", "asleep", "waits for a mutex", "ended" };

		if (t->state != RT_ENDED)
			n += snprintf(text + n, sizeof(text) - (size_t)n, "\n    node %u %s %s%s", t->node,
				      t->name, words[t->state],
				      rt.node[t->node].dead ? " (dead)" : "");
	}
	rt_fail(text);
}

/* Jumps to when somebody can run, and draws one of those. */
static struct rt_thread *pick(void)
{
	struct rt_thread *can[RT_THREADS_MAX];
	unsigned n = 0;
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < rt.count; i++) {
		uint64_t at = ready_at(rt.threads[i]);

		if (at < first)
			first = at;
	}
	if (first == UINT64_MAX)
		hang("all sleep for ever");
	if (first > rt.now)
		rt.now = first;
	if (rt.now > rt.cfg.limit_ns)
		hang("not done");
	for (unsigned i = 0; i < rt.count; i++)
		if (ready_at(rt.threads[i]) <= rt.now)
			can[n++] = rt.threads[i];
	return can[rng_below(&rt.rng, n)];
}

static void trace_switch(const struct rt_thread *t)
{
	uint8_t fpu[512] __attribute__((aligned(16)));
	char line[160];

	__asm__ volatile("fxsave64 %0" : "=m"(fpu));
	snprintf(line, sizeof(line), "%10llu.%03u us node %u %-8s runs",
		 (unsigned long long)rt.now / 1000, (unsigned)(rt.now % 1000), t->node, t->name);
	rt.cfg.trace(line);
	__asm__ volatile("fxrstor64 %0" : : "m"(fpu));
}

/* From `from` (NULL: the program's own thread) to `to`. */
static void switch_to(struct rt_thread *to)
{
	struct rt_thread *from = rt.current;
	int saved = errno;

	if (to == from)
		return;
	if (from)
		copy(from->tls, rt.tls, rt.tls_bytes);
	if (to)
		copy(rt.tls, to->tls, rt.tls_bytes);
	rt.current = to;
	rt_swap(from ? &from->sp : &rt.home, to ? to->sp : rt.home);
	errno = saved;
}

void rt_switch(void)
{
	struct rt_thread *t;

	rt.calls_left = draw(rt.cfg.calls_mean);
	if (!rt.mains) {
		switch_to(NULL);
		return;
	}
	t = pick();
	if (t->state == RT_ASLEEP) {
		t->state = RT_READY;
		t->timed_out = true;
	}
	rt.switches++;
	rt_digest(rt.now);
	rt_digest(t->id);
	if (t != rt.current && rt.cfg.trace)
		trace_switch(t);
	switch_to(t);
}

void rt_point(void)
{
	rt.now += CALL_NS;
	if (rt.current && !--rt.calls_left)
		rt_switch();
}

bool rt_sleep(const volatile void *on, uint64_t until_ns)
{
	struct rt_thread *t = rt.current;

	t->on = on;
	t->until = until_ns;
	t->timed_out = false;
	t->state = RT_ASLEEP;
	rt_switch();
	t->on = NULL;
	return !t->timed_out;
}

unsigned rt_rouse(const volatile void *on, unsigned most)
{
	unsigned n = 0, start = rt.count ? (unsigned)rng_below(&rt.rng, rt.count) : 0;

	for (unsigned i = 0; i < rt.count && n < most; i++) {
		struct rt_thread *t = rt.threads[(start + i) % rt.count];

		if (t->state == RT_ASLEEP && t->on == on) {
			t->state = RT_READY;
			n++;
		}
	}
	return n;
}

void rt_wait(const uint32_t *word, uint32_t value)
{
	while (*(const volatile uint32_t *)word == value)
		rt_sleep(word, UINT64_MAX);
}

void rt_wake(const uint32_t *word)
{
	rt_rouse(word, RT_THREADS_MAX);
}

void rt_pause(unsigned node, uint64_t until_ns)
{
	rt.node[node].paused_until = until_ns;
}

void rt_kill(unsigned node)
{
	if (rt.node[node].dead)
		return;
	rt.node[node].dead = true;
	for (unsigned i = 0; i < rt.count; i++)
		if (rt.threads[i]->main && rt.threads[i]->node == node && rt.threads[i]->state != RT_ENDED)
			rt.mains--;
}

uint32_t rt_pace(uint32_t blocks)
{
	rt.now += (uint64_t)blocks * BLOCK_NS;
	rt_switch();
	return (uint32_t)draw(rt.cfg.blocks_mean);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

static _Noreturn void thread_main(void)
{
	struct rt_thread *t = rt.current;

	t->result = t->fn(t->arg);
	t->state = RT_ENDED;
	rt_rouse(t, RT_THREADS_MAX);
	if (t->main)
		rt.mains--;
	rt_switch();
	__builtin_unreachable();
}

struct rt_thread *rt_thread_new(unsigned node, const char *name, void *(*fn)(void *), void *arg)
{
	uint8_t *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			      -1, 0);
	struct rt_thread *t = calloc(1, sizeof(*t) + rt.tls_bytes);
	uint64_t *frame;
	uint8_t *area;

	if (stack == MAP_FAILED || !t || rt.count == RT_THREADS_MAX || mprotect(stack, 4096, PROT_NONE))
		rt_fail("no room for a thread");
	t->id = rt.count;
	t->node = node;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s%u", name, t->id);
	copy(t->tls, rt.tls_image, rt.tls_image_bytes);
	/* As rt_swap leaves a thread: six registers and a return address; then the x87 and SSE state after reset. */
	frame = (uint64_t *)(void *)(stack + STACK_BYTES - 64);
	frame[6] = (uint64_t)(uintptr_t)thread_main;
	area = (uint8_t *)frame - SWAP_AREA;
	area[0] = 0x7f;
	area[1] = 0x03;
	area[24] = 0x80;
	area[25] = 0x1f;
	*(uint64_t *)(void *)(area + 512) = (uint64_t)(uintptr_t)frame;
	t->sp = area;
	rt.threads[rt.count++] = t;
	return t;
}

static int tls_find(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_TLS)
			continue;
		rt.tls = info->dlpi_tls_data;
		rt.tls_bytes = p->p_memsz;
		rt.tls_image = (const uint8_t *)(info->dlpi_addr + p->p_vaddr);
		rt.tls_image_bytes = p->p_filesz;
	}
	return 1; /* the first is the program itself */
}

void rt_init(const struct rt_config *cfg)
{
	rt.cfg = *cfg;
	rt.rng.state = cfg->seed;
	rt.now = 1000000000; /* zero means "never" to some */
	for (unsigned n = 0; n < RT_NODES_MAX; n++)
		rt.tsc_skew[n] = rng_next(&rt.rng) >> 8;
	dl_iterate_phdr(tls_find, NULL);
}

static void *main_run(void *arg)
{
	void (**fn)(unsigned node) = arg;

	(*fn)(rt.current->node);
	return NULL;
}

void rt_run(unsigned nodes, void (*fn)(unsigned node))
{
	for (unsigned n = 0; n < nodes; n++) {
		rt_thread_new(n, "main", main_run, &fn)->main = true;
		rt.mains++;
	}
	rt_switch();
}
