/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice_standalone.c - a VM of one node on the terminal, without agents: for developers and tests.
 *
 * Threads   The main thread reads the keyboard; console output and the end come from the slice's io thread.
 * I/O       Standard input and output, in raw mode when they are a terminal.  Ctrl-] leaves.
 */
#include "hv/slice.h"
#include "hv/slice_front.h"

#include "base/clock.h"
#include "base/log.h"

#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#define LEAVE_KEY 0x1d /* Ctrl-] */
#define HELPED (-1)

struct front {
	uint64_t start_ns;
	bool verbose;
	int over;              /* eventfd */
	struct cc_ended ended; /* written before over; text and dump belong to the slice */
};

static void sink_console(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	while (len) {
		ssize_t n = write(STDOUT_FILENO, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static void sink_progress(void *arg, const char *text)
{
	struct front *f = arg;

	if (f->verbose)
		fprintf(stderr, "[%.3f] %s\r\n", (double)(clock_now_ns() - f->start_ns) / NS_PER_S,
			text);
}

static void sink_ended(void *arg, const struct cc_ended *ended)
{
	struct front *f = arg;

	f->ended = *ended;
	if (eventfd_write(f->over, 1))
		log_error("standalone: eventfd");
}

/* --- arguments -------------------------------------------------------------------------------------------------- */

struct args {
	struct cc_vm_spec spec;
	uint64_t memory;
	bool verbose, stats;
};

static const char help[] =
	"usage: unum-slice --standalone --kernel FILE [options]\n"
	"  --kernel FILE     bzImage, or ELF with a PVH note or a multiboot header (--multiboot is "
	"the same)\n"
	"  --initrd FILE     initial RAM disk; the first module of an ELF kernel\n"
	"  --cmdline TEXT    kernel command line\n"
	"  --memory SIZE     guest memory, default 512MiB\n"
	"  --vcpus N         default 1\n"
	"  --engine NAME     auto, bt or kvm\n"
	"  --faults NAME     auto, inline or dispatch: how the kvm engine gets its pages\n"
	"  --cpu-features WORDS  of the kvm engine: names as in /proc/cpuinfo beyond x86-64-v2\n"
	"  --disk FILE       a raw disk; may be repeated (--disk-ro: read-only)\n"
	"  --no-console      no virtio console: the serial port has the terminal\n"
	"  --stats           exits by kind at the end\n"
	"  --verbose         progress lines\n";

static bool add_device(struct args *a, enum cc_device_kind kind, const char *path, bool readonly)
{
	if (a->spec.devices == CC_SPEC_DEVICES_MAX)
		return false;
	a->spec.device[a->spec.devices++] =
		(struct cc_device){ .kind = kind, .readonly = readonly, .path = path };
	return true;
}

static bool parse_vcpus(const char *text, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (!*text || *end || !v || v > VCPUS_MAX)
		return false;
	*out = (unsigned)v;
	return true;
}

/* In the order of enum cc_engine and enum cc_faults. */
static const char *const engine_words[] = { "auto", "bt", "kvm", NULL };
static const char *const faults_words[] = { "auto", "inline", "dispatch", NULL };

static bool parse_word(const char *text, const char *const *words, unsigned *out)
{
	for (*out = 0; words[*out]; ++*out)
		if (!strcmp(text, words[*out]))
			return true;
	return false;
}

enum {
	KERNEL = 1,
	INITRD,
	CMDLINE,
	MEMORY,
	VCPUS,
	ENGINE,
	FAULTS,
	CPU_FEATURES,
	DISK,
	DISK_RO,
	NO_CONSOLE,
	STATS,
	VERBOSE,
	HELP
};
static const struct option options[] = {
	{ "kernel", 1, NULL, KERNEL },
	{ "multiboot", 1, NULL, KERNEL },
	{ "initrd", 1, NULL, INITRD },
	{ "cmdline", 1, NULL, CMDLINE },
	{ "memory", 1, NULL, MEMORY },
	{ "vcpus", 1, NULL, VCPUS },
	{ "engine", 1, NULL, ENGINE },
	{ "faults", 1, NULL, FAULTS },
	{ "cpu-features", 1, NULL, CPU_FEATURES },
	{ "disk", 1, NULL, DISK },
	{ "disk-ro", 1, NULL, DISK_RO },
	{ "no-console", 0, NULL, NO_CONSOLE },
	{ "stats", 0, NULL, STATS },
	{ "verbose", 0, NULL, VERBOSE },
	{ "help", 0, NULL, HELP },
	{ 0 },
};

/* 0, HELPED, or the exit status. */
static int parse(int argc, char **argv, struct args *a)
{
	bool good = true, console = true;
	unsigned word;
	int o;

	optind = 0;
	while (good && (o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case KERNEL:
			a->spec.kernel = optarg;
			break;
		case INITRD:
			a->spec.initrd = optarg;
			break;
		case CMDLINE:
			a->spec.cmdline = optarg;
			break;
		case MEMORY:
			good = cc_size_parse(optarg, &a->memory);
			break;
		case VCPUS:
			good = parse_vcpus(optarg, &a->spec.vcpus);
			break;
		case ENGINE:
			good = parse_word(optarg, engine_words, &word);
			a->spec.engine = (enum cc_engine)word;
			break;
		case FAULTS:
			good = parse_word(optarg, faults_words, &word);
			a->spec.faults = (enum cc_faults)word;
			break;
		case CPU_FEATURES:
			a->spec.cpu_features = optarg;
			break;
		case DISK:
			good = add_device(a, CC_DEV_BLK, optarg, false);
			break;
		case DISK_RO:
			good = add_device(a, CC_DEV_BLK, optarg, true);
			break;
		case NO_CONSOLE:
			console = false;
			break;
		case STATS:
			a->stats = true;
			break;
		case VERBOSE:
			a->verbose = true;
			break;
		case HELP:
			fputs(help, stdout);
			return HELPED;
		default:
			good = false;
			break;
		}
	}
	good = good && optind == argc && a->spec.kernel[0] && a->memory >= CC_MEMORY_UNIT &&
	       a->memory % CC_MEMORY_UNIT == 0;
	good = good && add_device(a, CC_DEV_SERIAL, "", false) &&
	       add_device(a, CC_DEV_RNG, "", false);
	good = good && (!console || add_device(a, CC_DEV_CONSOLE, "", false));
	if (!good)
		fputs(help, stderr);
	return good ? 0 : 2;
}

static void layout(struct cc_vm_spec *spec, uint64_t memory)
{
	uint64_t low = memory < CC_HOLE_START ? memory : CC_HOLE_START;

	spec->range[spec->ranges++] = (struct cc_range){ .count = low >> PAGE_SHIFT };
	if (memory > low)
		spec->range[spec->ranges++] =
			(struct cc_range){ .first = CC_HOLE_END >> PAGE_SHIFT,
					   .count = (memory - low) >> PAGE_SHIFT };
}

/* --- terminal ----------------------------------------------------------------------------------------------------- */

static bool raw_on(struct termios *before)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, before))
		return false;
	raw = *before;
	cfmakeraw(&raw);
	return !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

/* Until the VM has ended or the user left. */
static void talk(struct hv_slice *s, const struct front *f, bool terminal)
{
	struct pollfd fds[2] = { { .fd = f->over, .events = POLLIN },
				 { .fd = STDIN_FILENO, .events = POLLIN } };

	while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
		uint8_t buf[256];
		ssize_t n;

		if (fds[0].revents)
			return;
		if (!fds[1].revents)
			continue;
		n = read(STDIN_FILENO, buf, sizeof(buf));
		if (n <= 0) {
			fds[1].fd = -1;
			continue;
		}
		if (terminal && memchr(buf, LEAVE_KEY, (size_t)n)) {
			hv_slice_stop(s);
			fds[1].fd = -1;
			continue;
		}
		hv_slice_console_in(s, buf, (size_t)n);
	}
}

static int run(struct args *a, struct front *f)
{
	struct hv_slice_sink sink = {
		.console = sink_console, .progress = sink_progress, .ended = sink_ended, .arg = f
	};
	struct cc_connect nobody = { .nodes = 1 };
	char text[HV_TEXT_MAX] = "";
	struct termios before;
	struct hv_slice *s;
	bool terminal;
	int status;

	if (hv_slice_prepare(&a->spec, &sink, &s, text)) {
		fprintf(stderr, "unum-slice: %s\n", text);
		return 1;
	}
	if (hv_slice_connect(s, &nobody, text)) {
		fprintf(stderr, "unum-slice: %s\n", text);
		hv_slice_close(s);
		return 1;
	}
	terminal = raw_on(&before);
	hv_slice_run(s);
	talk(s, f, terminal);
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	fprintf(stderr, "unum-slice: %s\n%s", f->ended.text, f->ended.dump);
	status = f->ended.reason == CC_END_POWEROFF ? 0 : 1;
	if (a->stats)
		hv_slice_stats_print(s, stderr);
	hv_slice_close(s);
	return status;
}

int hv_slice_main_standalone(int argc, char **argv)
{
	struct args *a = calloc(1, sizeof(*a));
	struct front f = { .start_ns = clock_now_ns() };
	int status;

	if (!a)
		return 1;
	a->memory = 512ull << 20;
	a->spec.name = "standalone";
	a->spec.nodes = a->spec.vcpus = 1;
	a->spec.node_name[0] = "local";
	a->spec.kernel = a->spec.initrd = a->spec.cmdline = "";
	a->spec.cpu_features = "";
	a->spec.fabric_backend = a->spec.fabric_device = a->spec.fabric_listen = "";
	status = parse(argc + 1, argv - 1, a);
	if (!status) {
		layout(&a->spec, a->memory);
		f.verbose = a->verbose;
		f.over = eventfd(0, EFD_CLOEXEC);
		status = f.over < 0 ? 1 : run(a, &f);
		close(f.over);
	}
	free(a);
	return status == HELPED ? 0 : status;
}
