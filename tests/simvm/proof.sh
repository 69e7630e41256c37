#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/simvm/proof.sh BUILD-DIR OBJECT... - (ONLY=NAME: one slip) does the simulator of whole machines notice?  Links it with each slip of
# slips.txt and runs 50 seeds, until one fails.
#
# Needs     CC: the compiler with all flags for one file; LD: what the simulator is linked with (build.mk).
set -u
out=$1; shift
objs=$*
work=$out/simvm-proof
rm -rf "$work"; mkdir -p "$work"

one() { # name file sed
	local name=$1 file=$2 expr=$3 dir=$work/$1
	mkdir -p "$dir"
	sed "$expr" "$file" > "$dir/slip.c"
	if cmp -s "$file" "$dir/slip.c"; then echo "$name: its expression changes nothing"; return 1; fi
	if ! { $CC -I"$(dirname "$file")" -c "$dir/slip.c" -o "$dir/slip.o" && $CC -rdynamic -o "$dir/simvm" $objs "$dir/slip.o" $LD; } \
			>"$dir/log" 2>&1; then
		echo "$name: does not compile or link: $dir/log"; return 1
	fi
	if timeout 900 "$dir/simvm" build/payloads --seeds 50 --first >"$dir/log" 2>&1; then
		echo "$name: SURVIVES 50 seeds"; return 1
	fi
	echo "$name: noticed by $(grep -m 1 FAILED "$dir/log")"
}

passed=0 failed=0
while IFS='|' read -r name file expr; do
	name=${name//[[:space:]]/}
	case $name in ''|'#'*) continue ;; esac
	[ -z "${ONLY:-}" ] || [ "$ONLY" = "$name" ] || continue
	if [ -z "$file" ]; then
		IFS='|' read -r _ file expr < <(grep "^$name " tests/mutants/mutants.txt)
		file=dsm/core/${file//[[:space:]]/}
	fi
	if one "$name" "${file//[[:space:]]/}" "${expr# }"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done < tests/simvm/slips.txt
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
