# SPDX-License-Identifier: Apache-2.0
#
# tests/system/build.mk - whole machines: `make demo`, `make shell`, `make system [CASE=word]`; in `make test`.

CASE ?=

.PHONY: system
demo: deps all guest
	$(Q)tests/system/demo.sh
shell: deps all guest
	$(Q)tests/system/demo.sh --shell
system: all guest payloads
	$(Q)$(TALLY) $@ 1200 tests/system/run.sh $(CASE)

.PHONY: hosts
hosts: all guest payloads
	$(Q)$(TALLY) $@ 200 python3 -B tests/system/hosts.py $(CASE)

TEST_TARGETS += payloads-qemu system hosts
