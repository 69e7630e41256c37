# SPDX-License-Identifier: Apache-2.0
BT_TEST_LIB := tests/bt/fake_dsm.c tests/bt/guest.c
CFLAGS_tests_bt_fake_dsm := -mgeneral-regs-only
$(call test_prog,tests/bt/small,tests/bt/small.c $(BT_TEST_LIB))
