#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/unit/run.sh PROGRAM... - runs Criterion programs, each with a timeout, and sums up.
#
# Prints    A line for each program, the whole output of one that fails, and last "N passed, N failed, N skipped",
#           also into $RESULTS/unit for the closing summary of `make test`.
# Environment  UNIT_TIMEOUT seconds for each program (60; sanitizers 180).
# Exit      0 only when nothing failed and at least one test ran.
set -u

build=${B:-build${SAN:+-$SAN}}
results=$build/results
limit=${UNIT_TIMEOUT:-$([ -n "${SAN:-}" ] && echo 180 || echo 60)}
mkdir -p "$results"
rm -f "$results/unit"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
passed=0 failed=0 skipped=0

for program in "$@"; do
	name=${program#"$build"/tests/unit/}
	began=$(date +%s)
	timeout -k 5 "$limit" "$program" --verbose=1 >"$log" 2>&1
	status=$?
	# [====] Synthesis: Tested: 5 | Passing: 4 | Failing: 1 | Crashing: 0
	eval "$(sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
		/Synthesis:/ { gsub(/[|:]/, " "); for (i = 1; i < NF; i++) n[$i] = $(i + 1) }
		/^\[SKIP\]/ { skip++ }
		END { printf "tested=%d pass=%d bad=%d skip=%d", n["Tested"], n["Passing"], n["Failing"] + n["Crashing"], skip }')"
	if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then
		bad=1 # it ended before it could say so: a timeout, a crash outside a test
	fi
	if [ "$tested" -eq 0 ] && [ "$skip" -eq 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
		echo "$name: no test ran" >>"$log"
	fi
	passed=$((passed + pass)) failed=$((failed + bad)) skipped=$((skipped + skip))
	if [ "$bad" -eq 0 ]; then
		printf '  ok    %s (%d tests, %ds)\n' "$name" "$pass" $(($(date +%s) - began))
		grep '^\[SKIP\]' "$log"
	else
		printf '  FAIL  %s (status %d)\n' "$name" "$status"
		[ $status -eq 124 ] && echo "        not done after $limit s"
		cat "$log"
	fi
done

echo "$passed passed, $failed failed, $skipped skipped" | tee "$results/unit"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
