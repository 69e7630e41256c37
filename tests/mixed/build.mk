# SPDX-License-Identifier: Apache-2.0
#
# tests/mixed/build.mk - vCPUs that move between a bt and a kvm slice of one VM: `make mixed`; in `make test`.

$(call test_prog,tests/mixed/mixed,tests/mixed/mixed.c,)

.PHONY: mixed
mixed: $(B)/tests/mixed/mixed payloads
	$(Q)$(TALLY) $@ 400 tests/mixed/run.sh

TEST_TARGETS += mixed
