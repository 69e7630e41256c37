/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/modes.S - leaves long mode and comes back; goes to ring 3 and comes back.
 *
 * What      real_call: long -> protected without paging (segment tests) -> real (vectors, segments, strings) -> long.
 *           ring3_call, user routines, syscall entry. Results go to the words that modes.c declares.
 * Limits    One processor at a time. REAL_BASE and the real-mode vector table are written over.
 */
#include "rt/layout.h"

#define REAL(label) ((label) - real_code)
#define REAL_SEG (REAL_BASE >> 4)

	.text
	.code64
	.global real_call
real_call:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, real_rsp
	sidt real_idt
	pushq $SEL_CODE32
	pushq $1f
	lretq

	.code32
1:	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $0xc0000080, %ecx
	rdmsr
	and $~0x100, %eax
	wrmsr
	lidt pm_idt_pointer

	/* protected mode: a segment with base and limit */
	mov $SEL_FREE, %eax
	mov %eax, %es
	movl $0x5a5a1234, %es:4
	mov $2f, %edi
	movl $1, %es:16 /* one byte behind the limit */
	jmp 3f
2:	incl pm_limit_faults
3:	mov $4f, %edi
	ud2
	jmp 5f
4:	incl pm_ud_faults
5:	/* stack, far call, flags, decimal adjust: what long mode does not have */
	pushal
	popal
	mov $0x83, %eax
	sub $0x45, %al
	das
	mov %eax, pm_das
	mov $0x38, %eax
	add $0x45, %al
	daa
	mov %eax, pm_daa
	lcall $SEL_CODE32, $pm_far
	ljmp $SEL_CODE16, $REAL_BASE + REAL(real16)

pm_far:
	incl pm_far_calls
	lret

	.global pm_gp, pm_ud
pm_gp:	mov (%esp), %eax
	mov %eax, pm_gp_error
	add $4, %esp
pm_ud:	mov %edi, (%esp)
	iret

/* --- copied to REAL_BASE ------------------------------------------------------------------------------ */
	.code16
	.global real_code, real_code_end, real_int, real_div, real_words
real_code:
real16:
	mov $SEL_DATA16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov %cr0, %eax
	and $0xfe, %al
	mov %eax, %cr0
	ljmp $REAL_SEG, $REAL(1f)
1:	mov %cs, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov $0xff0, %sp
	lidtl REAL(real_ivt)

	mov $0x1111, %bx
	int $0x77
	xor %cx, %cx
	mov $5, %ax
	div %cl /* two bytes; the handler steps over it */

	/* es:di far from ds:si, 20-bit addresses: REAL_BASE + 0x800 */
	mov $REAL_SEG + 0x80, %ax
	mov %ax, %es
	mov $REAL(real_text), %si
	mov $0x10, %di
	mov $real_text_end - real_text, %cx
	cld
	rep movsb
	/* 32-bit operands and addresses in 16-bit code */
	mov $0x12345678, %eax
	mov $REAL(real_words), %esi
	mov %eax, 8(%esi)
	/* far call and return, loop, flags */
	lcall $REAL_SEG, $REAL(real_far)
	mov $7, %cx
	xor %ax, %ax
2:	add $3, %ax
	loop 2b
	mov %ax, REAL(real_words) + 4
	stc
	pushf
	popw %ax
	and $0x1, %ax
	mov %ax, REAL(real_words) + 6
	/* wrap of a 16-bit offset: 0xffff + 2 = 1 */
	mov $0xffff, %bx
	xor %ax, %ax
	mov %ax, %gs
	mov %gs:2(%bx), %al
	mov %ax, REAL(real_words) + 12

	lgdtl REAL(real_gdt)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $SEL_CODE32, $real_back

real_int:
	mov %bx, REAL(real_words)
	incw %cs:REAL(real_words) + 14
	iret
real_div:
	push %bp
	mov %sp, %bp
	addw $2, 2(%bp)
	pop %bp
	incw %cs:REAL(real_words) + 2
	iret
real_far:
	incw %cs:REAL(real_words) + 16
	lret

	.balign 4
real_ivt:
	.word 0x3ff
	.long 0
	.balign 4
real_gdt:
	.word GDT_BYTES - 1
	.long gdt
real_text:
	.ascii "real mode"
real_text_end:
	.balign 4
real_words: /* bx of int 0x77; divides; loop; carry; dword; wrap; ints; far calls */
	.fill 12, 2, 0
real_code_end:

	.code32
real_back:
	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov real_rsp, %esp
	call long_mode_on
	ljmp $SEL_CODE64, $1f
	.code64
1:	mov real_rsp, %rsp
	lidt real_idt
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* --- ring 3 ------------------------------------------------------------------------------------------- */
/* uint64_t ring3_call(uint64_t rip, uint64_t cs, uint64_t rsp): int 0x80 ends it, its eax is the answer. */
	.global ring3_call, ring3_back, ring3_rsp
ring3_call:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, ring3_rsp
	pushq $SEL_USER_DATA | 3
	push %rdx
	pushq $2 /* IF off, IOPL 0 */
	push %rsi
	push %rdi
	iretq
ring3_back:
	mov ring3_rsp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.global user_syscalls, syscall_entry, user_compat
/* 64-bit, ring 3: rbx syscalls of rax + 1 */
user_syscalls:
	xor %eax, %eax
	mov $100, %ebx
1:	xor %ecx, %ecx
	lea 2f(%rip), %rdx
	syscall
2:	cmp %rdx, %rcx /* SYSRET leaves the return address in rcx */
	jne 3f
	dec %ebx
	jnz 1b
	int $0x80
3:	mov $-1, %eax
	int $0x80
syscall_entry:
	inc %eax
	pushq %rcx
	popq %rcx
	sysretq

/* 32-bit code in ring 3 of long mode */
	.code32
user_compat:
	mov $0x7fffffff, %eax
	inc %eax /* one byte in 32-bit mode, a prefix in 64-bit mode */
	push %eax
	mov (%esp), %ecx
	pop %edx
	sub %edx, %ecx
	jnz 1f
	mov %cs, %ecx
	cmp $SEL_USER32 | 3, %ecx
	jne 1f
	int $0x80
1:	xor %eax, %eax
	int $0x80

	.data
	.balign 8
	.global pm_limit_faults, pm_ud_faults, pm_far_calls, pm_gp_error, pm_das, pm_daa, pm_idt_pointer, real_rsp
real_rsp: .quad 0
ring3_rsp: .quad 0
real_idt: .fill 10
	.balign 4
pm_limit_faults: .long 0
pm_ud_faults: .long 0
pm_far_calls: .long 0
pm_gp_error: .long 0
pm_das: .long 0
pm_daa: .long 0
	.word 0
pm_idt_pointer:
	.word 32 * 8 - 1
	.long pm_idt

	.section .note.GNU-stack, "", @progbits
