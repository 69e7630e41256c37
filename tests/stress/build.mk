# SPDX-License-Identifier: Apache-2.0
#
# tests/stress/build.mk - unum-stress: one memory over several processes, under everything at once.  `make stress` runs it
# on every transport, `make stress-region` a guest larger than its nodes; `make stress-proof` shows that it notices a memory that is wrong.

STRESS_SRCS := tests/stress/stress_main.c tests/stress/stress_options.c tests/stress/stress_node.c tests/stress/stress_ops.c \
	tests/stress/stress_bound.c tests/stress/nodes.c
$(call test_prog,bin/unum-stress,$(STRESS_SRCS),)

# The guest: tests/payloads has the rules; what they define is not known yet where prerequisites are read.
STRESS_GUEST := $(B)/tests/stress/region.elf
$(B)/tests/stress/region.o: tests/stress/region.c tests/payloads/rt/rt.h
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $< (guest)")
	$(Q)$(CC) $(PAYLOAD_CFLAGS) -c $< -o $@
$(STRESS_GUEST): $(B)/tests/stress/region.o build/payloads/rt/mb.S.o build/payloads/rt/rt.a tests/payloads/payload.ld
	$(Q)$(PAYLOAD_LINK) -o $@.64 $(filter %.o %.a,$^)
	$(Q)objcopy -I elf64-x86-64 -O elf32-i386 --strip-debug $@.64 $@

.PHONY: stress stress-region stress-proof
all: $(B)/bin/unum-stress
stress: $(B)/bin/unum-stress
	$(Q)$(TALLY) $@ 1200 tests/stress/run.sh $<
stress-region: all $(STRESS_GUEST)
	$(Q)B=$(B) $(TALLY) $@ 400 python3 -B tests/stress/region.py $(STRESS_GUEST)
stress-proof: $(B)/bin/unum-stress
	$(Q)CC="$(CC)" LDLIBS="$(LDLIBS)" $(TALLY) $@ 300 tests/stress/proof.sh stress $(B) $(call obj_of,$(STRESS_SRCS))

TEST_TARGETS += stress stress-region stress-proof
