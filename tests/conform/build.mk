# SPDX-License-Identifier: Apache-2.0
# Suites that every backend, or every mapping, must pass.  In check: a few seconds of each.
$(call test_prog,tests/conform/fabric_conform,$(wildcard tests/conform/fabric_*.c))
$(call test_prog,tests/conform/dsm_nodes,tests/conform/dsm_nodes.c)

.PHONY: conform conform-long
CONFORM_NEEDS := $(PATHS) $(B)/tests/mock/libibverbs.so.1
conform: $(B)/tests/conform/fabric_conform $(B)/tests/conform/dsm_nodes | $(CONFORM_NEEDS)
	$(Q)$(TALLY) $@ 300 tests/conform/run.sh short $^
conform-long: $(B)/tests/conform/fabric_conform $(B)/tests/conform/dsm_nodes | $(CONFORM_NEEDS)
	$(Q)$(TALLY) $@ 900 tests/conform/run.sh long $^

CHECK_TARGETS += conform
TEST_TARGETS += conform-long
