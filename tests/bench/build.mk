# SPDX-License-Identifier: Apache-2.0
#
# tests/bench/build.mk - `make bench [ROUNDS=N]`: all benches, lines of JSON in $(B)/bench.jsonl and tables of them;
# `make bench-page` puts the tables of the last bench into docs/performance.md.
$(call test_prog,tests/bench/dsm_bench,$(addprefix tests/bench/,dsm_bench.c bench_floor.c bench_nodes.c))
$(call test_prog,tests/bench/fault_bench,tests/bench/fault_bench.c)

$(call test_prog,tests/bench/fabric_bench,$(addprefix tests/bench/,fabric_bench.c bare_host.c bench_nodes.c))

# What the interconnect is compared with, where that takes a library.
BARE_PATHS := $(foreach n,ofi ucx,$(B)/tests/bench/bare-$(n).so)
TEST_PROGS += $(BARE_PATHS)
$(B)/obj/tests/bench/bare_%.o: CFLAGS += -fPIC
$(BARE_PATHS): $(B)/tests/bench/bare-%.so: $(B)/obj/tests/bench/bare_%.o
	@mkdir -p $(@D)
	$(if $(Q),@echo "  SO    $@")
	$(Q)$(CC) -shared $(if $(SAN),-fsanitize=$(SAN)) -o $@ $< $(shell pkg-config --libs $(PATH_PKGS_$*))

ROUNDS ?= 5
BENCH_LINES := $(B)/bench.jsonl

.PHONY: bench-fabric bench-dsm bench-fault bench-guest bench-placement bench-page
bench-fabric: $(B)/tests/bench/fabric_bench | $(PATHS) $(BARE_PATHS)
	$(Q)$< >$(B)/bench-fabric.jsonl; status=$$?; cat $(B)/bench-fabric.jsonl; exit $$status
bench-dsm: $(B)/tests/bench/dsm_bench
	$(Q)$< >$(B)/bench-dsm.jsonl; status=$$?; cat $(B)/bench-dsm.jsonl; exit $$status
# Also in an emulated host: tests/rig/host.py run $(B)/tests/bench/fault_bench 100
bench-fault: $(B)/tests/bench/fault_bench
	$(Q)$< >$(B)/bench-fault.jsonl; status=$$?; cat $(B)/bench-fault.jsonl; exit $$status
bench-guest: all guest
	$(Q)B=$(B) python3 -B tests/bench/guest_bench.py --rounds $(ROUNDS) --out $(BENCH_LINES)

bench-placement: all payloads
	$(Q)B=$(B) python3 -B tests/bench/placement.py --rounds $(ROUNDS) --out $(BENCH_LINES)

# One after the other: what runs beside a bench is in its numbers.
bench: deps all guest payloads
	$(Q)+$(MAKE) --no-print-directory bench-fabric
	$(Q)+$(MAKE) --no-print-directory bench-dsm
	$(Q)+$(MAKE) --no-print-directory bench-fault
	$(Q)cat $(B)/bench-fabric.jsonl $(B)/bench-dsm.jsonl $(B)/bench-fault.jsonl >$(BENCH_LINES)
	$(Q)+$(MAKE) --no-print-directory bench-placement
	$(Q)+$(MAKE) --no-print-directory bench-move
	$(Q)cat $(B)/bench-move.jsonl >>$(BENCH_LINES)
	$(Q)+$(MAKE) --no-print-directory bench-guest
	$(Q)python3 -B tests/bench/bench_tables.py $(BENCH_LINES)
bench-page:
	$(Q)python3 -B tests/bench/bench_tables.py $(BENCH_LINES) --into docs/performance.md
