/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/simvm/swap.S - void rt_swap(void **save, void *load): from one green thread's stack to another's.
 *
 * What      Callee-saved registers and the x87 and SSE state, which may be a guest's (hv/bt/cpu.h).  A thread that
 *           does not run has its state in 528 bytes at *save; the word at 512 is where its registers are pushed.
 */
	.text
	.globl	rt_swap
	.type	rt_swap, @function
rt_swap:
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rbp
	sub	$528, %rsp
	and	$-16, %rsp
	fxsave64 (%rsp)
	mov	%rbp, 512(%rsp)
	mov	%rsp, (%rdi)
	mov	%rsi, %rsp
	fxrstor64 (%rsp)
	mov	512(%rsp), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.size	rt_swap, . - rt_swap
	.section .note.GNU-stack, "", @progbits
