#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/mutants/run.sh BUILD-DIR [NAME...] - applies each slip of mutants.txt to its core, compiles it and
# looks who notices: checker, unit tests, simulator, in this order.  Prints a line each and, last, how many were killed.
# Exit 1 when one survives, does not change its file, or does not compile.
#
# Needs     the object files of the tests, built before (see build.mk).
# Limits    60 s of CPU time per tool; running out of it counts as noticed (a slip that loops).
set -u
out=$1; shift
only=" $* "
cc=${CC:-gcc}
flags="-std=gnu11 -O1 -D_GNU_SOURCE -Iinclude -pthread"
work=$out/mutants
jobs=${JOBS:-$(nproc)}
rm -rf "$work"; mkdir -p "$work"

# Links a test with the mutant core and runs it; true when it notices.
notices() { # dir, name, objects, libraries, arguments...
	local dir=$1 name=$2 objs=$3 libs=$4; shift 4
	$cc -pthread -o "$dir/$name" $objs "$dir"/core/*.o "$out"/obj/include/base/base.o $libs 2>>"$dir/log" || return 2
	! (ulimit -t 60; timeout 600 "$dir/$name" "$@"; exit $?) >>"$dir/log" 2>&1
}

# Who looks at a mutant of dsm/core, of vcpu-migrate/core: prints what has noticed.
look_dsm() { # dir
	local dir=$1
	local model="$test/check/model_main.o $test/check/model.o $test/check/model_check.o $test/check/model_state.o $test/check/model_observe.o $test/check/observe.o"
	if notices "$dir" model "$model" "" --small; then
		echo checker
	elif notices "$dir" unit-proto "$test/unit/dsm/test_proto.o" -lcriterion ||
	     notices "$dir" unit-wire "$test/unit/dsm/test_wire.o" -lcriterion ||
	     notices "$dir" unit-rehome "$test/unit/dsm/test_rehome.o" -lcriterion ||
	     notices "$dir" unit-dir "$test/unit/dsm/test_dir.o" -lcriterion; then
		echo "unit test"
	elif notices "$dir" sim "$(echo "$test"/sim/*.o) $out/obj/interconnect/core/frame.o" "" --seeds 100; then
		echo simulator
	elif notices "$dir" model "$model" ""; then
		echo checker
	fi
}

look_vcpu-migrate() { # dir
	local dir=$1
	if notices "$dir" model "$test/check/handoff_main.o $test/check/handoff.o $test/check/handoff_end.o $test/check/handoff_state.o" "" --small; then
		echo checker
	elif notices "$dir" unit "$test/unit/vcpu-migrate/test_handoff.o" -lcriterion; then
		echo "unit test"
	fi
}

one() { # name file sed
	local name=$1 core=dsm/core file=$2 expr=$3 dir=$work/$1 killer
	local test=$out/obj/tests
	case $file in */*) core=${file%/*} file=${file##*/} ;; esac
	mkdir -p "$dir/core" "$dir/src/$core"
	cp -r "$core" "$dir/src/${core%/*}/"
	sed -i "$expr" "$dir/src/$core/$file"
	if cmp -s "$core/$file" "$dir/src/$core/$file"; then
		echo "$name: its expression changes nothing" > "$dir/result"; return
	fi
	cp "$out/obj/$core"/*.o "$dir/core/"
	if ! $cc $flags -I"$dir/src" -I. -w -c "$dir/src/$core/$file" -o "$dir/core/${file%.c}.o" 2>"$dir/log"; then
		echo "$name: does not compile" > "$dir/result"; return
	fi
	killer=$(look_${core%%/*} "$dir")
	echo "$name: ${killer:-SURVIVES}" > "$dir/result"
	rm -f "$dir"/model "$dir"/unit* "$dir"/sim
}

total=0
names=()
while IFS='|' read -r name file expr; do
	name=${name//[[:space:]]/}
	case $name in ''|'#'*) continue ;; esac
	[ "$only" = "  " ] || [[ $only == *" $name "* ]] || continue
	file=${file//[[:space:]]/}
	expr=${expr# }
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	one "$name" "$file" "$expr" &
	names+=("$name")
	total=$((total + 1))
done < <(sed 's/^\([^|]*\)|\([^|]*\)| */\1|\2|/' tests/mutants/mutants.txt)
wait
killed=0
for name in "${names[@]}"; do
	line=$(cat "$work/$name/result")
	echo "  $line"
	case $line in *": checker"|*": unit test"|*": simulator") killed=$((killed + 1)) ;; esac
done
echo "killed $killed/$total"
echo "$killed passed, $((total - killed)) failed, 0 skipped"
[ "$killed" -eq "$total" ]
