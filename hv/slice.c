/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slice.c - the life of a slice: what is opened in which order, and how everything ends.
 *
 * What      prepare runs the steps of a table; close undoes those that were done, last first.  However the VM ends,
 *           it ends through hv_slice_end, once: every wait of every thread then ends.
 * Owns      struct hv_slice and all that hangs from it.
 * Threads   hv/slice.h; hv_slice_end: any, also inside ic_progress.
 */
#include "hv/slice_priv.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <linux/futex.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define JOIN_TIMEOUT_NS (10 * NS_PER_S)

static void wake_all(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void hv_slice_progress(struct hv_slice *s, const char *fmt, ...)
{
	char text[HV_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->sink.progress(s->sink.arg, text);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

void hv_slice_end(struct hv_slice *s, enum cc_end reason, node_id node, char *dump, const char *fmt,
		  ...)
{
	va_list ap;

	if (atomic_exchange(&s->end_claimed, true)) {
		free(dump);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(s->end_text, sizeof(s->end_text), fmt, ap);
	va_end(ap);
	s->end_dump = dump;
	s->ended = (struct cc_ended){ reason, node, s->end_text, dump ? dump : "" };
	s->end_ns = clock_now_ns();
	log_info("slice: ends: %s", s->end_text);
	atomic_store(&s->phase, HV_ENDING);
	wake_all(&s->phase);
	wake_all(&s->peers_up);
	wake_all(&s->clock.seq);
	if (s->dsm)
		dsm_stop(s->dsm);
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		if (!s->cpu[v])
			continue;
		hv_cpu_kick(s->cpu[v]);
		wake_all(&s->cpu[v]->io_word);
	}
	atomic_fetch_add(&s->timer.word, 1);
	wake_all(&s->timer.word);
	hv_io_wake(s);
	/* Last: from here on the slice may be closed. */
	atomic_store(&s->end_known, true);
}

void hv_slice_stop(struct hv_slice *s)
{
	hv_slice_end(s, CC_END_STOPPED, s->spec->self, NULL, "stopped");
}

static void on_peer(void *arg, node_id peer, enum ic_peer_event event)
{
	struct hv_slice *s = arg;

	if (event == IC_PEER_UP) {
		atomic_fetch_add(&s->peers_up, 1);
		wake_all(&s->peers_up);
		return;
	}
	if (s->dsm && dsm_drained(s->dsm, peer))
		log_info("slice: node %s is gone, and nobody needs it", s->spec->node_name[peer]);
	else
		hv_slice_end(s, CC_END_PEER_LOST, peer, NULL, "node %s is lost", s->spec->node_name[peer]);
	if (s->dsm)
		dsm_peer_lost(s->dsm, peer);
	if (s->mig)
		mig_peer_lost(s->mig, peer);
}

void hv_slice_answer(struct hv_slice *s, const struct cc_answer *a)
{
	if (s->sink.answer)
		s->sink.answer(s->sink.arg, a);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static int up_base(struct hv_slice *s, char *text)
{
	pthread_mutex_init(&s->gate, NULL);
	pthread_mutex_init(&s->addr_lock, NULL);
	hv_link_init(s);
	hv_bus_init(s);
	hv_console_init(&s->console);
	(void)text;
	return hv_clock_init(&s->clock, s->spec->self);
}

static void down_base(struct hv_slice *s)
{
	hv_bus_fini(s);
	hv_link_fini(s);
}

static int up_fabric(struct hv_slice *s, char *text)
{
	struct ic_config cfg = {
		.self = s->spec->self,
		.nodes = s->spec->nodes,
		.backend = s->spec->fabric_backend,
		.device = s->spec->fabric_device,
		.listen = s->spec->fabric_listen,
		.vm_id = s->spec->vm_id,
		.on_peer = on_peer,
		.arg = s,
		.dead_after_ms = s->spec->dead_after_ms,
		.chaos.seed = s->spec->chaos,
	};
	int err;

	STATIC_ASSERT(IC_KEY_BYTES == CC_KEY_BYTES, "one key");
	if (!s->multi)
		return 0;
	memcpy(cfg.key, s->spec->vm_key, sizeof(cfg.key));
	err = ic_open(&cfg, &s->fabric);
	if (err) {
		snprintf(text, HV_TEXT_MAX, "fabric %s on %s: %s", s->spec->fabric_backend,
			 s->spec->fabric_listen, strerror(-err));
		return err;
	}
	ic_set_handler(s->fabric, IC_PORT_HV, (struct ic_handler){ hv_link_on_message, s });
	return 0;
}

static void down_fabric(struct hv_slice *s)
{
	if (s->fabric)
		ic_close(s->fabric);
}

static int up_nothing(struct hv_slice *s, char *text)
{
	(void)s;
	(void)text;
	return 0;
}

static void down_nothing(struct hv_slice *s)
{
	(void)s;
}

static void down_memory(struct hv_slice *s)
{
	dsm_close(s->dsm);
}

static void down_vm(struct hv_slice *s)
{
	s->engine->vm_close(s->vm);
}

static void down_devices(struct hv_slice *s)
{
	for (unsigned i = 0; i < s->virtio_slots; i++) {
		if (s->virtio[i])
			hv_virtio_close(s->virtio[i]);
		s->virtio[i] = NULL;
	}
}

static int up_devices(struct hv_slice *s, char *text)
{
	hv_board_init(s);
	for (unsigned i = 0; i < s->spec->devices; i++) {
		const struct cc_device *d = &s->spec->device[i];
		unsigned slot = s->virtio_slots;
		int err = 0;

		if (d->kind == CC_DEV_SERIAL)
			continue;
		if (d->kind == CC_DEV_NET)
			err = -ENOTSUP;
		else if (slot == HV_VIRTIO_SLOTS)
			err = -E2BIG;
		else if (d->node == s->spec->self)
			err = hv_virtio_open(s, d, slot, &s->virtio[slot]);
		if (err) {
			snprintf(text, HV_TEXT_MAX, "device %s: %s",
				 d->kind == CC_DEV_NET ? "network card" : d->path, strerror(-err));
			down_devices(s);
			return err;
		}
		hv_bus_add(s, HV_IO_MMIO, HV_VIRTIO_BASE + (uint64_t)slot * HV_VIRTIO_STRIDE,
			   HV_VIRTIO_STRIDE, d->node,
			   s->virtio[slot] ? &s->virtio[slot]->dev : NULL);
		s->virtio_slots++;
	}
	return 0;
}

static void down_cpus(struct hv_slice *s)
{
	hv_timer_stop(s);
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		if (s->cpu[v])
			hv_cpu_close(s->cpu[v]);
		s->cpu[v] = NULL;
	}
}

static int up_cpus(struct hv_slice *s, char *text)
{
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		struct hv_lapic lapic;
		int err;

		/* How every LAPIC is addressed after power-up; changes are told by HV_MSG_ADDR. */
		hv_lapic_init(&lapic, v, v == 0);
		s->addr[v] = hv_lapic_addr(&lapic);
		if (!s->multi && s->spec->vcpu_node[v] != s->spec->self)
			continue;
		err = hv_cpu_open(s, v, &s->cpu[v]);
		if (err) {
			snprintf(text, HV_TEXT_MAX, "vCPU %u: %s", v, strerror(-err));
			down_cpus(s);
			return err;
		}
	}
	return 0;
}

static int up_moves(struct hv_slice *s, char *text)
{
	int err = hv_move_open(s);

	if (err)
		snprintf(text, HV_TEXT_MAX, "moves: %s", strerror(-err));
	return err;
}

static int up_balance(struct hv_slice *s, char *text)
{
	int err = hv_balance_open(s);

	if (err)
		snprintf(text, HV_TEXT_MAX, "placement: %s", strerror(-err));
	return err;
}

static int up_kernel(struct hv_slice *s, char *text)
{
	return s->spec->self == 0 ? hv_loader_open(s, &s->loader, text) : 0;
}

static void down_kernel(struct hv_slice *s)
{
	if (s->loader)
		hv_loader_close(s->loader);
}

static const struct step {
	const char *name;
	int (*up)(struct hv_slice *s, char *text); /* undoes its own half-done work on error */
	void (*down)(struct hv_slice *s);
} steps[] = {
	{ "base", up_base, down_base },
	{ "fabric", up_fabric, down_fabric },
	{ "engine", hv_machine_choose, down_nothing },
	{ "memory", hv_machine_memory, down_memory },
	{ "vm", hv_machine_open, down_vm },
	{ "devices", up_devices, down_devices },
	{ "moves", up_moves, hv_move_close },
	{ "cpus", up_cpus, down_cpus },
	{ "balance", up_balance, hv_balance_close },
	{ "kernel", up_kernel, down_kernel },
	{ "drain", up_nothing, hv_drain_close },
};

int hv_slice_prepare(const struct cc_vm_spec *spec, const struct hv_slice_sink *sink,
		     struct hv_slice **out, char text[static HV_TEXT_MAX])
{
	struct hv_slice *s = calloc(1, sizeof(*s));

	snprintf(text, HV_TEXT_MAX, "out of memory");
	if (!s)
		return -ENOMEM;
	s->spec = spec;
	s->sink = *sink;
	s->multi = spec->nodes > 1;
	while (s->steps < ARRAY_LEN(steps)) {
		int err = steps[s->steps].up(s, text);

		if (err) {
			log_error("slice: step %s: %s", steps[s->steps].name, text);
			hv_slice_close(s);
			return err;
		}
		s->steps++;
	}
	*out = s;
	return 0;
}

void hv_slice_address(struct hv_slice *s, char out[static IC_ADDR_MAX])
{
	out[0] = 0;
	if (s->fabric)
		ic_address(s->fabric, out);
}

/* --- connect, run, close ------------------------------------------------------------------------------------------- */

static int join_all(struct hv_slice *s, const struct cc_connect *all, char text[static HV_TEXT_MAX])
{
	uint64_t deadline = clock_now_ns() + JOIN_TIMEOUT_NS;
	uint32_t up;

	for (unsigned n = 0; n < s->spec->nodes; n++) {
		int err = n == s->spec->self ? 0 : ic_join(s->fabric, (node_id)n, all->address[n]);

		if (err) {
			snprintf(text, HV_TEXT_MAX, "node %s at %s: %s", s->spec->node_name[n],
				 all->address[n], strerror(-err));
			return err;
		}
	}
	while ((up = atomic_load(&s->peers_up)) < s->spec->nodes - 1) {
		struct timespec tick = { .tv_nsec = 100 * NS_PER_MS };

		if (hv_slice_ending(s)) {
			snprintf(text, HV_TEXT_MAX, "%s", s->end_text);
			return -EPIPE;
		}
		if (clock_now_ns() > deadline) {
			snprintf(text, HV_TEXT_MAX,
				 "only %u of %u other nodes joined within %llu s", up,
				 s->spec->nodes - 1, JOIN_TIMEOUT_NS / NS_PER_S);
			return -ETIMEDOUT;
		}
		syscall(SYS_futex, &s->peers_up, FUTEX_WAIT_PRIVATE, up, &tick, NULL, 0);
	}
	hv_slice_progress(s, "fabric up, %u nodes", s->spec->nodes);
	return 0;
}

static int threads_start(struct hv_slice *s, char text[static HV_TEXT_MAX])
{
	int err = hv_timer_start(s);

	for (unsigned v = 0; !err && v < s->spec->vcpus; v++)
		if (s->cpu[v])
			err = hv_cpu_start(s->cpu[v],
					   v == 0 && s->loader ? &s->loader->plan.regs : NULL);
	if (!err)
		err = hv_io_start(s);
	if (!err)
		err = hv_balance_start(s);
	if (err)
		snprintf(text, HV_TEXT_MAX, "threads: %s", strerror(-err));
	return err;
}

int hv_slice_connect(struct hv_slice *s, const struct cc_connect *all,
		     char text[static HV_TEXT_MAX])
{
	int err = 0;

	if (s->multi && all->nodes != s->spec->nodes) {
		snprintf(text, HV_TEXT_MAX, "%u addresses for %u nodes", all->nodes,
			 s->spec->nodes);
		return -EINVAL;
	}
	if (s->multi)
		err = join_all(s, all, text);
	if (!err && s->multi) {
		err = hv_clock_join(s, text);
		hv_machine_cpuid(s);
	}
	if (!err && s->loader) {
		err = hv_loader_write(s, s->loader, text);
		if (!err)
			hv_slice_progress(s, "kernel loaded");
	}
	if (!err)
		err = threads_start(s, text);
	return err;
}

void hv_slice_run(struct hv_slice *s)
{
	uint32_t prepared = HV_PREPARED;

	s->run_ns = clock_now_ns();
	if (atomic_compare_exchange_strong(&s->phase, &prepared, HV_RUNNING)) {
		hv_slice_progress(s, "running");
		wake_all(&s->phase);
	}
}

void hv_slice_order(struct hv_slice *s, const struct cc_order *o)
{
	struct cc_answer no = { .id = o->id, .last = true, .vcpu = o->vcpu, .text = "this cannot be done while the VM runs" };

	if (o->kind == CC_ORDER_MOVE && o->vcpu < s->spec->vcpus && o->node < s->spec->nodes) {
		hv_move_order(s, o->vcpu, o->node, o->id);
		return;
	}
	if (o->kind == CC_ORDER_PLACE && s->multi && o->mode <= CC_PLACEMENT_RULES) {
		hv_balance_mode(s, (enum cc_placement)o->mode);
		no.ok = true;
		no.text = "done";
	}
	if ((o->kind == CC_ORDER_DRAIN || o->kind == CC_ORDER_JOIN) && hv_drain_order(s, o, &no.text))
		return;
	if (o->kind == CC_ORDER_MOVE)
		no.text = o->vcpu < s->spec->vcpus ? "the VM has no such node" : "the VM has no such vCPU";
	hv_slice_answer(s, &no);
}

void hv_slice_console_in(struct hv_slice *s, const uint8_t *data, size_t len)
{
	hv_console_type(s, data, len);
}

void hv_slice_close(struct hv_slice *s)
{
	if (s->steps) {
		hv_slice_stop(s);
		while (!atomic_load(&s->end_known)) {
			struct timespec ts = { .tv_nsec = NS_PER_MS };

			nanosleep(&ts, NULL); /* another thread is in hv_slice_end */
		}
		hv_io_stop(s);
		pthread_mutex_lock(&s->gate);
		s->deaf = true;
		pthread_mutex_unlock(&s->gate);
	}
	while (s->steps)
		steps[--s->steps].down(s);
	free(s->end_dump);
	free(s);
}

/* --- statistics ---------------------------------------------------------------------------------------------------- */

static const char *const exit_names[] = {
	[HV_EXIT_KICKED] = "kicked",     [HV_EXIT_MMIO] = "mmio",
	[HV_EXIT_PIO] = "pio",           [HV_EXIT_MSR] = "msr",
	[HV_EXIT_HLT] = "hlt",           [HV_EXIT_IRQ_WINDOW] = "irq-window",
	[HV_EXIT_SHUTDOWN] = "shutdown", [HV_EXIT_LOST] = "lost",
	[HV_EXIT_ERROR] = "error",
};

static void moves_stats(struct hv_slice *s, struct cc_stats *st)
{
	struct mig_stats m = { 0 };

	if (s->mig)
		mig_stats(s->mig, &m);
	st->moved_in = m.moved_in;
	st->moved_out = m.moved_out;
	st->moves_returned = m.returned;
	st->moves_refused = m.refused;
	st->snapshot_bytes = m.snapshot_bytes;
	st->stop_p50_ns = m.part_p50_ns[MIG_STOP];
	st->stop_p99_ns = m.part_p99_ns[MIG_STOP];
	st->capture_p50_ns = m.part_p50_ns[MIG_CAPTURE];
	st->capture_p99_ns = m.part_p99_ns[MIG_CAPTURE];
	st->send_p50_ns = m.part_p50_ns[MIG_SEND];
	st->send_p99_ns = m.part_p99_ns[MIG_SEND];
	st->restore_p50_ns = m.part_p50_ns[MIG_RESTORE];
	st->restore_p99_ns = m.part_p99_ns[MIG_RESTORE];
	st->resume_p50_ns = m.part_p50_ns[MIG_RESUME];
	st->resume_p99_ns = m.part_p99_ns[MIG_RESUME];
	st->pause_p50_ns = m.part_p50_ns[MIG_PAUSE];
	st->pause_p99_ns = m.part_p99_ns[MIG_PAUSE];
	st->refused += m.garbage;
	st->round_trip_ns = s->clock.round_trip_ns;
}

void hv_slice_stats(struct hv_slice *s, struct cc_stats *out)
{
	struct cc_stats st = { .node = s->spec->self,
			       .memory_bytes = hv_machine_share(s),
			       .engine = s->engine->name };
	struct dsm_stats mem;
	struct ic_stats net = { 0 };

	STATIC_ASSERT(CC_HOT_PAGES == DSM_HOT_PAGES && CC_LAT_BUCKETS == DSM_LAT_BUCKETS,
		      "as in struct dsm_stats");
	dsm_stats(s->dsm, &mem);
	if (s->fabric)
		ic_stats(s->fabric, &net);
	st.faults_read = mem.faults_read;
	st.faults_write = mem.faults_write;
	st.faults_upgrade = mem.faults_upgrade;
	st.faults_local = mem.faults_local;
	st.pages_sent = mem.pages_sent;
	st.pages_received = mem.pages_received;
	st.invalidations_received = mem.invalidations_received;
	st.latency_p50_ns = mem.latency_p50_ns;
	st.latency_p99_ns = mem.latency_p99_ns;
	memcpy(st.latency_hist, mem.latency_hist, sizeof(st.latency_hist));
	for (unsigned i = 0; i < CC_HOT_PAGES; i++) {
		st.hot[i].gfn = mem.hot[i].gfn;
		st.hot[i].faults = mem.hot[i].faults;
	}
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		if (!s->cpu[v])
			continue;
		st.vcpus += hv_cpu_here(s->cpu[v]);
		for (unsigned i = 0; i < ARRAY_LEN(exit_names); i++)
			st.exits += atomic_load(&s->cpu[v]->exits[i]);
	}
	moves_stats(s, &st);
	st.ipis_sent_remote = atomic_load(&s->ipis_out);
	st.ipis_received_remote = atomic_load(&s->ipis_in);
	st.mmio_remote = atomic_load(&s->bus.remote);
	st.msgs_sent = net.msgs_sent;
	st.msgs_received = net.msgs_received;
	st.bytes_sent = net.bytes_sent;
	st.bytes_received = net.bytes_received;
	st.refused += net.refused + mem.refused + atomic_load(&s->refused);
	if (s->run_ns)
		st.guest_ns = (s->end_ns ? s->end_ns : clock_now_ns()) - s->run_ns;
	*out = st;
}

void hv_slice_stats_print(struct hv_slice *s, FILE *to)
{
	for (unsigned v = 0; v < s->spec->vcpus; v++) {
		struct hv_cpu *c = s->cpu[v];

		if (!c)
			continue;
		fprintf(to, "vcpu %u:", v);
		for (unsigned i = 0; i < ARRAY_LEN(exit_names); i++)
			if (atomic_load(&c->exits[i]))
				fprintf(to, " %s %llu", exit_names[i],
					(unsigned long long)atomic_load(&c->exits[i]));
		fprintf(to, " injected %llu sleeps %llu\n",
			(unsigned long long)atomic_load(&c->injected),
			(unsigned long long)atomic_load(&c->sleeps));
	}
}
