# SPDX-License-Identifier: Apache-2.0
#
# tests/migrate/build.mk - vCPUs on the move under running guests: `make migrate [CASE=word]`, in `make test`;
# `make migrate-long`: 10 000 moves under payloads and 2 000 under Linux, and kills among them.

.PHONY: migrate migrate-long
migrate: all guest payloads
	$(Q)$(TALLY) $@ 600 python3 -B tests/migrate/moves.py $(CASE)
migrate-long: all guest payloads
	$(Q)$(TALLY) $@ 3600 python3 -B tests/migrate/moves.py --long $(CASE)

# Nodes that leave a running VM, and die or come back; the long one drains 20 times.
.PHONY: drain drain-long
drain: all guest
	$(Q)$(TALLY) $@ 900 python3 -B tests/migrate/drain.py $(CASE)
drain-long: all guest
	$(Q)$(TALLY) $@ 3600 python3 -B tests/migrate/drain.py --long $(CASE)

TEST_TARGETS += migrate drain

# In lines of JSON: the pause of a move, its parts, and moves a second.
.PHONY: bench-move
bench-move: all payloads
	$(Q)rm -f $(B)/bench-move.jsonl
	$(Q)B=$(B) python3 -B tests/bench/move_bench.py --out $(B)/bench-move.jsonl
