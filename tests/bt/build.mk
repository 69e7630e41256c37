# SPDX-License-Identifier: Apache-2.0
BT_TEST_LIB := tests/bt/fake_dsm.c tests/bt/guest.c
CFLAGS_tests_bt_fake_dsm := -mgeneral-regs-only
$(call test_prog,tests/bt/small,tests/bt/small.c $(BT_TEST_LIB))
$(call test_prog,tests/bt/diff,tests/bt/diff.c tests/bt/gen.c tests/bt/native.c $(BT_TEST_LIB))

.PHONY: bt-check bt-diff-long
bt-check: $(B)/tests/bt/small $(B)/tests/bt/diff
	$(Q)$(TALLY) bt-small 60 $(B)/tests/bt/small
	$(Q)$(TALLY) bt-diff 60 $(B)/tests/bt/diff 200000 1
bt-diff-long: $(B)/tests/bt/diff
	$(Q)$(TALLY) $@ 300 $< 1200000 2
CHECK_TARGETS += bt-check
TEST_TARGETS += bt-diff-long
