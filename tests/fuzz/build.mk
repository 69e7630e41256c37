# SPDX-License-Identifier: Apache-2.0
#
# tests/fuzz/build.mk - libFuzzer on every decoder of untrusted bytes.
#
#   make fuzz [SECONDS=60]   each target that long; what is found is in $(B)/fuzz/found
#   make fuzz-smoke          the corpora, and then a few seconds each
#   make fuzz-seeds          writes tests/fuzz/corpus anew, from the encoders themselves
#
# Targets are built by clang with sanitizers into $(B)/fuzz: this Makefile once more, with only the libraries that decode.

SECONDS ?= 60
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_CC := clang-14 -fno-sanitize-recover=all
FUZZ_SAN := fuzzer-no-link,address,undefined
FUZZ_LIBS := hv/bt hv/core dsm/core cluster-config cluster-config/core interconnect interconnect/core include/base

ifeq ($(SAN),$(FUZZ_SAN))
FUZZ_MORE := hv/wire.c hv/kernel_image.c hv/snapshot.c vcpu-migrate/wire.c
FUZZ_MORE_bt := tests/bt/fake_dsm.c tests/bt/guest.c
$(foreach t,$(FUZZ_TARGETS),$(call test_prog,tests/fuzz/$(t),tests/fuzz/fuzz_$(t).c $(FUZZ_MORE) \
	$(FUZZ_MORE_$(t)),-fsanitize=fuzzer))
endif
$(call test_prog,tests/fuzz/seeds,tests/fuzz/seeds.c hv/wire.c hv/snapshot.c vcpu-migrate/wire.c,)

.PHONY: fuzz fuzz-smoke fuzz-build fuzz-seeds
fuzz-build:
	$(Q)tests/guest/install-deps.sh clang-14 libclang-rt-14-dev
	$(Q)+$(MAKE) --no-print-directory B=$(B)/fuzz SAN=$(FUZZ_SAN) CC="$(FUZZ_CC)" LIB_DIRS='$(FUZZ_LIBS)' \
		WARN=-Wall BT_NOFPU= $(FUZZ_TARGETS:%=$(B)/fuzz/tests/fuzz/%)
fuzz: fuzz-build
	$(Q)$(TALLY) $@ 86400 tests/fuzz/run.sh $(B)/fuzz $(SECONDS) $(FUZZ_TARGETS)
fuzz-smoke: fuzz-build
	$(Q)$(TALLY) $@ 300 tests/fuzz/run.sh $(B)/fuzz 3 $(FUZZ_TARGETS)
fuzz-seeds: $(B)/tests/fuzz/seeds
	$(Q)$< tests/fuzz/corpus

TEST_TARGETS += fuzz-smoke
