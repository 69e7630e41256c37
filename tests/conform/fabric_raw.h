/* SPDX-License-Identifier: Apache-2.0 */
/* tests/conform/fabric_raw.h - a stranger or a liar by hand: bytes on the stream of a fabric (fabric_raw_tcp.c). */
#ifndef TESTS_CONFORM_FABRIC_RAW_H
#define TESTS_CONFORM_FABRIC_RAW_H

#include "interconnect/core/hello.h"
#include "tests/conform/fabric_conform.h"

/* Nodes 0 and 1 of 3, and a round of messages between them. */
void raw_live_open(struct end e[2]);
void raw_live(struct end *e);
int raw_connect(const char *address);
/* *passed: a descriptor that came along, -1 none. */
void raw_read_record(struct end *e, int fd, struct ic_hello *out, int *passed);
/* Connects as node 2 and proves itself to node 0, up to ACCEPT. */
int raw_proven(struct end *e, uint32_t *epoch);

#endif
