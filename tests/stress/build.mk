# SPDX-License-Identifier: Apache-2.0
#
# tests/stress/build.mk - unum-stress: one memory over several processes, under everything at once.  `make stress` runs it
# on every transport; `make stress-proof` shows that it notices a memory that is wrong.

STRESS_SRCS := tests/stress/stress_main.c tests/stress/stress_node.c tests/stress/stress_ops.c \
	tests/stress/stress_bound.c tests/stress/nodes.c
$(call test_prog,bin/unum-stress,$(STRESS_SRCS),)

.PHONY: stress stress-proof
all: $(B)/bin/unum-stress
stress: $(B)/bin/unum-stress
	$(Q)$(TALLY) $@ 1200 tests/stress/run.sh $<
stress-proof: $(B)/bin/unum-stress
	$(Q)CC="$(CC)" LDLIBS="$(LDLIBS)" $(TALLY) $@ 300 tests/stress/proof.sh stress $(B) $(call obj_of,$(STRESS_SRCS))

TEST_TARGETS += stress stress-proof
