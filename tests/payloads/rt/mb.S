/* SPDX-License-Identifier: Apache-2.0 */
/* rt/mb.S - multiboot 1 header and entry (Multiboot Specification 0.6.96, sections 3.1 and 3.2). */
#define FLAGS 3 /* modules on page boundaries, memory information wanted */

	.section .header, "a"
	.balign 4
	.long 0x1badb002, FLAGS, -(0x1badb002 + FLAGS)

	.text
	.code32
	.global _start
_start:
	cli
	cld
	mov %eax, %edi /* 0x2badb002 */
	mov %ebx, %esi /* struct multiboot_info */
	jmp start32

	.section .note.GNU-stack, "", @progbits
