/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/base.c - log sink, assertion failure, the TSC: the only code under include/.
 *
 * Owns      The process's log identity and level, and whom a failed assertion calls: the only global state outside mains.
 * Threads   Any.
 * I/O       write(2) to stderr.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1000

static char ident[32] = "-";
static int level_max = -1; /* -1: not yet read from the environment; a race only reads it twice */
static _Thread_local const char *thread_name = "main";
static const char *const level_names[] = { "error", "warn", "info", "debug" };

__attribute__((target("general-regs-only"))) uint64_t clock_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

void log_set_ident(const char *name)
{
	snprintf(ident, sizeof(ident), "%s", name);
}

void log_set_level(enum log_level level)
{
	__atomic_store_n(&level_max, (int)level, __ATOMIC_RELAXED);
}

void log_set_thread(const char *name)
{
	thread_name = name;
}

static int log_level_now(void)
{
	int level = __atomic_load_n(&level_max, __ATOMIC_RELAXED);
	const char *env;

	if (level >= 0)
		return level;
	level = LOG_WARN;
	env = getenv("UNUM_LOG");
	for (int i = 0; env && i <= LOG_DEBUG; i++)
		if (!strcmp(env, level_names[i]))
			level = i;
	__atomic_store_n(&level_max, level, __ATOMIC_RELAXED);
	return level;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	uint64_t now = clock_now_ns();
	va_list ap;
	int n;

	if ((int)level > log_level_now())
		return;
	n = snprintf(line, sizeof(line), "%llu.%06llu %s %s %s ", (unsigned long long)(now / NS_PER_S),
		     (unsigned long long)(now % NS_PER_S / 1000), ident, thread_name, level_names[level]);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	if (n > LINE_MAX_BYTES - 2)
		n = LINE_MAX_BYTES - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to complain */
}

#define LAST_WORDS_MAX 8u

static struct {
	_Atomic(void *) arg; /* NULL: free; set last */
	void (*_Atomic fn)(void *arg);
} last_words[LAST_WORDS_MAX];
static atomic_flag failing = ATOMIC_FLAG_INIT;

void assert_last_words(void (*fn)(void *arg), void *arg)
{
	for (unsigned i = 0; i < LAST_WORDS_MAX; i++) {
		void *none = NULL;

		if (!atomic_compare_exchange_strong(&last_words[i].arg, &none, arg))
			continue;
		atomic_store(&last_words[i].fn, fn);
		return;
	}
}

void assert_last_words_end(void *arg)
{
	for (unsigned i = 0; i < LAST_WORDS_MAX; i++)
		if (atomic_load(&last_words[i].arg) == arg) {
			atomic_store(&last_words[i].fn, NULL);
			atomic_store(&last_words[i].arg, NULL);
		}
}

_Noreturn void assert_failed(const char *cond, const char *file, int line, const char *func)
{
	log_line(LOG_ERROR, "assert: %s:%d %s: %s", file, line, func, cond);
	/* Once, though it may fail again while it tells. */
	for (unsigned i = atomic_flag_test_and_set(&failing) ? LAST_WORDS_MAX : 0; i < LAST_WORDS_MAX; i++) {
		void (*fn)(void *arg) = atomic_load(&last_words[i].fn);

		if (fn)
			fn(atomic_load(&last_words[i].arg));
	}
	abort();
}
