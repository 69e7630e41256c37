# SPDX-License-Identifier: Apache-2.0
#
# tests/check/build.mk - `make model`: every reachable state of small VMs around the protocol core.

MODEL_SRCS := tests/check/model_main.c tests/check/model.c tests/check/model_state.c
$(call test_prog,tests/check/model,$(MODEL_SRCS),)

.PHONY: model
model: $(B)/tests/check/model
	$(Q)$<

CHECK_TARGETS += model
