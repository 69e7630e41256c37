/* SPDX-License-Identifier: Apache-2.0 */
/* rt/layout.h - numbers that assembly and C share. */
#ifndef RT_LAYOUT_H
#define RT_LAYOUT_H

#define CPUS_MAX 32
#define STACK_SHIFT 14
#define STACK_SIZE (1 << STACK_SHIFT)
#define AP_BASE 0x8000 /* real-mode start page of other processors; SIPI vector is this >> 12 */

/* struct page_tables: a PML4, a PDPT, four page directories */
#define TABLES_PDPT 0x1000
#define TABLES_PD 0x2000
#define TABLES_SIZE 0x6000

#define REAL_BASE 0x7000 /* page for real-mode tests */

#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_CODE32 0x18
#define SEL_CODE16 0x20
#define SEL_DATA16 0x28
#define SEL_USER32 0x30
#define SEL_USER_DATA 0x38
#define SEL_USER64 0x40
#define SEL_FREE 0x48
#define SEL_TSS 0x50 /* 16 bytes for each processor */
#define GDT_BYTES (SEL_TSS + 16 * CPUS_MAX)

#endif
