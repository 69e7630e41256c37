#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/fuzz/run.sh DIR SECONDS TARGET... - runs each target of DIR/tests/fuzz that long; a line each and the count.
#
# What      First the checked-in corpus alone, then new inputs on top of it and of what earlier runs found (DIR/corpus/TARGET).
#           A finding is in DIR/found, with the command that replays it.  JOBS at once (default: all CPUs).
# Limits    60 s and 2 GiB an input (a packed kernel may be half a GiB); a target that does not even begin is a failure.
set -u
dir=$1 seconds=$2; shift 2
jobs=${JOBS:-$(nproc)}
found=$dir/found log=$dir/log
mkdir -p "$found" "$log"
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16:allocator_may_return_null=1}

one() { # target
	local name=$1 prog=$dir/tests/fuzz/$1 own=$dir/corpus/$1 seeds=tests/fuzz/corpus/$1 out=$log/$1
	mkdir -p "$own"
	if "$prog" -timeout=60 -rss_limit_mb=2048 -max_total_time="$seconds" -print_final_stats=1 \
		-use_value_profile=1 -artifact_prefix="$found/$name-" "$own" "$seeds" >"$out" 2>&1; then
		awk -v name="$name" '
			/ cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
			/number_of_executed_units/ { runs = $2 }
			END { printf "  %-10s %10d inputs, %5d edges, corpus %s: clean\n", name, runs, cov, corp }' "$out" >"$out.line"
	else
		{
			echo "  $name: FOUND"
			grep -E 'ERROR|SUMMARY|runtime error|assertion|ASSERT' "$out" | head -n 5 | sed 's/^/      /'
			sed -n 's/.*Test unit written to \(.*\)/      replay: '"${prog//\//\\/}"' \1/p' "$out"
		} >"$out.line"
	fi
}

for name; do
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	rm -f "$log/$name.line"
	one "$name" &
done
wait
passed=0 failed=0
for name; do
	if grep -q ': clean$' "$log/$name.line" 2>/dev/null; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	cat "$log/$name.line" 2>/dev/null || echo "  $name: did not run"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
