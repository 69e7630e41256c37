# SPDX-License-Identifier: Apache-2.0
#
# tests/rig/build.mk - emulated hosts: `make rig-amd [CASE=word]` tests the kvm engine in one; tests/rig/host.py runs anything
# there.  RIG_NICE: its share of a busy machine, -20 to 19.  `make rig-roce [CASE=word] [LONG=1]`: the RDMA backends over
# soft-RoCE between two and three; LONG: five minutes of stress each, and the Linux guest, which CASE=linux-verbs is alone.

RIG := build/rig
RIG_IMAGE := $(RIG)/amd/stamp

# A kernel package that is newer than the image is taken when it is rebuilt, not before.
$(RIG_IMAGE): tests/rig/image.sh tests/rig/init tests/guest/kernel.sh
	$(Q)tests/guest/install-deps.sh
	$(Q)mkdir -p $(@D)
	$(Q)flock $(@D) tests/rig/image.sh $(@D)
	$(Q)touch $@

.PHONY: rig-image rig-amd rig-roce
rig-image: $(RIG_IMAGE)
rig-amd: all guest payloads rig-image
	$(Q)$(TALLY) $@ 600 tests/rig/host.py run --timeout 570 $(if $(RIG_NICE),--nice $(RIG_NICE)) --out $(B)/log/rig-amd.out \
		python3 -B tests/rig/amd.py $(CASE)

rig-roce: all guest payloads $(B)/tests/conform/fabric_conform rig-image
	$(Q)$(TALLY) $@ $(if $(LONG),5400,1500) python3 -B tests/rig/roce.py --bin $(B) --nice $(or $(RIG_NICE),-10) \
		--seconds $(if $(LONG),300 --linux,10) $(CASE)

TEST_TARGETS += rig-amd rig-roce

-include $(wildcard tests/rig/*/build.mk)
