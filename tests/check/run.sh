#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/check/run.sh MODEL WORK [OPTION] - the checker and the Promela model, one after the other; their violations last.
set -u
model=$1 work=$2 option=${3:-}
passed=0 failed=0
mkdir -p "$work"

run() {
	local p= f=
	"$@" 2>&1 | tee "$work/out" | grep -v -E '^[0-9]+ (passed,|violations$)'
	read -r p f < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, .*/\1 \2/p' "$work/out")
	passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1}))
}

run "$model" $option
[ "$option" = --small ] || run tests/check/promela/run.sh "$model" "$work" $option
echo "$passed passed, $failed failed, 0 skipped"
echo "$failed violations"
[ "$failed" -eq 0 ]
