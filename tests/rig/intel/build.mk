# SPDX-License-Identifier: Apache-2.0
#
# tests/rig/intel/build.mk - make rig-intel: an unmodified Debian guest over two slices under real KVM, in an emulated Intel
# host. Takes 3 to 4 minutes with a CPU for itself, so it is no tier of make test. RIG_LIMIT: seconds after which
# it gives up. RIG_KERNEL: the host's, 6.12 unless said otherwise (linux-image-amd64 is Debian 12's 6.1).

RIG_INTEL := $(B)/rig-intel
RIG_LIMIT ?= 1200
RIG_KERNEL ?= linux-image-6.12-amd64
RIG_MIB := 1024
# Far more than Bochs does in a second, so emulated time is slow: then the time that a fault takes is in the proportion to
# the protocol's hold times that it has on a real machine.
RIG_HZ := 2000000000

$(RIG_INTEL)/job: tests/rig/intel/job.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 $(WARN) -static -s -pthread -o $@ $<

.PHONY: rig-intel rig-intel-deps
rig-intel-deps: deps
	$(Q)tests/guest/install-deps.sh bochs bochs-term bochsbios vgabios
rig-intel: all guest payloads rig-intel-deps $(RIG_INTEL)/job
	$(Q)tests/rig/intel/image.sh $(RIG_INTEL) $(RIG_KERNEL) $(B)/bin $(GUEST) $(PAYLOAD_OUT) tests/rig/intel/steps $(RIG_MIB) $(RIG_HZ)
	$(Q)tests/rig/intel/run.py $(RIG_INTEL) $(RIG_MIB) $(RIG_HZ) --limit $(RIG_LIMIT)
