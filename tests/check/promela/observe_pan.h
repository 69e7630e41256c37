/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/check/promela/observe_pan.h - a state of protocol.pml as struct observed; included into spin's verifier.
 *
 * I/O       At exit the states go to the file that the environment names in OBSERVE.
 * Threads   One.
 */
#include "tests/check/observe.h"

#include <stdlib.h>
#include <string.h>

static struct observed_set *observed_all;

static void observed_at_exit(void)
{
	const char *path = getenv("OBSERVE");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (!f || (observed_write(observed_all, f), fclose(f))) {
		perror("OBSERVE");
		_Exit(2);
	}
}

static void observed_seen(const struct observed *o)
{
	if (!observed_all) {
		observed_all = observed_open();
		atexit(observed_at_exit);
	}
	observed_add(observed_all, o);
}

/* A macro, because the type of spin's state vector is declared after this. */
#define OBSERVE_NODE(o, s) \
	do { \
		(o)->right = (s).right; \
		(o)->mapped = (s).mapped; \
		(o)->target = (s).target; \
		(o)->unmapping = (s).unmapping; \
		(o)->own = (s).right ? (s).own : 0; \
		(o)->fresh = (s).fresh; \
		(o)->waiting = (s).waiting; \
		(o)->want = (s).want; \
		(o)->next = (s).next; \
		(o)->granted = (s).granted; \
		(o)->need = (s).need; \
		(o)->got = (s).got; \
		(o)->from = (s).from; \
		(o)->evict = (s).evict; \
		(o)->revoke = (s).revoke; \
		(o)->cause = (s).cause; \
		(o)->to = (s).to; \
		(o)->acks = (s).acks; \
		(o)->bytes = (s).bytes; \
	} while (0)

#define OBSERVE_STATE(now) \
	do { \
		const unsigned count_ = sizeof((now).nd) / sizeof((now).nd[0]); \
		struct observed o_ = { .nodes = (uint8_t)count_, .ever = (now).ever, .written = (now).written, \
				       .owner = (now).owner, .mig = (now).mig, .copies = (now).copies, \
				       .waits = (now).qlen }; \
		for (unsigned n_ = 0; n_ < count_; n_++) \
			OBSERVE_NODE(&o_.node[n_], (now).nd[n_]); \
		for (unsigned i_ = 0; i_ < (now).qlen; i_++) \
			o_.wait[i_] = (struct observed_wait){ (now).qnode[i_], (now).qkind[i_], (now).qcopy[i_] }; \
		for (unsigned l_ = 0; l_ < count_ * count_; l_++) { \
			o_.used[l_ / count_][l_ % count_] = (now).link[l_].used; \
			for (unsigned i_ = 0; i_ < (now).link[l_].used; i_++) { \
				short m_ = (now).link[l_].m[i_]; \
				o_.link[l_ / count_][l_ % count_][i_] = (struct observed_msg){ \
					m_ & 15, m_ >> 4 & 3, m_ >> 6 & 3, m_ >> 8 & 3, m_ >> 10 & 3, m_ >> 12 & 1, \
					m_ >> 13 & 1 }; \
			} \
		} \
		observed_seen(&o_); \
	} while (0)
