/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/regs.S - for regs.c: a call with every general register set, and the pieces of code that are called so.
 *
 * What      regs_round(rdi: struct round, regs.c) loads r15 .. r8, rdi, rsi, rbp, rbx, rdx, rcx, rax and the flags from its
 *           first 128 bytes, calls what its offset 256 names, and stores them all in the next 128 bytes.
 */
#include "rt/layout.h"

	.text
	.global regs_round, body_pause, body_hlt, body_turn, body_copy, body_compare, body_locked, body_xmm, body_ymm
	.global body_bases, body_user, user_back, user_entry0, user_entry1, ymm_high_set, ymm_high_get

regs_round:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi
	pushq 256(%rdi)
	pushq 120(%rdi)
	popfq
	mov (%rdi), %r15
	mov 8(%rdi), %r14
	mov 16(%rdi), %r13
	mov 24(%rdi), %r12
	mov 32(%rdi), %r11
	mov 40(%rdi), %r10
	mov 48(%rdi), %r9
	mov 56(%rdi), %r8
	mov 72(%rdi), %rsi
	mov 80(%rdi), %rbp
	mov 88(%rdi), %rbx
	mov 96(%rdi), %rdx
	mov 104(%rdi), %rcx
	mov 112(%rdi), %rax
	mov 64(%rdi), %rdi
	call *(%rsp)
	pushfq
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rsi
	mov 136(%rsp), %rdi
	sub $-128, %rdi
	mov $16, %ecx
	rep movsq
	add $144, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* Loops count rcx down without touching flags. */
body_pause:
1:	jrcxz 2f
	pause
	lea -1(%rcx), %rcx
	jmp 1b
2:	ret
body_hlt:
1:	jrcxz 2f
	hlt
	lea -1(%rcx), %rcx
	jmp 1b
2:	ret
body_turn:
1:	jrcxz 2f
	jmp 3f
2:	ret
3:	.rept 2
	.irp r, rax, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	not %\r
	bswap %\r
	.endr
	xchg %rax, %rdx
	xchg %r8, %r15
	.endr
	lea -1(%rcx), %rcx
	jmp 1b
body_copy:
	rep movsb
	ret
body_compare:
	repe cmpsb
	ret
body_locked:
	pushfq
1:	jrcxz 2f
	lock addq $1, locked_all
	lock incq (%rsi)
	xchg %rdx, (%rdi)
	xchg %rdx, (%rdi)
	lea -1(%rcx), %rcx
	jmp 1b
2:	popfq
	ret
body_xmm:
1:	jrcxz 2f
	jmp 3f
2:	ret
3:	.rept 4
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	pshufd $0x39, %xmm\n, %xmm\n
	.endr
	.endr
	lea -1(%rcx), %rcx
	jmp 1b
body_ymm:
1:	jrcxz 2f
	jmp 3f
2:	ret
3:	.rept 4
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vpermilps $0x39, %ymm\n, %ymm\n
	.endr
	.endr
	lea -1(%rcx), %rcx
	jmp 1b
body_bases:
1:	jrcxz 2f
	mov %fs:0, %rax
	mov %gs:0, %rdx
	swapgs
	mov %gs:0, %rbx
	swapgs
	lea -1(%rcx), %rcx
	jmp 1b
2:	ret

/* Down to user mode by iretq, back by syscall; the stack stays where it is. */
body_user:
	pushq $SEL_USER_DATA + 3
	push %rsp
	pushfq
	pushq $SEL_USER64 + 3
	pushq $1f
	iretq
1:	jrcxz 2f
	pause
	lea -1(%rcx), %rcx
	jmp 1b
2:	syscall
user_back:
	ud2
user_entry0:
	lea 8(%rsp), %rsp
	push %r11
	popfq
	ret
user_entry1:
	lea 8(%rsp), %rsp
	push %r11
	popfq
	ret
ymm_high_set:
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vinsertf128 $1, 16 * \n(%rdi), %ymm\n, %ymm\n
	.endr
	ret
ymm_high_get:
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vextractf128 $1, %ymm\n, 16 * \n(%rdi)
	.endr
	ret

	.section .note.GNU-stack, "", @progbits
