# SPDX-License-Identifier: Apache-2.0
# Benches; `make bench` runs them.
$(call test_prog,tests/bench/dsm_bench,tests/bench/dsm_bench.c tests/bench/bench_floor.c)

.PHONY: bench-dsm
bench-dsm: $(B)/tests/bench/dsm_bench
	$(Q)$<
bench: bench-dsm
