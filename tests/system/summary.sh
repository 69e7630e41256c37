#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/system/summary.sh RESULTS - adds up the closing lines that the test runners left in RESULTS, one file each.
set -u

for f in "$1"/*; do
	[ -f "$f" ] && printf '  %-10s %s\n' "$(basename "$f")" "$(cat "$f")"
done
cat "$1"/* 2>/dev/null | awk '
	{ p += $1; f += $3; s += $5 }
	END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }'
