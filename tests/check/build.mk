# SPDX-License-Identifier: Apache-2.0
#
# tests/check/build.mk - `make model`: every reachable state of small VMs around the protocol core, and of a Promela model of
# the same protocol; both must reach the same.  `make model-deep`: larger ones, for `make test`.

MODEL_SRCS := tests/check/model_main.c tests/check/model.c tests/check/model_state.c \
	tests/check/model_observe.c tests/check/observe.c
$(call test_prog,tests/check/model,$(MODEL_SRCS),)

.PHONY: model model-deep
model: $(B)/tests/check/model deps
	$(Q)$(TALLY) $@ 300 tests/check/run.sh $< $(B)/promela $(if $(SAN),--small)
model-deep: $(B)/tests/check/model deps
	$(Q)$(TALLY) $@ 900 tests/check/run.sh $< $(B)/promela-deep --deep

CHECK_TARGETS += model
TEST_TARGETS += model-deep
