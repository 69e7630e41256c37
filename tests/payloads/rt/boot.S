/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt/boot.S - from flat 32-bit mode to long mode, the start of other processors, trap stubs.
 *
 * What      start32 (edi magic, esi information) and ap_start (real mode, copied to AP_BASE) end in C with the
 *           first 4 GiB mapped one to one by 2 MiB pages. Each processor's stack and page tables are found by its
 *           APIC id; it builds the tables itself, unless it shares them with the boot processor (rt/private.S).
 */
#include "rt/layout.h"

	.text
	.code32
	.global start32
start32:
	mov $cpu_stacks + STACK_SIZE, %esp
	mov $cpu_tables, %eax
	call tables_build
	mov %eax, %cr3
	call long_mode_on
	ljmp $SEL_CODE64, $start64

/* Fills the struct page_tables at eax, which is zero or was filled before. Clobbers ecx, edx. */
tables_build:
	lea TABLES_PDPT + 7(%eax), %edx
	mov %edx, (%eax)
	lea TABLES_PD + 7(%eax), %edx
	xor %ecx, %ecx
1:	mov %edx, TABLES_PDPT(%eax, %ecx, 8)
	add $0x1000, %edx
	inc %ecx
	cmp $4, %ecx
	jb 1b
	mov $0x87, %edx
	xor %ecx, %ecx
2:	mov %edx, TABLES_PD(%eax, %ecx, 8)
	add $0x200000, %edx
	inc %ecx
	cmp $2048, %ecx
	jb 2b
	ret

/* With the tables of cr3. Clobbers eax, ecx, edx. Leaves compatibility mode: the caller's far jump makes it 64-bit. */
	.global long_mode_on
long_mode_on:
	lgdt gdt_pointer
	mov %cr4, %eax
	or $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	mov %eax, %cr4
	mov $0xc0000080, %ecx
	rdmsr
	or $0x901, %eax /* SCE, LME, NXE */
	wrmsr
	mov %cr0, %eax
	and $0x9ffffff3, %eax /* not CD, NW, EM, TS */
	or $0x80010023, %eax  /* PG, WP, NE, MP, PE */
	mov %eax, %cr0
	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %eax, %fs
	mov %eax, %gs
	ret

	.code64
start64:
	mov %edi, %edi
	mov %esi, %esi
	xor %ebp, %ebp
	call boot_main
1:	hlt
	jmp 1b

/* --- other processors ---------------------------------------------------------------------------- */
	.code16
	.global ap_start, ap_end
ap_start:
	cli
	cld
	xor %ax, %ax
	mov %ax, %ds
	lgdtl ap_gdt_pointer - ap_start + AP_BASE
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $SEL_CODE32, $ap32
	.balign 4
ap_gdt_pointer:
	.word GDT_BYTES - 1
	.long gdt
ap_end:

	.code32
ap32:
	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov $1, %eax
	cpuid
	shr $24, %ebx
	mov %ebx, %edi
	mov %ebx, %esp
	inc %esp
	shl $STACK_SHIFT, %esp
	add $cpu_stacks, %esp
	mov %edi, %eax
	imul page_tables_stride, %eax
	add $cpu_tables, %eax
	cmp $cpu_tables, %eax
	je 1f /* the boot processor's, which are in use */
	call tables_build
1:	mov %eax, %cr3
	call long_mode_on
	ljmp $SEL_CODE64, $ap64
	.code64
ap64:
	xor %ebp, %ebp
	call ap_main
1:	hlt
	jmp 1b

/* --- traps: stub n pushes (error code,) vector and goes to trap_common --------------------------------- */
	.balign 16
	.global trap_stubs
trap_stubs:
	vector = 0
	.rept 256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	push $0
	.endif
	push $vector
	jmp trap_common
	vector = vector + 1
	.endr

trap_common:
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
	mov %rsp, %rdi
	mov %rsp, %rbx
	and $-16, %rsp
	cld
	call trap_dispatch
	mov %rbx, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

/* --- tables -------------------------------------------------------------------------------------- */
	.data
	.balign 16
	.global gdt, gdt_pointer
gdt:
	.quad 0
	.quad 0x00af9b000000ffff /* SEL_CODE64 */
	.quad 0x00cf93000000ffff /* SEL_DATA */
	.quad 0x00cf9b000000ffff /* SEL_CODE32 */
	.quad 0x00009b000000ffff /* SEL_CODE16 */
	.quad 0x000093000000ffff /* SEL_DATA16 */
	.quad 0x00cffb000000ffff /* SEL_USER32 */
	.quad 0x00cff3000000ffff /* SEL_USER_DATA */
	.quad 0x00affb000000ffff /* SEL_USER64 */
	.quad 0			 /* SEL_FREE: for payloads */
	.fill 2 * CPUS_MAX, 8, 0 /* SEL_TSS: one 16-byte TSS descriptor a processor */
	.balign 4
	.word 0
gdt_pointer:
	.word GDT_BYTES - 1
	.quad gdt

	.bss
	.balign STACK_SIZE
	.global cpu_stacks
cpu_stacks:
	.fill CPUS_MAX * STACK_SIZE
	.balign 4096
	.global cpu_tables
cpu_tables:
	.fill CPUS_MAX * TABLES_SIZE

	.section .note.GNU-stack, "", @progbits
