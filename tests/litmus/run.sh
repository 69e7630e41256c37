#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tests/litmus/run.sh BUILD-DIR SECONDS ROUNDS - the litmus tests wherever a memory over several nodes can be touched.
#
# What      By native threads on every built transport, SECONDS each; as a payload guest over slices on the bt engine, and on
#           kvm where /dev/kvm can be opened, with ROUNDS (or a part of it) batches of each test.
# Prints    What the tool prints for each, then the sums: "N passed, N failed, N skipped", and last "forbidden N".
set -u
build=$1 seconds=$2 rounds=$3
litmus=$build/tests/litmus/litmus
passed=0 failed=0 skipped=0 forbidden=0
log=$(mktemp)
console=$(mktemp)
trap 'rm -f "$log" "$console"' EXIT INT TERM

run() { # arguments of litmus
	timeout 300 "$litmus" "$@" >"$log" 2>&1
	grep -v -e ' passed, ' -e '^forbidden ' "$log"
	set -- $(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, .*/\1 \2/p' "$log" | tail -n 1) \
		$(sed -n 's/^forbidden //p' "$log" | tail -n 1)
	if [ $# -eq 3 ]; then
		passed=$((passed + $1)) failed=$((failed + $2)) forbidden=$((forbidden + $3))
	else
		failed=$((failed + 1))
	fi
}

native() {
	echo "-- native threads: $*"
	run "$@"
}

guest() { # engine, slices, vCPUs, command line
	echo "-- guest on $1: $2 slices, $3 vCPUs, $4"
	timeout 170 "$build/bin/unum" run --engine "$1" --local "$2" --vcpus "$3" --memory $((32 * $2))MiB \
		--kernel "$build/tests/litmus/guest/litmus.elf" --cmdline "$4" >"$console" 2>"$log" || cat "$log"
	run --judge "$console"
}

if "$build/bin/unum-stress" --can; then
	transports=$("$litmus" --transports 2>"$log")
	grep SKIP "$log"
	skipped=$(grep -c SKIP "$log")
	for transport in $transports; do
		native --transport "$transport" --seconds "$seconds"
		native --transport "$transport" --seconds "$seconds" --nodes 3 --cache 64KiB --faults dispatch --seed 2
	done
else
	echo "  SKIP  native threads: this host lends no userfaultfd"
	skipped=$((skipped + 1))
fi
guest bt 2 2 "rounds=$rounds"
guest bt 2 4 "rounds=$(((rounds + 3) / 4))"
guest bt 3 6 "rounds=$(((rounds + 7) / 8))"
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
	guest kvm 2 2 "rounds=$(((rounds + 7) / 8)) lead=3000"
else
	echo "  SKIP  guest on kvm: /dev/kvm cannot be opened"
	skipped=$((skipped + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
echo "forbidden $forbidden"
[ "$failed" = 0 ]
