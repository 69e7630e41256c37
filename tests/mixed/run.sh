#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/mixed/run.sh - vCPUs between a kvm slice and a bt slice: refused while they show different CPUs, and by which
#                      features; moved, many times, when they show the same.
set -u
cd "$(dirname "$0")/../.." || exit 1

bin=${B:-build}/tests/mixed/mixed
logs=${B:-build}/system/mixed
mkdir -p "$logs"
passed=0 failed=0 skipped=0

# case NAME COMMAND: status 0 passes, 77 skips
case_run() {
	local name=$1 status
	shift
	"$@" >"$logs/$name.log" 2>"$logs/$name.err"
	status=$?
	if [ $status = 0 ]; then
		passed=$((passed + 1))
		echo "  ok    $name: $(tail -n 1 "$logs/$name.log")"
	elif [ $status = 77 ]; then
		skipped=$((skipped + 1))
		echo "  skip  $name: $(head -n 1 "$logs/$name.err")"
	else
		failed=$((failed + 1))
		echo "  FAIL  $name (status $status, $logs/$name.log)"
		tail -q -n 5 "$logs/$name.err" "$logs/$name.log" | sed 's/^/        /'
	fi
}

# What a kvm slice of this host lacks of the bt slice's CPU: in the reason of the refusals.
words_of() {
	sed -n 's/.*was shown: it \(lacks\|shows also\) \([a-z0-9_ ]*\).*/\2/p' "$1" | head -n 1
}

refused() {
	timeout 120 "$bin" "$PAYLOADS/ipi.elf" kvm bt 50 "patience=150" || return
	[ -n "$(words_of "$logs/refused.err")" ]
}

# moves PAYLOAD RATE LEAST
moves() {
	timeout 170 "$bin" "$PAYLOADS/$1.elf" kvm bt "$2" "patience=150 $4" "$without" || return
	grep -q "PASS" "$logs/$1.log" || return 1
	[ "$(sed -n 's/^{"moves":\([0-9]*\),"refused":0,.*/\1/p' "$logs/$1.log")" -ge "$3" ]
}

PAYLOADS=${PAYLOADS:-build/payloads}
case_run refused refused
without=$(words_of "$logs/refused.err")
for line in "ipi 100 20 rounds=4" "lock 100 5 rounds=100 wide=0" "timer 50 5 rounds=8"; do
	read -r name rate least words <<<"$line"
	case_run "$name" moves "$name" "$rate" "$least" "$words"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
