/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.S - boot sector and loader of the emulated Intel host's disk.
 *
 * What      Reads the pieces of a flat Linux kernel from the first ATA disk to where they belong in memory and enters the
 *           kernel in 64-bit mode with the boot_params that disk.py made (Documentation/arch/x86/boot.rst, 64-bit protocol).
 * Why       The stock bzImage would unpack itself: a minute of an emulated CPU. The kernel's bytes are the same.
 * Layout    512 bytes of code; the sector after it is the table, entries of { u32 lba, u32 sectors, u64 address },
 *           ended by zero sectors with the kernel's entry as address. Page tables at 0x1000, boot_params at BOOT_PARAMS, identity map of 4 GiB.
 * Limits    ATA PIO with 28-bit addresses; the CPU must have 1 GiB pages. No error is handled but by standing still.
 */
#define BOOT_PARAMS 0x90000
#define TABLE 0x7e00
#define DATA 0x1f0
#define STATUS 0x1f7

	.code16
	.globl start
start:
	cli
	cld
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp
	/* The table, by the BIOS: one sector at LBA 1. */
	mov $packet, %si
	mov $0x42, %ah
	int $0x13
1:	jc 1b
	cli
	in $0x92, %al	/* A20 */
	or $2, %al
	and $0xfe, %al
	out %al, $0x92

	mov $0x1000, %di
	mov $0x1000, %cx
	xor %ax, %ax
	rep stosw
	movl $0x2003, 0x1000
	movl $0x00000083, 0x2000
	movl $0x40000083, 0x2008
	movl $0x80000083, 0x2010
	movl $0xc0000083, 0x2018

	mov $0x20, %eax		/* PAE */
	mov %eax, %cr4
	mov $0x1000, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or $0x100, %eax
	wrmsr
	lgdt gdt_ptr
	mov %cr0, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	ljmp $0x10, $long_mode

	.code64
long_mode:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $TABLE, %ebx
piece:
	mov (%rbx), %ebp	/* LBA */
	mov 4(%rbx), %r8d	/* sectors left */
	mov 8(%rbx), %rdi
	add $16, %ebx
	test %r8d, %r8d
	jz enter
command:
	mov $256, %r9d
	cmp %r9d, %r8d
	cmovb %r8d, %r9d
	sub %r9d, %r8d
	mov $0x1f2, %edx
	mov %r9d, %eax
	out %al, %dx		/* 0 means 256 */
	mov %ebp, %eax
	inc %edx
	out %al, %dx
	shr $8, %eax
	inc %edx
	out %al, %dx
	shr $8, %eax
	inc %edx
	out %al, %dx
	mov %ah, %al
	or $0xe0, %al
	inc %edx
	out %al, %dx
	mov $0x20, %al		/* READ SECTORS */
	inc %edx
	out %al, %dx
	add %r9d, %ebp
sector:
	mov $STATUS, %edx
2:	in %dx, %al
	and $0x88, %al		/* BSY clear, DRQ set */
	cmp $0x08, %al
	jne 2b
	mov $DATA, %edx
	mov $256, %ecx
	rep insw
	dec %r9d
	jnz sector
	test %r8d, %r8d
	jnz command
	jmp piece
enter:
	mov $BOOT_PARAMS, %esi
	jmp *%rdi

	.balign 8
gdt:	.quad 0, 0
	.quad 0x00af9b000000ffff	/* 0x10: __BOOT_CS */
	.quad 0x00cf93000000ffff	/* 0x18: __BOOT_DS */
gdt_ptr:
	.word . - gdt - 1
	.long gdt
packet:
	.byte 16, 0
	.word 1
	.word TABLE, 0
	.quad 1
	.org 510
	.word 0xaa55
