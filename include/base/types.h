/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/types.h - the words that every component uses.
 *
 * What      Page size, guest-physical addresses, node numbers.
 * Threads   None; constants and plain types only.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* guest-physical byte address */
typedef uint64_t gfn_t; /* guest-physical frame number: gpa >> PAGE_SHIFT */
typedef uint64_t gva_t; /* guest-virtual (linear) byte address */
typedef uint8_t node_id; /* index of a node within one VM, 0 .. NODES_MAX - 1 */

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_MASK (~(uint64_t)(PAGE_SIZE - 1))

#define NODES_MAX 128 /* nodes in one VM */
#define NODE_NONE ((node_id)0xff)
#define VCPUS_MAX 255 /* vCPUs in one VM; vCPU k has APIC id k */

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#endif
