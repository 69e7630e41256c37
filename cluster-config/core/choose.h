/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/core/choose.h - which engine a VM runs on, out of what its nodes can do.
 *
 * What      All nodes of a VM run the same engine, and its CPUs look the same on all of them.
 * Threads   None. Pure.
 */
#ifndef CC_CORE_CHOOSE_H
#define CC_CORE_CHOOSE_H

#include "cluster-config/control.h"

#define CC_FEATURES_MAX 1024u /* bytes of a list of CPU features, NUL included */

enum cc_span {
	CC_SPAN_ONE,     /* on one node */
	CC_SPAN_SEVERAL, /* on several */
	CC_SPAN_PRIVATE, /* on several, no two vCPUs share page tables */
	CC_SPANS
};

enum cc_host_engine { CC_HOST_NONE, CC_HOST_BT, CC_HOST_KVM };

/* What one host offers to a VM of one span.  Texts are never NULL. */
struct cc_offer {
	enum cc_host_engine engine; /* when the VM does not say */
	bool kvm;                   /* it may have kvm when it says so */
	const char *faults;         /* if kvm: "inline", "dispatch" */
	const char
		*refusal; /* why `engine` is not kvm, as a word (run.c has their exit statuses) */
	const char *why, *fix; /* the same for people, and a command that mends it, or "" */
};

/* One host, as it told us. */
struct cc_facts {
	const char *unknown; /* "": known; else why not, and nothing below holds */
	struct cc_offer offer[CC_SPANS];
	struct {
		bool ok;
		const char *why, *fix;
	} inline_faults, dispatch_faults;
	const char *features; /* words */
	uint64_t tsc_khz;
	bool private_tables; /* of the kernel that was looked at */
};

struct cc_wish {
	enum cc_engine engine; /* AUTO or KVM */
	enum cc_faults faults;
	enum cc_span span;
};

struct cc_refusal {
	unsigned node; /* the first one that is in the way */
	const char *word, *why, *fix;
};

/* A fix is a command, or an option of `unum run`: that is a way round for who asked for kvm, and mends nothing. */
static inline bool cc_fix_mends(const char *fix)
{
	return *fix && *fix != '-';
}

/* Can this host give kvm for the wish?  False: *no says why not. */
bool cc_kvm_possible(const struct cc_wish *wish, const struct cc_facts *facts,
		     struct cc_refusal *no);
/* The engine for all `count` hosts: KVM; BT, with why not kvm in *no; AUTO: none can be had, and *no says why. */
enum cc_engine cc_engine_choose(const struct cc_wish *wish, const struct cc_facts *const *facts,
				unsigned count, struct cc_refusal *no);

/* Words that are in all lists, in the order of the first; a space between two. */
void cc_words_common(const char *const *list, unsigned count, char out[static CC_FEATURES_MAX]);
/* Words of `a` that are not in `b`. */
void cc_words_less(const char *a, const char *b, char out[static CC_FEATURES_MAX]);

#endif
