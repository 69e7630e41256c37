#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/check/promela/run.sh MODEL WORK [--deep|--slips] - spin on protocol.pml, and its states against those of MODEL, the checker.
#
# What      Worlds: spin's errors (assertions, invalid end states), then the sets of reachable states of both models, as
#           observe.h has them; the first that only one of them reaches are printed by name.  --deep: all features at once, each
#           waiting thread is served under weak fairness, and slips (slips.txt), each of which spin must find.
# Limits    Needs spin and gcc.  Verifiers and states are in WORK.
set -u
model=$1 work=$2 deep=${3:-}
src=tests/check/promela
objs=$(realpath "${model%/tests/*}/obj/tests/check/observe.o")
passed=0 failed=0
export LC_ALL=C
mkdir -p "$work"
work=$(cd "$work" && pwd)
top=$PWD

verdict() { # 0 or 1, text
	if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	echo "  $2"
}

# pan NAME "SPIN-FLAGS" "C-FLAGS" SED: the verifier work/NAME/pan
pan() {
	mkdir -p "$work/$1"
	sed "$4" "$src/protocol.pml" >"$work/$1/p.pml"
	(cd "$work/$1" && spin $2 -a p.pml >spin.out 2>&1 &&
		gcc -O1 -w -I"$top" -DNOREDUCE -DXUSAFE $3 -o pan pan.c "$objs" 2>>spin.out) ||
		{ cat "$work/$1/spin.out"; return 1; }
}

figure() { sed -n "s/.*$2.*/\\1/p" "$1" | head -n 1; }

# errors NAME: how many spin found, "?" when it did not get through
errors() {
	local out=$work/$1/out n
	n=$(figure "$out" 'errors: \([0-9]*\)')
	grep -q 'max search depth too small\|out of memory\|Search not completed' "$out" && [ "$n" = 0 ] && n=
	echo "${n:-?}"
}

world() { # nodes migratory-evidence migratory-probe holds evicts
	local name=w-$1-$2-$3-$4-$5 spin="-DN=$1 -DMIG_E=$2 -DMIG_P=$3 -DOBSERVE" check="--nodes $1 --migratory $2,$3"
	local what="$1 nodes, migratory $2,$3" dir=$work/w-$1-$2-$3-$4-$5 n states only
	if [ "$4" = 1 ]; then spin+=" -DHOLDS" what+=", hold"; else check+=" --no-hold"; fi
	if [ "$5" = 1 ]; then spin+=" -DEVICTS" what+=", evict"; else check+=" --no-evict"; fi
	pan "$name" "$spin" -DSAFETY "" || { verdict 1 "promela, $what: no verifier"; return; }
	OBSERVE=$dir/promela.txt "$dir/pan" -m200000 -w20 >"$dir/out" 2>&1
	n=$(errors "$name")
	verdict "$([ "$n" = 0 ]; echo $?)" "promela, $what: $(wc -l <"$dir/promela.txt") states, depth $(figure "$dir/out" \
		'depth reached \([0-9]*\)'), $(figure "$dir/out" 'elapsed time \([0-9.]*\)') s, $n violations"
	[ "$n" = 0 ] || found "$dir/out"
	"$model" $check --observe "$dir/c.txt" >"$dir/c.out" || { cat "$dir/c.out"; verdict 1 "the checker, $what: fails"; return; }
	comm -23 "$dir/c.txt" "$dir/promela.txt" >"$dir/only-c"
	comm -13 "$dir/c.txt" "$dir/promela.txt" >"$dir/only-promela"
	states=$(wc -l <"$dir/c.txt")
	only="only in C: $(wc -l <"$dir/only-c"), only in Promela: $(wc -l <"$dir/only-promela")"
	verdict "$([ ! -s "$dir/only-c" ] && [ ! -s "$dir/only-promela" ] && [ "$states" -gt 1 ]; echo $?)" \
		"checker and Promela, $what: $states states of C; $only"
	head -n 3 "$dir/only-c" | sed 's/^/    only in C: /'
	head -n 3 "$dir/only-promela" | sed 's/^/    only in Promela: /'
}

fair() { # nodes flags text
	local dir=$work/fair-$1
	pan "fair-$1" "-DN=$1 -DFAIR $2" "-DNFAIR=5" "" || { verdict 1 "promela, fairness: no verifier"; return; }
	"$dir/pan" -a -f -m2000000 -w22 >"$dir/out" 2>&1
	n=$(errors "fair-$1")
	verdict "$([ "$n" = 0 ]; echo $?)" "promela, $3: whoever waits is served under weak fairness: $(figure "$dir/out" \
		' \([0-9]*\) states, stored') states, $(figure "$dir/out" 'elapsed time \([0-9.]*\)') s, $n violations"
}

found() { sed -n 's/^pan:[0-9]*: \(.*\) (at depth .*/\1/p' "$1" | head -n 1; }

slip() { # name nodes expression; "3f": without holds and evictions, and only the never claim finds it
	local dir=$work/slip-$1 nodes=${2%f} flags=-DN=${2%f} how=
	[ "$nodes" = "$2" ] && flags+=" -DHOLDS -DEVICTS"
	if ! sed "$3" "$src/protocol.pml" | cmp -s - "$src/protocol.pml"; then
		pan "slip-$1" "$flags" -DSAFETY "$3" || { verdict 1 "slip $1: does not compile"; return; }
		timeout 120 "$dir/pan" -m200000 -w20 >"$dir/out" 2>&1
		how=$(found "$dir/out")
		if [ -z "$how" ] && [ "$nodes" != "$2" ]; then
			pan "slip-$1" "$flags -DFAIR" "-DNFAIR=5" "$3" || { verdict 1 "slip $1: does not compile"; return; }
			timeout 120 "$dir/pan" -a -f -m2000000 -w22 >"$dir/out" 2>&1
			how=$(found "$dir/out")
		fi
	else
		how= ; echo "  slip $1: its expression changes nothing"
	fi
	verdict "$([ -n "$how" ]; echo $?)" "slip $1: ${how:-NOT FOUND}"
}

slips() {
	while IFS='|' read -r name nodes expr; do
		name=${name//[[:space:]]/} nodes=${nodes//[[:space:]]/}
		case $name in ''|'#'*) continue ;; esac
		slip "$name" "$nodes" "${expr# }"
	done < <(sed 's/^\([^|]*|[^|]*\)| */\1|/' "$src/slips.txt")
}

if [ "$deep" = --slips ]; then
	slips
elif [ "$deep" = --deep ]; then
	world 3 2 2 1 1
	world 3 1 1 0 1
	fair 2 "-DMIG_E=1 -DMIG_P=1 -DHOLDS -DEVICTS" "2 nodes, hold, evict"
	fair 3 "" "3 nodes"
	slips
else
	world 2 1 1 1 1
	world 2 2 3 1 1
	world 3 0 0 0 0
fi
echo "$passed passed, $failed failed, 0 skipped"
echo "$failed violations"
[ "$failed" -eq 0 ]
