#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/lint/run.sh - runs every other script of this folder; each is one case.
set -u

passed=0 failed=0
for script in tests/lint/*.sh; do
	name=$(basename "$script" .sh)
	[ "$name" = run ] && continue
	if "$script"; then
		passed=$((passed + 1))
		echo "  ok    $name"
	else
		failed=$((failed + 1))
		echo "  FAIL  $name"
	fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
