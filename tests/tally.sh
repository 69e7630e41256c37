#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/tally.sh TIER SECONDS COMMAND... - runs one tier of tests, at most that long, and keeps what it counted.
#
# What      The command's last line of the form "N passed, N failed, N skipped" is its count, kept in
#           $B/results/TIER for tests/summary.sh; its whole output is in $B/log/TIER.  One that ends badly without
#           a failure in its count, or without a count, has one failure more: a crash or a timeout is never a pass.
# Exit      0 only when nothing failed and something ran.
set -u

tier=$1 limit=$2
shift 2
mkdir -p "$B/results" "$B/log"
log=$B/log/$tier
rm -f "$B/results/$tier" "$log.status"

echo "== $tier"
began=$(date +%s)
# timeout makes a group of its own, which an interrupt from the terminal does not reach.
trap 'kill $(cat "$log.pid") 2>/dev/null' INT TERM HUP
{
	timeout -k 10 "$limit" "$@" </dev/null 2>&1 &
	echo $! >"$log.pid"
	wait $!
	echo $? >"$log.status"
} | tee "$log"
status=$(cat "$log.status" 2>/dev/null || echo 1)
seconds=$(($(date +%s) - began))
rm -f "$log.pid" "$log.status"

counts=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
set -- ${counts:-0 passed, 0 failed, 0 skipped}
passed=$1 failed=$3 skipped=$5
[ "$status" -eq 124 ] && echo "$tier: not done after $limit s"
if [ "$failed" -eq 0 ] && { [ "$status" -ne 0 ] || [ $((passed + skipped)) -eq 0 ]; }; then
	echo "$tier: exit status $status, $passed passed: that is a failure"
	failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped, $seconds s" >"$B/results/$tier"
[ "$failed" -eq 0 ]
