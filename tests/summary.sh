#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/summary.sh RESULTS - the counts of all tiers that tests/tally.sh left there, and last, alone on a line, their sum.
#
# Exit  0 only when something passed and nothing failed.
set -u

cd "$1" || exit 1
echo "== sum"
for tier in *; do
	[ -f "$tier" ] && echo "$tier: $(cat "$tier")"
done | awk '
	{ printf "  %-14s %s\n", $1, substr($0, length($1) + 2); p += $2; f += $4; s += $6 }
	END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }'
