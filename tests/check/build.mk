# SPDX-License-Identifier: Apache-2.0
#
# tests/check/build.mk - `make model`: every reachable state of small VMs around the protocol core, and of a Promela model of
# the same protocol; both must reach the same.  `make model-handoff`: of a vCPU that moves among a few nodes.
# `make model-deep`, `make model-handoff-deep`: larger ones, for `make test`.

MODEL_SRCS := tests/check/model_main.c tests/check/model.c tests/check/model_check.c tests/check/model_state.c \
	tests/check/model_observe.c tests/check/observe.c
$(call test_prog,tests/check/model,$(MODEL_SRCS),)

$(call test_prog,tests/check/handoff,$(addprefix tests/check/handoff,_main.c .c _end.c _state.c),)

.PHONY: model model-deep model-handoff model-handoff-deep
model: $(B)/tests/check/model deps
	$(Q)$(TALLY) $@ 300 tests/check/run.sh $< $(B)/promela $(if $(SAN),--small)
model-deep: $(B)/tests/check/model deps
	$(Q)$(TALLY) $@ 900 tests/check/run.sh $< $(B)/promela-deep --deep
model-handoff: $(B)/tests/check/handoff deps
	$(Q)$(TALLY) $@ 300 $< $(if $(SAN),--small)
model-handoff-deep: $(B)/tests/check/handoff deps
	$(Q)$(TALLY) $@ 900 $< --deep

CHECK_TARGETS += model model-handoff
TEST_TARGETS += model-deep model-handoff-deep
