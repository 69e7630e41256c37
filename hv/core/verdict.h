/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hv/core/verdict.h - which CPU engine and fault path a VM gets on this host, and why.
 *
 * What      A pure function of what was tried.  The kvm engine comes first where it is sound: guests whose vCPUs share
 *           page tables may span nodes only where a nested page walk is a read (docs/limits.md).  bt is for the rest.
 * Threads   None.
 */
#ifndef HV_CORE_VERDICT_H
#define HV_CORE_VERDICT_H

#include "base/types.h"

/* What kind of VM is asked about. */
enum hv_span {
	HV_SPAN_ONE,	 /* all of it on this host */
	HV_SPAN_SEVERAL, /* on several hosts */
	HV_SPAN_PRIVATE, /* on several hosts, and no two vCPUs share page tables */
	HV_SPANS
};

enum hv_engine_kind { HV_ENGINE_NONE, HV_ENGINE_BT, HV_ENGINE_KVM };
enum hv_fault_path { HV_FAULTS_NONE, HV_FAULTS_INLINE, HV_FAULTS_DISPATCH };

/* What kept the kvm engine from being chosen; `unum run --engine kvm` has an exit status for each. */
enum hv_refusal {
	HV_REFUSAL_NONE,
	HV_REFUSAL_CPU,		  /* the processor lacks what the guest's CPU model has */
	HV_REFUSAL_NO_DEVICE,	  /* no /dev/kvm */
	HV_REFUSAL_NO_PERMISSION, /* /dev/kvm may not be opened */
	HV_REFUSAL_BUSY,	  /* somebody else holds what there is only once */
	HV_REFUSAL_TOO_OLD,	  /* KVM lacks something the engine needs */
	HV_REFUSAL_UNSOUND,	  /* it would run, and go wrong: page tables shared between nodes */
	HV_REFUSAL_SLOW,	  /* it would run, slower than bt: only taken when it is asked for */
	HV_REFUSAL_NO_RIGHTS,	  /* no way to see page faults: userfaultfd or tracing is not allowed */
	HV_REFUSALS
};

/* One thing that was tried.  Texts are borrowed, "" for none. */
struct hv_tried {
	bool ok;
	const char *why, *fix;
};

struct hv_host_can {
	struct hv_tried cpu; /* runs the guest's CPU model: x86-64-v2 */
	struct hv_tried bt;
	struct hv_tried kvm;
	enum hv_refusal kvm_refusal; /* when kvm is not ok: DEVICE .. TOO_OLD */
	bool kvm_slow;		     /* a software back end emulates what bt translates */
	struct hv_tried shared;	     /* KVM: vCPUs of several nodes may share page tables */
	struct hv_tried inline_faults, dispatch_faults;
};

struct hv_verdict {
	enum hv_engine_kind engine; /* what it gets when it does not say */
	bool kvm;		    /* it may have kvm when it says so */
	enum hv_fault_path faults;  /* if kvm */
	enum hv_refusal refusal;    /* why `engine` is not kvm */
	const char *why, *fix;	    /* the same in words, else "" */
};

const char *hv_engine_kind_name(enum hv_engine_kind engine);
const char *hv_fault_path_name(enum hv_fault_path path);
/* A word for programs; "" for NONE. */
const char *hv_refusal_name(enum hv_refusal refusal);

struct hv_verdict hv_verdict_make(const struct hv_host_can *can, enum hv_span span);

#endif
