#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/stress/proof.sh stress|litmus BUILD-DIR OBJECT... - the program notices when the memory is wrong.
#
# What      Builds it with each slip below (slip.sh) and runs it for a few seconds: it must count something wrong.  As a
#           control it runs once as it is, with the same options, and must count nothing.
# Prints    A line for each slip with what was counted and, last, "N passed, N failed, N skipped".
set -u
kind=$1 out=$2
shift 2
case $kind in
stress)
	word=violations options="--nodes 4 --seconds 4 --deadline 3"
	# An early acknowledgement makes the protocol refuse and stop: a fault that is not served is what is noticed.
	slips=("keeps-reading" "page-not-filled" "written-forgotten" "early-ack" "return-not-filled --cache 128KiB")
	good=$out/bin/unum-stress ;;
litmus)
	word=forbidden options="--seconds 5 --deadline 3"
	slips=("keeps-reading" "early-ack" "page-not-filled" "written-forgotten")
	good=$out/tests/litmus/litmus ;;
*)
	exit 2 ;;
esac
where=$out/proof
mkdir -p "$where"
passed=0 failed=0

# The count of the last line that begins with the word.
counted() { sed -n "s/^$word \([0-9]*\)$/\1/p" "$1" | tail -n 1; }

if ! "$out/bin/unum-stress" --can; then
	echo "  SKIP  this host lends no userfaultfd"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
fi
log=$where/$kind-good.log
timeout 60 "$good" $options >"$log" 2>&1
if [ "$(counted "$log")" = 0 ]; then
	passed=$((passed + 1))
	echo "  ok    as it is: $word 0"
else
	failed=$((failed + 1))
	echo "  FAIL  as it is: $word $(counted "$log"), see $log"
fi
for slip in "${slips[@]}"; do
	name=${slip%% *} more=
	[ "$name" = "$slip" ] || more=${slip#* }
	program=$where/$kind-$name log=$where/$kind-$name.log
	if ! tests/stress/slip.sh "$out" "$name" "$program" "$@" >"$log" 2>&1; then
		failed=$((failed + 1))
		echo "  FAIL  $name cannot be built, see $log"
		continue
	fi
	timeout 60 "$program" $options $more >"$log" 2>&1
	if [ "$(counted "$log")" -gt 0 ] 2>/dev/null; then
		passed=$((passed + 1))
		echo "  ok    $name: $word $(counted "$log")"
	else
		failed=$((failed + 1))
		echo "  FAIL  $name is not noticed, see $log"
	fi
	rm -f "$program"
done
# The same in a guest: the slice program with the slip under the bt engine.
if [ "$kind" = litmus ]; then
	log=$where/guest.log slice=$where/unum-slice
	if tests/stress/slip.sh "$out" keeps-reading-high "$slice" "$out/obj/hv/unum_slice_main.o" >"$log" 2>&1; then
		timeout 100 "$out/bin/unum" run --engine bt --slice "$(realpath "$slice")" --local 2 --vcpus 2 --memory 64MiB \
			--kernel "$out/tests/litmus/guest/litmus.elf" --cmdline rounds=8 >"$where/guest.console" 2>>"$log"
		"$good" --judge "$where/guest.console" >>"$log" 2>&1
	fi
	if [ "$(counted "$log")" -gt 0 ] 2>/dev/null; then
		passed=$((passed + 1))
		echo "  ok    keeps-reading-high in a guest: $word $(counted "$log")"
	else
		failed=$((failed + 1))
		echo "  FAIL  keeps-reading-high in a guest is not noticed, see $log"
	fi
	rm -f "$slice"
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
