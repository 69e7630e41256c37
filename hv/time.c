/* SPDX-License-Identifier: Apache-2.0 */
/*
 * time.c - one guest TSC for the whole VM: guest TSC = host TSC + an offset per node.
 *
 * What      Measures the host's TSC frequency, and on nodes other than 0 the offset against node 0's guest TSC with
 *           probes over the fabric: the probe with the least round trip counts.  The error is at most half
 *           of that round trip less the shortest one-way time, hence below a one-way time on any link
 *           whose two directions take less than four times its shortest.  Slices on one host (same boot id) share one TSC and take node 0's
 *           offset as it is, without error.
 * Limits    Hosts whose TSCs differ in frequency by more than KHZ_TOLERANCE are refused.  The offset is measured once:
 *           drift between hosts within that tolerance is not corrected later.
 * Threads   init and join: the thread that starts the slice.  on_message: inside ic_progress.  The rest: any.
 */
#include "hv/slice_priv.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROBES 64u
#define PROBE_TIMEOUT_NS (2 * NS_PER_S)
#define MEASURE_NS (20 * NS_PER_MS)
#define KHZ_TOLERANCE 1000u /* 1 / this part: 0.1 % */

struct moment {
	uint64_t tsc, ns;
};

/* TSC and clock at one moment: the try with the least time between two TSC readings counts. */
static struct moment moment_now(void)
{
	struct moment best = { 0 };
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < 16; i++) {
		struct timespec ts;
		uint64_t before = clock_tsc(), after;

		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = clock_tsc();
		if (after - before < least) {
			least = after - before;
			best.tsc = before + least / 2;
			best.ns = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
		}
	}
	return best;
}

/* CPUID 0x15: crystal and ratio (SDM vol 2A); 0 where the CPU does not say. */
static uint64_t khz_of_cpuid(void)
{
	unsigned den, num, hz, edx;

	if (__get_cpuid_max(0, NULL) < 0x15)
		return 0;
	__cpuid(0x15, den, num, hz, edx);
	return den && num && hz ? (uint64_t)hz / 1000 * num / den : 0;
}

static uint64_t khz_measured(void)
{
	struct moment a = moment_now(), b;

	do {
		struct timespec nap = { .tv_nsec = MEASURE_NS };

		nanosleep(&nap, NULL);
		b = moment_now();
	} while (b.ns - a.ns < MEASURE_NS);
	return (uint64_t)((unsigned __int128)(b.tsc - a.tsc) * 1000000 / (b.ns - a.ns));
}

static bool boot_id_read(uint8_t out[16])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[64] = { 0 };
	unsigned digits = 0;

	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	memset(out, 0, 16);
	for (const char *p = text; *p && digits < 32; p++) {
		unsigned v;

		if (*p == '-')
			continue;
		if (sscanf(p, "%1x", &v) != 1)
			break;
		out[digits / 2] |= (uint8_t)(v << (digits & 1 ? 0 : 4));
		digits++;
	}
	return digits == 32;
}

int hv_clock_init(struct hv_clock *c, node_id self)
{
	c->tsc_khz = khz_of_cpuid();
	if (!c->tsc_khz)
		c->tsc_khz = khz_measured();
	if (!c->tsc_khz) {
		log_error("time: this host's TSC stands still");
		return -ENOTSUP;
	}
	if (!boot_id_read(c->boot_id)) /* unknown: shared with nobody */
		for (unsigned i = 0; i < 2; i++)
			put_le64(c->boot_id + 8 * i, clock_tsc() ^ (uint64_t)getpid() << 40);
	if (self == 0)
		c->offset = -clock_tsc(); /* the guest's time begins at 0 */
	return 0;
}

void hv_clock_fix(struct hv_clock *c)
{
	c->fixed = true;
	c->offset = 0;
}

uint64_t hv_clock_guest_tsc(const struct hv_clock *c)
{
	return clock_tsc() + c->offset;
}

uint64_t hv_clock_ns_of(const struct hv_clock *c, uint64_t guest_tsc)
{
	uint64_t now = hv_clock_guest_tsc(c);
	uint64_t wait;

	if (guest_tsc <= now)
		return clock_now_ns();
	wait = guest_tsc - now;
	if (wait / c->tsc_khz > 1000ull * 3600 * 24)
		return HV_NEVER;
	/* Rounded up, or the vCPU would wake just before its deadline and sleep once more. */
	return clock_now_ns() +
	       (uint64_t)(((unsigned __int128)wait * 1000000 + c->tsc_khz - 1) / c->tsc_khz);
}

void hv_clock_on_message(struct hv_slice *s, node_id from, const struct hv_msg *msg)
{
	struct hv_clock *c = &s->clock;

	if (msg->kind == HV_MSG_PROBE) {
		struct hv_msg m = { .kind = HV_MSG_CLOCK };

		m.clock.seq = msg->probe.seq;
		m.clock.tsc_khz = c->tsc_khz;
		m.clock.offset = c->offset;
		memcpy(m.clock.boot_id, c->boot_id, sizeof(c->boot_id));
		m.clock.guest_tsc = hv_clock_guest_tsc(c);
		hv_link_send(s, from, &m);
		return;
	}
	if (from != 0 || msg->clock.seq != atomic_load(&c->seq) + 1) {
		hv_count(&s->refused);
		return;
	}
	c->answer_host = clock_tsc();
	c->answer = *msg;
	atomic_store(&c->seq, msg->clock.seq);
	syscall(SYS_futex, &c->seq, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* One probe; false when no answer came in time. */
static bool probe(struct hv_slice *s, uint64_t *round_trip, uint64_t *offset)
{
	struct hv_clock *c = &s->clock;
	uint32_t last = atomic_load(&c->seq);
	uint64_t deadline = clock_now_ns() + PROBE_TIMEOUT_NS;
	struct hv_msg m = { .kind = HV_MSG_PROBE, .probe = { .seq = last + 1 } };
	uint64_t sent = clock_tsc();

	hv_link_send(s, 0, &m);
	while (atomic_load(&c->seq) == last) {
		uint64_t now = clock_now_ns();
		struct timespec left;

		if (now >= deadline || hv_slice_ending(s))
			return false;
		left = (struct timespec){ (time_t)((deadline - now) / NS_PER_S),
					  (long)((deadline - now) % NS_PER_S) };
		syscall(SYS_futex, &c->seq, FUTEX_WAIT_PRIVATE, last, &left, NULL, 0);
	}
	*round_trip = c->answer_host - sent;
	*offset = c->answer.clock.guest_tsc - (sent + *round_trip / 2);
	return true;
}

static int join(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	struct hv_clock *c = &s->clock;
	uint64_t least = UINT64_MAX, theirs;

	for (unsigned i = 0; i < PROBES; i++) {
		uint64_t round_trip, offset;

		if (!probe(s, &round_trip, &offset)) {
			snprintf(text, HV_TEXT_MAX, "node %s does not answer clock probes",
				 s->spec->node_name[0]);
			return -ETIMEDOUT;
		}
		if (round_trip < least) {
			least = round_trip;
			c->offset = offset;
		}
	}
	c->round_trip_ns = least * 1000000 / c->tsc_khz;
	if (!memcmp(c->answer.clock.boot_id, c->boot_id, sizeof(c->boot_id))) {
		c->offset = c->answer.clock.offset;
		c->tsc_khz = c->answer.clock.tsc_khz;
		log_info("time: same host as node 0, TSC shared");
		return 0;
	}
	theirs = c->answer.clock.tsc_khz;
	if (theirs > c->tsc_khz + c->tsc_khz / KHZ_TOLERANCE ||
	    c->tsc_khz > theirs + theirs / KHZ_TOLERANCE) {
		snprintf(text, HV_TEXT_MAX,
			 "TSC of this host runs at %llu kHz, of node %s at %llu kHz",
			 (unsigned long long)c->tsc_khz, s->spec->node_name[0],
			 (unsigned long long)theirs);
		return -ENOTSUP;
	}
	c->tsc_khz = theirs;
	log_info("time: least round trip to node 0 %llu ns", (unsigned long long)c->round_trip_ns);
	return 0;
}

int hv_clock_join(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	int err = s->spec->self == 0 ? 0 : join(s, text);

	if (err || !s->clock.fixed || !s->clock.offset)
		return err;
	snprintf(text, HV_TEXT_MAX, "KVM of this host cannot shift the guest's TSC, and node %s is another host",
		 s->spec->node_name[0]);
	return -ENOTSUP;
}
