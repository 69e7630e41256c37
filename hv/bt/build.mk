# SPDX-License-Identifier: Apache-2.0
# Most of the engine runs with the guest's x87 and SSE state in the host's registers: no C code may use those.
BT_NOFPU := -mgeneral-regs-only -fno-tree-loop-distribute-patterns
# ThreadSanitizer's calls do.
BT_NOFPU += $(if $(filter thread,$(SAN)),-fno-sanitize=thread)
BT_SRCS := $(basename $(notdir $(wildcard hv/bt/*.c)))
$(foreach f,$(filter-out engine state,$(BT_SRCS)),$(eval CFLAGS_hv_bt_$(f) += $(BT_NOFPU)))
