/* SPDX-License-Identifier: Apache-2.0 */
/* tests/conform/fabric_conform.h - the ends of fabrics under test and how the cases pump them. */
#ifndef TESTS_CONFORM_FABRIC_CONFORM_H
#define TESTS_CONFORM_FABRIC_CONFORM_H

#include "base/clock.h"
#include "interconnect/fabric.h"

#include <string.h>
#include <stdio.h>
#include <stdlib.h>

struct end {
	struct ic_fabric *f;
	node_id self;
	char address[IC_ADDR_MAX];
	unsigned ups, downs;
	bool is_up[NODES_MAX];
	uint32_t sent[NODES_MAX], got[NODES_MAX];
	/* When set, gets the messages instead of the check of the numbered ones. */
	void (*raw)(struct end *e, node_id from, const struct ic_msg *msg);
};

#define CHECK(cond)                                                                              \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #cond); \
			exit(1);                                                                 \
		}                                                                                \
	} while (0)

/* Pumps until cond holds; that it takes longer than `ns` fails the test. */
#define PUMP_FOR(e, count, cond, ns)                     \
	do {                                             \
		uint64_t until_ = clock_now_ns() + (ns); \
		do {                                     \
			pump_once(e, count);             \
			CHECK(clock_now_ns() < until_);  \
		} while (!(cond));                       \
	} while (0)

extern const char *backend_name, *backend_arg; /* without and with a device */
extern uint64_t chaos_seed; /* of the ends that are opened */
extern bool chaos_breaks;
extern unsigned dead_after_ms; /* the same, 0: as it is by default */
/* A case that cannot run here says why. */
extern const char *case_skip;
#define CASE_SKIPPED 77 /* the same as an exit status */
void end_open(struct end *e, node_id self, unsigned nodes, uint8_t key, uint64_t vm);
void ends_open(struct end *e, unsigned count); /* and joins them all */
void ends_join(struct end *e, unsigned count);
void ends_close(struct end *e, unsigned count);
bool pump_once(struct end *e, unsigned count);
int send_next(struct end *e, node_id to);

/* fabric_death.c */
int victim_main(int argc, char **argv);
void death_while_sending(void);
void death_while_receiving(void);
void death_while_connecting(void);
void standstill_while_connecting(void);
void closing_while_connecting(void);

/* fabric_bounds.c */
void slow_receiver_costs_bounded_memory(void);
void peers_64(void);
void descriptors_run_out(void);
void closing_under_load(void);

/* fabric_chaos.c */
void chaos_keeps_order_within_a_peer(void);
void chaos_wakes_who_waits(void);
void chaos_breaks_cleanly(void);

/* fabric_count.c */
void data_path_counts(void);

/* fabric_errors.c */
bool mock_present(void); /* the fake libibverbs is loaded */
void errors_of_sends(void);
void errors_of_receives(void);
void queue_pair_fails_in_silence(void);
void device_dies(void);
void completion_queue_overruns(void);
void queue_pairs_run_out(void);
void memory_cannot_be_registered(void);
void late_completions(void);

/* fabric_sleep.c */
void sleepers_are_woken(void);
void sleepers_beside_pollers(void);

/* fabric_vanish.c */
int vanish_main(void);
void host_vanishes(void);

/* fabric_raw_shm.c */
void shm_garbage_in_the_rings(void);

/* fabric_raw_tcp.c */
void tcp_garbage_handshakes(void);
void tcp_another_version(void);
void tcp_garbage_frames(void);
void tcp_silent_strangers(void);

/* what: NULL all, a name that one, "-A,B" all but these. */
static inline bool case_wanted(const char *what, const char *name)
{
	return !what || (*what == '-' ? !strstr(what, name) : !strcmp(what, name));
}

#endif
