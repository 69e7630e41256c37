# SPDX-License-Identifier: Apache-2.0
#
# tests/payloads/build.mk - bare-metal guests: build/payloads/NAME.elf (multiboot 1, ELF32) and NAME.pvh (ELF64).
# `make payloads` builds them; `make payloads-qemu` runs them under QEMU, the reference for our engines.

PAYLOAD_OUT := build/payloads
PAYLOAD_NAMES := $(patsubst tests/payloads/%.c,%,$(wildcard tests/payloads/*.c))
PAYLOAD_RT_OBJS := $(patsubst %,$(PAYLOAD_OUT)/rt/%.o,boot.S private.S modes.S regs.S rt.c acpi.c cpus.c)
PAYLOAD_RT := $(PAYLOAD_OUT)/rt/rt.a
PAYLOAD_CFLAGS := -std=gnu11 -O2 -g $(WARN) -m64 -Wno-unused-parameter -ffreestanding -fno-strict-aliasing \
	-fno-pic -fno-stack-protector -mno-red-zone -mgeneral-regs-only -mcx16 -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns \
	-fcf-protection=none -Itests/payloads
PAYLOAD_LINK = $(CC) -m64 -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack \
	-Wl,--no-warn-rwx-segments -Wl,-T,tests/payloads/payload.ld

$(PAYLOAD_OUT)/%.S.o: tests/payloads/%.S tests/payloads/rt/layout.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(PAYLOAD_CFLAGS) -c $< -o $@

$(PAYLOAD_OUT)/%.c.o: tests/payloads/%.c tests/payloads/rt/rt.h tests/payloads/rt/layout.h
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $< (guest)")
	$(Q)$(CC) $(PAYLOAD_CFLAGS) -c $< -o $@

# An archive: a payload gets only what it uses.
$(PAYLOAD_RT): $(PAYLOAD_RT_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(PAYLOAD_OUT)/%.pvh: $(PAYLOAD_OUT)/rt/pvh.S.o $(PAYLOAD_OUT)/%.c.o $(PAYLOAD_RT) tests/payloads/payload.ld
	$(Q)$(PAYLOAD_LINK) -o $@ $(filter %.o %.a,$^)

# Multiboot loaders want ELF32, also around 64-bit code.
$(PAYLOAD_OUT)/%.elf: $(PAYLOAD_OUT)/rt/mb.S.o $(PAYLOAD_OUT)/%.c.o $(PAYLOAD_RT) tests/payloads/payload.ld
	$(Q)$(PAYLOAD_LINK) -o $@.64 $(filter %.o %.a,$^)
	$(Q)objcopy -I elf64-x86-64 -O elf32-i386 --strip-debug $@.64 $@

PAYLOADS := $(foreach p,$(PAYLOAD_NAMES),$(PAYLOAD_OUT)/$(p).elf $(PAYLOAD_OUT)/$(p).pvh)
.PHONY: payloads payloads-qemu
payloads: $(PAYLOADS)
payloads-qemu: $(PAYLOADS)
	$(Q)$(TALLY) $@ 600 tests/payloads/qemu.sh $(PAYLOAD_OUT)
