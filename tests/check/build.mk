# SPDX-License-Identifier: Apache-2.0
#
# tests/check/build.mk - `make model`: every reachable state of small VMs around the protocol core;
# `make model-deep`: larger ones, for `make test`.

MODEL_SRCS := tests/check/model_main.c tests/check/model.c tests/check/model_state.c
$(call test_prog,tests/check/model,$(MODEL_SRCS),)

.PHONY: model model-deep
model: $(B)/tests/check/model
	$(Q)$(TALLY) $@ 300 $< $(if $(SAN),--small)
model-deep: $(B)/tests/check/model
	$(Q)$(TALLY) $@ 600 $< --deep

CHECK_TARGETS += model
TEST_TARGETS += model-deep
