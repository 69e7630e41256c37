/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/private.S - each processor has page tables of its own, and the mark in the ELF file that promises it.
 *
 * What      Comes from the archive unless the payload says SHARED_PAGE_TABLES. The mark is an ELF note of owner "unum",
 *           type 1, with a 4-byte descriptor of 1: no two processors share page tables, so a monitor may run them on
 *           several hosts whose KVM learns of page-table changes only from its own processors.
 */
#include "rt/layout.h"

	.section .note.unum, "a", @note
	.balign 4
	.long 5, 4, 1 /* lengths of name and descriptor, type */
	.asciz "unum"
	.balign 4
	.long 1

	.section .rodata
	.balign 4
	.global page_tables_stride
page_tables_stride:
	.long TABLES_SIZE

	.section .note.GNU-stack, "", @progbits
