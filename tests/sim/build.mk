# SPDX-License-Identifier: Apache-2.0
#
# tests/sim/build.mk - `make sim [SEEDS=1000]`: seeded runs of the protocol core, every read checked.

SEEDS ?= 1000
$(call test_prog,tests/sim/sim,tests/sim/sim_main.c tests/sim/sim.c tests/sim/sim_node.c tests/sim/sim_thread.c \
	tests/sim/sim_drain.c,)

.PHONY: sim
sim: $(B)/tests/sim/sim
	$(Q)$(TALLY) $@ 120 sh -c "$< --growth && $< --seeds $(SEEDS)"

CHECK_TARGETS += sim
