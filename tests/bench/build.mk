# SPDX-License-Identifier: Apache-2.0
#
# tests/bench/build.mk - `make bench [ROUNDS=N]`: all benches, lines of JSON in $(B)/bench.jsonl and tables of them;
# `make bench-page` puts the tables of the last bench into docs/performance.md.
$(call test_prog,tests/bench/dsm_bench,tests/bench/dsm_bench.c tests/bench/bench_floor.c)
$(call test_prog,tests/bench/fault_bench,tests/bench/fault_bench.c)

ROUNDS ?= 5
BENCH_LINES := $(B)/bench.jsonl

.PHONY: bench-dsm bench-fault bench-guest bench-page
bench-dsm: $(B)/tests/bench/dsm_bench
	$(Q)$< >$(B)/bench-dsm.jsonl; status=$$?; cat $(B)/bench-dsm.jsonl; exit $$status
# Also in an emulated host: tests/rig/host.py run $(B)/tests/bench/fault_bench 100
bench-fault: $(B)/tests/bench/fault_bench
	$(Q)$< >$(B)/bench-fault.jsonl; status=$$?; cat $(B)/bench-fault.jsonl; exit $$status
bench-guest: all guest
	$(Q)B=$(B) python3 -B tests/bench/guest_bench.py --rounds $(ROUNDS) --out $(BENCH_LINES)

# One after the other: what runs beside a bench is in its numbers.
bench: deps all guest
	$(Q)+$(MAKE) --no-print-directory bench-dsm
	$(Q)+$(MAKE) --no-print-directory bench-fault
	$(Q)cat $(B)/bench-dsm.jsonl $(B)/bench-fault.jsonl >$(BENCH_LINES)
	$(Q)+$(MAKE) --no-print-directory bench-guest
	$(Q)python3 -B tests/bench/bench_tables.py $(BENCH_LINES)
bench-page:
	$(Q)python3 -B tests/bench/bench_tables.py $(BENCH_LINES) --into docs/performance.md
