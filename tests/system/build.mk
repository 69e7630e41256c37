# SPDX-License-Identifier: Apache-2.0
#
# tests/system/build.mk - whole machines: `make demo`, `make shell`, `make system [CASE=word]`; in `make test`.

CASE ?=

.PHONY: system test-begin
demo: deps all guest
	$(Q)B=$(B) tests/system/demo.sh
shell: deps all guest
	$(Q)B=$(B) tests/system/demo.sh --shell
system: all guest payloads
	$(Q)B=$(B) tests/system/run.sh $(CASE)

TEST_TARGETS += payloads-qemu system

# First no counts of an earlier run, last of all the sum of what the runners counted.
test-begin:
	$(Q)rm -rf $(B)/results
test: test-begin
	$(Q)tests/system/summary.sh $(B)/results
