# SPDX-License-Identifier: Apache-2.0
#
# tests/guest/build.mk - the guest image, build/guest/{vmlinuz,initrd}, the same for every SAN.

GUEST := build/guest

$(GUEST)/bin/%: tests/guest/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $< (static)")
	$(Q)$(CC) -std=gnu11 -O2 $(WARN) -static -pthread -o $@ $<

# Packages that are newer than the image are taken when it is rebuilt, not before.
$(GUEST)/stamp: tests/guest/build.sh tests/guest/kernel.sh tests/guest/init $(GUEST)/bin/tscpass $(GUEST)/bin/work $(GUEST)/bin/clocks
	$(Q)tests/guest/install-deps.sh
	$(Q)flock $(GUEST) tests/guest/build.sh $(GUEST)
	$(Q)touch $@

.PHONY: guest deps
# Building needs fewer packages than testing: the Makefile looks for the former, this for all; a moment when all are there.
deps:
	$(Q)tests/guest/install-deps.sh
guest: $(GUEST)/stamp
