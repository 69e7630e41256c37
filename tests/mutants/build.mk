# SPDX-License-Identifier: Apache-2.0
#
# tests/mutants/build.mk - `make mutants`: slips in the protocol cores, each of which a test must notice.

.PHONY: mutants
mutants: $(B)/tests/check/model $(B)/tests/sim/sim $(B)/tests/unit/dsm/test_proto \
		$(B)/tests/unit/dsm/test_wire $(B)/tests/unit/dsm/test_dir $(B)/tests/unit/dsm/test_rehome \
		$(B)/tests/check/handoff $(B)/tests/unit/vcpu-migrate/test_handoff
	$(Q)CC="$(CC)" $(TALLY) $@ 900 tests/mutants/run.sh $(B)

TEST_TARGETS += mutants
