#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/unit/run.sh PROGRAM... - runs Criterion programs and sums up.
#
# Prints    A line for each program, the whole output of one that fails, and last "N passed, N failed, N skipped".
# Environment  UNIT_TIMEOUT seconds for each test (30; sanitizers 90), and three times that for a program.
# Exit      0 only when nothing failed.
set -u

limit=${UNIT_TIMEOUT:-$([ -n "${SAN:-}" ] && echo 90 || echo 30)}
export LSAN_OPTIONS="suppressions=tests/unit/lsan.supp:print_suppressions=0"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
passed=0 failed=0 skipped=0

for program in "$@"; do
	name=${program##*/tests/unit/}
	if [ "${SAN:-}" = thread ]; then
		tests=$(grep -c '^Test(' "tests/unit/$name.c")
		echo "  SKIP  $name ($tests tests): libcriterion crashes under ThreadSanitizer"
		skipped=$((skipped + tests))
		continue
	fi
	began=$(date +%s)
	timeout -k 5 $((3 * limit)) "$program" --verbose=1 --timeout "$limit" >"$log" 2>&1
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
		cat "$log"
	fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
