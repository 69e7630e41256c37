# SPDX-License-Identifier: Apache-2.0
#
# tests/litmus/build.mk - `make litmus [LITMUS_SECONDS=60 LITMUS_ROUNDS=100]`: x86-TSO litmus tests across nodes, by native threads
# and in guests; `make litmus-proof` shows that it can see a forbidden outcome.

LITMUS_SECONDS ?= 6
LITMUS_ROUNDS ?= 16
LITMUS := $(B)/tests/litmus/litmus
LITMUS_SRCS := tests/litmus/litmus_main.c tests/litmus/litmus_parse.c tests/litmus/litmus_model.c \
	tests/litmus/litmus_code.c tests/litmus/litmus_run.c tests/stress/nodes.c
$(call test_prog,tests/litmus/litmus,$(LITMUS_SRCS),)

# The guest: tests/payloads has the rules; what they define is not known yet where prerequisites are read.
LITMUS_GUEST := $(B)/tests/litmus/guest
$(LITMUS_GUEST)/litmus_tests.h: tests/litmus/tests.txt $(LITMUS)
	@mkdir -p $(@D)
	$(Q)$(LITMUS) --tests $< --emit >$@
$(LITMUS_GUEST)/litmus.o: tests/litmus/guest.c $(LITMUS_GUEST)/litmus_tests.h tests/payloads/rt/rt.h
	$(if $(Q),@echo "  CC    $< (guest)")
	$(Q)$(CC) $(PAYLOAD_CFLAGS) -I$(@D) -c $< -o $@
$(LITMUS_GUEST)/litmus.elf: $(LITMUS_GUEST)/litmus.o build/payloads/rt/mb.S.o build/payloads/rt/rt.a tests/payloads/payload.ld
	$(Q)$(PAYLOAD_LINK) -o $@.64 $(filter %.o %.a,$^)
	$(Q)objcopy -I elf64-x86-64 -O elf32-i386 --strip-debug $@.64 $@

.PHONY: litmus litmus-proof
litmus: all $(LITMUS) $(LITMUS_GUEST)/litmus.elf
	$(Q)$(TALLY) $@ 900 tests/litmus/run.sh $(B) $(LITMUS_SECONDS) $(LITMUS_ROUNDS)
litmus-proof: all $(LITMUS) $(LITMUS_GUEST)/litmus.elf
	$(Q)CC="$(CC)" LDLIBS="$(LDLIBS)" $(TALLY) $@ 300 tests/stress/proof.sh litmus $(B) $(call obj_of,$(LITMUS_SRCS))

TEST_TARGETS += litmus litmus-proof
