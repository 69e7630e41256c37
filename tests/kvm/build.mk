# SPDX-License-Identifier: Apache-2.0
#
# tests/kvm/build.mk - payload guests under this machine's own /dev/kvm: `make kvm [CASE=word]`; in `make test`.

.PHONY: kvm
kvm: all payloads
	$(Q)$(TALLY) $@ 900 tests/kvm/run.sh $(CASE)

TEST_TARGETS += kvm
