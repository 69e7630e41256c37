/* SPDX-License-Identifier: Apache-2.0 */
/* rt/pvh.S - PVH note XEN_ELFNOTE_PHYS32_ENTRY and entry (x86/HVM direct boot ABI). */
	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, 18
	.asciz "Xen"
	.long _start

	.text
	.code32
	.global _start
_start:
	cli
	cld
	mov $0x336ec578, %edi /* start_info carries this magic itself; the C side checks it */
	mov %ebx, %esi	      /* struct hvm_start_info */
	jmp start32

	.section .note.GNU-stack, "", @progbits
