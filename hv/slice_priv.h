/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/slice_priv.h - what the files of the monitor share.
 *
 * Reading order  slice.c (life), machine.c (engine, memory), vcpu.c (one vCPU's thread), exits.c (what it does with an
 *           exit), move.c (vCPUs that come and go), drain.c (nodes that do), irq.c (interrupts on their way), bus.c (device accesses on their way), board.c (the fixed devices),
 *           virtio_mmio.c and backend_*.c (virtio devices), io.c (the thread behind them), time.c (one TSC), timer.c
 *           (deadlines), link.c (messages to peers), loader.c (kernel to guest memory), dump.c (a dead vCPU in words).
 * Threads   docs/threads.md.
 * Locks     Ranks, outer to inner: fabric progress (tried only) > device.lock > board.ioapic_lock > link.lock, console.lock.
 *           Nothing sleeps under one, but device.lock of a virtio device: its io thread may wait for guest
 *           memory under it (the fabric's threads only ever try it).
 */
#ifndef HV_SLICE_PRIV_H
#define HV_SLICE_PRIV_H

#include "hv/core/acpi.h"
#include "hv/core/boot.h"
#include "hv/core/ioapic.h"
#include "hv/core/lapic.h"
#include "hv/core/layout.h"
#include "hv/core/legacy.h"
#include "hv/core/pit.h"
#include "hv/core/serial.h"
#include "hv/core/virtio_mmio.h"
#include "hv/engine.h"
#include "hv/kernel_image.h"
#include "hv/slice.h"
#include "hv/wire.h"
#include "vcpu-migrate/migrate.h"

#include <pthread.h>
#include <stdatomic.h>

#define HV_NEVER UINT64_MAX

/* --- link.c: messages to peers --------------------------------------------------------------------------------- */
struct hv_link_queued; /* a message that met back-pressure */
struct hv_link {
	pthread_mutex_t lock;
	struct hv_link_queued *head[NODES_MAX], **tail[NODES_MAX]; /* lock */
	_Atomic uint32_t queued;                                   /* messages in all queues */
};

/* --- time.c: one guest TSC ------------------------------------------------------------------------------------ */
struct hv_clock {
	uint64_t tsc_khz;     /* of this host; of the VM, since they must agree */
	uint64_t offset;      /* guest TSC = host TSC + offset; set before RUN */
	bool fixed;           /* the engine cannot shift it: offset is 0 */
	uint64_t round_trip_ns; /* the least that a probe of node 0 took; 0: this is node 0 */
	uint8_t boot_id[16];  /* of this host's kernel */
	_Atomic uint32_t seq; /* futex: last probe that was answered */
	uint64_t answer_host; /* host TSC when the answer came; written before seq */
	struct hv_msg answer;
};

/* --- timer.c: one thread for all deadlines ---------------------------------------------------------------------- */
struct hv_timer {
	pthread_t thread;
	bool runs;
	_Atomic uint32_t word;     /* futex: changes when the thread must look again */
	_Atomic uint64_t wakes_at; /* ns the thread sleeps until; 0: awake */
};

/* --- vcpu.c ----------------------------------------------------------------------------------------------------- */
/* What others want of a vCPU; any thread writes, the vCPU's own reads. */
struct hv_mailbox {
	_Atomic uint64_t edge[4], level[4]; /* vectors to deliver */
	_Atomic uint32_t flags;             /* MAIL_* and the SIPI vector */
	_Atomic uint32_t word;              /* futex: WORD_* */
};
#define MAIL_NMI 0x100u
#define MAIL_INIT 0x200u
#define MAIL_SIPI 0x400u /* vector in bits 0-7 */
#define WORD_POSTED 1u
#define WORD_ASLEEP 2u
/* What was in it. */
struct hv_mail {
	uint64_t edge[4], level[4];
	uint32_t flags;
};

struct hv_cpu {
	struct hv_slice *slice;
	unsigned id;
	char name[16];
	pthread_t thread;
	bool runs; /* thread was made */
	struct hv_vcpu *_Atomic engine_vcpu; /* NULL: it has never been on this node */
	struct hv_mailbox mail;
	/* its own thread only */
	struct hv_lapic lapic;
	uint32_t addr_seq;	   /* of its last HV_MSG_ADDR */
	struct hv_cpu_state reset; /* as the engine opened it */
	struct {
		bool fresh; /* it has come, and not run yet */
		uint64_t installed_ns, stopped_tsc;
		uint32_t part[MIG_PARTS];
	} arrival;
	uint64_t deadline_tsc;     /* guest TSC of the LAPIC timer, 0: none */
	bool halted;
	/* the timer thread reads */
	_Atomic uint64_t deadline_ns; /* while in the engine: kick at; else HV_NEVER */
	bool in_engine; /* the vCPU thread only: a page fault in there may deliver messages, to itself too */
	/* an access to another node's device under way: bus.c */
	_Atomic uint32_t io_word; /* futex: low bits of the id that was answered */
	uint32_t io_seq;
	_Atomic uint64_t io_data;
	struct dsm_stalls stalls; /* the DSM counts for its thread */
	/* counters: written by its own thread, read by anyone */
	_Atomic uint64_t exits[HV_EXIT_ERROR + 1], injected, sleeps;
};

/* --- bus.c ------------------------------------------------------------------------------------------------------ */
/* A device on the bus.  read and write are called under lock and must not block; addr is the full address. */
struct hv_device;
struct hv_device_ops {
	const char *name;
	uint64_t (*read)(struct hv_device *d, uint64_t addr, unsigned size);
	void (*write)(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value);
	/* Takes a write without the lock; false: not this one, use write.  May be NULL. */
	bool (*write_fast)(struct hv_device *d, uint64_t addr, unsigned size, uint64_t value);
};

struct hv_device {
	const struct hv_device_ops *ops;
	struct hv_slice *slice;
	pthread_mutex_t lock;
};

struct hv_region {
	enum hv_io_space space;
	uint64_t first, count; /* bytes or ports */
	node_id node;
	struct hv_device *device; /* NULL on other nodes */
};

#define HV_REGIONS_MAX (HV_VIRTIO_SLOTS + 40)
struct hv_bus_request; /* of a peer, waiting for the io thread */
struct hv_bus {
	struct hv_region region[HV_REGIONS_MAX]; /* const after prepare */
	unsigned regions;
	pthread_mutex_t lock;
	struct hv_bus_request *head, **tail; /* lock */
	_Atomic uint64_t remote;             /* accesses that another node served */
};

/* --- board.c: the fixed devices, all on node 0 --------------------------------------------------------------------- */
struct hv_board {
	struct hv_device ioapic_dev, serial_dev, pit_dev, legacy_dev;
	pthread_mutex_t ioapic_lock;
	struct hv_ioapic ioapic; /* ioapic_lock */
	struct hv_serial serial; /* serial_dev.lock */
	struct hv_pit pit;       /* pit_dev.lock */
	struct hv_legacy legacy; /* legacy_dev.lock */
	bool serial_here;
};

/* --- console: bytes between the terminal and whichever console devices there are ---------------------------------- */
#define HV_CONSOLE_RING 65536u
struct hv_ring {
	uint8_t data[HV_CONSOLE_RING];
	uint32_t head, tail; /* free-running; head - tail bytes are in */
};
struct hv_console {
	pthread_mutex_t lock;
	struct hv_ring out, in; /* lock */
	uint64_t dropped;       /* lock: output that did not fit */
	bool any;               /* io thread: the first byte was reported */
	/* What the guest wrote to last, the serial port or the virtio console, is where it reads what is typed. */
	_Atomic bool serial_spoke;
};

/* --- io.c: the thread behind the devices ----------------------------------------------------------------------------- */
struct hv_io {
	pthread_t thread;
	bool runs;
	_Atomic uint32_t word; /* futex: IO_* */
};
#define IO_WORK 1u
#define IO_ASLEEP 2u

/* --- virtio_mmio.c --------------------------------------------------------------------------------------------------- */
struct hv_virtio_dev;
struct hv_backend_ops {
	const char *name;
	MUST_CHECK int (*open)(struct hv_virtio_dev *d, const struct cc_device *spec);
	void (*close)(struct hv_virtio_dev *d);
	/* io thread, under lock: serve all queues that have work. */
	void (*serve)(struct hv_virtio_dev *d);
	void (*reset)(struct hv_virtio_dev *d); /* under lock; may be NULL */
};
struct hv_virtio_dev {
	struct hv_device dev;
	const struct hv_backend_ops *backend;
	struct hv_virtio_mmio *mmio; /* the back end's; dev.lock */
	void *state;                 /* the back end's */
	uint64_t base;               /* of its registers */
	unsigned gsi;
	struct hv_guest_mem mem;
	_Atomic bool work; /* serve is due */
};

extern const struct hv_backend_ops hv_backend_blk, hv_backend_console, hv_backend_rng;

/* --- slice.c --------------------------------------------------------------------------------------------------------- */
enum hv_phase { HV_PREPARED, HV_RUNNING, HV_ENDING };

/* --- move.c ---------------------------------------------------------------------------------------------------------- */
struct hv_moved; /* an outcome that waits for the io thread */
struct hv_moves {
	pthread_mutex_t lock;
	struct hv_moved *head, **tail; /* lock */
	uint64_t ticked_ns;	       /* io thread */
	_Atomic bool leaving;	       /* this node is being drained: it takes no vCPU */
};

/* --- drain.c --------------------------------------------------------------------------------------------------------- */
struct hv_drain {
	pthread_t thread;
	bool runs;	      /* it was made */
	_Atomic bool busy;    /* an order is being carried out */
	struct cc_order order; /* written before the thread is made */
	unsigned turn;	      /* the thread's: who took the last vCPU */
};

struct hv_slice {
	const struct cc_vm_spec *spec; /* borrowed */
	struct hv_slice_sink sink;
	unsigned steps; /* that prepare and connect have done: slice.c */
	bool multi;     /* more than one node */

	struct ic_fabric *fabric;
	struct dsm *dsm;
	const struct hv_engine *engine;
	struct hv_engine_terms terms; /* what it agreed to */
	struct hv_vm *vm;
	struct hv_cpuid_entry cpuid[HV_CPUID_MAX];
	unsigned cpuid_count;
	/* Every vCPU of the VM, the VM having several nodes: those that are elsewhere are parked. */
	struct hv_cpu *cpu[VCPUS_MAX];
	struct hv_loader *loader;      /* node 0 only */

	_Atomic uint32_t phase;    /* futex: enum hv_phase */
	_Atomic uint32_t peers_up; /* futex */
	_Atomic bool end_claimed;  /* somebody fills ended */
	_Atomic bool end_known;    /* ended is filled */
	struct cc_ended ended;
	char end_text[HV_TEXT_MAX];
	char *end_dump;
	_Atomic uint64_t run_ns, end_ns; /* clock_now_ns; 0: not yet */

	struct hv_link link;
	struct hv_clock clock;
	struct hv_timer timer;
	struct hv_bus bus;
	struct hv_board board;
	struct hv_console console;
	struct hv_io io;
	struct hv_virtio_dev *virtio[HV_VIRTIO_SLOTS]; /* NULL: on another node */
	unsigned virtio_slots;

	struct mig *mig; /* NULL with one node: nothing moves */
	struct hv_balance *balance; /* the same */
	struct hv_moves moves;
	struct hv_drain drain; /* node 0 */

	/* routing: written by HV_MSG_ADDR and by local vCPUs, read by whoever sends */
	pthread_mutex_t gate; /* held around every handler of the fabric */
	bool deaf;            /* gate: the slice is closing, messages are dropped */
	pthread_mutex_t addr_lock;
	struct hv_lapic_addr addr[VCPUS_MAX]; /* addr_lock */
	uint32_t addr_seq[VCPUS_MAX];	      /* addr_lock */
	_Atomic uint64_t ipis_out, ipis_in, refused;
};

static inline void hv_count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}
static inline bool hv_slice_ending(struct hv_slice *s)
{
	return atomic_load_explicit(&s->phase, memory_order_acquire) == HV_ENDING;
}
/* Ends the whole VM as far as this slice goes; the first caller's reason counts.  Any thread, does not block.
 * dump: malloc'd lines or NULL, taken over. */
void hv_slice_end(struct hv_slice *s, enum cc_end reason, node_id node, char *dump, const char *fmt,
		  ...) __attribute__((format(printf, 5, 6)));
/* To whoever gave the order.  A thread that may block. */
void hv_slice_answer(struct hv_slice *s, const struct cc_answer *a);
void hv_slice_progress(struct hv_slice *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* machine.c: steps of slice.c, in this order */
MUST_CHECK int hv_machine_choose(struct hv_slice *s, char text[static HV_TEXT_MAX]);
MUST_CHECK int hv_machine_memory(struct hv_slice *s, char text[static HV_TEXT_MAX]);
MUST_CHECK int hv_machine_open(struct hv_slice *s, char text[static HV_TEXT_MAX]);
/* The CPU model, with what is known of the TSC by now. */
void hv_machine_cpuid(struct hv_slice *s);
uint64_t hv_machine_share(const struct hv_slice *s); /* bytes of memory that this node lends */

/* link.c */
void hv_link_init(struct hv_slice *s);
void hv_link_fini(struct hv_slice *s);
/* Sends, or queues when the fabric pushes back.  A peer that is not up is skipped: its loss ends the VM.  Any thread. */
void hv_link_send(struct hv_slice *s, node_id to, const struct hv_msg *msg);
void hv_link_send_all(struct hv_slice *s, const struct hv_msg *msg);
/* The same for any port, in one order with all others. */
void hv_link_send_raw(struct hv_slice *s, node_id to, const struct ic_msg *msg);
/* Tries queued messages again; true when some are left.  Any thread. */
bool hv_link_flush(struct hv_slice *s);
/* Handler of IC_PORT_HV. */
void hv_link_on_message(void *slice, node_id from, const struct ic_msg *msg);

/* time.c */
MUST_CHECK int hv_clock_init(struct hv_clock *c, node_id self);
/* The engine shows the host's TSC as it is.  Before the nodes join. */
void hv_clock_fix(struct hv_clock *c);
/* Nodes other than 0: asks node 0 until the offset is known well enough. */
MUST_CHECK int hv_clock_join(struct hv_slice *s, char text[static HV_TEXT_MAX]);
void hv_clock_on_message(struct hv_slice *s, node_id from, const struct hv_msg *msg);
uint64_t hv_clock_guest_tsc(const struct hv_clock *c);
/* clock_now_ns of a guest TSC value to come; HV_NEVER when far away. */
uint64_t hv_clock_ns_of(const struct hv_clock *c, uint64_t guest_tsc);

/* timer.c */
MUST_CHECK int hv_timer_start(struct hv_slice *s);
void hv_timer_stop(struct hv_slice *s);
/* cpu->deadline_ns got this value. */
void hv_timer_armed(struct hv_slice *s, uint64_t deadline_ns);

/* vcpu.c */
MUST_CHECK int hv_cpu_open(struct hv_slice *s, unsigned id, struct hv_cpu **out);
/* Its first state, and its thread, parked until RUN.  regs: of the boot processor, else NULL.  The clock is known. */
MUST_CHECK int hv_cpu_start(struct hv_cpu *c, const struct hv_boot_regs *regs);
void hv_cpu_close(struct hv_cpu *c); /* joins the thread; the slice is ending */
void hv_cpu_post(struct hv_cpu *c,
		 const struct hv_msg *ipi); /* HV_MSG_IPI, for this vCPU.  Any thread. */
void hv_cpu_kick(struct hv_cpu *c);         /* Any thread. */
/* What was posted.  False: nothing.  Its thread. */
bool hv_cpu_mail_take(struct hv_cpu *c, struct hv_mail *out);
/* Until something is posted, or `until_ns`.  Its thread. */
void hv_cpu_wait(struct hv_cpu *c, uint64_t until_ns);
/* Makes the engine's vCPU, the first time.  Its thread, or the one that starts the slice. */
MUST_CHECK int hv_cpu_engine_open(struct hv_cpu *c);
/* Performs what a step of its LAPIC wants.  Its thread. */
void hv_cpu_effects(struct hv_cpu *c, const struct hv_lapic_effects *fx);

/* exits.c: its thread.  False: the vCPU must stop for good. */
bool hv_exit_handle(struct hv_cpu *c, struct hv_exit *exit);

/* move.c */
MUST_CHECK int hv_move_open(struct hv_slice *s);
void hv_move_close(struct hv_slice *s);
/* True: this vCPU's thread has something to do other than to run the guest. */
static inline bool hv_move_due(const struct hv_cpu *c)
{
	return c->slice->mig && mig_task(c->slice->mig, c->id) != MIG_RUN;
}
/* Does it; blocks while the vCPU is elsewhere.  True: run the guest once more first.  Its thread. */
bool hv_move_attend(struct hv_cpu *c);
/* Its first guest instruction here is next.  Its thread. */
void hv_move_resumed(struct hv_cpu *c);
/* True when this node runs it. */
static inline bool hv_cpu_here(const struct hv_cpu *c)
{
	return !c->slice->mig || mig_task(c->slice->mig, c->id) < MIG_INSTALL;
}
node_id hv_move_where(struct hv_slice *s, unsigned vcpu);
/* Any node's slice.  Orders with HV_ORDER_OWN are the slice's own; others are answered by sink.moved. */
#define HV_ORDER_OWN (1ull << 55)
#define HV_ORDER_DRAIN (1ull << 54) /* drain.c's */
void hv_move_order(struct hv_slice *s, unsigned vcpu, node_id to, uint64_t order);
/* io thread: tells outcomes; says again what was not answered.  True: come back within HV_MOVE_TICK_NS. */
bool hv_move_serve(struct hv_slice *s);
#define HV_MOVE_TICK_NS (50 * NS_PER_MS)

/* balance.c */
MUST_CHECK int hv_balance_open(struct hv_slice *s);
void hv_balance_close(struct hv_slice *s); /* joins the thread; the slice is ending */
MUST_CHECK int hv_balance_start(struct hv_slice *s);
void hv_balance_on_message(struct hv_slice *s, node_id from, const struct hv_msg *msg);
/* Node 0: from now on.  Any thread. */
void hv_balance_mode(struct hv_slice *s, enum cc_placement mode);
/* An order with HV_ORDER_OWN has ended.  io thread. */
void hv_balance_moved(struct hv_slice *s, const struct mig_outcome *o);

/* drain.c: CC_ORDER_DRAIN and _JOIN at node 0; answered later, or false and why at once.  One thread at a time, does not block. */
bool hv_drain_order(struct hv_slice *s, const struct cc_order *o, const char **why);
void hv_drain_close(struct hv_slice *s); /* joins the thread; the slice is ending */
void hv_drain_on_message(struct hv_slice *s, node_id from, const struct hv_msg *m);
/* An order with HV_ORDER_DRAIN has ended.  io thread. */
void hv_drain_moved(const struct mig_outcome *o);

/* irq.c */
void hv_irq_send(struct hv_slice *s, const struct hv_intr *i); /* any thread */
void hv_irq_on_ipi(struct hv_slice *s, const struct hv_msg *msg);
void hv_irq_addr_changed(struct hv_slice *s, unsigned vcpu, const struct hv_lapic_addr *addr, uint32_t seq);
void hv_irq_addr_learn(struct hv_slice *s, unsigned vcpu, const struct hv_lapic_addr *addr, uint32_t seq);
void hv_irq_pulse(struct hv_slice *s, unsigned gsi); /* any thread */
void hv_irq_eoi(struct hv_slice *s, uint8_t vector); /* any thread */

/* bus.c */
void hv_bus_init(struct hv_slice *s);
void hv_bus_fini(struct hv_slice *s);
void hv_bus_add(struct hv_slice *s, enum hv_io_space space, uint64_t first, uint64_t count,
		node_id node, struct hv_device *device);
/* One access of a vCPU.  Read: *data is the answer.  -EPIPE: the VM is ending.  The vCPU's thread; may block. */
MUST_CHECK int hv_bus_access(struct hv_cpu *c, enum hv_io_space space, uint64_t addr, unsigned size,
			     bool write, uint64_t *data);
void hv_bus_on_message(struct hv_slice *s, node_id from, const struct hv_msg *msg);
void hv_bus_serve(struct hv_slice *s); /* io thread: requests of peers that found a device busy */
void hv_device_init(struct hv_device *d, struct hv_slice *s, const struct hv_device_ops *ops);

/* board.c */
void hv_board_init(struct hv_slice *s);
void hv_board_input(struct hv_slice *s); /* io thread: console input to the serial port */

/* io.c */
MUST_CHECK int hv_io_start(struct hv_slice *s);
void hv_io_stop(struct hv_slice *s); /* the slice is ending */
void hv_io_wake(struct hv_slice *s); /* any thread */

/* console.c */
void hv_console_init(struct hv_console *c);
/* Bytes that fitted. */
size_t hv_console_put(struct hv_slice *s, const uint8_t *data, size_t len);
size_t hv_console_room(struct hv_slice *s);
void hv_console_type(struct hv_slice *s, const uint8_t *data, size_t len);
/* Input that waits: up to cap bytes, left in the ring until hv_console_taken. */
size_t hv_console_peek(struct hv_slice *s, uint8_t *buf, size_t cap);
void hv_console_taken(struct hv_slice *s, size_t len);
void hv_console_flush(struct hv_slice *s); /* io thread: output to the sink */

/* virtio_mmio.c */
MUST_CHECK int hv_virtio_open(struct hv_slice *s, const struct cc_device *spec, unsigned slot,
			      struct hv_virtio_dev **out);
void hv_virtio_close(struct hv_virtio_dev *d);
void hv_virtio_serve(struct hv_virtio_dev *d); /* io thread */
/* Serve is due. Any thread. */
void hv_virtio_work(struct hv_virtio_dev *d);
/* True when a console device of this node has a driver that takes input. */
bool hv_virtio_console_up(struct hv_slice *s);

/* loader.c */
struct hv_loader {
	struct hv_bytes kernel, elf, initrd;
	uint8_t *acpi;
	size_t acpi_len;
	char *cmdline;
	struct hv_boot_input input;
	struct hv_boot_plan plan;
};
MUST_CHECK int hv_loader_open(struct hv_slice *s, struct hv_loader **out,
			      char text[static HV_TEXT_MAX]);
MUST_CHECK int hv_loader_write(struct hv_slice *s, const struct hv_loader *l,
			       char text[static HV_TEXT_MAX]);
void hv_loader_close(struct hv_loader *l);

/* dump.c: registers and the instructions at rip, in lines; malloc'd, NULL without memory.  The vCPU's thread. */
char *hv_dump(struct hv_cpu *c);

#endif
