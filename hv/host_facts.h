/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/host_facts.h - what this host can do for a VM, and how it is told (`unum-slice --host`).
 *
 * Threads   Any one at a time.  hv_host_facts_take tries KVM and measures the TSC: some tens of milliseconds, more in an
 *           emulated host.
 */
#ifndef HV_HOST_FACTS_H
#define HV_HOST_FACTS_H

#include "hv/core/verdict.h"
#include "hv/kvm/host.h"

#include <jansson.h>
#include <stdio.h>

#define HV_HOST_VERSION 1 /* of the JSON; keys are only ever added */
#define HV_NICS_MAX 16u
#define HV_RDMA_MAX 16u
#define HV_FINDINGS_MAX 32u

struct hv_nic {
	char name[32];
	unsigned mtu;
	int speed_mbit; /* -1: not told */
	bool up;
	char addresses[160]; /* like 10.77.0.1/24, as words */
};

/* A port of an RDMA device. */
struct hv_rdma_port {
	char device[32], interface[32]; /* interface: of RoCE; "" with InfiniBand */
	unsigned number, mtu;		/* mtu: bytes in an RDMA packet; 0: not told */
	bool ethernet, active;
	char state[16], rate[40];
	char address[48], network[64]; /* of the address that verbs takes; network "": it has none */
	struct kvm_verdict usable;
};

/* What joins this host to others. */
struct hv_host_fabric {
	char host[96]; /* the same text for processes that share memory and unix sockets */
	struct hv_nic nic[HV_NICS_MAX];
	unsigned nics;
	struct hv_rdma_port rdma[HV_RDMA_MAX];
	unsigned rdmas;
};

/* A backend that was tried. */
struct hv_backend {
	const char *name;
	struct kvm_verdict works;
	char offers[2048]; /* lines */
};
#define HV_BACKENDS_MAX 8u

struct hv_host_facts {
	char name[65], release[65]; /* of host and kernel */
	char cpu_vendor[13], cpu_model[49];
	char cpu_features[1024]; /* what a guest on kvm can be given beyond x86-64-v2; names of /proc/cpuinfo */
	unsigned cpus;
	struct kvm_verdict cpu, bt;
	struct kvm_host kvm;

	struct kvm_verdict userfaultfd, perf;
	int perf_paranoid; /* -99: not known */
	bool tracefs, cap_perfmon, cap_ptrace;

	uint64_t memory_kib, memory_free_kib, memlock_kib; /* memlock ~0: no limit */
	uint64_t huge_pages, huge_pages_free, huge_page_kib;
	char thp[16]; /* transparent huge pages: always, madvise, never */

	bool tsc_invariant;
	uint64_t tsc_khz;
	char clocksource[32];

	bool clock_synchronized;
	long clock_error_us, clock_estimate_us;

	struct hv_host_fabric fabric;
};

void hv_host_facts_take(struct hv_host_facts *out);
/* That part alone; `sys`: "/sys".  Opens an RDMA device that looks fine, for a moment. */
void hv_host_fabric_take(const char *sys, struct hv_host_fabric *out);
/* Opens every backend for a moment, which may take some seconds.  Count. */
unsigned hv_host_backends_try(const struct hv_host_fabric *f, struct hv_backend out[static HV_BACKENDS_MAX]);
/* The first line, without its newline; "" when it cannot be read.  0, -errno. */
int hv_host_line(const char *path, char *out, size_t size);
/* Borrows from `f`. */
struct hv_host_can hv_host_can(const struct hv_host_facts *f);

enum hv_level { HV_LEVEL_OK, HV_LEVEL_NOTE, HV_LEVEL_PROBLEM };
struct hv_finding {
	enum hv_level level;
	const char *topic;
	char text[512], fix[KVM_HOST_TEXT]; /* fix "": none is known, or none is needed */
};
/* What people want to know of it, in words.  Count, at most HV_FINDINGS_MAX. */
unsigned hv_host_findings(const struct hv_host_facts *f, struct hv_finding out[static HV_FINDINGS_MAX]);

/* All of it, verdicts and findings too; `kernel` NULL or a kernel file that is looked at.  NULL: no memory. */
json_t *hv_host_json(const struct hv_host_facts *f, const char *kernel);
/* Only what joins it to others, with all backends tried. */
json_t *hv_host_fabric_json(void);

#endif
