/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/litmus/litmus_main.c - the litmus tool: what a memory over several nodes lets x86 programs see.
 *
 * What      Reads the table of tests, computes what x86-TSO allows, runs them in batches on the nodes of a memory (or takes
 *           what a guest printed), and says for each what was seen, how often, and whether it is allowed.
 * Threads   One; forks a process a node.
 * Exit      0 nothing forbidden was seen; 1 something was, or a node failed; 2 usage, table, or the host cannot.
 */
#include "tests/litmus/litmus.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 5u   /* times --seconds, as long as no store buffering was seen */
#define OUTCOMES 128u /* different ones of a test that are kept */

static const char usage[] =
	"usage: litmus [options]\n"
	"  --tests FILE         the table (tests/litmus/tests.txt)\n"
	"  --only NAME          one of its tests\n"
	"  --nodes N            processes, 1 to 16 (4)\n"
	"  --transport T        fabric backend (tcp); --transports lists them\n"
	"  --seconds S          for all tests together (20)\n"
	"  --seed N             places, layouts and delays are drawn from it (1)\n"
	"  --cache SIZE         what a node may hold of pages homed elsewhere (no bound)\n"
	"  --faults inline|dispatch\n"
	"  --deadline S         a page that takes longer is a failure (10)\n"
	"  --judge FILE         runs nothing: judges the lines of a guest's console\n"
	"  --emit               writes the tests as a C source for the guest\n"
	"  --model              says what is allowed, and runs nothing\n"
	"Before each test's outcomes: what it asks, whether x86-TSO allows that, how often it was "
	"seen.  The last line is\n"
	"\"forbidden N\", how often something was seen that x86-TSO does not allow.\n";

struct seen {
	struct l_outcome outcome;
	uint64_t count, place[L_PLACES], layout[L_LAYOUTS], first_seed;
};

struct score {
	struct l_allowed allowed;
	unsigned count;
	struct seen seen[OUTCOMES];
	uint64_t instances, overlaps, asked, asked_together, forbidden, lost;
};

struct tool {
	struct l_test tests[L_TESTS];
	unsigned count;
	struct score *score; /* [count] */
	struct l_setup setup;
	const char *path, *only, *judge;
	bool emit, model;
	double seconds;
};

/* --- counting --------------------------------------------------------------------------------------- */

static void count_outcome(struct tool *t, unsigned test, const struct l_outcome *o, uint64_t n,
			  const struct l_job *job)
{
	struct score *s = &t->score[test];
	struct seen *at = NULL;

	s->instances += n;
	if (!l_is_allowed(&s->allowed, o))
		s->forbidden += n;
	if (l_asked(&t->tests[test], o)) {
		s->asked += n;
		if (job && job->place == L_TOGETHER)
			s->asked_together += n;
	}
	for (unsigned i = 0; i < s->count && !at; i++)
		if (!memcmp(&s->seen[i].outcome, o, sizeof(*o)))
			at = &s->seen[i];
	if (!at && s->count == OUTCOMES) {
		s->lost += n;
		return;
	}
	if (!at) {
		at = &s->seen[s->count++];
		at->outcome = *o;
		at->first_seed = job ? job->seed : 0;
	}
	at->count += n;
	if (job) {
		at->place[job->place] += n;
		at->layout[job->layout] += n;
	}
}

/* Two threads of the instance were in their code at the same time. */
static bool overlapped(const struct l_result *r, unsigned threads)
{
	for (unsigned a = 0; a < threads; a++)
		for (unsigned b = a + 1; b < threads; b++)
			if (r->begin[a] < r->end[b] && r->begin[b] < r->end[a])
				return true;
	return false;
}

static void count_batch(struct tool *t, const struct l_job *job)
{
	for (unsigned i = 0; i < L_BATCH; i++) {
		const struct l_result *r = &t->setup.ctl->result[i];

		count_outcome(t, job->test, &r->outcome, 1, job);
		t->score[job->test].overlaps += overlapped(r, t->tests[job->test].threads);
	}
}

/* Does x86-TSO allow what the test asks about? */
static bool possible(const struct tool *t, unsigned i)
{
	const struct l_allowed *a = &t->score[i].allowed;

	for (unsigned k = 0; k < a->count; k++)
		if (l_asked(&t->tests[i], &a->outcome[k]))
			return true;
	return false;
}

/* --- batches ---------------------------------------------------------------------------------------- */

static struct l_job job_draw(const struct tool *t, unsigned test, struct rng *rng)
{
	static const uint32_t jitters[] = { 0, 300, 3000, 100000 };
	const struct l_test *lt = &t->tests[test];
	struct l_job j = { .test = test,
			   .place = (uint8_t)rng_below(rng, L_PLACES),
			   .layout = (uint8_t)rng_below(rng, L_LAYOUTS),
			   .reader = (uint8_t)rng_below(rng, lt->threads),
			   .jitter_cycles = jitters[rng_below(rng, ARRAY_LEN(jitters))],
			   .seed = rng->state };
	unsigned first = (unsigned)rng_below(rng, t->setup.nodes), page;

	for (unsigned i = 0; i < lt->threads; i++) {
		unsigned step = j.place == L_SPREAD ? i : j.place == L_PAIRS ? i / 2 : 0;

		j.node[i] = (uint8_t)((first + step) % t->setup.nodes);
	}
	page = (unsigned)rng_below(rng, L_PAGES);
	for (unsigned v = 0; v < lt->vars; v++) {
		j.init[v] = (uint8_t)rng_below(rng, lt->threads);
		j.page[v] = (page + v * (1 + 2 * (unsigned)rng_below(rng, 2)) * 5) % L_PAGES;
		for (unsigned u = 0; u < v; u++) /* another page than the others' */
			if (j.page[u] == j.page[v]) {
				j.page[v] = (j.page[v] + 1) % L_PAGES;
				u = (unsigned)-1;
			}
	}
	return j;
}

/* Was an allowed outcome that is asked about seen?  Every one in the table needs a store buffer. */
static uint64_t relaxed_seen(const struct tool *t)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < t->count; i++)
		sum += possible(t, i) ? t->score[i].asked : 0;
	return sum;
}

/* On a busy machine it may take longer until threads were really running at the same time. */
static bool over(const struct tool *t, uint64_t start)
{
	uint64_t limit = (uint64_t)(t->seconds * 1e9);

	if (!t->only && !relaxed_seen(t))
		limit *= PATIENCE;
	return clock_now_ns() - start > limit;
}

static bool batches_run(struct tool *t)
{
	uint64_t start = clock_now_ns();
	struct rng rng = { .state = t->setup.seed };
	bool any = true;

	while (any && !over(t, start)) {
		any = false;
		for (unsigned i = 0; i < t->count; i++) {
			struct l_job job;

			if (t->only && strcmp(t->only, t->tests[i].name))
				continue;
			job = job_draw(t, i, &rng);
			if (!l_batch(&t->setup, &job))
				return false;
			count_batch(t, &job);
			any = true;
		}
	}
	return any;
}

static bool nodes_run(struct tool *t)
{
	struct l_setup *s = &t->setup;
	pid_t pid[NODES_LIMIT];
	int status, dead = 0;
	bool ok;

	for (unsigned i = 0; i < s->nodes; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			char name[16];

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			snprintf(name, sizeof(name), "n%u", i);
			log_set_ident(name);
			exit(l_node_main(s, (node_id)i));
		}
	}
	ok = batches_run(t);
	atomic_store(&s->ctl->meet.ending, true);
	for (unsigned tries = 0, left = s->nodes; left; tries++) {
		pid_t who = waitpid(-1, &status, WNOHANG);

		if (who > 0) {
			left--;
			dead += ok && status != 0;
			for (unsigned i = 0; i < s->nodes; i++)
				pid[i] = pid[i] == who ? 0 : pid[i];
			continue;
		}
		for (unsigned i = 0; i < s->nodes && tries == 250; i++)
			if (pid[i] > 0)
				kill(pid[i], SIGKILL);
		usleep(20000);
	}
	return ok && !dead;
}

/* Lines "litmus: NAME COUNT W0 W1 W2 W3 W4": the words of a struct l_outcome. */
static bool console_judge(struct tool *t)
{
	FILE *f = fopen(t->judge, "r");
	char line[512], name[24];
	bool complete = false;

	if (!f) {
		perror(t->judge);
		return false;
	}
	while (fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "litmus: ");
		unsigned long long n;
		struct l_outcome o;
		uint32_t w[5];

		if (at && sscanf(at, "litmus: overlaps %23s %llu", name, &n) == 2) {
			for (unsigned i = 0; i < t->count; i++)
				t->score[i].overlaps += strcmp(name, t->tests[i].name) ? 0 : n;
			continue;
		}
		complete |= at && !strncmp(at, "litmus: done", 12);
		if (!at || sscanf(at, "litmus: %23s %llu %x %x %x %x %x", name, &n, &w[0], &w[1],
				  &w[2], &w[3], &w[4]) != 7)
			continue;
		memcpy(&o, w, sizeof(o));
		for (unsigned i = 0; i < t->count; i++)
			if (!strcmp(name, t->tests[i].name))
				count_outcome(t, i, &o, n, NULL);
	}
	fclose(f);
	return complete;
}

/* --- report ----------------------------------------------------------------------------------------- */

static void counts_text(char *out, size_t len, const uint64_t *count, const char *const *names,
			unsigned n)
{
	size_t at = 0;

	*out = 0;
	for (unsigned i = 0; i < n && at < len; i++)
		if (count[i])
			at += (size_t)snprintf(out + at, len - at, " %s %llu", names[i],
					       (unsigned long long)count[i]);
}

static void test_report(const struct tool *t, unsigned i)
{
	const struct l_test *lt = &t->tests[i];
	const struct score *s = &t->score[i];
	char text[160], places[96], layouts[96];

	printf("%-14s %u threads, asked outcome %s, seen %llu of %llu; overlapped %llu; x86-TSO "
	       "allows %u "
	       "outcomes (%u states)\n",
	       lt->name, lt->threads, possible(t, i) ? "allowed" : "forbidden",
	       (unsigned long long)s->asked, (unsigned long long)s->instances,
	       (unsigned long long)s->overlaps, s->allowed.count, s->allowed.states);
	for (unsigned k = 0; k < s->count; k++) {
		const struct seen *seen = &s->seen[k];

		l_outcome_text(lt, &seen->outcome, text, sizeof(text));
		counts_text(places, sizeof(places), seen->place, l_place_names, L_PLACES);
		counts_text(layouts, sizeof(layouts), seen->layout, l_layout_names, L_LAYOUTS);
		printf("  %c %9llu  %s%s", l_asked(lt, &seen->outcome) ? '*' : ' ',
		       (unsigned long long)seen->count, text,
		       l_is_allowed(&s->allowed, &seen->outcome) ? "allowed" : "FORBIDDEN");
		printf("%s%s%s%s%s\n", *places ? " (" : "", places, *layouts ? ";" : "", layouts,
		       *places ? " )" : "");
	}
	if (s->lost)
		printf("    %9llu  of further kinds\n", (unsigned long long)s->lost);
}

static void model_report(const struct tool *t)
{
	for (unsigned i = 0; i < t->count; i++) {
		const struct l_allowed *a = &t->score[i].allowed;
		char text[160];

		printf("%s: %u outcomes, %u states\n", t->tests[i].name, a->count, a->states);
		for (unsigned k = 0; k < a->count; k++) {
			l_outcome_text(&t->tests[i], &a->outcome[k], text, sizeof(text));
			printf("  %c %s\n", l_asked(&t->tests[i], &a->outcome[k]) ? '*' : ' ',
			       text);
		}
	}
}

/* A test passes when it ran and saw nothing forbidden; one more: that stores were seen to be buffered. */
static int report(const struct tool *t, bool complete)
{
	uint64_t forbidden = 0, instances = 0, overlaps = 0, relaxed = relaxed_seen(t);
	unsigned passed = 0, failed = 0;

	for (unsigned i = 0; i < t->count; i++) {
		const struct score *s = &t->score[i];

		if (t->only && strcmp(t->only, t->tests[i].name))
			continue;
		if (t->judge && !s->instances)
			continue; /* more threads than the guest has processors; "done" says that it left out no other */
		test_report(t, i);
		forbidden += s->forbidden;
		instances += s->instances;
		overlaps += s->overlaps;
		if (s->instances && !s->forbidden)
			passed++;
		else
			failed++;
	}
	if (!complete) {
		printf("not complete: a node or guest failed\n");
		failed++;
	}
	printf("instances %llu, overlapped %llu, store buffering seen %llu\n",
	       (unsigned long long)instances, (unsigned long long)overlaps,
	       (unsigned long long)relaxed);
	if (!t->only && !t->judge) {
		passed += relaxed > 0;
		failed += relaxed == 0;
	}
	printf("%u passed, %u failed, 0 skipped\nforbidden %llu\n", passed, failed,
	       (unsigned long long)forbidden);
	return failed ? 1 : 0;
}

/* --- options ---------------------------------------------------------------------------------------- */

enum {
	O_TESTS = 1,
	O_ONLY,
	O_NODES,
	O_TRANSPORT,
	O_SECONDS,
	O_SEED,
	O_CACHE,
	O_FAULTS,
	O_DEADLINE,
	O_JUDGE,
	O_EMIT,
	O_MODEL,
	O_TRANSPORTS,
	O_HELP
};

static bool option_take(struct tool *t, int opt, const char *arg)
{
	uint64_t bytes = 0;

	switch (opt) {
	case O_TESTS:
		t->path = arg;
		break;
	case O_ONLY:
		t->only = arg;
		break;
	case O_JUDGE:
		t->judge = arg;
		break;
	case O_EMIT:
		t->emit = true;
		break;
	case O_MODEL:
		t->model = true;
		break;
	case O_TRANSPORT:
		t->setup.backend = arg;
		break;
	case O_NODES:
		t->setup.nodes = (unsigned)atoi(arg);
		return t->setup.nodes >= 1 && t->setup.nodes <= NODES_LIMIT;
	case O_SECONDS:
		t->seconds = atof(arg);
		return t->seconds > 0 && t->seconds < 1e6;
	case O_SEED:
		t->setup.seed = strtoull(arg, NULL, 0);
		break;
	case O_CACHE:
		if (!size_parse(arg, &bytes))
			return false;
		t->setup.cache_pages = bytes >> PAGE_SHIFT;
		break;
	case O_FAULTS:
		t->setup.faults = strcmp(arg, "dispatch") ? DSM_FAULTS_INLINE : DSM_FAULTS_DISPATCH;
		return !strcmp(arg, "inline") || !strcmp(arg, "dispatch");
	case O_DEADLINE:
		t->setup.deadline_s = (unsigned)atoi(arg);
		return t->setup.deadline_s >= 1 && t->setup.deadline_s <= 3600;
	default:
		return false;
	}
	return true;
}

static void options_parse(int argc, char **argv, struct tool *t)
{
	static const struct option longs[] = {
		{ "tests", 1, NULL, O_TESTS },
		{ "only", 1, NULL, O_ONLY },
		{ "nodes", 1, NULL, O_NODES },
		{ "transport", 1, NULL, O_TRANSPORT },
		{ "seconds", 1, NULL, O_SECONDS },
		{ "seed", 1, NULL, O_SEED },
		{ "cache", 1, NULL, O_CACHE },
		{ "faults", 1, NULL, O_FAULTS },
		{ "deadline", 1, NULL, O_DEADLINE },
		{ "judge", 1, NULL, O_JUDGE },
		{ "emit", 0, NULL, O_EMIT },
		{ "model", 0, NULL, O_MODEL },
		{ "transports", 0, NULL, O_TRANSPORTS },
		{ "help", 0, NULL, O_HELP },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (opt == O_HELP || opt == 'h') {
			fputs(usage, stdout);
			exit(0);
		} else if (opt == O_TRANSPORTS) {
			transports_print();
			exit(0);
		} else if (!option_take(t, opt, optarg)) {
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

/* The code of all tests, executable and shared with the processes. */
static uint8_t *code_make(const struct tool *t)
{
	size_t bytes = (size_t)L_TESTS * L_THREADS * L_CODE;
	uint8_t *code =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (code == MAP_FAILED)
		return NULL;
	for (unsigned i = 0; i < t->count; i++)
		for (unsigned k = 0; k < t->tests[i].threads; k++)
			l_code(&t->tests[i], k, code + ((size_t)i * L_THREADS + k) * L_CODE);
	return mprotect(code, bytes, PROT_READ | PROT_EXEC) ? NULL : code;
}

int main(int argc, char **argv)
{
	static struct tool t = {
		.path = "tests/litmus/tests.txt",
		.seconds = 20,
		.setup = { .nodes = 4, .backend = "tcp", .seed = 1, .deadline_s = 10 }
	};
	bool complete;

	options_parse(argc, argv, &t);
	if (l_parse(t.path, t.tests, &t.count))
		return 2;
	if (t.emit) {
		l_code_emit(t.tests, t.count);
		return 0;
	}
	t.score = calloc(t.count, sizeof(*t.score));
	t.setup.tests = t.tests;
	t.setup.code = code_make(&t);
	t.setup.ctl = shared_alloc(sizeof(*t.setup.ctl));
	if (!t.score || !t.setup.code) {
		perror("litmus");
		return 2;
	}
	for (unsigned i = 0; i < t.count; i++)
		l_model(&t.tests[i], &t.score[i].allowed);
	if (t.model) {
		model_report(&t);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	complete = t.judge ? console_judge(&t) : nodes_run(&t);
	return report(&t, complete);
}
