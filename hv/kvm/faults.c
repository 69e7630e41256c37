/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/kvm/faults.c - which page was it?
 *
 * What      KVM_ADDRESS_EXIT: KVM_RUN fails with EFAULT and leaves KVM_EXIT_MEMORY_FAULT in kvm_run.  It says nothing
 *           about the direction: a page that is missing again in the very next run was wanted for writing.
 *           KVM_ADDRESS_PERF: every page fault of a guest that KVM handles passes the tracepoint kvm:kvm_page_fault.
 *           One to three records come with one EFAULT, of which the last names the page.  The ring is written backward
 *           and overwrites itself, so the newest record is always at its head, however many came before; the thread that
 *           reads is the one in whose KVM_RUN they were written.
 * Owns      The perf event of this thread and its ring.
 * Threads   The vCPU's own.
 * I/O       perf_event_open, tracefs (id and format of the tracepoint) when opened; none later.
 * Limits    With shadow paging the address is a linear one of the guest.
 * Sources   perf_event_open(2); Documentation/trace/events.rst on format files; Documentation/virt/kvm/api.rst, 5
 *           on KVM_EXIT_MEMORY_FAULT; arch/x86/include/asm/kvm_host.h on the error code.
 */
#include "hv/kvm/faults.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers are Linux 6.1's; from include/uapi/linux/kvm.h of 6.8. */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
struct memory_fault { /* kvm_run.memory_fault */
	uint64_t flags, gpa, size;
};

#define RING_BYTES PAGE_SIZE
#define ERROR_WRITE \
	2u /* page fault error code, SDM vol 3, 4.7; KVM makes EPT violations and NPF look the same */

struct field {
	unsigned offset, size;
};

struct kvm_faults {
	enum kvm_address from;
	const struct kvm_run *run;
	unsigned runs; /* KVM_ADDRESS_EXIT: since the page was taken last */
	gpa_t last;
	int fd; /* KVM_ADDRESS_PERF */
	struct perf_event_mmap_page *ring;
	uint64_t head;
	struct field address, error;
};

/* --- the tracepoint --------------------------------------------------------------------------------- */

static int event_file(const char *name, char *buf, size_t room)
{
	static const char *const dirs[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	char path[96];
	ssize_t n = -1;
	int fd, err = ENOENT;

	for (unsigned i = 0; i < ARRAY_LEN(dirs) && n < 0; i++) {
		snprintf(path, sizeof(path), "%s/events/kvm/kvm_page_fault/%s", dirs[i], name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			err = errno == ENOENT ? err : errno;
			continue;
		}
		n = read(fd, buf, room - 1);
		err = n < 0 ? errno : 0;
		close(fd);
	}
	if (n < 0)
		return -err;
	buf[n] = 0;
	return 0;
}

/* A line of the format file: "field:u64 fault_address;	offset:24;	size:8;	signed:0;". */
static bool field_parse(const char *format, const char *name, struct field *out)
{
	char want[40];
	const char *at;

	snprintf(want, sizeof(want), " %s;", name);
	at = strstr(format, want);
	return at &&
	       sscanf(at + strlen(want), " offset:%u; size:%u;", &out->offset, &out->size) == 2 &&
	       (out->size == 4 || out->size == 8) && out->offset < 256;
}

static int tracepoint_find(struct kvm_faults *f, uint64_t *id)
{
	char buf[2048];
	int err = event_file("id", buf, sizeof(buf));

	if (err)
		return err;
	*id = strtoull(buf, NULL, 10);
	err = event_file("format", buf, sizeof(buf));
	if (err)
		return err;
	if (!field_parse(buf, "fault_address", &f->address) ||
	    !field_parse(buf, "error_code", &f->error))
		return -EPROTO;
	return 0;
}

static int perf_open(struct kvm_faults *f)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_RAW,
		.write_backward = 1,
	};
	uint64_t id;
	int err = tracepoint_find(f, &id);
	void *ring;

	if (err)
		return err;
	attr.config = id;
	f->fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (f->fd < 0)
		return errno == EACCES ? -EPERM : -errno;
	/* Read-only means: nobody moves a tail, the kernel overwrites. */
	ring = mmap(NULL, PAGE_SIZE + RING_BYTES, PROT_READ, MAP_SHARED, f->fd, 0);
	if (ring == MAP_FAILED)
		return -ENOBUFS;
	f->ring = ring;
	return 0;
}

void kvm_faults_explain(int err, const char **why, const char **fix)
{
	static const struct {
		int err;
		const char *why, *fix;
	} texts[] = {
		{ -ENOENT, "tracefs or its event kvm:kvm_page_fault is not there",
		  "mount -t tracefs tracefs /sys/kernel/tracing" },
		{ -EACCES, "tracefs may not be read",
		  "mount -o remount,gid=$(getent group kvm | cut -d: -f3),mode=750 "
		  "/sys/kernel/tracing" },
		{ -EPERM, "perf_event_open is not allowed",
		  "CAP_PERFMON and sysctl -w kernel.perf_event_paranoid=2 (Debian's 3 keeps it to root)" },
		{ -ENOBUFS, "no locked memory for the ring of a perf event",
		  "ulimit -l unlimited, or a higher sysctl kernel.perf_event_mlock_kb" },
		{ -EPROTO, "event kvm:kvm_page_fault lacks fault_address or error_code", "" },
		{ -ENOSYS, "the kernel has no perf events", "a kernel with CONFIG_PERF_EVENTS" },
	};

	*why = "perf event kvm:kvm_page_fault cannot be opened";
	*fix = "";
	for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].err == err) {
			*why = texts[i].why;
			*fix = texts[i].fix;
		}
}

/* --- open, close ------------------------------------------------------------------------------------ */

int kvm_faults_open(enum kvm_address from, const struct kvm_run *run, struct kvm_faults **out)
{
	struct kvm_faults *f;
	int err = 0;

	if (from != KVM_ADDRESS_EXIT && from != KVM_ADDRESS_PERF)
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->from = from;
	f->run = run;
	f->fd = -1;
	f->last = ~(gpa_t)0;
	if (from == KVM_ADDRESS_PERF)
		err = perf_open(f);
	if (err) {
		kvm_faults_close(f);
		return err;
	}
	*out = f;
	return 0;
}

void kvm_faults_close(struct kvm_faults *f)
{
	if (!f)
		return;
	if (f->ring)
		munmap(f->ring, PAGE_SIZE + RING_BYTES);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

/* --- around KVM_RUN --------------------------------------------------------------------------------- */

static uint64_t ring_head(const struct kvm_faults *f)
{
	/* The producer is this thread, inside the kernel: only the compiler has to be kept from caching. */
	return *(volatile __u64 *)&f->ring->data_head;
}

void kvm_faults_clear(struct kvm_faults *f)
{
	f->runs++;
	if (f->ring)
		f->head = ring_head(f);
}

static void ring_read(const struct kvm_faults *f, uint64_t at, void *to, size_t len)
{
	const uint8_t *data = (const uint8_t *)f->ring + PAGE_SIZE;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = data[(at + i) % RING_BYTES];
}

static uint64_t field_read(const struct kvm_faults *f, uint64_t raw, struct field field)
{
	uint64_t value = 0;

	ring_read(f, raw + field.offset, &value,
		  field.size); /* little endian, like all hosts of this engine */
	return value;
}

/* The newest record is at the head; older ones follow. */
static int perf_take(struct kvm_faults *f, gpa_t *gpa, bool *write)
{
	uint64_t head = ring_head(f);
	struct {
		struct perf_event_header header;
		uint32_t raw_bytes;
	} __attribute__((packed)) record;

	for (uint64_t at = head; at != f->head && at - head < RING_BYTES;
	     at += record.header.size) {
		ring_read(f, at, &record, sizeof(record));
		if (record.header.size < sizeof(record))
			break;
		if (record.header.type != PERF_RECORD_SAMPLE)
			continue;
		if (record.raw_bytes < f->address.offset + f->address.size ||
		    record.raw_bytes < f->error.offset + f->error.size)
			break;
		*gpa = field_read(f, at + sizeof(record), f->address) & PAGE_MASK;
		*write = field_read(f, at + sizeof(record), f->error) & ERROR_WRITE;
		f->head = head;
		return 0;
	}
	f->head = head;
	return -ENODATA;
}

static int exit_take(struct kvm_faults *f, gpa_t *gpa, bool *write)
{
	struct memory_fault fault;

	if (f->run->exit_reason != KVM_EXIT_MEMORY_FAULT)
		return -ENODATA;
	memcpy(&fault, f->run->padding,
	       sizeof(fault)); /* the union of exits, whatever its headers know */
	*gpa = fault.gpa & PAGE_MASK;
	*write = *gpa == f->last && f->runs == 1;
	f->last = *gpa;
	f->runs = 0;
	return 0;
}

int kvm_faults_take(struct kvm_faults *f, gpa_t *gpa, bool *write)
{
	return f->ring ? perf_take(f, gpa, write) : exit_take(f, gpa, write);
}
